"""Loading the .keras file of a trained model or of the classifier."""

from pathlib import Path

from stages.applications.classifier import FEATURES
from stages.core.backend import keras
from stages.core.errors import StageError
from stages.core.files import how_to_make


def load_autoencoder(path: Path) -> keras.Model:
    """Load a model written by the train stage, in Keras' safe mode (no code from the file runs).

    Raises StageError if the file is missing or broken or is no autoencoder.
    """
    return _load(path, "autoencoder", ("encoder", "decoder"))


def load_classifier(path: Path) -> keras.Model:
    """Load what the classifier stage wrote. Raises StageError as `load_autoencoder` does."""
    return _load(path, "classifier", (FEATURES,))


def _load(path: Path, kind: str, layers: tuple[str, ...]) -> keras.Model:
    try:
        path.open("rb").close()  # Keras would call a file that may not be read missing
    except FileNotFoundError:
        raise StageError(f"{path} is missing; {how_to_make(path)}.") from None
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        for layer in layers:
            model.get_layer(layer)
    except Exception as error:  # Keras, zipfile, h5py and json each raise their own kinds
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise StageError(f"{path} is not a whole {kind} ({reason}); {how_to_make(path)}.") from None
    return model


def check_classes(path: Path, classifier: keras.Model, classes: int) -> None:
    """Raise StageError if the classifier in the file `path` tells another number of classes apart."""
    if classifier.output_shape[1] != classes:
        raise StageError(
            f"{path} tells {classifier.output_shape[1]} classes apart, but the training images are of {classes}; "
            "run `dvc repro`."
        )


def check_size(path: Path, model: keras.Model, height: int, width: int) -> None:
    """Raise StageError if the model in the file `path` takes images of another size than those prepared."""
    if model.input_shape[1] != height * width:
        raise StageError(
            f"{path} takes {model.input_shape[1]} pixels, but the images of data/prepared have {height}×{width}; "
            "run `dvc repro`."
        )
