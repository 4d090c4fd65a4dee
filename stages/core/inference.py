"""Load the .keras file of a trained model, and apply it or its halves to arrays."""

from pathlib import Path

import numpy as np

from stages.core.arrays import Float32, Floats, Transform
from stages.core.autoencoder import code_encoder, is_variational
from stages.core.backend import keras, tf
from stages.core.encoder_decoder import EncoderDecoder
from stages.core.errors import StageError, reason
from stages.core.files import how_to_make
from stages.core.products import portable

BATCH = 256  # images computed at a time, unless the caller names another number


def compile_model(model: keras.Model, batch_size: int = BATCH) -> Transform:
    """Compile a model as a function of arrays of any length: floats [items, inputs] -> float32 [items, outputs].

    It computes `batch_size` items at a time, the last ones filled up, so that XLA compiles once. Of several outputs
    it returns a row each: float32 [items, outputs, size].
    """
    computed = portable(model)

    @tf.function(jit_compile=True, autograph=False)
    def compute(batch: tf.Tensor) -> tf.Tensor:
        outputs = computed(batch, training=False)
        return tf.cast(tf.stack(outputs, axis=1) if isinstance(outputs, list) else outputs, tf.float32)

    def apply(items: Floats) -> Float32:
        results = []
        for start in range(0, max(1, len(items)), batch_size):  # an empty input still needs an output shape
            part = items[start : start + batch_size].astype(np.float32)
            filled = np.pad(part, ((0, batch_size - len(part)), (0, 0)))
            results.append(compute(filled).numpy()[: len(part)])
        return np.concatenate(results)

    return apply


def halves(model: keras.Model, batch_size: int = BATCH) -> EncoderDecoder:
    """A model's encoder and decoder, compiled. batch_size: images computed at a time."""
    encode, decode = (compile_model(half, batch_size) for half in (code_encoder(model), model.get_layer("decoder")))
    posterior = compile_model(model.get_layer("encoder"), batch_size) if is_variational(model) else None
    return EncoderDecoder(encode, decode, model.count_params(), posterior)


def load_autoencoder(path: Path) -> keras.Model:
    """Load a model written by the train stage, in Keras' safe mode: no code from the file runs.

    Raises StageError if the file is missing or broken or is no autoencoder.
    """
    try:
        path.open("rb").close()  # Keras would call a file that may not be read missing
    except FileNotFoundError:
        raise StageError(f"{path} is missing; {how_to_make(path)}.") from None
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        for half in ("encoder", "decoder"):
            model.get_layer(half)
    except Exception as error:  # Keras, zipfile, h5py and json each raise their own kinds
        raise StageError(f"cannot load {path} as an autoencoder ({reason(error)}); {how_to_make(path)}.") from None
    return model


def check_size(path: Path, model: keras.Model, height: int, width: int) -> None:
    """Raise StageError if the model in the file `path` takes images of another size than those prepared."""
    if model.input_shape[1] != height * width:
        raise StageError(
            f"{path} takes {model.input_shape[1]} pixels, but the images of data/prepared have {height}×{width}; "
            "run `dvc repro`."
        )
