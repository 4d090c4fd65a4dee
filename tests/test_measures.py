"""Measures against values computed by hand, and PCA against its defining properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.measures import bce, fit_pca, pca_reconstruct, psnr, scaled_batches, squared_error

IMAGES = np.array([[0, 0.5, 1], [1, 1, 1]])
OTHERS = np.array([[0, 0, 0], [1, 1, 0.5]])


def test_squared_error_by_hand() -> None:
    assert squared_error(IMAGES, OTHERS).tolist() == [1.25, 0.25]


def test_bce_by_hand() -> None:
    half = np.full((1, 2), 0.5)
    assert bce(np.array([[0.0, 1.0]]), half) == pytest.approx([np.log(2)])
    by_hand = -(0.3 * np.log(0.2) + 0.7 * np.log(0.8))
    assert bce(np.array([[0.3]]), np.array([[0.2]])) == pytest.approx([by_hand])
    assert bce(np.array([[1.0]]), np.array([[0.0]])) == pytest.approx([-np.log(1e-7)])  # clipped, not infinite


def test_psnr_by_hand() -> None:
    assert psnr(1.0) == 0
    assert psnr(0.01) == pytest.approx(20)


def test_batches_cover_all_images_once(mnist: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    images = mnist["test"][0].reshape(200, -1)
    batches = list(scaled_batches(images, 64))
    assert [len(b) for b in batches] == [64, 64, 64, 8]
    np.testing.assert_array_equal(np.concatenate(batches), images / np.float32(255))


@settings(max_examples=50, deadline=None)
@given(images=arrays(np.uint8, st.tuples(st.integers(2, 30), st.integers(1, 8))), batch_size=st.integers(1, 40))
def test_all_components_give_every_image_back(images: np.ndarray, batch_size: int) -> None:
    pca = fit_pca(images, images.shape[1], batch_size)
    np.testing.assert_allclose(pca_reconstruct(pca, images / 255), images / 255, atol=1e-9)
    np.testing.assert_allclose(pca.components @ pca.components.T, np.eye(images.shape[1]), atol=1e-9)


@pytest.mark.parametrize("components", [1, 5, 16])
def test_pca_error_is_the_rest_of_the_singular_values(
    mnist: dict[str, tuple[np.ndarray, np.ndarray]], components: int
) -> None:
    """Eckart and Young's theorem, through a decomposition that fit_pca doesn't use."""
    images = mnist["train"][0].reshape(600, -1)
    scaled = images / 255
    singular = np.linalg.svd(scaled - scaled.mean(axis=0), compute_uv=False)
    errors = squared_error(scaled, pca_reconstruct(fit_pca(images, components, 100), scaled))
    assert errors.sum() == pytest.approx(np.square(singular[components:]).sum())


def test_more_components_than_pixels_are_all_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 4), np.uint8)
    assert fit_pca(images, 9, 10).components.shape == (4, 4)


def test_pca_does_not_depend_on_the_batches(mnist: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    images = mnist["train"][0].reshape(600, -1)
    np.testing.assert_array_equal(fit_pca(images, 16, 600).components, fit_pca(images, 16, 7).components)
