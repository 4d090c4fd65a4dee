"""What codes hold: dimensions in use, and codes drawn from Gaussians that were fitted to others."""

import numpy as np

from stages.core.arrays import Bytes, Float64, Floats
from stages.core.linear import code_moments


def active_dimensions(codes: Floats, threshold: float) -> int:
    """How many latent dimensions have a variance above `threshold` over codes float [images, latent_dim].

    Y. Burda, R. Grosse, R. Salakhutdinov, "Importance weighted autoencoders" (2016), call a
    unit active in this way, with 0.01.
    """
    return int((codes.var(axis=0, dtype=np.float64) > threshold).sum())


def draw_gaussian(random: np.random.Generator, mean: Float64, covariance: Float64, count: int) -> Float64:
    """Codes float64 [count, latent_dim] drawn from a Gaussian, whose covariance may be singular."""
    return random.multivariate_normal(mean, covariance, count, check_valid="ignore", method="eigh")


def sample_codes(codes: Floats, labels: Bytes, samples: int, seed: int) -> Float64:
    """Draw from a Gaussian with full covariance fitted to the codes of each class.

    codes: float [images, latent_dim]. labels: uint8 [images].
    Returns float64 [classes, samples, latent_dim], classes in the order of labels.
    """
    random = np.random.default_rng(seed)
    fitted = [code_moments(codes[labels == label]) for label in np.unique(labels)]
    return np.stack([draw_gaussian(random, mean, covariance, samples) for mean, covariance in fitted])
