"""Draw what the models do: reconstructions, latent spaces, generated digits, losses and errors.

    python -m stages.figures

Reads data/evaluation/<name>.npz of every model in params.yaml and metrics/comparison.json,
and writes plots/<figure>.png, one for each function draw_<figure> here, and
plots/losses.csv, the long table behind the interactive chart of `dvc plots show`. Needs no
TensorFlow; four seconds.

Every draw function takes evaluations by the name to show, as files.with_baselines or
{"deep": files.read_evaluation("deep")} gives them, and returns a Matplotlib figure.
Pictures are float [..., height, width], black 0 and white 1; errors are squared errors
summed over the pixels of an image.
"""

import json
from collections.abc import Iterable
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # before pyplot: stages run without a screen
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stages import files
from stages.errors import StageError, run
from stages.files import Evaluation
from stages.measures import code_moments, fit_pca
from stages.params import read_params, refuse_arguments, stage_arguments

Evaluations = dict[str, Evaluation]

PLOTS = Path("plots")
# Okabe and Ito's palette, distinguishable with any colour vision (M. Okabe, K. Ito, "Color Universal
# Design", 2008); the charts in .dvc/plots/ hold the same list, so a model keeps its colour everywhere.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BASELINE_COLOURS = ("#8C8C8C", "#B8B8B8", "#5C5C5C")
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with Matplotlib, so every machine draws the same
    "font.size": 9,
    "axes.titlesize": 9,
    "figure.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}
GREY: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1}
SIGNED: dict[str, Any] = {"cmap": "RdBu", "vmin": -1, "vmax": 1}  # red too dark, blue too bright


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for every name: the palette's in the order of params.yaml, greys for PCA."""
    greys, palette = cycle(BASELINE_COLOURS), cycle(COLOURS)
    return {name: next(greys if name.startswith("PCA") else palette) for name in names}


def mosaic(pictures: np.ndarray, gap: float = 1.0) -> np.ndarray:
    """Pictures [rows, columns, height, width] as one, with a pixel of brightness `gap` between neighbours."""
    padded = np.pad(pictures, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=gap)
    rows, columns, height, width = padded.shape
    return padded.swapaxes(1, 2).reshape(rows * height, columns * width)[:-1, :-1]


def show(ax: Axes, picture: np.ndarray, **options: Any) -> None:
    """A picture [height, width] without axes, each of its pixels a square."""
    ax.imshow(picture, interpolation="nearest", **options)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def draw_reconstructions(evaluations: Evaluations, classes: int) -> Figure:
    """The first test image of each class, what each model gives back, and the difference.

    Under each reconstruction stands its error, at the left the mean over all test images.
    """
    first = next(iter(evaluations.values()))
    shown, images = first["shown"][:classes], first["images"][:classes]
    rows: list[tuple[str, np.ndarray, np.ndarray | None, dict[str, Any]]] = [("original", images, None, GREY)]
    for name, e in evaluations.items():
        pictures, errors = e["reconstructions"][:classes], e["squared_error"]
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


def draw_extremes(evaluations: Evaluations) -> Figure:
    """The test images with each model's smallest, median and largest errors, above their reconstructions."""
    kinds = ("best", "median", "worst")
    size = (2.5 * len(evaluations), 4.2)
    figure, axes = plt.subplots(len(kinds), len(evaluations), figsize=size, squeeze=False, layout="constrained")
    for column, (name, e) in zip(axes.T, evaluations.items(), strict=True):
        for ax, kind, positions, images, pictures in zip(
            column, kinds, e["extremes"], e["extreme_images"], e["extreme_reconstructions"], strict=True
        ):
            show(ax, mosaic(np.stack([images, pictures])), **GREY)
            errors = e["squared_error"][positions]
            span = f"{errors.min():.1f}" if np.ptp(errors) < 0.05 else f"{errors.min():.1f} to {errors.max():.1f}"
            ax.set_title(f"{name}, {kind}: {span}")
    figure.suptitle("Best, median and worst test digits above their reconstructions, with squared errors")
    return figure


def planar(codes: np.ndarray) -> tuple[np.ndarray, float]:
    """Codes float [images, latent_dim] on their two principal components [images, 2], and the share of variance there.

    A code of one number lies on a line.
    """
    moments = code_moments(codes)
    flat = fit_pca(moments, 2).encode(codes)
    total = np.trace(moments.covariance)
    share = flat.var(axis=0).sum() / total if total > 0 else 1.0
    return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1]))), share


def draw_latent_space(evaluations: Evaluations) -> Figure:
    """The codes of all test images on their two principal components, coloured by class, labels at class means."""
    size = (3.1 * len(evaluations), 3.6)
    figure, axes = plt.subplots(1, len(evaluations), figsize=size, squeeze=False, layout="constrained")
    for ax, (name, e) in zip(axes[0], evaluations.items(), strict=True):
        points, share = planar(e["codes"])
        labels = np.unique(e["labels"])
        few = len(labels) <= 10
        palette = matplotlib.colormaps["tab10" if few else "gist_rainbow"]
        for index, label in enumerate(labels):
            colour = palette(index if few else index / len(labels))
            x, y = points[e["labels"] == label].T
            ax.scatter(x, y, s=3, color=colour, alpha=0.35, linewidths=0, label=str(label))
            halo = {"boxstyle": "circle,pad=0.2", "facecolor": "white", "edgecolor": colour, "linewidth": 1.2}
            ax.text(x.mean(), y.mean(), str(label), ha="center", va="center", fontsize=8, bbox=halo)
        ax.set_title(f"{name}: {share:.0%} of the variance")
        ax.set(xticks=[], yticks=[], xlabel="first component", ylabel="second component")
    handles, names = axes[0, 0].get_legend_handles_labels()
    legend = figure.legend(handles, names, ncols=min(20, len(names)), loc="outside lower center", markerscale=4)
    for handle in legend.legend_handles:
        plt.setp(handle, alpha=1)
    figure.suptitle("Codes of the test digits on their two principal components; labels at the class means")
    return figure


def draw_interpolations(evaluations: Evaluations) -> Figure:
    """From one test digit to another: by blending pixels, and on a straight line through each latent space."""
    first = next(iter(evaluations.values()))
    pairs, steps = first["interpolations"].shape[:2]
    half = len(first["images"]) // 2
    weights = np.linspace(0, 1, steps)[:, None, None]
    columns = min(2, max(1, pairs))
    rows = -(-max(1, pairs) // columns)
    size = (4.4 * columns, (0.42 * (1 + len(evaluations)) + 0.2) * rows + 0.4)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.flat:
        ax.axis("off")
    for pair, ax in zip(range(pairs), axes.flat, strict=False):
        blend = first["images"][pair] * (1 - weights) + first["images"][half + pair] * weights
        lines = {"pixels": blend} | {name: e["interpolations"][pair] for name, e in evaluations.items()}
        ax.axis("on")
        show(ax, mosaic(np.stack(list(lines.values()))), **GREY)
        height = blend.shape[1] + 1
        ax.set_yticks([height * (row + 0.5) for row in range(len(lines))], list(lines))
        ax.tick_params(length=0)
    figure.suptitle("Between two test digits: blending their pixels, and decoding the way between their codes")
    return figure


def draw_traversals(evaluations: Evaluations) -> Figure:
    """The decoder's answer to one latent dimension at a time, a row each, around the mean code."""
    size = (2.6 * len(evaluations), 5.0)
    figure, axes = plt.subplots(1, len(evaluations), figsize=size, squeeze=False, layout="constrained")
    for ax, (name, e) in zip(axes[0], evaluations.items(), strict=True):
        show(ax, mosaic(e["traversals"]), **GREY)
        ax.set_title(name)
        ax.set_xlabel("−2.5 to +2.5 standard deviations")
    axes[0, 0].set_ylabel("latent dimension, the most varied first")
    figure.suptitle("What each latent dimension does: all others at their means")
    return figure


def draw_samples(evaluations: Evaluations, classes: int) -> Figure:
    """Digits that no one wrote, a row per class: decoded from a Gaussian fitted to the codes of the class."""
    size = (2.6 * len(evaluations), 3.2)
    figure, axes = plt.subplots(1, len(evaluations), figsize=size, squeeze=False, layout="constrained")
    for ax, (name, e) in zip(axes[0], evaluations.items(), strict=True):
        show(ax, mosaic(e["samples"][:classes]), **GREY)
        ax.set_title(f"{name}: {float(e['generation_accuracy']):.1%} of the class")
    figure.suptitle("Generated digits, a row per class, and how often their nearest training digit is of that class")
    return figure


def draw_errors(evaluations: Evaluations, comparison: dict[str, dict[str, float]]) -> Figure:
    """How the errors of the test images are distributed, a curve per model, medians dashed.

    comparison: as compare wrote it; the ratios and their intervals stand in the picture.
    """
    errors = {name: e["squared_error"] for name, e in evaluations.items()}
    everything = np.concatenate(list(errors.values()))
    low, high = max(everything.min(), 1e-3), max(everything.max(), 2e-3)
    bins = np.geomspace(low * 0.9, high * 1.1, 81)
    figure, ax = plt.subplots(figsize=(9.2, 3.6), layout="constrained")
    for name, colour in colours(errors).items():
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
        f"{pair.replace('_vs_', ' / ')}: {row['ratio']:.3f} ({row['ratio_low']:.3f}–{row['ratio_high']:.3f}), "
        f"better on {row['wins']:.1%}"
        for pair, row in comparison.items()
    ]
    title = "\n".join(["ratio of mean errors (95 % interval)", *lines, ""])
    figure.legend(loc="outside right upper", title=title, title_fontsize=7)
    ax.set_title("Error of each test digit", fontsize=10, loc="left")
    return figure


def draw_weights(evaluations: Evaluations) -> Figure:
    """What each latent unit of the shallow encoders looks for, next to PCA's components.

    Weights times the standard deviation of their pixel, each picture scaled to its own
    largest value. Encoders with hidden layers have none to show.
    """
    visible = {name: e["weights"] for name, e in evaluations.items() if len(e["weights"])}
    columns = max(1, len(visible))  # none at all, and the figure says so
    figure, axes = plt.subplots(1, columns, figsize=(2.6 * columns, 3.2), squeeze=False, layout="constrained")
    if not visible:
        axes[0, 0].text(0.5, 0.5, "no shallow encoder", ha="center")
        axes[0, 0].set_axis_off()
    for ax, (name, weights) in zip(axes[0], visible.items(), strict=False):
        largest = np.abs(weights).max(axis=(1, 2), keepdims=True)
        scaled = weights / np.where(largest > 0, largest, 1)
        side = int(np.ceil(np.sqrt(len(scaled))))
        filled = np.pad(scaled, ((0, -len(scaled) % side), (0, 0), (0, 0)))
        show(ax, mosaic(filled.reshape(-1, side, *filled.shape[1:]), gap=np.nan), **SIGNED)
        ax.set_title(name)
    figure.suptitle("Weights of the latent units, times how much the pixel varies: blue positive, red negative")
    return figure


def draw_losses(histories: pd.DataFrame, loss_names: dict[str, str]) -> Figure:
    """Loss against epoch: colour by model, training solid, validation dashed.

    histories: the columns epoch, model, series ("train" or "validation"), loss.
    loss_names: the loss that each model minimises; curves of different losses don't compare.
    """
    figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
    names = list(loss_names)
    same = len(set(loss_names.values())) == 1
    for name, colour in colours(names).items():
        for series, dashes in (("train", "-"), ("validation", (0, (4, 2)))):
            curve = histories[(histories["model"] == name) & (histories["series"] == series)]
            label = f"{name}, {series}" if same else f"{name}, {series} ({loss_names[name]})"
            marker = "o" if len(curve) == 1 else None  # a line needs two points
            ax.plot(curve["epoch"], curve["loss"], color=colour, linestyle=dashes, marker=marker, label=label)
    ax.set_xlabel("epoch")
    ax.set_ylabel(loss_names[names[0]].replace("_", " ") if same else "loss")
    ax.set_title("Loss per epoch", fontsize=10, loc="left")
    ax.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True))
    ax.set_xlim(left=0)
    ax.legend()
    return figure


def draw_mse_per_class(evaluations: Evaluations, classes: int) -> Figure:
    """Bars of each model's mean squared error per pixel over the test images of each class."""
    first = next(iter(evaluations.values()))
    labels, pixels = first["labels"], first["images"][0].size
    shown = np.unique(labels)[:classes]
    figure, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
    width = 0.8 / len(evaluations)
    for index, (name, colour) in enumerate(colours(evaluations).items()):
        errors = evaluations[name]["squared_error"]
        heights = [errors[labels == label].mean() / pixels for label in shown]
        offsets = np.arange(len(shown)) + (index - (len(evaluations) - 1) / 2) * width
        ax.bar(offsets, heights, width * 0.92, color=colour, label=f"{name}, {errors.mean() / pixels:.4f} overall")
    ax.set_xticks(range(len(shown)), [str(label) for label in shown])
    ax.set_xlabel("class")
    ax.set_ylabel("MSE per pixel")
    ax.set_title("Test error per class", fontsize=10, loc="left")
    figure.legend(ncols=min(3, len(evaluations)), loc="outside lower center")
    return figure


def loss_table(evaluations: Evaluations) -> pd.DataFrame:
    """All histories as one long table: epoch, model, series ("train" or "validation"), loss."""
    tables = []
    for name, e in evaluations.items():
        for series, losses in (("train", e["loss"]), ("validation", e["val_loss"])):
            epochs = np.arange(1, len(losses) + 1)
            tables.append(pd.DataFrame({"epoch": epochs, "model": name, "series": series, "loss": losses}))
    return pd.concat(tables)


def png(figure: Figure, dpi: int) -> bytes:
    """The figure as PNG bytes that don't name the Matplotlib that drew it; closes the figure."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()


def read_comparison() -> dict[str, dict[str, float]]:
    """What the compare stage wrote. Raises StageError if the file is missing or broken."""
    path = files.metrics_path("comparison")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StageError(f"{path} is missing; run `dvc repro compare`.") from None
    except ValueError as error:
        raise StageError(f"{path} is not whole JSON ({error}); run `dvc repro compare`.") from None


def main() -> None:
    refuse_arguments(stage_arguments(__doc__))
    params = read_params()
    classes, dpi = params.figures.classes, params.figures.dpi
    models = {name: files.read_evaluation(name) for name in params.models}
    everything = files.with_baselines(models)
    losses = loss_table(models)
    loss_names = {name: s.loss + (" + code_l1" if s.code_l1 else "") for name, s in params.models.items()}
    with plt.rc_context(STYLE):
        figures = {
            "reconstructions": draw_reconstructions(everything, classes),
            "errors": draw_errors(everything, read_comparison()),
            "mse_per_class": draw_mse_per_class(everything, classes),
            "extremes": draw_extremes(everything),
            "latent_space": draw_latent_space(everything),
            "interpolations": draw_interpolations(everything),
            "traversals": draw_traversals(everything),
            "samples": draw_samples(everything, classes),
            "weights": draw_weights(everything),
            "losses": draw_losses(losses, loss_names),
        }
        pictures = {PLOTS / f"{name}.png": png(figure, dpi) for name, figure in figures.items()}
    table = losses.to_csv(index=False, float_format="%.9g", lineterminator="\n").encode()
    files.write_files({**pictures, PLOTS / "losses.csv": table})
    print(f"drew {', '.join(map(str, pictures))}")


if __name__ == "__main__":
    run(main)
