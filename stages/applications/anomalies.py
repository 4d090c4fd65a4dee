"""How unlike the training digits is a test digit? Scores, and how well they find classes missing from training.

A score is higher for what is less like the training images. None of them needs a label.
"""

import json
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from numpy.typing import NDArray

from stages.applications.charts import INK
from stages.core.arrays import Bytes, Float32, Float64, Floats
from stages.core.comparison import PERCENTILES
from stages.core.evaluation import BASELINE, Digits, Result
from stages.core.linear import Moments
from stages.core.measures import in_batches, scaled_batches
from stages.core.style import GREY, colours, mosaic, show
from stages.core.tables import interval, markdown

METRICS, FIGURE, REPORT = Path("metrics/anomalies.json"), Path("plots/anomalies.png"), Path("metrics/anomalies.md")
NEAREST_IMAGES = "nearest training images"  # a name that no model can have
NEAREST = 5  # of these
UNUSUAL = 10  # most and least anomalous digits in the figure
ALARM = "#D00000"
SMALLEST = float(np.finfo(np.float64).tiny)  # keeps the logarithm of a perfect reconstruction finite


def inverse_covariance(moments: Moments) -> Float64:
    """Inverse of the covariance of codes: float64 [latent_dim, latent_dim], 0 where they do not vary at all."""
    rounding = len(moments.mean) * np.finfo(np.float64).eps
    return np.linalg.pinv(moments.covariance, rounding, hermitian=True).astype(np.float64, copy=False)


def mahalanobis(codes: Floats, mean: Float64, inverse: Float64) -> Float64:
    """Squared Mahalanobis distance of codes float [images, latent_dim] from others of this mean: float64 [images].

    inverse: of their covariance, as `inverse_covariance` gives it. P. C. Mahalanobis, "On the generalised distance in
    statistics" (1936).
    """
    centred = codes - mean
    distances: Float64 = ((centred @ inverse) * centred).sum(axis=1).clip(0)
    return distances


def combined_score(errors: Float64, pixel_mass: Float64, distances: Float64) -> Float64:
    """Logarithm of squared error over pixel mass, plus half that of squared distance: float64 [images] each.

    pixel_mass: the sum of an image's pixels. What the code does not hold is in the error, what it holds in the
    distance. Errors grow with the pixel mass: without it a 1 of any kind would look familiar, and an 8 strange.
    Logarithms make the sum independent of the units of both.
    """
    error, amount, distance = (np.log(values.clip(SMALLEST)) for values in (errors, pixel_mass, distances))
    combined: Float64 = error - amount + distance / 2
    return combined


def scores(result: Result, pixel_mass: Float64) -> dict[str, Float64]:
    """The scores of the test images by name: float64 [test images] each. pixel_mass: of these images."""
    inverse = inverse_covariance(Moments(result.code_mean, result.code_covariance))
    distances = mahalanobis(result.codes, result.code_mean, inverse)
    errors = result.squared_error
    return {
        "error": errors,
        "error / ink": combined_score(errors, pixel_mass, np.ones_like(errors)),  # its logarithm: the same order
        "distance": distances,
        "combined": combined_score(errors, pixel_mass, distances),
    }


def nearest_scores(train: Bytes, test: Bytes, pixel_mass: Float64) -> dict[str, Float64]:
    """Scores that need no model: the mean squared distance of a test image from its NEAREST training images.

    train, test: uint8 [images, height, width]. pixel_mass: of the test images. Returns float64 [test images] by name.
    """
    from sklearn.metrics.pairwise import euclidean_distances  # takes a second to load, and the defaults need none

    known = train.reshape(len(train), -1)

    def mean_distance(images: Float32) -> Float64:
        nearest = np.empty((len(images), 0), np.float32)
        for block in scaled_batches(known):
            distances = np.hstack([nearest, euclidean_distances(images, block, squared=True)])
            kept = min(NEAREST, distances.shape[1])
            nearest = np.partition(distances, kept - 1)[:, :kept].copy()
        means: Float64 = np.sort(nearest).mean(axis=1, dtype=np.float64)
        return means

    error = in_batches(mean_distance, test.reshape(len(test), -1))
    return {"error": error, "error / ink": combined_score(error, pixel_mass, np.ones_like(error))}


def of_missing_class(digits: Digits) -> NDArray[np.bool_]:
    """Which test images are of a class that training never saw: bool [test images]."""
    return ~np.isin(digits.labels, digits.trained)


def missing_classes(digits: Digits) -> list[int]:
    """The classes of the test images that training never saw, ascending."""
    found: list[int] = np.setdiff1d(digits.labels, digits.trained).tolist()
    return found


def auroc(anomalous: NDArray[np.bool_], values: Float64) -> float:
    """Area under the ROC curve: how often an anomalous image scores higher than another one, ties counting half.

    anomalous: bool [images], of both kinds. values: float64 [images].
    """
    from sklearn.metrics import roc_auc_score  # takes a second to load, and the defaults need none

    return float(roc_auc_score(anomalous, values))


def bootstrap_aurocs(anomalous: NDArray[np.bool_], columns: Float64, resamples: int, seed: int) -> Float64:
    """The area of `columns` float64 [images, scores] over images drawn with replacement: float64 [resamples, scores].

    Each resample has as many images of either kind as there are, so that no curve lacks one, and
    the same images for all scores, so that differences between scores are paired.
    """
    random = np.random.default_rng(seed)
    kinds = [np.flatnonzero(~anomalous), np.flatnonzero(anomalous)]
    ranks = [np.unique(column, return_inverse=True)[1] for column in columns.T]
    areas = np.empty((resamples, len(ranks)))
    for row in areas:
        normal, other = (kind[random.integers(len(kind), size=len(kind))] for kind in kinds)
        for index, rank in enumerate(ranks):  # counting ranks is faster than scikit-learn, which sorts each resample
            below, at = (np.bincount(rank[drawn], minlength=rank.max() + 1) for drawn in (normal, other))
            row[index] = at @ (np.cumsum(below) - below / 2) / (len(normal) * len(other))
    return areas


class Area(NamedTuple):
    """An area under the ROC curve, with the bootstrap's percentile interval of 95 %."""

    auroc: float
    low: float
    high: float


Scores = dict[str, dict[str, Float64]]  # by display name of a result, then by name of a score


def compare_aurocs(scored: Scores, digits: Digits, resamples: int, seed: int) -> dict[str, dict[str, Area]]:
    """The areas of every result and score, by their names; empty if training lacked no class of the test images."""
    anomalous = of_missing_class(digits)
    if not anomalous.any():
        return {}
    named = {(name, score): values for name, of in scored.items() for score, values in of.items()}
    drawn = bootstrap_aurocs(anomalous, np.stack(list(named.values()), axis=1), resamples, seed)
    areas: dict[str, dict[str, Area]] = {name: {} for name in scored}
    for ((name, score), values), ends in zip(named.items(), np.percentile(drawn, PERCENTILES, axis=0).T, strict=True):
        areas[name][score] = Area(auroc(anomalous, values), *map(float, ends))
    return areas


def main_area(of: dict[str, Area]) -> Area:
    """The area of the combined score, or of the error over ink where there is no code."""
    return of.get("combined", of["error / ink"])


def metrics_json(areas: dict[str, dict[str, Area]]) -> bytes:
    """The row of `dvc metrics show`: the main area of each method, six significant digits."""
    row = {name: float(f"{main_area(of).auroc:.6g}") for name, of in areas.items()}
    return (json.dumps({"auroc": row}, indent=2) + "\n").encode()


def report(areas: dict[str, dict[str, Area]], missing: list[int]) -> str:
    """How well the classes that are missing from training are found, in Markdown."""
    if not areas:
        return """\
# Anomalies

Training lacks no class, so there is none to find. [docs/anomalies.md](../docs/anomalies.md) shows how
to leave one out.
"""
    names = list(next(iter(areas.values())))
    rows = [[method, *(interval(*of[name]) if name in of else "–" for name in names)] for method, of in areas.items()]
    return f"""\
# Anomalies

Missing from training: {", ".join(map(str, missing))}. Area under the ROC curve of finding their test images
by four scores, with 95 % intervals. [docs/anomalies.md](../docs/anomalies.md) explains the scores. The error of the
{NEAREST_IMAGES} is the mean squared distance from {NEAREST} of them.

{markdown(["", *(f"`{name}`" for name in names)], rows)}
"""


def draw_anomalies(results: dict[str, Result], scored: Scores, digits: Digits, images: Bytes) -> Figure:
    """ROC curves of the classes that are missing from training, and each result's most and least anomalous test digits.

    The class of a digit is below it, red if training lacks it. Without a missing class there is no curve.
    images: uint8 [test images, height, width].
    """
    anomalous = of_missing_class(digits)
    curves = [3.6] if anomalous.any() else []
    heights = [*curves, *[1.0] * len(results)]
    figure = plt.figure(figsize=(9.2, 0.74 * sum(heights) + 0.4), layout="constrained")
    grid = figure.add_gridspec(len(heights), 12, height_ratios=heights)
    if curves:
        draw_curves(figure, grid, results, scored, anomalous)
    for row, name in enumerate(results, len(curves)):
        order = np.argsort(scored[name]["combined"], kind="stable")
        for side, (kind, positions) in enumerate({"most": order[::-1][:UNUSUAL], "least": order[:UNUSUAL]}.items()):
            ax = figure.add_subplot(grid[row, 6 * side : 6 * side + 6])
            draw_row(ax, images[positions], [str(label) for label in digits.labels[positions]])
            for tick, alarming in zip(ax.get_xticklabels(), anomalous[positions], strict=True):
                tick.set_color(ALARM if alarming else INK)
            ax.set_title(f"{name}, {kind} anomalous")
    red = "; red: classes missing from training" if anomalous.any() else ""
    figure.suptitle(f"Test digits unlike the training digits, by their combined score{red}")
    return figure


def draw_curves(
    figure: Figure, grid: GridSpec, results: dict[str, Result], scored: Scores, anomalous: NDArray[np.bool_]
) -> None:
    """A ROC curve per result, in a chart per score."""
    from sklearn.metrics import roc_curve  # takes a second to load, and the defaults need none

    palette = colours(results, [name for name, result in results.items() if result.kind == BASELINE])
    for column, score in enumerate(next(iter(scored.values()))):
        ax = figure.add_subplot(grid[0, 3 * column : 3 * column + 3])
        for name, colour in palette.items():
            values = scored[name][score]
            false_alarms, found, _ = roc_curve(anomalous, values)
            ax.plot(false_alarms, found, color=colour, label=f"{name}, {auroc(anomalous, values):.3f}")
        ax.plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=0.8)
        ax.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
        ax.set_title(f"score: {score}")
        ax.legend(title="AUROC", loc="lower right", fontsize=6, title_fontsize=6)


def draw_row(ax: Axes, pictures: Bytes, labels: list[str]) -> None:
    """Pictures uint8 [images, height, width] in a row, each with its label below."""
    show(ax, mosaic(pictures[None] / 255), **GREY)
    width = pictures.shape[2] + 1
    ax.set_xticks([width * (column + 0.5) - 1 for column in range(len(pictures))], labels)
    ax.tick_params(length=0, pad=1, labelsize=7)
