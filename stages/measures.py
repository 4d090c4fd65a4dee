"""How well images are reconstructed and what codes hold: measures that need only NumPy.

Images and reconstructions are float [images, pixels] in [0, 1], codes float
[images, latent_dim]; anything with such rows is scored by the same functions, a model,
PCA or the mean image.
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


def _gaussian_windows(length: int) -> np.ndarray:
    """Weighted means over every window of 11 (or all) of `length` pixels: float64 [windows, length], sigma 1.5."""
    size = min(11, length)
    weights = np.exp(-np.square(np.arange(size) - (size - 1) / 2) / (2 * 1.5**2))
    windows = np.zeros((length - size + 1, length))
    for start in range(len(windows)):
        windows[start, start : start + size] = weights / weights.sum()
    return windows


def ssim(images: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    """Structural similarity of each pair, from -1 to 1, 1 if equal: float64 [images].

    Both: float [images, height, width] in [0, 1]. Z. Wang, A. Bovik, H. Sheikh,
    E. Simoncelli, "Image quality assessment: from error visibility to structural
    similarity" (2004), equation 13 with their constants and Gaussian window of 11×11, mean
    over the windows inside the image. The values of tf.image.ssim at a seventieth of its
    time, since two small matrix products filter a digit.
    """
    rows, columns = (_gaussian_windows(length) for length in images.shape[1:])

    def local_mean(values: np.ndarray) -> np.ndarray:
        return rows @ values @ columns.T

    x, y = images.astype(np.float64), reconstructions.astype(np.float64)
    mean_x, mean_y = local_mean(x), local_mean(y)
    means, products = mean_x * mean_y, mean_x**2 + mean_y**2
    covariances, variances = local_mean(x * y) - means, local_mean(x**2 + y**2) - products
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * means + c1) * (2 * covariances + c2) / ((products + c1) * (variances + c2))
    return similarity.mean(axis=(1, 2))


class Moments(NamedTuple):
    """Mean and covariance (divided by the count) of images or codes."""

    mean: np.ndarray  # float64 [features]
    covariance: np.ndarray  # float64 [features, features]


def image_moments(images: np.ndarray, batch_size: int) -> Moments:
    """Moments of images uint8 [images, pixels], scaled to [0, 1].

    The sums of products of bytes are whole numbers below 2^53, so float64 holds them exactly
    and the result does not depend on the order of summation.
    """
    pixels = images.shape[1]
    total, products = np.zeros(pixels), np.zeros((pixels, pixels))
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size].astype(np.float64)
        total += batch.sum(axis=0)
        products += batch.T @ batch
    mean = total / len(images)
    return Moments(mean / 255, (products / len(images) - np.outer(mean, mean)) / 255**2)


def code_moments(codes: np.ndarray) -> Moments:
    """Moments of codes float [images, latent_dim], of at least one image."""
    centred = codes - codes.mean(axis=0, dtype=np.float64)
    return Moments(codes.mean(axis=0, dtype=np.float64), centred.T @ centred / len(codes))


class Pca(NamedTuple):
    """The best linear autoencoder: projection on the leading principal components."""

    mean: np.ndarray  # float64 [pixels]
    components: np.ndarray  # float64 [components, pixels], orthonormal rows

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Images float [images, pixels] as codes float64 [images, components]."""
        return (images - self.mean) @ self.components.T

    def decode(self, codes: np.ndarray) -> np.ndarray:
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


def active_dimensions(codes: np.ndarray, threshold: float) -> int:
    """How many latent dimensions have a variance above `threshold` over codes float [images, latent_dim].

    Y. Burda, R. Grosse, R. Salakhutdinov, "Importance weighted autoencoders" (2016), call a
    unit active in this way, with 0.01.
    """
    return int((codes.var(axis=0, dtype=np.float64) > threshold).sum())


def class_means(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean features of each class, in the order of labels: float64 [classes, features].

    features: [images, features] of any number type. labels: integers [images].
    """
    return np.stack([features[labels == label].mean(axis=0, dtype=np.float64) for label in np.unique(labels)])


class Probe(NamedTuple):
    """A linear classifier: how much of a class can be read off features by a weighted sum."""

    classes: np.ndarray  # integers [classes], ascending
    weights: np.ndarray  # float64 [features, classes]
    intercept: np.ndarray  # float64 [classes]

    def predict(self, features: np.ndarray) -> np.ndarray:
        """The class with the highest score for each row of float [images, features]: integers [images]."""
        return self.classes[np.argmax(features @ self.weights + self.intercept, axis=1)]


def fit_probe(moments: Moments, means: np.ndarray, labels: np.ndarray, ridge: float) -> Probe:
    """Ridge regression from features to one-hot labels (A. Hoerl, R. Kennard, 1970), intercept free.

    Minimises |Y - XW - b|^2 + ridge |W|^2, as scikit-learn's RidgeClassifier does, from the
    features' moments, the means of their classes (see class_means) and the labels, since
    with one-hot targets nothing else of the features enters.
    """
    classes, counts = np.unique(labels, return_counts=True)
    shares = counts / len(labels)
    products = ((means - moments.mean) * shares[:, None]).T  # [features, classes], centred X'Y / n
    penalised = moments.covariance + ridge / len(labels) * np.eye(len(moments.mean))
    weights = np.linalg.solve(penalised, products)
    return Probe(classes, weights, shares - moments.mean @ weights)


def sample_codes(codes: np.ndarray, labels: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Draw from a Gaussian with full covariance fitted to the codes of each class.

    codes: float [images, latent_dim]. labels: integers [images].
    Returns float64 [classes, samples, latent_dim], classes in the order of labels.
    """
    random = np.random.default_rng(seed)
    drawn = []
    for label in np.unique(labels):
        mean, covariance = code_moments(codes[labels == label])
        drawn.append(random.multivariate_normal(mean, covariance, samples, check_valid="ignore", method="eigh"))
    return np.stack(drawn)


def nearest_images(images: np.ndarray, candidates: np.ndarray, batch_size: int) -> np.ndarray:
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


def bootstrap_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Means of `values` float [images, columns] over images drawn with replacement: float64 [resamples, columns].

    Each resample has as many images as there are, the same for all columns, so that
    differences between columns are paired (B. Efron, "Bootstrap methods", 1979).
    """
    random, count = np.random.default_rng(seed), len(values)
    # How often each image was drawn: ten times as fast as gathering the drawn rows.
    times_drawn = (np.bincount(random.integers(count, size=count), minlength=count) for _ in range(resamples))
    return np.stack([times @ values for times in times_drawn]) / count
