"""The training engine: one compiled call per epoch.

Keras' own loop goes back to Python for every batch; on small networks that costs more
than the arithmetic. Here the images stay where the model runs, as bytes, and XLA
compiles the loop over an epoch's batches as a whole: gather, scale, forward, backward,
update. Data sets larger than RESIDENT bytes stream from disk through the same compiled
loop, a block at a time; they get the same weights.
"""

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np

from stages.backend import keras, tf

RESIDENT = 2**31  # bytes of uint8 images; a constant, so that no machine chooses another way
BLOCK = 2**27  # bytes in memory at a time when streaming

Images: TypeAlias = tf.Tensor | np.ndarray  # uint8 [images, pixels]: resident, or mapped from disk
TrainEpoch = Callable[[Images, np.ndarray], float]
MeanLoss = Callable[[Images], float]


def use_threads(threads: int) -> None:
    """Fix the number of threads within one operation, before TensorFlow runs the first.

    XLA cuts matrix products by this number, not by the cores there are, so the same
    number gives the same bytes on any number of cores.
    """
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def resident(images: np.ndarray) -> tf.Tensor:
    """The array on the device that trains; in main memory it is not copied."""
    return tf.identity(tf.experimental.dlpack.from_dlpack(images.__dlpack__()))


def epoch_order(seed: int, epoch: int, images: int) -> np.ndarray:
    """The order of the images in an epoch: int32 [images], a pure function of its arguments."""
    return np.random.default_rng([seed, epoch]).permutation(images).astype(np.int32)


def scaled(images: tf.Tensor) -> tf.Tensor:
    """uint8 0 to 255 as float32 0 to 1: the model's input, and its target."""
    return tf.cast(images, tf.float32) / 255.0


def blocks(images: Images, order: np.ndarray, batch_size: int) -> Iterator[tuple[tf.Tensor, np.ndarray]]:
    """Cut an epoch into blocks that fit in memory: (images of the block, order within it).

    Resident images are one block. A block of streamed ones is a whole number of batches,
    read in the order of the file.
    """
    if isinstance(images, tf.Tensor):
        yield images, order
        return
    rows = max(1, BLOCK // (images.shape[1] * batch_size)) * batch_size
    for start in range(0, len(order), rows):
        wanted, order_within = np.unique(order[start : start + rows], return_inverse=True)
        yield resident(images[wanted]), order_within.astype(np.int32)


def sum_over_batches(function: Callable[[tf.Tensor], tf.Tensor], items: tf.Tensor, batch_size: int) -> tf.Tensor:
    """The sum of a scalar function over consecutive batches of `items`, the last one maybe partial.

    Inside a tf.function the loop becomes part of the compiled program.
    """
    whole, rest = divmod(items.shape[0], batch_size)
    total = tf.zeros(())
    if whole:
        batches = tf.reshape(items[: whole * batch_size], (whole, batch_size, *items.shape[1:]))
        for index in tf.range(whole):
            total += function(batches[index])
    if rest:
        total += function(items[whole * batch_size :])
    return total


def compile_epoch(model: keras.Model, loss: str, optimizer: keras.Optimizer, batch_size: int) -> TrainEpoch:
    """Compile one pass of `optimizer` over the images, the last, partial batch included.

    Returns a function of the images and their order (int32 [images]) that updates the model
    and gives the epoch's loss: the mean over its images, each seen by the weights of its
    step, as `keras.Model.fit` reports it.
    """
    loss_per_image = keras.losses.get(loss)
    variables = model.trainable_variables
    optimizer.build(variables)

    @tf.function(jit_compile=True)
    def train_block(images: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
        def step(batch: tf.Tensor) -> tf.Tensor:
            image = scaled(tf.gather(images, batch))
            with tf.GradientTape() as tape:
                losses = loss_per_image(image, model(image, training=True))
                mean = tf.reduce_mean(losses)
                scaled_mean = optimizer.scale_loss(mean)  # the same, unless the precision is mixed_float16
            optimizer.apply(tape.gradient(scaled_mean, variables), variables)
            return tf.reduce_sum(losses)

        return sum_over_batches(step, order, batch_size)

    def train_epoch(images: Images, order: np.ndarray) -> float:
        return sum(float(train_block(*block)) for block in blocks(images, order, batch_size)) / len(order)

    return train_epoch


def compile_mean_loss(model: keras.Model, loss: str, batch_size: int) -> MeanLoss:
    """Compile the mean of a Keras loss over images, the model unchanged."""
    loss_per_image = keras.losses.get(loss)

    @tf.function(jit_compile=True)
    def block_loss(images: tf.Tensor) -> tf.Tensor:
        def batch_loss(batch: tf.Tensor) -> tf.Tensor:
            image = scaled(batch)
            return tf.reduce_sum(loss_per_image(image, model(image, training=False)))

        return sum_over_batches(batch_loss, images, batch_size)

    def mean_loss(images: Images) -> float:
        in_order = np.arange(len(images), dtype=np.int32)
        return sum(float(block_loss(block)) for block, _ in blocks(images, in_order, batch_size)) / len(images)

    return mean_loss


def compile_reconstruction(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """Compile `model` as a function from images to reconstructions, both float32 [images, pixels] in [0, 1]."""

    @tf.function(jit_compile=True)
    def reconstruct(images: tf.Tensor) -> tf.Tensor:
        return model(images, training=False)

    return lambda images: reconstruct(images).numpy()
