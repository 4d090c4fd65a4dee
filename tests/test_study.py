"""Tables and pictures of experiments, on what `dvc exp show` prints; with the real DVC in test_concurrency."""

import json
import subprocess
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

from stages.core.errors import ParamsError, StageError
from stages.core.style import BASELINE_COLOURS, COLOURS
from stages.tools import study
from stages.tools.study import labelled, readable, summarise
from stages.tools.study.experiments import (
    Experiment,
    Run,
    Text,
    collect,
    model_run,
    read_experiments,
    shortcoming,
)
from stages.tools.study.picture import draw_study, short_names
from tests import made_up

pytestmark = pytest.mark.quick


def experiment(
    name: str, latent_dim: int, seed: int, mse: float, state: str = "success", evaluated: str = "a", **more: Any
) -> Experiment:
    params = {
        "defaults": {"hidden_units": [9], "latent_dim": 1, "seed": 0, "loss": "mse"},
        "models": {"deep": {"hidden_units": [9, 8], "latent_dim": latent_dim, "seed": seed} | more},
        "prepare": {"validation_images": 5},
        "evaluate": {"ridge": 1.0},
    }
    metrics = {"mse": mse, "mse_pca": 1 / latent_dim}
    data = {
        "params": {"params.yaml": {"data": params}},
        "metrics": {"metrics/deep.json": {"data": metrics}},
        # of a model's file, DVC lists the hash that `apply` read last
        "deps": {"data/history/deep.csv": {"hash": evaluated}, "data/models/deep.keras": {"hash": "old"}},
        "outs": {"data/history/deep.csv": {"hash": "a"}, "data/models/deep.keras": {"hash": "new"}},
    }
    return Experiment(name, state, data)


def backwards(value: Any) -> Any:
    """The same with all dictionaries in the other order."""
    if isinstance(value, Experiment):
        return value._replace(data=backwards(value.data))
    return {key: backwards(value[key]) for key in reversed(value)} if isinstance(value, dict) else value


EXPERIMENTS = [
    experiment("rate-1", 2, 0, 0.5),
    experiment("rate-2", 2, 1, 0.7),
    experiment("rate-3", 4, 0, 0.3),
    backwards(experiment("rate-again", 4, 0, 0.3)),  # the same settings once more are no new run, whatever their order
    experiment("rates", 8, 0, 0.1),  # of another name
    experiment("rate-4", 8, 0, 0.9, "running"),  # DVC lists the metrics of its base commit until it ends
    experiment("rate-5", 8, 0, 0.9, "failed"),
    Experiment("rate-6", "queued", {}),
    experiment("rate-7", 8, 0, 0.9, evaluated="another model's"),
    experiment("same-1", 4, 0, 0.3),
    experiment("same-2", 4, 0, 0.3),
    experiment("mixed-1", 2, 0, 0.5),
    experiment("mixed-2", 2, 1, 0.7, loss="bce", epochs=9),
]


def test_runs_are_collected_by_name_and_summarised_by_value() -> None:
    runs = collect(EXPERIMENTS, "rate", "deep")
    assert [[one.settings["latent_dim"], one.settings["seed"]] for one in runs] == [[2, 0], [2, 1], [4, 0]]
    table = summarise({"rate": runs}, "latent_dim", "mse")
    assert table.columns.tolist() == ["series", "latent_dim", "mean", "std", "runs"]
    spread = np.std([0.5, 0.7], ddof=1)
    expected: list[list[Any]] = [["PCA", 2, 0.5, np.nan, 1], ["PCA", 4, 0.25, np.nan, 1]]
    expected += [["rate", 2, 0.6, spread, 2], ["rate", 4, 0.3, np.nan, 1]]
    assert table.iloc[:, :3].to_numpy().tolist() == [line[:3] for line in expected]
    np.testing.assert_allclose(table[["std", "runs"]], [line[3:] for line in expected])
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in readable(table).splitlines()]
    assert cells[0] == ["series", "latent_dim", "mean", "std", "runs"]
    assert cells[2:5:2] == [["PCA", "2", "0.5000", "", "1"], ["rate", "2", "0.6000", "0.1414", "2"]]


def test_series_keep_their_order_and_pca_comes_only_with_the_latent_size() -> None:
    runs = {"z": collect(EXPERIMENTS, "rate", "deep"), "a": collect(EXPERIMENTS, "rates", "deep")}
    runs["z"].reverse()
    table = summarise(runs, "latent_dim", "mse")
    assert table["series"].tolist() == ["PCA", "PCA", "PCA", "z", "z", "a"]
    assert table["latent_dim"].tolist() == [2, 4, 8, 2, 4, 8]
    assert summarise({"a": runs["a"]}, "seed", "mse")["series"].tolist() == ["a"]
    assert summarise({"a": runs["a"]}, "latent_dim", "mse_pca")["series"].tolist() == ["a"]  # PCA has no such metric


def sized(latent_dim: int, classes: list[int], auroc: float, **more: Any) -> Run:
    """A run in which PCA's metric depends on the latent size and the classes."""
    settings = {"latent_dim": latent_dim, "prepare.classes": Text(" ".join(map(str, classes)))} | more
    return Run(settings, {"auroc": auroc, "auroc_pca": (latent_dim + sum(classes)) / 100})


OVER = ("latent_dim", "auroc", "prepare.classes")
SIZED = {
    "deep": [sized(2, [1], 0.9), sized(2, [4], 0.7), sized(8, [1], 0.6), sized(8, [4], 0.6)],
    "noise": [sized(2, [1], 0.5), sized(2, [4], 0.3)],
}


def test_a_mean_over_a_setting_is_of_pca_too() -> None:
    table = summarise(SIZED, *OVER)
    assert table[["series", "latent_dim", "runs"]].to_numpy().tolist() == [
        ["PCA", 2, 2], ["PCA", 8, 2], ["deep", 2, 2], ["deep", 8, 2], ["noise", 2, 2]
    ]  # fmt: skip
    assert table["mean"].tolist() == pytest.approx([0.045, 0.105, 0.8, 0.6, 0.4])
    assert table["std"].tolist() == pytest.approx([np.std([v, w], ddof=1) for v, w in
        [(0.03, 0.06), (0.09, 0.12), (0.9, 0.7), (0.6, 0.6), (0.5, 0.3)]])  # fmt: skip
    title = draw_study(table, *OVER).axes[0].get_title(loc="left")
    assert title == "auroc on test images; bars: one standard deviation over prepare.classes"


UNFAIR: dict[str, tuple[dict[str, list[Run]], tuple[str, ...], list[str]]] = {
    "a value is missing": (SIZED | {"noise": SIZED["noise"][:1]}, OVER, ["noise", "latent_dim 2", "classes 4"]),
    "another setting differs": (
        {"deep": [sized(2, [1], 0.9, epochs=1), sized(2, [4], 0.9, epochs=2)]},
        OVER,
        ["deep", "latent_dim 2", "epochs"],
    ),
    "a setting is absent from a run": ({"deep": [sized(2, [1], 0.9), sized(2, [1], 0.9, tied=True)]}, OVER, ["tied"]),
    "a value is more frequent": (
        {"deep": [*SIZED["deep"], sized(2, [1], 0.8, seed=1)]},
        OVER,
        ["deep", "latent_dim 2", "2 of prepare.classes 1", "1 of prepare.classes 4"],
    ),
    "PCA has two sizes": (
        {"two": [sized(2, [1], 0.9)], "eight": [sized(8, [1], 0.8)]},
        ("prepare.classes", "auroc"),
        ["PCA", "prepare.classes 1", "latent_dim"],
    ),
    "PCA has two data sets": (
        {"one": [sized(2, [1], 0.9)], "four": [sized(2, [4], 0.8)]},
        ("latent_dim", "auroc"),
        ["PCA", "latent_dim 2", "prepare.classes"],
    ),
}


@pytest.mark.parametrize("case", UNFAIR)
def test_unfair_means_are_refused(case: str) -> None:
    series, asked, words = UNFAIR[case]
    with pytest.raises(StageError) as refused:
        summarise(series, *asked)
    assert all(word in str(refused.value) for word in words)


def test_seeds_may_differ() -> None:
    runs = [sized(2, [1], 0.8, seed=seed, **{"prepare.seed": seed}) for seed in (0, 1)]
    del runs[0].results["auroc_pca"], runs[1].results["auroc_pca"]
    assert summarise({"deep": runs}, "latent_dim", "auroc")["runs"].tolist() == [2]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("latent_dmi", "auroc"), ["latent_dmi", "deep", "auroc, auroc_pca, latent_dim"]),
        (("latent_dim", "loss"), ["loss", "deep", "latent_dim"]),
        (("tied", "auroc"), ["tied", "deep", "latent_dim"]),
        (("latent_dim", "prepare.classes"), ["prepare.classes", "deep", "latent_dim"]),
        (("latent_dim", "auroc", "auroc"), ["--over is auroc", "deep", "latent_dim, loss, prepare.classes, tied"]),
    ],
)
def test_keys_of_the_wrong_kind_are_refused(asked: tuple[str, ...], words: list[str]) -> None:
    with pytest.raises(ParamsError) as refused:
        summarise({"deep": [sized(2, [1], 0.9, loss="mse", tied=True)]}, *asked)
    assert all(word in str(refused.value) for word in words)


def test_an_experiment_has_a_result_if_the_model_that_was_trained_was_evaluated() -> None:
    reasons = {e.name: shortcoming(e, "deep") for e in EXPERIMENTS}
    assert {name: reason for name, reason in reasons.items() if reason} == {
        "rate-4": "running",
        "rate-5": "failed",
        "rate-6": "queued",
        "rate-7": "trained, but not evaluated",
    }
    some = experiment("rate-1", 2, 0, 0.5)
    unreadable = some._replace(data={})  # as DVC shows one whose commit it cannot load
    assert (shortcoming(unreadable, "deep"), model_run(unreadable, "deep")) == ("unreadable", None)
    for kind in ("deps", "outs"):
        rest = {key: value for key, value in some.data.items() if key != kind}
        assert shortcoming(some._replace(data=rest), "deep") == "trained, but not evaluated"


def test_an_experiment_without_the_models_settings_or_metrics_has_no_run() -> None:
    some = experiment("rate-1", 2, 0, 0.5)
    settings = {"hidden_units": "9 8", "latent_dim": 2, "seed": 0, "loss": "mse"}  # the last one is a default
    settings |= {"prepare.validation_images": 5, "evaluate.ridge": 1.0}
    assert model_run(some, "deep") == Run(settings, {"hidden_layers": 2, "mse": 0.5, "mse_pca": 0.5})
    for key in ("params", "metrics"):
        assert model_run(some._replace(data=some.data | {key: {}}), "deep") is None
    flat: dict[str, Any] = {"models": {"deep": {"hidden_units": []}}}
    found = model_run(some._replace(data=some.data | {"params": {"params.yaml": {"data": flat}}}), "deep")
    assert found == Run({"hidden_units": "none"}, {"hidden_layers": 0, "mse": 0.5, "mse_pca": 0.5})


def test_a_run_has_the_scores_of_its_model_and_of_pca_of_its_size() -> None:
    scores = {"PCA (16)": 0.5, "PCA (2)": 0.6, "shallow": 0.7, "deep": 0.8}
    some = experiment("rate-1", 2, 0, 0.5)
    metrics = some.data["metrics"] | {"metrics/anomalies.json": {"data": {"auroc": scores}}}
    found = model_run(some._replace(data=some.data | {"metrics": metrics}), "deep")
    assert found is not None
    assert found.results == {"hidden_layers": 2, "mse": 0.5, "mse_pca": 0.5, "auroc": 0.8, "auroc_pca": 0.6}


@pytest.mark.parametrize(
    ("prefix", "model", "words"),
    [
        ("depth", "deep", ["depth", "rate-1 (success), rate-2 (success)", "rate-6 (queued)", "--all-commits"]),
        ("rate", "wide", ["rate", "wide"]),
        ("rate-7", "deep", ["rate-7 or"]),
        ("same", "deep", ["2 experiments same-...", "do not differ", "deep"]),
    ],
)
def test_series_without_distinct_results_are_refused(prefix: str, model: str, words: list[str]) -> None:
    with pytest.raises(StageError) as refused:
        collect(EXPERIMENTS, prefix, model)
    assert all(word in str(refused.value) for word in words)
    with pytest.raises(StageError, match="experiments here: none"):
        collect([], prefix, model)


def test_a_list_can_be_the_setting() -> None:
    """Classes that were trained on, which decide what PCA does, too; their axis has names and no line."""
    runs = {"deep": [sized(2, [7], 0.8), sized(2, [0, 1], 0.9, seed=0), sized(2, [0, 1], 0.7, seed=1)]}
    table = summarise(runs, "prepare.classes", "auroc")
    assert table[["series", "prepare.classes"]].to_numpy().tolist() == [
        ["PCA", "0 1"], ["PCA", "7"], ["deep", "0 1"], ["deep", "7"]
    ]  # fmt: skip
    assert table["mean"].tolist() == pytest.approx([0.03, 0.09, 0.8, 0.8])
    (ax,) = draw_study(table, "prepare.classes", "auroc").axes
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0 1", "7"]
    line = ax.lines[0]
    assert np.asarray(line.get_ydata()).tolist() == pytest.approx([0.03, 0.09])
    assert (line.get_linestyle(), line.get_marker()) == ("None", "o")
    plt.close("all")


# --- the picture ---------------------------------------------------------------------------


def table_of(*rows: tuple[str, float, float, float, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["series", "latent_dim", "mean", "std", "runs"])


def drawn(table: pd.DataFrame) -> Axes:
    (ax,) = draw_study(table, "latent_dim", "mse_train").axes
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
    assert ax.get_title(loc="left") == "mse train on test images; bars: one standard deviation of 2 to 3 runs"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("latent dim", "mse train")
    names = {text.get_text(): text for text in ax.texts}  # next to the last points
    assert all(same_color(text.get_color(), expected[name][0]) for name, text in names.items())
    assert names.keys() == expected.keys()


def test_long_lists_are_named_by_what_they_lack() -> None:
    rows = [("deep", "0 1 2", 0.5), ("deep", "0 1 3", 0.6), ("deep", "1 2 3", 0.7)]
    table = pd.DataFrame(rows, columns=["series", "prepare.classes", "mean"]).assign(std=np.nan, runs=1)
    (ax,) = draw_study(table, "prepare.classes", "auroc").axes
    plt.gcf().canvas.draw()
    assert [text.get_text() for text in ax.get_xticklabels()] == ["without 0", "without 2", "without 3"]
    (container,) = ax.containers
    assert isinstance(container, ErrorbarContainer)
    np.testing.assert_array_equal(container.lines[0].get_ydata(), [0.7, 0.6, 0.5])
    assert not container.has_yerr  # one run each has no spread
    assert short_names(pd.Series(["0", "1", "2 3"])) == {"0": "0", "1": "1", "2 3": "2 3"}


@pytest.mark.parametrize(
    ("x", "means", "scales"),
    [
        ((2, 4, 16), (8, 4, 1), ("log", "log")),  # the largest is eight times the smallest
        ((2, 4, 15), (7.9, 4, 1), ("linear", "linear")),
        ((1, 8), (1, 8), ("linear", "log")),  # two points make no scale
        ((0, 8, 16), (0, 1, 9), ("linear", "linear")),
    ],
)
def test_an_axis_is_logarithmic_if_all_are_positive_and_far_apart(
    x: tuple[float, ...], means: tuple[float, ...], scales: tuple[str, str]
) -> None:
    ax = drawn(table_of(*(("z", *pair, 0.1, 2) for pair in zip(x, means, strict=True))))
    assert (ax.get_xscale(), ax.get_yscale()) == scales
    assert ax.get_title(loc="left").endswith("one standard deviation of 2 runs")
    assert [label.get_text() for label in ax.get_xticklabels()] == [str(value) for value in x]


# --- DVC and the command -------------------------------------------------------------------


def row(experiment: Experiment, executor: bool = True) -> dict[str, Any]:
    """An experiment as `dvc exp show --json` has it."""
    state = {"state": experiment.state} if executor else None
    return {"revs": [{"name": experiment.name, "data": experiment.data}], "executor": state}


Dvc = Callable[..., None]


@pytest.fixture
def dvc(monkeypatch: pytest.MonkeyPatch) -> Dvc:
    """Put experiments of this commit and of another one in the place of those that DVC knows."""

    def replace(here: list[Any], elsewhere: list[Any], error: str = "") -> None:
        baselines: list[Any] = [{"experiments": None}, {"experiments": here}, {"experiments": elsewhere}]

        def show(command: list[str], **_: object) -> Any:
            shown = baselines if "--all-commits" in command else baselines[:2]
            return subprocess.CompletedProcess(command, 255 if error else 0, json.dumps(shown), error)

        monkeypatch.setattr(subprocess, "run", show)

    return replace


def test_experiments_of_other_commits_count_only_when_asked_for(dvc: Dvc) -> None:
    pulled, unnamed = row(EXPERIMENTS[1], executor=False), row(Experiment("", "success", {}))
    queued = {"revs": [{"name": "rate-6", "data": None}], "executor": {"state": "queued"}}
    resumed = row(EXPERIMENTS[4])
    resumed["revs"].append({"name": "an older checkpoint", "data": {}})
    dvc([row(EXPERIMENTS[0]), resumed, pulled, unnamed, queued], [row(EXPERIMENTS[2])])
    here = [EXPERIMENTS[0], EXPERIMENTS[4], EXPERIMENTS[1], Experiment("rate-6", "queued", {})]
    assert read_experiments(all_commits=False) == here
    assert read_experiments(all_commits=True) == [*here, EXPERIMENTS[2]]


def test_dvcs_failure_is_passed_on(dvc: Dvc) -> None:
    dvc([], [], "ERROR: you are\nnot inside of a DVC repository\n")
    with pytest.raises(StageError) as said:
        read_experiments(all_commits=False)
    assert str(said.value).startswith("`dvc exp show` failed: ERROR: you are not inside of a DVC repository; ")


Command = Callable[..., made_up.Ended]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: made_up.call_main(study.main, monkeypatch, capsys, *arguments)


def test_the_command_writes_a_table_and_a_picture(dvc: Dvc, command: Command) -> None:
    finished = [row(e) for e in EXPERIMENTS if e.state == "success"]
    dvc([*finished, row(EXPERIMENTS[5])], [row(experiment("rate-9", 8, 0, 0.05))])
    ended = command("latent_dim", "mse", "rate:deep", "rates:deep", "--dpi", "50")
    assert (ended.status, ended.err) == (0, "note: left out: rate-4 (running), rate-7 (trained, but not evaluated)\n")
    assert Path("plots/studies/mse_by_latent_dim.csv").read_text().splitlines() == [
        "series,latent_dim,mean,std,runs",
        "PCA,2,0.5,,1",
        "PCA,4,0.25,,1",
        "PCA,8,0.125,,1",
        "rate,2,0.6,0.141421,2",
        "rate,4,0.3,,1",
        "rates,8,0.1,,1",
    ]
    assert Image.open("plots/studies/mse_by_latent_dim.png").size == pytest.approx((6.4 * 50, 3.8 * 50), rel=0.05)
    printed = [line.split("|")[1].strip() for line in ended.out.splitlines()[2:]]
    assert printed == ["PCA", "PCA", "PCA", "rate", "rate", "rates"]
    ended = command("latent_dim", "mse", "rate:deep", "--all-commits", "--name", "all", "--dpi", "50")
    assert ended.status == 0
    assert Path("plots/studies/all.csv").read_text().splitlines()[-1] == "rate,8,0.05,,1"
    ended = command("seed", "mse", "rate:deep", "--all-commits", "--name", "x", "--dpi", "50")
    assert ended.status == 1
    assert "rate with seed 0 differ in latent_dim" in ended.err
    names = ["all.csv", "all.png", "mse_by_latent_dim.csv", "mse_by_latent_dim.png"]
    assert sorted(path.name for path in Path("plots/studies").iterdir()) == names


def test_the_command_takes_means_over_a_setting(dvc: Dvc, command: Command) -> None:
    runs = [experiment(f"rate-{n}{units}", n, 0, n / units, units=units) for n in (2, 4) for units in (8, 9)]
    dvc([row(one) for one in runs], [])
    ended = command("latent_dim", "mse", "rate:deep", "--over", "units", "--name", "x", "--dpi", "50")
    assert (ended.status, ended.err) == (0, "")
    assert [line.rsplit(",", 1)[1] for line in Path("plots/studies/x.csv").read_text().splitlines()[1:]] == ["2"] * 4


def test_labels_are_as_short_as_they_can_be() -> None:
    deep, flat, other = ("rate", "deep"), ("rate", "flat"), ("a:b", "deep")
    assert labelled([deep, other]) == {"rate": deep, "a:b": other}
    assert labelled([deep, flat]) == {"deep": deep, "flat": flat}
    assert labelled([deep, flat, other]) == {"rate:deep": deep, "rate:flat": flat, "a:b:deep": other}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["PREFIX:MODEL"]),
        ([":deep"], [":deep", "PREFIX:MODEL"]),
        (["rate:deep", "--name", "../x"], ["--name", "../x"]),
        (["rate:deep", "--dpi", "601"], ["--dpi", "601", "50 to 600"]),
    ],
)
def test_wrong_arguments(command: Command, arguments: list[str], words: list[str]) -> None:
    ended = command("latent_dim", "mse", *arguments)
    assert ended.status == 2
    assert all(word in ended.err for word in words)
