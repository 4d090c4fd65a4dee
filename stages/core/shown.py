"""What figures show: which digits, and what a decoder makes of chosen codes."""

import numpy as np

from stages.core.arrays import Bytes, Floats, Int64, Transform

# Numbers of pictures and of steps between them, chosen to fit a page.
SAMPLES, PAIRS, STEPS, DIMENSIONS = 10, 4, 9, 6
TRAVERSAL = 2.5  # standard deviations to either side of the mean code


def first_of_each_class(labels: Bytes) -> Int64:
    """The position of the first image of every class, in the order of labels: int64 [classes]."""
    _, positions = np.unique(labels, return_index=True)
    return positions


def interpolate(decode: Transform, codes: Floats) -> Floats:
    """Pictures along straight lines between codes: float [pairs, STEPS, pixels].

    codes: float [classes, latent_dim]; the first half is paired with the second half.
    """
    half = len(codes) // 2
    pairs = min(PAIRS, half)
    weights = np.linspace(0, 1, STEPS)[:, None]
    lines = codes[:pairs, None] * (1 - weights) + codes[half : half + pairs, None] * weights
    decoded = decode(lines.reshape(-1, codes.shape[1]))
    return decoded.reshape(pairs, STEPS, decoded.shape[1])


def traverse(decode: Transform, codes: Floats) -> Floats:
    """The decoder's response to one latent dimension at a time: float [dimensions, STEPS, pixels].

    Starts from the mean of codes float [images, latent_dim] and moves by TRAVERSAL standard
    deviations to either side. Up to DIMENSIONS dimensions, the most varied first.
    """
    mean, deviation = codes.mean(axis=0, dtype=np.float64), codes.std(axis=0, dtype=np.float64)
    chosen = np.argsort(-deviation, kind="stable")[:DIMENSIONS]
    moved = np.tile(mean, (len(chosen), STEPS, 1))
    moved[np.arange(len(chosen)), :, chosen] += np.linspace(-TRAVERSAL, TRAVERSAL, STEPS) * deviation[chosen, None]
    return decode(moved.reshape(-1, len(mean))).reshape(len(chosen), STEPS, -1)
