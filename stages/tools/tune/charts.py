"""Charts of a study: the importance of each setting, and the Pareto front."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from stages.core.style import BASELINE_COLOURS, COLOURS
from stages.tools.studies import spans_decades


def draw_importances(importances: Mapping[str, float], objective: str) -> Figure:
    """A bar for each setting, the first on top."""
    figure, ax = plt.subplots(figsize=(6.4, 0.8 + 0.3 * len(importances)), layout="constrained")
    ax.barh(list(importances), list(importances.values()), color=COLOURS[0])
    ax.invert_yaxis()
    ax.set_xlabel(f"share of the variance of {label(objective)}")
    ax.set_title("Importance of each setting", loc="left")
    return figure


def draw_front(
    trials: pd.DataFrame, objectives: Sequence[str], front: Sequence[int], minimise: Sequence[bool]
) -> Figure:
    """Two objectives of all complete trials; a line joins the Pareto front, the trials whose numbers are in `front`."""
    figure, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    complete = trials[trials["state"] == "complete"]
    first, second = objectives
    ax.scatter(complete[second], complete[first], s=12, color=BASELINE_COLOURS[1], label="other trials")
    chosen = complete[complete["trial"].isin(front)].sort_values(second)
    ax.plot(chosen[second], chosen[first], marker="o", markersize=4, color=COLOURS[0], label="Pareto front")
    for axis, name in (("x", second), ("y", first)):
        if spans_decades(complete[name].to_numpy()):
            getattr(ax, f"set_{axis}scale")("log")
    ylabel, xlabel = (
        f"{label(name)} ({'less' if less else 'more'} is better)"
        for name, less in zip(objectives, minimise, strict=True)
    )
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.set_title(f"{len(chosen)} of {len(complete)} trials are on the front", loc="left")
    ax.legend()
    return figure


def label(name: str) -> str:
    """An objective's name for an axis."""
    return name.replace("_", " ") if name in ("parameters", "latent_dim") else f"validation {name}"
