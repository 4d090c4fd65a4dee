"""Is one model really better than another? Paired differences on the test images.

The intervals show how far the result depends on which digits happen to be in the test
set. They say nothing about another seed or another training run.
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np

from stages.core.arrays import Float64, Floats
from stages.core.evaluation import Evaluation, Result

PERCENTILES = (2.5, 97.5)  # the ends of a 95 % interval


class Comparison(NamedTuple):
    """How the squared errors of a model compare with those of an opponent on the same images.

    Each interval is the bootstrap's percentile interval of 95 %.
    """

    model: str  # to display
    opponent: str
    ratio: float  # of the mean errors, below 1 if the first is better
    ratio_low: float
    ratio_high: float
    difference: float  # of the mean errors, in their unit, below 0 if the first is better
    difference_low: float
    difference_high: float
    wins: float  # share of images on which the first is strictly better, 0 to 1


def compare_results(model: Result, opponent: Result, resamples: int, seed: int) -> Comparison:
    """Compare the squared errors of two results on the same test images."""
    errors, others = model.squared_error, opponent.squared_error
    means, other_means = bootstrap_means(np.stack([errors, others], axis=1), resamples, seed).T
    ratio_low, ratio_high = np.percentile(means / other_means, PERCENTILES)
    difference_low, difference_high = np.percentile(means - other_means, PERCENTILES)
    return Comparison(
        model=model.name,
        opponent=opponent.name,
        ratio=float(errors.mean() / others.mean()),
        ratio_low=float(ratio_low),
        ratio_high=float(ratio_high),
        difference=float((errors - others).mean()),
        difference_low=float(difference_low),
        difference_high=float(difference_high),
        wins=float((errors < others).mean()),
    )


def compare_all(evaluations: dict[str, Evaluation], resamples: int, seed: int) -> list[Comparison]:
    """Compare every later model of params.yaml with every earlier one, and each model with its baselines."""
    models = [e.model for e in evaluations.values()]
    pairs = [(later, earlier) for earlier, later in combinations(models, 2)]
    pairs += [(e.model, baseline) for e in evaluations.values() for baseline in e.baselines]
    return [compare_results(model, opponent, resamples, seed) for model, opponent in pairs]


def bootstrap_means(values: Floats, resamples: int, seed: int) -> Float64:
    """Means of `values` float [images, columns] over images drawn with replacement: float64 [resamples, columns].

    Each resample has as many images as there are, the same for all columns, so that
    differences between columns are paired (B. Efron, "Bootstrap methods", 1979).
    """
    random, count = np.random.default_rng(seed), len(values)
    # Counting how often each image was drawn is faster than gathering the drawn rows.
    times_drawn = (np.bincount(random.integers(count, size=count), minlength=count) for _ in range(resamples))
    return np.stack([times @ values for times in times_drawn]) / count
