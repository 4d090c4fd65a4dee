"""Charts: errors and latent spaces. Losses and errors per class are interactive ones, in .dvc/plots."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

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
    low, high = max(everything.min(), 1e-3), max(everything.max(), 2e-3)  # errors of 0 have no logarithm
    bins = np.geomspace(low * 0.9, high * 1.1, 81)
    size = (7, 0.9 * len(results) + 0.8)
    figure, axes = plt.subplots(
        len(results), sharex=True, sharey=True, figsize=size, squeeze=False, layout="constrained"
    )
    palette = colours(errors, [name for name, r in results.items() if r.kind == BASELINE])
    for ax, (name, colour) in zip(axes[:, 0], palette.items(), strict=True):
        counts, _ = np.histogram(errors[name].clip(low), bins)
        median = np.median(errors[name])
        ax.stairs(counts, bins, color=colour, fill=True, alpha=0.3)
        ax.stairs(counts, bins, color=colour)
        ax.axvline(max(median, low), color=colour, linestyle=(0, (4, 2)), linewidth=1)
        ax.set_ylabel(f"{name}\nmedian {median:.1f}", color=colour, rotation=0, ha="right", va="center")
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
    ax.set(xscale="log", xlabel="squared error of a test image, summed over pixels", ylim=(0, None))
    ax.xaxis.set_major_formatter("{x:g}")
    figure.suptitle("How many test digits have which error; dashed: the median")
    return figure
