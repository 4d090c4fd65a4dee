"""Charts: errors, losses and latent spaces."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from stages.core.arrays import Bytes
from stages.core.evaluation import BASELINE, Result
from stages.core.linear import principal_plane
from stages.core.style import class_colours, colours


def draw_latent_space(results: dict[str, Result], labels: Bytes) -> Figure:
    """The codes of all test images on their two principal components, coloured by class, labels at class means."""
    size = (3.1 * len(results), 3.6)
    figure, axes = plt.subplots(1, len(results), figsize=size, squeeze=False, layout="constrained")
    palette = class_colours(labels)
    for ax, (name, result) in zip(axes[0], results.items(), strict=True):
        _, points, explained = principal_plane(result.codes)
        for label, colour in palette.items():
            x, y = points[labels == label].T
            ax.scatter(x, y, s=3, color=colour, alpha=0.35, linewidths=0, label=str(label))
            name_of_class = ax.text(x.mean(), y.mean(), str(label), ha="center", va="center", fontsize=11, color=colour)
            name_of_class.set(weight="bold", path_effects=[withStroke(linewidth=2.5, foreground="white")])
        ax.set_title(f"{name}: {explained:.0%} of the variance")
        ax.set(xticks=[], yticks=[], xlabel="first component", ylabel="second component")
    handles, names = axes[0, 0].get_legend_handles_labels()
    legend = figure.legend(handles, names, ncols=min(20, len(names)), loc="outside lower center", markerscale=4)
    for handle in legend.legend_handles:
        plt.setp(handle, alpha=1)
    figure.suptitle("Codes of the test digits on their two principal components; labels at the class means")
    return figure


def draw_errors(results: dict[str, Result], comparisons: pd.DataFrame) -> Figure:
    """How the errors of the test images are distributed, a curve per model, medians dashed.

    comparisons: as `tables.comparison_table` returns it; the legend gives the ratios and their intervals.
    """
    errors = {name: result.squared_error for name, result in results.items()}
    everything = np.concatenate(list(errors.values()))
    low, high = max(everything.min(), 1e-3), max(everything.max(), 2e-3)
    bins = np.geomspace(low * 0.9, high * 1.1, 81)
    figure, ax = plt.subplots(figsize=(9.2, 3.6), layout="constrained")
    for name, colour in colours(errors, [name for name, r in results.items() if r.kind == BASELINE]).items():
        counts, _ = np.histogram(errors[name], bins)
        median = np.median(errors[name])
        ax.stairs(counts / len(errors[name]), bins, color=colour, fill=True, alpha=0.3)
        ax.stairs(counts / len(errors[name]), bins, color=colour, label=f"{name}, median {median:.1f}")
        ax.axvline(median, color=colour, linestyle=(0, (4, 2)), linewidth=1)
    ax.set_xscale("log")
    ax.set_xlabel("squared error of a test image, summed over pixels")
    ax.set_ylabel("share of test images")
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_formatter("{x:g}")
    lines = [
        f"{row.model} to {row.opponent}: {row.ratio:.3f} ({row.ratio_low:.3f}–{row.ratio_high:.3f}), "
        f"better on {row.wins:.1%}"
        for row in comparisons.itertuples()
    ]
    title = "\n".join(["ratio of mean errors (95 % interval)", *lines, ""])
    figure.legend(loc="outside right upper", title=title, title_fontsize=7)
    ax.set_title("Error of each test digit", fontsize=10, loc="left")
    return figure


def draw_losses(histories: pd.DataFrame, loss_names: dict[str, str]) -> Figure:
    """Loss against epoch: colour by model, training solid, validation dashed, parts of a loss thin.

    histories: as `tables.loss_table` returns it.
    loss_names: the loss that each model minimises; curves of different losses don't compare.
    """
    figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
    names = list(loss_names)
    same = len(set(loss_names.values())) == 1
    for name, colour in colours(names).items():
        of_model = histories[histories["model"] == name]
        for (split, part), curve in of_model.groupby(["split", "part"], sort=False):
            dashes: Any = "-" if split == "train" else (0, (4, 2))
            width = None if part == "total" else 0.7
            series = split if part == "total" else f"{split}, {part}"
            label = f"{name}, {series}" if same else f"{name}, {series} ({loss_names[name]})"
            marker = "o" if len(curve) == 1 else None  # a line needs two points
            ax.plot(
                curve["epoch"],
                curve["loss"],
                color=colour,
                linestyle=dashes,
                linewidth=width,
                marker=marker,
                label=label,
            )
    ax.set_xlabel("epoch")
    ax.set_ylabel(loss_names[names[0]].replace("_", " ") if same else "loss")
    ax.set_title("Loss per epoch", fontsize=10, loc="left")
    ax.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True))
    ax.set_xlim(left=0)
    ax.legend()
    return figure


def draw_mse_per_class(per_class: pd.DataFrame, overall: dict[str, float], classes: int) -> Figure:
    """Bars of each model's mean squared error per pixel over the test images of each class.

    per_class: as `tables.mse_per_class_table` returns it. overall: each model's mse on all test images.
    """
    shown = sorted(per_class["class"].unique())[:classes]
    figure, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
    width = 0.8 / len(overall)
    baselines = set(per_class["model"][per_class["kind"] == BASELINE])
    for index, (name, colour) in enumerate(colours(overall, baselines).items()):
        heights = per_class[per_class["model"] == name].set_index("class").loc[shown, "mse"]
        offsets = np.arange(len(shown)) + (index - (len(overall) - 1) / 2) * width
        ax.bar(offsets, heights, width * 0.92, color=colour, label=f"{name}, {overall[name]:.4f} overall")
    ax.set_xticks(range(len(shown)), [str(label) for label in shown])
    ax.set_xlabel("class")
    ax.set_ylabel("MSE per pixel")
    ax.set_title("Test error per class", fontsize=10, loc="left")
    figure.legend(ncols=min(3, len(overall)), loc="outside lower center")
    return figure
