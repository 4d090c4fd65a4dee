"""Charts: errors, losses and latent spaces."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from stages.core.arrays import Bytes, Floats
from stages.core.evaluation import BASELINE, Result
from stages.core.linear import class_means, principal_plane
from stages.core.style import class_colours, colours


def draw_latent_space(results: dict[str, Result], labels: Bytes) -> Figure:
    """The codes of all test images on their two principal components, in the colours of their classes."""
    size = (3.1 * len(results), 3.4)
    figure, axes = plt.subplots(1, len(results), figsize=size, squeeze=False, layout="constrained")
    for ax, (name, result) in zip(axes[0], results.items(), strict=True):
        _, points, explained = principal_plane(result.codes)
        draw_classes(ax, points, labels)
        ax.set_title(f"{name}: {explained:.0%} of the variance")
        ax.set(xticks=[], yticks=[], xlabel="first component", ylabel="second component")
    figure.suptitle("Codes of the test digits on their two principal components; labels at the class means")
    return figure


def draw_classes(ax: Axes, points: Floats, labels: Bytes) -> None:
    """Points float [images, 2] in the colours of their classes, and the name of each class at its mean."""
    palette = class_colours(labels)
    across, up = points.T
    ax.scatter(across, up, s=2, c=[palette[label] for label in labels.tolist()], alpha=0.4, linewidths=0)
    for label, (x, y) in zip(palette, class_means(points, labels), strict=True):
        name = ax.text(x, y, str(label), ha="center", va="center", fontsize=11, color=palette[label], weight="bold")
        name.set_path_effects(
            [withStroke(linewidth=3, foreground="white"), withStroke(linewidth=1.2, foreground="black")]
        )


def draw_errors(results: dict[str, Result]) -> Figure:
    """How the errors of the test images are distributed, a row per result."""
    errors = {name: result.squared_error for name, result in results.items()}
    everything = np.concatenate(list(errors.values()))
    low, high = max(everything.min(), 1e-3), max(everything.max(), 2e-3)
    bins = np.geomspace(low * 0.9, high * 1.1, 81)
    size = (7, 0.9 * len(results) + 0.8)
    figure, axes = plt.subplots(
        len(results), sharex=True, sharey=True, figsize=size, squeeze=False, layout="constrained"
    )
    palette = colours(errors, [name for name, r in results.items() if r.kind == BASELINE])
    for ax, (name, colour) in zip(axes[:, 0], palette.items(), strict=True):
        counts, _ = np.histogram(errors[name], bins)
        median = np.median(errors[name])
        ax.stairs(counts, bins, color=colour, fill=True, alpha=0.3)
        ax.stairs(counts, bins, color=colour)
        ax.axvline(median, color=colour, linestyle=(0, (4, 2)), linewidth=1)
        ax.set_ylabel(f"{name}\nmedian {median:.1f}", color=colour, rotation=0, ha="right", va="center")
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
    ax.set(xscale="log", xlabel="squared error of a test image, summed over pixels", ylim=(0, None))
    ax.xaxis.set_major_formatter("{x:g}")
    figure.suptitle("How many test digits have which error; dashed: the median")
    return figure


def draw_losses(histories: pd.DataFrame, loss_names: dict[str, str]) -> Figure:
    """Loss against epoch: colour by model, training solid, validation dashed, parts of a loss thin.

    A training loss is a mean over an epoch in which the weights move, so it is half an epoch before the validation
    loss. histories: as `tables.loss_table` returns it. loss_names: the loss that each model minimises; curves of
    different losses don't compare.
    """
    figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
    same = len(set(loss_names.values())) == 1
    ends = {}
    for name, colour in colours(loss_names).items():
        of_model = histories[histories["model"] == name]
        title = name if same else f"{name} ({loss_names[name]})"
        for (split, part), curve in of_model.groupby(["split", "part"], sort=False):
            dashes: Any = "-" if split == "train" else (0, (4, 2))
            epochs, loss = curve["epoch"] - (0.5 if split == "train" else 0), curve["loss"]
            width = None if part == "total" else 0.7
            marker = "o" if len(curve) == 1 else None  # a line needs two points
            ax.plot(epochs, loss, color=colour, linestyle=dashes, linewidth=width, marker=marker)
            ends[title if part == "total" else f"{name}, {part}"] = (epochs.iloc[-1], loss.iloc[-1], colour)
    ax.set(xlabel="epoch", ylabel=next(iter(loss_names.values())).replace("_", " ") if same else "loss", xlim=(0, None))
    ax.set_title("Loss per epoch: training solid, validation dashed", fontsize=10, loc="left")
    ax.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True))
    name_ends(ax, ends)
    return figure


def name_ends(ax: Axes, ends: dict[str, tuple[float, float, str]]) -> None:
    """Write names at the right ends of curves, none on top of another. ends: x, y and colour by name."""
    low, high = ax.get_ylim()
    height = -np.inf
    for name, (x, y, colour) in sorted(ends.items(), key=lambda end: end[1][1]):
        height = max(y, height + 0.05 * (high - low))
        ax.annotate(name, (x, height), (6, 0), textcoords="offset points", color=colour, va="center")


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
