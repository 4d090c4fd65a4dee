"""What the codes of all digits say about one code: ranges, classes, its place on the map, and its neighbours."""

from typing import NamedTuple

import numpy as np

from stages.core.arrays import Bytes, Float32, Float64, Floats, Int64, Transform
from stages.core.errors import StageError
from stages.core.files import Split
from stages.core.linear import Pca, class_means, principal_plane
from stages.core.measures import BATCH, in_batches

ENDS = (0.1, 99.9)  # percentiles of the training codes at the ends of a slider, so that outliers don't stretch it
QUARTILES = (25.0, 50.0, 75.0)


class Atlas(NamedTuple):
    """Statistics of a model's codes: of the test codes for the plane, otherwise of the training codes."""

    train_codes: Float32  # [training images, latent_dim]
    train_labels: Bytes  # [training images]
    classes: Bytes  # [classes], ascending
    mean: Float64  # [latent_dim]
    ends: Float64  # [2, latent_dim]
    quartiles: Float64  # [3, latent_dim]
    class_means: Float64  # [classes, latent_dim]
    plane: Pca  # the two principal components
    points: Floats  # [test images, 2], the test codes on the plane
    share: float  # of the variance that the plane shows, 0 to 1


def make_atlas(encode: Transform, train: Split, test_codes: Floats) -> Atlas:
    """The atlas of a model. test_codes: float [test images, latent_dim]."""
    images = train.images.reshape(len(train.images), -1)
    train_codes = in_batches(encode, images).astype(np.float32)
    return Atlas(
        train_codes,
        train.labels,
        np.unique(train.labels),
        train_codes.mean(axis=0, dtype=np.float64),
        np.percentile(train_codes, ENDS, axis=0),
        np.percentile(train_codes, QUARTILES, axis=0),
        class_means(train_codes, train.labels),
        *principal_plane(test_codes),
    )


def class_codes(atlas: Atlas, label: int | None) -> Float32:
    """The training codes of a class, [images, latent_dim]. Raises StageError if there are none."""
    codes: Float32 = atlas.train_codes[atlas.train_labels == label]
    if not len(codes):
        raise StageError(f"no training digit is of class {label}.")
    return codes


def neighbours(atlas: Atlas, code: Floats, count: int) -> Int64:
    """Positions of the training images whose codes are nearest to `code` float [latent_dim], nearest first.

    int64 [count], or as many as there are images.
    """
    wanted = code.astype(np.float32)
    batches = (atlas.train_codes[start : start + BATCH] for start in range(0, len(atlas.train_codes), BATCH))
    distances = np.concatenate([np.square(batch - wanted).sum(axis=1) for batch in batches])
    return np.argsort(distances, kind="stable")[:count]


def traversals(atlas: Atlas, code: Floats) -> Float64:
    """The code with each of its numbers at the two ends of its slider: float64 [latent_dim, 2, latent_dim]."""
    moved = np.tile(code.astype(np.float64), (len(code), 2, 1))
    each = np.arange(len(code))
    moved[each, :, each] = atlas.ends.T
    return moved
