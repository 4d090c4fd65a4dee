"""Denoising: noisy images, and the records of what a method makes of them.

Every method gets the same noisy test images, and what it gives back is clipped to [0, 1] as they are.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.applications.schema import Apply
from stages.core.arrays import Float32, Float64, Floats
from stages.core.files import read_images
from stages.core.measures import squared_error, ssim

# The classical methods: their fields in Classical, and the names to show, which no model can have.
METHODS = {"nonlocal_means": "non-local means", "total_variation": "total variation", "wavelets": "wavelet shrinkage"}
SHOWN = 8  # images that are drawn
TEST, VALIDATION = 0, 1  # streams of random numbers, so that no image of either gets the other's noise


@dataclass(frozen=True, eq=False)
class Denoised:
    """What one method makes of the noisy test images."""

    squared_error: Float64  # [noise, images], from the clean image, summed over pixels
    ssim: Float64  # [noise, images], to the clean image
    pictures: Float32  # [noise, SHOWN, height, width], of the first images


@dataclass(frozen=True, eq=False)
class Classical:
    """What does not depend on a model: the noisy test images, and what classical methods make of them."""

    digest: str  # of the noisy test images, as `digest_noisy` gives it
    noise: Float64  # [noise], standard deviations
    images: Float32  # [SHOWN, height, width], the first images without noise
    settings: NDArray[np.str_]  # [methods, noise], of each of METHODS at each noise, in words
    noisy: Denoised
    nonlocal_means: Denoised
    total_variation: Denoised
    wavelets: Denoised


def read_chosen(split: str, count: int, seed: int) -> Float32:
    """At most `count` images of a split, chosen at random: float32 [images, height, width] in [0, 1].

    Raises StageError as `read_images` does.
    """
    images = read_images(split)
    chosen = np.random.default_rng(seed).permutation(len(images))[:count]
    return np.divide(images[np.sort(chosen)], np.float32(255), dtype=np.float32)


def add_noise(images: Float32, deviation: float, seed: int, stream: int) -> Float32:
    """Images float32 [images, height, width] with Gaussian noise of this standard deviation, clipped to [0, 1].

    The noise of one seed and stream differs between deviations by their factor only.
    """
    noise = np.random.default_rng((seed, stream)).standard_normal(images.shape, np.float32)
    return (images + np.float32(deviation) * noise).clip(0, 1)


def noisy_tests(clean: Float32, settings: Apply) -> Iterator[Float32]:
    """The test images `clean` float32 [images, height, width], once with each noise of params.yaml."""
    return (add_noise(clean, deviation, settings.seed, TEST) for deviation in settings.noise)


def digest_noisy(noisy: Iterable[Floats]) -> str:
    """SHA-256 of the noisy test images, noise after noise, so that results of unlike ones are not mixed."""
    digest = hashlib.sha256()
    for images in noisy:
        digest.update(images.tobytes())
    return digest.hexdigest()


def measure_denoised(clean: Float32, given: Iterable[Floats]) -> Denoised:
    """Measure what a method gave back of noisy images, for each noise.

    clean: float32 [images, height, width]. given: of the same number of values each, clipped to [0, 1] here.
    """
    errors, similarities, pictures = [], [], []
    for images in given:
        result = images.reshape(clean.shape).clip(0, 1)
        errors.append(squared_error(clean.reshape(len(clean), -1), result.reshape(len(clean), -1)))
        similarities.append(ssim(clean, result))
        pictures.append(result[:SHOWN].astype(np.float32))
    return Denoised(np.stack(errors), np.stack(similarities), np.stack(pictures))
