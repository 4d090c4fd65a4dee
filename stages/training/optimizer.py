"""The optimizer that a model's settings name."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stages.model.backend import keras, tf
from stages.params import Model


def build_optimizer(settings: Model, steps_per_epoch: int) -> keras.Optimizer:
    """The Keras optimizer, with its schedule, and with loss scaling if the precision needs that."""
    config: dict[str, Any] = {
        "learning_rate": learning_rate(settings, steps_per_epoch),
        "weight_decay": settings.weight_decay or None,
    }
    if settings.optimizer == "adamw":
        config["weight_decay"] = settings.weight_decay  # it refuses None
    if settings.optimizer == "muon":
        config["adam_weight_decay"] = settings.weight_decay or None  # of what is no matrix, which it leaves to Adam
    if settings.beta_2:
        config["beta_2"] = settings.beta_2
    if settings.ema_momentum:
        config |= {"use_ema": True, "ema_momentum": settings.ema_momentum}
    optimizer = keras.optimizers.get({"class_name": settings.optimizer, "config": config})
    if settings.precision == "mixed_float16":  # small gradients would round to zero
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


def learning_rate(settings: Model, steps_per_epoch: int) -> "float | keras.optimizers.schedules.LearningRateSchedule":
    """The step size, or how it depends on the number of the step."""
    peak, steps = settings.learning_rate, settings.epochs * steps_per_epoch
    warmup = min(round(settings.warmup_epochs * steps_per_epoch), steps - 1)
    if settings.schedule == "constant":
        return peak
    if settings.schedule == "linear":
        return Triangle(peak, warmup, steps)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else peak,
        decay_steps=steps - warmup,
        warmup_target=peak if warmup else None,
        warmup_steps=warmup,
    )


@contextmanager
def averaged(model: keras.Model, optimizer: keras.Optimizer, settings: Model) -> Iterator[None]:
    """The model with the moving average of its weights instead of them, if the settings ask for one."""
    if not settings.ema_momentum:
        yield
        return
    own = [variable.numpy() for variable in model.trainable_variables]
    optimizer.finalize_variable_values(model.trainable_variables)
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, own, strict=True):
            variable.assign(value)


class Triangle(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """From zero to the peak in a straight line during the warm-up, and in another one back to zero."""

    def __init__(self, peak: float, warmup: int, steps: int) -> None:
        self.peak, self.warmup, self.steps = peak, warmup, steps

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        done = tf.cast(step, tf.float32)
        fall = tf.maximum((self.steps - done) / (self.steps - self.warmup), 0.0)
        return self.peak * (tf.minimum(done / self.warmup, fall) if self.warmup else fall)

    def get_config(self) -> dict[str, Any]:
        return {"peak": self.peak, "warmup": self.warmup, "steps": self.steps}
