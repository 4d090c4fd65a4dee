"""What codes hold: dimensions in use, and codes drawn from Gaussians that were fitted to others, or from the prior."""

from typing import NamedTuple

import numpy as np

from stages.core.arrays import Bytes, Float64, Floats, Int64
from stages.core.linear import code_moments


def active_dimensions(codes: Floats, threshold: float) -> int:
    """How many latent dimensions have a variance above `threshold` over codes float [images, latent_dim].

    Y. Burda, R. Grosse, R. Salakhutdinov, "Importance weighted autoencoders" (2016), call a
    unit active in this way, with 0.01.
    """
    return int((codes.var(axis=0, dtype=np.float64) > threshold).sum())


class Mixture(NamedTuple):
    """Gaussians from which codes are drawn."""

    weights: Float64  # [components], sum 1
    means: Float64  # [components, latent_dim]
    covariances: Float64  # [components, latent_dim, latent_dim]


def class_mixture(codes: Floats, labels: Bytes) -> Mixture:
    """A Gaussian with full covariance for the codes of each class, in the order of labels, weighted by their number.

    codes: float [images, latent_dim]. labels: uint8 [images].
    """
    classes, counts = np.unique(labels, return_counts=True)
    moments = [code_moments(codes[labels == label]) for label in classes]
    means, covariances = (np.stack(part) for part in zip(*moments, strict=True))
    return Mixture(counts / len(labels), means, covariances)


def prior_mixture(latent_dim: int) -> Mixture:
    """The standard normal, a variational model's prior."""
    return Mixture(np.ones(1), np.zeros((1, latent_dim)), np.eye(latent_dim)[None])


def draw_codes(mixture: Mixture, count: int, seed: int) -> tuple[Float64, Int64]:
    """Codes float64 [count, latent_dim] drawn from a mixture, and the component of each, int64 [count]."""
    random = np.random.default_rng(seed)
    components = random.choice(len(mixture.weights), count, p=mixture.weights)
    codes = np.empty((count, mixture.means.shape[1]))
    for index, (mean, covariance) in enumerate(zip(mixture.means, mixture.covariances, strict=True)):
        drawn = components == index
        codes[drawn] = draw_gaussian(random, mean, covariance, int(drawn.sum()))
    return codes, components


def draw_gaussian(random: np.random.Generator, mean: Float64, covariance: Float64, count: int) -> Float64:
    """Codes float64 [count, latent_dim] drawn from a Gaussian, whose covariance may be singular."""
    return random.multivariate_normal(mean, covariance, count, check_valid="ignore", method="eigh")


def sample_codes(codes: Floats, labels: Bytes, samples: int, seed: int) -> Float64:
    """Draw from a Gaussian with full covariance fitted to the codes of each class.

    codes: float [images, latent_dim]. labels: uint8 [images].
    Returns float64 [classes, samples, latent_dim], classes in the order of labels.
    """
    random, fitted = np.random.default_rng(seed), class_mixture(codes, labels)
    gaussians = zip(fitted.means, fitted.covariances, strict=True)
    return np.stack([draw_gaussian(random, mean, covariance, samples) for mean, covariance in gaussians])


def sample_prior(samples: int, latent_dim: int, seed: int) -> Float64:
    """Draw codes from the standard normal, a variational model's prior: float64 [samples, latent_dim]."""
    return np.random.default_rng(seed).standard_normal((samples, latent_dim))
