"""Random changes to the images that training sees, made anew at every step.

Each is a function of images and the number of the step, which with the seed decides what
is drawn, so that a continued run draws the same.
"""

from collections.abc import Callable
from typing import TypeAlias

from stages.core.backend import tf
from stages.core.schema import Model

Change: TypeAlias = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]  # images and the number of the step -> images


def build_augment(settings: Model, height: int, width: int) -> Change:
    """What changes input and target alike: uint8 [images, height * width] to the same."""
    return random_shift(height, width, settings.shift, settings.seed) if settings.shift else unchanged


def build_corrupt(settings: Model) -> Change:
    """What changes the input alone: float32 [images, pixels] to the same."""
    return random_noise(settings.noise, settings.seed) if settings.noise else unchanged


def unchanged(images: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    """No change."""
    return images


def random_shift(height: int, width: int, pixels: int, seed: int) -> Change:
    """Move each image of a batch by up to `pixels` in both directions; what moves in is black."""

    def shift(images: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        count = tf.shape(images)[0]
        key = tf.stack([tf.constant(seed, tf.int64), tf.cast(step, tf.int64)])
        moves = tf.random.stateless_uniform((count, 2), key, 0, 2 * pixels + 1, tf.int32, alg="philox")
        around = [[0, 0], [pixels, pixels], [pixels, pixels]]
        padded = tf.pad(tf.reshape(images, (-1, height, width)), around)
        rows = tf.gather(padded, moves[:, :1] + tf.range(height), batch_dims=1)  # [images, height, padded width]
        columns = tf.gather(tf.transpose(rows, (0, 2, 1)), moves[:, 1:] + tf.range(width), batch_dims=1)
        return tf.reshape(tf.transpose(columns, (0, 2, 1)), (-1, height * width))

    return shift


def random_noise(deviation: float, seed: int) -> Change:
    """Add Gaussian noise with this standard deviation to every pixel.

    A layer of Keras would do the same at five times the cost of the rest of the step, since
    XLA would draw its numbers anew wherever they are used.
    """

    def add_noise(images: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        key = tf.stack([tf.constant(seed, tf.int64), -1 - tf.cast(step, tf.int64)])  # not the key of the shifts
        return images + deviation * tf.random.stateless_normal(images.shape, key, alg="threefry")

    return add_noise
