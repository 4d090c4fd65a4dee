"""An epoch of training as one compiled call.

Keras' own loop goes back to Python for every batch; on small networks that costs more
than the arithmetic. Here the images stay where the model runs, as bytes, and XLA
compiles the loop over an epoch's batches as a whole: gather, scale, forward, backward,
update. Data sets that are streamed from disk go through the same compiled loop, a block
at a time; they get the same weights. With convolutions TensorFlow runs the loop and XLA
compiles what surrounds the model: inside of a loop, XLA's convolutions on CPUs, but for
those of a forward pass, take six to twenty times as long.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from stages.core.augmentation import Change
from stages.core.backend import keras, tf
from stages.core.images import Images, Order, Place, blocks, file_order, resident, scaled
from stages.core.objective import Objective, Parts


class Losses(NamedTuple):
    """Means over images."""

    loss: float  # with all of the divergence's weight, during its warm-up too, so that epochs compare
    kl: float  # the divergence, unweighted, in nats; 0 of a model that is not variational


class Compiled(NamedTuple):
    """A model's training and validation, as functions of images uint8 [images, pixels]."""

    train_epoch: Callable[[Images, Order], Losses]
    """One pass over the images in this order, the last, partial batch included. It updates the
    model and gives the epoch's losses: means over its images, each seen by the weights of its
    step, plus the model's penalties, as `keras.Model.fit` reports them."""

    mean_loss: Callable[[Images], Losses]
    """The mean losses over the images, penalties included, as `keras.Model.evaluate` reports them.
    A variational model gets the same draws at every call."""


def compile_training(
    model: keras.Model,
    objective: Objective,
    optimizer: keras.Optimizer,
    batch_size: int,
    augment: Change,
    corrupt: Change,
) -> Compiled:
    """Compile the training of `model` by `optimizer`, which minimises the objective.

    augment: changes input and target, `corrupt` the input alone; see the module augmentation.
    """
    variables = model.trainable_variables
    optimizer.build(variables)
    compiles_loop = not convolves(model)

    @tf.function(jit_compile=True, autograph=False)
    def train_batch(images: tf.Tensor, indices: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image = scaled(augment(tf.gather(images, indices), step))
        return image, corrupt(image, step), objective.draw(indices.shape[0], step)

    @tf.function(jit_compile=True, autograph=False)
    def eval_batch(images: tf.Tensor, indices: tf.Tensor, first: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return scaled(tf.gather(images, indices)), objective.draw(indices.shape[0], validation_key(indices, first))

    def train_step(image: tf.Tensor, seen: tf.Tensor, drawn: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            parts = objective.parts(image, seen, drawn, True)
            mean = minimised(parts, objective, step, model)
            scaled_mean = optimizer.scale_loss(mean)  # the same, unless the precision is mixed_float16
        sums = total_parts(parts, model)  # before the update, as `fit` reports them
        optimizer.apply(tape.gradient(scaled_mean, variables), variables)
        return sums

    @tf.function(jit_compile=compiles_loop, autograph=False)
    def train_block(images: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
        def batch(indices: tf.Tensor) -> tf.Tensor:
            step = tf.convert_to_tensor(optimizer.iterations)
            image, seen, drawn = train_batch(images, indices, step)
            return train_step(image, seen, drawn, step)

        return sum_over_batches(batch, order, batch_size)

    @tf.function(jit_compile=compiles_loop, autograph=False)
    def eval_block(images: tf.Tensor, order: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
        def batch(indices: tf.Tensor) -> tf.Tensor:
            image, drawn = eval_batch(images, indices, first)
            return total_parts(objective.parts(image, image, drawn, False), model)

        return sum_over_batches(batch, order, batch_size)

    return in_blocks(train_block, eval_block, objective, batch_size, resident)


def in_blocks(
    train_block: Callable[..., tf.Tensor],
    eval_block: Callable[..., tf.Tensor],
    objective: Objective,
    batch_size: int,
    place: Place,
) -> Compiled:
    """Training and validation of all images, from functions of a block of them that give sums as `total_parts` does.

    train_block: of images and their order; eval_block: of these and the number of images before the block.
    place: puts a block on the device.
    """

    def train_epoch(images: Images, order: Order) -> Losses:
        sums = (train_block(*block) for block in blocks(images, order, batch_size, place))
        return mean_losses(sums, len(order), objective)

    def mean_loss(images: Images) -> Losses:
        sums = (eval_block(*block) for block in numbered(blocks(images, file_order(images), batch_size, place)))
        return mean_losses(sums, len(images), objective)

    return Compiled(train_epoch, mean_loss)


def convolves(model: keras.Model) -> bool:
    """Whether any layer of the model is a convolution."""
    kinds = (keras.layers.Conv2D, keras.layers.Conv2DTranspose)
    return any(isinstance(layer, kinds) for part in model.layers for layer in getattr(part, "layers", [part]))


def validation_key(indices: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
    """What a batch of validation draws with: its position in the file, below 0, where training has no steps.

    indices: int32 [images], its positions in a block that begins at `first`, int64.
    """
    return -1 - first - tf.cast(indices[0], tf.int64)


def numbered(cut: Iterable[tuple[tf.Tensor, Order]]) -> Iterator[tuple[tf.Tensor, Order, tf.Tensor]]:
    """Each block with the number of images before it."""
    first = 0
    for images, order in cut:
        yield images, order, tf.constant(first, tf.int64)
        first += len(order)


def minimised(parts: Parts, objective: Objective, step: tf.Tensor, model: keras.Model) -> tf.Tensor:
    """What a training step minimises, a scalar: the mean loss of its batch, and the model's penalties."""
    divergence = objective.weight * objective.warm_up(step) * tf.reduce_mean(parts.kl)
    return tf.add_n([tf.reduce_mean(parts.reconstruction_loss), *penalties(model)]) + divergence


def penalties(model: keras.Model) -> list[tf.Tensor]:
    """The regularizers' parts of the loss of the batch that the model has just seen: scalars."""
    return [tf.cast(penalty, tf.float32) for penalty in model.losses]


def total_parts(parts: Parts, model: keras.Model) -> tf.Tensor:
    """Sums over the images of a batch: float32 [2], reconstruction_loss with the penalties, which are means, and kl."""
    losses = tf.add_n([tf.reduce_sum(parts.reconstruction_loss), *(p * parts.kl.shape[0] for p in penalties(model))])
    return tf.stack([losses, tf.reduce_sum(parts.kl)])


def mean_losses(sums: Iterable[tf.Tensor], images: int, objective: Objective) -> Losses:
    """The mean losses of so many images, from the sums of `total_parts` over parts of them."""
    reconstruction_loss, kl = (np.sum([np.asarray(part, np.float64) for part in sums], axis=0) / images).tolist()
    return Losses(reconstruction_loss + objective.weight * kl, kl)


def sum_over_batches(step: Callable[[tf.Tensor], tf.Tensor], items: tf.Tensor, batch_size: int) -> tf.Tensor:
    """The sum of what `step` gives, float32 [2], for consecutive batches of `items`, the last one maybe partial.

    Inside a tf.function the loop becomes part of the compiled program.
    """
    whole, rest = divmod(items.shape[0], batch_size)
    total = tf.zeros(2)
    if whole:
        batches = tf.reshape(items[: whole * batch_size], (whole, batch_size, *items.shape[1:]))

        def body(index: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return index + 1, total + step(batches[index])

        # one after another, since each step begins with the weights of the one before
        _, total = tf.while_loop(lambda index, _: index < whole, body, (0, total), parallel_iterations=1)
    if rest:
        total += step(items[whole * batch_size :])
    return total
