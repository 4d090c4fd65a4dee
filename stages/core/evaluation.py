"""The record of what `evaluate` measures, which compare, figures, applications and tools read.

Pictures are [..., height, width], float32 from black 0 to white 1, or uint8 from 0 to 255. Squared errors are
sums over the pixels of an image, unless they are called mse.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.core.arrays import Bytes, Float32, Float64, Int64
from stages.core.errors import StageError
from stages.core.files import model_files
from stages.core.records import load_record

MODEL, BASELINE, UNTRAINED, REFERENCE = "model", "baseline", "untrained", "reference"  # kinds of results


@dataclass(frozen=True, eq=False)
class Digits:
    """The test digits: the same in the evaluations of all models."""

    labels: Bytes  # [test images]
    trained: Bytes  # [trained classes], ascending, the classes of the training images
    shown: Int64  # [classes], positions of the first test image of each class
    images: Float32  # [classes, height, width], those images


@dataclass(frozen=True, eq=False)
class Pictures:
    """What a decoder makes of codes that belong to no image."""

    interpolations: Float32  # [pairs, STEPS, height, width], from one of Digits.images to another
    traversals: Float32  # [dimensions, STEPS, height, width], the most varied dimension first
    samples: Float32  # [trained classes, SAMPLES, height, width], generated digits; if variational, of no class


@dataclass(frozen=True, eq=False)
class Measures:
    """How well one method compresses images: the rows of the report, in this order.

    Where a measure has a number per image, the report shows the mean. docs/metrics.md explains the measures.
    """

    mse: float  # on the test images, per pixel
    mse_train: float
    mse_validation: float
    squared_error: Float64  # [test images]
    psnr: float  # of mse, in decibels
    ssim: float  # mean over the test images, -1 to 1
    bce: float  # binary cross-entropy, mean over test images and pixels, in nats
    probe: float  # accuracy of a linear probe on the test codes
    kl: Float64  # [test images], divergence of the posterior from the prior in nats; empty if not variational
    nll: Float64  # [test images, binarized], minus their log-likelihood in nats; empty if not variational
    active_dimensions: int  # latent dimensions that vary over the training images
    latent_dim: int
    parameters: int  # how many numbers define encoder and decoder


@dataclass(frozen=True, eq=False)
class Result(Measures):
    """Everything that an evaluation stores about one method."""

    kind: str  # MODEL or BASELINE
    name: str  # to display
    codes: Float32  # [test images, latent_dim]
    code_mean: Float64  # [latent_dim], of the training codes
    code_covariance: Float64  # [latent_dim, latent_dim], of the training codes
    reconstructions: Bytes  # [test images, height, width]
    pictures: Pictures

    @property
    def variational(self) -> bool:
        """Whether codes are the means of posteriors."""
        return self.kl.size > 0


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A trained model and the baselines of its latent size."""

    mse_mean_image: float  # of always predicting the mean training image, on the test images
    probe_pixels: float  # as Result.probe, of a probe that sees every pixel
    loss: Float64  # [epochs], on the training images
    val_loss: Float64  # [epochs], on the validation images
    kl: Float64  # [epochs], mean divergence in nats on the training images; 0 if not variational
    val_kl: Float64  # [epochs]
    pca_mean: Float64  # [pixels], the mean training image
    pca_components: Float64  # [latent_dim, pixels] or as many as there are pixels, orthonormal rows
    digits: Digits
    model: Result
    baselines: list[Result]  # as BASELINES lists them, PCA first; empty if overcomplete

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
        """Whether a code has at least as many numbers as an image has pixels."""
        return self.latent_dim >= self.pixels


def results_by_name(evaluations: dict[str, Evaluation]) -> dict[str, Result]:
    """All results by display name: the baselines of each latent size, ascending, then the models.

    evaluations: by model name.
    """
    by_size = {e.latent_dim: e.baselines for e in evaluations.values()}
    baselines = [result for size in sorted(by_size) for result in by_size[size]]
    return {result.name: result for result in [*baselines, *(e.model for e in evaluations.values())]}


def shown_name(name: str, latent_dim: int, pixels: int) -> str:
    """A model's name to display."""
    return f"{name} (overcomplete)" if latent_dim >= pixels else name


def load_evaluation(path: Path) -> Evaluation:
    """A model's evaluation. Raises StageError if the file is missing or no whole evaluation."""
    return load_record(Evaluation, path)


def load_evaluations(names: list[str]) -> dict[str, Evaluation]:
    """The evaluations of the models of params.yaml, by name.

    Raises StageError as `load_evaluation` does, and if they are of different test images.
    """
    paths = {name: model_files(name).evaluation for name in names}
    evaluations = {name: load_evaluation(path) for name, path in paths.items()}
    first = evaluations[names[0]].digits
    for name, evaluation in evaluations.items():
        digits = evaluation.digits
        if not (np.array_equal(digits.labels, first.labels) and np.array_equal(digits.images, first.images)):
            raise StageError(f"{paths[name]} is of other test images than {paths[names[0]]}; run `dvc repro`.")
    return evaluations
