"""What models are good for: digits unlike the training images, removed noise, and classes from few labels."""

from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from stages.applications.anomalies import auroc, of_missing_class, scores
from stages.applications.denoising import Denoised
from stages.applications.generation import Floor, Generation
from stages.applications.labels import CLASSIFIERS, UNTRAINED
from stages.core.arrays import Float32
from stages.core.evaluation import Digits, Result
from stages.core.style import GREY, colours, mosaic, show, show_rows

INK, ALARM = "#222222", "#D00000"
DASHES = (":", "--", "-.", (0, (6, 1, 1, 1, 1, 1)))  # of the methods that are neither a model nor PCA


def draw_anomalies(results: dict[str, Result], digits: Digits) -> Figure:
    """ROC curves of telling classes that training never saw, and each model's most and least anomalous test digits.

    The class of a digit is below it, red if training never saw it. Where no class is missing there is no curve.
    """
    anomalous = of_missing_class(digits)
    heights = [5.0 if anomalous.any() else 0.5, *[1.0] * len(results)]
    figure = plt.figure(figsize=(9.2, 0.74 * sum(heights) + 0.4), layout="constrained")
    grid = figure.add_gridspec(len(heights), 6, height_ratios=heights)
    if anomalous.any():
        from sklearn.metrics import roc_curve  # takes a second to load, and the defaults need none

        for column, score in enumerate(scores(next(iter(results.values())))):
            ax = figure.add_subplot(grid[0, 2 * column : 2 * column + 2])
            for name, colour in colours(results).items():
                values = scores(results[name])[score]
                false_alarms, found, _ = roc_curve(anomalous, values)
                ax.plot(false_alarms, found, color=colour, label=f"{name}, {auroc(anomalous, values):.3f}")
            ax.plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=0.8)
            ax.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
            ax.set_title(f"score: {score}")
            ax.legend(title="AUROC", loc="lower right", fontsize=7, title_fontsize=7)
    else:
        ax = figure.add_subplot(grid[0, :])
        ax.text(0.5, 0.5, "no class is missing from training, so there is no ROC curve", ha="center", va="center")
        ax.set_axis_off()
    for row, (name, result) in enumerate(results.items(), 1):
        for side, kind in enumerate(("most", "least")):
            ax = figure.add_subplot(grid[row, 3 * side : 3 * side + 3])
            positions = result.unusual[side]
            draw_row(ax, result.unusual_images[side], [str(label) for label in digits.labels[positions]])
            for tick, alarming in zip(ax.get_xticklabels(), anomalous[positions], strict=True):
                tick.set_color(ALARM if alarming else INK)
            ax.set_title(f"{name}, {kind} anomalous")
    red = "; in red the classes that training never saw" if anomalous.any() else ""
    figure.suptitle(f"Test digits unlike the training digits, by their combined score{red}")
    return figure


def draw_row(ax: Axes, pictures: Float32, labels: list[str]) -> None:
    """Pictures [images, height, width] side by side, each with its label below."""
    show(ax, mosaic(pictures[None]), **GREY)
    width = pictures.shape[2] + 1
    ax.set_xticks([width * (column + 0.5) - 1 for column in range(len(pictures))], labels)
    ax.tick_params(length=0, pad=1, labelsize=7)


def draw_denoising(images: Float32, denoised: dict[str, Denoised], table: pd.DataFrame) -> Figure:
    """Digits, noisy and as each method gives them back, beside PSNR against the noise.

    images: float32 [images, height, width], without noise. denoised: the noisy images first, the
    models last. table: as `tables.denoising_table` has it. The digits have the middle one of its noises.
    """
    noise = np.sort(table["noise"].unique())
    level = len(noise) // 2
    at = list(dict.fromkeys(table["noise"])).index(noise[level])
    names, rows = ["original", *denoised], [images, *(method.pictures[at] for method in denoised.values())]
    figure, (ax, chart) = plt.subplots(1, 2, figsize=(9.6, 4.1), layout="constrained", width_ratios=(1, 1.25))
    show_rows(ax, np.stack(rows), names)
    ax.set_title(f"noise of standard deviation {noise[level]:g}")

    models = list(dict.fromkeys(table["method"][table["kind"] == "model"]))
    palette, dashes = colours([name for name in denoised if name in models or name.startswith("PCA")]), cycle(DASHES)
    for name in denoised:
        curve = table[table["method"] == name].sort_values("noise")
        ends = [curve["psnr"] - curve["psnr_low"], curve["psnr_high"] - curve["psnr"]]
        style = {"color": palette[name]} if name in palette else {"color": INK, "linestyle": next(dashes)}
        chart.errorbar(curve["noise"], curve["psnr"], ends, marker="o", markersize=3, capsize=2, label=name, **style)
    chart.set_xticks(noise, [f"{deviation:g}" for deviation in noise])
    chart.set_xlabel("standard deviation of the noise")
    chart.set_ylabel("PSNR in dB, with 95 % intervals")
    chart.set_title("higher is nearer to the original", loc="left")
    name_lines(chart, fontsize=8)
    figure.suptitle("Noisy test digits, and what each method gives back")
    return figure


def draw_labels(table: pd.DataFrame) -> Figure:
    """Accuracy against the number of labels for both classifiers, and the precision of retrieval.

    table: as `tables.labels_table` has it. An untrained encoder has its model's colour, with dashes.
    """
    names = list(dict.fromkeys(table["method"]))
    models = list(dict.fromkeys(table["method"][table["kind"] == "model"]))
    palette = colours([name for name in names if name in models or name.startswith("PCA")])
    inks = [palette.get(name.removeprefix(UNTRAINED), INK) for name in names]
    dashes = ["-" if name in palette else "--" if name.startswith(UNTRAINED) else ":" for name in names]
    figure, (*charts, bars) = plt.subplots(1, 3, figsize=(9.6, 3.8), layout="constrained")
    for ax, (classifier, title) in zip(charts, CLASSIFIERS.items(), strict=True):
        for name, ink, dash in zip(names, inks, dashes, strict=True):
            rows = table[table["method"] == name]
            style = {"color": ink, "linestyle": dash, "marker": "o", "markersize": 3, "capsize": 2}
            ax.errorbar(rows["labels"], rows[classifier], rows[f"{classifier}_std"], label=name, **style)
        numbers = np.sort(table["labels"].unique())
        ax.set_xscale("log")
        ax.set_xticks(numbers, [f"{number:,}" for number in numbers])
        ax.minorticks_off()
        ax.set(xlabel="labelled images", ylabel="accuracy", ylim=(0, 1))
        ax.set_title(title, loc="left")
    name_lines(charts[0], fontsize=7, loc="lower right")
    found = table.drop_duplicates("method")
    ends = [found["precision"] - found["precision_low"], found["precision_high"] - found["precision"]]
    drawn = bars.barh(names, found["precision"], xerr=ends, color=inks, capsize=2, error_kw={"linewidth": 0.8})
    for bar, dash in zip(drawn, dashes, strict=True):
        bar.set_alpha(1 if dash == "-" else 0.5)
    bars.invert_yaxis()
    bars.set(xlabel="precision at 10, with 95 % intervals", xlim=(0, 1))
    bars.set_title("search for images of the same class", loc="left")
    figure.suptitle("Classes of test digits from few labels; bars on the curves: one standard deviation over draws")
    return figure


def name_lines(ax: Axes, **options: Any) -> None:
    """A legend of lines with error bars, that shows of each as much line as tells dashes apart, and no bar."""
    drawn = [container for container in ax.containers if isinstance(container, ErrorbarContainer)]
    names = [str(container.get_label()) for container in drawn]
    ax.legend([container.lines[0] for container in drawn], names, handlelength=4, **options)


def draw_generation(floor: Floor, generations: dict[str, Generation]) -> Figure:
    """Real digits, and below them what each model generates, a row per method, with how good all of its digits are."""
    pictures, names, measures = [], [], []
    for name, generation in [("real", floor.real), *generations.items()]:
        for index, method in enumerate(generation.methods):
            pictures.append(generation.pictures[index])
            names.append(f"{name}: {method}")
            distance, accuracy = generation.frechet[index].mean(), generation.accuracy[index].mean()
            measures.append(f"{distance:.3g}, {accuracy:.1%}")
    figure, ax = plt.subplots(figsize=(9.6, 0.34 * len(names) + 0.6), layout="constrained")
    show_rows(ax, np.stack(pictures), names)
    right = ax.secondary_yaxis("right")
    right.set_yticks(ax.get_yticks(), measures)
    right.spines[:].set_visible(False)
    right.tick_params(length=0)
    figure.suptitle("Generated digits; right: Fréchet distance, and accuracy of what learned from them")
    return figure
