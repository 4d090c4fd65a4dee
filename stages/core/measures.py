"""How well images are reconstructed: measures that need only NumPy.

Images and reconstructions are float [images, pixels] in [0, 1]; a model, PCA and the mean
image are measured by the same functions.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from stages.core.arrays import Bytes, Float32, Float64, Floats, Transform

Number = TypeVar("Number", bound=np.number[Any])
BATCH = 1000  # images at a time
CLIP = 1e-7  # Keras' epsilon: keeps the logarithm of a wholly wrong pixel finite


def scaled_batches(images: Bytes) -> Iterator[Float32]:
    """Images uint8 [images, pixels] as float32 [at most BATCH, pixels] in [0, 1]."""
    for start in range(0, len(images), BATCH):
        yield np.divide(images[start : start + BATCH], np.float32(255), dtype=np.float32)


def in_batches(function: Callable[[Float32], NDArray[Number]], images: Bytes) -> NDArray[Number]:
    """What a function makes of images uint8 [images, pixels], given batches as `scaled_batches` makes them."""
    return np.concatenate([function(batch) for batch in scaled_batches(images)])


def squared_error(images: Floats, reconstructions: Floats) -> Float64:
    """Squared error of each image, summed over its pixels: float64 [images], at least 0."""
    errors: Float64 = np.square(reconstructions.astype(np.float64) - images).sum(axis=1)
    return errors


def bce(images: Floats, reconstructions: Floats) -> Float64:
    """Binary cross-entropy of each image, mean over its pixels, in nats: float64 [images], at least 0.

    -x log y - (1 - x) log(1 - y) with y clipped to [CLIP, 1 - CLIP]. Grey pixels keep it
    above 0 even for a perfect reconstruction.
    """
    y = np.clip(reconstructions.astype(np.float64), CLIP, 1 - CLIP)
    entropies: Float64 = -(images * np.log(y) + (1 - images) * np.log1p(-y)).mean(axis=1)
    return entropies


def divergence(posteriors: Floats) -> Float64:
    """Kullback-Leibler divergence of each posterior from the standard normal, in nats: float64 [images], at least 0.

    posteriors: float [images, 2, latent_dim], means and log-variances of diagonal Gaussians.
    D. Kingma, M. Welling, "Auto-encoding variational Bayes" (2014), appendix B.
    """
    mean, log_variance = np.moveaxis(posteriors.astype(np.float64), 1, 0)
    nats: Float64 = (np.square(mean) + np.expm1(log_variance) - log_variance).sum(axis=1) / 2
    return nats


def negative_log_likelihood(
    images: Floats, posteriors: Floats, decode: Transform, samples: int, random: np.random.Generator
) -> Float64:
    """Importance-weighted estimate of minus the log-likelihood of each image, in nats: float64 [images].

    images: float [images, pixels] of 0 and 1, Bernoulli's with what is decoded as probabilities. posteriors: as
    `divergence` takes them, from which codes are sampled. On average at least the true value, and nearer to it the
    more samples. Y. Burda, R. Grosse, R. Salakhutdinov, "Importance weighted autoencoders" (2016), equation 8.
    """
    mean, log_variance = np.moveaxis(posteriors.astype(np.float64), 1, 0)
    log_weights = []
    for _ in range(samples):
        noise = random.standard_normal(mean.shape)
        codes = mean + np.exp(log_variance / 2) * noise
        prior_to_posterior = (np.square(noise) - np.square(codes) + log_variance).sum(axis=1) / 2
        log_weights.append(prior_to_posterior - bce(images, decode(codes)) * images.shape[1])
    estimates: Float64 = np.log(samples) - np.logaddexp.reduce(log_weights, axis=0)
    return estimates


def psnr(mse: float) -> float:
    """Peak signal-to-noise ratio in decibels of a mean squared error per pixel above 0, peak value 1."""
    return float(-10 * np.log10(mse))


def _gaussian_windows(length: int) -> Float64:
    """Weighted means over every window of 11 (or all) of `length` pixels: float64 [windows, length], sigma 1.5."""
    size = min(11, length)
    weights = np.exp(-np.square(np.arange(size) - (size - 1) / 2) / (2 * 1.5**2))
    windows = np.zeros((length - size + 1, length))
    for start in range(len(windows)):
        windows[start, start : start + size] = weights / weights.sum()
    return windows


def ssim(images: Floats, reconstructions: Floats) -> Float64:
    """Structural similarity of each pair, from -1 to 1, 1 if equal: float64 [images].

    Both: float [images, height, width] in [0, 1]. Z. Wang, A. Bovik, H. Sheikh,
    E. Simoncelli, "Image quality assessment: from error visibility to structural
    similarity" (2004), equation 13 with their constants and Gaussian window of 11×11, mean
    over the windows inside the image. The values of tf.image.ssim; two small
    matrix products filter a digit.
    """
    rows, columns = (_gaussian_windows(length) for length in images.shape[1:])

    def local_mean(values: Float64) -> Float64:
        return rows @ values @ columns.T

    x, y = images.astype(np.float64), reconstructions.astype(np.float64)
    mean_x, mean_y = local_mean(x), local_mean(y)
    means, products = mean_x * mean_y, mean_x**2 + mean_y**2
    covariances, variances = local_mean(x * y) - means, local_mean(x**2 + y**2) - products
    c1, c2 = 0.01**2, 0.03**2
    similarities = (2 * means + c1) * (2 * covariances + c2) / ((products + c1) * (variances + c2))
    mean: Float64 = similarities.mean(axis=(1, 2))
    return mean
