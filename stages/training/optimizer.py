"""The optimizer that a model's settings name."""

from typing import Any

from stages.model.backend import keras
from stages.params import Model


def build_optimizer(settings: Model, steps_per_epoch: int) -> keras.Optimizer:
    """The Keras optimizer, with its schedule, and with loss scaling if the precision needs that."""
    learning_rate: Any = settings.learning_rate
    if settings.schedule == "cosine":
        warmup = settings.warmup_epochs * steps_per_epoch
        learning_rate = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup else learning_rate,
            decay_steps=settings.epochs * steps_per_epoch - warmup,
            warmup_target=learning_rate if warmup else None,
            warmup_steps=warmup,
        )
    config = {"learning_rate": learning_rate, "weight_decay": settings.weight_decay or None}
    if settings.optimizer == "adamw":
        config["weight_decay"] = settings.weight_decay  # it refuses None
    optimizer = keras.optimizers.get({"class_name": settings.optimizer, "config": config})
    if settings.precision == "mixed_float16":  # small gradients would round to zero
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer
