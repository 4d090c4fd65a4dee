"""Training a network: the loop over epochs, with checkpoints, early stopping and reports."""

import time
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.core.augmentation import build_augment, build_corrupt
from stages.core.backend import keras
from stages.core.checkpoint import Epoch, History, read_checkpoint, restore, save
from stages.core.epoch import Compiled
from stages.core.errors import StageError
from stages.core.images import Images, epoch_order
from stages.core.objective import build_objective
from stages.core.optimizer import averaged, build_optimizer
from stages.core.progress import Reporting, reporting
from stages.core.replicas import ONE, Replicas
from stages.core.schema import Model, Recipe


class Training(NamedTuple):
    """A model with its optimizer, and the compiled functions that update both."""

    model: keras.Model
    optimizer: keras.Optimizer
    compiled: Compiled


def build_training(
    model: keras.Model, settings: Model, count: int, shape: tuple[int, int], replicas: Replicas = ONE
) -> Training:
    """A model and what trains it. count: the number of training images; shape: their height and width."""
    steps_per_epoch = -(-count // settings.batch_size)
    objective, optimizer = build_objective(model, settings, steps_per_epoch), build_optimizer(settings, steps_per_epoch)
    changes = build_augment(settings, *shape), build_corrupt(settings)
    compiled = replicas.compile_training(model, objective, optimizer, settings.batch_size, *changes)
    return Training(model, optimizer, compiled)


def train(
    key: str,
    training: Training,
    settings: Recipe,
    images: Images,
    validation: Images,
    checkpoint: Path | None,
    replicas: Replicas = ONE,
    reporting: Reporting = reporting,
) -> History:
    """Train a model in place and return its history, a row for every epoch.

    images, validation: uint8 [images, pixels]. replicas: the processes that share the training, of which only the
    chief saves and reports. reporting: as `progress.reporting`, which is told every epoch.
    Continues from the file `checkpoint` if there is one, and saves there; never without a name. With early
    stopping the model ends with the weights of its best epoch.
    Raises StageError, naming the model by `key`, "models.deep", if a loss stops being finite.
    """
    model, optimizer, (train_epoch, mean_loss) = training
    best = [keras.Variable(v, dtype=v.dtype) for v in model.variables] if settings.early_stopping else []
    state = model.variables + optimizer.variables + best

    saved = read_checkpoint(checkpoint) if checkpoint and replicas.is_chief else b""
    history = restore(replicas.broadcast(saved), state)
    if 0 < len(history) < settings.epochs:
        print(f"continuing at epoch {len(history) + 1} of {settings.epochs}", flush=True)
    next_save = time.monotonic()
    with reporting(settings.epochs, len(history)) if replicas.is_chief else nullcontext() as report:
        for epoch in range(len(history) + 1, settings.epochs + 1):
            if settings.early_stopping and epoch - 1 - best_epoch(history) >= settings.early_stopping:
                break
            loss, kl = train_epoch(images, epoch_order(settings.seed, epoch, len(images)))
            with averaged(model, optimizer, settings):
                val_loss, val_kl = mean_loss(validation)
                check_finite(key, settings, epoch, loss, val_loss)
                history.append(Epoch(epoch, loss, val_loss, kl, val_kl))
                if best and best_epoch(history) == epoch:
                    assign(best, model.variables)
                if report:
                    report(history[-1])
            if checkpoint and replicas.is_chief and time.monotonic() >= next_save:
                next_save = save(checkpoint, state, history)
    if best:
        assign(model.variables, best)
    elif settings.ema_momentum:
        optimizer.finalize_variable_values(model.trainable_variables)
    return history


def tell_early_stop(history: History, settings: Recipe) -> None:
    """Print why a training has fewer epochs than the settings have, if it has."""
    if len(history) < settings.epochs:
        best_row = history[best_epoch(history) - 1]
        print(
            f"stopped early after epoch {len(history)}: the best val_loss, {best_row.val_loss:.5f}, was in epoch "
            f"{best_row.epoch}"
        )


def best_epoch(history: History) -> int:
    """The epoch with the smallest validation loss, the first one of several; 0 if there is none yet."""
    return min(history, key=lambda row: row.val_loss).epoch if history else 0


def assign(variables: list[keras.Variable], values: list[keras.Variable]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def check_finite(key: str, settings: Recipe, epoch: int, loss: float, val_loss: float) -> None:
    """Raise StageError if a loss is no longer a finite number."""
    if not np.isfinite([loss, val_loss]).all():
        raise StageError(
            f"{key}: the loss became {loss:g} (validation {val_loss:g}) in epoch {epoch} of "
            f"{settings.epochs} at learning_rate {settings.learning_rate:g}, so no model was written; try a "
            "smaller learning_rate. `git checkout params.yaml dvc.lock && dvc checkout` brings the last committed "
            "one back."
        )
