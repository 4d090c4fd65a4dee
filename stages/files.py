"""The files that the stages exchange: where they lie, and how they are written and read.

All paths are relative to the repository's root, where DVC runs the stages.
"""

import os
import tokenize
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from stages.errors import StageError

SPLITS = ("train", "validation", "test")
# What NumPy raises for files that are no whole .npy or .npz, depending on where they break.
BROKEN_ARRAY = (ValueError, EOFError, KeyError, SyntaxError, TypeError, tokenize.TokenError, zipfile.BadZipFile)


def images_path(split: str) -> Path:
    return Path(f"data/prepared/{split}_images.npy")


def labels_path(split: str) -> Path:
    return Path(f"data/prepared/{split}_labels.npy")


def model_path(name: str) -> Path:
    return Path(f"data/models/{name}.keras")


def history_path(name: str) -> Path:
    return Path(f"data/history/{name}.csv")


def evaluation_path(name: str) -> Path:
    return Path(f"data/evaluation/{name}.npz")


def metrics_path(name: str) -> Path:
    return Path(f"metrics/{name}.json")


def write_files(writers: Mapping[Path, bytes | Callable[[BinaryIO], object]]) -> None:
    """Write all files or none: each to a temporary neighbour first, renamed when all are whole.

    writers: for each path its bytes, or a function that writes them to an open file.
    Raises OSError, naming the file, if the disk is full or the folder not writable.
    """
    temporaries: dict[Path, Path] = {}
    try:
        for path, writer in writers.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporaries[path] = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            try:
                with open(temporaries[path], "wb") as file:
                    if isinstance(writer, bytes):
                        file.write(writer)
                    else:
                        writer(file)
                    file.flush()
                    os.fsync(file.fileno())  # a rename must not overtake the bytes in a power cut
            except OSError as error:
                raise OSError(error.errno, f"cannot be written: {error.strerror or error}", str(path)) from error
        for path, temporary in temporaries.items():
            os.replace(temporary, path)
    finally:
        for temporary in temporaries.values():
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def npy(array: np.ndarray) -> Callable[[BinaryIO], None]:
    """A writer of `array` in NumPy's .npy format, for write_files."""
    # Chunks, since NumPy's own write to a real file loses the operating system's reason on a full disk.
    header = np.lib.format.header_data_from_array_1_0(array)
    rows = max(1, (1 << 24) // max(1, array[:1].nbytes))

    def write(file: BinaryIO) -> None:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(array), rows):
            file.write(np.ascontiguousarray(array[start : start + rows]).data)

    return write


def read_images(split: str, mapped: bool = True) -> np.ndarray:
    """The images of a split: uint8 [images, height, width], 0 to 255, mapped from disk or read whole.

    Raises StageError if the file is missing or not such an array.
    """
    images = _read_npy(images_path(split), mapped)
    if images.dtype != np.uint8 or images.ndim != 3:
        raise StageError(
            f"{images_path(split)} holds {images.dtype} {list(images.shape)}, but has to hold uint8 "
            "[images, height, width]; run `dvc repro prepare`."
        )
    return images


def read_labels(split: str) -> np.ndarray:
    """The labels of a split: uint8 [images]. Raises StageError as read_images does."""
    labels = _read_npy(labels_path(split), mapped=False)
    if labels.dtype != np.uint8 or labels.ndim != 1:
        raise StageError(
            f"{labels_path(split)} holds {labels.dtype} {list(labels.shape)}, but has to hold uint8 "
            "[images]; run `dvc repro prepare`."
        )
    return labels


def _read_npy(path: Path, mapped: bool) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except FileNotFoundError:
        raise StageError(f"{path} is missing; run `dvc repro prepare`.") from None
    except BROKEN_ARRAY as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise StageError(f"{path} is not a whole .npy file ({reason}); run `dvc repro prepare`.") from None
