"""The reference classifier as functions of bytes, and others that are trained as it was, on other digits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from stages.applications.classification import build_classification, labelled_rows
from stages.applications.classifier import build_classifier, feature_model
from stages.applications.schema import SeededClassifier
from stages.core.arrays import Bytes, Floats
from stages.core.backend import assign, keras
from stages.core.files import Split
from stages.core.inference import compile_model
from stages.core.measures import in_batches
from stages.core.progress import Report
from stages.core.training import resident, train


class ReferenceClassifier(NamedTuple):
    """A classifier that was trained on real digits, and what it takes to train others."""

    predict: Callable[[Bytes], Bytes]  # images uint8 [images, pixels] -> the class of each
    features: Callable[[Bytes], Floats]  # the same -> its features [images, features]
    learn: Callable[[Split], Callable[[Bytes], Bytes]]  # digits -> `predict` of one that learned from them alone


def reference_classifier(
    classifier: keras.Model,
    classes: Bytes,
    validation: Split,
    settings: SeededClassifier,
    digits: int,
    shape: tuple[int, int],
) -> ReferenceClassifier:
    """A trained classifier with what it takes to train others like it.

    classes: uint8 [classes], ascending, those that it distinguishes. validation: real digits of them, which decide
    when others stop early. digits: the number of images that others learn from. shape: height and width.
    """
    held_out = resident(labelled_rows(*validation, classes))
    learner = build_classifier(*shape, len(classes), settings)
    training = build_classification(learner, settings, digits, shape)
    variables = learner.variables + training.optimizer.variables
    predict = classifying(learner, classes)
    initial = [np.asarray(variable).copy() for variable in variables]

    def learn(given: Split) -> Callable[[Bytes], Bytes]:
        assign(variables, initial)  # compiled once, trained from the same start
        rows = resident(labelled_rows(given.images, given.labels, classes))
        train(training, rows, held_out, reporting=silent)
        return predict

    return ReferenceClassifier(classifying(classifier, classes), on_bytes(feature_model(classifier)), learn)


def classifying(classifier: keras.Model, classes: Bytes) -> Callable[[Bytes], Bytes]:
    """A classifier as a function from images uint8 [images, pixels] to the likeliest class of each, uint8 [images]."""
    probabilities = on_bytes(classifier)

    def predict(images: Bytes) -> Bytes:
        likeliest: Bytes = classes[probabilities(images).argmax(axis=1)]
        return likeliest

    return predict


def on_bytes(model: keras.Model) -> Callable[[Bytes], Floats]:
    """A Keras model from images in [0, 1] as a function of images uint8 [images, pixels]."""
    apply = compile_model(model)
    return lambda images: in_batches(apply, images)


@contextmanager
def silent(epochs: int, done: int) -> Iterator[Report]:
    """Report no epoch."""
    yield lambda row: None
