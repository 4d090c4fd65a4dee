"""What the codes of all digits tell about one code: ranges, classes, the map, and its neighbours."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.core.arrays import Bytes, Float32, Float64, Floats, Int64, Transform
from stages.core.codes import sample_codes
from stages.core.errors import StageError
from stages.core.linear import Pca, class_means, code_moments, fit_pca
from stages.core.measures import scaled_batches

BATCH = 1024  # images encoded, or codes compared, at a time
ENDS = (0.1, 99.9)  # percentiles of the training codes between which a slider moves; single outliers lie outside
QUARTILES = (25.0, 50.0, 75.0)


class Atlas(NamedTuple):
    """The codes of one model, and what is known of them."""

    train_codes: Float32  # [training images, latent_dim], mapped from a file
    train_labels: Bytes  # [training images]
    classes: Bytes  # [classes], ascending
    mean: Float64  # [latent_dim], of the training codes, as all that follow
    ends: Float64  # [2, latent_dim]
    quartiles: Float64  # [3, latent_dim]
    class_means: Float64  # [classes, latent_dim]
    plane: Pca  # the two principal components of the test codes
    points: Float32  # [test images, 2], the test codes there
    share: float  # of the test codes' variance that the plane shows, 0 to 1


def encode_to_file(encode: Transform, images: Bytes, path: Path) -> Float32:
    """Codes of images uint8 [images, pixels]: float32 [images, latent_dim], mapped from a new file.

    Memory stays within a batch, whatever the number of images.
    """
    codes: Float32 | None = None
    for index, batch in enumerate(scaled_batches(images, BATCH)):
        part = encode(batch)
        if codes is None:
            codes = np.lib.format.open_memmap(path, "w+", np.float32, (len(images), part.shape[1]))
        codes[index * BATCH : index * BATCH + len(part)] = part
    assert codes is not None  # noqa: S101 (there is at least one image)
    return codes


def make_atlas(train_codes: Float32, train_labels: Bytes, test_codes: Floats) -> Atlas:
    """The atlas of a model's codes: float [images, latent_dim] of the training and of the test images."""
    classes = np.unique(train_labels)
    summary = np.empty((5, train_codes.shape[1]))
    for column, values in enumerate(train_codes.T):  # one at a time: percentiles copy what they sort
        summary[:, column] = np.percentile(values, (*ENDS, *QUARTILES))
    moments = code_moments(test_codes)
    plane = flat(fit_pca(moments, 2))
    points = plane.encode(test_codes)
    total = float(np.trace(moments.covariance))
    return Atlas(
        train_codes,
        train_labels,
        classes,
        train_codes.mean(axis=0, dtype=np.float64),
        summary[:2],
        summary[2:],
        class_means(train_codes, train_labels),
        plane,
        points.astype(np.float32),
        float(points.var(axis=0).sum() / total) if total > 0 else 1.0,
    )


def flat(plane: Pca) -> Pca:
    """The plane with two components even if a code is a single number: then all of it lies on a line."""
    missing = 2 - len(plane.components)
    return Pca(plane.mean, np.pad(plane.components, ((0, missing), (0, 0))))


def class_of(atlas: Atlas, label: int) -> int:
    """The position of a class among `atlas.classes`. Raises StageError if no training image is of it."""
    found = np.flatnonzero(atlas.classes == label)
    if not found.size:
        raise StageError(f"no training digit is of class {label}.")
    return int(found[0])


def random_code(atlas: Atlas, label: int, seed: int) -> Float64:
    """A code drawn from the Gaussian of a class, as `sample_codes` fits it: float64 [latent_dim].

    Raises StageError if no training image is of it.
    """
    chosen = atlas.train_labels == atlas.classes[class_of(atlas, label)]
    code: Float64 = sample_codes(atlas.train_codes[chosen], atlas.train_labels[chosen], 1, seed)[0, 0]
    return code


def neighbours(atlas: Atlas, code: Floats, count: int) -> Int64:
    """Positions of the training images whose codes lie nearest to `code` float [latent_dim], nearest first.

    int64 [count], or as many as there are images.
    """
    wanted = code.astype(np.float32)
    distances = np.concatenate(
        [
            np.square(atlas.train_codes[start : start + BATCH] - wanted).sum(axis=1)
            for start in range(0, len(atlas.train_codes), BATCH)
        ]
    )
    count = min(count, len(distances))
    nearest = np.argpartition(distances, count - 1)[:count]
    return nearest[np.argsort(distances[nearest], kind="stable")]


def line(start: Floats, end: Floats, steps: int) -> Float64:
    """Codes on the straight line from one code to another, both included: float64 [steps, latent_dim]."""
    weights = np.linspace(0, 1, steps)[:, None]
    return start * (1 - weights) + end * weights


def traversals(atlas: Atlas, code: Floats) -> Float64:
    """The code with each of its numbers at the two ends of its slider: float64 [latent_dim, 2, latent_dim]."""
    moved = np.tile(code.astype(np.float64), (len(code), 2, 1))
    each = np.arange(len(code))
    moved[each, :, each] = atlas.ends.T
    return moved
