"""Keras models and their baselines: the right numbers in the right places, on any data."""

import io
import json
import warnings
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import sklearn.decomposition
from PIL import Image

from stages.core import charts, measures, pictures, tables
from stages.core.autoencoder import build_autoencoder
from stages.core.backend import keras
from stages.core.comparison import compare_all
from stages.core.encoder_decoder import Data
from stages.core.evaluation import BASELINE, MODEL, Evaluation, Result, load_evaluation, results_by_name
from stages.core.files import Split
from stages.core.linear import image_moments
from stages.core.params import read_params
from stages.core.records import save_record
from stages.core.schema import Params
from stages.core.style import STYLE, png
from stages.evaluate import evaluate, metrics_json
from tests import made_up
from tests.conftest import ROOT

PARAMS = read_params(Params, ROOT / "params.yaml")
HISTORY = pd.DataFrame(
    {"epoch": [1.0, 2.0], "loss": [0.5, 0.4], "val_loss": [0.6, 0.3], "kl": [9.0, 8.0], "val_kl": [7.0, 6.0]}
)


def autoencoder(height: int, width: int, **values: Any) -> keras.Model:
    return build_autoencoder(height, width, PARAMS.models["deep"].model_copy(update=values))


def noise(classes: int, height: int, width: int) -> Data:
    """Three splits of noise, each brighter than the one before."""
    random = np.random.default_rng(0)
    train, validation, test = (
        Split(
            random.integers(low, 200 + low, (count, height * width), np.uint8),
            (np.arange(count) % classes).astype(np.uint8),
        )
        for low, count in ((0, 40), (25, 13), (50, 14))
    )
    return Data(train, validation, test, (height, width), image_moments(train.images))


def pca_error(components: int, train: Split, split: Split) -> float:
    """The error of scikit-learn's PCA of the training images on others, its outputs clipped to [0, 1]."""
    theirs = sklearn.decomposition.PCA(components, svd_solver="full").fit(train.images / 255)
    scaled = split.images / 255
    return float(np.square(theirs.inverse_transform(theirs.transform(scaled)).clip(0, 1) - scaled).mean())


def test_model_and_baselines_each_get_their_own_numbers() -> None:
    data, model = noise(3, 4, 5), autoencoder(4, 5, hidden_units=[], latent_dim=6)
    found = evaluate("deep", model, data, HISTORY, PARAMS.evaluate)
    (pca,) = found.baselines
    assert (found.model.kind, found.model.name) == (MODEL, "deep")
    assert (pca.kind, pca.name) == (BASELINE, "PCA (6)")
    for split, of_model, of_pca in (
        (data.train, found.model.mse_train, pca.mse_train),
        (data.validation, found.model.mse_validation, pca.mse_validation),
        (data.test, found.model.mse, pca.mse),
    ):
        scaled = split.images / np.float32(255)
        assert of_model == pytest.approx(np.square(model.predict(scaled, verbose=0) - scaled).mean(), rel=1e-5)
        assert of_pca == pytest.approx(pca_error(6, data.train, split), rel=1e-5)
    assert found.model.parameters == 20 * 6 + 6 + 6 * 20 + 20
    assert pca.parameters == 6 * 20 + 20
    expected = np.square(data.test.images / 255 - (data.train.images / 255).mean(axis=0)).mean()
    assert found.mse_mean_image == pytest.approx(expected, rel=1e-5)
    assert (found.loss.tolist(), found.val_loss.tolist()) == ([0.5, 0.4], [0.6, 0.3])
    assert (found.kl.tolist(), found.val_kl.tolist()) == ([9, 8], [7, 6])
    assert found.digits.labels is data.test.labels
    assert found.digits.shown.tolist() == [0, 1, 2]
    assert found.digits.trained.tolist() == [0, 1, 2]
    scaled = data.test.images / 255
    reconstructed = found.pca_mean + (scaled - found.pca_mean) @ found.pca_components.T @ found.pca_components
    assert np.square(reconstructed.clip(0, 1) - scaled).mean() == pytest.approx(
        pca_error(6, data.train, data.test), rel=1e-9
    )
    np.testing.assert_allclose(found.digits.images.reshape(3, 20), data.test.images[:3] / 255, atol=1e-6)


def test_the_metrics_of_a_model_have_six_digits() -> None:
    model = made_up.result([1], mse=1 / 3, mse_validation=1e-7 / 3, ssim=-2 / 3, probe=0.5, parameters=12345678)
    written = json.loads(metrics_json(made_up.evaluation(model, made_up.result([1], mse=2 / 3), [0])))
    assert list(written.items()) == [
        ("mse", 0.333333),
        ("mse_pca", 0.666667),
        ("mse_validation", 3.33333e-8),
        ("ssim", -0.666667),
        ("probe", 0.5),
        ("parameters", 12345678),
    ]


def test_without_a_baseline_the_error_of_pca_is_0() -> None:
    pixels = made_up.HEIGHT * made_up.WIDTH
    some = made_up.evaluation(made_up.result([1], pixels), made_up.result([1], pixels), [0])
    assert json.loads(metrics_json(some))["mse_pca"] == 0


def numbers(result: Result) -> list[float]:
    return [value for value in vars(result).values() if isinstance(value, int | float)]


def test_an_error_of_any_size_is_counted() -> None:
    figure = charts.draw_errors({"some": made_up.result([0, 1e-9, 1e-3, 5, 40])})
    assert figure.axes[0].patches[0].get_data().values.sum() == 5  # type: ignore[attr-defined]
    plt.close(figure)


def test_a_model_may_be_called_pixels() -> None:
    some = made_up.evaluation(made_up.result([1, 2], name="pixels"), made_up.result([1, 2], name="PCA (2)"), [0, 1])
    figure = pictures.draw_interpolations({"pixels": some.model}, some.digits)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["pixels", "pixels"]
    plt.close(figure)


def drawings(some: dict[str, Evaluation], images: np.ndarray) -> dict[str, Any]:
    results, digits = results_by_name(some), next(iter(some.values())).digits
    return {
        "reconstructions": pictures.draw_reconstructions(results, digits, 10),
        "errors": charts.draw_errors(results),
        "extremes": pictures.draw_extremes(results, images),
        "latent_space": charts.draw_latent_space(results, digits.labels),
        "interpolations": pictures.draw_interpolations(results, digits),
        "traversals": pictures.draw_traversals(results),
        "samples": pictures.draw_samples(results, 10),
    }


@pytest.mark.parametrize(
    ("classes", "hidden_units", "latent_dim"),
    [(1, [], 3), (2, [4], 1), (12, [4], 9 * 14 + 1)],
)
def test_any_data_and_any_size_of_code_are_measured_compared_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: int, hidden_units: list[int], latent_dim: int
) -> None:
    """Other shapes than MNIST's, a single class, the smallest and largest codes; and nothing warns."""
    model = autoencoder(9, 14, hidden_units=hidden_units, latent_dim=latent_dim)
    monkeypatch.setattr(measures, "BATCH", 16)
    with warnings.catch_warnings(), plt.rc_context(STYLE):
        warnings.simplefilter("error")
        measured = evaluate("deep", model, (data := noise(classes, 9, 14)), HISTORY[:1], PARAMS.evaluate)
        with open(tmp_path / "deep.npz", "wb") as file:
            save_record(file, measured)
        some = {"deep": load_evaluation(tmp_path / "deep.npz")}
        comparisons = compare_all(some, 100, 0)
        figures = drawings(some, data.test.images.reshape(-1, 9, 14))
        images = {name: Image.open(io.BytesIO(png(figure, 50))) for name, figure in figures.items()}
    assert np.isfinite(numbers(some["deep"].model)).all()
    assert some["deep"].model.reconstructions.shape == (14, 9, 14)
    pairs = [(row.model, row.opponent) for row in comparisons]
    assert pairs == ([("deep", f"PCA ({latent_dim})")] if latent_dim < 9 * 14 else [])
    page = tables.report(some, comparisons, tables.mse_per_class_table(some))
    assert len([line for line in page.splitlines() if line.startswith(tuple(f"| {n} " for n in range(12)))]) == classes
    for name, image in images.items():
        assert np.ptp(np.asarray(image.convert("L"))) > 200, name  # something black on white
