"""Plot the table of a study."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from stages.applications.charts import name_ends
from stages.core.style import colours
from stages.tools.studies import spans_decades

LONG = 8  # characters of an axis label; longer ones would overlap


def draw_study(table: pd.DataFrame, x: str, y: str, over: str | None = None) -> Figure:
    """Means with bars of one standard deviation, a line per series.

    table: columns series, the setting x, mean, std, runs. over: the setting that the means are over.
    """
    figure, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    names = list(dict.fromkeys(table["series"]))
    numeric = pd.api.types.is_numeric_dtype(table[x])
    if not numeric:
        table = table.assign(**{x: table[x].map(short_names(table[x]))}).sort_values(x, kind="stable")
    has_spread = table["std"].notna().any()
    palette = colours(names, ["PCA"])
    for name, colour in palette.items():
        rows = table[table["series"] == name]
        ax.errorbar(
            rows[x],
            rows["mean"],
            rows["std"].fillna(0) if has_spread else None,
            color=colour,
            linestyle="-" if numeric else "",  # there is nothing between lists
            marker="o",
            markersize=4,
            capsize=3,
            label=name,
        )
    if numeric:
        values = np.sort(table[x].unique())
        if len(values) > 2 and spans_decades(values):
            ax.set_xscale("log")
        ax.set_xticks(values, [f"{value:g}" for value in values])
        ax.minorticks_off()
    elif table[x].str.len().max() > LONG:
        plt.setp(ax.get_xticklabels(), rotation=30, ha="right")
    if spans_decades(table["mean"].to_numpy()):
        ax.set_yscale("log")
    ax.set_xlabel(x.replace("_", " "))
    ax.set_ylabel(y.replace("_", " "))
    counts = table["runs"][table["series"] != "PCA"]  # seeds do not affect PCA
    runs = f"{counts.min()} to {counts.max()}" if counts.nunique() > 1 else str(counts.iloc[0])
    of = f"over {over}" if over else f"of {runs} runs"
    bars = f"; bars: one standard deviation {of}" if counts.max() > 1 else ", one run each"
    ax.set_title(f"{y.replace('_', ' ')} on test images{bars}", loc="left")
    if numeric:
        last = table.sort_values(x).groupby("series").last()
        name_ends(ax, {name: (last[x][name], last["mean"][name], palette[name]) for name in names})
    else:
        ax.legend()
    return figure


def short_names(lists: pd.Series) -> dict[str, str]:
    """Short labels: "without 2" for "0 1 3" if all lists lack fewer of the words than they have, else the lists."""
    every = list(dict.fromkeys(word for text in lists for word in text.split()))
    lacking = {text: [word for word in every if word not in text.split()] for text in lists}
    if not all(0 < len(missing) < len(text.split()) for text, missing in lacking.items()):
        return {text: text for text in lists}
    return {text: f"without {' '.join(missing)}" for text, missing in lacking.items()}
