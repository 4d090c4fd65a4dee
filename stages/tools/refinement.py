"""Refine codes: the search for better codes than the encoder's, with the decoder as it is."""

import numpy as np

from stages.core.arrays import Float32
from stages.core.backend import keras, tf

RATE = 0.1  # of the first step; 0.01 to 0.3 give much the same, since the rate adapts


def refine_codes(decoder: keras.Model, images: Float32, codes: Float32, steps: int = 10) -> Float32:
    """Take gradient steps that lower the squared error between images and what is decoded from their codes.

    images: float32 [images, pixels] in [0, 1]. codes: float32 [images, latent_dim], where the steps begin.
    Each image has its own rate. A step that lowers the image's error doubles the rate; any other step is
    rejected and halves it. Returns float32 [images, latent_dim]. No image's error rises.
    """
    rates = np.full((len(codes), 1), RATE, np.float32)
    errors, gradients = errors_and_gradients(decoder, images, codes)
    for _ in range(steps):
        moved = codes - rates * gradients
        moved_errors, moved_gradients = errors_and_gradients(decoder, images, moved)
        better = moved_errors < errors
        rates = np.where(better, 2 * rates, rates / 2)
        codes, errors = np.where(better, moved, codes), np.where(better, moved_errors, errors)
        gradients = np.where(better, moved_gradients, gradients)
    return codes


def errors_and_gradients(decoder: keras.Model, images: Float32, codes: Float32) -> tuple[Float32, Float32]:
    """The squared error of each image, float32 [images, 1], and its gradient at the code, [images, latent_dim]."""
    variable = tf.Variable(codes)
    with tf.GradientTape() as tape:
        errors = tf.reduce_sum(tf.square(decoder(variable, training=False) - images), axis=1, keepdims=True)
    return errors.numpy(), tape.gradient(errors, variable).numpy()
