"""Classifiers and retrieval of scikit-learn, on features that mostly have no label.

The same settings serve all kinds of features.
"""

import numpy as np
import sklearn
from scipy.sparse import csr_matrix
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.semi_supervised import LabelSpreading

from stages.applications.labels import CLASSIFIERS, NEAREST, Classified, Task
from stages.applications.schema import FewLabels
from stages.core.arrays import Bytes, Float32, Floats, Int64, Transform
from stages.core.measures import in_batches

STEPS = 10_000  # of logistic regression and of label spreading, at most; they end far earlier
ALPHA = 0.95  # share that an image's class takes from its neighbours; validation images chose it
# Without scikit-learn's own threads, whose number would decide between equal distances; memory in MiB.
ONE_THREAD = {"enable_cython_pairwise_dist": False, "working_memory": 64}


def measure_labels(encode: Transform, task: Task, settings: FewLabels) -> Classified:
    """What features do with few labels. encode: images float32 [images, pixels] in [0, 1] -> features."""
    candidates, queries = scale(*(encode_all(encode, split.images) for split in (task.candidates, task.queries)))
    graph, found = nearest_candidates(candidates, queries)
    labels = task.candidates.labels
    shares = np.empty((len(CLASSIFIERS), len(task.numbers), len(task.draws)))
    for row, number in enumerate(task.numbers):
        draws = task.draws[:1] if number == len(candidates) else task.draws  # there is only one way to draw all
        for column, draw in enumerate(draws):
            some = draw[:number]
            fitted = classify(candidates[some], labels[some], queries, settings)
            classes = [*fitted, spread_labels(graph, found, labels, some, otherwise=fitted[1])]
            shares[:, row, column] = (np.array(classes) == task.queries.labels).mean(axis=1)
        shares[:, row, len(draws) :] = shares[:, row, :1]
    precision = (labels[found] == task.queries.labels[:, None]).mean(axis=1)
    return Classified(**dict(zip(CLASSIFIERS, shares, strict=True)), precision=precision)


def encode_all(encode: Transform, images: Bytes) -> Float32:
    """Features float32 [images, features] of images uint8 [images, pixels]."""
    return in_batches(lambda batch: encode(batch).astype(np.float32), images)


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
    several = len(np.unique(labels)) > 1  # of one class there is nothing to distinguish
    logistic = LogisticRegression(C=1 / settings.penalty, max_iter=STEPS) if several else DummyClassifier()
    nearest = KNeighborsClassifier(min(settings.neighbours, len(labels)), weights="distance", algorithm="brute")
    with sklearn.config_context(**ONE_THREAD):
        by_logistic, by_neighbours = (model.fit(features, labels).predict(queries) for model in (logistic, nearest))
    return by_logistic, by_neighbours


def nearest_candidates(candidates: Float32, queries: Float32) -> tuple[csr_matrix, Int64]:
    """Which candidates are the NEAREST of each other, and of queries.

    Returns a symmetric graph [candidates, candidates], 1 where one of the two is among the nearest of the other or
    is the other, and positions int64 [queries, NEAREST]. Fewer candidates are all near.
    """
    index = NearestNeighbors(n_neighbors=min(NEAREST, len(candidates)), algorithm="brute").fit(candidates)
    with sklearn.config_context(**ONE_THREAD):
        graph = index.kneighbors_graph(candidates, min(NEAREST + 1, len(candidates)))  # each is its own nearest
        found: Int64 = index.kneighbors(queries, return_distance=False)
    return graph.maximum(graph.T), found


def spread_labels(graph: csr_matrix, found: Int64, labels: Bytes, some: Int64, otherwise: Bytes) -> Bytes:
    """The classes of queries by the labels of some candidates, spread over the graph of all: uint8 [queries].

    graph, found: as `nearest_candidates` returns them. labels: uint8 [candidates], known at `some` only.
    Zhou and others, "Learning with local and global consistency" (2003). A query gets the mean of its neighbours, or
    its class in `otherwise` if no label reaches them.
    """
    known = np.full(len(labels), -1)
    known[some] = labels[some]
    model = LabelSpreading(lambda *_: graph, alpha=ALPHA, max_iter=STEPS, tol=1e-5 * len(some))
    model.fit(np.arange(len(labels))[:, None], known)  # the kernel is the graph, whatever the features
    shares = model.label_distributions_[found].sum(axis=1)
    classes: Bytes = np.where(shares.any(axis=1), model.classes_[shares.argmax(axis=1)], otherwise).astype(np.uint8)
    return classes
