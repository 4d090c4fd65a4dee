"""Train one autoencoder.

    python -m stages.train deep

Writes data/models/<name>.keras, a plain functional model that
`keras.saving.load_model` opens, and data/history/<name>.csv with the epoch's number
(from 1), its training loss and the validation loss after it. Labels are never read: the
image is its own target.
"""

import sys
import time
from collections.abc import Callable

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from stages import files
from stages.autoencoder import build_autoencoder, keras_bytes
from stages.engine import compile_epoch, compile_mean_loss, epoch_order, flat_pixels, use_threads
from stages.errors import ParamsError, StageError, run
from stages.params import Model, choose_model, read_params

Report = Callable[[int, float, float], None]


def train(
    name: str, model: keras.Model, settings: Model, images: tf.Tensor, validation: tf.Tensor, report: Report
) -> pd.DataFrame:
    """Train `model` in place and return its history: epoch, loss, val_loss, a row per epoch.

    images, validation: uint8 [images, pixels]. Calls report(epoch, loss, val_loss) after each epoch.
    Raises StageError if a loss stops being finite.
    """
    optimizer = keras.optimizers.get(
        {"class_name": settings.optimizer, "config": {"learning_rate": settings.learning_rate}}
    )
    train_epoch = compile_epoch(model, settings.loss, optimizer, settings.batch_size)
    mean_loss = compile_mean_loss(model, settings.loss, min(settings.batch_size, len(validation)))
    history = []
    for epoch in range(1, settings.epochs + 1):
        loss = float(train_epoch(images, epoch_order(settings.seed, epoch, len(images))))
        val_loss = float(mean_loss(validation))
        if not np.isfinite([loss, val_loss]).all():
            raise StageError(
                f"models.{name}: the loss became {loss:g} (validation {val_loss:g}) in epoch {epoch} of "
                f"{settings.epochs} at learning_rate {settings.learning_rate:g}; try a smaller learning_rate."
            )
        history.append((epoch, loss, val_loss))
        report(epoch, loss, val_loss)
    return pd.DataFrame(history, columns=["epoch", "loss", "val_loss"])


def collapse_warning(name: str, model: keras.Model, images: tf.Tensor, validation: tf.Tensor) -> str | None:
    """A warning if the model reconstructs no better than the mean training image would.

    Both are measured as mean squared error per pixel over the validation images.
    """
    mean_image = np.mean(images, axis=0) / 255
    mse_mean_image = float(np.mean((validation.numpy() / 255 - mean_image) ** 2))
    mse = float(compile_mean_loss(model, "mse", len(validation))(validation))
    if mse < 0.99 * mse_mean_image:  # a collapsed model ends within a per cent of the mean image
        return None
    return (
        f"warning: models.{name} collapsed: its reconstruction error ({mse:.4f} per pixel) is no better than "
        f"the mean image's ({mse_mean_image:.4f}), so every output is much the same. Try latent_activation "
        "linear, another hidden_activation, a smaller learning_rate or more epochs."
    )


def progress(epochs: int) -> Report:
    """A live bar on a terminal; in a log file a line every ten seconds, and for the first and last epoch."""
    if sys.stdout.isatty():
        bar = keras.utils.Progbar(epochs, stateful_metrics=["loss", "val_loss"], unit_name="epoch")
        return lambda epoch, loss, val_loss: bar.update(epoch, [("loss", loss), ("val_loss", val_loss)])

    start = last = time.monotonic()

    def report(epoch: int, loss: float, val_loss: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 10 or epoch in (1, epochs):
            last = now
            left = (now - start) / epoch * (epochs - epoch)
            print(
                f"epoch {epoch} of {epochs}: loss {loss:.5f}, val_loss {val_loss:.5f}, {left:.0f} s left",
                flush=True,
            )

    return report


def main() -> None:
    params = read_params()
    name = choose_model(params, sys.argv[1:])
    settings = params.models[name]
    images, validation = files.read_images("train"), files.read_images("validation")
    for key in ("batch_size", "latent_dim"):
        if getattr(settings, key) > len(images):
            raise ParamsError(
                f"params.yaml: models.{name}.{key} is {getattr(settings, key)}, but has to be at most "
                f"{len(images)}, the number of training images."
            )

    use_threads(settings.threads)
    images, validation = flat_pixels(images), flat_pixels(validation)
    model = build_autoencoder(
        images.shape[1],
        settings.hidden_units,
        settings.hidden_activation,
        settings.latent_dim,
        settings.latent_activation,
        settings.seed,
    )
    print(f"{name}: {model.count_params()} parameters, {len(images)} training images", flush=True)
    history = train(name, model, settings, images, validation, progress(settings.epochs))
    if warning := collapse_warning(name, model, images, validation):
        print(warning, file=sys.stderr)

    files.write_files(
        {
            files.model_path(name): keras_bytes(model),
            files.history_path(name): history.to_csv(
                index=False, float_format="%.9g", lineterminator="\n"
            ).encode(),
        }
    )


if __name__ == "__main__":
    run(main)
