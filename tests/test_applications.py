"""Applications of codes, against scikit-learn, SciPy and scikit-image on real digits, by hand, and by the real DVC."""

import json
import re
import shutil
import subprocess
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
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from stages import classical as classical_stage
from stages.applications import anomalies, denoisers, denoising
from stages.applications import records as applications
from stages.applications.anomalies import (
    Area,
    auroc,
    bootstrap_aurocs,
    combined_score,
    compare_aurocs,
    inverse_covariance,
    squared_distances,
)
from stages.applications.denoising import Classical, add_noise, measure_denoised, read_chosen
from stages.applications.records import Application
from stages.applications.schema import ApplicationParams
from stages.core import files, tables
from stages.core.comparison import bootstrap_means
from stages.core.errors import StageError
from stages.core.evaluation import load_evaluation
from stages.core.linear import code_moments, fit_pca, image_moments
from stages.core.params import read_params
from stages.core.records import load_record, save_record
from stages.core.schema import Params
from stages.tools.explore.answers import Question, answer, start
from stages.tools.explore.library import Library
from stages.tools.explore.scenes import Scene
from tests import made_up
from tests.conftest import MODELS, ROOT, change_params, stages_run, succeed

quick = pytest.mark.quick

Mnist = dict[str, tuple[np.ndarray, np.ndarray]]
SETTINGS = read_params(ApplicationParams, ROOT / "params.yaml").apply.model_copy(
    update={"noise": [0.1, 0.4], "images": 30, "validation_images": 12, "seed": 3}
)


# --- scores --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def codes(mnist: Mnist) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """PCA's codes of training digits other than 3, and of test digits, with the test labels."""
    images, labels = mnist["train"]
    kept = images[labels != 3].reshape(-1, 784)
    pca = fit_pca(image_moments(kept, 100), 12)
    test_images, test_labels = mnist["test"]
    return pca.encode(kept / 255), pca.encode(test_images.reshape(-1, 784) / 255), test_labels


def distances_from(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    moments = code_moments(train)
    return squared_distances(test, moments.mean, inverse_covariance(moments))


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


@quick
@settings(max_examples=50, deadline=None)
@given(errors=st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=8), factor=st.floats(1e-3, 1e3))
def test_units_do_not_change_the_order_of_combined_scores(errors: list[float], factor: float) -> None:
    values, distances = np.array(errors), np.array(errors[::-1])
    ink = np.arange(1.0, len(values) + 1)
    shift = combined_score(values * factor, ink, distances) - combined_score(values, ink, distances)
    np.testing.assert_allclose(shift, np.log(factor), atol=1e-9)


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
def test_an_area_by_hand() -> None:
    """Of the six pairs of one of two anomalous and one of three other images, four are in order and one is a tie."""
    anomalous = np.array([True, True, False, False, False])
    assert auroc(anomalous, np.array([3.0, 1, 2, 1, 0])) == 4.5 / 6


@quick
def test_the_interval_agrees_with_that_of_the_mann_whitney_statistic() -> None:
    """Of normal scores: the bootstrap's standard deviation, and the one of J. Hanley and B. McNeil (1982)."""
    random = np.random.default_rng(0)
    anomalous = np.repeat([True, False], [300, 700])
    values = random.exponential(size=1000) * np.where(anomalous, 3, 1)  # for which their formula is exact
    area = auroc(anomalous, values)
    first, second = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + 299 * (first - area**2) + 699 * (second - area**2)) / (300 * 700)
    drawn = bootstrap_aurocs(anomalous, values[:, None], 2000, seed=0)
    assert drawn.std() == pytest.approx(np.sqrt(variance), rel=0.1)


@quick
def test_every_result_has_an_area_for_every_score() -> None:
    """Class 5 is missing: the last two of the digits."""
    digits = made_up.digits([0, 1, 1, 0, 5, 5], trained=[0, 1])
    results = {
        "PCA (2)": made_up.result([1, 2, 3, 4, 5, 6], distance=np.array([6.0, 5, 4, 3, 2, 1])),
        "deep": made_up.result([6, 2, 3, 4, 5, 1], distance=np.array([1.0, 1, 1, 1, 1, 9])),
    }
    found = compare_aurocs(results, digits, 1001, seed=0)
    assert {name: list(areas) for name, areas in found.items()} == {
        name: ["error", "distance", "combined"] for name in results
    }
    assert found["PCA (2)"]["error"] == (1, 1, 1)
    assert found["PCA (2)"]["distance"] == (0, 0, 0)
    assert found["deep"]["error"].auroc == 3 / 8
    assert found["deep"]["distance"].auroc == 6 / 8
    columns = np.stack([v for r in results.values() for v in anomalies.scores(r).values()], axis=1)
    drawn = np.sort(bootstrap_aurocs(np.array([0, 0, 0, 0, 1, 1], bool), columns, 1001, 0), axis=0)
    assert found["deep"]["error"][1:] == (drawn[25, 3], drawn[975, 3])  # the 26th of either end
    assert anomalies.missing_classes(digits) == [5]
    assert compare_aurocs(results, made_up.digits([0, 1, 1, 0, 5, 5]), 100, seed=0) == {}


# --- noise ---------------------------------------------------------------------------------


@quick
def test_noise_has_its_deviation_and_is_clipped() -> None:
    grey = np.full((50, 28, 28), 0.5, np.float32)
    noisy = add_noise(grey, 0.1, seed=1, stream=0)
    assert noisy.dtype == np.float32
    assert noisy.std() == pytest.approx(0.1, rel=0.02)
    assert noisy.mean() == pytest.approx(0.5, abs=0.002)
    assert scipy.stats.kstest((noisy.ravel() - 0.5) / 0.1, "norm").pvalue > 0.01
    noise = np.random.default_rng((1, 0)).standard_normal(grey.shape, np.float32)
    np.testing.assert_allclose(noisy, grey + np.float32(0.1) * noise, rtol=1e-6)
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
    """A folder with validation and test images."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    change_params(tmp_path, lambda p: p["apply"].update(SETTINGS.model_dump()))
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
    found = measure_denoised(clean, (images.reshape(15, 784) for images in given))
    options = {"data_range": 1, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    for level, images in enumerate(np.clip(given, 0, 1)):
        expected = [skimage.metrics.structural_similarity(a, b, **options) for a, b in zip(clean, images, strict=True)]
        np.testing.assert_allclose(found.ssim[level], expected, atol=1e-6)
        np.testing.assert_allclose(found.squared_error[level] / 784, ((images - clean) ** 2).mean(axis=(1, 2)))
        np.testing.assert_allclose(found.pictures[level], images[: denoising.SHOWN], atol=1e-6)
    table = tables.denoising_table({"deep": found}, np.array([0.1, 0.3]), ["deep"], 200, seed=0)
    for psnr, images in zip(table["psnr"], np.clip(given, 0, 1), strict=True):
        assert psnr == pytest.approx(skimage.metrics.peak_signal_noise_ratio(clean, images, data_range=1), rel=1e-6)


@quick
def test_the_table_of_denoised_images() -> None:
    given = {
        "noisy image": made_up.denoised([6, 6, 6], [0.6, 6, 60]),
        "deep": made_up.denoised([0.06, 0.06, 0.06], [3, 1, 2]),
    }
    table = tables.denoising_table(given, np.array([0.2, 0.5]), ["deep"], 1001, seed=7)
    assert table[["method", "kind", "noise"]].to_numpy().tolist() == [
        ["noisy image", "baseline", 0.2],
        ["noisy image", "baseline", 0.5],
        ["deep", "model", 0.2],
        ["deep", "model", 0.5],
    ]
    np.testing.assert_allclose(table["psnr"], [0, -10 * np.log10(22.2 / 6), 20, -10 * np.log10(2 / 6)], atol=1e-9)
    np.testing.assert_allclose(table["ssim"], [0.4, 1 - 2.22, 0.994, 0.8])
    means = np.sort(bootstrap_means(np.array([[3.0], [1], [2]]), 1001, seed=7)[:, 0])
    last = table.iloc[3]
    assert (last["psnr_low"], last["psnr_high"]) == tuple(-10 * np.log10(means[[975, 25]] / 6))
    assert (last["ssim_low"], last["ssim_high"]) == pytest.approx(tuple(1 - means[[975, 25]] / 10))
    assert table["psnr_low"][0] == table["psnr_high"][0] == pytest.approx(0)


# --- classical methods ---------------------------------------------------------------------


@quick
@pytest.mark.parametrize("method", denoisers.CHOICES)
def test_classical_methods_are_those_of_scikit_image(method: str, mnist: Mnist) -> None:
    """With the strength of the setting as a multiple of the noise, and better than doing nothing."""
    clean = (mnist["train"][0][:10] / np.float32(255)).astype(np.float32)
    noisy, deviation = add_noise(clean, 0.3, 0, 0), 0.3
    chosen = denoisers.choose(denoisers.CHOICES[method], clean, noisy, deviation)
    strength = float(chosen.setting.split(" = ")[1].removesuffix(" σ")) * deviation

    def theirs(image: np.ndarray) -> Any:
        if method == "nonlocal_means":
            return skimage.restoration.denoise_nl_means(image, 5, 6, strength, fast_mode=True)
        if method == "total_variation":
            return skimage.restoration.denoise_tv_chambolle(image, strength)
        wavelet = chosen.setting.split(",")[0]
        found = np.zeros_like(image)
        for shift in ((0, 0), (0, 1), (1, 0), (1, 1)):
            moved = np.roll(image, shift, (0, 1))
            once = skimage.restoration.denoise_wavelet(moved, strength, wavelet, "soft", 1, method="BayesShrink")
            found += np.roll(once, (-shift[0], -shift[1]), (0, 1)) / 4
        return found

    expected = np.stack([theirs(image) for image in noisy]).clip(0, 1)
    found = chosen.apply(noisy, deviation)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    errors = [np.square(d.apply(noisy, deviation) - clean).sum() for d in denoisers.CHOICES[method]]
    assert np.square(expected - clean).sum() == pytest.approx(min(errors), rel=1e-4)
    assert min(errors) < 0.7 * np.square(noisy - clean).sum()
    assert len({round(float(error), 3) for error in errors}) > 3  # so that there is something to choose


@quick
@pytest.mark.parametrize("size", [(9, 14), (2, 3), (1, 5)])
@pytest.mark.parametrize("method", denoisers.CHOICES)
def test_classical_methods_take_images_of_any_size(method: str, size: tuple[int, int]) -> None:
    """Nothing warns, and an image without noise and ink stays black."""
    images = np.random.default_rng(0).random((2, *size)).astype(np.float32)
    with warnings.catch_warnings(action="error"):
        for denoiser in denoisers.CHOICES[method]:
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
        return load_record(Classical, files.CLASSICAL)

    first = run()
    even = np.full((60, 28, 28), 128, np.uint8)  # even grey, for which the strongest is the best
    np.save(files.images_path("test"), even)
    second = run()
    np.testing.assert_array_equal(first.settings, second.settings)
    assert (first.noisy.squared_error != second.noisy.squared_error).all()
    np.save(files.images_path("validation"), even)
    third = run()
    assert third.settings[0].tolist() == ["h = 1.2 σ"] * 2
    assert (first.settings[:, 1] != third.settings[:, 1]).all()


@quick
def test_the_stage_measures_what_it_says(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = made_up.call_main(classical_stage.main, monkeypatch, capsys)
    record = load_record(Classical, files.CLASSICAL)
    clean = read_chosen("test", 30, 3)
    np.testing.assert_array_equal(record.images, clean[:8])
    assert record.noise.tolist() == [0.1, 0.4]
    for level, deviation in enumerate((0.1, 0.4)):
        noisy = add_noise(clean, deviation, 3, denoising.TEST)
        np.testing.assert_array_equal(record.noisy.pictures[level], noisy[:8])
        for method, chosen in zip(denoisers.CHOICES, record.settings, strict=True):
            (denoiser,) = (d for d in denoisers.CHOICES[method] if d.setting == chosen[level])
            expected = np.square(denoiser.apply(noisy, deviation).astype(np.float64) - clean).sum(axis=(1, 2))
            np.testing.assert_allclose(getattr(record, method).squared_error[level], expected, rtol=1e-6)
    assert ended.out.splitlines() == [
        f"{name}: {'; '.join(chosen)}" for name, chosen in zip(denoising.METHODS.values(), record.settings, strict=True)
    ]


# --- files and tables ----------------------------------------------------------------------


def save(path: Path, record: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        save_record(file, record)


@quick
def test_everything_denoised_has_its_name_and_models_come_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    labels, errors = [0, 1], [3.0, 4]
    evaluations = {
        "huge": made_up.evaluation(made_up.result([1, 2], 6), made_up.result([0, 0], 6), labels),
        "deep": made_up.evaluation(made_up.result([1, 2], 2), made_up.result([1, 1], 2), labels),
    }
    classical = made_up.classical(errors)
    save(files.CLASSICAL, classical)
    paths = {name: files.model_files(name).application for name in evaluations}
    for seed, name in enumerate(evaluations):
        codes = made_up.application().labels
        model, pca = made_up.denoised([1, seed], seed=seed), made_up.denoised([2, seed], seed=seed)
        record = Application("digest", model, pca, codes)
        save(paths[name], record)
    found_classical, found = applications.load_denoised(paths, evaluations)
    assert found_classical.settings.tolist() == [["a"], ["c"], ["e"]]
    assert list(found) == [
        "noisy image", "non-local means", "total variation", "wavelet shrinkage",
        "PCA (2)", "huge (overcomplete)", "deep",
    ]  # fmt: skip
    np.testing.assert_array_equal(found["total variation"].pictures, classical.total_variation.pictures)
    assert [found[name].squared_error.tolist() for name in ("PCA (2)", "huge (overcomplete)", "deep")] == [
        [[2, 1]], [[1, 0]], [[1, 1]]
    ]  # fmt: skip
    save(files.CLASSICAL, replace(classical, digest="of other noise"))
    with pytest.raises(
        StageError, match=r"huge\.npz is of other images or noise than data/classical/denoising\.npz; run `dvc"
    ):
        applications.load_denoised(paths, evaluations)
    files.CLASSICAL.write_bytes(b"nothing")
    with pytest.raises(StageError, match=r"data/classical/denoising\.npz is broken \("):
        applications.load_denoised(paths, evaluations)


@quick
def test_the_report_of_anomalies_by_hand() -> None:
    areas = {"deep": {"error": Area(0.91234, 0.9, 0.92), "combined": Area(0.95, 0.94, 0.96)}}
    page = tables.report_anomalies(areas, [3, 5])
    expected = """\
## Which digits are anomalous?

Missing from training: 3, 5. Area under the ROC curve of telling their test images
from the others, by three scores, with 95 % intervals. [docs/anomalies.md](../docs/anomalies.md)
explains the scores.

|      |                   `error` |                `combined` |
|:-----|--------------------------:|--------------------------:|
| deep | 0.9123 (0.9000 to 0.9200) | 0.9500 (0.9400 to 0.9600) |
"""
    assert page == expected
    page = tables.report_anomalies({}, [])
    expected = """\
## Which digits are anomalous?

No class is missing from training, so there is none to be told from the others;
[docs/anomalies.md](../docs/anomalies.md) shows how to leave one out.
"""
    assert page == expected


@quick
def test_the_report_of_denoising_by_hand() -> None:
    classical = made_up.classical([6, 6, 6], [0.6, 6, 60])
    given = {"noisy image": classical.noisy, "deep": made_up.denoised([0.06, 0.06, 0.06], [0.006] * 3)}
    table = tables.denoising_table(given, classical.noise, ["deep"], 100, seed=0)
    page = tables.report_denoising(table, classical)
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == [
        "`psnr`", "noisy image", "deep", "`ssim`", "noisy image", "deep", "noise",
        "non-local means", "total variation", "wavelet shrinkage",
    ]  # fmt: skip
    assert rows[0][1:] == rows[3][1:] == rows[6][1:] == ["0.2", "0.5"]
    assert rows[2][1:] == ["20.00 (20.00 to 20.00)", "30.00 (30.00 to 30.00)"]
    assert rows[5][1] == "0.9940 (0.9940 to 0.9940)"
    assert rows[8][1:] == ["c", "d"]
    assert "\n3 test images with Gaussian noise" in page


# --- the pipeline --------------------------------------------------------------------------


def test_what_apply_measured_is_what_keras_and_scikit_learn_give(
    run_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras
    from sklearn.decomposition import PCA

    monkeypatch.chdir(run_template)
    given = read_params(ApplicationParams).apply
    clean = read_chosen("test", given.images, given.seed)
    train = files.read_split("train").images / 255
    pca = PCA(16, svd_solver="full").fit(train)
    table = pd.read_csv("plots/denoising.csv").set_index(["method", "noise"])
    for name in MODELS:
        record = load_record(Application, files.model_files(name).application)
        model = keras.saving.load_model(files.model_files(name).model)
        for level, deviation in enumerate(given.noise):
            noisy = add_noise(clean, deviation, given.seed, denoising.TEST).reshape(len(clean), -1)
            for found, images, method in (
                (record.model, model.predict(noisy, verbose=0), name),
                (record.pca, pca.inverse_transform(pca.transform(noisy)), "PCA (16)"),
            ):
                result = images.reshape(clean.shape).clip(0, 1)
                expected = np.square(result - clean).sum(axis=(1, 2))
                np.testing.assert_allclose(found.squared_error[level], expected, rtol=1e-3)
                psnr = skimage.metrics.peak_signal_noise_ratio(clean, result.astype(np.float32), data_range=1)
                assert table.loc[(method, deviation), "psnr"] == pytest.approx(psnr, rel=1e-3)
        evaluation = load_evaluation(files.model_files(name).evaluation)
        codes = model.get_layer("encoder").predict(train.astype(np.float32), verbose=0)
        theirs = sklearn.covariance.EmpiricalCovariance().fit(codes.astype(np.float64))
        expected = theirs.mahalanobis(evaluation.model.codes.astype(np.float64))
        np.testing.assert_allclose(evaluation.model.distance, expected, rtol=1e-2)


def test_classes_that_are_missing_are_told_from_the_others(
    run_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real DVC, with a sweep's `-S`; what needs all classes is measured over those that are left."""
    assert "auroc" not in json.loads((run_project / "metrics/deep.json").read_text())
    out = succeed(run_project, "dvc", "exp", "run", "-n", "odd", "-S", "prepare.classes=[0,1,2,4,5,6,7,8,9]")
    assert stages_run(out) >= {"prepare", "train@deep", "evaluate@deep", "apply@deep", "compare", "figures"}
    labels = np.load(run_project / "data/prepared/test_labels.npy")
    assert set(labels) == set(range(10))
    ink = np.load(run_project / "data/prepared/test_images.npy").sum(axis=(1, 2)) / 255
    for split in ("train", "validation"):
        assert set(np.load(run_project / f"data/prepared/{split}_labels.npy")) == set(range(10)) - {3}
    page = (run_project / "metrics/README.md").read_text()
    assert "Missing from training: 3. " in page
    for name in MODELS:
        found = load_evaluation(run_project / f"data/evaluation/{name}.npz")
        assert found.digits.trained.tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
        assert found.model.reconstructions.shape == (10, 28, 28)
        assert found.model.samples.shape == (9, 10, 28, 28)
        metrics = json.loads((run_project / f"metrics/{name}.json").read_text())
        for key, result in (("auroc_pca", found.pca), ("auroc", found.model)):
            score = np.log(result.squared_error / ink) + np.log(result.distance) / 2
            area = sklearn.metrics.roc_auc_score(labels == 3, score)
            assert metrics[key] == pytest.approx(area, rel=1e-5)
        row = re.search(rf"^\| {name} .*", page.split("## Which digits")[1], re.M)
        assert row is not None
        assert f" {tables.number(area)} (" in row[0].rsplit("|", 2)[1]
        assert metrics["probe"] <= 1
    header, *rows = succeed(run_project, "dvc", "metrics", "show").splitlines()
    assert "auroc" in header
    assert all(len(line) <= 100 for line in (header, *rows))
    monkeypatch.chdir(run_project)
    library = Library(read_params(Params))
    scene = Scene(model="deep", digit=int(np.flatnonzero(labels == 3)[0]))
    assert list(start(library)["classes"]) == list(range(10))
    seen = answer(library, scene, Question(tab="Code"))
    assert list(seen["class_means"]) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    shown = succeed(run_project, "dvc", "exp", "show", "--csv")
    assert "metrics/deep.json:auroc" in shown.splitlines()[0]
    assert "prepare.classes" in shown.splitlines()[0]


def test_dvc_sweeps_over_classes(project: Path) -> None:
    """Each list is a value, and the brackets are not taken apart."""
    command = ("dvc", "exp", "run", "--queue", "-n", "one", "-S", "prepare.classes=[0],[1],[8,9]")
    assert succeed(project, *command).count("Queued experiment") == 3
    names = subprocess.run(
        ("git", "stash", "list"), cwd=project, capture_output=True, text=True, check=True
    )  # queued experiments are kept apart from the user's stash
    assert names.stdout == ""
    status = succeed(project, "dvc", "exp", "show", "--csv")
    assert all(f"[{labels}]" in status for labels in ("0", "1", "8, 9"))
