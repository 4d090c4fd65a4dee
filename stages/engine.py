"""The training engine: one compiled call per epoch.

Keras' own loop goes back to Python for every batch; on small networks that costs more
than the arithmetic. Here the images stay where the model runs, as bytes, and XLA
compiles the loop over an epoch's batches as a whole: gather, scale, forward, backward,
update.
"""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

TrainEpoch = Callable[[tf.Tensor, np.ndarray], tf.Tensor]
MeanLoss = Callable[[tf.Tensor], tf.Tensor]


def use_threads(threads: int) -> None:
    """Fix the number of threads within one operation, before TensorFlow runs the first.

    XLA cuts matrix products by this number, not by the cores there are, so the same
    number gives the same bytes on any number of cores.
    """
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def flat_pixels(images: np.ndarray) -> tf.Tensor:
    """Images uint8 [images, height, width] as the tensor uint8 [images, pixels] that the engine reads."""
    return tf.constant(images.reshape(len(images), -1))


def epoch_order(seed: int, epoch: int, images: int) -> np.ndarray:
    """The order of the images in an epoch: int32 [images], a pure function of its arguments."""
    return np.random.default_rng([seed, epoch]).permutation(images).astype(np.int32)


def scaled(pixels: tf.Tensor) -> tf.Tensor:
    """uint8 0 to 255 as float32 0 to 1: the model's input, and its target."""
    return tf.cast(pixels, tf.float32) / 255.0


def compile_epoch(
    model: keras.Model, loss: str, optimizer: keras.Optimizer, batch_size: int
) -> TrainEpoch:
    """Compile one pass of `optimizer` over the images, the last, partial batch included.

    Returns a function of (images uint8 [images, pixels], order int32 [images]) that updates
    the model and gives the epoch's loss: the mean over its images, each seen by the weights
    of its step, as `keras.Model.fit` reports it.
    """
    loss_per_image = keras.losses.get(loss)
    variables = model.trainable_variables
    optimizer.build(variables)

    def step(images: tf.Tensor, batch: tf.Tensor) -> tf.Tensor:
        image = scaled(tf.gather(images, batch))
        with tf.GradientTape() as tape:
            losses = loss_per_image(image, model(image, training=True))
            mean = tf.reduce_mean(losses)
        optimizer.apply(tape.gradient(mean, variables), variables)
        return tf.reduce_sum(losses)

    @tf.function(jit_compile=True)
    def train_epoch(images: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
        count = order.shape[0]
        whole = count - count % batch_size
        batches = tf.reshape(order[:whole], (-1, batch_size))
        total = tf.zeros(())
        for index in tf.range(whole // batch_size):
            total += step(images, batches[index])
        if whole < count:
            total += step(images, order[whole:])
        return total / count

    return train_epoch


def compile_mean_loss(model: keras.Model, loss: str, batch_size: int) -> MeanLoss:
    """Compile the mean of a Keras loss over images uint8 [images, pixels], the model unchanged."""
    loss_per_image = keras.losses.get(loss)

    def total_loss(pixels: tf.Tensor) -> tf.Tensor:
        image = scaled(pixels)
        return tf.reduce_sum(loss_per_image(image, model(image, training=False)))

    @tf.function(jit_compile=True)
    def mean_loss(images: tf.Tensor) -> tf.Tensor:
        count, pixels = images.shape
        whole = count - count % batch_size
        total = tf.zeros(())
        for start in tf.range(0, whole, batch_size):
            total += total_loss(tf.slice(images, (start, 0), (batch_size, pixels)))
        if whole < count:
            total += total_loss(images[whole:])
        return total / count

    return mean_loss


def compile_reconstruction(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """Compile `model` as a function from images to reconstructions, both float32 [images, pixels] in [0, 1]."""

    @tf.function(jit_compile=True)
    def reconstruct(images: tf.Tensor) -> tf.Tensor:
        return model(images, training=False)

    return lambda images: reconstruct(images).numpy()
