"""The optimizer that the settings name."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from stages.core.arrays import Float32
from stages.core.backend import assign, keras, tf
from stages.core.schema import Recipe

BETA_2 = ("adam", "adamax", "adamw", "lion", "nadam")  # the optimizers that have it


def build_optimizer(settings: Recipe, steps_per_epoch: int) -> keras.Optimizer:
    """The Keras optimizer, with its schedule, and with loss scaling if the precision needs that."""
    config: dict[str, Any] = {
        "learning_rate": Rates(learning_rates(settings, steps_per_epoch)),
        "weight_decay": settings.weight_decay or None,
    }
    if settings.optimizer == "adamw":
        config["weight_decay"] = settings.weight_decay  # it refuses None
    if settings.optimizer == "muon":
        config["adam_weight_decay"] = settings.weight_decay or None  # of what is no matrix, which it leaves to Adam
    if settings.beta_2 and settings.optimizer in BETA_2:
        config["beta_2"] = settings.beta_2
    if settings.ema_momentum:
        config |= {"use_ema": True, "ema_momentum": settings.ema_momentum}
    optimizer = keras.optimizers.get({"class_name": settings.optimizer, "config": config})
    if settings.precision == "mixed_float16":  # small gradients would round to zero
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


def learning_rates(settings: Recipe, steps_per_epoch: int) -> Float32:
    """The step size at every step of the training, in order: float32 [steps].

    A rise from zero in a straight line, and then a fall to zero in another one or along half a cosine
    (I. Loshchilov, F. Hutter, "SGDR", 2017); or the same at every step.
    """
    count = settings.epochs * steps_per_epoch
    if settings.schedule == "constant":
        return np.full(count, settings.learning_rate, np.float32)
    warmup = min(round(settings.warmup_epochs * steps_per_epoch), count - 1)
    step = np.arange(count, dtype=np.float32)
    left = (count - step) * np.float32(1 / (count - warmup))
    fall = left if settings.schedule == "linear" else (1 - np.cos(np.pi * left, dtype=np.float32)) / 2
    rise = step * np.float32(1 / max(warmup, 1))
    rates: Float32 = np.float32(settings.learning_rate) * np.where(step < warmup, rise, fall)
    return rates


@contextmanager
def averaged(model: keras.Model, optimizer: keras.Optimizer, settings: Recipe) -> Iterator[None]:
    """The model with the moving average of its weights instead of them, if the settings ask for one."""
    if not settings.ema_momentum:
        yield
        return
    own = [variable.numpy() for variable in model.trainable_variables]
    optimizer.finalize_variable_values(model.trainable_variables)
    try:
        yield
    finally:
        assign(model.trainable_variables, own)


class Rates(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """A schedule that is a table. Another one of the same length may be assigned to it after compilation."""

    def __init__(self, rates: Float32) -> None:
        self.rates = keras.Variable(rates, trainable=False, name="rates")

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        return tf.gather(self.rates.value, step)
