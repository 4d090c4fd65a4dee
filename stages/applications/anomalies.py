"""Telling digits of classes that training never saw from those of the trained classes.

A score is higher for what is less like the training images. None of them needs a label.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.core.arrays import Float64, Floats
from stages.core.comparison import PERCENTILES
from stages.core.evaluation import Digits, Result
from stages.core.linear import Moments

SMALLEST = float(np.finfo(np.float64).tiny)  # keeps the logarithm of a perfect reconstruction finite


def inverse_covariance(moments: Moments) -> Float64:
    """Inverse of the covariance of codes: float64 [latent_dim, latent_dim], 0 where they do not vary at all."""
    rounding = len(moments.mean) * np.finfo(np.float64).eps
    return np.linalg.pinv(moments.covariance, rounding, hermitian=True).astype(np.float64, copy=False)


def squared_distances(codes: Floats, mean: Float64, inverse: Float64) -> Float64:
    """Squared Mahalanobis distance of codes float [images, latent_dim] from others of this mean: float64 [images].

    inverse: of their covariance, as `inverse_covariance` gives it. P. C. Mahalanobis, "On the generalised distance in
    statistics" (1936).
    """
    centred = codes - mean
    distances: Float64 = ((centred @ inverse) * centred).sum(axis=1).clip(0)
    return distances


def combined_score(errors: Float64, ink: Float64, distances: Float64) -> Float64:
    """Logarithm of the squared error over the ink, plus half that of the squared distance: float64 [images] each.

    ink: the sum of an image's pixels. What the code does not hold is in the error, what it holds in the
    distance. Errors grow with the ink: without it a 1 of any kind would look familiar, and an 8 strange.
    Logarithms make the sum independent of the units of both.
    """
    error, amount, distance = (np.log(values.clip(SMALLEST)) for values in (errors, ink, distances))
    combined: Float64 = error - amount + distance / 2
    return combined


def scores(result: Result) -> dict[str, Float64]:
    """The scores of the test images by name: float64 [test images] each."""
    return {
        "error": result.squared_error,
        "distance": result.distance,
        "combined": result.combined,
    }


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


def compare_aurocs(results: dict[str, Result], digits: Digits, resamples: int, seed: int) -> dict[str, dict[str, Area]]:
    """The areas of every result and score, by their names; empty if training lacked no class of the test images."""
    anomalous = of_missing_class(digits)
    if not anomalous.any():
        return {}
    named = {(name, score): values for name, result in results.items() for score, values in scores(result).items()}
    drawn = bootstrap_aurocs(anomalous, np.stack(list(named.values()), axis=1), resamples, seed)
    areas: dict[str, dict[str, Area]] = {name: {} for name in results}
    for ((name, score), values), ends in zip(named.items(), np.percentile(drawn, PERCENTILES, axis=0).T, strict=True):
        areas[name][score] = Area(auroc(anomalous, values), *map(float, ends))
    return areas
