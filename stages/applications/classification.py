"""Training a classifier with the engine of the autoencoders.

The engine knows one array of bytes. A row of it is here an image and, beside it, its class:
a byte for each class, 255 for its own and 0 for all others. Scaled as images are, the first
part is the input and the second the probabilities that the classifier has to give.
"""

import numpy as np

from stages.core.arrays import Bytes
from stages.core.augmentation import Change, random_shift, unchanged
from stages.core.backend import keras, tf
from stages.core.epoch import compile_training
from stages.core.objective import Objective, Parts, plain_objective
from stages.core.optimizer import build_optimizer
from stages.core.schema import Classifier
from stages.core.training import Training


def labelled_rows(images: Bytes, labels: Bytes, classes: Bytes) -> Bytes:
    """Images with their classes beside them: uint8 [images, pixels + classes].

    images: uint8 [images, pixels]. labels: uint8 [images], each one of `classes`, ascending.
    """
    rows = np.empty((len(images), images.shape[1] + len(classes)), np.uint8)
    rows[:, : images.shape[1]] = images
    rows[:, images.shape[1] :] = np.where(labels[:, None] == classes, np.uint8(255), np.uint8(0))
    return rows


def build_classification(model: keras.Model, settings: Classifier, count: int, shape: tuple[int, int]) -> Training:
    """A classifier and what trains it on labelled rows. count: their number; shape: height and width of the images."""
    optimizer = build_optimizer(settings, -(-count // settings.batch_size))
    augment = beside_classes(random_shift(*shape, settings.shift, settings.seed), shape[0] * shape[1])
    change = augment if settings.shift else unchanged
    compiled = compile_training(
        model, classification_objective(model), optimizer, settings.batch_size, change, unchanged
    )
    return Training(model, optimizer, compiled)


def classification_objective(model: keras.Model) -> Objective:
    """The cross-entropy of the class' probability, in nats, of labelled rows that were scaled to [0, 1]."""
    pixels = model.input_shape[1]

    def parts(rows: tf.Tensor, seen: tf.Tensor, drawn: tf.Tensor, training: bool) -> Parts:
        probabilities = model(seen[:, :pixels], training=training)
        losses = keras.losses.categorical_crossentropy(rows[:, pixels:], probabilities)
        return Parts(losses, tf.zeros_like(losses))

    return plain_objective(model, "categorical_crossentropy")._replace(parts=parts)


def beside_classes(change: Change, pixels: int) -> Change:
    """A change of images, as one of labelled rows that leaves the classes alone."""

    def changed(rows: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        return tf.concat([change(rows[:, :pixels], step), rows[:, pixels:]], axis=1)

    return changed
