"""The images on their way to the training device: in memory as bytes, or streamed from disk a block at a time."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from stages.core import files
from stages.core.arrays import Bytes
from stages.core.backend import tf

LARGEST_RESIDENT = 2**31  # bytes of uint8 images; a constant, so that no machine chooses another way
BLOCK = 2**27  # bytes in memory at a time when streaming

Images: TypeAlias = tf.Tensor | Bytes  # uint8 [images, pixels]: resident, or mapped from disk
Order: TypeAlias = NDArray[np.int32]
Place: TypeAlias = Callable[[Bytes], tf.Tensor]


def read_pixels(split: str, place: Place) -> Images:
    """The images of a split, uint8 [images, pixels]: put on the device by `place`, or mapped from disk if too large."""
    images = files.read_images(split)
    if images.nbytes > LARGEST_RESIDENT:
        return images.reshape(len(images), -1)
    images = files.read_images(split, mapped=False)
    return place(images.reshape(len(images), -1))


def resident(images: Bytes) -> tf.Tensor:
    """The array on the device that trains; in main memory it is not copied."""
    return tf.identity(tf.experimental.dlpack.from_dlpack(images.__dlpack__()))


def epoch_order(seed: int, epoch: int, images: int) -> Order:
    """The order of the images in an epoch: int32 [images], a pure function of its arguments."""
    return np.random.default_rng([seed, epoch]).permutation(images).astype(np.int32)


def file_order(images: Images) -> Order:
    """The order of the images in their file: int32 [images]."""
    return np.arange(len(images), dtype=np.int32)


def scaled(images: tf.Tensor) -> tf.Tensor:
    """uint8 0 to 255 as float32 0 to 1: the model's input, and its target."""
    return tf.cast(images, tf.float32) / 255.0


def blocks(images: Images, order: Order, batch_size: int, place: Place) -> Iterator[tuple[tf.Tensor, Order]]:
    """Cut an epoch into blocks that fit in memory: (images of the block, order within it).

    Resident images are one block. A block of streamed ones is a whole number of batches,
    read in the order of the file.
    """
    if isinstance(images, tf.Tensor):
        yield images, order
        return
    rows = max(1, BLOCK // (images.shape[1] * batch_size)) * batch_size
    for start in range(0, len(order), rows):
        wanted, order_within = np.unique(order[start : start + rows], return_inverse=True)
        yield place(images[wanted]), order_within.astype(np.int32)
