"""Read IDX files, the format of MNIST and its successors, gzipped or not.

An IDX file holds two zero bytes, a type byte, the number of dimensions, each dimension
as a big-endian 32-bit integer, and then the values in row-major order
(Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", 1998).
"""

import gzip
import hashlib
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

UNSIGNED_BYTE = 0x08  # the type of the MNIST family
TYPES = {
    UNSIGNED_BYTE: "unsigned bytes",
    0x09: "signed bytes",
    0x0B: "16-bit integers",
    0x0C: "32-bit integers",
    0x0D: "32-bit floats",
    0x0E: "64-bit floats",
}
LOOKALIKES = (  # first bytes, what such a file is, and what to do about it
    (b"<", "an HTML page", "download the file itself"),
    (b"\x1f\x8b", "gzipped twice", "unpack it once with gunzip"),
    (b"version ", "a Git LFS pointer", "fetch the file itself with `git lfs pull`"),
    (b"PK\x03\x04", "a ZIP archive", "unpack it"),
)
LARGEST = 2**33  # bytes; eleven million MNIST images, and a limit to what a false header can claim
CHUNK = 2**20


def read_idx(path: Path, dimensions: int) -> Bytes:
    """Read an IDX file of unsigned bytes into a uint8 array with this number of dimensions.

    Memory stays within what the header declares, whatever the file inflates to.
    Raises StageError if the file is malformed and OSError if it can't be opened.
    """
    (values,) = stream_idx(path, dimensions)
    return values


def idx_shape(path: Path, dimensions: int) -> tuple[int, ...]:
    """Return the shape that the header declares. Raises as read_idx does, but doesn't check the values."""
    with _opened(path) as (file, longest):
        return _read_header(file, path, dimensions, longest, rows=1)


def stream_idx(path: Path, dimensions: int, rows: int = 2**32) -> Iterator[Bytes]:
    """Read an IDX file as uint8 arrays of `rows` rows; the last one can be smaller.

    Only one array is in memory at a time, so the file's size has no limit.
    Raises as read_idx does, but reports malformed values only when it reaches them.
    """
    with _opened(path) as (file, longest):
        shape = _read_header(file, path, dimensions, longest, rows)
        row_size = math.prod(shape[1:])
        for start in range(0, shape[0], rows):
            block = np.empty((min(rows, shape[0] - start), *shape[1:]), np.uint8)
            _fill(block.reshape(-1), file, path, shape, read_before=start * row_size)
            yield block
        if file.read(1):
            raise StageError(f"{path} is too long: {_declared(shape)}, but more bytes follow.")


def content_digest(path: Path) -> bytes:
    """Return the SHA-256 digest of a file's content, inflated if it is gzipped. Raises as read_idx does."""
    with _opened(path) as (file, _):
        return hashlib.file_digest(file, "sha256").digest()  # type: ignore[arg-type]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Yield the file's content, inflated if it is gzipped, and the most bytes that it can hold."""
    size = path.stat().st_size
    try:
        with open(path, "rb") as raw:
            if raw.read(2) != b"\x1f\x8b":
                raw.seek(0)
                yield raw, size
                return
            raw.seek(0)
            with gzip.open(raw) as inflated:
                # deflate compresses 1032:1 at best, so a header that claims more is false
                yield inflated, 1032 * size  # type: ignore[misc]
    except EOFError:
        raise StageError(f"{path} is truncated: its gzip stream ends too early.") from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise StageError(f"{path} is corrupted: {error}.") from None


def _read_header(file: BinaryIO, path: Path, dimensions: int, longest: int, rows: int) -> tuple[int, ...]:
    """Read the shape. The caller keeps at most `rows` rows in memory at a time."""
    header_size = 4 + 4 * dimensions
    header = file.read(header_size)
    if header[:4] != bytes([0, 0, UNSIGNED_BYTE, dimensions]):
        raise StageError(f"{path} {_mistake(header, dimensions)}.")
    if len(header) < header_size:
        raise StageError(f"{path} is truncated: its IDX header has {len(header)} of {header_size} bytes.")
    shape = struct.unpack(f">{dimensions}I", header[4:])
    size = math.prod(shape)
    if size == 0:
        raise StageError(f"{path} is empty: {_declared(shape)}.")
    if math.prod((min(rows, shape[0]), *shape[1:])) > LARGEST:
        raise StageError(f"{path} is too large: {_declared(shape)}, but at most {LARGEST} are supported.")
    if size > longest:
        raise StageError(f"{path} is truncated: {_declared(shape)}, but the file can't hold that many.")
    return shape


def _mistake(header: bytes, dimensions: int) -> str:
    """Describe a file with the wrong first bytes: what it is, what it has to be, and what to do."""
    wanted = f"an IDX file of {TYPES[UNSIGNED_BYTE]} in {dimensions} dimension{'s' * (dimensions > 1)}"
    for start, what, remedy in LOOKALIKES:
        if header.lstrip(b"\xef\xbb\xbf\r\n\t ").startswith(start):
            return f"is {what}, but has to be {wanted}; {remedy}"
    if header[:2] == b"\0\0" and len(header) > 3 and header[2] in TYPES:
        found = f"is an IDX file of {TYPES[header[2]]} in {header[3]} dimension{'s' * (header[3] != 1)}"
        remedy = "" if header[2] == UNSIGNED_BYTE else "; convert it"
        if (header[2], header[3], dimensions) == (0x0C, 2, 1):  # QMNIST's labels
            remedy = "; keep its first column only, as unsigned bytes"
        return f"{found}, but has to be {wanted}{remedy}"
    return f"starts with the bytes {header[:4].hex(' ') or 'of an empty file'}, but has to be {wanted}"


def _fill(values: Bytes, file: BinaryIO, path: Path, shape: tuple[int, ...], read_before: int) -> None:
    """Read `values`, uint8 [n], in pieces. `read_before` values of the file precede them."""
    view = values.data
    filled = 0
    while filled < len(values):
        count = file.readinto(view[filled : filled + CHUNK])  # type: ignore[attr-defined]
        if not count:
            raise StageError(f"{path} is truncated: {_declared(shape)}, but the file holds {read_before + filled}.")
        filled += count


def _declared(shape: tuple[int, ...]) -> str:
    return f"its IDX header declares {' × '.join(map(str, shape))} values"
