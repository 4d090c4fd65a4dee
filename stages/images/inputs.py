"""What a user gives a model to look at: image files, folders of them, arrays of images.

Arrays are IDX files, gzipped or not, of three dimensions, and .npy files of uint8
[images, height, width] or [height, width]; they are read a few images at a time.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.core import files
from stages.core.arrays import Bytes
from stages.core.errors import StageError
from stages.core.idx import idx_shape, stream_idx
from stages.images.digits import Digit, Ink, read_as_is, read_digit

SUFFIXES = (  # of the files that are taken from a folder; HEIC to say that it can't be read
    ".avif", ".bmp", ".gif", ".heic", ".heif", ".j2k", ".jp2", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm", ".png",
    ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
# gzip, and IDX of any type; read_idx reports the types that it does not support
IDX_STARTS = (b"\x1f\x8b", *(bytes([0, 0, kind]) for kind in (8, 9, 11, 12, 13, 14)))


class Source(NamedTuple):
    """An input that has been opened."""

    path: Path
    images: int
    batches: Iterator[Bytes]  # uint8 [at most the rows asked for, height, width]; raises StageError
    digit: Digit | None  # of an image file


def expand(arguments: list[Path]) -> tuple[list[Path], list[str]]:
    """The files that the arguments name, each once, those of a folder by name; and a sentence for each empty folder."""
    paths, problems = [], []
    for argument in arguments:
        if not argument.is_dir():
            paths.append(argument)
            continue
        try:
            found = sorted(p for p in argument.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        except OSError as error:
            problems.append(f"{argument} cannot be read: {error.strerror}.")
            continue
        paths += found
        if not found:
            problems.append(f"{argument} has no image files; folders within it are not searched.")
    return list(dict.fromkeys(paths)), problems


def open_source(path: Path, height: int, width: int, rows: int, ink: Ink | None, as_is: bool) -> Source:
    """Open an image file or an array, which differ in how they begin, for a model of height × width pixels.

    Arrays are read `rows` images at a time. ink, as_is: how to take image files.
    Raises StageError, naming the file, if it can't be used.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(6)
        if start == b"\x93NUMPY":
            images = map_npy(path, height, width)
            starts = range(0, len(images), rows)
            return Source(path, len(images), (np.asarray(images[i : i + rows]) for i in starts), None)
        if start.startswith(IDX_STARTS):
            count, *size = idx_shape(path, 3)
            expect_size(path, tuple(size), height, width)
            return Source(path, count, readable(path, stream_idx(path, 3, rows)), None)
        digit = read_as_is(path, height, width) if as_is else read_digit(path, height, width, ink)
        return Source(path, 1, iter([digit.image[None]]), digit)
    except OSError as error:
        raise unreadable(path, error) from None


def map_npy(path: Path, height: int, width: int) -> Bytes:
    """The array in a .npy file, mapped from disk: uint8 [images, height, width].

    Raises StageError if it is no whole array of such images.
    """
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except files.BROKEN_ARRAY as error:
        raise StageError(f"{path} is not a whole .npy file ({' '.join(str(error).split()).rstrip('.')}).") from None
    if images.dtype != np.uint8 or images.ndim not in (2, 3) or not images.size:
        raise StageError(
            f"{path} holds {images.dtype} {list(images.shape)}, but has to hold uint8 [images, height, width] or "
            "[height, width]."
        )
    expect_size(path, images.shape[-2:], height, width)
    reshaped: Bytes = images.reshape(-1, height, width)
    return reshaped


def expect_size(path: Path, size: tuple[int, ...], height: int, width: int) -> None:
    if size != (height, width):
        raise StageError(
            f"{path} has images of {size[0]}×{size[1]} pixels (height × width), but the model takes {height}×{width}."
        )


def readable(path: Path, batches: Iterator[Bytes]) -> Iterator[Bytes]:
    """The batches, with StageError for what the disk can't give."""
    try:
        yield from batches
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> StageError:
    if isinstance(error, FileNotFoundError):
        return StageError(f"{path} does not exist.")
    return StageError(f"{path} cannot be read: {error.strerror or error}.")
