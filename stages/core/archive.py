"""Save a model as a .keras file: equal models give equal bytes, and plain Keras opens them."""

import json
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

from stages.core.backend import keras


def keras_bytes(model: keras.Model) -> bytes:
    """A .keras archive of the model, which depends on nothing but its layers and weights.

    Keras adds the time of saving and memory addresses (`shared_object_id`, which matters only to objects that
    layers share; these models have none). This function removes both.
    Raises OSError, naming the file, if the temporary folder is full.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        try:
            model.save(path)
        except OSError as error:  # Keras omits the path
            raise OSError(error.errno, f"cannot be written: {error.strerror or error}", str(path)) from error
        archive = BytesIO()
        with zipfile.ZipFile(path) as saved, zipfile.ZipFile(archive, "w") as rewritten:
            for name in sorted(saved.namelist()):
                content = saved.read(name)
                if name.endswith(".json"):
                    content = json.dumps(json.loads(content, object_hook=_without_chance), sort_keys=True).encode()
                rewritten.writestr(zipfile.ZipInfo(name), content)  # dated 1980
    return archive.getvalue()


def _without_chance(content: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in ("date_saved", "shared_object_id")}
