"""Draw one setting against one metric over DVC's experiments."""

import argparse
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from matplotlib import pyplot as plt

from stages.core.errors import ParamsError, StageError, run
from stages.core.files import model_files, write_all
from stages.core.style import STYLE, png
from stages.core.tables import STUDIES, csv, markdown, number
from stages.drawing.studies import draw_study

DESCRIPTION = """\
Draw one setting against one metric over DVC's experiments, as a table and a picture.

Reads what `dvc exp show` knows of finished experiments. A series is the experiments whose
names begin in the same way, and the model in them to look at. Writes plots/studies/<name>.csv
(series, the setting, mean and standard deviation over runs that differ in nothing but a seed
or the setting of --over, number of runs) and <name>.png, and prints the table.

example:
  dvc exp run --queue -n rate-deep -S 'models.deep.latent_dim=2,4,8' -S 'models.deep.seed=0,1,2'
  dvc queue start
  python -m stages study latent_dim mse rate-deep:deep
"""


class Experiment(NamedTuple):
    """What DVC tells of an experiment; until it is "success", its metrics are those of the commit it began from."""

    name: str
    state: str  # queued, running, failed or success
    data: dict[str, Any]  # params, metrics, and digests of the stages' deps and outs, by file


class Run(NamedTuple):
    """One model in one experiment."""

    settings: dict[str, Any]  # all that may have decided its metrics, by key
    values: dict[str, Any]  # what can be studied: its settings, the number of its hidden layers, its metrics


def main() -> None:
    options, wanted = parse_arguments()
    x, y, over = options.x, options.y, options.over
    experiments = read_experiments(options.all_commits)
    named = [(e, model) for prefix, model in wanted.values() for e in in_series(experiments, prefix)]
    if left_out := sorted({f"{e.name} ({why})" for e, model in named if (why := shortcoming(e, model))}):
        print(f"note: left out: {', '.join(left_out)}", file=sys.stderr)
    series = {label: collect(experiments, prefix, model) for label, (prefix, model) in wanted.items()}
    table = summarise(with_pca(series, x, y, over), x, y, over)
    with plt.rc_context(STYLE):
        picture = png(draw_study(table, x, y, over), options.dpi)
    write_all({STUDIES / f"{options.name}.csv": csv(table), STUDIES / f"{options.name}.png": picture})
    print(readable(table))


def parse_arguments() -> tuple[argparse.Namespace, dict[str, tuple[str, str]]]:
    """The options, and the prefix and model of each series.

    Ends the process with status 2 if the arguments make no sense.
    """
    parser = argparse.ArgumentParser(
        prog="python -m stages study", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "x", help="a setting that is a number or a list, such as latent_dim, hidden_layers or prepare.classes"
    )
    parser.add_argument("y", help="a metric, such as mse, probe or auroc")
    parser.add_argument("series", nargs="+", metavar="PREFIX:MODEL", help="experiments PREFIX-..., and a model in them")
    parser.add_argument("--over", metavar="KEY", help="a setting to take the mean over, such as prepare.classes")
    parser.add_argument("--name", help="name of the files in plots/studies (default: y_by_x)")
    parser.add_argument("--dpi", type=int, default=150, help="resolution of the picture (default: 150)")
    parser.add_argument("--all-commits", action="store_true", help="experiments that began from any commit")
    options = parser.parse_args()
    series = {text: (prefix, model) for text in options.series for prefix, _, model in [text.rpartition(":")]}
    for text, parts in series.items():
        if not all(parts):
            parser.error(f"{text} is not of the form PREFIX:MODEL, as in rate-deep:deep")
    series = labelled(list(series.values()))
    options.name = options.name or f"{options.y}_by_{options.x}"
    if Path(options.name).name != options.name:
        parser.error(f"--name is {options.name}, but has to be a file name without folders")
    if not 50 <= options.dpi <= 600:
        parser.error(f"--dpi is {options.dpi}, but has to be from 50 to 600")
    return options, series


def labelled(series: list[tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Prefixes and models by the names to show: the prefixes if they differ, else the models, else both."""
    for names in zip(*series, strict=True):
        if len(set(names)) == len(series):
            return dict(zip(names, series, strict=True))
    return {":".join(one): one for one in series}


def read_experiments(all_commits: bool) -> list[Experiment]:
    """The experiments that began from the present commit, or from any.

    Raises StageError if DVC fails.
    """
    command = [sys.executable, "-m", "dvc", "exp", "show", "--json", *(["--all-commits"] if all_commits else [])]
    result = subprocess.run(command, capture_output=True, text=True)  # noqa: S603 (no shell, nothing of the user's)
    if result.returncode:
        reason = " ".join(result.stderr.split())
        raise StageError(f"`dvc exp show` failed: {reason}; while experiments run it may, so try again.")
    found = []
    for baseline in json.loads(result.stdout):
        for experiment in baseline.get("experiments") or []:
            state = (experiment["executor"] or {}).get("state", "success")  # DVC forgets who ran it when it is pulled
            last = experiment["revs"][0]
            if last.get("name"):
                found.append(Experiment(last["name"], state, last.get("data") or {}))
    return found


def in_series(experiments: list[Experiment], prefix: str) -> list[Experiment]:
    """The experiments called `prefix` or `prefix-...`."""
    return [e for e in experiments if e.name == prefix or e.name.startswith(f"{prefix}-")]


def shortcoming(experiment: Experiment, model: str) -> str:
    """Why the metrics of a model are no result of this experiment; empty if they are."""
    if experiment.state != "success":
        return experiment.state
    if not experiment.data:
        return "unreadable"  # DVC could not load its commit
    path = str(model_files(model).history)  # which no stage but evaluate reads
    evaluated, trained = (experiment.data.get(kind, {}).get(path, {}).get("hash") for kind in ("deps", "outs"))
    return "" if evaluated == trained else "trained, but not evaluated"


def model_run(experiment: Experiment, model: str) -> Run | None:
    """What an experiment says of a model; nothing if it has come to no result or has no such model."""
    if shortcoming(experiment, model):
        return None
    params = experiment.data["params"].get("params.yaml", {}).get("data", {})
    metrics = experiment.data["metrics"].get(str(model_files(model).metrics), {}).get("data")
    own = params.get("models", {}).get(model)
    if not own or not metrics:
        return None
    common = {f"{part}.{key}": v for part in ("prepare", "evaluate") for key, v in params.get(part, {}).items()}
    settings = own | common
    values = {"hidden_layers": len(own["hidden_units"]), **settings, **metrics}
    return Run(settings, {key: listed(value) if isinstance(value, list) else value for key, value in values.items()})


def listed(values: list[Any]) -> str:
    """A list as the text that stands for it, such as "0 1 2"."""
    return " ".join(map(str, values)) or "none"


def collect(experiments: list[Experiment], prefix: str, model: str) -> list[Run]:
    """The runs of the experiments called `prefix` or `prefix-...`, one of those that agree in everything.

    Raises StageError if there is none, or if several experiments hold one and the same run.
    """
    runs = [found for experiment in in_series(experiments, prefix) if (found := model_run(experiment, model))]
    if not runs:
        known = ", ".join(sorted(f"{e.name} ({e.state})" for e in experiments)) or "none"
        raise StageError(
            f"no finished experiment is called {prefix} or {prefix}-... and has metrics of the model {model}; "
            f"experiments here: {known}. Those that began from other commits count with --all-commits."
        )
    distinct = {json.dumps(found, sort_keys=True): found for found in runs}
    if len(runs) > 1 == len(distinct):
        raise StageError(f"the {len(runs)} experiments {prefix}-... do not differ in the model {model}.")
    return list(distinct.values())


def summarise(series: dict[str, list[Run]], x: str, y: str, over: str | None = None) -> pd.DataFrame:
    """Mean and standard deviation of y (sample's, absent for one run) at every x: series, x, mean, std, runs.

    x may be a list in params.yaml, y has to be a number. over: a setting in which runs at one x may differ.
    Raises ParamsError if one is not or not there, StageError if runs at one x differ in more than that and
    seeds, or if not every mean is over the same values of it.
    """
    rows = []
    for name, runs in series.items():
        for settings, found in runs:
            for key in (y,) if isinstance(settings.get(x), list) else (x, y):
                if isinstance(found.get(key), bool) or not isinstance(found.get(key), int | float):
                    numbers = ", ".join(sorted(k for k, v in found.items() if isinstance(v, int | float)))
                    raise ParamsError(f"{key} is not a number in {name}; numbers there: {numbers}.")
            if over and over not in settings:
                known = ", ".join(sorted(settings))
                raise ParamsError(f"--over is {over}, which is no setting in {name}; settings there: {known}.")
            rows.append({"series": name, x: found[x], y: found[y]})
        check_unmixed(name, runs, x, over)
    if over:
        check_same(series, x, over)
    grouped = pd.DataFrame(rows).groupby(["series", x], sort=False)[y]
    table = pd.DataFrame({"mean": grouped.mean(), "std": grouped.std(), "runs": grouped.size()}).reset_index()
    order = {name: position for position, name in enumerate(series)}
    return table.sort_values(["series", x], key=lambda column: column.map(order) if column.name == "series" else column)


def check_same(series: dict[str, list[Run]], x: str, over: str) -> None:
    """Raise StageError if the means are not over the same values of `over`, each as often as any other."""
    counts: dict[tuple[str, Any], Counter[Any]] = {}
    for name, runs in series.items():
        for one in runs:
            counts.setdefault((name, one.values[x]), Counter())[one.values[over]] += 1
    every = set().union(*counts.values())
    for (name, value), found in counts.items():
        if lacking := sorted(map(str, every - set(found))):
            raise StageError(
                f"{name} with {x} {value} has no run of {over} {', '.join(lacking)}, which others have; "
                "means over unlike values cannot be compared."
            )
        if len(set(found.values())) > 1:
            numbers = ", ".join(f"{count} of {over} {setting}" for setting, count in found.items())
            raise StageError(f"{name} with {x} {value} has unlike numbers of runs: {numbers}; no fair mean.")


def check_unmixed(name: str, runs: list[Run], x: str, over: str | None = None) -> None:
    """Raise StageError if runs with the same x differ in a setting other than `over` and seeds.

    Their spread would be no noise.
    """
    first: dict[Any, Run] = {}
    for one in runs:
        settings = first.setdefault(one.values[x], one).settings
        differing = [key for key, v in one.settings.items() if settings.get(key) != v and not key.endswith("seed")]
        if keys := [key for key in differing if key != over]:
            raise StageError(
                f"runs of {name} with {x} {one.values[x]} differ in {', '.join(keys)}; only those that differ "
                "in nothing but a seed have a mean. Study the others by themselves, or name one with --over."
            )


def with_pca(series: dict[str, list[Run]], x: str, y: str, over: str | None = None) -> dict[str, list[Run]]:
    """The series, after that of PCA if it has the metric and x decides what PCA does."""
    runs = [one for runs in series.values() for one in runs if f"{y}_pca" in one.values]
    if not runs or not decides_pca(x):
        return series
    distinct = {}
    for one in runs:
        settings = {key: value for key, value in one.settings.items() if decides_pca(key) or key == over}
        values = {key: one.values[key] for key in settings} | {y: one.values[f"{y}_pca"]}
        distinct[json.dumps(settings, sort_keys=True)] = Run(settings, values)
    return {"PCA": list(distinct.values())} | series


def decides_pca(key: str) -> bool:
    """Whether PCA depends on a setting."""
    return key == "latent_dim" or key.startswith("prepare.")


def readable(table: pd.DataFrame) -> str:
    """A study's table in Markdown, as the command prints it."""
    cells = [
        ["" if pd.isna(v) else number(v) if isinstance(v, float) else v for v in row] for row in table.to_numpy(object)
    ]
    return markdown(list(table.columns), cells)


if __name__ == "__main__":
    run(main)
