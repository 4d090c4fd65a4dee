"""Train one autoencoder.

    python -m stages.train deep

Reads the images in data/prepared. Writes data/models/<name>.keras, a plain functional model that
`keras.saving.load_model` opens, and data/history/<name>.csv with the epoch's number
(from 1), its training loss and the validation loss after it, and the parts of both that
are a variational model's divergence, in nats. Labels are never read: the image is its own
target. A run that was killed continues at the next start, at the last
epoch that it saved, and ends in the same bytes.
"""

import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from stages.common import files
from stages.common.errors import ParamsError, StageError, run
from stages.model.archive import keras_bytes
from stages.model.autoencoder import build_autoencoder
from stages.model.backend import keras, use_threads
from stages.params import Choice, Model, choose_model, read_params
from stages.params.command import parse_model
from stages.training.augmentation import build_augment, build_corrupt
from stages.training.checkpoint import (
    Epoch,
    History,
    checkpoint_path,
    digest_run,
    loaded_code,
    read_checkpoint,
    restore,
    save,
)
from stages.training.epoch import Compiled
from stages.training.images import Images, epoch_order, read_pixels
from stages.training.objective import build_objective
from stages.training.optimizer import averaged, build_optimizer
from stages.training.progress import Reporting, reporting
from stages.training.replicas import ONE, Replicas, join_replicas


def main() -> None:
    argument = parse_model("train", __doc__)
    chosen = choose_model(read_params(), argument)
    use_threads(chosen.settings.threads)
    count, height, width = files.read_images("train").shape  # before it waits for other machines
    with join_replicas() as replicas:
        check_fit(chosen.key, chosen.settings, count, (height, width), replicas.count)
        train_and_write(chosen, (height, width), replicas)


def train_and_write(chosen: Choice, shape: tuple[int, int], replicas: Replicas) -> None:
    """Train the chosen model on the prepared images; the chief writes its files."""
    name, key, settings, written = chosen
    digests = digest_run(
        settings.model_dump() | {"replicas": replicas.count},
        data=[files.images_path("train"), files.images_path("validation")],
        code=loaded_code(__file__),
    )
    replicas.check_same_run(digests)
    checkpoint = checkpoint_path(digests)
    images, validation = (read_pixels(split, replicas.place) for split in ("train", "validation"))
    training = build_training(build_autoencoder(*shape, settings), settings, len(images), shape, replicas)
    print(f"{name}: {training.model.count_params()} parameters, {len(images)} training images", flush=True)
    if replicas.cluster and not replicas.is_chief:
        print(f"the chief, {replicas.cluster.addresses[0]}, reports the epochs and writes the model", flush=True)

    history = train(key, training, settings, images, validation, checkpoint, replicas)
    if not replicas.is_chief:
        return
    table = pd.DataFrame(history, columns=list(Epoch._fields))
    csv = table.to_csv(index=False, float_format="%.9g", lineterminator="\n").encode()
    files.write_all({written.model: keras_bytes(training.model), written.history: csv})
    with suppress(OSError):  # a checkpoint that stays does no harm
        checkpoint.unlink()


def check_fit(key: str, settings: Model, count: int, shape: tuple[int, int], replicas: int) -> None:
    """Raise ParamsError if a model's settings do not suit the number or the size of the images, or the replicas."""
    problems = [
        f"{size} is {getattr(settings, size)}, but has to be at most {count}, the number of training images"
        for size in ("batch_size", "latent_dim")
        if getattr(settings, size) > count
    ]
    halvings = (max(shape) - 1).bit_length()
    if settings.layers == "conv" and len(settings.hidden_units) > halvings:
        problems.append(
            f"hidden_units has {len(settings.hidden_units)} convolutional layers, but images of {shape[0]}×{shape[1]} "
            f"can be halved {halvings} times"
        )
    if replicas > 1 and settings.normalization == "batch":
        problems.append(
            "normalization is batch, but each of several replicas sees only its share of a batch; it has to be "
            "none or layer"
        )
    if replicas > 1 and settings.precision == "mixed_float16":
        problems.append("precision is mixed_float16, but several replicas need float32 or mixed_bfloat16")
    if problems:
        raise ParamsError("\n".join(f"params.yaml: {key}.{problem}." for problem in problems))


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
    settings: Model,
    images: Images,
    validation: Images,
    checkpoint: Path | None,
    replicas: Replicas = ONE,
    reporting: Reporting = reporting,
) -> History:
    """Train a model in place and return its history, a row for every epoch.

    images, validation: uint8 [images, pixels].
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
    if replicas.is_chief and len(history) < settings.epochs:
        best_row = history[best_epoch(history) - 1]
        print(
            f"stopped early after epoch {len(history)}: the best val_loss, {best_row.val_loss:.5f}, was in epoch "
            f"{best_row.epoch}"
        )
    return history


def best_epoch(history: History) -> int:
    """The epoch with the smallest validation loss, the first one of several; 0 if there is none yet."""
    return min(history, key=lambda row: row.val_loss).epoch if history else 0


def assign(variables: list[keras.Variable], values: list[keras.Variable]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def check_finite(key: str, settings: Model, epoch: int, loss: float, val_loss: float) -> None:
    """Raise StageError if a loss is no longer a finite number."""
    if not np.isfinite([loss, val_loss]).all():
        raise StageError(
            f"{key}: the loss became {loss:g} (validation {val_loss:g}) in epoch {epoch} of "
            f"{settings.epochs} at learning_rate {settings.learning_rate:g}, so no model was written; try a "
            "smaller learning_rate. `git checkout params.yaml dvc.lock && dvc checkout` brings the last committed "
            "one back."
        )


if __name__ == "__main__":
    run(main)
