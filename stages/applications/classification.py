"""Train a classifier with the engine of the autoencoders.

The engine takes one array of bytes. A row of it holds an image and then its class: a byte per
class, 255 for its own and 0 for the others. Scaled as images are, the first part is the input and
the second the probabilities that the classifier has to predict.
"""

import numpy as np

from stages.applications.schema import SeededClassifier
from stages.core.arrays import Bytes
from stages.core.backend import keras, tf
from stages.core.objective import Objective
from stages.core.optimizer import build_optimizer
from stages.core.products import portable
from stages.core.training import Training, scaled, shift


def labelled_rows(images: Bytes, labels: Bytes, classes: Bytes) -> Bytes:
    """Images followed by their classes: uint8 [images, pixels + classes].

    images: uint8 [images, pixels]. labels: uint8 [images], each one of `classes`, ascending.
    """
    rows = np.empty((len(images), images.shape[1] + len(classes)), np.uint8)
    rows[:, : images.shape[1]] = images
    rows[:, images.shape[1] :] = np.where(labels[:, None] == classes, np.uint8(255), np.uint8(0))
    return rows


def build_classification(
    model: keras.Model, settings: SeededClassifier, count: int, shape: tuple[int, int]
) -> "ClassifierTraining":
    """A classifier with what trains it on labelled rows. count: their number; shape: height and width of the images."""
    optimizer = build_optimizer(settings, count // settings.batch_size)
    return ClassifierTraining(model, CrossEntropy(model), optimizer, settings, shape)  # type: ignore[arg-type]


class CrossEntropy(Objective):
    """The cross-entropy of each image's class, in nats, of labelled rows that were scaled to [0, 1]."""

    def __init__(self, model: keras.Model) -> None:
        self.model, self.pixels = portable(model), model.input_shape[1]

    def losses(self, targets: tf.Tensor, inputs: tf.Tensor, key: tf.Tensor, training: bool) -> tuple[tf.Tensor, ...]:
        probabilities = self.model(inputs[:, : self.pixels], training=training)
        losses = keras.losses.categorical_crossentropy(targets[:, self.pixels :], probabilities)
        return losses, tf.zeros_like(losses)


class ClassifierTraining(Training):
    """The training of a classifier, whose shifts leave the classes alone."""

    def load_batch(self, images: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        settings, pixels = self.settings, self.shape[0] * self.shape[1]
        if settings.shift:
            shifted = shift(images[:, :pixels], self.shape, settings.shift, settings.seed, step)
            images = tf.concat([shifted, images[:, pixels:]], axis=1)
        rows = scaled(images)
        return rows, rows
