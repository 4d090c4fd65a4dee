"""An epoch of training as one compiled call.

Keras' own loop goes back to Python for every batch; on small networks that costs more
than the arithmetic. Here the images stay where the model runs, as bytes, and XLA
compiles the loop over an epoch's batches as a whole: gather, scale, forward, backward,
update. Data sets that are streamed from disk go through the same compiled loop, a block
at a time; they get the same weights. With convolutions TensorFlow runs the loop and XLA
compiles what surrounds the model: inside of a loop, XLA's convolutions on CPUs, but for
those of a forward pass, take six to twenty times as long.
"""

from collections.abc import Callable
from typing import NamedTuple

from stages.model.backend import keras, tf
from stages.training.augmentation import Change
from stages.training.images import Images, Order, blocks, file_order, resident, scaled


class Compiled(NamedTuple):
    """A model's training and validation, as functions of images uint8 [images, pixels]."""

    train_epoch: Callable[[Images, Order], float]
    """One pass over the images in this order, the last, partial batch included. It updates the
    model and gives the epoch's loss: the mean over its images, each seen by the weights of its
    step, plus the model's penalties, as `keras.Model.fit` reports it."""

    mean_loss: Callable[[Images], float]
    """The mean loss over the images, penalties included, as `keras.Model.evaluate` reports it."""


def compile_training(
    model: keras.Model, loss: str, optimizer: keras.Optimizer, batch_size: int, augment: Change, corrupt: Change
) -> Compiled:
    """Compile the training of `model` by `optimizer`, which minimises the Keras loss called `loss`.

    augment: changes input and target, `corrupt` the input alone; see the module augmentation.
    """
    loss_per_image = keras.losses.get(loss)
    variables = model.trainable_variables
    optimizer.build(variables)
    compiles_loop = not convolves(model)

    @tf.function(jit_compile=True, autograph=False)
    def train_batch(images: tf.Tensor, indices: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = scaled(augment(tf.gather(images, indices), step))
        return image, corrupt(image, step)

    @tf.function(jit_compile=True, autograph=False)
    def eval_batch(images: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
        return scaled(tf.gather(images, indices))

    def train_step(image: tf.Tensor, seen: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            losses = loss_per_image(image, model(seen, training=True))
            mean = tf.add_n([tf.reduce_mean(losses), *penalties(model)])
            scaled_mean = optimizer.scale_loss(mean)  # the same, unless the precision is mixed_float16
        total = total_loss(losses, model)  # before the update, as `fit` reports it
        optimizer.apply(tape.gradient(scaled_mean, variables), variables)
        return total

    @tf.function(jit_compile=compiles_loop, autograph=False)
    def train_block(images: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
        def step(indices: tf.Tensor) -> tf.Tensor:
            return train_step(*train_batch(images, indices, tf.convert_to_tensor(optimizer.iterations)))

        return sum_over_batches(step, order, batch_size)

    @tf.function(jit_compile=compiles_loop, autograph=False)
    def eval_block(images: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
        def step(indices: tf.Tensor) -> tf.Tensor:
            return eval_step(model, loss_per_image, eval_batch(images, indices))

        return sum_over_batches(step, order, batch_size)

    def train_epoch(images: Images, order: Order) -> float:
        return sum(float(train_block(*block)) for block in blocks(images, order, batch_size, resident)) / len(order)

    def mean_loss(images: Images) -> float:
        everything = blocks(images, file_order(images), batch_size, resident)
        return sum(float(eval_block(*block)) for block in everything) / len(images)

    return Compiled(train_epoch, mean_loss)


def convolves(model: keras.Model) -> bool:
    """Whether any layer of the model is a convolution."""
    kinds = (keras.layers.Conv2D, keras.layers.Conv2DTranspose)
    return any(isinstance(layer, kinds) for part in model.layers for layer in getattr(part, "layers", [part]))


def eval_step(model: keras.Model, loss_per_image: Callable[..., tf.Tensor], image: tf.Tensor) -> tf.Tensor:
    """The summed loss of a batch, float32 [images, pixels], penalties included."""
    return total_loss(loss_per_image(image, model(image, training=False)), model)


def penalties(model: keras.Model) -> list[tf.Tensor]:
    """The regularizers' parts of the loss of the batch that the model has just seen: scalars."""
    return [tf.cast(penalty, tf.float32) for penalty in model.losses]


def total_loss(losses: tf.Tensor, model: keras.Model) -> tf.Tensor:
    """The sum over the images of a batch of their losses [images] and the penalties, which are means."""
    return tf.add_n([tf.reduce_sum(losses), *(p * losses.shape[0] for p in penalties(model))])


def sum_over_batches(step: Callable[[tf.Tensor], tf.Tensor], items: tf.Tensor, batch_size: int) -> tf.Tensor:
    """The sum of what `step` gives for consecutive batches of `items`, the last one maybe partial.

    Inside a tf.function the loop becomes part of the compiled program.
    """
    whole, rest = divmod(items.shape[0], batch_size)
    total = tf.zeros(())
    if whole:
        batches = tf.reshape(items[: whole * batch_size], (whole, batch_size, *items.shape[1:]))

        def body(index: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return index + 1, total + step(batches[index])

        # one after another, since each step begins with the weights of the one before
        _, total = tf.while_loop(lambda index, _: index < whole, body, (0, total), parallel_iterations=1)
    if rest:
        total += step(items[whole * batch_size :])
    return total
