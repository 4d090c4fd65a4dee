"""IDX files, the format of MNIST and its successors, gzipped or not.

Two zero bytes, a type byte, the number of dimensions, each dimension as a big-endian
32-bit integer, then the values in row-major order
(Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", 1998).
"""

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from stages.core.arrays import Bytes
from stages.core.errors import StageError

UNSIGNED_BYTE = 0x08  # the only type that the MNIST family uses
LARGEST = 2**33  # bytes; eleven million MNIST images, and a limit to what a false header can claim
CHUNK = 2**20


def read_idx(path: Path, dimensions: int) -> Bytes:
    """Read an IDX file of unsigned bytes with the given number of dimensions.

    Returns a uint8 array of the shape in the header. Memory stays within what the
    header declares, whatever the file inflates to.
    Raises StageError, naming the file and what is wrong with it, and OSError if it cannot be opened.
    """
    with _opened(path) as (file, longest):
        shape = _read_header(file, path, dimensions, longest)
        values = np.empty(math.prod(shape), np.uint8)
        _fill(values, file, path, shape, read_before=0)
        _expect_end(file, path, shape)
        return values.reshape(shape)


def idx_shape(path: Path, dimensions: int) -> tuple[int, ...]:
    """The shape that an IDX file's header declares. Raises as read_idx does, but for values that it doesn't read."""
    with _opened(path) as (file, longest):
        return _read_header(file, path, dimensions, longest, rows=1)


def stream_idx(path: Path, dimensions: int, rows: int) -> Iterator[Bytes]:
    """Read an IDX file a block at a time: uint8 arrays of `rows` rows, the last one maybe smaller.

    Memory stays within one block, so there is no limit to the file's size.
    Raises as read_idx does, but what is wrong with the values only when it comes to it.
    """
    with _opened(path) as (file, longest):
        shape = _read_header(file, path, dimensions, longest, rows)
        row_size = math.prod(shape[1:])
        for start in range(0, shape[0], rows):
            block = np.empty((min(rows, shape[0] - start), *shape[1:]), np.uint8)
            _fill(block.reshape(-1), file, path, shape, read_before=start * row_size)
            yield block
        _expect_end(file, path, shape)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """The file's content, inflated if it is gzipped, and the most bytes that it can hold."""
    size = path.stat().st_size
    try:
        with open(path, "rb") as raw:
            if raw.read(2) != b"\x1f\x8b":
                raw.seek(0)
                yield raw, size
                return
            raw.seek(0)
            with gzip.open(raw) as inflated:
                # deflate cannot do better than 1032:1, so a header that claims more lies
                yield inflated, 1032 * size  # type: ignore[misc]
    except EOFError:
        raise StageError(f"{path} is truncated: its gzip stream ends too early.") from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise StageError(f"{path} is corrupted: {error}.") from None


def _read_header(file: BinaryIO, path: Path, dimensions: int, longest: int, rows: int | None = None) -> tuple[int, ...]:
    """The shape, of which `rows` rows are going to be in memory at a time, or all."""
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
    if size == 0:
        raise StageError(f"{path} is empty: {_declared(shape)}.")
    if math.prod((shape[0] if rows is None else min(rows, shape[0]), *shape[1:])) > LARGEST:
        raise StageError(f"{path} is too large: {_declared(shape)}, but at most {LARGEST} are supported.")
    if size > longest:
        raise StageError(f"{path} is truncated: {_declared(shape)}, but the file cannot hold that many.")
    return shape


def _fill(values: Bytes, file: BinaryIO, path: Path, shape: tuple[int, ...], read_before: int) -> None:
    """Read `values`, uint8 [n], in pieces; `read_before` values of the file went before them."""
    view = values.data
    filled = 0
    while filled < len(values):
        count = file.readinto(view[filled : filled + CHUNK])  # type: ignore[attr-defined]
        if not count:
            raise StageError(f"{path} is truncated: {_declared(shape)}, but the file holds {read_before + filled}.")
        filled += count


def _expect_end(file: BinaryIO, path: Path, shape: tuple[int, ...]) -> None:
    if file.read(1):
        raise StageError(f"{path} is too long: {_declared(shape)}, but more bytes follow.")


def _declared(shape: tuple[int, ...]) -> str:
    return f"its IDX header declares {' × '.join(map(str, shape))} values"
