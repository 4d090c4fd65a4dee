"""What codes hold: dimensions in use, and codes drawn from a Gaussian per class or from the prior."""

import numpy as np

from stages.analysis.linear import code_moments
from stages.analysis.measures import scaled_batches
from stages.common.arrays import Bytes, Float64, Floats, Int64


def active_dimensions(codes: Floats, threshold: float) -> int:
    """How many latent dimensions have a variance above `threshold` over codes float [images, latent_dim].

    Y. Burda, R. Grosse, R. Salakhutdinov, "Importance weighted autoencoders" (2016), call a
    unit active in this way, with 0.01.
    """
    return int((codes.var(axis=0, dtype=np.float64) > threshold).sum())


def sample_codes(codes: Floats, labels: Bytes, samples: int, seed: int) -> Float64:
    """Draw from a Gaussian with full covariance fitted to the codes of each class.

    codes: float [images, latent_dim]. labels: uint8 [images].
    Returns float64 [classes, samples, latent_dim], classes in the order of labels.
    """
    random = np.random.default_rng(seed)
    drawn = []
    for label in np.unique(labels):
        mean, covariance = code_moments(codes[labels == label])
        drawn.append(random.multivariate_normal(mean, covariance, samples, check_valid="ignore", method="eigh"))
    return np.stack(drawn)


def sample_prior(samples: int, latent_dim: int, seed: int) -> Float64:
    """Draw codes from the standard normal, a variational model's prior: float64 [samples, latent_dim]."""
    return np.random.default_rng(seed).standard_normal((samples, latent_dim))


def nearest_images(images: Floats, candidates: Bytes, batch_size: int) -> Int64:
    """For each image the position of the candidate at the smallest Euclidean distance: int64 [images].

    images: float [images, pixels] in [0, 1]. candidates: uint8 [candidates, pixels].
    """
    wanted = images.astype(np.float32)
    best, smallest = np.zeros(len(images), np.int64), np.full(len(images), np.inf, np.float32)
    for index, batch in enumerate(scaled_batches(candidates, batch_size)):
        distances = np.square(batch).sum(axis=1) - 2 * wanted @ batch.T  # squared, less |image|^2
        nearest = distances.argmin(axis=1)
        found = distances[np.arange(len(images)), nearest]
        closer = found < smallest
        best[closer], smallest[closer] = index * batch_size + nearest[closer], found[closer]
    return best
