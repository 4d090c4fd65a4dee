"""The one builder of every autoencoder, and the file format that it is kept in.

A shallow autoencoder is a deep one with no hidden layers; models differ by data in
params.yaml, never by code.
"""

import json
import tempfile
import zipfile
from collections.abc import Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from stages.backend import keras
from stages.errors import StageError


def build_autoencoder(
    pixels: int,
    hidden_units: Sequence[int],
    hidden_activation: str,
    latent_dim: int,
    latent_activation: str,
    precision: str,
    seed: int,
) -> keras.Model:
    """A functional model made of two named sub-models, "encoder" and "decoder".

    Input and output: float32 [images, pixels] in [0, 1]; the code between them
    [images, latent_dim], float32 or, in mixed precision, the 16-bit type of `precision`.
    Weights are float32, drawn from `seed` (Glorot uniform, biases zero).
    """
    keras.utils.set_random_seed(seed)
    dense = partial(keras.layers.Dense, dtype=precision)

    image = keras.Input((pixels,), name="image")
    hidden = image
    for index, units in enumerate(hidden_units, 1):
        hidden = dense(units, hidden_activation, name=f"hidden_{index}")(hidden)
    latent = dense(latent_dim, latent_activation, name="latent")(hidden)
    encoder = keras.Model(image, latent, name="encoder")

    code = keras.Input((latent_dim,), name="code")
    hidden = code
    for index, units in reversed(list(enumerate(hidden_units, 1))):  # the encoder's mirror image
        hidden = dense(units, hidden_activation, name=f"hidden_{index}")(hidden)
    # float32 in any precision: 16 bits leave too few steps for a loss between near pixels
    reconstruction = keras.layers.Dense(pixels, "sigmoid", dtype="float32", name="reconstruction")(hidden)
    decoder = keras.Model(code, reconstruction, name="decoder")

    image = keras.Input((pixels,), name="image")
    return keras.Model(image, decoder(encoder(image)), name="autoencoder")


def keras_bytes(model: keras.Model) -> bytes:
    """The model as a .keras archive that depends on nothing but its layers and weights.

    Keras stamps its archives with the time of saving and with memory addresses
    (`shared_object_id`, which only matters to objects shared between layers; here there
    are none), so the archive is written anew without them.
    Raises OSError, naming the file, if the temporary folder is full.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        try:
            model.save(path)
        except OSError as error:  # Keras doesn't say which file
            raise OSError(error.errno, f"cannot be written: {error.strerror or error}", str(path)) from error
        archive = BytesIO()
        with zipfile.ZipFile(path) as saved, zipfile.ZipFile(archive, "w") as rewritten:
            for name in sorted(saved.namelist()):
                content = saved.read(name)
                if name == "metadata.json":
                    content = _dump({k: v for k, v in json.loads(content).items() if k != "date_saved"})
                elif name == "config.json":
                    content = _dump(_without(json.loads(content), "shared_object_id"))
                rewritten.writestr(zipfile.ZipInfo(name), content)  # ZipInfo's own date is 1980
    return archive.getvalue()


def load_autoencoder(path: Path) -> keras.Model:
    """Load a model written by the train stage, in Keras' safe mode (no code from the file runs).

    Raises StageError if the file is missing or broken or is no autoencoder.
    """
    if not path.is_file():
        raise StageError(f"{path} is missing; run `dvc repro`.")
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        model.get_layer("encoder"), model.get_layer("decoder")
    except Exception as error:  # Keras, zipfile, h5py and json each raise their own kinds
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise StageError(f"{path} is not a whole autoencoder ({reason}); run `dvc repro`.") from None
    return model


def _dump(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


def _without(content: Any, key: str) -> Any:
    """A JSON value with every entry named `key` left out, at any depth."""
    if isinstance(content, dict):
        return {k: _without(v, key) for k, v in content.items() if k != key}
    if isinstance(content, list):
        return [_without(v, key) for v in content]
    return content
