"""The files that the stages exchange: their paths, and how to read and write them safely.

Paths are relative to the root of the repository, where DVC runs the stages.
"""

import errno
import io
import lzma
import os
import secrets
import tokenize
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from stages.core.arrays import Bytes
from stages.core.errors import StageError

EVALUATIONS = Path("data/evaluation")
PRESETS = Path("data/presets")
SPLITS = ("train", "validation", "test")
CHUNK = 2**24  # bytes of an array to write at a time
# What NumPy and zipfile raise for a damaged .npy or .npz file, depending on where the damage is.
BROKEN_ARRAY = (
    ValueError, EOFError, KeyError, SyntaxError, TypeError, RuntimeError, OverflowError, tokenize.TokenError,
    zipfile.BadZipFile, lzma.LZMAError,
)  # fmt: skip


class ModelFiles(NamedTuple):
    """The files that the stages write for one model."""

    model: Path
    history: Path
    evaluation: Path
    metrics: Path


def model_files(name: str, preset: bool = False) -> ModelFiles:
    """The files of a model. Those of a preset, except its metrics, are in a folder that no stage depends on."""
    if preset:
        model, history, evaluation = (PRESETS / f"{name}.{kind}" for kind in ("keras", "csv", "npz"))
    else:
        model, history = Path(f"data/models/{name}.keras"), Path(f"data/history/{name}.csv")
        evaluation = EVALUATIONS / f"{name}.npz"
    return ModelFiles(model, history, evaluation, Path(f"metrics/{name}.json"))


def how_to_make(path: Path) -> str:
    """The command that makes a missing or broken file, in words: DVC's, or for a file of a preset its stage's."""
    if path.parent != PRESETS:
        return "run `dvc repro`"
    stage = "evaluate" if path.suffix == ".npz" else "train"
    return f"run `python -m stages.{stage} {path.stem}`"


def images_path(split: str) -> Path:
    return Path(f"data/prepared/{split}_images.npy")


def labels_path(split: str) -> Path:
    return Path(f"data/prepared/{split}_labels.npy")


# --- writing -----------------------------------------------------------------------------


class _Unfinished(io.FileIO):
    """A hidden file next to `path`, to be renamed to it once it is complete. Its errors name `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # A token keeps writers apart: process numbers don't, since two containers may use the same one.
        self.temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        with _naming(path):
            with suppress(FileExistsError):  # a file where a folder should be; opening explains that better
                path.parent.mkdir(parents=True)
            if path.is_dir():  # the rename would find out too late, after others
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            super().__init__(self.temporary, "xb")

    def write(self, data: Any) -> int:
        with _naming(self.path):
            return cast(int, super().write(data))


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` when the block ends, and that vanishes if the block raises an error.

    Any number of processes can replace the same path at once.
    Raises OSError, with `path` as its file name, if the file cannot be written.
    """
    with replacing_all([path]) as (file,):
        yield file


@contextmanager
def replacing_all(paths: Sequence[Path]) -> Iterator[list[BinaryIO]]:
    """Do the same as `replacing` for several files. All are complete on disk before the first is renamed."""
    unfinished: list[_Unfinished] = []
    try:
        for path in paths:
            unfinished.append(_Unfinished(path))  # noqa: PERF401 (what is open needs closing if the next one fails)
        files = [io.BufferedWriter(raw) for raw in unfinished]
        yield cast(list[BinaryIO], files)
        for file, raw in zip(files, unfinished, strict=True):
            file.flush()
            with _naming(raw.path):
                os.fsync(raw.fileno())  # a power cut must not keep the rename and lose the bytes
                file.close()
        for raw in unfinished:
            with _naming(raw.path):
                os.replace(raw.temporary, raw.path)
    finally:
        for raw in unfinished:
            with suppress(OSError):
                raw.close()  # without flushing the buffer
            with suppress(OSError):
                raw.temporary.unlink(missing_ok=True)


def write_all(contents: Mapping[Path, bytes]) -> None:
    """Write all of these files or none. Raises OSError as `replacing` does."""
    with replacing_all(list(contents)) as files:
        for file, content in zip(files, contents.values(), strict=True):
            file.write(content)


def write_npy(file: BinaryIO, array: NDArray[Any]) -> None:
    """Write an array to an open file in NumPy's .npy format.

    It writes chunk by chunk, because NumPy's own method hides the operating system's reason when a disk is full.
    """
    header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(file, header)
    rows = max(1, CHUNK // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        file.write(np.ascontiguousarray(array[start : start + rows]).data)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Make an OSError in the block name the file that cannot be written."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"cannot be written: {error.strerror or error}", str(path)) from error


# --- reading -----------------------------------------------------------------------------


class Split(NamedTuple):
    """Images and their labels."""

    images: Bytes  # [images, pixels] or [images, height, width], 0 to 255
    labels: Bytes  # [images]

    def of_classes(self, classes: Sequence[int] | Bytes) -> "Split":
        """The images of these classes, in the same order."""
        kept = np.isin(self.labels, classes)
        return Split(self.images[kept], self.labels[kept])


def read_split(split: str) -> Split:
    """Read a split: its images as uint8 [images, pixels], mapped from disk, and its labels.

    Raises StageError if a file is missing or broken.
    """
    images = read_images(split)
    return Split(images.reshape(len(images), -1), read_labels(split))


def read_images(split: str, mapped: bool = True) -> Bytes:
    """Read the images of a split: uint8 [images, height, width], 0 to 255. mapped: map the file, don't load it.

    Raises StageError if the file is missing or holds anything else.
    """
    return _read_npy(images_path(split), 3, "uint8 [images, height, width]", mapped)


def read_labels(split: str) -> Bytes:
    """Read the labels of a split: uint8 [images]. Raises StageError as `read_images` does."""
    return _read_npy(labels_path(split), 1, "uint8 [images]", mapped=False)


def _read_npy(path: Path, dimensions: int, expected: str, mapped: bool) -> Bytes:
    try:
        array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("it is an .npz archive")
    except FileNotFoundError:
        raise StageError(f"{path} is missing; run `dvc repro prepare`.") from None
    except BROKEN_ARRAY as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise StageError(f"{path} is not a whole .npy file ({reason}); run `dvc repro prepare`.") from None
    if array.dtype != np.uint8 or array.ndim != dimensions:
        raise StageError(
            f"{path} holds {array.dtype} {list(array.shape)}, but has to hold {expected}; run `dvc repro prepare`."
        )
    return cast(Bytes, array)
