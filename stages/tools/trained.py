"""A trained model as functions of arrays, for what applies it and for the tools that show what it does."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.core.arrays import Bytes, Float32, Float64, Floats, Transform
from stages.core.errors import StageError
from stages.core.evaluation import Evaluation, load_evaluation
from stages.core.measures import squared_error
from stages.core.params import Choice

BATCH = 256  # images computed at a time, always, so that XLA compiles once
UNUSUAL_PERCENTILE = 99  # of the test errors


class TrainedModel(NamedTuple):
    """A trained model as functions of arrays, and how well it does on the test images."""

    name: str
    height: int
    width: int
    latent_dim: int
    encode: Transform  # float32 [images, pixels] in [0, 1] -> float32 [images, latent_dim]
    decode: Transform  # and back
    test_errors: Float64  # [test images], ascending, squared errors summed over pixels
    refine: Callable[[Float32, Float32], Floats] = lambda images, codes: codes  # as `refine_codes` does

    @property
    def unusual_error(self) -> float:
        """The squared error above which an image is unlike the training data."""
        return float(np.percentile(self.test_errors, UNUSUAL_PERCENTILE))


class Reconstructions(NamedTuple):
    """What a model makes of some images."""

    codes: Float32  # [images, latent_dim]
    images: Float32  # [images, height, width] in [0, 1]
    squared_error: Float64  # [images], summed over pixels
    percentile: Float64  # [images], of the test digits with a smaller error, 0 to 100
    unusual: NDArray[np.bool_]  # [images], above `TrainedModel.unusual_error`

    def first(self, count: int) -> "Reconstructions":
        """Those of the first `count` images."""
        return Reconstructions._make(field[:count] for field in self)


def load_model(chosen: Choice) -> TrainedModel:
    """The trained model that was chosen.

    Raises StageError if the model or its evaluation is missing, broken or of another size.
    """
    check_trained(chosen)
    evaluation = load_evaluation(chosen.files.evaluation)
    # TensorFlow takes seconds to load, and neither --help nor a wrong argument should wait for it.
    from stages.core.backend import use_all_cores
    from stages.core.inference import compile_model

    use_all_cores()
    return build(chosen, evaluation, compile_model)


def check_trained(chosen: Choice) -> None:
    """Raise StageError with what to run if a preset, which `dvc repro` leaves alone, is not trained and evaluated."""
    if chosen.key.startswith("presets.") and not (chosen.files.model.exists() and chosen.files.evaluation.exists()):
        raise StageError(f"the preset {chosen.name} is not trained and evaluated; {how_to_train(chosen)}.")


def how_to_train(chosen: Choice) -> str:
    """What to run for a model that is not trained and evaluated as its settings now are."""
    if chosen.key.startswith("presets."):
        return f"run `python -m stages.train {chosen.name} && python -m stages.evaluate {chosen.name}`"
    return "run `dvc repro`"


def build(chosen: Choice, evaluation: Evaluation, apply: Callable[[Any], Transform]) -> TrainedModel:
    """The model that was chosen, with its evaluation, on the threads that TensorFlow has.

    apply: makes a function of arrays of a Keras model. Raises StageError as `load_model` does.
    """
    from stages.core.autoencoder import code_encoder
    from stages.core.inference import load_autoencoder
    from stages.tools.refinement import refine_codes

    _, height, width = evaluation.digits.images.shape
    model = load_autoencoder(chosen.files.model)
    if model.input_shape[1] != height * width:
        raise StageError(
            f"{chosen.files.model} takes {model.input_shape[1]} pixels, but {chosen.files.evaluation} has "
            f"images of {height}×{width}; run `dvc repro`."
        )
    encoder, decoder = code_encoder(model), model.get_layer("decoder")
    return TrainedModel(
        chosen.name,
        height,
        width,
        encoder.output_shape[1],
        apply(encoder),
        apply(decoder),
        np.sort(evaluation.model.squared_error),
        partial(refine_codes, decoder),
    )


def uncompiled(model: Any) -> Transform:
    """A Keras model as a function of arrays, without XLA: it starts at once, and its memory can be given back.

    XLA keeps what it compiled, some ten megabytes a model, until the process ends.
    """

    def apply(items: Floats) -> Float32:
        parts = [items[start : start + BATCH].astype(np.float32) for start in range(0, max(1, len(items)), BATCH)]
        return np.concatenate([np.asarray(model(part, training=False)).astype(np.float32) for part in parts])

    return apply


def scaled(images: Bytes) -> Float32:
    """Images uint8 [images, height, width] as float32 [images, pixels] in [0, 1]."""
    return np.divide(images.reshape(len(images), -1), np.float32(255), dtype=np.float32)


def encode(model: TrainedModel, images: Bytes) -> Float32:
    """Codes float32 [images, latent_dim] of images uint8 [images, height, width], black 0 and white 255."""
    return model.encode(scaled(images)).astype(np.float32, copy=False)


def reconstruct(model: TrainedModel, images: Bytes) -> Reconstructions:
    """Encode, reconstruct and measure images uint8 [images, height, width], black 0 and white 255."""
    return decode_and_measure(model, images, model.encode(scaled(images)))


def decode_and_measure(model: TrainedModel, images: Bytes, codes: Floats) -> Reconstructions:
    """What is decoded from codes float [images, latent_dim], measured against images as `reconstruct` takes them."""
    decoded = model.decode(codes)
    errors = squared_error(scaled(images), decoded)
    percentile = np.searchsorted(model.test_errors, errors) / len(model.test_errors) * 100
    return Reconstructions(
        codes.astype(np.float32, copy=False),
        decoded.reshape(images.shape).astype(np.float32, copy=False),
        errors,
        percentile,
        errors > model.unusual_error,
    )
