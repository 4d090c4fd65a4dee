"""The training engine: one compiled call per epoch.

Keras' own loop goes back to Python for every batch; on small networks that costs more
than the arithmetic. Here the images stay where the model runs, as bytes, and XLA
compiles the loop over an epoch's batches as a whole: gather, scale, forward, backward,
update. Data sets larger than RESIDENT bytes stream from disk through the same compiled
loop, a block at a time; they get the same weights.

Under a distribution strategy with several replicas each computes the gradient of its share
of every batch, and the gradients are added up; XLA then compiles a step, not the loop.
"""

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np

from stages.backend import keras, tf

RESIDENT = 2**31  # bytes of uint8 images; a constant, so that no machine chooses another way
BLOCK = 2**27  # bytes in memory at a time when streaming

Images: TypeAlias = tf.Tensor | np.ndarray  # uint8 [images, pixels]: resident, or mapped from disk
Augment: TypeAlias = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
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
    """The array on the device that trains; in main memory it is not copied, unless for several replicas."""
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        return tf.constant(images)  # operations outside XLA need memory that is aligned, which NumPy's is not
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


def penalties(model: keras.Model) -> list[tf.Tensor]:
    """The regularizers' parts of the loss of the batch that the model has just seen: scalars."""
    return [tf.cast(penalty, tf.float32) for penalty in model.losses]


def total_loss(losses: tf.Tensor, model: keras.Model) -> tf.Tensor:
    """The sum over the images of a batch of their losses [images] and the penalties, which are means."""
    return tf.add_n([tf.reduce_sum(losses), *(p * losses.shape[0] for p in penalties(model))])


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


def share(items: tf.Tensor) -> tf.Tensor:
    """The part of `items` that falls to this replica, one after another; all of them if there is only one."""
    context = tf.distribute.get_replica_context()
    replica, replicas = context.replica_id_in_sync_group, context.num_replicas_in_sync
    return items[len(items) * replica // replicas : len(items) * (replica + 1) // replicas]


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


def compile_epoch(
    model: keras.Model, loss: str, optimizer: keras.Optimizer, batch_size: int, augment: Augment = unchanged
) -> TrainEpoch:
    """Compile one pass of `optimizer` over the images, the last, partial batch included.

    Returns a function of the images and their order (int32 [images]) that updates the model
    and gives the epoch's loss: the mean over its images, each seen by the weights of its
    step, plus the model's penalties, as `keras.Model.fit` reports it.
    """
    loss_per_image = keras.losses.get(loss)
    variables = model.trainable_variables
    optimizer.build(variables)
    strategy = tf.distribute.get_strategy()
    several = strategy.num_replicas_in_sync > 1

    def gradients(batch: tf.Tensor, weight: float) -> tuple[list[tf.Tensor], tf.Tensor]:
        image = scaled(batch)
        with tf.GradientTape() as tape:
            losses = loss_per_image(image, model(image, training=True))
            mean = tf.add_n([tf.reduce_mean(losses), *penalties(model)]) * weight
            scaled_mean = optimizer.scale_loss(mean)  # the same, unless the precision is mixed_float16
        return tape.gradient(scaled_mean, variables), total_loss(losses, model)

    if several:
        gradients = tf.function(gradients, jit_compile=True)

    def replica_step(batch: tf.Tensor) -> tf.Tensor:
        own = share(batch)
        if not len(own):  # fewer images than replicas
            optimizer.apply([tf.zeros(v.shape) for v in variables], variables)
            return tf.zeros(())
        gradient, total = gradients(own, len(own) / len(batch))
        optimizer.apply(gradient, variables)  # adds up the replicas' gradients
        return total

    @tf.function(jit_compile=not several)
    def train_block(images: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
        def step(indices: tf.Tensor) -> tf.Tensor:
            batch = augment(tf.gather(images, indices), optimizer.iterations)
            return strategy.reduce("SUM", strategy.run(replica_step, args=(batch,)), axis=None)

        return sum_over_batches(step, order, batch_size)

    def train_epoch(images: Images, order: np.ndarray) -> float:
        return sum(float(train_block(*block)) for block in blocks(images, order, batch_size)) / len(order)

    return train_epoch


def compile_mean_loss(model: keras.Model, loss: str, batch_size: int, penalised: bool = True) -> MeanLoss:
    """Compile the mean of a Keras loss over images, with the model's penalties, as `fit` reports it, or without."""
    loss_per_image = keras.losses.get(loss)

    strategy = tf.distribute.get_strategy()

    def batch_loss(batch: tf.Tensor) -> tf.Tensor:
        image = scaled(batch)
        losses = loss_per_image(image, model(image, training=False))
        return total_loss(losses, model) if penalised else tf.reduce_sum(losses)

    @tf.function(jit_compile=True)
    def share_loss(images: tf.Tensor) -> tf.Tensor:
        return sum_over_batches(batch_loss, share(images), batch_size)

    def replica_loss(images: tf.Tensor) -> tf.Tensor:
        return share_loss(images)  # called here, so that it runs on the replica's device

    @tf.function
    def block_loss(images: tf.Tensor) -> tf.Tensor:
        return strategy.reduce("SUM", strategy.run(replica_loss, args=(images,)), axis=None)

    def mean_loss(images: Images) -> float:
        in_order = np.arange(len(images), dtype=np.int32)
        return sum(float(block_loss(block)) for block, _ in blocks(images, in_order, batch_size)) / len(images)

    return mean_loss


def compile_model(model: keras.Model, batch_size: int) -> Callable[[np.ndarray], np.ndarray]:
    """Compile `model` as a function of arrays of any length: floats [items, inputs] -> float32 [items, outputs].

    Computes `batch_size` items at a time, the last ones filled up, so that XLA compiles once.
    """

    @tf.function(jit_compile=True)
    def compute(batch: tf.Tensor) -> tf.Tensor:
        return tf.cast(model(batch, training=False), tf.float32)

    def function(items: np.ndarray) -> np.ndarray:
        results = []
        for start in range(0, max(1, len(items)), batch_size):  # no items have a shape, too
            part = items[start : start + batch_size].astype(np.float32)
            filled = np.pad(part, ((0, batch_size - len(part)), (0, 0)))
            results.append(compute(filled).numpy()[: len(part)])
        return np.concatenate(results)

    return function
