"""The .keras file of a model: the same model is the same bytes, and plain Keras opens it."""

import json
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

from stages.common.errors import StageError
from stages.model.backend import keras


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
    try:
        path.open("rb").close()  # Keras would call a file that may not be read missing
    except FileNotFoundError:
        raise StageError(f"{path} is missing; run `dvc repro`.") from None
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
