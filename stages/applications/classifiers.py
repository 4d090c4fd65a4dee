"""Classifiers and retrieval of scikit-learn, on features of which few have a label.

The same settings serve all kinds of features, so nothing is chosen here.
"""

import numpy as np
import sklearn
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from stages.applications.labels import NEAREST, Classified, Task
from stages.applications.schema import FewLabels
from stages.core.arrays import Bytes, Float32, Float64, Floats, Transform
from stages.core.measures import in_batches

BATCH = 1000  # images encoded at a time
STEPS = 10_000  # of logistic regression, at most; it ends far earlier
# Without scikit-learn's own threads, whose number would decide between equal distances; memory in MiB.
ONE_THREAD = {"enable_cython_pairwise_dist": False, "working_memory": 64}


def measure_labels(encode: Transform, task: Task, settings: FewLabels) -> Classified:
    """What features do with few labels. encode: images float32 [images, pixels] in [0, 1] -> features."""
    candidates, queries = scale(*(encode_all(encode, split.images) for split in (task.candidates, task.queries)))
    logistic, neighbours = [], []
    for number in task.numbers:
        draws = task.draws[:1] if number == len(candidates) else task.draws  # there is only one way to draw all
        labelled = [draw[:number] for draw in draws]
        classes = [classify(candidates[some], task.candidates.labels[some], queries, settings) for some in labelled]
        right = np.broadcast_to((np.array(classes) == task.queries.labels).mean(axis=2), (len(task.draws), 2))
        logistic.append(right[:, 0])
        neighbours.append(right[:, 1])
    return Classified(np.array(logistic), np.array(neighbours), precision(candidates, queries, task))


def encode_all(encode: Transform, images: Bytes) -> Float32:
    """Features float32 [images, features] of images uint8 [images, pixels]."""
    return in_batches(lambda batch: encode(batch).astype(np.float32), images, BATCH)


def scale(candidates: Floats, queries: Floats) -> tuple[Float32, Float32]:
    """Both float [images, features], moved and divided by one number so that the candidates have mean 0, variance 1.

    Its variance is the mean squared distance from the mean. The order of distances stays, and a penalty weighs
    as much on few features as on many.
    """
    mean = candidates.mean(axis=0, dtype=np.float64)
    spread = np.sqrt(candidates.var(axis=0, dtype=np.float64).sum())
    deviation = spread or 1.0  # a collapsed model's codes are all the same
    scaled, also = (((features - mean) / deviation).astype(np.float32) for features in (candidates, queries))
    return scaled, also


def classify(features: Float32, labels: Bytes, queries: Float32, settings: FewLabels) -> tuple[Bytes, Bytes]:
    """The classes of queries by two classifiers fitted to labelled features: uint8 [queries] each.

    Logistic regression minimises the summed cross-entropy in nats plus half the penalty times the squared weights.
    Each of the nearest neighbours votes with the inverse of its distance, so that a single label of a class counts.
    """
    several = len(np.unique(labels)) > 1  # of one class there is nothing to tell apart
    logistic = LogisticRegression(C=1 / settings.penalty, max_iter=STEPS) if several else DummyClassifier()
    nearest = KNeighborsClassifier(min(settings.neighbours, len(labels)), weights="distance", algorithm="brute")
    with sklearn.config_context(**ONE_THREAD):
        by_logistic, by_neighbours = (model.fit(features, labels).predict(queries) for model in (logistic, nearest))
    return by_logistic, by_neighbours


def precision(candidates: Float32, queries: Float32, task: Task) -> Float64:
    """Share of the NEAREST candidates that are of the query's class: float64 [queries]."""
    index = NearestNeighbors(n_neighbors=min(NEAREST, len(candidates)), algorithm="brute").fit(candidates)
    with sklearn.config_context(**ONE_THREAD):
        found = index.kneighbors(queries, return_distance=False)
    shares: Float64 = (task.candidates.labels[found] == task.queries.labels[:, None]).mean(axis=1)
    return shares
