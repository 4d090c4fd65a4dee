"""What is measured, against values worked out by hand and scikit-learn, scikit-image and SciPy on real digits."""

import io
import itertools
import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy
import skimage
import sklearn.covariance
import sklearn.decomposition
import sklearn.linear_model
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages import compare
from stages.applications.anomalies import compare_aurocs, squared_distances
from stages.applications.generation import Floor, Generations, load_generations
from stages.applications.records import load_denoised, load_labels
from stages.core import files, tables
from stages.core import shown as pictures
from stages.core.codec import Codec, Data, measure, probe_pixels
from stages.core.codes import active_dimensions, nearest_images, sample_codes
from stages.core.comparison import Comparison, bootstrap_means, compare_all, compare_errors
from stages.core.errors import StageError
from stages.core.evaluation import Evaluation, Result, load_evaluation, load_evaluations, results_by_name
from stages.core.files import Split, model_files
from stages.core.linear import Pca, class_means, code_moments, fit_pca, fit_probe, image_moments
from stages.core.measures import bce, psnr, scaled_batches, squared_error, ssim
from stages.core.records import how_to_match, save_record
from stages.core.schema import Evaluate
from tests import made_up
from tests.conftest import ROOT

pytestmark = pytest.mark.quick

Mnist = dict[str, tuple[np.ndarray, np.ndarray]]

IMAGES = np.array([[0, 0.5, 1], [1, 1, 1]])
OTHERS = np.array([[0, 0, 0], [1, 1, 0.5]])
SETTINGS = Evaluate(batch_size=64, active_variance=1.0, ridge=1.0, samples_per_class=12, seed=5)
LATENT = 12
HEIGHT, WIDTH = 20, 18  # of the middle of the digits: unlike each other, and sooner through scikit-learn
PIXELS = HEIGHT * WIDTH
Middles = dict[str, Split]


@pytest.fixture(scope="module")
def middles(mnist: Mnist) -> Middles:
    return {
        split: Split(images[:, 4 : 4 + HEIGHT, 5 : 5 + WIDTH].reshape(len(images), PIXELS), labels)
        for split, (images, labels) in mnist.items()
    }


@pytest.fixture(scope="module")
def train(middles: Middles) -> Split:
    return middles["train"]


# --- measures ------------------------------------------------------------------------------


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


def test_psnr_agrees_with_scikit_image(train: Split) -> None:
    images = train.images / 255
    noisy = (images + np.random.default_rng(0).normal(0, 0.2, images.shape)).clip(0, 1)
    mse = squared_error(images, noisy).mean() / PIXELS
    assert psnr(mse) == pytest.approx(skimage.metrics.peak_signal_noise_ratio(images, noisy, data_range=1))


def noisy_digits(mnist: Mnist) -> tuple[np.ndarray, np.ndarray]:
    images = mnist["train"][0][:50] / np.float32(255)
    noise = np.random.default_rng(0).normal(0, 0.2, images.shape)
    return images, (images + noise).clip(0, 1).astype(np.float32)


@pytest.mark.parametrize("columns", [slice(0, 28), slice(4, 24)])
def test_ssim_agrees_with_scikit_image(mnist: Mnist, columns: slice) -> None:
    """Of square and of higher digits beside noisy ones."""
    images, noisy = (digits[:, :, columns] for digits in noisy_digits(mnist))
    options = {"data_range": 1, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = [skimage.metrics.structural_similarity(a, b, **options) for a, b in zip(images, noisy, strict=True)]
    assert ssim(images, noisy) == pytest.approx(expected, abs=1e-6)
    assert ssim(images, images) == pytest.approx(np.ones(50))


def test_ssim_of_images_smaller_than_the_window_is_that_of_one_weighted_window(mnist: Mnist) -> None:
    images, noisy = (digits[:, 9:18, 10:18].astype(np.float64) for digits in noisy_digits(mnist))
    rows, columns = (np.exp(-(((np.arange(n) - (n - 1) / 2) / 1.5) ** 2) / 2) for n in (9, 8))
    weights = np.outer(rows, columns) / np.outer(rows, columns).sum()
    for x, y, found in zip(images, noisy, ssim(images, noisy), strict=True):
        mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
        variance_x, variance_y = (weights * (x - mean_x) ** 2).sum(), (weights * (y - mean_y) ** 2).sum()
        covariance = (weights * (x - mean_x) * (y - mean_y)).sum()
        luminance = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
        assert found == pytest.approx(luminance * (2 * covariance + 9e-4) / (variance_x + variance_y + 9e-4))


def test_batches_cover_all_images_once(middles: Middles) -> None:
    images = middles["test"].images
    batches = list(scaled_batches(images, 64))
    assert [len(b) for b in batches] == [64, 64, 64, 8]
    np.testing.assert_array_equal(np.concatenate(batches), images / np.float32(255), strict=True)


# --- linear --------------------------------------------------------------------------------


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
        np.testing.assert_array_equal(probe.predict(features), np.argmax(theirs.predict(features), axis=1))


def test_the_probe_names_classes_by_their_labels() -> None:
    labels = np.array([3, 3, 7, 7], np.uint8)
    codes = np.array([[0.0], [0.1], [1.0], [1.1]])
    probe = fit_probe(code_moments(codes), class_means(codes, labels), labels, 1e-6)
    assert probe.predict(np.array([[0.2], [0.9]])).tolist() == [3, 7]


def test_moments_of_single_precision_codes_are_worked_out_in_double() -> None:
    """The mean of these two is no number of single precision."""
    codes = np.array([[2**24], [2**24 + 2]], np.float32)
    moments = code_moments(codes)
    assert (moments.mean.tolist(), moments.covariance.tolist()) == ([2**24 + 1], [[1]])
    assert class_means(codes, np.array([4, 4], np.uint8)).tolist() == [[2**24 + 1]]
    assert active_dimensions(codes, 1.5) == 0


# --- codes ---------------------------------------------------------------------------------


def test_active_dimensions_by_hand() -> None:
    codes = np.array([[0.0, 5.0, 0.0], [1.0, 5.0, 0.1]])  # variances 0.25, 0, 0.0025
    assert [active_dimensions(codes, threshold) for threshold in (0.3, 0.25, 0.01, 0.001)] == [0, 0, 1, 2]


def test_samples_have_the_moments_of_their_class() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([2, 5], 500).astype(np.uint8)
    mixing = random.normal(size=(2, 4, 4))
    codes = np.concatenate([random.normal(size=(500, 4)) @ mixing[k] + 10 * k for k in (0, 1)])
    samples = sample_codes(codes, labels, 20_000, seed=1)
    assert samples.shape == (2, 20_000, 4)
    for drawn, label in zip(samples, (2, 5), strict=True):
        expected = code_moments(codes[labels == label])
        np.testing.assert_allclose(drawn.mean(axis=0), expected.mean, atol=0.1)
        np.testing.assert_allclose(np.cov(drawn.T), expected.covariance, atol=0.05 * np.trace(expected.covariance))
    np.testing.assert_array_equal(samples, sample_codes(codes, labels, 20_000, seed=1))
    assert (samples != sample_codes(codes, labels, 20_000, seed=2)).all()


def test_samples_of_codes_that_do_not_vary_are_those_codes() -> None:
    """A collapsed model, and a class with a single image."""
    labels = np.array([0, 0, 1], np.uint8)
    samples = sample_codes(np.array([[1.0, 2.0], [1.0, 2.0], [5.0, 6.0]]), labels, 3, seed=0)
    np.testing.assert_allclose(samples, np.repeat([[[1.0, 2.0]], [[5.0, 6.0]]], 3, axis=1), atol=1e-6)


def test_samples_are_numpys_from_one_generator_class_after_class() -> None:
    """Of codes on a line, too, whose covariance has an eigenvalue that rounding made negative; nothing is warned of."""
    codes = np.outer(np.arange(40), [1e4, 2e4, 3e4])
    labels = np.repeat([9, 3], 20).astype(np.uint8)
    assert np.linalg.eigvalsh(code_moments(codes[20:]).covariance).min() < -1e-8
    random = np.random.default_rng(5)
    with warnings.catch_warnings(action="error"):
        samples = sample_codes(codes, labels, 7, seed=5)
    for drawn, one_class in zip(samples, (codes[20:], codes[:20]), strict=True):
        mean, covariance = one_class.mean(axis=0), np.cov(one_class.T, bias=True)
        expected = random.multivariate_normal(mean, covariance, 7, check_valid="ignore", method="eigh")
        np.testing.assert_allclose(drawn, expected, rtol=1e-9)


@pytest.mark.parametrize("batch_size", [1000, 64])
def test_nearest_images_agree_with_scipy(train: Split, batch_size: int) -> None:
    """600 images in batches of 64 leave a last one of 24."""
    random = np.random.default_rng(0)
    images = (train.images[-40:] / 255 + random.normal(0, 0.3, (40, PIXELS))).clip(0, 1)
    expected = scipy.spatial.distance.cdist(images, train.images / 255).argmin(axis=1)
    assert (expected >= 576).sum() > 9  # the nearest is in the last batch
    np.testing.assert_array_equal(nearest_images(images, train.images, batch_size), expected)
    np.testing.assert_array_equal(nearest_images(train.images / 255, train.images, batch_size), np.arange(600))


def test_the_nearest_image_is_found_in_a_last_batch_that_is_not_whole() -> None:
    """And the first of those that are equal."""
    candidates = np.array([[0, 0], [0, 255], [255, 0], [100, 100], [200, 200], [200, 200], [255, 0]], np.uint8)
    images = np.array([[0.8, 0.8], [0.4, 0.4], [0.9, 0.1], [0.1, 0.1]])
    for batch_size in range(1, 9):
        found = nearest_images(images, candidates, batch_size)
        np.testing.assert_array_equal(found, np.array([4, 3, 2, 0]), strict=True)


@pytest.mark.parametrize("batch_size", [1, 3, 9])
def test_the_first_of_equal_candidates_is_the_nearest_whatever_the_batches(batch_size: int) -> None:
    images = np.random.default_rng(0).random((50, 1))
    candidates = np.repeat(np.array([[20], [120], [220]], np.uint8), 3, axis=0)
    expected = 3 * np.abs(images - np.array([20, 120, 220]) / 255).argmin(axis=1)
    np.testing.assert_array_equal(nearest_images(images, candidates, batch_size), expected)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), pixels=st.integers(1, 6), batch_size=st.integers(1, 12))
def test_no_candidate_is_nearer_than_the_nearest(data: st.DataObject, pixels: int, batch_size: int) -> None:
    candidates = data.draw(arrays(np.uint8, st.tuples(st.integers(1, 25), st.just(pixels))))
    images = data.draw(arrays(np.uint8, st.tuples(st.integers(1, 8), st.just(pixels)))) / 255
    squared = scipy.spatial.distance.cdist(images, candidates / 255, "sqeuclidean")
    found = nearest_images(images, candidates, batch_size)
    np.testing.assert_allclose(squared[np.arange(len(images)), found], squared.min(axis=1), rtol=0, atol=5e-6)


# --- comparison ----------------------------------------------------------------------------

FIRST, SECOND = np.array([1.0, 2, 3, 9]), np.array([2.0, 2, 6, 6])


def test_a_comparison_by_hand() -> None:
    """Better on two of four images; a tie is no win."""
    row = compare_errors(FIRST, SECOND, 100, seed=0)
    assert (row.ratio, row.difference, row.wins) == (15 / 16, -1 / 4, 2 / 4)
    back = compare_errors(SECOND, FIRST, 100, seed=0)
    assert (back.ratio, back.difference, back.wins) == (16 / 15, 1 / 4, 1 / 4)


def test_resamples_draw_whole_images() -> None:
    """Against drawing rows one by one: as many as there are, the same rows for both columns."""
    values = np.stack([FIRST, SECOND], axis=1)
    random = np.random.default_rng(7)
    expected = [values[random.integers(4, size=4)].mean(axis=0) for _ in range(50)]
    np.testing.assert_allclose(bootstrap_means(values, 50, seed=7), expected, rtol=1e-12)
    assert (bootstrap_means(values, 50, seed=8) != expected).any()


def test_an_interval_ends_at_the_percentiles_2_5_and_97_5() -> None:
    """Of 1001 resamples, at the 26th of either end."""
    row = compare_errors(FIRST, SECOND, 1001, seed=3)
    first, second = bootstrap_means(np.stack([FIRST, SECOND], axis=1), 1001, seed=3).T
    assert (row.ratio_low, row.ratio_high) == tuple(np.sort(first / second)[[25, 975]])
    assert (row.difference_low, row.difference_high) == tuple(np.sort(first - second)[[25, 975]])


def test_the_interval_agrees_with_scipy() -> None:
    """Paired percentile bootstrap of a difference and of a ratio of means, other random numbers."""
    random = np.random.default_rng(0)
    others = random.gamma(4, 5, 500)
    errors = others * random.uniform(0.3, 0.9, 500)
    row = compare_errors(errors, others, resamples=4000, seed=0)._asdict()
    for key, statistic in (
        ("difference", lambda a, b, axis: (a - b).mean(axis=axis)),
        ("ratio", lambda a, b, axis: a.mean(axis=axis) / b.mean(axis=axis)),
    ):
        theirs = scipy.stats.bootstrap(
            (errors, others), statistic, paired=True, method="percentile", n_resamples=4000, rng=random
        ).confidence_interval
        width = theirs.high - theirs.low
        assert row[f"{key}_low"] == pytest.approx(theirs.low, abs=0.04 * width)
        assert row[f"{key}_high"] == pytest.approx(theirs.high, abs=0.04 * width)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """95 % of the intervals for the difference of two means hold the true one; 200 trials leave ±3 %."""
    random = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        others = random.gamma(4, 5, 200)
        row = compare_errors(others + random.normal(-1, 3, 200), others, resamples=300, seed=trial)
        covered += row.difference_low <= -1 <= row.difference_high
    assert 0.92 <= covered / 200 <= 0.98


def evaluations() -> dict[str, Evaluation]:
    """Three models, ever better, and PCA of two sizes; six pixels, so the last model has a number for each."""
    labels = [1, 0, 1, 1]
    pca4, pca2 = made_up.result([3, 3, 4, 4], 4, seed=1), made_up.result([6, 6, 6, 6], 2, seed=2)
    return {
        "shallow": made_up.evaluation(made_up.result([4, 4, 4, 4], 4, seed=3), pca4, labels),
        "deep": made_up.evaluation(
            made_up.result([1, 2, 3, 4], 2, seed=4), pca2, labels, loss=np.array([0.7]), val_loss=np.array([0.8])
        ),
        "huge": made_up.evaluation(made_up.result([0.5, 0.5, 0.5, 0.5], 6, seed=5), made_up.result([0] * 4, 6), labels),
    }


def test_evaluations_of_other_test_images_do_not_go_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files.EVALUATIONS.mkdir(parents=True)

    def save(name: str, evaluation: Evaluation) -> None:
        with open(model_files(name).evaluation, "wb") as file:
            save_record(file, evaluation)

    some = evaluations()
    for name, evaluation in some.items():
        save(name, evaluation)
    assert list(load_evaluations(list(some))) == ["shallow", "deep", "huge"]
    same = some["deep"].digits
    for other in (
        replace(same, labels=same.labels[:3]),
        replace(same, labels=same.labels[::-1]),
        replace(same, images=1 - same.images),
    ):
        save("deep", replace(some["deep"], digits=other))
        with pytest.raises(StageError) as said:
            load_evaluations(list(some))
        assert str(said.value) == (
            "data/evaluation/deep.npz is of other test images than data/evaluation/shallow.npz; run `dvc repro`."
        )


def test_what_to_run_for_records_that_do_not_match() -> None:
    """The pipeline's may be the older one, so DVC comes first."""
    own, preset = model_files("deep").application, model_files("best16", preset=True).application
    assert how_to_match(own) == "run `dvc repro`"
    assert how_to_match(preset) == "run `dvc repro`, then `python -m stages.apply best16`"


def test_every_later_model_is_compared_with_every_earlier_one_and_with_pca() -> None:
    rows = compare_all(evaluations(), 100, seed=0)
    expected = {
        "deep / shallow": (10 / 16, -1.5, 0.75),
        "huge / shallow": (2 / 16, -3.5, 1),
        "huge / deep": (2 / 10, -2, 1),
        "shallow / PCA (4)": (16 / 14, 0.5, 0),
        "deep / PCA (2)": (10 / 24, -3.5, 1),
    }
    assert {pair: (row.ratio, row.difference, row.wins) for pair, row in rows.items()} == expected
    assert list(rows) == list(expected)
    seeds = [compare_all(evaluations(), 100, seed)["deep / shallow"].ratio_low for seed in (0, 0, 1)]
    assert seeds[0] == seeds[1] != seeds[2]


# --- pictures ------------------------------------------------------------------------------


def identity(codes: Any) -> Any:
    return codes


def test_the_first_image_of_each_class_is_shown() -> None:
    assert pictures.first_of_each_class(np.array([7, 2, 7, 0, 2], np.uint8)).tolist() == [3, 1, 0]


def test_extremes_are_the_best_the_median_and_the_worst() -> None:
    errors = np.array([50.0, 10, 40, 20, 30, 90, 70])
    assert pictures.extremes(errors, 1).tolist() == [[1], [2], [5]]
    assert pictures.extremes(errors, 3).tolist() == [[1, 3, 4], [4, 2, 0], [0, 6, 5]]
    assert pictures.extremes(errors[:2], 3).tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 0]]  # too few images


def test_interpolations_lead_from_the_first_half_of_the_classes_to_the_second() -> None:
    codes = np.array([[0.0, 0], [1, 2], [8, 16], [9, 2]])
    lines = pictures.interpolate(identity, codes)
    assert lines.shape == (2, pictures.STEPS, 2)
    assert lines[0, :3].tolist() == [[0, 0], [1, 2], [2, 4]]
    assert lines[0, -1].tolist() == [8, 16]
    assert lines[1, [0, -1]].tolist() == [[1, 2], [9, 2]]
    assert pictures.interpolate(identity, codes[:1]).shape == (0, pictures.STEPS, 2)  # one class has no partner
    assert len(pictures.interpolate(identity, np.zeros((26, 2)))) == pictures.PAIRS


def test_traversals_start_with_the_most_varied_dimension_and_go_from_minus_to_plus() -> None:
    codes = np.array([[9.0, -4, 5], [11, 4, 5], [9, -4, 5], [11, 4, 5]])  # means 10, 0, 5, deviations 1, 4, 0
    lines = pictures.traverse(identity, codes)
    assert lines.shape == (3, pictures.STEPS, 3)
    assert lines[0, [0, 4, 8]].tolist() == [[10, -10, 5], [10, 0, 5], [10, 10, 5]]
    assert lines[1, [0, 4, 8]].tolist() == [[7.5, 0, 5], [10, 0, 5], [12.5, 0, 5]]
    assert lines[2].tolist() == [[10, 0, 5]] * pictures.STEPS
    assert len(pictures.traverse(identity, np.zeros((2, 40)))) == pictures.DIMENSIONS


# --- codec: everything of one model, measured on real digits ------------------------------------


@pytest.fixture(scope="module")
def data(middles: Middles, train: Split) -> Data:
    """Three splits that share no image."""
    fitted, held_out = Split(train.images[:400], train.labels[:400]), Split(train.images[400:], train.labels[400:])
    return Data(fitted, held_out, middles["test"], (HEIGHT, WIDTH), image_moments(fitted.images, 100))


@pytest.fixture  # anew for each test, so that mutmut sees that each of them runs what is measured
def measured(data: Data) -> Result:
    """PCA of the training images; its kernel is doubled, which only the picture of weights shows."""
    pca = fit_pca(data.moments, LATENT)
    return measure(Codec(pca.encode, pca.decode, 777, pca.components * 2), data, SETTINGS)


@pytest.fixture(scope="module")
def theirs(data: Data) -> Any:
    """Scikit-learn's PCA of the training images alone."""
    return sklearn.decomposition.PCA(LATENT, svd_solver="full").fit(data.train.images / 255)


def test_each_split_is_measured_with_a_pca_of_the_training_images_only(
    measured: Result, data: Data, theirs: Any
) -> None:
    expected = []
    for split in (data.train, data.validation, data.test):
        scaled = split.images / 255
        expected.append(np.square(theirs.inverse_transform(theirs.transform(scaled)) - scaled).mean())
    found = (measured.mse_train, measured.mse_validation, measured.mse)
    assert found == pytest.approx(expected, rel=1e-6)
    assert len({round(value, 4) for value in found}) == 3  # so that no two can be mistaken for each other
    assert (measured.latent_dim, measured.parameters) == (LATENT, 777)


def test_the_test_images_decide_every_measure_of_quality(measured: Result, data: Data, theirs: Any) -> None:
    scaled = data.test.images / 255
    decoded = theirs.inverse_transform(theirs.transform(scaled))
    np.testing.assert_allclose(measured.squared_error, np.square(decoded - scaled).sum(axis=1), rtol=1e-5)
    assert measured.psnr == pytest.approx(10 * np.log10(1 / np.square(decoded - scaled).mean()), rel=1e-6)
    y = decoded.clip(1e-7, 1 - 1e-7)
    entropies = -scipy.special.xlogy(scaled, y) - scipy.special.xlog1py(1 - scaled, -y)
    assert measured.bce == pytest.approx(entropies.mean(), rel=1e-5)
    options = {"data_range": 1, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    pairs = zip(scaled.reshape(-1, HEIGHT, WIDTH), decoded.reshape(-1, HEIGHT, WIDTH), strict=True)
    expected = np.mean([skimage.metrics.structural_similarity(a, b, **options) for a, b in pairs])
    assert measured.ssim == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(np.abs(measured.codes), np.abs(theirs.transform(scaled)), atol=1e-4)  # up to their signs
    assert measured.codes.dtype == np.float32


def accuracy(features: np.ndarray, labels: np.ndarray, test_features: np.ndarray, test_labels: np.ndarray) -> float:
    ridge = sklearn.linear_model.Ridge(alpha=SETTINGS.ridge).fit(features, np.eye(10)[labels])
    return float((ridge.predict(test_features).argmax(axis=1) == test_labels).mean())


def test_probes_are_fitted_to_the_training_images_only(measured: Result, data: Data, theirs: Any) -> None:
    """Fitted to the test images or to more, they would see more of them right."""
    for found, transform in ((measured.probe, theirs.transform), (probe_pixels(data, SETTINGS), identity)):
        features, held_out, test = (transform(split.images / 255) for split in data[:3])
        assert found == accuracy(features, data.train.labels, test, data.test.labels)
        assert found != accuracy(test, data.test.labels, test, data.test.labels)
        both = np.concatenate([features, held_out]), np.concatenate([data.train.labels, data.validation.labels])
        assert found != accuracy(*both, test, data.test.labels)


def test_probes_are_judged_by_the_classes_that_they_were_fitted_to(data: Data, theirs: Any) -> None:
    """Test images of a class that training never saw have no say; generated digits are of the trained classes."""
    kept = np.isin(data.train.labels, (0, 3, 4, 8))
    train = Split(data.train.images[kept], data.train.labels[kept])
    some = data._replace(train=train, moments=image_moments(train.images, 100))
    pca = fit_pca(some.moments, LATENT)
    found = measure(Codec(pca.encode, pca.decode, 0, pca.components), some, SETTINGS)
    asked = np.isin(data.test.labels, (0, 3, 4, 8))
    for share, transform in ((found.probe, pca.encode), (probe_pixels(some, SETTINGS), identity)):
        features, test = (transform(images / 255) for images in (train.images, data.test.images[asked]))
        assert share == accuracy(features, train.labels, test, data.test.labels[asked])
    assert found.samples.shape == (4, 10, HEIGHT, WIDTH)
    assert found.reconstructions.shape == (10, HEIGHT, WIDTH)
    assert len(found.squared_error) == len(found.distance) == len(data.test.images)


def test_distances_are_from_the_training_codes_and_order_the_digits_with_the_errors(
    measured: Result, data: Data, theirs: Any
) -> None:
    codes = theirs.transform(data.train.images / 255)
    expected = sklearn.covariance.EmpiricalCovariance().fit(codes).mahalanobis(theirs.transform(data.test.images / 255))
    np.testing.assert_allclose(measured.distance, expected, rtol=1e-4)
    own = squared_distances(measured.codes, measured.code_mean, measured.code_inverse_covariance)
    np.testing.assert_allclose(own, expected, rtol=1e-4)
    score = (measured.squared_error / (data.test.images / 255).sum(axis=1)) ** 2 * measured.distance
    np.testing.assert_allclose(measured.combined, np.log(score) / 2)
    order = np.argsort(score)
    np.testing.assert_array_equal(measured.unusual, [order[:-11:-1], order[:10]])
    images = data.test.images.reshape(-1, HEIGHT, WIDTH) / 255
    np.testing.assert_allclose(measured.unusual_images, images[measured.unusual], atol=1e-6)


def test_the_probe_of_pixels_sees_them_as_they_were_averaged() -> None:
    """Nine images of brightness 248 and one of 251: what is below 249.5 is of the class of the nine."""
    train = Split(np.array([[248]] * 9 + [[251]], np.uint8), np.array([0] * 9 + [1], np.uint8))
    test = Split(np.array([[248], [249], [250], [251]], np.uint8), np.array([0, 0, 1, 1], np.uint8))
    data = Data(train, train, test, (1, 1), image_moments(train.images, 9))
    assert probe_pixels(data, SETTINGS.model_copy(update={"ridge": 1e-12})) == 1


def test_generated_digits_come_from_the_training_codes_and_are_judged_by_training_images(
    measured: Result, data: Data
) -> None:
    pca = fit_pca(data.moments, LATENT)
    codes = pca.encode(data.train.images / np.float32(255))
    drawn = sample_codes(codes, data.train.labels, SETTINGS.samples_per_class, SETTINGS.seed)
    digits = pca.decode(drawn).clip(0, 1)
    distances = scipy.spatial.distance.cdist(digits.reshape(-1, PIXELS), data.train.images / 255)
    classes = data.train.labels[distances.argmin(axis=1)].reshape(10, SETTINGS.samples_per_class)
    assert measured.generation == (classes == np.arange(10)[:, None]).mean()
    np.testing.assert_allclose(measured.samples.reshape(10, 10, PIXELS), digits[:, : pictures.SAMPLES], atol=1e-4)


def test_dimensions_are_active_if_the_training_codes_vary(measured: Result, theirs: Any) -> None:
    expected = int((theirs.singular_values_**2 / 400 > SETTINGS.active_variance).sum())
    assert measured.active_dimensions == expected
    assert expected not in (0, LATENT)


def test_shown_pictures_are_those_of_the_images_that_they_stand_for(measured: Result, data: Data, theirs: Any) -> None:
    images = data.test.images / 255
    decoded = theirs.inverse_transform(theirs.transform(images)).reshape(-1, HEIGHT, WIDTH)
    shown = [list(data.test.labels).index(label) for label in range(10)]
    np.testing.assert_allclose(measured.reconstructions, decoded[shown], atol=1e-4)
    order = np.argsort(np.square(decoded.reshape(-1, PIXELS) - images).sum(axis=1))
    expected = order[[[0, 1, 2, 3, 4], [97, 98, 99, 100, 101], [195, 196, 197, 198, 199]]]
    np.testing.assert_array_equal(measured.extremes, expected)
    np.testing.assert_allclose(measured.extreme_images, images.reshape(-1, HEIGHT, WIDTH)[expected], atol=1e-6)
    np.testing.assert_allclose(measured.extreme_reconstructions, decoded[expected], atol=1e-4)
    # from the first 0 to the first 5 and so on; PCA's lines in code space are lines between pictures
    assert measured.interpolations.shape == (4, 9, HEIGHT, WIDTH)
    np.testing.assert_allclose(measured.interpolations[:, 0], decoded[shown[:4]], atol=1e-4)
    np.testing.assert_allclose(measured.interpolations[:, -1], decoded[shown[5:9]], atol=1e-4)


def test_pictures_are_of_single_precision_whatever_the_decoder_gives(measured: Result, data: Data) -> None:
    """PCA decodes to double precision, which would double the files."""
    assert fit_pca(data.moments, LATENT).decode(np.zeros((1, LATENT))).dtype == np.float64
    found = {name: value.dtype for name, value in vars(measured).items() if np.shape(value)[-2:] == (HEIGHT, WIDTH)}
    kinds = ("extreme_images", "extreme_reconstructions", "interpolations", "reconstructions", "samples", "traversals")
    assert found == dict.fromkeys([*kinds, "unusual_images", "weights"], np.dtype(np.float32))


def test_traversals_follow_the_training_codes(measured: Result, theirs: Any) -> None:
    """PCA's components in their order, 2.5 standard deviations to either side of the training images' mean."""
    mean = theirs.mean_.reshape(HEIGHT, WIDTH)
    np.testing.assert_allclose(measured.traversals[:, 4], np.tile(mean, (LATENT, 1, 1)), atol=1e-5)
    steps = measured.traversals[:, -1] - mean
    lengths = np.sqrt(np.square(steps).sum(axis=(1, 2)))
    np.testing.assert_allclose(lengths, 2.5 * theirs.singular_values_ / np.sqrt(400), rtol=1e-4)
    np.testing.assert_allclose(measured.traversals[:, 0] - mean, -steps, atol=1e-4)


def test_weights_are_scaled_by_how_much_their_pixel_varies(measured: Result, data: Data, theirs: Any) -> None:
    deviation = (data.train.images / 255).std(axis=0)
    expected = np.abs(theirs.components_ * 2 * deviation).reshape(LATENT, HEIGHT, WIDTH)
    np.testing.assert_allclose(np.abs(measured.weights), expected, atol=1e-6)


def test_images_need_not_be_square() -> None:
    """An encoder that keeps the left column of images of 2×3, a decoder that repeats it."""
    images = np.array([[[255, 255, 255], [0, 0, 0]], [[0, 255, 255], [255, 255, 0]]], np.uint8).reshape(2, 6)
    split = Split(images, np.array([4, 8], np.uint8))
    codec = Codec(
        lambda batch: batch.reshape(-1, 2, 3)[:, :, 0],
        lambda codes: np.repeat(codes, 3, axis=1),
        0,
        np.zeros((0, 6)),
    )
    found = measure(codec, Data(split, split, split, (2, 3), image_moments(images, 9)), SETTINGS)
    assert found.squared_error.tolist() == [0, 3]
    assert found.mse == found.mse_train == found.mse_validation == 3 / 12
    assert found.reconstructions.tolist() == [[[1, 1, 1], [0, 0, 0]], [[0, 0, 0], [1, 1, 1]]]
    assert found.extreme_images[0, 0].tolist() == [[1, 1, 1], [0, 0, 0]]
    assert found.weights.shape == (0, 2, 3)


# --- evaluation ----------------------------------------------------------------------------


def save(path: Path, record: Any) -> None:
    with open(path, "wb") as file:
        save_record(file, record)


def test_an_evaluation_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    saved = evaluations()["deep"]
    save(tmp_path / "x.npz", saved)
    loaded = load_evaluation(tmp_path / "x.npz")
    for before, after in ((saved, loaded), (saved.model, loaded.model), (saved.pca, loaded.pca)):
        for name, value in vars(before).items():
            if isinstance(value, int | float):
                assert (type(getattr(after, name)), getattr(after, name)) == (type(value), value)
            elif isinstance(value, np.ndarray):
                np.testing.assert_array_equal(getattr(after, name), value, strict=True)
    for name, value in vars(saved.digits).items():
        np.testing.assert_array_equal(getattr(loaded.digits, name), value, strict=True)
    assert (loaded.latent_dim, loaded.pixels, loaded.overcomplete) == (2, 6, False)


def test_what_is_no_whole_evaluation_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with pytest.raises(StageError, match=r"x\.npz is missing; run `dvc repro`\."):
        load_evaluation(path)
    save(path, evaluations()["deep"])
    content = path.read_bytes()
    with np.load(path) as archive:
        without_codes = {key: array for key, array in archive.items() if key != "model.codes"}
    buffer = io.BytesIO()
    np.savez(buffer, **without_codes)
    for broken in (b"", b"hello", content[:500], content[:-30], buffer.getvalue()):
        path.write_bytes(broken)
        with pytest.raises(StageError, match=r"x\.npz is broken \(.*\); run `dvc repro`\."):
            load_evaluation(path)


def test_an_evaluation_file_holds_nothing_that_could_be_run(tmp_path: Path) -> None:
    """NumPy would pickle objects, and a pickle can call anything when it is read."""
    with pytest.raises(ValueError, match="pickle"):
        save(tmp_path / "x.npz", replace(evaluations()["deep"], loss=np.array([None])))


def test_pca_of_each_size_comes_first_by_size_and_an_overcomplete_model_is_called_so() -> None:
    some = evaluations()
    same_size = some | {"twin": some["deep"]}
    results = results_by_name(same_size)
    assert list(results) == ["PCA (2)", "PCA (4)", "shallow", "deep", "huge (overcomplete)", "twin"]
    assert results["PCA (2)"] is some["deep"].pca
    assert results["PCA (4)"] is some["shallow"].pca
    assert results["deep"] is some["deep"].model
    assert results["huge (overcomplete)"] is some["huge"].model


# --- tables --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1234567, "1,234,567"),
        (1234567.0, "1.235e+06"),
        (0.1, "0.1000"),
        (2.0, "2.000"),
        (123.456, "123.5"),
        (0.000123456, "0.0001235"),
        (float("nan"), "nan"),
    ],
)
def test_numbers_have_four_digits_and_whole_numbers_all(value: float, text: str) -> None:
    assert tables.number(value) == text


def test_the_table_of_comparisons_has_a_row_per_pair() -> None:
    rows = {"b / a": Comparison(1, 2, 3, 4, 5, 6, 7), "c / a": Comparison(11, 12, 13, 14, 15, 16, 17)}
    assert tables.csv(tables.comparison_table(rows)).decode() == (
        "pair,ratio,ratio_low,ratio_high,difference,difference_low,difference_high,wins\n"
        "b / a,1,2,3,4,5,6,7\n"
        "c / a,11,12,13,14,15,16,17\n"
    )


def test_errors_per_class_are_per_pixel() -> None:
    """The images have six pixels; class 0 is the second of the four images."""
    table = tables.mse_per_class_table(evaluations())
    assert list(table.columns) == ["class", "model", "mse", "images"]
    found: dict[Any, Any] = {(name, label): values for label, name, *values in table.to_numpy().tolist()}
    assert found["deep", 0] == [pytest.approx(2 / 6), 1]
    assert found["deep", 1] == [pytest.approx((1 + 3 + 4) / 3 / 6), 3]
    assert found["PCA (4)", 0] == [pytest.approx(3 / 6), 1]
    assert found["shallow", 1] == [pytest.approx(4 / 6), 3]
    assert len(found) == 2 * 5


def test_losses_are_one_long_table() -> None:
    some = evaluations()
    del some["huge"]
    assert tables.csv(tables.loss_table(some, dict.fromkeys(some, 0.0)), digits=9).decode().splitlines() == [
        "epoch,model,series,loss",
        "1,shallow,train,0.5",
        "2,shallow,train,0.4",
        "1,shallow,validation,0.6",
        "2,shallow,validation,0.3",
        "1,deep,train,0.7",
        "1,deep,validation,0.8",
    ]


def test_a_csv_file_has_as_many_digits_as_asked_for() -> None:
    table = tables.comparison_table({"b / a": Comparison(*[2 / 3] * 7)})[["pair", "ratio"]]
    assert tables.csv(table) == b"pair,ratio\nb / a,0.666667\n"
    assert tables.csv(table, digits=9, header=False) == b"b / a,0.666666667\n"


def tables_of(page: str) -> list[list[list[str]]]:
    """The cells of the tables of a Markdown page, without the lines of dashes."""
    found: list[list[list[str]]] = []
    for before, line in itertools.pairwise(["", *page.splitlines()]):
        if line.startswith("|") and not before.startswith("|"):
            found.append([])
        if line.startswith("|") and not set(line) <= set("|:-"):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def test_text_is_to_the_left_and_numbers_are_to_the_right() -> None:
    """As colons in the line below the header have it."""
    for columns in (1, 2, 4):
        lines = tables.markdown(["name", *"abc"][:columns], [["x", 1, 2.5, "3"][:columns]]).splitlines()
        left, *others = lines[1].strip("|").split("|")
        assert re.fullmatch(":-+", left)
        assert len(others) == columns - 1
        assert all(re.fullmatch("-+:", cell) for cell in others)


def test_the_report_by_hand() -> None:
    some = evaluations()
    del some["shallow"]
    rows = {"huge / deep": Comparison(0.5, 0.25, 0.75, -1.5, -2.25, -0.125, 0.98765)}
    page = tables.report(some, rows, tables.mse_per_class_table(some))
    measures, pairs, classes = tables_of(page)
    assert measures == [
        ["", "PCA (2)", "deep", "huge (overcomplete)"],
        ["`mse`", "1.000", "0.4167", "0.08333"],
        ["`mse_train`", "2.011", "4.011", "5.011"],
        ["`mse_validation`", "2.022", "4.022", "5.022"],
        ["`squared_error`", "6.000", "2.500", "0.5000"],
        ["`psnr`", "14.35", "16.35", "17.35"],
        ["`ssim`", "2.333", "4.333", "5.333"],
        ["`bce`", "2.444", "4.444", "5.444"],
        ["`probe`", "2.555", "4.555", "5.555"],
        ["`generation`", "2.666", "4.666", "5.666"],
        ["`active_dimensions`", "9", "11", "12"],
        ["`latent_dim`", "2", "2", "6"],
        ["`parameters`", "1,236", "1,238", "1,239"],
    ]
    assert pairs == [
        ["pair", "ratio of mean errors", "difference of mean errors", "wins"],
        ["huge / deep", "0.5000 (0.2500 to 0.7500)", "-1.500 (-2.250 to -0.1250)", "0.9877"],
    ]
    assert classes == [
        ["class", "images", "PCA (2)", "deep", "huge (overcomplete)"],
        ["0", "1", "1.000", "0.3333", "0.08333"],
        ["1", "3", "1.000", "0.4444", "0.08333"],
    ]
    assert "The mean training image, shown for every test image, has an `mse` of 0.06780.\n" in page
    assert "A linear probe that sees all 6 pixels has a `probe` of 0.8765.\n" in page


def test_what_only_variational_models_have_is_a_dash_of_the_others() -> None:
    some = evaluations()
    variational = replace(some["deep"].model, kl=np.array([1.0, 2, 3, 4]))
    some["deep"] = replace(some["deep"], model=variational)
    measures, _, _ = tables_of(tables.report(some, {}, tables.mse_per_class_table(some)))
    assert measures[0] == ["", "PCA (2)", "PCA (4)", "shallow", "deep", "huge (overcomplete)"]
    assert ["`kl`", "–", "–", "–", "2.500", "–"] in measures


def test_the_same_seed_gives_the_same_intervals() -> None:
    noise, random = np.array([0.2, 0.5]), np.random.default_rng(3)
    given = {"noisy image": made_up.denoised(*random.random((2, 9)).tolist())}
    methods = {"deep": replace(made_up.classified(), precision=random.random(9))}
    results, digits = {"deep": made_up.result(random.random(40).tolist())}, made_up.digits([0, 1] * 20, trained=[0])

    def drawn(seed: int) -> list[str]:
        return [
            tables.csv(tables.denoising_table(given, noise, ["deep"], 50, seed)).decode(),
            tables.csv(tables.labels_table(methods, np.array([1, 2]), ["deep"], 50, seed)).decode(),
            str(compare_aurocs(results, digits, 50, seed)),
        ]

    assert drawn(1) == drawn(1)
    assert all(one != other for one, other in zip(drawn(1), drawn(2), strict=True))


def test_a_model_that_no_pca_stands_beside_has_a_report_too() -> None:
    huge = {"huge": evaluations()["huge"]}
    _, pairs, classes = tables_of(tables.report(huge, {}, tables.mse_per_class_table(huge)))
    assert len(pairs) == 1
    assert classes == [["class", "images", "huge (overcomplete)"], ["0", "1", "0.08333"], ["1", "3", "0.08333"]]


def test_a_table_that_is_missing_or_broken_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    with pytest.raises(StageError, match=r"x\.csv is missing; run `dvc repro compare`\."):
        tables.read_table(path)
    for broken in (b"", b"a,b\n1,2,3\n1,2,3,4\n", b"a\n\xff\xfe\n"):
        path.write_bytes(broken)
        with pytest.raises(ValueError) as reason:  # noqa: PT011
            pd.read_csv(path)
        in_one_line = " ".join(str(reason.value).split())
        with pytest.raises(StageError) as said:
            tables.read_table(path)
        assert str(said.value) == f"{path} is not a whole table ({in_one_line}); run `dvc repro compare`."
    path.write_bytes(b"a,b\n1,x\n")
    assert tables.read_table(path).to_dict("list") == {"a": [1], "b": ["x"]}


def test_compare_writes_what_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    for folder in ("data/evaluation", "data/applications", "data/generation", "data/classical", "data/classifier"):
        (tmp_path / folder).mkdir(parents=True)
    some = {name: evaluations()[name] for name in ("shallow", "deep")}
    for name, one in some.items():
        save(tmp_path / f"data/evaluation/{name}.npz", one)
        save(tmp_path / f"data/applications/{name}.npz", made_up.application())
        save(
            tmp_path / f"data/generation/{name}.npz",
            Generations("judge", 10, 200, made_up.generation("a"), made_up.generation("b")),
        )
    floor = Floor("judge", 0.99, made_up.generation("real"))
    save(tmp_path / "data/classifier/floor.npz", floor)
    save(tmp_path / "data/classical/denoising.npz", made_up.classical())
    save(tmp_path / "data/classical/labels.npz", made_up.pixel_labels())
    ended = made_up.call_main(compare.main, monkeypatch, capsys)
    assert (ended.status, ended.err) == (0, "")
    rows = compare_all(some, 2000, 0)
    low, high = rows["deep / shallow"][1:3]
    assert ended.out.splitlines() == [
        f"deep / shallow: 0.625 times the squared error ({low:.3f} to {high:.3f}), smaller on 75.0% of the test images",
        "shallow / PCA (4): 1.143 times the squared error (1.000 to 1.333), smaller on 0.0% of the test images",
        "deep / PCA (2): 0.417 times the squared error (0.250 to 0.583), smaller on 100.0% of the test images",
    ]
    per_class = tables.mse_per_class_table(some)
    applications = {name: Path(f"data/applications/{name}.npz") for name in some}
    classical, denoised = load_denoised(applications, some)
    denoising = tables.denoising_table(denoised, classical.noise, ["shallow", "deep"], 2000, 0)
    parts = [tables.report(some, rows, per_class), tables.report_anomalies({}, [])]
    pixels, classified = load_labels(applications, some)
    labels = tables.labels_table(classified, pixels.numbers, ["shallow", "deep"], 2000, 0)
    _, generations = load_generations({name: Path(f"data/generation/{name}.npz") for name in some}, some)
    assert list(generations) == ["PCA (2)", "PCA (4)", "shallow", "deep"]
    parts += [tables.report_denoising(denoising, classical), tables.report_labels(labels, pixels)]
    parts.append(tables.report_generation(floor, generations))
    assert Path("metrics/README.md").read_text() == "\n".join(parts)
    assert Path("plots/denoising.csv").read_bytes() == tables.csv(denoising)
    assert Path("plots/labels.csv").read_bytes() == tables.csv(labels)
    assert Path("plots/comparison.csv").read_bytes() == tables.csv(tables.comparison_table(rows))
    assert Path("plots/mse_per_class.csv").read_bytes() == tables.csv(per_class)
    assert Path("plots/losses.csv").read_bytes() == tables.csv(
        tables.loss_table(some, dict.fromkeys(some, 0.0)), digits=9
    )

    for left in ("data/evaluation/gone.npz", "metrics/gone.json"):
        Path(left).write_text("x")
    ended = made_up.call_main(compare.main, monkeypatch, capsys)
    assert (ended.status, ended.err) == (
        1,
        "error: data/evaluation/gone.npz belongs to no model in params.yaml; delete what is left of that model "
        "and run `dvc repro` again: "
        "rm -r data/evaluation/gone.npz metrics/gone.json\n",
    )
