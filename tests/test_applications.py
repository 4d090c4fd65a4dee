"""Applications of codes, against scikit-learn, SciPy and scikit-image on real digits, by hand, and by the real DVC."""

import functools
import json
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import scipy
import skimage
import sklearn.covariance
import sklearn.linear_model
import sklearn.metrics
import sklearn.neighbors
from sklearn.decomposition import PCA

from stages import classical as classical_stage
from stages.applications import anomalies, denoisers, denoising
from stages.applications.anomalies import (
    METRICS,
    NEAREST_IMAGES,
    REPORT,
    auroc,
    bootstrap_aurocs,
    combined_score,
    inverse_covariance,
    mahalanobis,
)
from stages.applications.denoising import Classical, add_noise, measure_denoised, read_chosen
from stages.applications.schema import ApplicationParams
from stages.core import files, measures
from stages.core.linear import code_moments, fit_pca, image_moments
from stages.core.params import read_params
from stages.core.records import load_record
from tests import made_up
from tests.conftest import MODELS, ROOT, change_params, succeed

quick = pytest.mark.quick

Mnist = dict[str, tuple[np.ndarray, np.ndarray]]
SSIM = {"data_range": 1, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
SETTINGS = read_params(ApplicationParams, ROOT / "params.yaml").denoise.model_copy(
    update={"noise": [0.1, 0.4], "images": 30, "validation_images": 12, "seed": 3}
)


# --- scores --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def codes(mnist: Mnist) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """PCA's codes of training digits other than 3, and of test digits, with the test labels."""
    images, labels = mnist["train"]
    kept = images[labels != 3].reshape(-1, 784)
    pca = fit_pca(image_moments(kept), 12)
    test_images, test_labels = mnist["test"]
    return pca.encode(kept / 255), pca.encode(test_images.reshape(-1, 784) / 255), test_labels


def distances_from(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    moments = code_moments(train)
    return mahalanobis(test, moments.mean, inverse_covariance(moments))


@quick
def test_the_distance_is_mahalanobis(codes: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    train, test, _ = codes
    found = distances_from(train, test)
    theirs = sklearn.covariance.EmpiricalCovariance().fit(train)
    np.testing.assert_allclose(found, theirs.mahalanobis(test), rtol=1e-9)
    inverse = np.linalg.inv(np.cov(train.T, bias=True))
    one = scipy.spatial.distance.mahalanobis(test[7], train.mean(axis=0), inverse)
    assert found[7] == pytest.approx(one**2)


@quick
def test_directions_without_variance_do_not_count() -> None:
    """A dead unit, and one that repeats another; a collapsed model puts everything at distance 0."""
    values = np.random.default_rng(0).normal(size=(50, 2))
    train = np.column_stack([values, np.full(50, 7.0), values[:, 0]])
    test = np.array([[1.0, 2, 7, 1], [1, 2, 9, 1]])
    expected = distances_from(values, test[:, :2])
    np.testing.assert_allclose(distances_from(train, test), expected, rtol=1e-9)
    theirs = sklearn.covariance.EmpiricalCovariance().fit(train).mahalanobis(test)
    np.testing.assert_allclose(expected, theirs, rtol=1e-9)
    assert distances_from(np.ones((3, 4)), test).tolist() == [0, 0]


@quick
def test_the_combined_score_by_hand() -> None:
    """Errors of 1 and e, ink of 1 and e^3, squared distances of e^2 and 1; nothing is infinite where one is 0."""
    score = combined_score(np.array([1, np.e]), np.array([1, np.e**3]), np.array([np.e**2, 1]))
    np.testing.assert_allclose(score, [1, -2])
    none = combined_score(np.zeros(2), np.zeros(2), np.array([0.0, 4]))
    assert np.isfinite(none).all()
    assert none[0] < none[1]


# --- areas ---------------------------------------------------------------------------------


@quick
def test_resampled_areas_are_those_of_scikit_learn(codes: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """On the images of the same draws, with scores that have ties, too."""
    train, test, labels = codes
    anomalous = labels == 3
    distances = distances_from(train, test)
    columns = np.stack([distances, np.round(np.log(distances)), test[:, 0]], axis=1)
    found = bootstrap_aurocs(anomalous, columns, 25, seed=4)
    random = np.random.default_rng(4)
    kinds = np.flatnonzero(~anomalous), np.flatnonzero(anomalous)
    for row in found:
        drawn = np.concatenate([kind[random.integers(len(kind), size=len(kind))] for kind in kinds])
        expected = [sklearn.metrics.roc_auc_score(anomalous[drawn], column[drawn]) for column in columns.T]
        np.testing.assert_allclose(row, expected, rtol=1e-12)
    assert auroc(anomalous, columns[:, 1]) == pytest.approx(
        scipy.stats.mannwhitneyu(columns[anomalous, 1], columns[~anomalous, 1]).statistic
        / (anomalous.sum() * (~anomalous).sum())
    )


@quick
@pytest.mark.parametrize("count", [3, 40])
def test_distances_to_the_nearest_images_are_those_of_scikit_learn(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over several blocks of either kind of images, and where there are fewer than the nearest ones."""
    monkeypatch.setattr(measures, "BATCH", 7)
    images = np.random.default_rng(0).integers(1, 256, (count + 20, 3, 4), np.uint8)
    train, test = images[:count], images[count:]
    rows = [part.reshape(len(part), -1) / 255 for part in (train, test)]
    index = sklearn.neighbors.NearestNeighbors(n_neighbors=min(5, count)).fit(rows[0])
    expected = np.square(index.kneighbors(rows[1])[0]).mean(axis=1)
    found = anomalies.nearest_scores(train, test, rows[1].sum(axis=1))
    np.testing.assert_allclose(found["error"], expected, rtol=1e-5)
    np.testing.assert_allclose(np.exp(found["error / ink"]), expected / rows[1].sum(axis=1), rtol=1e-5)


# --- noise ---------------------------------------------------------------------------------


@quick
def test_noise_has_its_deviation_and_is_clipped() -> None:
    grey = np.full((50, 28, 28), 0.5, np.float32)
    noisy = add_noise(grey, 0.1, seed=1, stream=0)
    assert noisy.dtype == np.float32
    assert noisy.std() == pytest.approx(0.1, rel=0.02)
    assert noisy.mean() == pytest.approx(0.5, abs=0.002)
    assert scipy.stats.kstest((noisy.ravel() - 0.5) / 0.1, "norm").pvalue > 0.01
    strong = add_noise(grey, 5.0, seed=1, stream=0)
    assert (strong.min(), strong.max()) == (0, 1)
    black = add_noise(np.zeros((50, 28, 28), np.float32), 0.1, seed=1, stream=0)
    assert (black == 0).mean() == pytest.approx(0.5, abs=0.02)  # what would be darker than black


@quick
def test_noise_depends_on_seed_and_stream_alone() -> None:
    grey = np.full((3, 4, 5), 0.5, np.float32)
    first = add_noise(grey, 0.01, 1, 0)
    np.testing.assert_array_equal(first, add_noise(grey, 0.01, 1, 0))
    np.testing.assert_allclose((add_noise(grey, 0.02, 1, 0) - 0.5), 2 * (first - 0.5), atol=1e-6)
    for seed, stream in ((2, 0), (1, 1)):
        assert (first != add_noise(grey, 0.01, seed, stream)).mean() > 0.9
    assert (first[0] != first[1]).all()


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mnist: Mnist) -> Path:
    """A folder with images of all splits."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    change_params(tmp_path, lambda p: p["denoise"].update(SETTINGS.model_dump()))
    (tmp_path / "data/prepared").mkdir(parents=True)
    for split, (images, labels) in (("train", mnist["train"]), ("validation", mnist["train"]), ("test", mnist["test"])):
        np.save(files.images_path(split), images[:60])
        np.save(files.labels_path(split), labels[:60])
    return tmp_path


@quick
def test_chosen_images_are_some_of_the_split(prepared: Path, mnist: Mnist) -> None:
    scaled = (mnist["test"][0][:60] / np.float32(255)).astype(np.float32)
    chosen = read_chosen("test", 20, seed=0)
    assert chosen.dtype == np.float32
    places = [next(i for i, image in enumerate(scaled) if (image == one).all()) for one in chosen]
    assert len(set(places)) == 20
    assert places == sorted(places) != list(range(20))
    np.testing.assert_array_equal(chosen, read_chosen("test", 20, seed=0))
    assert (read_chosen("test", 20, seed=1) != chosen).any()
    np.testing.assert_array_equal(read_chosen("test", 500, seed=0), scaled)  # all there are


# --- denoised images -----------------------------------------------------------------------


@quick
def test_denoised_images_are_measured_as_scikit_image_does(mnist: Mnist) -> None:
    clean = (mnist["test"][0][:15] / np.float32(255)).astype(np.float32)
    random = np.random.default_rng(0)
    given = [clean + random.normal(0, deviation, clean.shape) for deviation in (0.1, 0.3)]  # not yet clipped
    found = measure_denoised("reference", "x", clean, (images.reshape(15, 784) for images in given))
    for level, images in enumerate(np.clip(given, 0, 1)):
        expected = [skimage.metrics.structural_similarity(a, b, **SSIM) for a, b in zip(clean, images, strict=True)]
        np.testing.assert_allclose(found.ssim[level], expected, atol=1e-6)
        np.testing.assert_allclose(found.squared_error[level] / 784, ((images - clean) ** 2).mean(axis=(1, 2)))
        np.testing.assert_allclose(found.pictures[level], images[: denoising.SHOWN], atol=1e-6)
    table = denoising.denoising_table([found], np.array([0.1, 0.3]), 200, seed=0)
    for psnr, images in zip(table["psnr"], np.clip(given, 0, 1), strict=True):
        assert psnr == pytest.approx(skimage.metrics.peak_signal_noise_ratio(clean, images, data_range=1), rel=1e-6)


# --- methods without a network -------------------------------------------------------------


@quick
def test_wavelet_shrinkage_is_that_of_scikit_image(mnist: Mnist) -> None:
    """With the strength of the setting as a multiple of the noise; the mean over four shifts."""
    clean = (mnist["train"][0][:10] / np.float32(255)).astype(np.float32)
    noisy, deviation = add_noise(clean, 0.3, 0, 0), 0.3
    for denoiser, strength in zip(denoisers.wavelets_of(mnist["train"][0], 0.3, 0), denoisers.STRENGTHS, strict=True):
        expected = np.zeros_like(clean)
        for shift in ((0, 0), (0, 1), (1, 0), (1, 1)):
            for image, total in zip(noisy, expected, strict=True):
                moved = np.roll(image, shift, (0, 1))
                options = {"mode": "soft", "wavelet_levels": 1, "method": "BayesShrink"}
                once = skimage.restoration.denoise_wavelet(moved, strength * deviation, "db2", **options)
                total += np.roll(once, (-shift[0], -shift[1]), (0, 1)) / 4
        np.testing.assert_allclose(denoiser.apply(noisy, deviation), expected.clip(0, 1), atol=1e-5)


@quick
def test_linear_regression_is_scikit_learns_ridge(mnist: Mnist, monkeypatch: pytest.MonkeyPatch) -> None:
    """From noisy to clean training images, with different noise for each block."""
    monkeypatch.setattr(denoisers, "BLOCK", 400)
    images, new = mnist["train"][0][:600, 5:19, 8:20], mnist["test"][0][:9, 5:19, 8:20]
    clean, unseen = ((part / np.float32(255)).astype(np.float32) for part in (images, new))
    blocks = [
        add_noise(clean[:400], 0.3, 4, denoising.TRAINING),
        add_noise(clean[400:], 0.3, 4, denoising.TRAINING + 1),
    ]
    noisy = np.concatenate(blocks).reshape(600, -1).astype(np.float64)
    for denoiser, penalty in zip(denoisers.linear_of(images, 0.3, 4), denoisers.PENALTIES, strict=True):
        ridge = sklearn.linear_model.Ridge(penalty).fit(noisy, clean.reshape(600, -1))
        expected = ridge.predict(unseen.reshape(9, -1)).reshape(unseen.shape).clip(0, 1)
        np.testing.assert_allclose(denoiser.apply(unseen, 0.3), expected, atol=1e-4)


@quick
@pytest.mark.parametrize("method", denoisers.CHOICES)
def test_the_best_setting_and_correction_are_chosen(method: str, mnist: Mnist) -> None:
    """Those of the smallest squared error, which is below that of the settings alone and of doing nothing."""
    images = mnist["train"][0]
    clean = (images[:20] / np.float32(255)).astype(np.float32)
    noisy = add_noise(clean, 0.3, 0, 0)
    candidates = denoisers.CHOICES[method](images, 0.3, 0)
    chosen = denoisers.choose(candidates, clean, noisy, 0.3)
    alone = {one.setting: one.apply(noisy, 0.3) for one in candidates}
    errors = {
        (setting, offset, factor): np.square(((found - offset * 0.3) * factor).clip(0, 1) - clean).sum()
        for setting, found in alone.items()
        for offset in denoisers.OFFSETS
        for factor in denoisers.FACTORS
    }
    assert errors[chosen.setting, chosen.offset, chosen.factor] == pytest.approx(min(errors.values()), rel=1e-4)
    error = np.square(chosen.apply(noisy, 0.3) - clean).sum()
    assert error == pytest.approx(min(errors.values()), rel=1e-4)
    assert error < 0.9 * min(np.square(found - clean).sum() for found in alone.values())
    assert error < 0.7 * np.square(noisy - clean).sum()


@quick
@pytest.mark.parametrize("size", [(9, 14), (1, 5)])
@pytest.mark.parametrize("method", denoisers.CHOICES)
def test_methods_without_a_network_take_images_of_any_size(method: str, size: tuple[int, int]) -> None:
    """Nothing warns, and after training on black images, black stays black."""
    images = np.random.default_rng(0).random((2, *size)).astype(np.float32)
    with warnings.catch_warnings(action="error"):
        for denoiser in denoisers.CHOICES[method](np.zeros((3, *size), np.uint8), 0.3, 0):
            found = denoiser.apply(images, 0.3)
            assert found.shape == images.shape
            assert found.dtype == np.float32
            assert np.isfinite(found).all()
            assert not denoiser.apply(np.zeros_like(images), 0.3).any()


@quick
def test_settings_are_chosen_on_validation_images_only(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other test images change none of them; other validation images do."""

    def run() -> Classical:
        ended = made_up.call_main(classical_stage.main, monkeypatch, capsys)
        assert (ended.status, ended.err) == (0, "")
        return load_record(Classical, denoising.CLASSICAL)

    first = run()
    even = np.full((60, 28, 28), 128, np.uint8)  # even grey, for which the weakest is the worst
    np.save(files.images_path("test"), even)
    second = run()
    np.testing.assert_array_equal(first.settings, second.settings)
    assert (first.methods[0].squared_error != second.methods[0].squared_error).all()
    np.save(files.images_path("validation"), even)
    third = run()
    assert not any(setting.startswith(f"sigma = {min(denoisers.STRENGTHS)} σ") for setting in third.settings[0])
    assert (first.settings != third.settings).all()
    change_params(prepared, lambda params: params["prepare"].update(validation_images=0))
    assert (run().settings != third.settings).all()  # training images choose: these files now hold the test images


# --- the pipeline --------------------------------------------------------------------------


def test_the_denoising_table_is_what_keras_and_scikit_image_give(
    run_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run_template)
    given = read_params(ApplicationParams).denoise
    clean = read_chosen("test", given.images, given.seed)
    models = {name: keras.saving.load_model(files.model_files(name).model) for name in MODELS}
    table = pd.read_csv(denoising.TABLE)
    rows_of: dict[Any, Any] = table.set_index(["method", "noise"]).to_dict("index")
    for deviation in given.noise:
        noisy = add_noise(clean, deviation, given.seed, denoising.TEST)
        rows = noisy.reshape(len(clean), -1)
        outputs = {name: model.predict(rows, verbose=0) for name, model in models.items()}
        outputs |= {"noisy image": rows}
        for method, images in outputs.items():
            result = images.reshape(clean.shape).clip(0, 1).astype(np.float32)
            psnr = skimage.metrics.peak_signal_noise_ratio(clean, result, data_range=1)
            ssim = np.mean(
                [skimage.metrics.structural_similarity(*pair, **SSIM) for pair in zip(clean, result, strict=True)]
            )
            row = rows_of[method, deviation]
            assert (row["psnr"], row["ssim"]) == (pytest.approx(psnr, rel=1e-3), pytest.approx(ssim, abs=1e-4))
            assert row["psnr_low"] < row["psnr"] < row["psnr_high"]
    assert table.groupby("method", sort=False)["kind"].first().tolist() == [
        "reference", "baseline", "baseline", "model", "model"
    ]  # fmt: skip


def test_missing_classes_are_found_as_often_as_scikit_learn_says(run_template: Path, one_missing: Path) -> None:
    """What needs all classes is measured on those that are left."""
    assert json.loads((run_template / METRICS).read_text()) == {"auroc": {}}
    keys = list(json.loads((run_template / "metrics/deep.json").read_text()))
    prepared = {
        split: [np.load(one_missing / path(split)) for path in (files.images_path, files.labels_path)]
        for split in files.SPLITS
    }
    assert {split: set(labels) for split, (_, labels) in prepared.items()} == {
        "train": set(range(10)) - {3}, "validation": set(range(10)) - {3}, "test": set(range(10))
    }  # fmt: skip
    images, labels = prepared["test"]
    pixel_mass = images.sum(axis=(1, 2)) / 255
    scaled = {split: images.reshape(len(images), -1) / 255 for split, (images, _) in prepared.items()}
    pca = PCA(16, svd_solver="full").fit(scaled["train"])
    encoded = {"PCA (16)": (pca.transform, pca.inverse_transform)}
    for name in MODELS:
        model = keras.saving.load_model(one_missing / f"data/models/{name}.keras")
        halves = [functools.partial(model.get_layer(half).predict, verbose=0) for half in ("encoder", "decoder")]
        encoded[name] = (halves[0], halves[1])
    aurocs = json.loads((one_missing / METRICS).read_text())["auroc"]
    assert list(aurocs) == [*encoded, NEAREST_IMAGES]
    index = sklearn.neighbors.NearestNeighbors(n_neighbors=5).fit(scaled["train"])
    nearest = np.square(index.kneighbors(scaled["test"])[0]).mean(axis=1)
    assert aurocs[NEAREST_IMAGES] == pytest.approx(sklearn.metrics.roc_auc_score(labels == 3, nearest / pixel_mass))
    page = (one_missing / REPORT).read_text()
    assert "Missing from training: 3." in page
    for name, (encode, decode) in encoded.items():
        codes = {split: encode(rows).astype(np.float64) for split, rows in scaled.items()}
        error = np.square(decode(codes["test"]).clip(0, 1) - scaled["test"]).sum(axis=1)
        distance = sklearn.covariance.EmpiricalCovariance().fit(codes["train"]).mahalanobis(codes["test"])
        expected = [
            sklearn.metrics.roc_auc_score(labels == 3, score)
            for score in (error, error / pixel_mass, distance, np.log(error / pixel_mass) + np.log(distance) / 2)
        ]
        assert aurocs[name] == pytest.approx(expected[-1], abs=2e-3)
        (row,) = re.findall(rf"^\| {re.escape(name)} .*", page, re.MULTILINE)
        cells = [[float(number) for number in re.findall(r"[\d.]+", cell)] for cell in row.split("|")[2:-1]]
        assert [cell[0] for cell in cells] == pytest.approx(expected, abs=2e-3)
        assert all(low < area < high for area, low, high in cells)
    assert list(json.loads((one_missing / "metrics/deep.json").read_text())) == keys
    assert "auroc.deep" in succeed(one_missing, "dvc", "exp", "show", "--csv").splitlines()[0]


@quick
def test_intervals_depend_on_the_seed_alone() -> None:
    methods = [made_up.denoised([1, 2, 3, 9], [4, 1, 6, 5])]
    first, second, other = (denoising.denoising_table(methods, np.array([0.1, 0.3]), 50, seed) for seed in (4, 4, 5))
    pd.testing.assert_frame_equal(first, second)
    assert (first["psnr_low"] != other["psnr_low"]).any()
    assert (first["psnr"] == other["psnr"]).all()
    anomalous, columns = np.arange(20) % 3 == 0, np.random.default_rng(0).random((20, 2))
    draws = [bootstrap_aurocs(anomalous, columns, 50, seed) for seed in (4, 4, 5)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()
