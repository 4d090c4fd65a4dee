"""Linear baselines from moments: PCA and the linear probe.

Both need only means and covariances, so they need no float copy of the images.
"""

from typing import NamedTuple

import numpy as np

from stages.core.arrays import Bytes, Float64, Floats
from stages.core.measures import BATCH


class Moments(NamedTuple):
    """Mean and covariance (divided by the count) of images or codes."""

    mean: Float64  # [features]
    covariance: Float64  # [features, features]


def image_moments(images: Bytes) -> Moments:
    """Moments of images uint8 [images, pixels], scaled to [0, 1].

    The sums of products of bytes are whole numbers below 2^53, so float64 holds them exactly
    and the result does not depend on the order of summation.
    """
    pixels = images.shape[1]
    total, products = np.zeros(pixels), np.zeros((pixels, pixels))
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH].astype(np.float64)
        total += batch.sum(axis=0)
        products += batch.T @ batch
    mean = total / len(images)
    return Moments(mean / 255, (products / len(images) - np.outer(mean, mean)) / 255**2)


def code_moments(codes: Floats) -> Moments:
    """Moments of codes float [images, latent_dim], of at least one image."""
    centred = codes - codes.mean(axis=0, dtype=np.float64)
    return Moments(codes.mean(axis=0, dtype=np.float64), centred.T @ centred / len(codes))


class Pca(NamedTuple):
    """The best linear autoencoder: projection on the leading principal components."""

    mean: Float64  # [pixels]
    components: Float64  # [components, pixels], orthonormal rows

    def encode(self, images: Floats) -> Float64:
        """Images float [images, pixels] as codes float64 [images, components]."""
        return (images - self.mean) @ self.components.T

    def decode(self, codes: Floats) -> Float64:
        """Codes as images float64 [images, pixels], not clipped to [0, 1]."""
        return self.mean + codes @ self.components


def fit_pca(moments: Moments, components: int) -> Pca:
    """Principal components; there are at most as many as features.

    No linear map to as many dimensions and back has a smaller squared error on the data
    of these moments (C. Eckart, G. Young, "The approximation of one matrix by another of
    lower rank", 1936).
    """
    _, eigenvectors = np.linalg.eigh(moments.covariance)  # eigenvalues ascend
    return Pca(moments.mean, eigenvectors[:, ::-1][:, :components].T)


def principal_plane(codes: Floats) -> tuple[Pca, Float64, float]:
    """The plane of the two principal components of codes float [images, latent_dim].

    Returns the plane, the codes on it float64 [images, 2], and the share of their variance that it shows, 0 to 1. A
    code of one number lies on a line.
    """
    moments = code_moments(codes)
    pca = fit_pca(moments, 2)
    plane = Pca(pca.mean, np.pad(pca.components, ((0, 2 - len(pca.components)), (0, 0))))
    points, total = plane.encode(codes), float(np.trace(moments.covariance))
    return plane, points, float(points.var(axis=0).sum() / total) if total > 0 else 1.0


def class_means(features: Floats | Bytes, labels: Bytes) -> Float64:
    """Mean features of each class, in the order of labels: float64 [classes, features].

    features: [images, features] of any number type. labels: uint8 [images].
    """
    return np.stack([features[labels == label].mean(axis=0, dtype=np.float64) for label in np.unique(labels)])


class Probe(NamedTuple):
    """A linear classifier: how much of a class can be read off features by a weighted sum."""

    classes: Bytes  # [classes], ascending
    weights: Float64  # [features, classes]
    intercept: Float64  # [classes]

    def predict(self, features: Floats) -> Bytes:
        """The class with the highest score for each row of float [images, features]: uint8 [images]."""
        best: Bytes = self.classes[np.argmax(features @ self.weights + self.intercept, axis=1)]
        return best


def fit_probe(moments: Moments, means: Float64, labels: Bytes, ridge: float) -> Probe:
    """Ridge regression from features to one-hot labels (A. Hoerl, R. Kennard, 1970), intercept free.

    Minimises |Y - XW - b|^2 + ridge |W|^2, as scikit-learn's RidgeClassifier does, from the
    features' moments, the means of their classes (see class_means) and the labels, since
    with one-hot targets nothing else of the features enters.
    """
    classes, counts = np.unique(labels, return_counts=True)
    shares = counts / len(labels)
    products = ((means - moments.mean) * shares[:, None]).T  # [features, classes], centred X'Y / n
    penalised = moments.covariance + ridge / len(labels) * np.eye(len(moments.mean))
    weights = np.linalg.solve(penalised, products).astype(np.float64, copy=False)
    return Probe(classes, weights, shares - moments.mean @ weights)
