"""IDX files, the format of MNIST and its successors, gzipped or not.

Two zero bytes, a type byte, the number of dimensions, each dimension as a big-endian
32-bit integer, then the values in row-major order
(Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", 1998).
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from stages.errors import StageError

UNSIGNED_BYTE = 0x08  # the only type that the MNIST family uses
LARGEST = 2**33  # bytes; eleven million MNIST images, and an end to what a false header can claim
CHUNK = 2**20


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes with the given number of dimensions.

    Returns a uint8 array of the shape in the header. Memory stays within what the
    header declares, whatever the file inflates to.
    Raises StageError, naming the file and what is wrong with it, and OSError if it cannot be opened.
    """
    size = path.stat().st_size
    try:
        with open(path, "rb") as raw:
            if raw.read(2) != b"\x1f\x8b":
                raw.seek(0)
                return _read(raw, path, dimensions, longest=size)
            raw.seek(0)
            with gzip.open(raw) as inflated:
                # deflate cannot do better than 1032:1, so a header that claims more lies
                return _read(inflated, path, dimensions, longest=1032 * size)  # type: ignore[arg-type]
    except EOFError:
        raise StageError(f"{path} is truncated: its gzip stream ends too early.") from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise StageError(f"{path} is corrupted: {error}.") from None


def _read(file: BinaryIO, path: Path, dimensions: int, longest: int) -> np.ndarray:
    header_size = 4 + 4 * dimensions
    header = file.read(header_size)
    magic = bytes([0, 0, UNSIGNED_BYTE, dimensions])
    if header[:4] != magic:
        raise StageError(
            f"{path} starts with the bytes {header[:4].hex(' ') or 'of an empty file'}, but an IDX file of "
            f"unsigned bytes in {dimensions} dimension{'s' * (dimensions > 1)} starts with {magic.hex(' ')}."
        )
    if len(header) < header_size:
        raise StageError(f"{path} is truncated: its IDX header has {len(header)} of {header_size} bytes.")
    shape = struct.unpack(f">{dimensions}I", header[4:])
    size = math.prod(shape)
    declared = f"its IDX header declares {' × '.join(map(str, shape))} values"
    if size == 0:
        raise StageError(f"{path} is empty: {declared}.")
    if size > LARGEST:
        raise StageError(f"{path} is too large: {declared}, but at most {LARGEST} are supported.")
    if size > longest:
        raise StageError(f"{path} is truncated: {declared}, but the file cannot hold that many.")
    values = np.empty(size, np.uint8)
    view = values.data
    filled = 0
    while filled < size:
        count = file.readinto(view[filled : filled + CHUNK])  # type: ignore[attr-defined]
        if not count:
            raise StageError(f"{path} is truncated: {declared}, but the file holds {filled}.")
        filled += count
    if file.read(1):
        raise StageError(f"{path} is too long: {declared}, but more bytes follow.")
    return values.reshape(shape)
