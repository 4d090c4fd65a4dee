"""Tables and pictures of experiments, on what `dvc exp show` prints; with the real DVC in test_concurrency."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.errors import ParamsError, StageError
from stages.figures import png
from stages.study import collect, draw_study, markdown, summarise, with_pca
from tests.conftest import ROOT, call


def experiment(latent_dim: int, seed: int, mse: float) -> dict[str, Any]:
    settings = {"hidden_units": [9, 8], "latent_dim": latent_dim, "seed": seed, "loss": "mse"}
    metrics = {"mse": mse, "mse_pca": 1 / latent_dim}
    return {
        "params": {"params.yaml": {"data": {"models": {"deep": settings}}}},
        "metrics": {"metrics/deep.json": {"data": metrics}},
    }


EXPERIMENTS = {
    "rate-1": experiment(2, 0, 0.5),
    "rate-2": experiment(2, 1, 0.7),
    "rate-3": experiment(4, 0, 0.3),
    "rate-again": experiment(4, 0, 0.3),  # the same settings once more are no new run
    "rates": experiment(8, 0, 0.1),  # of another name
    "rate-failed": {"params": {}, "metrics": {}},
}


def test_runs_are_collected_by_name_and_summarised_by_value() -> None:
    runs = collect(EXPERIMENTS, "rate", "deep")
    assert [(run["latent_dim"], run["seed"], run["hidden_layers"]) for run in runs] == [(2, 0, 2), (2, 1, 2), (4, 0, 2)]
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
        StageError, match=r"no finished experiment is called depth or depth-\.\.\..* here: rate-1, rate-2"
    ):
        collect(EXPERIMENTS, "depth", "deep")
    with pytest.raises(StageError, match="has metrics of the model wide"):
        collect(EXPERIMENTS, "rate", "wide")
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
