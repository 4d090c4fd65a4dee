"""Open what a user passes to a model: image files, folders of them, and arrays of images.

Arrays are three-dimensional IDX files, gzipped or not, and .npy files of uint8 [images, height, width]
or [height, width]. They are read a few images at a time.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.core import files
from stages.core.arrays import Bytes
from stages.core.errors import StageError, reason
from stages.core.idx import idx_shape, stream_idx
from stages.tools.reconstruct.digits import Digit, read_as_is, read_digit
from stages.tools.reconstruct.ink import Ink

SUFFIXES = (  # of the files that are taken from a folder; HEIC to report that it is not supported
    ".avif", ".bmp", ".gif", ".heic", ".heif", ".j2k", ".jp2", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm", ".png",
    ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
# gzip, and IDX of any type; read_idx reports the types that it does not support
IDX_STARTS = (b"\x1f\x8b", *(bytes([0, 0, kind]) for kind in (8, 9, 11, 12, 13, 14)))


class Source(NamedTuple):
    """An open input."""

    path: Path
    images: int
    batches: Iterator[Bytes]  # uint8 [images, height, width]; raises StageError
    digit: Digit | None  # of an image file


def expand(arguments: list[Path]) -> tuple[list[Path], list[str]]:
    """The files to read, each once, those of a folder by name; and a sentence for each folder without any."""
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
            problems.append(f"{argument} has no image files; subfolders are not searched.")
    return list(dict.fromkeys(paths)), problems


def open_source(path: Path, height: int, width: int, rows: int, ink: Ink | None, as_is: bool) -> Source:
    """Open an image file or an array for a model of height × width pixels.

    rows: images of an array read at a time. ink, as_is: how to read image files.
    Raises StageError, naming the file, if it cannot be used.
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
    """The array in a .npy file, mapped from disk: uint8 [images, height, width]. Raises StageError otherwise."""
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except files.BROKEN_ARRAY as error:
        raise StageError(f"{path} is not a complete .npy file ({reason(error)}).") from None
    if images.dtype != np.uint8 or images.ndim not in (2, 3) or not images.size:
        found, allowed = f"{images.dtype} {list(images.shape)}", "uint8 [images, height, width] or [height, width]"
        raise StageError(f"{path} holds {found}, but must hold {allowed}.")
    expect_size(path, images.shape[-2:], height, width)
    reshaped: Bytes = images.reshape(-1, height, width)
    return reshaped


def expect_size(path: Path, size: tuple[int, ...], height: int, width: int) -> None:
    """Raise StageError if the images of a file do not have the model's size."""
    if size != (height, width):
        found = f"{size[0]}×{size[1]} pixels (height × width)"
        raise StageError(f"{path} has images of {found}, but the model takes {height}×{width}.")


def readable(path: Path, batches: Iterator[Bytes]) -> Iterator[Bytes]:
    """The batches; raises StageError where the disk fails."""
    try:
        yield from batches
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> StageError:
    if isinstance(error, FileNotFoundError):
        return StageError(f"{path} does not exist.")
    return StageError(f"{path} cannot be read: {error.strerror or error}.")
