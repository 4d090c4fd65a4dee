"""What a study improves, measured on the validation images."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from stages.core.arrays import Floats
from stages.core.backend import keras
from stages.core.files import Split
from stages.core.linear import class_means, code_moments, fit_probe
from stages.core.measures import bce, in_batches, squared_error, ssim
from stages.core.schema import Evaluate


class Measured(NamedTuple):
    """What trials are measured on; never the test images."""

    train: Split
    validation: Split
    shape: tuple[int, int]  # height and width of the images
    settings: Evaluate


def measure(model: keras.Model, objectives: Sequence[str], measured: Measured) -> list[float]:
    """The objectives, in their order, as `evaluate` has them, but of the validation images."""
    return [float(OBJECTIVES[name](model, measured)) for name in objectives]


def _mean(model: keras.Model, measured: Measured, of: Callable[[Floats, Floats], Floats]) -> float:
    """The mean over the validation images of a function of images and reconstructions [images, pixels]."""
    images, batch_size = measured.validation.images, measured.settings.batch_size
    # Called as it is, without compilation, which would cost more than it saves here.
    return float(in_batches(lambda x: of(x, model(x).numpy()), images, batch_size).mean())


def _mse(model: keras.Model, measured: Measured) -> float:
    return _mean(model, measured, squared_error) / int(measured.validation.images.shape[1])


def _bce(model: keras.Model, measured: Measured) -> float:
    return _mean(model, measured, bce)


def _ssim(model: keras.Model, measured: Measured) -> float:
    shape = (-1, *measured.shape)
    return _mean(model, measured, lambda x, y: ssim(x.reshape(shape), y.reshape(shape)))


def _probe(model: keras.Model, measured: Measured) -> float:
    encoder, batch_size = model.get_layer("encoder"), measured.settings.batch_size
    train, validation = (
        in_batches(lambda x: encoder(x).numpy().astype(np.float32), split.images, batch_size)
        for split in (measured.train, measured.validation)
    )
    means = class_means(train, measured.train.labels)
    probe = fit_probe(code_moments(train), means, measured.train.labels, measured.settings.ridge)
    return float((probe.predict(validation) == measured.validation.labels).mean())


OBJECTIVES: dict[str, Callable[[keras.Model, Measured], float]] = {
    "mse": _mse,
    "bce": _bce,
    "ssim": _ssim,
    "probe": _probe,
    "parameters": lambda model, _: float(model.count_params()),
    "latent_dim": lambda model, _: float(model.get_layer("encoder").output_shape[1]),
}
