"""What `evaluate` measures of a model and hands to compare, figures and the tools, and its file.

Pictures are float32 [..., height, width], black 0 and white 1. Squared errors are summed
over the pixels of an image, unless they are called mse.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from stages.core.arrays import Bytes, Float32, Float64, Int64
from stages.core.errors import StageError
from stages.core.files import model_files
from stages.core.records import load_record

Of = TypeVar("Of")


@dataclass(frozen=True, eq=False)
class Digits:
    """The test digits: the same in the evaluations of all models."""

    labels: Bytes  # [test images]
    trained: Bytes  # [trained classes], ascending, the classes of the training images
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
    distance: Float64  # [test images], squared Mahalanobis distance of the code from the training codes
    combined: Float64  # [test images], anomaly score of both
    codes: Float32  # [test images, latent_dim]
    code_mean: Float64  # [latent_dim], of the training codes
    code_inverse_covariance: Float64  # [latent_dim, latent_dim], inverse of the training codes' covariance
    reconstructions: Float32  # [classes, height, width], of Digits.images
    extremes: Int64  # [3, EXTREMES], positions of the test images with the smallest, median and largest errors
    extreme_images: Float32  # [3, EXTREMES, height, width]
    extreme_reconstructions: Float32  # [3, EXTREMES, height, width]
    interpolations: Float32  # [pairs, STEPS, height, width], from one shown digit to another
    traversals: Float32  # [dimensions, STEPS, height, width], the most varied dimension first
    samples: Float32  # [classes, SAMPLES, height, width], generated digits; if variational, of no class
    weights: Float32  # [dimensions, height, width], of a linear encoder; empty for one with hidden layers
    unusual: Int64  # [2, UNUSUAL], positions of the test images with the largest and the smallest combined score
    unusual_images: Float32  # [2, UNUSUAL, height, width]

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
    pca_mean: Float64  # [pixels], the mean training image
    pca_components: Float64  # [latent_dim, pixels] or as many as there are pixels, orthonormal rows
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
    """All results by the name to show, as `by_name` has it. evaluations: by model name."""
    models = {name: e.model for name, e in evaluations.items()}
    return by_name(evaluations, models, {name: e.pca for name, e in evaluations.items()})


def by_name(evaluations: dict[str, Evaluation], models: dict[str, Of], pcas: dict[str, Of]) -> dict[str, Of]:
    """What there is of each model and of its PCA, by the name to show: PCA of each latent size first, then the models.

    All by model name. PCA of all pixels and more, which gives every image back, is left out.
    """
    undercomplete = [name for name, e in evaluations.items() if not e.overcomplete]
    by_size = {evaluations[name].latent_dim: pcas[name] for name in undercomplete}
    shown = {f"PCA ({size})": by_size[size] for size in sorted(by_size)}
    return shown | {shown_name(name, e): models[name] for name, e in evaluations.items()}


def shown_name(name: str, evaluation: Evaluation) -> str:
    """A model's name in tables and pictures."""
    return f"{name} (overcomplete)" if evaluation.overcomplete else name


def load_evaluation(path: Path) -> Evaluation:
    """A model's evaluation. Raises StageError if the file is missing or no whole evaluation."""
    return load_record(Evaluation, path)


def load_evaluations(names: list[str]) -> dict[str, Evaluation]:
    """The evaluations of the models of params.yaml, by name.

    Raises StageError as `load_evaluation` does, and if they are of different test images.
    """
    paths = {name: model_files(name).evaluation for name in names}
    evaluations = {name: load_evaluation(path) for name, path in paths.items()}
    first, *others = names
    for name in others:
        if not same_digits(evaluations[name].digits, evaluations[first].digits):
            raise StageError(f"{paths[name]} is of other test images than {paths[first]}; run `dvc repro`.")
    return evaluations


def same_digits(one: Digits, other: Digits) -> bool:
    """Whether evaluations are of the same test images, as far as their labels and those shown tell."""
    return np.array_equal(one.labels, other.labels) and np.array_equal(one.images, other.images)
