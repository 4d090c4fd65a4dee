"""Train one autoencoder.

    python -m stages.train deep

Reads the images in data/prepared. Writes data/models/<name>.keras, a plain functional model that
`keras.saving.load_model` opens, and data/history/<name>.csv with the epoch's number
(from 1), its training loss and the validation loss after it, and the parts of both that
are a variational model's divergence, in nats. Labels are never read: the image is its own
target. A run that was killed continues at the next start, at the last
epoch that it saved, and ends in the same bytes.
"""

from contextlib import suppress

import pandas as pd

from stages.core import files
from stages.core.archive import keras_bytes
from stages.core.autoencoder import build_autoencoder
from stages.core.backend import use_threads
from stages.core.checkpoint import Epoch, checkpoint_path, digest_run, loaded_code
from stages.core.command import parse_model
from stages.core.errors import ParamsError, run
from stages.core.images import read_pixels
from stages.core.params import Choice, choose_model, read_params
from stages.core.replicas import Replicas, join_replicas
from stages.core.schema import Model
from stages.core.training import build_training, tell_early_stop, train


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
    tell_early_stop(history, settings)
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


if __name__ == "__main__":
    run(main)
