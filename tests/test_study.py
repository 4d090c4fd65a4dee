"""Tables and pictures of experiments, on what `dvc exp show` prints; with the real DVC in test_concurrency."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.errors import ParamsError, StageError
from stages.figures import png
from stages.study import Experiment, collect, draw_study, markdown, summarise, with_pca
from tests.conftest import ROOT, call


def experiment(
    name: str, latent_dim: int, seed: int, mse: float, state: str = "success", evaluated: str = "a", **more: Any
) -> Experiment:
    settings = {"hidden_units": [9, 8], "latent_dim": latent_dim, "seed": seed, "loss": "mse", **more}
    params = {"models": {"deep": settings}, "prepare": {"validation_images": 5}}
    metrics = {"mse": mse, "mse_pca": 1 / latent_dim}
    data = {
        "params": {"params.yaml": {"data": params}},
        "metrics": {"metrics/deep.json": {"data": metrics}},
        "deps": {"data/models/deep.keras": {"hash": evaluated}},
        "outs": {"data/models/deep.keras": {"hash": "a"}},
    }
    return Experiment(name, state, data)


EXPERIMENTS = [
    experiment("rate-1", 2, 0, 0.5),
    experiment("rate-2", 2, 1, 0.7),
    experiment("rate-3", 4, 0, 0.3),
    experiment("rate-again", 4, 0, 0.3),  # the same settings once more are no new run
    experiment("rates", 8, 0, 0.1),  # of another name
    experiment("rate-4", 8, 0, 0.9, "running"),  # DVC shows the metrics of its commit until it is through
    experiment("rate-5", 8, 0, 0.9, "failed"),
    Experiment("rate-6", "queued", {}),
    experiment("rate-7", 8, 0, 0.9, evaluated="another model's"),
    experiment("same-1", 4, 0, 0.3),
    experiment("same-2", 4, 0, 0.3),
    experiment("mixed-1", 2, 0, 0.5),
    experiment("mixed-2", 2, 1, 0.7, epochs=9),
]


def test_runs_are_collected_by_name_and_summarised_by_value() -> None:
    runs = collect(EXPERIMENTS, "rate", "deep")
    found = [[run.values[key] for key in ("latent_dim", "seed", "hidden_layers")] for run in runs]
    assert found == [[2, 0, 2], [2, 1, 2], [4, 0, 2]]
    table = summarise(with_pca({"rate": runs}, "latent_dim", "mse"), "latent_dim", "mse")
    assert table["series"].tolist() == ["PCA", "PCA", "rate", "rate"]
    assert table["latent_dim"].tolist() == [2, 4, 2, 4]
    assert table["mean"].tolist() == pytest.approx([0.5, 0.25, 0.6, 0.3])
    assert table["std"].tolist()[2] == pytest.approx(np.std([0.5, 0.7], ddof=1))
    assert table["runs"].tolist() == [1, 1, 2, 1]
    assert markdown(table).splitlines()[4] == "| rate | 2 | 0.6 | 0.1414 | 2 |"
    assert png(draw_study(table, "latent_dim", "mse"), 50).startswith(b"\x89PNG")


def test_what_cannot_be_studied_is_told() -> None:
    with pytest.raises(
        StageError,
        match=r"no finished experiment is called depth or depth-\.\.\..* here: mixed-1 \(success\), .*all-com",
    ):
        collect(EXPERIMENTS, "depth", "deep")
    for prefix, model in (
        ("rate", "wide"),
        ("rate-4", "deep"),
        ("rate-5", "deep"),
        ("rate-6", "deep"),
        ("rate-7", "deep"),
    ):
        with pytest.raises(StageError, match=f"no finished experiment is called {prefix} .* the model {model}"):
            collect(EXPERIMENTS, prefix, model)
    with pytest.raises(StageError, match=r"the 2 experiments same-\.\.\. do not differ in the model deep"):
        collect(EXPERIMENTS, "same", "deep")
    with pytest.raises(StageError, match="runs of mixed with latent_dim 2 differ in epochs; only"):
        summarise({"mixed": collect(EXPERIMENTS, "mixed", "deep")}, "latent_dim", "mse")
    runs = {"rate": collect(EXPERIMENTS, "rate", "deep")}
    for key in ("loss", "latent_dmi"):
        with pytest.raises(
            ParamsError, match=f"{key} is not a number in rate; numbers there: hidden_layers, latent_dim"
        ):
            summarise(runs, key, "mse")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["latent_dim", "mse"], "PREFIX:MODEL"),
        (["latent_dim", "mse", "rate"], "rate is not of the form PREFIX:MODEL"),
        (["latent_dim", "mse", "rate:deep", "--name", "../x"], "--name is ../x, but has to be a file name"),
        (["latent_dim", "mse", "rate:deep", "--dpi", "9"], "--dpi is 9, but has to be from 50 to 600"),
    ],
)
def test_wrong_arguments(arguments: list[str], sentence: str) -> None:
    result = call(Path(ROOT), "python", "-m", "stages.study", *arguments)
    assert result.returncode == 2
    assert sentence in result.stderr
