"""How well images are reconstructed, and the linear baseline: measures that need only NumPy.

Images and reconstructions are float [images, pixels] in [0, 1]; anything with such rows
is scored by the same functions, a model, PCA or the mean image.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

CLIP = 1e-7  # Keras' epsilon: keeps the logarithm of a wholly wrong pixel finite


def scaled_batches(images: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Images uint8 [images, pixels] as float32 [batch, pixels] in [0, 1], the last batch smaller."""
    for start in range(0, len(images), batch_size):
        yield images[start : start + batch_size] / np.float32(255)


def squared_error(images: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    """Squared error of each image, summed over its pixels: float64 [images], at least 0."""
    return np.square(reconstructions.astype(np.float64) - images).sum(axis=1)


def bce(images: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    """Binary cross-entropy of each image, mean over its pixels, in nats: float64 [images], at least 0.

    -x log y - (1 - x) log(1 - y) with y clipped to [CLIP, 1 - CLIP]. Grey pixels keep it
    above 0 even for a perfect reconstruction.
    """
    y = np.clip(reconstructions.astype(np.float64), CLIP, 1 - CLIP)
    return -(images * np.log(y) + (1 - images) * np.log1p(-y)).mean(axis=1)


def psnr(mse: float) -> float:
    """Peak signal-to-noise ratio in decibels of a mean squared error per pixel above 0, peak value 1."""
    return float(-10 * np.log10(mse))


class Pca(NamedTuple):
    """The best linear autoencoder: projection on the leading principal components."""

    mean: np.ndarray  # float64 [pixels]
    components: np.ndarray  # float64 [components, pixels], orthonormal rows


def fit_pca(images: np.ndarray, components: int, batch_size: int) -> Pca:
    """Principal components of images uint8 [images, pixels], scaled to [0, 1].

    No linear map to as many dimensions and back has a smaller squared error on these
    images (C. Eckart, G. Young, "The approximation of one matrix by another of lower
    rank", 1936). There are at most as many components as pixels.
    The sums of products of bytes are whole numbers below 2^53, so float64 holds them exactly
    and the covariance does not depend on the order of summation.
    """
    pixels = images.shape[1]
    total, products = np.zeros(pixels), np.zeros((pixels, pixels))
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size].astype(np.float64)
        total += batch.sum(axis=0)
        products += batch.T @ batch
    mean = total / len(images)
    covariance = products / len(images) - np.outer(mean, mean)
    _, eigenvectors = np.linalg.eigh(covariance)  # eigenvalues ascend
    return Pca(mean / 255, eigenvectors[:, ::-1][:, :components].T)


def pca_reconstruct(pca: Pca, images: np.ndarray) -> np.ndarray:
    """Project images float [images, pixels] on the components and back: float64, not clipped to [0, 1]."""
    return pca.mean + (images - pca.mean) @ pca.components.T @ pca.components
