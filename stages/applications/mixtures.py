"""Mixtures of Gaussians: a way to sample codes."""

from typing import NamedTuple

import numpy as np

from stages.core.arrays import Bytes, Float64, Floats, Int64
from stages.core.codes import draw_gaussian
from stages.core.linear import code_moments


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
