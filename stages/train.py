"""Train one autoencoder.

    python -m stages.train deep

Writes data/models/<name>.keras, a plain functional model that
`keras.saving.load_model` opens, and data/history/<name>.csv with the epoch's number
(from 1), its training loss and the validation loss after it. Labels are never read: the
image is its own target. A run that was killed continues at the next start, at the last
epoch that it saved, and ends in the same bytes.
"""

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stages import files
from stages.autoencoder import build_autoencoder, keras_bytes
from stages.backend import keras
from stages.checkpoint import History, checkpoint_path, digest_run, read_checkpoint, restore, saver
from stages.engine import (
    RESIDENT,
    Augment,
    Images,
    compile_epoch,
    compile_mean_loss,
    epoch_order,
    random_shift,
    resident,
    unchanged,
    use_threads,
)
from stages.errors import ParamsError, StageError, run
from stages.measures import scaled_batches, squared_error
from stages.params import Model, choose_model, read_params, stage_arguments
from stages.workers import Cluster, from_chief, join, read_cluster, refuse_different_workers, told_if_lost

Report = Callable[[int, float, float], None]


def read_pixels(split: str) -> Images:
    """The images of a split, uint8 [images, pixels]: on the training device, or mapped from disk if too large."""
    images = files.read_images(split)
    large = images.nbytes > RESIDENT
    if not large:
        images = files.read_images(split, mapped=False)
    pixels = images.reshape(len(images), -1)
    return pixels if large else resident(pixels)


def build_optimizer(settings: Model, steps_per_epoch: int) -> keras.Optimizer:
    """The Keras optimizer that a model's settings name, with loss scaling if its precision needs that."""
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


def assign(variables: list[keras.Variable], values: list[keras.Variable]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def best_epoch(history: History) -> int:
    """The epoch with the smallest validation loss, the first one of several; 0 if there is none yet."""
    return min(history, key=lambda row: row[2])[0] if history else 0


def train(
    key: str,
    model: keras.Model,
    settings: Model,
    images: Images,
    validation: Images,
    report: Report,
    checkpoint: Path,
    augment: Augment = unchanged,
    cluster: Cluster | None = None,
) -> pd.DataFrame:
    """Train `model` in place and return its history: epoch, loss, val_loss, a row per epoch.

    images, validation: uint8 [images, pixels]. Calls report(epoch, loss, val_loss) after each epoch.
    Continues from the file `checkpoint` if there is one, and saves there; in a cluster the
    chief alone does, and the others get its content. With early stopping the model ends with
    the weights of its best epoch.
    Raises StageError, naming the model by `key`, "models.deep", if a loss stops being finite.
    """
    optimizer = build_optimizer(settings, -(-len(images) // settings.batch_size))
    train_epoch = compile_epoch(model, settings.loss, optimizer, settings.batch_size, augment)
    mean_loss = compile_mean_loss(model, settings.loss, settings.batch_size)
    best = [keras.Variable(v, dtype=v.dtype) for v in model.variables] if settings.early_stopping else []
    state = model.variables + optimizer.variables + best
    chief = cluster is None or cluster.position == 0
    content = read_checkpoint(checkpoint) if chief else b""
    history = restore(from_chief(content, cluster) if cluster else content, state)
    save = saver(checkpoint, state)
    if 0 < len(history) < settings.epochs:
        print(f"continuing at epoch {len(history) + 1} of {settings.epochs}", flush=True)
    for epoch in range(len(history) + 1, settings.epochs + 1):
        if settings.early_stopping and epoch - 1 - best_epoch(history) >= settings.early_stopping:
            best_loss = min(val_loss for _, _, val_loss in history)
            print(
                f"stopped early after epoch {epoch - 1}: the best val_loss, {best_loss:.5f}, was in epoch "
                f"{best_epoch(history)}",
                flush=True,
            )
            break
        loss = train_epoch(images, epoch_order(settings.seed, epoch, len(images)))
        val_loss = mean_loss(validation)
        if not np.isfinite([loss, val_loss]).all():
            raise StageError(
                f"{key}: the loss became {loss:g} (validation {val_loss:g}) in epoch {epoch} of "
                f"{settings.epochs} at learning_rate {settings.learning_rate:g}, so no model was written; try a "
                "smaller learning_rate. `git checkout params.yaml dvc.lock && dvc checkout` brings the last committed "
                "one back."
            )
        history.append((epoch, loss, val_loss))
        if best and best_epoch(history) == epoch:
            assign(best, model.variables)
        if chief:
            save(history)
            report(epoch, loss, val_loss)
    if best:
        assign(model.variables, best)
    return pd.DataFrame(history, columns=["epoch", "loss", "val_loss"])


def collapse_warning(key: str, mse: float, images: np.ndarray, validation: np.ndarray) -> str | None:
    """A warning if a model with this validation MSE reconstructs no better than the mean training image.

    mse: per pixel. images, validation: uint8 [images, pixels].
    """
    mean_image = images.mean(axis=0) / 255
    errors = [squared_error(b, mean_image[None]).sum() for b in scaled_batches(validation, 1000)]
    mse_mean_image = sum(errors) / validation.size
    if mse < 0.99 * mse_mean_image:  # a collapsed model ends within a per cent of the mean image
        return None
    return (
        f"warning: {key} collapsed: its validation mse per pixel, {mse:.4f}, is no better than that of "
        f"the mean image, {mse_mean_image:.4f}, so every output looks much the same. Try latent_activation "
        "linear, another hidden_activation, a smaller learning_rate or code_l1, or more epochs."
    )


def progress(epochs: int) -> Report:
    """A live bar on a terminal; in a log file a line every ten seconds and for the last epoch."""
    if sys.stdout.isatty():
        bar = keras.utils.Progbar(epochs, stateful_metrics=["loss", "val_loss"], unit_name="epoch")
        return lambda epoch, loss, val_loss: bar.update(epoch, [("loss", loss), ("val_loss", val_loss)])

    first_epoch, first_end, last_line = 0, 0.0, 0.0

    def report(epoch: int, loss: float, val_loss: float) -> None:
        nonlocal first_epoch, first_end, last_line
        now = time.monotonic()
        left = ""
        if not first_epoch:  # it compiled the engine, so its duration tells nothing of the others'
            first_epoch, first_end = epoch, now
        else:
            left = f", {(now - first_end) / (epoch - first_epoch) * (epochs - epoch):.0f} s left"
        if now - last_line >= 10 or epoch == epochs:
            print(f"epoch {epoch} of {epochs}: loss {loss:.5f}, val_loss {val_loss:.5f}{left}", flush=True)
            last_line = now

    return report


def refuse_unsuitable(key: str, settings: Model, count: int, shape: tuple[int, int], replicas: int) -> None:
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


def main() -> None:
    params = read_params()
    name, settings = choose_model(params, stage_arguments(__doc__))
    key = f"{'models' if name in params.models else 'presets'}.{name}"
    cluster = read_cluster()
    use_threads(settings.threads)
    count, height, width = files.read_images("train").shape
    strategy = join(cluster)  # before TensorFlow runs anything
    refuse_unsuitable(key, settings, count, (height, width), strategy.num_replicas_in_sync)
    augment = random_shift(height, width, settings.shift, settings.seed) if settings.shift else unchanged
    determines = settings.model_dump() | {"replicas": strategy.num_replicas_in_sync}
    digests = digest_run(determines, [files.images_path("train"), files.images_path("validation")])
    with strategy.scope(), told_if_lost():
        images, validation = read_pixels("train"), read_pixels("validation")
        if cluster:
            refuse_different_workers(digests, cluster)
        model = build_autoencoder(height, width, settings)
        print(f"{name}: {model.count_params()} parameters, {len(images)} training images", flush=True)
        if cluster and cluster.position > 0:
            print(f"the chief, {cluster.addresses[0]}, reports the epochs", flush=True)
        report, checkpoint = progress(settings.epochs), checkpoint_path(digests)
        history = train(key, model, settings, images, validation, report, checkpoint, augment, cluster)
        mse = compile_mean_loss(model, "mse", settings.batch_size, penalised=False)(validation)
    if cluster and cluster.position > 0:
        print(f"done; {cluster.addresses[0]} writes the model", flush=True)
        return
    if warning := collapse_warning(key, mse, np.asarray(images), np.asarray(validation)):
        print(warning, file=sys.stderr)
    table = history.to_csv(index=False, float_format="%.9g", lineterminator="\n").encode()
    files.write_files({files.model_path(name): keras_bytes(model), files.history_path(name): table})
    with suppress(OSError):  # one that stays does no harm
        checkpoint.unlink()


if __name__ == "__main__":
    run(main)
