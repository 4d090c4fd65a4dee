"""Figures made of digits: inputs, outputs, and what lies between codes."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from stages.core.arrays import Bytes, Float64, Floats, Int64
from stages.core.evaluation import Digits, Result
from stages.core.shown import TRAVERSAL
from stages.core.style import GREY, SIGNED, mosaic, show, show_rows

EXTREMES = 5  # best, median and worst test digits of each result


def draw_reconstructions(results: dict[str, Result], digits: Digits, classes: int) -> Figure:
    """The first test image of each class, each reconstruction, and the difference.

    Under each reconstruction is its error, at the left the mean over all test images.
    """
    shown, images = digits.shown[:classes], digits.images[:classes]
    rows: list[tuple[str, Floats, Floats | None, dict[str, Any]]] = [("original", images, None, GREY)]
    for name, result in results.items():
        pictures, errors = np.divide(result.reconstructions[shown], 255, dtype=np.float32), result.squared_error
        rows.append((f"{name}\nmean {errors.mean():.1f}", pictures, errors[shown], GREY))
        rows.append(("difference", pictures - images, None, SIGNED))

    size = (0.68 * len(shown) + 1.2, 0.76 * len(rows) + 0.5)
    figure, axes = plt.subplots(len(rows), len(shown), figsize=size, squeeze=False, layout="constrained")
    for row, (label, pictures, sums, options) in zip(axes, rows, strict=True):
        for column, ax in enumerate(row):
            show(ax, pictures[column], **options)
            if sums is not None:
                ax.set_xlabel(f"{sums[column]:.1f}", fontsize=8, labelpad=2)
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", labelpad=8)
    figure.suptitle("Test digits and their squared error; red pixels came out too dark, blue ones too bright")
    return figure


def extremes(errors: Float64, count: int) -> Int64:
    """Positions of the images with the smallest, the median and the largest errors: int64 [3, count].

    errors: float [images]. With fewer images than `count`, some occur twice.
    """
    order = np.argsort(errors, kind="stable")
    middle = (len(order) - count) // 2
    places = [np.arange(count), middle + np.arange(count), len(order) - count + np.arange(count)]
    positions: Int64 = order[np.stack(places).clip(0, len(order) - 1)]
    return positions


def draw_extremes(results: dict[str, Result], images: Bytes) -> Figure:
    """The test images with the smallest, median and largest errors of each result, above their reconstructions.

    images: uint8 [test images, height, width].
    """
    kinds = ("best", "median", "worst")
    size = (2.5 * len(results), 4.2)
    figure, axes = plt.subplots(len(kinds), len(results), figsize=size, squeeze=False, layout="constrained")
    for column, (name, result) in zip(axes.T, results.items(), strict=True):
        for ax, kind, positions in zip(column, kinds, extremes(result.squared_error, EXTREMES), strict=True):
            show(ax, mosaic(np.stack([images[positions], result.reconstructions[positions]]) / 255), **GREY)
            errors = result.squared_error[positions]
            span = f"{errors.min():.1f}" if np.ptp(errors) < 0.05 else f"{errors.min():.1f} to {errors.max():.1f}"
            ax.set_title(f"{name}, {kind}: {span}")
    figure.suptitle("Best, median and worst test digits above their reconstructions, with squared errors")
    return figure


def draw_interpolations(results: dict[str, Result], digits: Digits) -> Figure:
    """From one test digit to another: by blending pixels, and on a straight line through each latent space."""
    pairs, steps = next(iter(results.values())).pictures.interpolations.shape[:2]
    half = len(digits.images) // 2
    weights = np.linspace(0, 1, steps)[:, None, None]
    columns = min(2, max(1, pairs))
    rows = -(-max(1, pairs) // columns)
    size = (4.4 * columns, (0.42 * (1 + len(results)) + 0.2) * rows + 0.4)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.flat:
        ax.axis("off")
    for pair, ax in zip(range(pairs), axes.flat, strict=False):
        blend = digits.images[pair] * (1 - weights) + digits.images[half + pair] * weights
        ax.axis("on")
        lines = [blend, *(result.pictures.interpolations[pair] for result in results.values())]
        show_rows(ax, np.stack(lines), ["pixels", *results])
    figure.suptitle("Between two test digits: blending their pixels, and decoding the way between their codes")
    return figure


def draw_traversals(results: dict[str, Result]) -> Figure:
    """The decoder's answer to one latent dimension at a time, a row each, around the mean code."""
    figure = draw_mosaics({name: result.pictures.traversals for name, result in results.items()}, 2.4)
    for ax in figure.axes:
        ax.set_xlabel(f"−{TRAVERSAL} to +{TRAVERSAL} standard deviations")
    figure.axes[0].set_ylabel("most varied first")
    figure.suptitle("What each latent dimension does: all others at their means")
    return figure


def draw_samples(results: dict[str, Result], classes: int) -> Figure:
    """Digits that no one wrote, a row per class: decoded from a Gaussian fitted to the codes of the class.

    Those of variational models are decoded from the prior and have no class.
    """
    titles = {name: f"{name}: from the prior" if result.variational else name for name, result in results.items()}
    figure = draw_mosaics({titles[name]: result.pictures.samples[:classes] for name, result in results.items()}, 3.2)
    figure.suptitle("Generated digits, a row per class; those from a prior have no class")
    return figure


def draw_mosaics(pictures: dict[str, Floats], height: float) -> Figure:
    """Mosaics of pictures [rows, columns, height, width] by title, side by side. height: of the figure, in inches."""
    size = (2.6 * len(pictures), height)
    figure, axes = plt.subplots(1, len(pictures), figsize=size, squeeze=False, layout="constrained")
    for ax, (title, of_title) in zip(axes[0], pictures.items(), strict=True):
        show(ax, mosaic(of_title), **GREY)
        ax.set_title(title)
    return figure
