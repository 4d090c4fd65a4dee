"""Loading the .keras file of a trained model."""

from pathlib import Path

from stages.common.errors import StageError
from stages.model.backend import keras


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


def check_size(path: Path, model: keras.Model, height: int, width: int) -> None:
    """Raise StageError if the model in the file `path` takes images of another size than those prepared."""
    if model.input_shape[1] != height * width:
        raise StageError(
            f"{path} takes {model.input_shape[1]} pixels, but the images of data/prepared have {height}×{width}; "
            "run `dvc repro`."
        )
