"""What is measured, against values worked out by hand and scikit-learn, scikit-image and SciPy on real digits."""

import io
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

from stages.core import linear, measures, tables
from stages.core import shown as pictures
from stages.core.codes import active_dimensions, sample_codes
from stages.core.comparison import Comparison, bootstrap_means, compare_all, compare_results
from stages.core.encoder_decoder import Data, EncoderDecoder, measure, probe_pixels
from stages.core.errors import StageError
from stages.core.evaluation import MODEL, Evaluation, Result, load_evaluation, results_by_name, shown_name
from stages.core.files import Split
from stages.core.linear import Moments, Pca, class_means, code_moments, fit_pca, fit_probe, image_moments
from stages.core.measures import bce, scaled_batches, ssim
from stages.core.pictures import extremes
from stages.core.records import save_record
from stages.core.schema import Evaluate
from tests import made_up

pytestmark = pytest.mark.quick

Mnist = dict[str, tuple[np.ndarray, np.ndarray]]

SETTINGS = Evaluate(active_variance=1.0, ridge=1.0, seed=5)
LATENT = 12
HEIGHT, WIDTH = 20, 18  # of the middle of the digits: unlike each other, and sooner through scikit-learn
PIXELS = HEIGHT * WIDTH
Middles = dict[str, Split]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the few images here fill several batches."""
    monkeypatch.setattr(measures, "BATCH", 64)


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


def test_bce_by_hand() -> None:
    half = np.full((1, 2), 0.5)
    assert bce(np.array([[0.0, 1.0]]), half) == pytest.approx([np.log(2)])
    by_hand = -(0.3 * np.log(0.2) + 0.7 * np.log(0.8))
    assert bce(np.array([[0.3]]), np.array([[0.2]])) == pytest.approx([by_hand])
    assert bce(np.array([[1.0]]), np.array([[0.0]])) == pytest.approx([-np.log(1e-7)])  # clipped, not infinite


def noisy_digits(mnist: Mnist) -> tuple[np.ndarray, np.ndarray]:
    images = mnist["train"][0][:50] / np.float32(255)
    noise = np.random.default_rng(0).normal(0, 0.2, images.shape)
    return images, (images + noise).clip(0, 1).astype(np.float32)


def test_ssim_agrees_with_scikit_image(mnist: Mnist) -> None:
    """On digits that are taller than wide."""
    images, noisy = (digits[:, :, 4:24] for digits in noisy_digits(mnist))
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
    batches = list(scaled_batches(images))
    assert [len(b) for b in batches] == [64, 64, 64, 8]
    np.testing.assert_array_equal(np.concatenate(batches), images / np.float32(255), strict=True)


# --- linear --------------------------------------------------------------------------------


def moments_of(images: np.ndarray, batch_size: int) -> Moments:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "BATCH", batch_size)
        return image_moments(images)


def pca_of(images: np.ndarray, components: int, batch_size: int = 100) -> Pca:
    return fit_pca(moments_of(images, batch_size), components)


@settings(max_examples=50, deadline=None)
@given(images=arrays(np.uint8, st.tuples(st.integers(2, 30), st.integers(1, 8))), batch_size=st.integers(1, 40))
def test_all_components_give_every_image_back(images: np.ndarray, batch_size: int) -> None:
    pca = pca_of(images, images.shape[1], batch_size)
    np.testing.assert_allclose(pca.decode(pca.encode(images / 255)), images / 255, atol=1e-9)
    np.testing.assert_allclose(pca.components @ pca.components.T, np.eye(images.shape[1]), atol=1e-9)


@pytest.mark.parametrize("components", [0, 5])
def test_pca_agrees_with_scikit_learn(train: Split, components: int) -> None:
    """Without components it is the mean image."""
    scaled = train.images / 255
    pca = pca_of(train.images, components)
    expected = np.tile(scaled.mean(axis=0), (len(scaled), 1))
    if components:
        theirs = sklearn.decomposition.PCA(components, svd_solver="full").fit(scaled)
        expected = theirs.inverse_transform(theirs.transform(scaled))
    np.testing.assert_allclose(pca.decode(pca.encode(scaled)), expected, atol=1e-9)


def test_moments_do_not_depend_on_the_batches(train: Split) -> None:
    for one, other in zip(moments_of(train.images, 600), moments_of(train.images, 7), strict=True):
        np.testing.assert_array_equal(one, other)


def test_moments_of_images_and_codes_are_numpys(train: Split) -> None:
    scaled = train.images / 255
    for moments in (moments_of(train.images, 100), code_moments(scaled)):
        np.testing.assert_allclose(moments.mean, scaled.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(moments.covariance, np.cov(scaled.T, bias=True), atol=1e-12)


@pytest.mark.parametrize("ridge", [0.01, 100.0])
def test_the_probe_agrees_with_scikit_learn(train: Split, ridge: float) -> None:
    """On pixels, from exact moments, and on codes."""
    scaled = train.images / 255
    codes = pca_of(train.images, 16).encode(scaled)
    means = class_means(train.images, train.labels) / 255
    on_pixels = fit_probe(image_moments(train.images), means, train.labels, ridge)
    on_codes = fit_probe(code_moments(codes), class_means(codes, train.labels), train.labels, ridge)
    for probe, features in ((on_pixels, scaled), (on_codes, codes)):
        theirs = sklearn.linear_model.Ridge(alpha=ridge, solver="cholesky")
        theirs.fit(features, np.eye(10)[train.labels])
        np.testing.assert_allclose(probe.weights, theirs.coef_.T, atol=1e-7)
        np.testing.assert_allclose(probe.intercept, theirs.intercept_, atol=1e-7)
        np.testing.assert_array_equal(probe.predict(features), np.argmax(theirs.predict(features), axis=1))


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


# --- comparison ----------------------------------------------------------------------------

FIRST, SECOND = np.array([1.0, 2, 3, 9]), np.array([2.0, 2, 6, 6])


def compare_made_up(errors: np.ndarray, others: np.ndarray, resamples: int, seed: int) -> Comparison:
    model, opponent = (made_up.result(values.tolist()) for values in (errors, others))
    return compare_results(model, opponent, resamples, seed)


def test_an_interval_ends_at_the_percentiles_2_5_and_97_5() -> None:
    """Of 1001 resamples, at the 26th of either end."""
    row = compare_made_up(FIRST, SECOND, 1001, seed=3)
    first, second = bootstrap_means(np.stack([FIRST, SECOND], axis=1), 1001, seed=3).T
    assert (row.ratio_low, row.ratio_high) == tuple(np.sort(first / second)[[25, 975]])
    assert (row.difference_low, row.difference_high) == tuple(np.sort(first - second)[[25, 975]])


def test_the_interval_agrees_with_scipy() -> None:
    """Paired percentile bootstrap of a difference and of a ratio of means, other random numbers."""
    random = np.random.default_rng(0)
    others = random.gamma(4, 5, 500)
    errors = others * random.uniform(0.3, 0.9, 500)
    row = compare_made_up(errors, others, resamples=4000, seed=0)._asdict()
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


def evaluations() -> dict[str, Evaluation]:
    """Three models, ever better, and PCA of two sizes; six pixels, so the last model has a number for each."""
    labels = [1, 0, 1, 1]
    pca4, pca2 = made_up.result([3, 3, 4, 4], 4, seed=1), made_up.result([6, 6, 6, 6], 2, seed=2)
    return {
        "shallow": made_up.evaluation(made_up.result([4, 4, 4, 4], 4, seed=3, name="shallow"), pca4, labels),
        "deep": made_up.evaluation(made_up.result([1, 2, 3, 4], 2, seed=4, name="deep"), pca2, labels),
        "huge": made_up.evaluation(
            made_up.result([0.5] * 4, 6, seed=5, name=shown_name("huge", 6, 6)), made_up.result([0] * 4, 6), labels
        ),
    }


def test_every_later_model_is_compared_with_every_earlier_one_and_with_pca() -> None:
    rows = compare_all(evaluations(), 100, seed=0)
    expected = {
        ("deep", "shallow"): (10 / 16, -1.5, 0.75),
        ("huge (overcomplete)", "shallow"): (2 / 16, -3.5, 1),
        ("huge (overcomplete)", "deep"): (2 / 10, -2, 1),
        ("shallow", "PCA (4)"): (16 / 14, 0.5, 0),
        ("deep", "PCA (2)"): (10 / 24, -3.5, 1),
    }
    found = {(row.model, row.opponent): (row.ratio, row.difference, row.wins) for row in rows}
    assert found == expected
    assert list(found) == list(expected)
    seeds = [compare_all(evaluations(), 100, seed)[0].ratio_low for seed in (0, 0, 1)]
    assert seeds[0] == seeds[1] != seeds[2]


# --- pictures ------------------------------------------------------------------------------


def identity(codes: Any) -> Any:
    return codes


def test_the_first_image_of_each_class_is_shown() -> None:
    assert pictures.first_of_each_class(np.array([7, 2, 7, 0, 2], np.uint8)).tolist() == [3, 1, 0]


def test_extremes_are_the_best_the_median_and_the_worst() -> None:
    errors = np.array([50.0, 10, 40, 20, 30, 90, 70])
    assert extremes(errors, 1).tolist() == [[1], [2], [5]]
    assert extremes(errors, 3).tolist() == [[1, 3, 4], [4, 2, 0], [0, 6, 5]]
    assert extremes(errors[:2], 3).tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 0]]  # too few images


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
    return Data(fitted, held_out, middles["test"], (HEIGHT, WIDTH), image_moments(fitted.images))


@pytest.fixture  # built again for each test, so that mutmut sees that each of them runs what is measured
def measured(data: Data) -> Result:
    """PCA of the training images."""
    pca = fit_pca(data.moments, LATENT)
    return measure(MODEL, "made up", EncoderDecoder(pca.encode, pca.decode, 777), data, SETTINGS)


@pytest.fixture(scope="module")
def theirs(data: Data) -> Any:
    """Scikit-learn's PCA of the training images alone."""
    return sklearn.decomposition.PCA(LATENT, svd_solver="full").fit(data.train.images / 255)


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
    as_bytes = decoded.clip(0, 1).reshape(-1, HEIGHT, WIDTH) * 255
    np.testing.assert_allclose(measured.reconstructions, as_bytes, atol=0.51)


def accuracy(features: np.ndarray, labels: np.ndarray, test_features: np.ndarray, test_labels: np.ndarray) -> float:
    ridge = sklearn.linear_model.Ridge(alpha=SETTINGS.ridge).fit(features, np.eye(10)[labels])
    return float((ridge.predict(test_features).argmax(axis=1) == test_labels).mean())


def test_probes_are_judged_by_the_classes_that_they_were_fitted_to(data: Data, theirs: Any) -> None:
    """Test images of a class that training never saw have no say; generated digits are of the trained classes."""
    kept = np.isin(data.train.labels, (0, 3, 4, 8))
    train = Split(data.train.images[kept], data.train.labels[kept])
    some = data._replace(train=train, moments=image_moments(train.images))
    pca = fit_pca(some.moments, LATENT)
    found = measure(MODEL, "made up", EncoderDecoder(pca.encode, pca.decode, 0), some, SETTINGS)
    asked = np.isin(data.test.labels, (0, 3, 4, 8))
    for share, transform in ((found.probe, pca.encode), (probe_pixels(some, SETTINGS), identity)):
        features, test = (transform(images / 255) for images in (train.images, data.test.images[asked]))
        assert share == accuracy(features, train.labels, test, data.test.labels[asked])
    assert found.pictures.samples.shape == (4, 10, HEIGHT, WIDTH)


def test_dimensions_are_active_if_the_training_codes_vary(measured: Result, theirs: Any) -> None:
    expected = int((theirs.singular_values_**2 / 400 > SETTINGS.active_variance).sum())
    assert measured.active_dimensions == expected
    assert expected not in (0, LATENT)


def test_traversals_follow_the_training_codes(measured: Result, theirs: Any) -> None:
    """PCA's first components in their order, 2.5 standard deviations to either side of the training images' mean."""
    steps = measured.pictures.traversals[:, -1] - theirs.mean_.reshape(HEIGHT, WIDTH)
    lengths = np.sqrt(np.square(steps).sum(axis=(1, 2)))
    deviations = theirs.singular_values_[: pictures.DIMENSIONS] / np.sqrt(400)
    np.testing.assert_allclose(lengths, 2.5 * deviations, rtol=1e-4)


# --- evaluation ----------------------------------------------------------------------------


def save(path: Path, record: Any) -> None:
    with open(path, "wb") as file:
        save_record(file, record)


def test_an_evaluation_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    saved = evaluations()["deep"]
    save(tmp_path / "x.npz", saved)
    loaded = load_evaluation(tmp_path / "x.npz")
    for before, after in ((saved, loaded), (saved.model, loaded.model), (saved.baselines[0], loaded.baselines[0])):
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
    for broken in (b"", content[:500], content[:-30], buffer.getvalue()):
        path.write_bytes(broken)
        with pytest.raises(StageError, match=r"x\.npz is broken \(.*\); run `dvc repro`\."):
            load_evaluation(path)


def test_an_evaluation_file_holds_nothing_that_could_be_run(tmp_path: Path) -> None:
    """NumPy would pickle objects, and a pickle can call anything when it is read."""
    with pytest.raises(ValueError, match="pickle"):
        save(tmp_path / "x.npz", replace(evaluations()["deep"], loss=np.array([None])))


def test_pca_of_each_size_comes_first_by_size_and_an_overcomplete_model_is_called_so() -> None:
    some = evaluations()
    same_size = some | {"twin": replace(some["deep"], model=replace(some["deep"].model, name="twin"))}
    results = results_by_name(same_size)
    assert list(results) == ["PCA (2)", "PCA (4)", "shallow", "deep", "huge (overcomplete)", "twin"]
    assert results["PCA (2)"] is some["deep"].baselines[0]
    assert results["PCA (4)"] is some["shallow"].baselines[0]
    assert results["deep"] is some["deep"].model
    assert results["huge (overcomplete)"] is some["huge"].model


# --- tables --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567, "1,234,567"),
        (1234567.0, "1.235e+06"),
        (2.0, "2.000"),
        (0.000123456, "0.0001235"),
    ],
)
def test_numbers_have_four_digits_and_whole_numbers_all(value: float, text: str) -> None:
    assert tables.number(value) == text


def test_a_csv_file_has_as_many_digits_as_asked_for() -> None:
    table = pd.DataFrame({"pair": ["b / a"], "ratio": [2 / 3]})
    assert tables.csv(table) == b"pair,ratio\nb / a,0.666667\n"
    assert tables.csv(table, digits=9, header=False) == b"b / a,0.666666667\n"
