"""Random changes to the training images, made anew at every step."""

from collections.abc import Callable
from typing import TypeAlias

from stages.model.backend import tf

Augment: TypeAlias = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]  # images and the number of the step -> images


def unchanged(images: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    """No augmentation."""
    return images


def random_shift(height: int, width: int, pixels: int, seed: int) -> Augment:
    """Move each image of a batch by up to `pixels` in both directions; what moves in is black.

    Returns a function of images uint8 [images, height * width] and the number of the step,
    which with the seed decides the moves, so that a continued run makes the same ones.
    """

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
