"""Tables and pictures of experiments, on what `dvc exp show` prints; with the real DVC in test_concurrency."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import same_color
from matplotlib.container import ErrorbarContainer
from PIL import Image

from stages.common.errors import ParamsError, StageError
from stages.drawing.style import BASELINE_COLOURS, COLOURS
from stages.tools import study
from stages.tools.study import Experiment, collect, draw_study, read_experiments, readable, summarise, with_pca
from tests import made_up

pytestmark = pytest.mark.quick


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
    assert table["std"].isna().tolist() == [True, True, False, True]  # one run has no spread
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in readable(table).splitlines()]
    assert cells[0] == ["series", "latent_dim", "mean", "std", "runs"]
    assert cells[2:] == [
        ["PCA", "2", "0.5000", "", "1"],
        ["PCA", "4", "0.2500", "", "1"],
        ["rate", "2", "0.6000", "0.1414", "2"],
        ["rate", "4", "0.3000", "", "1"],
    ]


def test_series_keep_their_order_and_pca_comes_only_with_the_latent_size() -> None:
    runs = {"z": collect(EXPERIMENTS, "rate", "deep"), "a": collect(EXPERIMENTS, "rates", "deep")}
    table = summarise(runs, "latent_dim", "mse")
    assert table["series"].tolist() == ["z", "z", "a"]
    assert list(with_pca(runs, "latent_dim", "mse")) == ["PCA", "z", "a"]
    assert with_pca(runs, "seed", "mse") == runs
    assert with_pca(runs, "latent_dim", "probe") == runs  # of which PCA has none


def test_what_cannot_be_studied_is_said() -> None:
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


# --- the picture ---------------------------------------------------------------------------


def table_of(*rows: tuple[str, float, float, float, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["series", "latent_dim", "mean", "std", "runs"])


def drawn(table: pd.DataFrame) -> Axes:
    (ax,) = draw_study(table, "latent_dim", "mse").axes
    plt.close("all")
    return ax


def test_bars_are_one_standard_deviation_to_either_side_of_the_mean() -> None:
    table = table_of(("PCA", 2, 0.5, np.nan, 1), ("z", 2, 0.6, 0.1, 3), ("z", 4, 0.3, 0.05, 2), ("a", 3, 0.2, 0.02, 2))
    ax = drawn(table)
    expected = {
        "PCA": (BASELINE_COLOURS[0], [2], [0.5], [(0.5, 0.5)]),
        "z": (COLOURS[0], [2, 4], [0.6, 0.3], [(0.5, 0.7), (0.25, 0.35)]),
        "a": (COLOURS[1], [3], [0.2], [(0.18, 0.22)]),
    }
    found = [container for container in ax.containers if isinstance(container, ErrorbarContainer)]
    assert [container.get_label() for container in found] == list(expected)
    for container, (colour, x, means, spans) in zip(found, expected.values(), strict=True):
        line, _, (bars,) = container.lines
        assert line is not None
        assert isinstance(bars, LineCollection)
        assert same_color(line.get_color(), colour)
        assert np.asarray(line.get_data()).tolist() == [x, means]
        ends = [tuple(np.sort(segment[:, 1])) for segment in bars.get_segments()]
        np.testing.assert_allclose(ends, spans)
    assert ax.get_title(loc="left") == "mse on test images; bars: one standard deviation of 2 to 3 runs"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("latent dim", "mse")
    assert [label.get_text() for label in ax.get_xticklabels()] == ["2", "3", "4"]
    assert (ax.get_xscale(), ax.get_yscale()) == ("linear", "linear")


def test_wide_ranges_have_logarithmic_axes() -> None:
    ax = drawn(table_of(*((("z", 2**n, 1 / 2**n, 0.001, 2)) for n in range(1, 6))))
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.get_title(loc="left").endswith("one standard deviation of 2 runs")
    below_zero = drawn(table_of(("z", 0, -1, 0.1, 2), ("z", 8, 1, 0.1, 2), ("z", 16, 9, 0.1, 2)))
    assert (below_zero.get_xscale(), below_zero.get_yscale()) == ("linear", "linear")


# --- DVC and the command -------------------------------------------------------------------


def row(experiment: Experiment, executor: bool = True) -> dict[str, Any]:
    """An experiment as `dvc exp show --json` has it."""
    state = {"state": experiment.state} if executor else None
    return {"revs": [{"name": experiment.name, "data": experiment.data}], "executor": state}


Dvc = Callable[..., list[list[str]]]


@pytest.fixture
def dvc(monkeypatch: pytest.MonkeyPatch) -> Dvc:
    """Put something in the place of DVC, which knows experiments of this commit and of another one."""

    def replace(here: list[Any], elsewhere: list[Any], error: str = "") -> list[list[str]]:
        commands = []

        def answer(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
            commands.append(command)
            workspace: dict[str, Any] = {"rev": "workspace", "experiments": None}
            shown = [workspace, {"rev": "here", "experiments": here}]
            if "--all-commits" in command:
                shown.append({"rev": "elsewhere", "experiments": elsewhere})
            return subprocess.CompletedProcess(command, 255 if error else 0, json.dumps(shown), error)

        monkeypatch.setattr(subprocess, "run", answer)
        return commands

    return replace


def test_experiments_of_other_commits_count_only_when_asked_for(dvc: Dvc) -> None:
    pulled, unnamed = row(EXPERIMENTS[1], executor=False), row(Experiment("", "success", {}))
    commands = dvc([row(EXPERIMENTS[0]), row(EXPERIMENTS[4]), pulled, unnamed], [row(EXPERIMENTS[2])])
    found = [(e.name, e.state) for e in read_experiments(all_commits=False)]
    assert found == [("rate-1", "success"), ("rates", "success"), ("rate-2", "success")]
    assert read_experiments(all_commits=False)[0].data == EXPERIMENTS[0].data
    assert [e.name for e in read_experiments(all_commits=True)][3:] == ["rate-3"]
    show = [sys.executable, "-m", "dvc", "exp", "show", "--json"]
    assert commands == [show, show, [*show, "--all-commits"]]


def test_dvcs_failure_is_passed_on(dvc: Dvc) -> None:
    dvc([], [], "ERROR: you are\nnot inside of a DVC repository\n")
    with pytest.raises(StageError, match="`dvc exp show` failed: ERROR: you are not inside of a DVC repository; while"):
        read_experiments(all_commits=False)


Command = Callable[..., made_up.Ended]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: made_up.call_main(study.main, monkeypatch, capsys, *arguments)


def test_the_command_writes_a_table_and_a_picture(dvc: Dvc, command: Command) -> None:
    dvc(
        [row(e) for e in EXPERIMENTS if e.state == "success" and e.name != "rate-7"] + [row(EXPERIMENTS[5])],
        [row(experiment("rate-9", 8, 0, 0.05))],
    )
    ended = command("latent_dim", "mse", "rate:deep", "rates:deep", "--dpi", "50")
    assert (ended.status, ended.err) == (0, "note: left out: rate-4 (running)\n")
    text = Path("plots/studies/mse_by_latent_dim.csv").read_text()
    assert text.splitlines() == [
        "series,latent_dim,mean,std,runs",
        "PCA,2,0.5,,1",
        "PCA,4,0.25,,1",
        "PCA,8,0.125,,1",
        "rate,2,0.6,0.141421,2",
        "rate,4,0.3,,1",
        "rates,8,0.1,,1",
    ]
    assert Image.open("plots/studies/mse_by_latent_dim.png").size == pytest.approx((6.4 * 50, 3.8 * 50), rel=0.2)
    ended = command("seed", "mse", "rate:deep", "--all-commits", "--name", "x", "--dpi", "50")
    assert ended.status == 1
    assert "runs of rate with seed 0 differ in latent_dim; only those" in ended.err
    assert sorted(path.name for path in Path("plots/studies").iterdir()) == [
        "mse_by_latent_dim.csv",
        "mse_by_latent_dim.png",
    ]


def test_one_prefix_with_two_models_is_two_series(dvc: Dvc, command: Command) -> None:
    both = experiment("rate-1", 2, 0, 0.5)
    both.data["params"]["params.yaml"]["data"]["models"]["flat"] = {"hidden_units": [], "latent_dim": 4, "seed": 0}
    both.data["metrics"]["metrics/flat.json"] = {"data": {"mse": 0.4}}
    dvc([row(both)], [])
    ended = command("hidden_layers", "mse", "rate:deep", "rate:flat", "--name", "x", "--dpi", "50")
    assert (ended.status, ended.err) == (0, "")
    assert Path("plots/studies/x.csv").read_text().splitlines()[1:] == ["rate,2,0.5,,1", "rate:flat,0,0.4,,1"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["latent_dim", "mse"], "PREFIX:MODEL"),
        (["latent_dim", "mse", "rate"], "rate is not of the form PREFIX:MODEL"),
        (["latent_dim", "mse", "rate:deep", "--name", "../x"], "--name is ../x, but has to be a file name"),
        (["latent_dim", "mse", "rate:deep", "--dpi", "9"], "--dpi is 9, but has to be from 50 to 600"),
    ],
)
def test_wrong_arguments(command: Command, arguments: list[str], sentence: str) -> None:
    ended = command(*arguments)
    assert ended.status == 2
    assert sentence in ended.err
