"""Classical denoisers, as scikit-image has them, and the settings among which validation images choose.

Each knows the standard deviation of the noise, and its strength is a multiple of it. An autoencoder does not know it.
"""

import itertools
import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from skimage.restoration import cycle_spin, denoise_nl_means, denoise_tv_chambolle, denoise_wavelet

from stages.core.arrays import Float32, Floats


class Denoiser(NamedTuple):
    """A method with one setting."""

    setting: str  # in words
    denoise: Callable[[Float32, float], Floats]  # an image [height, width] and the deviation of its noise -> image

    def apply(self, images: Float32, deviation: float) -> Float32:
        """Denoise images float32 [images, height, width], one by one; clipped to [0, 1]."""
        denoised = np.stack([self.denoise(image, deviation) for image in images])
        return denoised.reshape(images.shape).clip(0, 1).astype(np.float32)  # non-local means turn one row into a line


def nonlocal_means(image: Float32, deviation: float, strength: float) -> Floats:
    """A. Buades, B. Coll, J.-M. Morel, "A non-local algorithm for image denoising" (2005)."""
    found: Floats = denoise_nl_means(image, patch_size=5, patch_distance=6, h=strength * deviation)
    return found


def total_variation(image: Float32, deviation: float, strength: float) -> Floats:
    """A. Chambolle, "An algorithm for total variation minimization and applications" (2004)."""
    found: Floats = denoise_tv_chambolle(image, weight=strength * deviation)
    return found


def wavelets(image: Float32, deviation: float, strength: float, wavelet: str) -> Floats:
    """Soft thresholds of wavelet coefficients (D. Donoho, I. Johnstone, "Ideal spatial adaptation by wavelet
    shrinkage", 1994), as S. Chang, B. Yu and M. Vetterli (2000) choose them.

    The mean over all shifts (R. Coifman, D. Donoho, "Translation-invariant de-noising", 1995), of
    which one level of wavelets distinguishes four.
    """
    options = {"sigma": strength * deviation, "wavelet": wavelet, "wavelet_levels": 1}
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of edges, on images below 14 pixels
        found: Floats = cycle_spin(image, denoise_wavelet, max_shifts=1, func_kw=options, workers=1)
    return found


CHOICES: dict[str, list[Denoiser]] = {  # by display name, which no model can have
    "non-local means": [
        Denoiser(f"h = {strength} σ", partial(nonlocal_means, strength=strength))
        for strength in (0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2)
    ],
    "total variation": [
        Denoiser(f"weight = {strength} σ", partial(total_variation, strength=strength))
        for strength in (0.2, 0.3, 0.4, 0.5, 0.7)
    ],
    "wavelet shrinkage": [
        Denoiser(f"{wavelet}, sigma = {strength} σ", partial(wavelets, strength=strength, wavelet=wavelet))
        for wavelet, strength in itertools.product(("db2", "sym4"), (0.5, 0.75, 1.0))
    ],
}


def choose(denoisers: list[Denoiser], clean: Float32, noisy: Float32, deviation: float) -> Denoiser:
    """The one with the smallest squared error on images float32 [images, height, width], the first of equal ones."""
    errors = [np.square(denoiser.apply(noisy, deviation) - clean, dtype=np.float64).sum() for denoiser in denoisers]
    return denoisers[int(np.argmin(errors))]
