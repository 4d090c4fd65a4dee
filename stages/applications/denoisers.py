"""Denoisers without a network, and the settings among which validation images choose.

Each knows the standard deviation of the noise. An autoencoder does not know it.
"""

import itertools
import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from skimage.restoration import cycle_spin, denoise_wavelet

from stages.applications.denoising import TRAINING, add_noise
from stages.core.arrays import Bytes, Float32, Floats

BLOCK = 1000  # training images at a time
PENALTIES = (0.1, 1.0, 10.0, 100.0)
STRENGTHS = (0.5, 0.75, 1.0, 1.25)  # multiples of the noise
OFFSETS = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4, 1.6, 2.0)  # multiples of the noise
FACTORS = (1.0, 1.1, 1.2, 1.3, 1.4, 1.6, 1.8, 2.0, 2.25, 2.5, 3.0)


class Denoiser(NamedTuple):
    """A method with one setting, and with what corrects its brightness.

    Clipped noise on black pixels is never below zero. A method that expects a mean of zero turns it into grey.
    """

    setting: str  # in words
    denoise: Callable[[Float32, float], Floats]  # an image [height, width] and the deviation of its noise -> image
    offset: float = 0.0  # subtracted from the result, a multiple of the deviation
    factor: float = 1.0  # that the rest is multiplied by

    def apply(self, images: Float32, deviation: float) -> Float32:
        """Denoise images float32 [images, height, width], one by one; clipped to [0, 1]."""
        denoised = np.stack([self.denoise(image, deviation) for image in images])
        clipped = denoised.reshape(images.shape).clip(0, 1).astype(np.float32)
        return correct(clipped, self.offset * deviation, self.factor)

    def words(self) -> str:
        """The setting and the correction."""
        return f"{self.setting}, {self.factor} (x − {self.offset} σ)"


def correct(images: Float32, offset: float, factor: float) -> Float32:
    """Subtract the offset, multiply by the factor, and clip to [0, 1]."""
    return ((images - np.float32(offset)) * np.float32(factor)).clip(0, 1)


def wavelets_of(images: Bytes, deviation: float, seed: int) -> list[Denoiser]:
    """Wavelet shrinkage with each of STRENGTHS; it learns nothing from images."""
    return [Denoiser(f"sigma = {strength} σ", partial(wavelets, strength=strength)) for strength in STRENGTHS]


def wavelets(image: Float32, deviation: float, strength: float) -> Floats:
    """Soft thresholds of wavelet coefficients (D. Donoho, I. Johnstone, "Ideal spatial adaptation by wavelet
    shrinkage", 1994), as S. Chang, B. Yu and M. Vetterli (2000) choose them.

    The mean over all shifts (R. Coifman, D. Donoho, "Translation-invariant de-noising", 1995), of
    which one level of wavelets distinguishes four.
    """
    options = {"sigma": strength * deviation, "wavelet": "db2", "wavelet_levels": 1}
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of edges, on images below 14 pixels
        found: Floats = cycle_spin(image, denoise_wavelet, max_shifts=1, func_kw=options, workers=1)
    return found


def linear_of(images: Bytes, deviation: float, seed: int) -> list[Denoiser]:
    """Ridge regressions from noisy to clean images, with each of PENALTIES (A. Hoerl, R. Kennard, 1970).

    Each minimises |Y - XW - b|^2 + penalty |W|^2, as scikit-learn's Ridge does. images: uint8 [images, height, width].
    """
    pixels = images[0].size
    sums, products = np.zeros(2 * pixels), np.zeros((pixels, 2 * pixels))
    for number, start in enumerate(range(0, len(images), BLOCK)):
        clean = np.divide(images[start : start + BLOCK], np.float32(255), dtype=np.float32)
        noisy = add_noise(clean, deviation, seed, TRAINING + number).reshape(len(clean), pixels)
        sums += np.hstack([noisy, clean.reshape(noisy.shape)]).sum(axis=0, dtype=np.float64)
        products += np.hstack([noisy.T @ noisy, noisy.T @ clean.reshape(noisy.shape)])
    centred = products - np.outer(sums[:pixels], sums) / len(images)
    covariance, shared = centred[:, :pixels], centred[:, pixels:]
    found = []
    for penalty in PENALTIES:
        weights = np.linalg.solve(covariance + penalty * np.eye(pixels), shared)
        intercept = (sums[pixels:] - sums[:pixels] @ weights) / len(images)
        found.append(Denoiser(f"penalty = {penalty:g}", partial(linear, weights=weights, intercept=intercept)))
    return found


def linear(image: Float32, deviation: float, weights: Floats, intercept: Floats) -> Floats:
    """A weighted sum of all noisy pixels for every clean one."""
    found: Floats = image.ravel() @ weights + intercept
    return found


# Training images uint8 [images, height, width], deviation and seed of the noise -> a denoiser for every setting.
Candidates = Callable[[Bytes, float, int], list[Denoiser]]
CHOICES: dict[str, Candidates] = {  # by display name, which no model can have
    "wavelet shrinkage": wavelets_of,
    "linear regression": linear_of,
}


def choose(denoisers: list[Denoiser], clean: Float32, noisy: Float32, deviation: float) -> Denoiser:
    """The one with the smallest squared error on images float32 [images, height, width], with its best correction."""
    candidates = []
    for denoiser in denoisers:
        denoised = denoiser.apply(noisy, deviation)
        for offset, factor in itertools.product(OFFSETS, FACTORS):
            result = correct(denoised, offset * deviation, factor)
            error = float(np.square(result - clean, dtype=np.float64).sum())
            candidates.append((error, denoiser._replace(offset=offset, factor=factor)))
    return min(candidates, key=lambda candidate: candidate[0])[1]
