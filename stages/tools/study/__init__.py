"""Plot one setting against one metric over DVC's experiments."""

import argparse
import sys
from pathlib import Path
from typing import Any, cast

import pandas as pd
from matplotlib import pyplot as plt

from stages.core.errors import ParamsError, StageError
from stages.core.files import write_all
from stages.core.style import STYLE, png
from stages.core.tables import csv, markdown, number
from stages.tools.studies import STUDIES
from stages.tools.study.experiments import Run, Text, collect, in_series, read_experiments, shortcoming
from stages.tools.study.picture import draw_study

DESCRIPTION = """\
Plot one setting against one metric over DVC's experiments.

Reads the finished experiments that `dvc exp show` lists. A series is one model in the
experiments whose names start with a prefix. Each point is the mean over runs that differ
only in seeds or in the setting of --over. Writes plots/studies/<name>.csv (series, the
setting, mean, standard deviation, number of runs) and <name>.png, and prints the table.

example:
  dvc exp run --queue -n rate-deep -S 'models.deep.latent_dim=2,4,8' -S 'models.deep.seed=0,1,2'
  dvc queue start
  python -m stages study latent_dim mse rate-deep:deep
"""


def main() -> None:
    options, wanted = parse_arguments()
    x, y, over = options.x, options.y, options.over
    experiments = read_experiments(options.all_commits)
    named = [(e, model) for prefix, model in wanted.values() for e in in_series(experiments, prefix)]
    if left_out := sorted({f"{e.name} ({why})" for e, model in named if (why := shortcoming(e, model))}):
        print(f"note: left out: {', '.join(left_out)}", file=sys.stderr)
    series = {label: collect(experiments, prefix, model) for label, (prefix, model) in wanted.items()}
    table = summarise(series, x, y, over)
    with plt.rc_context(STYLE):
        picture = png(draw_study(table, x, y, over), options.dpi)
    write_all({STUDIES / f"{options.name}.csv": csv(table), STUDIES / f"{options.name}.png": picture})
    print(readable(table))


def parse_arguments() -> tuple[argparse.Namespace, dict[str, tuple[str, str]]]:
    """The options, and the prefix and model of each series. Wrong arguments end the process with status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m stages study", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("x", help="a setting that is a number or a list, such as latent_dim, hidden_layers or prepare.classes")
    add("y", help="a metric, such as mse, probe or auroc")
    add("series", nargs="+", metavar="PREFIX:MODEL", help="experiments PREFIX-..., and a model in them")
    add("--over", metavar="KEY", help="a setting to take the mean over, such as prepare.classes")
    add("--name", help="name of the files in plots/studies (default: y_by_x)")
    add("--dpi", type=int, default=150, help="resolution of the picture (default: 150)")
    add("--all-commits", action="store_true", help="include experiments of other commits")
    options = parser.parse_args()
    series = [(prefix, model) for prefix, _, model in (text.rpartition(":") for text in options.series)]
    for text, parts in zip(options.series, series, strict=True):
        if not all(parts):
            parser.error(f"{text} is not of the form PREFIX:MODEL, such as rate-deep:deep")
    options.name = options.name or f"{options.y}_by_{options.x}"
    if Path(options.name).name != options.name:
        parser.error(f"--name is {options.name}, but must be a file name without folders")
    if not 50 <= options.dpi <= 600:
        parser.error(f"--dpi is {options.dpi}, but must be from 50 to 600")
    return options, labelled(list(dict.fromkeys(series)))


def labelled(series: list[tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Prefixes and models by the label of the series: the prefix if all differ, else the model, else both."""
    for names in zip(*series, strict=True):
        if len(set(names)) == len(series):
            return dict(zip(names, series, strict=True))
    return {":".join(one): one for one in series}


def summarise(series: dict[str, list[Run]], x: str, y: str, over: str | None = None) -> pd.DataFrame:
    """Mean and sample standard deviation (NaN for one run) of y at each x: columns series, x, mean, std, runs.

    x: a number or a list. y: a number. over: a setting in which runs at one x may differ. PCA is the first
    series if the runs have its y and x affects it.
    Raises ParamsError if a key is of another kind or missing, and StageError if a mean would be unfair: if runs
    at one x differ in other settings than seeds and `over`, or the means are over different values of `over`.
    """
    for name, runs in series.items():
        check_keys(name, runs, x, y, over)
    settings = list(dict.fromkeys(key for runs in series.values() for one in runs for key in one.settings))
    rows = [{"series": name} | one.settings | one.results for name, runs in series.items() for one in runs]
    table = with_pca(pd.DataFrame(rows), settings, y, over) if decides_pca(x) else pd.DataFrame(rows)
    check_unmixed(table, [key for key in settings if not key.endswith("seed") and key not in (x, over)], x)
    if over:
        check_same(table, x, over)
    means = table.groupby(["series", x], sort=False)[y].agg(["mean", "std", "size"]).reset_index()
    means["series"] = pd.Categorical(means["series"], ["PCA", *series])
    return means.sort_values(["series", x]).astype({"series": object}).rename(columns={"size": "runs"})


def check_keys(name: str, runs: list[Run], x: str, y: str, over: str | None) -> None:
    """Raise ParamsError if a run of a series has no number y, no number or list x, or no setting `over`."""
    for settings, results in runs:
        numbers = sorted(key for key, value in (settings | results).items() if is_number(value))
        for key in (y,) if isinstance(settings.get(x), Text) else (x, y):
            if key not in numbers:
                raise ParamsError(f"{key} is not a number in {name}; numbers there: {', '.join(numbers)}.")
        if over and over not in settings:
            known = ", ".join(sorted(settings))
            raise ParamsError(f"--over is {over}, which is not a setting in {name}; settings there: {known}.")


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def with_pca(table: pd.DataFrame, settings: list[str], y: str, over: str | None) -> pd.DataFrame:
    """The runs, and those of PCA if they have its y."""
    if f"{y}_pca" not in table:
        return table
    own = [key for key in settings if decides_pca(key) or key == over]
    pca = table.dropna(subset=f"{y}_pca")[[*own, f"{y}_pca"]].drop_duplicates(own)
    return pd.concat([table, pca.rename(columns={f"{y}_pca": y}).assign(series="PCA")])


def decides_pca(key: str) -> bool:
    """Whether a setting affects PCA."""
    return key == "latent_dim" or key.startswith("prepare.")


def check_unmixed(table: pd.DataFrame, fixed: list[str], x: str) -> None:
    """Raise StageError if runs of a series with the same x differ in a setting that should be fixed."""
    for (name, value), runs in table.groupby(["series", x], sort=False):
        if differing := [key for key in fixed if runs[key].nunique(dropna=False) > 1]:
            raise StageError(
                f"runs of {name} with {x} {value} differ in {', '.join(differing)}; only runs that differ in nothing "
                "but seeds have a mean. Study the others separately, or name one of these settings with --over."
            )


def check_same(table: pd.DataFrame, x: str, over: str) -> None:
    """Raise StageError if the means are not over the same values of `over`, each equally often."""
    counts = table.groupby(["series", x, over], sort=False).size().unstack(fill_value=0)
    for at, found in counts.iterrows():
        name, value = cast(tuple[str, Any], at)
        if lacking := sorted(map(str, found.index[found == 0])):
            raise StageError(
                f"{name} with {x} {value} has no run of {over} {', '.join(lacking)}, which others have; "
                "means over different values cannot be compared."
            )
        if found.nunique() > 1:
            numbers = ", ".join(f"{count} of {over} {setting}" for setting, count in found.items())
            raise StageError(f"{name} with {x} {value} has different numbers of runs: {numbers}; the mean is unfair.")


def readable(table: pd.DataFrame) -> str:
    """The table of a study in Markdown."""
    cells = [
        ["" if pd.isna(v) else number(v) if isinstance(v, float) else v for v in row] for row in table.to_numpy(object)
    ]
    return markdown(list(table.columns), cells)
