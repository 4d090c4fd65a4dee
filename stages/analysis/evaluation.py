"""What `evaluate` measures of a model and hands to compare, figures and the tools, and its file.

Pictures are float32 [..., height, width], black 0 and white 1. Squared errors are summed
over the pixels of an image, unless they are called mse.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, get_type_hints

import numpy as np

from stages.common.arrays import Bytes, Float32, Float64, Int64
from stages.common.errors import StageError
from stages.common.files import BROKEN_ARRAY, model_files

Record = TypeVar("Record")


@dataclass(frozen=True, eq=False)
class Digits:
    """The test digits: the same in the evaluations of all models."""

    labels: Bytes  # [test images]
    shown: Int64  # [classes], positions of the first test image of each class
    images: Float32  # [classes, height, width], those images


@dataclass(frozen=True, eq=False)
class Result:
    """What one way to compress images does: a trained model, or PCA of the same latent size."""

    latent_dim: int
    parameters: int  # numbers that encoder and decoder are made of
    mse: float  # on the test images, per pixel
    mse_train: float
    mse_validation: float
    psnr: float  # of mse, in decibels
    ssim: float  # mean over the test images, -1 to 1
    bce: float  # binary cross-entropy, mean over test images and pixels, in nats
    probe: float  # share of the test images whose class a linear probe reads off the code
    generation: float  # share of the generated digits whose nearest training image is of their class
    active_dimensions: int  # latent dimensions that vary over the training images

    kl: Float64  # [test images], divergence of the posterior from the prior in nats; empty if not variational
    squared_error: Float64  # [test images]
    codes: Float32  # [test images, latent_dim]
    reconstructions: Float32  # [classes, height, width], of Digits.images
    extremes: Int64  # [3, EXTREMES], positions of the test images with the smallest, median and largest errors
    extreme_images: Float32  # [3, EXTREMES, height, width]
    extreme_reconstructions: Float32  # [3, EXTREMES, height, width]
    interpolations: Float32  # [pairs, STEPS, height, width], from one shown digit to another
    traversals: Float32  # [dimensions, STEPS, height, width], the most varied dimension first
    samples: Float32  # [classes, SAMPLES, height, width], generated digits; if variational, of no class
    weights: Float32  # [dimensions, height, width], of a linear encoder; empty for one with hidden layers

    @property
    def variational(self) -> bool:
        """Whether codes are the means of posteriors."""
        return self.kl.size > 0


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A trained model beside its baselines."""

    mse_mean_image: float  # of always showing the mean training image, on the test images
    probe_pixels: float  # as Result.probe, of a probe that sees every pixel
    loss: Float64  # [epochs], on the training images
    val_loss: Float64  # [epochs], on the validation images
    kl: Float64  # [epochs], mean divergence in nats on the training images; 0 if not variational
    val_kl: Float64  # [epochs]
    digits: Digits
    model: Result
    pca: Result

    @property
    def latent_dim(self) -> int:
        """The size of the model's code."""
        return self.model.latent_dim

    @property
    def pixels(self) -> int:
        """The number of pixels of an image."""
        return int(self.digits.images[0].size)

    @property
    def overcomplete(self) -> bool:
        """Whether the code has at least as many numbers as the image, so that PCA makes no error."""
        return self.latent_dim >= self.pixels


def results_by_name(evaluations: dict[str, Evaluation]) -> dict[str, Result]:
    """All results by the name to show: PCA of each latent size in use first, then the models.

    evaluations: by model name. PCA of all pixels and more, which gives every image back, is left out.
    """
    undercomplete = [e for e in evaluations.values() if not e.overcomplete]
    by_size = {e.latent_dim: e.pca for e in sorted(undercomplete, key=lambda e: e.latent_dim)}
    models = {f"{name} (overcomplete)" if e.overcomplete else name: e.model for name, e in evaluations.items()}
    return {f"PCA ({size})": result for size, result in by_size.items()} | models


def save_evaluation(file: BinaryIO, evaluation: Evaluation) -> None:
    """Write an evaluation to an open file, in NumPy's .npz format: an array for each field, "model.mse" and so on."""
    np.savez(file, allow_pickle=False, **dict(_flattened(evaluation, "")))


def load_evaluation(path: Path) -> Evaluation:
    """Read what `save_evaluation` wrote.

    Raises StageError if the file is missing or no whole evaluation.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return _build(Evaluation, dict(archive), "")
    except FileNotFoundError:
        raise StageError(f"{path} is missing; run `dvc repro`.") from None
    except BROKEN_ARRAY as error:
        raise StageError(f"{path} is not a whole evaluation ({error}); run `dvc repro`.") from None


def load_evaluations(names: list[str]) -> dict[str, Evaluation]:
    """The evaluations of the models of params.yaml, by name. Raises StageError as `load_evaluation` does."""
    return {name: load_evaluation(model_files(name).evaluation) for name in names}


def _flattened(record: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for field in fields(record):
        value = getattr(record, field.name)
        if is_dataclass(value):
            yield from _flattened(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value


def _build(kind: type[Record], arrays: dict[str, Any], prefix: str) -> Record:
    values: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        if is_dataclass(hint):
            values[name] = _build(hint, arrays, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            value = arrays[prefix + name]
            values[name] = hint(value) if hint in (int, float) else value
    return kind(**values)
