"""One setting against one metric over DVC's experiments, as a table and a picture.

    dvc exp run --queue -n rate-deep -S 'models.deep.latent_dim=2,4,8' -S 'models.deep.seed=0,1,2'
    dvc queue start
    python -m stages.study latent_dim mse rate-deep:deep

Not a stage: it reads what `dvc exp show` knows. A series is the experiments whose names
begin in the same way, and the model in them to look at. Writes plots/studies/<name>.csv
(series, the setting, mean, standard deviation over runs that differ in nothing else but
their seed, number of runs) and <name>.png, and prints the table.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from stages import files
from stages.errors import ParamsError, StageError, run
from stages.figures import PLOTS, STYLE, colours, png

FOLDER = PLOTS / "studies"

Run = dict[str, Any]  # a model's settings and metrics in one experiment, by key


def read_experiments() -> dict[str, Any]:
    """Params and metrics of every experiment that `dvc exp show` lists, by name.

    Raises StageError if DVC fails.
    """
    command = [sys.executable, "-m", "dvc", "exp", "show", "--json"]
    result = subprocess.run(command, capture_output=True, text=True)  # noqa: S603 (no shell, nothing of the user's)
    if result.returncode:
        raise StageError(f"`dvc exp show` failed: {' '.join(result.stderr.split())}")
    found = {}
    for baseline in json.loads(result.stdout):
        for experiment in baseline.get("experiments") or []:
            state = experiment["revs"][0]
            if state.get("data") and state.get("name"):
                found[state["name"]] = state["data"]
    return found


def model_run(experiment: Any, model: str) -> Run | None:
    """What an experiment says of a model: its settings, the number of its hidden layers, and its metrics.

    Nothing if the experiment is not through or has no such model.
    """
    params = experiment["params"].get("params.yaml", {}).get("data", {})
    metrics = experiment["metrics"].get(str(files.metrics_path(model)), {}).get("data")
    settings = params.get("models", {}).get(model)
    if not settings or not metrics:
        return None
    return {"hidden_layers": len(settings["hidden_units"]), **settings, **metrics}


def collect(experiments: dict[str, Any], prefix: str, model: str) -> list[Run]:
    """The runs of the experiments called `prefix` or `prefix-...`, one of those that agree in every setting.

    Raises StageError if there is none.
    """
    runs = {}
    for name, experiment in experiments.items():
        if name == prefix or name.startswith(f"{prefix}-"):
            found = model_run(experiment, model)
            if found:
                runs[json.dumps(found, sort_keys=True)] = found
    if not runs:
        known = ", ".join(sorted(experiments)) or "none"
        raise StageError(
            f"no finished experiment is called {prefix} or {prefix}-... and has metrics of the model {model}; "
            f"experiments here: {known}."
        )
    return list(runs.values())


def summarise(series: dict[str, list[Run]], x: str, y: str) -> pd.DataFrame:
    """Mean and standard deviation of y (sample's, absent for one run) at every x: series, x, mean, std, runs.

    Raises ParamsError if x or y is no number or not there.
    """
    rows = []
    for name, runs in series.items():
        for found in runs:
            for key in (x, y):
                if isinstance(found.get(key), bool) or not isinstance(found.get(key), int | float):
                    numbers = ", ".join(sorted(k for k, v in found.items() if isinstance(v, int | float)))
                    raise ParamsError(f"{key} is not a number in {name}; numbers there: {numbers}.")
            rows.append({"series": name, x: found[x], y: found[y]})
    grouped = pd.DataFrame(rows).groupby(["series", x], sort=False)[y]
    table = pd.DataFrame({"mean": grouped.mean(), "std": grouped.std(), "runs": grouped.size()}).reset_index()
    order = {name: position for position, name in enumerate(series)}
    return table.sort_values(["series", x], key=lambda column: column.map(order) if column.name == "series" else column)


def with_pca(series: dict[str, list[Run]], x: str, y: str) -> dict[str, list[Run]]:
    """The series and, where x is the latent size and PCA has this metric too, PCA's first."""
    runs = [found for several in series.values() for found in several if f"{y}_pca" in found]
    if x != "latent_dim" or not runs:
        return series
    by_size = {found[x]: found for found in runs}
    return {"PCA": [{x: size, y: found[f"{y}_pca"]} for size, found in by_size.items()]} | series


def draw_study(table: pd.DataFrame, x: str, y: str) -> Figure:
    """Means with bars of one standard deviation, a line per series."""
    figure, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    names = list(dict.fromkeys(table["series"]))
    for name, colour in colours(names).items():
        rows = table[table["series"] == name]
        spread = rows["std"].fillna(0)
        ax.errorbar(rows[x], rows["mean"], spread, color=colour, marker="o", markersize=4, capsize=3, label=name)
    values = np.sort(table[x].unique())
    if len(values) > 2 and values[0] > 0 and values[-1] >= 8 * values[0]:
        ax.set_xscale("log")
    ax.set_xticks(values, [f"{value:g}" for value in values])
    ax.minorticks_off()
    if (table["mean"] > 0).all() and table["mean"].max() >= 8 * table["mean"].min():
        ax.set_yscale("log")
    ax.set_xlabel(x.replace("_", " "))
    ax.set_ylabel(y.replace("_", " "))
    runs = f"{table['runs'].min()} to {table['runs'].max()}" if table["runs"].nunique() > 1 else str(table["runs"][0])
    ax.set_title(f"{y.replace('_', ' ')} on test images; bars: one standard deviation of {runs} runs", loc="left")
    ax.legend()
    return figure


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown, numbers with four significant digits."""

    def cell(value: Any) -> str:
        if pd.isna(value):
            return ""
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    rows = [list(map(str, table.columns)), ["---"] * len(table.columns)]
    rows += [[cell(v) for v in row] for row in table.to_numpy(object)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def parse(arguments: list[str]) -> tuple[str, str, dict[str, tuple[str, str]], str, int]:
    """The setting, the metric, the prefix and model of each series, the name of the output, the resolution.

    Ends the process with status 2 if the arguments make no sense.
    """
    parser = argparse.ArgumentParser(
        prog="python -m stages.study", description="One setting against one metric over DVC's experiments."
    )
    parser.add_argument("x", help="a numeric setting of a model, such as latent_dim, hidden_layers or parameters")
    parser.add_argument("y", help="a metric, such as mse or probe_accuracy")
    parser.add_argument("series", nargs="+", metavar="PREFIX:MODEL", help="experiments PREFIX-..., and a model in them")
    parser.add_argument("--name", help="name of the files in plots/studies (default: y_by_x)")
    parser.add_argument("--dpi", type=int, default=150, help="resolution of the picture (default: 150)")
    options = parser.parse_args(arguments)
    series = {}
    for text in options.series:
        prefix, colon, model = text.rpartition(":")
        if not colon or not prefix or not model:
            parser.error(f"{text} is not of the form PREFIX:MODEL, as in rate-deep:deep")
        series[prefix if prefix not in series else text] = (prefix, model)
    name = options.name or f"{options.y}_by_{options.x}"
    if Path(name).name != name:
        parser.error(f"--name is {name}, but has to be a file name without folders")
    if not 50 <= options.dpi <= 600:
        parser.error(f"--dpi is {options.dpi}, but has to be from 50 to 600")
    return options.x, options.y, series, name, options.dpi


def main() -> None:
    x, y, wanted, name, dpi = parse(sys.argv[1:])
    experiments = read_experiments()
    series = {label: collect(experiments, prefix, model) for label, (prefix, model) in wanted.items()}
    table = summarise(with_pca(series, x, y), x, y)
    with plt.rc_context(STYLE):
        picture = png(draw_study(table, x, y), dpi)
    csv = table.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode()
    files.write_files({FOLDER / f"{name}.csv": csv, FOLDER / f"{name}.png": picture})
    print(markdown(table))


if __name__ == "__main__":
    run(main)
