"""Measures against values computed by hand and against scikit-learn, scikit-image and SciPy on real digits."""

import numpy as np
import pytest
import scipy
import skimage
import sklearn.decomposition
import sklearn.linear_model
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.backend import tf
from stages.compare import compare
from stages.evaluate import Split
from stages.measures import (
    Pca,
    active_dimensions,
    bce,
    class_means,
    code_moments,
    fit_pca,
    fit_probe,
    image_moments,
    nearest_images,
    psnr,
    sample_codes,
    scaled_batches,
    squared_error,
    ssim,
)
from stages.params import Compare

IMAGES = np.array([[0, 0.5, 1], [1, 1, 1]])
OTHERS = np.array([[0, 0, 0], [1, 1, 0.5]])


@pytest.fixture(scope="module")
def train(mnist: dict[str, tuple[np.ndarray, np.ndarray]]) -> Split:
    images, labels = mnist["train"]
    return Split(images.reshape(len(images), -1), labels)


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


def pca_of(images: np.ndarray, components: int, batch_size: int = 100) -> Pca:
    return fit_pca(image_moments(images, batch_size), components)


@settings(max_examples=50, deadline=None)
@given(images=arrays(np.uint8, st.tuples(st.integers(2, 30), st.integers(1, 8))), batch_size=st.integers(1, 40))
def test_all_components_give_every_image_back(images: np.ndarray, batch_size: int) -> None:
    pca = pca_of(images, images.shape[1], batch_size)
    np.testing.assert_allclose(pca.decode(pca.encode(images / 255)), images / 255, atol=1e-9)
    np.testing.assert_allclose(pca.components @ pca.components.T, np.eye(images.shape[1]), atol=1e-9)


@pytest.mark.parametrize("components", [0, 1, 5, 16])
def test_pca_agrees_with_scikit_learn(train: Split, components: int) -> None:
    """Without components it is the mean image."""
    scaled = train.images / 255
    pca = pca_of(train.images, components)
    expected = np.tile(scaled.mean(axis=0), (len(scaled), 1))
    if components:
        theirs = sklearn.decomposition.PCA(components, svd_solver="full").fit(scaled)
        expected = theirs.inverse_transform(theirs.transform(scaled))
    np.testing.assert_allclose(pca.decode(pca.encode(scaled)), expected, atol=1e-9)


def test_more_components_than_pixels_are_all_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 4), np.uint8)
    assert pca_of(images, 9).components.shape == (4, 4)


def test_moments_do_not_depend_on_the_batches(train: Split) -> None:
    for one, other in zip(image_moments(train.images, 600), image_moments(train.images, 7), strict=True):
        np.testing.assert_array_equal(one, other)


def test_moments_of_images_and_codes_are_numpys(train: Split) -> None:
    scaled = train.images / 255
    for moments in (image_moments(train.images, 100), code_moments(scaled)):
        np.testing.assert_allclose(moments.mean, scaled.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(moments.covariance, np.cov(scaled.T, bias=True), atol=1e-12)


def test_ssim_agrees_with_scikit_image_and_tensorflow(train: Split) -> None:
    """Of digits beside noisy ones."""
    images = train.images[:50].reshape(-1, 28, 28) / np.float32(255)
    noise = np.random.default_rng(0).normal(0, 0.2, images.shape)
    noisy = (images + noise).clip(0, 1).astype(np.float32)
    options = {"data_range": 1, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = [skimage.metrics.structural_similarity(a, b, **options) for a, b in zip(images, noisy, strict=True)]
    assert ssim(images, noisy) == pytest.approx(expected, abs=1e-5)
    assert ssim(images, noisy) == pytest.approx(tf.image.ssim(images[..., None], noisy[..., None], 1).numpy(), abs=1e-5)
    wide = slice(None), slice(4, 24), slice(None)
    theirs = tf.image.ssim(images[wide][..., None], noisy[wide][..., None], 1).numpy()
    assert ssim(images[wide], noisy[wide]) == pytest.approx(theirs, abs=1e-5)
    assert ssim(images, images) == pytest.approx(np.ones(50))
    assert ssim(images[:, :9, :9], noisy[:, :9, :9]).shape == (50,)  # smaller than the window


def test_psnr_agrees_with_scikit_image(train: Split) -> None:
    images = train.images / 255
    noisy = (images + np.random.default_rng(0).normal(0, 0.2, images.shape)).clip(0, 1)
    mse = squared_error(images, noisy).mean() / 784
    assert psnr(mse) == pytest.approx(skimage.metrics.peak_signal_noise_ratio(images, noisy, data_range=1))


@pytest.mark.parametrize("ridge", [0.01, 1.0, 100.0])
def test_the_probe_agrees_with_scikit_learn(train: Split, ridge: float) -> None:
    """On pixels, from exact moments, and on codes."""
    scaled = train.images / 255
    codes = pca_of(train.images, 16).encode(scaled)
    means = class_means(train.images, train.labels) / 255
    on_pixels = fit_probe(image_moments(train.images, 100), means, train.labels, ridge)
    on_codes = fit_probe(code_moments(codes), class_means(codes, train.labels), train.labels, ridge)
    for probe, features in ((on_pixels, scaled), (on_codes, codes)):
        theirs = sklearn.linear_model.Ridge(alpha=ridge, solver="cholesky")
        theirs.fit(features, np.eye(10)[train.labels])
        np.testing.assert_allclose(probe.weights, theirs.coef_.T, atol=1e-7)
        np.testing.assert_allclose(probe.intercept, theirs.intercept_, atol=1e-7)
        expected = np.argmax(theirs.predict(features), axis=1)
        np.testing.assert_array_equal(probe.predict(features), expected)
        assert (expected == train.labels).mean() > 0.7


def test_the_probe_names_classes_by_their_labels() -> None:
    labels = np.array([3, 3, 7, 7])
    codes = np.array([[0.0], [0.1], [1.0], [1.1]])
    probe = fit_probe(code_moments(codes), class_means(codes, labels), labels, 1e-6)
    assert probe.predict(np.array([[0.2], [0.9]])).tolist() == [3, 7]


def test_active_dimensions_by_hand() -> None:
    codes = np.array([[0.0, 5.0, 0.0], [1.0, 5.0, 0.1]])  # variances 0.25, 0, 0.0025
    assert [active_dimensions(codes, threshold) for threshold in (0.3, 0.01, 0.001)] == [0, 1, 2]


def test_samples_have_the_moments_of_their_class() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([2, 5], 500)
    mixing = random.normal(size=(2, 4, 4))
    codes = np.concatenate([random.normal(size=(500, 4)) @ mixing[k] + 10 * k for k in (0, 1)])
    samples = sample_codes(codes, labels, 20_000, seed=1)
    assert samples.shape == (2, 20_000, 4)
    for drawn, label in zip(samples, (2, 5), strict=True):
        expected = code_moments(codes[labels == label])
        np.testing.assert_allclose(drawn.mean(axis=0), expected.mean, atol=0.1)
        np.testing.assert_allclose(np.cov(drawn.T), expected.covariance, atol=0.05 * np.trace(expected.covariance))
    np.testing.assert_array_equal(samples, sample_codes(codes, labels, 20_000, seed=1))


def test_samples_of_codes_that_do_not_vary_are_those_codes() -> None:
    """A collapsed model, and a class with a single image."""
    samples = sample_codes(np.array([[1.0, 2.0], [1.0, 2.0], [5.0, 6.0]]), np.array([0, 0, 1]), 3, seed=0)
    np.testing.assert_allclose(samples, np.repeat([[[1.0, 2.0]], [[5.0, 6.0]]], 3, axis=1), atol=1e-6)


@pytest.mark.parametrize("batch_size", [1000, 64])
def test_nearest_images_agree_with_scipy(train: Split, batch_size: int) -> None:
    random = np.random.default_rng(0)
    images = (train.images[:40] / 255 + random.normal(0, 0.3, (40, 784))).clip(0, 1)
    expected = scipy.spatial.distance.cdist(images, train.images / 255).argmin(axis=1)
    np.testing.assert_array_equal(nearest_images(images, train.images, batch_size), expected)
    np.testing.assert_array_equal(nearest_images(train.images[:9] / 255, train.images, batch_size), np.arange(9))


def test_the_interval_agrees_with_scipy() -> None:
    """Paired percentile bootstrap of a difference and of a ratio of means, other random numbers."""
    random = np.random.default_rng(0)
    others = random.gamma(4, 5, 2000)
    errors = others * random.uniform(0.3, 0.9, 2000)
    row = compare(errors, others, Compare(resamples=4000, seed=0))
    for key, statistic in (
        ("difference", lambda a, b, axis: (a - b).mean(axis=axis)),
        ("ratio", lambda a, b, axis: a.mean(axis=axis) / b.mean(axis=axis)),
    ):
        theirs = scipy.stats.bootstrap(
            (errors, others), statistic, paired=True, method="percentile", n_resamples=4000, rng=random
        ).confidence_interval
        width = theirs.high - theirs.low
        assert row[f"{key}_low"] == pytest.approx(theirs.low, abs=0.1 * width)
        assert row[f"{key}_high"] == pytest.approx(theirs.high, abs=0.1 * width)
        assert row[f"{key}_low"] < row[key] < row[f"{key}_high"]
    assert row["wins"] == 1
    assert compare(others, others, Compare(resamples=100, seed=0))["wins"] == 0  # a tie is no win


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """95 % of the intervals for the difference of two means hold the true one; 300 trials leave ±2.5 % twice over."""
    random = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        others = random.gamma(4, 5, 200)
        row = compare(others + random.normal(-1, 3, 200), others, Compare(resamples=300, seed=trial))
        covered += row["difference_low"] <= -1 <= row["difference_high"]
    assert 0.90 <= covered / 300 <= 0.99
