"""Pictures of a study: its history, what mattered, where good settings lie, and the Pareto front."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from stages.core.style import BASELINE_COLOURS, COLOURS, spans_decades

COLUMNS = 4  # slices in a row
COMPLETE, PRUNED, BEST = COLOURS[0], BASELINE_COLOURS[1], COLOURS[1]


def draw_history(trials: pd.DataFrame, objective: str, minimise: bool) -> Figure:
    """Every trial's objective in the order of the trials, and the best so far."""
    figure, ax = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    points(ax, trials, "trial", objective)
    complete = trials[trials["state"] == "complete"]
    best = complete[objective].cummin() if minimise else complete[objective].cummax()
    ax.step(complete["trial"], best, where="post", color=BEST, label="best so far")
    limit_to_good(ax, complete[objective], minimise)
    ax.set(xlabel="trial", ylabel=label(objective))
    counts = f"{len(complete)} complete trials, {len(trials) - len(complete)} pruned"
    ax.set_title(counts + beyond(ax, trials[objective]), loc="left")
    ax.legend(loc="upper right" if minimise else "lower right")
    return figure


def draw_importances(importances: Mapping[str, tuple[float, float]], objective: str) -> Figure:
    """A bar per setting, its mean over forests, with one standard deviation."""
    figure, ax = plt.subplots(figsize=(6.4, 0.8 + 0.3 * max(1, len(importances))), layout="constrained")
    names, rows = list(importances)[::-1], list(importances.values())[::-1]
    ax.barh(names, [mean for mean, _ in rows], xerr=[std for _, std in rows], color=COMPLETE, ecolor="black", capsize=2)
    ax.set_xlim(left=0)
    ax.set_xlabel(f"share of the variance of {label(objective)}")
    ax.set_title("Importance of each setting; bars: one standard deviation over forests", loc="left")
    if not importances:
        ax.set(xticks=[], yticks=[])
        ax.set_title("Too few complete trials, or all the same, to tell importances", loc="left")
    return figure


def draw_slices(
    trials: pd.DataFrame, settings: Sequence[str], log: Sequence[str], objective: str, minimise: bool
) -> Figure:
    """The objective over each setting. log: the settings whose axis is logarithmic."""
    rows = -(-len(settings) // COLUMNS)
    figure, axes = plt.subplots(
        rows,
        min(COLUMNS, len(settings)),
        figsize=(8.4, 0.5 + 2.1 * rows),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    complete = trials[trials["state"] == "complete"]
    for ax, setting in zip(axes.flat, settings, strict=False):
        points(ax, trials, setting, objective)
        if setting in log:
            ax.set_xscale("log")
            ax.xaxis.set_minor_formatter(NullFormatter())  # their labels would overlap on a small chart
        if not pd.api.types.is_numeric_dtype(trials[setting]):
            ax.tick_params(axis="x", labelrotation=60, labelsize=7)
        ax.set_xlabel(label(setting))
    for ax in axes.flat[len(settings) :]:
        ax.set_visible(False)
    for ax in axes[:, 0]:
        ax.set_ylabel(label(objective))
    limit_to_good(axes[0, 0], complete[objective], minimise)
    pruned = (trials["state"] == "pruned") & trials[objective].notna()
    grey = "; grey: pruned, at the last epoch they had" if pruned.any() else ""
    figure.suptitle("Trials by setting" + grey + beyond(axes[0, 0], trials[objective]), x=0.01, ha="left")
    return figure


def draw_front(
    trials: pd.DataFrame, objectives: Sequence[str], front: Sequence[int], minimise: Sequence[bool]
) -> Figure:
    """Two objectives of all complete trials; those called `front`, which no other betters in both, joined by a line."""
    figure, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    complete = trials[trials["state"] == "complete"]
    first, second = objectives
    ax.scatter(complete[second], complete[first], s=12, color=BASELINE_COLOURS[1], label="other trials")
    chosen = complete[complete["trial"].isin(front)].sort_values(second)
    ax.plot(chosen[second], chosen[first], marker="o", markersize=4, color=COMPLETE, label="Pareto front")
    for axis, name in (("x", second), ("y", first)):
        if spans_decades(complete[name].to_numpy()):
            getattr(ax, f"set_{axis}scale")("log")
    words = [
        f"{label(name)} ({'less' if less else 'more'} is better)"
        for name, less in zip(objectives, minimise, strict=True)
    ]
    ax.set(xlabel=words[1], ylabel=words[0])
    ax.set_title(f"{len(chosen)} of {len(complete)} trials are on the front", loc="left")
    ax.legend()
    return figure


def points(ax: Axes, trials: pd.DataFrame, x: str, y: str) -> None:
    """A point per trial that has a value: pruned ones grey, under the others."""
    for state, colour in (("pruned", PRUNED), ("complete", COMPLETE)):
        rows = trials[(trials["state"] == state) & trials[y].notna() & trials[x].notna()]
        if rows.empty:
            continue
        values = rows[x] if pd.api.types.is_numeric_dtype(trials[x]) else rows[x].astype(str)
        ax.scatter(values, rows[y], s=12, color=colour, label=state, zorder=2 if state == "complete" else 1)


def limit_to_good(ax: Axes, values: pd.Series, minimise: bool) -> None:
    """Cut the y axis where the worst trials would hide the differences between the good ones."""
    if len(values) < 4:
        return
    best, middle = (values.min(), values.median()) if minimise else (values.max(), values.median())
    limit = best + 4 * (middle - best)
    if middle != best and (limit < values.max() if minimise else limit > values.min()):
        margin = 0.2 * abs(middle - best)
        ax.set_ylim((best - margin, limit) if minimise else (limit, best + margin))


def beyond(ax: Axes, values: pd.Series) -> str:
    """For a title: how many of the values are outside of the y axis, if any are."""
    low, high = ax.get_ylim()
    above, below = int((values > high).sum()), int((values < low).sum())
    parts = [(above, f"above {high:.3g}"), (below, f"below {low:.3g}")]
    return "".join(f"; {count} {place} not shown" for count, place in parts if count)


def label(name: str) -> str:
    """A setting's or an objective's name, as an axis has it."""
    return (
        "validation " + name if name in ("mse", "bce", "ssim", "probe") else name.replace("_", " ").replace(".", ": ")
    )
