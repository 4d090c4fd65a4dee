"""Train one autoencoder.

    python -m stages.train deep

Reads the images in data/prepared; never the labels, since an image is its own target. Writes
data/models/<name>.keras, a plain functional model that `keras.saving.load_model` opens, and
data/history/<name>.csv with a row per epoch: its number, training loss and validation loss, and for a
variational model the divergences in them, in nats. A killed run continues at the last epoch that it
saved, and ends in the same bytes.
"""

from contextlib import suppress

import pandas as pd

from stages.core import files
from stages.core.archive import keras_bytes
from stages.core.autoencoder import build_autoencoder
from stages.core.backend import use_all_cores
from stages.core.checkpoint import Epoch, checkpoint_path, digest_run, loaded_code
from stages.core.command import parse_model
from stages.core.errors import run
from stages.core.params import check_fit, choose_model, read_params
from stages.core.schema import Params
from stages.core.training import best_epoch, build_training, read_pixels, train


def main() -> None:
    argument = parse_model("train", __doc__)
    name, key, settings, written = choose_model(read_params(Params), argument)
    use_all_cores()
    count, height, width = files.read_images("train").shape
    check_fit(key, settings, count, height, width)
    digests = digest_run(
        settings.model_dump(),
        data=[files.images_path("train"), files.images_path("validation")],
        code=loaded_code(__file__),
    )
    checkpoint = checkpoint_path(digests)
    model = build_autoencoder(height, width, settings)
    print(f"{name}: {model.count_params()} parameters, {count} training images", flush=True)

    training = build_training(model, settings, count, (height, width))
    history = train(training, read_pixels("train"), read_pixels("validation"), checkpoint)
    if len(history) < settings.epochs:
        best = history[best_epoch(history) - 1]
        print(f"stopped after epoch {len(history)}: the best val_loss, {best.val_loss:.5f}, was in epoch {best.epoch}")
    table = pd.DataFrame(history, columns=list(Epoch._fields))
    if not settings.kl_weight:
        table = table.drop(columns=["kl", "val_kl"])
    csv = table.to_csv(index=False, float_format="%.9g", lineterminator="\n").encode()
    files.write_all({written.model: keras_bytes(model), written.history: csv})
    with suppress(OSError):  # a checkpoint that stays does no harm
        checkpoint.unlink()


if __name__ == "__main__":
    run(main)
