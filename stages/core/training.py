"""Train a network: the loop over epochs, and the steps that XLA compiles as one program.

Keras' own loop returns to Python for every batch, which costs a small network more than its
arithmetic. Here the images stay where the model runs, as bytes, and XLA compiles the loop over an
epoch's batches as a whole: gather, scale, forward, backward, update. A data set too large for that
is streamed from disk in blocks, with the same weights as the result. Every batch is whole, so there
is one program to compile for training and one for validation.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from stages.core import files
from stages.core.arrays import Bytes
from stages.core.backend import assign, keras, tf
from stages.core.checkpoint import Epoch, History, restore, save
from stages.core.errors import StageError
from stages.core.objective import Objective, build_objective
from stages.core.optimizer import averaged, build_optimizer
from stages.core.products import portable_gradients
from stages.core.progress import Reporting, reporting
from stages.core.schema import Model, Recipe

LARGEST_RESIDENT = 2**31  # bytes of uint8 images; a constant, so that no machine chooses another way
BLOCK = 2**27  # bytes in memory at a time when streaming

Images: TypeAlias = tf.Tensor | Bytes  # uint8 [images, pixels]: on the device, or mapped from disk
Batches: TypeAlias = NDArray[np.int32]  # [steps, batch_size], positions of images


class DivergedError(StageError):
    """A loss is no longer a finite number."""

    def __init__(self, epoch: int, loss: float, val_loss: float, settings: Recipe) -> None:
        self.epoch = epoch
        super().__init__(
            f"the loss became {loss:g} (validation {val_loss:g}) in epoch {epoch} of {settings.epochs} at "
            f"learning_rate {settings.learning_rate:g}, so no model was written. Try a smaller learning_rate. "
            "To restore the last committed model, run `git checkout params.yaml dvc.lock && dvc checkout`."
        )


def train(
    training: "Training",
    images: Images,
    validation: Images,
    checkpoint: Path | None = None,
    reporting: Reporting = reporting,
) -> History:
    """Train a model in place and return its history, a row for every epoch.

    images, validation: uint8 [images, pixels]. checkpoint: a file to continue from, if it exists, and to save to.
    With early stopping the model ends with the weights of its best epoch.
    Raises DivergedError if a loss stops being finite.
    """
    model, optimizer, settings = training.model, training.optimizer, training.settings
    best = [keras.Variable(v, dtype=v.dtype) for v in model.variables] if settings.early_stopping else []
    state = model.variables + optimizer.variables + best
    history = restore(checkpoint, state) if checkpoint else []
    if 0 < len(history) < settings.epochs:
        print(f"continuing at epoch {len(history) + 1} of {settings.epochs}", flush=True)
    next_save = time.monotonic()
    with reporting(settings.epochs, len(history)) as report:
        for epoch in range(len(history) + 1, settings.epochs + 1):
            if settings.early_stopping and epoch - 1 - best_epoch(history) >= settings.early_stopping:
                break
            order = epoch_order(settings.seed, epoch, len(images))
            batches = whole_batches(order, settings.batch_size)
            sums = [training.train_steps(*block) for block in blocks(images, batches)]
            loss, kl = training.mean_losses(sums, batches.size)
            with averaged(model, optimizer, settings):
                val_loss, val_kl = training.validate(validation)
                if not np.isfinite([loss, val_loss]).all():
                    raise DivergedError(epoch, loss, val_loss, settings)
                history.append(Epoch(epoch, loss, val_loss, kl, val_kl))
                if best and best_epoch(history) == epoch:
                    assign(best, model.variables)
                report(history[-1])
            if checkpoint and time.monotonic() >= next_save:
                next_save = save(checkpoint, state, history)
    if best:
        assign(model.variables, best)
    elif settings.ema_momentum:
        optimizer.finalize_variable_values(model.trainable_variables)
    return history


class Training:
    """A model, what it minimises, and the programs that XLA compiles for both."""

    def __init__(
        self,
        model: keras.Model,
        objective: Objective,
        optimizer: keras.Optimizer,
        settings: Model,
        shape: tuple[int, int],
    ) -> None:
        """shape: height and width of the images."""
        self.model, self.objective, self.optimizer = model, objective, optimizer
        self.settings, self.shape = settings, shape
        optimizer.build(model.trainable_variables)

    @tf.function(jit_compile=True, autograph=False)
    def train_steps(self, images: tf.Tensor, batches: tf.Tensor) -> tf.Tensor:
        """Take a step for each of `batches` int32 [steps, batch_size], positions in uint8 [images, pixels].

        Returns the sums over these images of loss and divergence, each by the weights before its step: float32 [2].
        """
        variables = self.model.trainable_variables

        def train_step(index: tf.Tensor) -> tf.Tensor:
            step = tf.convert_to_tensor(self.optimizer.iterations)
            targets, inputs = self.load_batch(tf.gather(images, batches[index]), step)
            with portable_gradients():
                loss, kl = self.objective.losses(targets, inputs, step, training=True)
                mean = tf.reduce_mean(loss) + self.objective.kl_weight_at(step) * tf.reduce_mean(kl)
                scaled_mean = self.optimizer.scale_loss(mean)  # the same, unless the precision is mixed_float16
            self.optimizer.apply(tf.gradients(scaled_mean, [v.value for v in variables]), variables)
            return tf.stack([tf.reduce_sum(loss), tf.reduce_sum(kl)])

        return sum_over_steps(train_step, batches.shape[0])

    def load_batch(self, images: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Targets and inputs of a training step, float32 [images, pixels] in [0, 1], of images uint8."""
        settings = self.settings
        if settings.shift:
            images = shift(images, self.shape, settings.shift, settings.seed, step)
        targets = scaled(images)
        return targets, add_noise(targets, settings.noise, settings.seed, step) if settings.noise else targets

    def validate(self, images: Images) -> tuple[float, float]:
        """Mean loss and divergence over all images uint8 [images, pixels]; the same samples at every call."""
        batch_size = self.settings.batch_size
        steps = -(-len(images) // batch_size)
        # the last batch is filled up with the first images, which do not count
        batches = np.resize(np.arange(len(images), dtype=np.int32), (steps, batch_size))
        sums, first = [], 0
        for block, within in blocks(images, batches):
            sums.append(self.validate_steps(block, within, tf.constant(first), tf.constant(len(images) - first)))
            first += within.size
        return self.mean_losses(sums, len(images))

    @tf.function(jit_compile=True, autograph=False)
    def validate_steps(self, images: tf.Tensor, batches: tf.Tensor, first: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        """Sums of loss and divergence over the first `count` images of `batches`: float32 [2].

        images, batches: as `train_steps` takes them. first: the number of images before them.
        """
        batch_size = batches.shape[1]

        def validate_step(index: tf.Tensor) -> tf.Tensor:
            inputs = scaled(tf.gather(images, batches[index]))
            key = -1 - first - index * batch_size  # below 0, where training has no steps
            losses = tf.stack(self.objective.losses(inputs, inputs, key, training=False))
            counts = index * batch_size + tf.range(batch_size) < count
            return tf.reduce_sum(tf.where(counts, losses, 0.0), axis=1)

        return sum_over_steps(validate_step, batches.shape[0])

    def mean_losses(self, sums: list[tf.Tensor], images: int) -> tuple[float, float]:
        """Mean loss, with the divergence at its full weight so that epochs compare, and mean divergence in nats."""
        loss, kl = (np.sum([np.asarray(part, np.float64) for part in sums], axis=0) / images).tolist()
        return loss + self.objective.kl_weight * kl, kl


def sum_over_steps(step: Callable[[tf.Tensor], tf.Tensor], steps: int) -> tf.Tensor:
    """The sum of `step(index)`, float32 [2], over so many indices; a loop of the compiled program."""

    def body(index: tf.Tensor, sums: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return index + 1, sums + step(index)

    # one after another, since each step begins with the weights of the one before
    return tf.while_loop(lambda index, _: index < steps, body, (0, tf.zeros(2)), parallel_iterations=1)[1]


def build_training(model: keras.Model, settings: Model, count: int, shape: tuple[int, int]) -> Training:
    """An autoencoder with what trains it. count: the number of training images; shape: their height and width."""
    steps_per_epoch = count // settings.batch_size
    objective = build_objective(model, settings, steps_per_epoch)
    return Training(model, objective, build_optimizer(settings, steps_per_epoch), settings, shape)


def best_epoch(history: History) -> int:
    """The epoch with the smallest validation loss, the first one of several; 0 if there is none yet."""
    return min(history, key=lambda row: row.val_loss).epoch if history else 0


# --- images ------------------------------------------------------------------------------


def read_pixels(split: str) -> Images:
    """The images of a split, uint8 [images, pixels]: on the device, or mapped from disk if they are too large."""
    images = files.read_images(split)
    if images.nbytes > LARGEST_RESIDENT:
        return images.reshape(len(images), -1)
    images = files.read_images(split, mapped=False)
    return resident(images.reshape(len(images), -1))


def resident(images: Bytes) -> tf.Tensor:
    """The array on the device that trains; in main memory it is not copied."""
    return tf.identity(tf.experimental.dlpack.from_dlpack(images.__dlpack__()))


def epoch_order(seed: int, epoch: int, images: int) -> NDArray[np.int32]:
    """The order of the images in an epoch: int32 [images], a pure function of its arguments."""
    return np.random.default_rng([seed, epoch]).permutation(images).astype(np.int32)


def whole_batches(order: NDArray[np.int32], batch_size: int) -> Batches:
    """The order in batches: int32 [steps, batch_size]. What is left over waits for another epoch's order."""
    return order[: len(order) // batch_size * batch_size].reshape(-1, batch_size)


def blocks(images: Images, batches: Batches) -> Iterator[tuple[tf.Tensor, Batches]]:
    """Cut an epoch into blocks that fit in memory: images of the block, and batches of positions among them.

    Resident images are one block. A block of streamed ones is read in the order of the file.
    """
    if isinstance(images, tf.Tensor):
        yield images, batches
        return
    steps = max(1, BLOCK // (images.shape[1] * batches.shape[1]))
    for start in range(0, len(batches), steps):
        part = batches[start : start + steps]
        wanted, within = np.unique(part, return_inverse=True)
        yield resident(images[wanted]), within.reshape(part.shape).astype(np.int32)


def scaled(images: tf.Tensor) -> tf.Tensor:
    """uint8 0 to 255 as float32 0 to 1."""
    return tf.cast(images, tf.float32) / 255.0


def shift(images: tf.Tensor, shape: tuple[int, int], pixels: int, seed: int, step: tf.Tensor) -> tf.Tensor:
    """Move each image uint8 [images, height * width] by up to `pixels` in both directions; black moves in."""
    height, width = shape
    key = tf.stack([tf.constant(seed, tf.int64), tf.cast(step, tf.int64)])
    moves = tf.random.stateless_uniform((images.shape[0], 2), key, 0, 2 * pixels + 1, tf.int32, alg="philox")
    padded = tf.pad(tf.reshape(images, (-1, height, width)), [[0, 0], [pixels, pixels], [pixels, pixels]])
    rows = tf.gather(padded, moves[:, :1] + tf.range(height), batch_dims=1)  # [images, height, padded width]
    columns = tf.gather(tf.transpose(rows, (0, 2, 1)), moves[:, 1:] + tf.range(width), batch_dims=1)
    return tf.reshape(tf.transpose(columns, (0, 2, 1)), (-1, height * width))


def add_noise(images: tf.Tensor, largest: float, seed: int, step: tf.Tensor) -> tf.Tensor:
    """Images float32 [images, pixels] with Gaussian noise, clipped to [0, 1].

    Each image has its own standard deviation, uniform between 0 and `largest`. The stage `denoise` clips its noisy
    images too. A layer that samples costs five times the rest of the step, since XLA samples its numbers again
    wherever they are used.
    """
    key = tf.stack([tf.constant(seed, tf.int64), -1 - tf.cast(step, tf.int64)])  # not the key of the shifts
    deviations = tf.random.stateless_uniform((images.shape[0], 1), key, 0, largest, alg="philox")
    noise = deviations * tf.random.stateless_normal(images.shape, key, alg="threefry")
    return tf.clip_by_value(images + noise, 0.0, 1.0)
