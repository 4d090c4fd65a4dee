"""Few labels: which images have one, and the records of what can be done with them.

Every method gets the same training images, the candidates, of which a few have a label, and classifies the
same test images.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from stages.applications.schema import Apply
from stages.core.arrays import Bytes, Float64, Int64
from stages.core.files import Split, read_split

NEAREST = 10  # candidates that are retrieved for a query
PIXELS, UNTRAINED = "all pixels", "untrained "  # to show, the latter before a model's name; no model can have them
CLASSIFIERS = {"logistic": "logistic regression", "neighbours": "k-nearest neighbours"}  # fields of Classified, names


class Task(NamedTuple):
    """Which images have a label, and which are to be classified and searched for."""

    candidates: Split  # training images
    queries: Split  # test images of the classes that were trained on
    draws: list[Int64]  # [candidates] each, its positions; labels are given from the first one on
    numbers: Int64  # [numbers], of labels, ascending


@dataclass(frozen=True, eq=False)
class Classified:
    """What one kind of features does with few labels."""

    logistic: Float64  # [numbers, draws], accuracy of logistic regression on the queries
    neighbours: Float64  # [numbers, draws], accuracy of k-nearest neighbours
    precision: Float64  # [queries], share of the NEAREST candidates that are of the query's class


@dataclass(frozen=True, eq=False)
class CodeLabels:
    """Few labels on a model's codes, beside PCA of its latent size and the same encoder before any training."""

    numbers: Int64  # [numbers], of labels, ascending
    model: Classified
    pca: Classified
    untrained: Classified


@dataclass(frozen=True, eq=False)
class PixelLabels:
    """What does not depend on a model: the numbers of labels, and what pixels do with them."""

    numbers: Int64  # [numbers], of labels, ascending
    candidates: int  # training images
    pixels: Classified


def read_task(settings: Apply) -> Task:
    """Choose candidates, queries and labelled images at random, by the seed.

    Numbers of labels above that of the candidates stand for all of them. Raises StageError as `read_split` does.
    """
    train, test = read_split("train"), read_split("test")
    random = np.random.default_rng(settings.seed)
    chosen = np.sort(random.permutation(len(train.labels))[: settings.training_images])
    known = np.flatnonzero(np.isin(test.labels, train.labels))
    asked = np.sort(random.permutation(known)[: settings.queries])
    candidates = Split(train.images[chosen], train.labels[chosen])
    return Task(
        candidates=candidates,
        queries=Split(test.images[asked], test.labels[asked]),
        draws=[draw_in_turns(candidates.labels, random) for _ in range(settings.draws)],
        numbers=np.unique(np.minimum(settings.labels, len(chosen))),
    )


def draw_in_turns(labels: Bytes, random: np.random.Generator) -> Int64:
    """Positions of labels uint8 [images] at random, but with the classes taking turns: int64 [images].

    So the first few of them have as many of each class as of any other, give or take one, as long as there are some.
    """
    order = random.permutation(len(labels))
    turns = pd.Series(labels[order]).groupby(labels[order]).cumcount()
    return order[np.argsort(turns.to_numpy(), kind="stable")]
