"""Every measure and every figure on data unlike MNIST: other shapes, a single class, the smallest and largest codes."""

import numpy as np
import pandas as pd
import pytest

from stages import figures, files
from stages.autoencoder import build_autoencoder
from stages.compare import compare_all, mse_per_class
from stages.evaluate import Split, evaluate
from stages.params import read_params
from tests.conftest import ROOT

PARAMS = read_params(ROOT / "params.yaml")


@pytest.mark.parametrize(
    ("classes", "hidden_units", "latent_dim"),
    [(1, [], 3), (2, [4], 1), (3, [], 9 * 14 + 1), (3, [4], 9 * 14), (12, [4], 2)],
)
def test_any_data_and_any_size_of_code_are_measured_and_drawn(
    classes: int, hidden_units: list[int], latent_dim: int
) -> None:
    random = np.random.default_rng(0)
    train, validation, test = (
        Split(random.integers(0, 256, (count, 9 * 14), np.uint8), (np.arange(count) % classes).astype(np.uint8))
        for count in (40, 13, 14)
    )
    model_settings = PARAMS.models["deep"].model_copy(update={"hidden_units": hidden_units, "latent_dim": latent_dim})
    settings = PARAMS.evaluate.model_copy(update={"batch_size": 16, "samples_per_class": 3})
    model = build_autoencoder(9, 14, model_settings)
    metrics, arrays = evaluate(model, train, validation, test, (9, 14), settings)
    assert np.isfinite(list(metrics.values())).all()
    assert metrics["compression_ratio"] == 9 * 14 / latent_dim

    losses = {"loss": np.array([0.5]), "val_loss": np.array([0.4])}
    models = {"deep": arrays | losses}
    comparison = compare_all(models, PARAMS.compare)
    assert bool(comparison) == (latent_dim < 9 * 14)
    assert set(mse_per_class(models)["class"]) == set(range(classes))
    everything = files.with_baselines(models)
    for figure in (
        figures.draw_reconstructions(everything, 10),
        figures.draw_errors(everything, comparison),
        figures.draw_mse_per_class(everything, 10),
        figures.draw_extremes(everything),
        figures.draw_latent_space(everything),
        figures.draw_interpolations(everything),
        figures.draw_traversals(everything),
        figures.draw_samples(everything, 10),
        figures.draw_weights(everything),
        figures.draw_losses(pd.DataFrame(figures.loss_table(models)), {"deep": "mse"}),
    ):
        assert figures.png(figure, 50).startswith(b"\x89PNG")
