"""Tables and pictures of experiments, on what `dvc exp show` prints; with the real DVC in test_concurrency."""

import json
import re
import shlex
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

from stages.core.errors import ParamsError, StageError
from stages.core.style import BASELINE_COLOURS, COLOURS, STYLE, png
from stages.drawing.studies import draw_study, short_names
from stages.tools import study
from stages.tools.study import (
    Experiment,
    Run,
    collect,
    model_run,
    parse_arguments,
    read_experiments,
    readable,
    shortcoming,
    summarise,
    with_pca,
)
from tests import made_up

pytestmark = pytest.mark.quick


def experiment(
    name: str, latent_dim: int, seed: int, mse: float, state: str = "success", evaluated: str = "a", **more: Any
) -> Experiment:
    settings = {"hidden_units": [9, 8], "latent_dim": latent_dim, "seed": seed, "loss": "mse"} | more
    params = {"models": {"deep": settings}, "prepare": {"validation_images": 5}, "evaluate": {"ridge": 1.0}}
    metrics = {"mse": mse, "mse_pca": 1 / latent_dim}
    data = {
        "params": {"params.yaml": {"data": params}},
        "metrics": {"metrics/deep.json": {"data": metrics}},
        # of a model's file, DVC tells which one `apply` read last
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
    experiment("rate-4", 8, 0, 0.9, "running"),  # DVC shows the metrics of its commit until it is through
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
    runs["z"].reverse()
    table = summarise(runs, "latent_dim", "mse")
    assert table["series"].tolist() == ["z", "z", "a"]
    assert table["latent_dim"].tolist() == [2, 4, 8]
    assert list(with_pca(runs, "latent_dim", "mse")) == ["PCA", "z", "a"]
    assert with_pca(runs, "seed", "mse") == runs
    assert with_pca(runs, "latent_dim", "probe") == runs  # of which PCA has none


def test_pca_comes_with_the_data() -> None:
    """A list that decides the data decides what PCA does, too."""
    values = {"prepare.classes": "0 1", "latent_dim": 2, "auroc": 0.9, "auroc_pca": 0.8}
    settings = {"prepare.classes": [0, 1], "latent_dim": 2}
    other = Run(settings | {"prepare.classes": [7]}, values | {"prepare.classes": "7", "auroc_pca": 0.7})
    series = {"deep": [Run(settings, values), other]}
    table = summarise(with_pca(series, "prepare.classes", "auroc"), "prepare.classes", "auroc")
    assert table[["series", "prepare.classes", "mean"]].to_numpy().tolist() == [
        ["PCA", "0 1", 0.8], ["PCA", "7", 0.7], ["deep", "0 1", 0.9], ["deep", "7", 0.9]
    ]  # fmt: skip


def sized(latent_dim: int, classes: list[int], auroc: float, **more: Any) -> Run:
    """A run of which PCA's measure depends on the latent size and the classes, as it does."""
    settings = {"latent_dim": latent_dim, "prepare.classes": classes} | more
    shown = settings | {"prepare.classes": " ".join(map(str, classes))}
    return Run(settings, shown | {"auroc": auroc, "auroc_pca": (latent_dim + sum(classes)) / 100})


OVER = ("latent_dim", "auroc", "prepare.classes")
SIZED = {
    "deep": [sized(2, [1], 0.9), sized(2, [4], 0.7), sized(8, [1], 0.6), sized(8, [4], 0.6)],
    "noise": [sized(2, [1], 0.5), sized(2, [4], 0.3)],
}


def test_a_mean_over_a_setting_is_of_pca_too() -> None:
    table = summarise(with_pca(SIZED, *OVER), *OVER)
    assert table[["series", "latent_dim", "runs"]].to_numpy().tolist() == [
        ["PCA", 2, 2], ["PCA", 8, 2], ["deep", 2, 2], ["deep", 8, 2], ["noise", 2, 2]
    ]  # fmt: skip
    assert table["mean"].tolist() == pytest.approx([0.045, 0.105, 0.8, 0.6, 0.4])
    assert table["std"].tolist() == pytest.approx([np.std([v, w], ddof=1) for v, w in
        [(0.03, 0.06), (0.09, 0.12), (0.9, 0.7), (0.6, 0.6), (0.5, 0.3)]])  # fmt: skip
    backward = {name: [backwards(one.settings) for one in runs] for name, runs in SIZED.items()}
    other = {n: [one._replace(settings=s) for one, s in zip(SIZED[n], backward[n], strict=True)] for n in SIZED}
    both = with_pca({"deep": SIZED["deep"], "again": other["deep"]}, *OVER)
    assert len(both["PCA"]) == 4  # whatever the order of their settings
    title = draw_study(table, *OVER).axes[0].get_title(loc="left")
    assert title == "auroc on test images; bars: one standard deviation over prepare.classes"


def test_means_over_a_setting_are_over_the_same_values_and_nothing_else() -> None:
    with pytest.raises(StageError) as said:
        summarise(SIZED | {"noise": SIZED["noise"][:1]}, *OVER)
    assert str(said.value) == (
        "noise with latent_dim 2 has no run of prepare.classes 4, which others have; "
        "means over unlike values cannot be compared."
    )
    more = [sized(8, [digit], 0.5) for digit in (1, 4, 7, 9)]
    with pytest.raises(StageError, match=r"deep with latent_dim 2 has no run of prepare\.classes 7, 9, which others"):
        summarise({"deep": SIZED["deep"][:2] + more}, *OVER)
    with pytest.raises(StageError, match="runs of deep with latent_dim 2 differ in epochs; only those that differ"):
        summarise({"deep": [sized(2, [1], 0.9, epochs=1), sized(2, [4], 0.9, epochs=2)]}, *OVER)
    uneven = [*SIZED["deep"], sized(2, [1], 0.8, seed=1)]
    with pytest.raises(StageError) as said:
        summarise(with_pca({"deep": uneven}, *OVER), *OVER)
    assert str(said.value) == (
        "deep with latent_dim 2 has unlike numbers of runs: 2 of prepare.classes 1, 1 of prepare.classes 4; "
        "no fair mean."
    )
    with pytest.raises(ParamsError, match="latent_dmi is not a number in deep; numbers there: "):
        summarise(SIZED, "latent_dmi", "auroc", "prepare.classes")
    with pytest.raises(ParamsError) as wrong:
        summarise(SIZED, "latent_dim", "auroc", "auroc")
    assert str(wrong.value) == (
        "--over is auroc, which is no setting in deep; settings there: latent_dim, prepare.classes."
    )


def test_unlike_pcas_have_no_mean() -> None:
    sizes = {"two": [sized(2, [1], 0.9)], "eight": [sized(8, [1], 0.8)]}
    with pytest.raises(StageError, match=r"runs of PCA with prepare\.classes 1 differ in latent_dim; only those that"):
        summarise(with_pca(sizes, "prepare.classes", "auroc"), "prepare.classes", "auroc")
    with pytest.raises(StageError, match=r"runs of PCA with latent_dim 2 differ in prepare\.classes; only those that"):
        summarise(with_pca(SIZED, "latent_dim", "auroc"), "latent_dim", "auroc")


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
    nothing: list[dict[str, Any]] = [{}, {"data/history/deep.csv": {}}]
    for kind in ("deps", "outs"):
        for unknown in nothing:
            assert shortcoming(some._replace(data=some.data | {kind: unknown}), "deep") == "trained, but not evaluated"
        rest = {key: value for key, value in some.data.items() if key != kind}
        assert shortcoming(some._replace(data=rest), "deep") == "trained, but not evaluated"


def test_an_experiment_without_the_models_settings_or_metrics_has_no_run() -> None:
    some = experiment("rate-1", 2, 0, 0.5)
    found = model_run(some, "deep")
    assert found is not None
    settings = {"hidden_units": [9, 8], "latent_dim": 2, "seed": 0, "loss": "mse"}
    settings |= {"prepare.validation_images": 5, "evaluate.ridge": 1.0}
    values = settings | {"hidden_units": "9 8", "hidden_layers": 2, "mse": 0.5, "mse_pca": 0.5}
    assert found == Run(settings, values)
    for key, file in (("params", "params.yaml"), ("metrics", "metrics/deep.json")):
        nothing: list[dict[str, Any]] = [{}, {file: {}}, {file: {"data": {}}}]
        for unknown in nothing:
            assert model_run(some._replace(data=some.data | {key: unknown}), "deep") is None
    only_models: dict[str, Any] = {"models": {"deep": {"hidden_units": []}}}
    found = model_run(some._replace(data=some.data | {"params": {"params.yaml": {"data": only_models}}}), "deep")
    assert found == Run({"hidden_units": []}, {"hidden_units": "none", "hidden_layers": 0, "mse": 0.5, "mse_pca": 0.5})


def test_what_cannot_be_studied_is_said() -> None:
    with pytest.raises(StageError) as said:
        collect(EXPERIMENTS[5:8] + EXPERIMENTS[:1], "depth", "deep")
    assert str(said.value) == (
        "no finished experiment is called depth or depth-... and has metrics of the model deep; experiments here: "
        "rate-1 (success), rate-4 (running), rate-5 (failed), rate-6 (queued). "
        "Those that began from other commits count with --all-commits."
    )
    with pytest.raises(StageError, match=r"experiments here: none\. Those"):
        collect([], "depth", "deep")
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
    with pytest.raises(StageError) as said:
        summarise({"mixed": collect(EXPERIMENTS, "mixed", "deep")}, "latent_dim", "mse")
    assert str(said.value) == (
        "runs of mixed with latent_dim 2 differ in loss, epochs; only those that differ in nothing but a seed "
        "have a mean. Study the others by themselves, or name one with --over."
    )
    runs = {"rate": [Run({}, {"latent_dim": 2, "loss": "mse", "tied": True, "mse": 0.5, "depth": 3})]}
    for key in ("loss", "latent_dmi", "tied"):
        for x, y in ((key, "mse"), ("mse", key)):
            with pytest.raises(ParamsError) as wrong:
                summarise(runs, x, y)
            assert str(wrong.value) == f"{key} is not a number in rate; numbers there: depth, latent_dim, mse, tied."


def test_a_list_can_be_swept_over() -> None:
    """Classes that were trained on, against the area under the ROC curve; runs that differ in them are never mixed."""
    some = []
    for name, classes, seed, auroc in (("one-1", [1], 0, 0.9), ("one-2", [0], 0, 0.7), ("one-3", [0], 1, 0.8)):
        found = experiment(name, 2, seed, 0.5)
        params = found.data["params"]["params.yaml"]["data"] | {"prepare": {"classes": classes}}
        metrics = {"metrics/deep.json": {"data": {"auroc": auroc}}}
        some.append(found._replace(data=found.data | {"params": {"params.yaml": {"data": params}}, "metrics": metrics}))
    runs = {"one": collect(some, "one", "deep")}
    table = summarise(runs, "prepare.classes", "auroc")
    assert table["prepare.classes"].tolist() == ["0", "1"]
    assert table["mean"].tolist() == pytest.approx([0.75, 0.9])
    assert "| one      |                 0 | 0.7500 |" in readable(table)
    with pytest.raises(StageError, match=r"runs of one with latent_dim 2 differ in prepare\.classes; only"):
        summarise(runs, "latent_dim", "auroc")
    with pytest.raises(ParamsError, match=r"prepare\.classes is not a number in one; numbers there: auroc, "):
        summarise(runs, "seed", "prepare.classes")
    (ax,) = draw_study(table, "prepare.classes", "auroc").axes
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1"]
    (line, *_) = ax.lines
    assert np.asarray(line.get_ydata()).tolist() == pytest.approx([0.75, 0.9])
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
        line, caps, (bars,) = container.lines
        assert line is not None
        assert line.get_marker() == "o"
        assert len(caps) == 2
        assert isinstance(bars, LineCollection)
        assert same_color(line.get_color(), colour)
        assert np.asarray(line.get_data()).tolist() == [x, means]
        ends = [tuple(np.sort(segment[:, 1])) for segment in bars.get_segments()]
        np.testing.assert_allclose(ends, spans)
    assert ax.get_title(loc="left") == "mse train on test images; bars: one standard deviation of 2 to 3 runs"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("latent dim", "mse train")
    assert [label.get_text() for label in ax.get_xticklabels()] == ["2", "3", "4"]
    assert (ax.get_xscale(), ax.get_yscale()) == ("linear", "linear")
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == list(expected)


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


def test_wide_ranges_have_logarithmic_axes() -> None:
    ax = drawn(table_of(*((("z", 2**n, 1 / 2**n, 0.001, 2)) for n in range(1, 6))))
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.get_title(loc="left").endswith("one standard deviation of 2 runs")
    assert drawn(table_of(("z", 2, 1, np.nan, 1))).get_title(loc="left").endswith("on test images, one run each")
    assert [label.get_text() for label in ax.get_xticklabels(minor=True)] == []


@pytest.mark.parametrize(
    ("x", "means", "scales"),
    [
        ((2, 4, 16), (8, 4, 1), ("log", "log")),  # the largest is eight times the smallest
        ((2, 4, 15), (7.9, 4, 1), ("linear", "linear")),
        ((1, 8), (1, 8), ("linear", "log")),  # two points make no scale
        ((0, 8, 16), (-1, 1, 9), ("linear", "linear")),
        ((-1, 8, 16), (0, 1, 9), ("linear", "linear")),
        ((0.5, 3, 4), (0.5, 0.6, 4), ("log", "log")),
    ],
)
def test_an_axis_is_logarithmic_if_all_are_positive_and_far_apart(
    x: tuple[float, ...], means: tuple[float, ...], scales: tuple[str, str]
) -> None:
    ax = drawn(table_of(*(("z", *pair, 0.1, 2) for pair in zip(x, means, strict=True))))
    assert (ax.get_xscale(), ax.get_yscale()) == scales
    assert [label.get_text() for label in ax.get_xticklabels()] == [str(value) for value in x]


# --- DVC and the command -------------------------------------------------------------------


def row(experiment: Experiment, executor: bool = True) -> dict[str, Any]:
    """An experiment as `dvc exp show --json` has it."""
    state = {"state": experiment.state} if executor else None
    return {"revs": [{"name": experiment.name, "data": experiment.data}], "executor": state}


Dvc = Callable[..., Callable[[], list[str]]]


@pytest.fixture
def dvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dvc:
    """Put a program in the place of Python with DVC, which knows experiments of this commit and of another one."""

    def replace(here: list[Any], elsewhere: list[Any], error: str = "") -> Callable[[], list[str]]:
        folder = tmp_path / "dvc"
        folder.mkdir()
        baselines: list[dict[str, Any]] = [
            {"rev": "workspace", "experiments": None},
            {"rev": "here", "experiments": here},
            {"rev": "elsewhere", "experiments": elsewhere},
        ]
        (folder / "some").write_text(json.dumps(baselines[:2]))
        (folder / "all").write_text(json.dumps(baselines))
        (folder / "error").write_text(error)
        program = folder / "python"
        program.write_text(
            f"""#!/bin/sh
cd {shlex.quote(str(folder))}
echo "$*" >> commands
case "$*" in *--all-commits*) cat all;; *) cat some;; esac
cat error >&2
exit {255 if error else 0}
"""
        )
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        return lambda: (folder / "commands").read_text().splitlines()

    return replace


def test_experiments_of_other_commits_count_only_when_asked_for(dvc: Dvc) -> None:
    pulled, unnamed = row(EXPERIMENTS[1], executor=False), row(Experiment("", "success", {}))
    queued = {"revs": [{"name": "rate-6", "data": None}], "executor": {"state": "queued"}}
    resumed = row(EXPERIMENTS[4])
    resumed["revs"].append({"name": "an older checkpoint", "data": {}})
    commands = dvc([row(EXPERIMENTS[0]), resumed, pulled, unnamed, queued], [row(EXPERIMENTS[2])])
    here = [EXPERIMENTS[0], EXPERIMENTS[4], EXPERIMENTS[1], Experiment("rate-6", "queued", {})]
    assert read_experiments(all_commits=False) == here
    assert read_experiments(all_commits=True) == [*here, EXPERIMENTS[2]]
    assert commands() == ["-m dvc exp show --json", "-m dvc exp show --json --all-commits"]


def test_dvcs_failure_is_passed_on(dvc: Dvc) -> None:
    dvc([], [], "ERROR: you are\nnot inside of a DVC repository\n")
    with pytest.raises(StageError) as said:
        read_experiments(all_commits=False)
    assert str(said.value).startswith("`dvc exp show` failed: ERROR: you are not inside of a DVC repository; while")


Command = Callable[..., made_up.Ended]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: made_up.call_main(study.main, monkeypatch, capsys, *arguments)


def test_the_command_writes_a_table_and_a_picture(dvc: Dvc, command: Command) -> None:
    dvc(
        [row(e) for e in EXPERIMENTS if e.state == "success"] + [row(EXPERIMENTS[5])],
        [row(experiment("rate-9", 8, 0, 0.05))],
    )
    ended = command("latent_dim", "mse", "rate:deep", "rates:deep", "--dpi", "50")
    assert (ended.status, ended.err) == (0, "note: left out: rate-4 (running), rate-7 (trained, but not evaluated)\n")
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
    assert Image.open("plots/studies/mse_by_latent_dim.png").size == pytest.approx((6.4 * 50, 3.8 * 50), rel=0.05)
    printed = [line.split("|")[1].strip() for line in ended.out.splitlines()[2:]]
    assert printed == ["PCA", "PCA", "PCA", "rate", "rate", "rates"]
    series = with_pca({name: collect(EXPERIMENTS, name, "deep") for name in ("rate", "rates")}, "latent_dim", "mse")
    with plt.rc_context(STYLE):
        expected = png(draw_study(summarise(series, "latent_dim", "mse"), "latent_dim", "mse"), 50)
    assert Path("plots/studies/mse_by_latent_dim.png").read_bytes() == expected
    ended = command("latent_dim", "mse", "rate:deep", "--all-commits", "--name", "all", "--dpi", "50")
    assert ended.status == 0
    assert Path("plots/studies/all.csv").read_text().splitlines()[-1] == "rate,8,0.05,,1"
    ended = command("seed", "mse", "rate:deep", "--all-commits", "--name", "x", "--dpi", "50")
    assert ended.status == 1
    assert "runs of rate with seed 0 differ in latent_dim; only those" in ended.err
    assert sorted(path.name for path in Path("plots/studies").iterdir()) == [
        "all.csv",
        "all.png",
        "mse_by_latent_dim.csv",
        "mse_by_latent_dim.png",
    ]


def test_the_command_takes_means_over_a_setting(dvc: Dvc, command: Command) -> None:
    """In the table, in PCA's rows and in the picture."""
    runs = [
        experiment(f"rate-{size}{units}", size, 0, size / units, units=units) for size in (2, 4) for units in (8, 9)
    ]
    dvc([row(one) for one in runs], [])
    ended = command("latent_dim", "mse", "rate:deep", "--over", "units", "--name", "x", "--dpi", "50")
    assert (ended.status, ended.err) == (0, "")
    assert [line.rsplit(",", 1)[1] for line in Path("plots/studies/x.csv").read_text().splitlines()[1:]] == ["2"] * 4
    asked = ("latent_dim", "mse", "units")
    table = summarise(with_pca({"rate": collect(runs, "rate", "deep")}, *asked), *asked)
    with plt.rc_context(STYLE):
        assert Path("plots/studies/x.png").read_bytes() == png(draw_study(table, *asked), 50)


def test_one_prefix_with_two_models_is_two_series(dvc: Dvc, command: Command) -> None:
    both = experiment("rate-1", 2, 0, 0.5)
    both.data["params"]["params.yaml"]["data"]["models"]["flat"] = {"hidden_units": [], "latent_dim": 4, "seed": 0}
    both.data["metrics"]["metrics/flat.json"] = {"data": {"mse": 0.4}}
    dvc([row(both)], [])
    ended = command("hidden_layers", "mse", "rate:deep", "rate:flat", "--name", "x", "--dpi", "50")
    assert (ended.status, ended.err) == (0, "")
    assert Path("plots/studies/x.csv").read_text().splitlines()[1:] == ["deep,2,0.5,,1", "flat,0,0.4,,1"]


def test_what_is_not_said_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["study", "latent_dim", "mse", "rate:deep", "rate:flat", "a:b:deep"])
    options, series = parse_arguments()
    assert (options.x, options.y, options.name) == ("latent_dim", "mse", "mse_by_latent_dim")
    assert (options.dpi, options.all_commits) == (150, False)
    assert series == {"rate:deep": ("rate", "deep"), "rate:flat": ("rate", "flat"), "a:b:deep": ("a:b", "deep")}


@pytest.mark.parametrize("dpi", [50, 600])
def test_any_resolution_from_50_to_600_will_do(monkeypatch: pytest.MonkeyPatch, dpi: int) -> None:
    monkeypatch.setattr("sys.argv", ["study", "x", "y", "a:b", "--dpi", str(dpi), "--all-commits", "--name", "z"])
    options, _ = parse_arguments()
    assert (options.dpi, options.all_commits, options.name) == (dpi, True, "z")


def test_help_says_what_there_is(command: Command) -> None:
    """And shows the example line by line."""
    ended = command("--help")
    assert ended.status == 0
    assert ended.out.startswith("usage: python -m stages study [-h] [--over KEY] [--name NAME] [--dpi DPI]")
    assert study.DESCRIPTION in ended.out
    arguments = ended.out.partition("positional arguments:")[2]
    for name, meaning in (
        ("  x", "a setting that is a number or a list"),
        ("  y", "a metric"),
        ("  PREFIX:MODEL", "experiments PREFIX-..., and a model"),
        ("  --over KEY", "a setting to take the mean over, such as prepare.classes"),
        ("  --name NAME", "name of the files in plots/studies (default: y_by_x)"),
        ("  --dpi DPI", "resolution of the picture (default: 150)"),
        ("  --all-commits", "experiments that began from any commit"),
    ):
        assert re.search(f"^{re.escape(name)} +{re.escape(meaning)}", arguments, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["latent_dim", "mse"], "PREFIX:MODEL"),
        (["latent_dim", "mse", "rate"], "rate is not of the form PREFIX:MODEL"),
        (["latent_dim", "mse", "rate:deep", "--name", "../x"], "--name is ../x, but has to be a file name"),
        (["latent_dim", "mse", ":deep"], ":deep is not of the form PREFIX:MODEL, as in rate-deep:deep"),
        (["latent_dim", "mse", "rate:"], "rate: is not of the form PREFIX:MODEL, as in rate-deep:deep"),
        (["latent_dim", "mse", "rate:deep", "--dpi", "49"], "--dpi is 49, but has to be from 50 to 600"),
        (["latent_dim", "mse", "rate:deep", "--dpi", "601"], "--dpi is 601, but has to be from 50 to 600"),
    ],
)
def test_wrong_arguments(command: Command, arguments: list[str], sentence: str) -> None:
    ended = command(*arguments)
    assert ended.status == 2
    assert sentence in ended.err
