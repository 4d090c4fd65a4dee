"""The files that the stages exchange: their paths, and how to read and write them safely.

Paths are relative to the root of the repository, where DVC runs the stages.
"""

import errno
import lzma
import os
import secrets
import tokenize
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from stages.core.arrays import Bytes
from stages.core.errors import StageError, reason

EVALUATIONS = Path("data/evaluation")
PRESETS = Path("data/presets")
SPLITS = ("train", "validation", "test")
# What NumPy and zipfile raise for a damaged .npy or .npz file, depending on where the damage is.
BROKEN_ARRAY = (
    ValueError, EOFError, KeyError, SyntaxError, TypeError, RuntimeError, OverflowError, tokenize.TokenError,
    zipfile.BadZipFile, lzma.LZMAError,
)  # fmt: skip

Writer = Callable[[BinaryIO], object]  # writes to an open file
Content = bytes | Writer


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


def write_all(contents: Mapping[Path, Content]) -> None:
    """Write all of these files or none, in this order. All are complete on disk before the first replaces an old one.

    Any number of processes can write the same paths at once.
    Raises OSError, with the path as its file name, if a file cannot be written.
    """
    # A token keeps writers apart: process numbers don't, since two containers may use the same one.
    unfinished = {path: path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp") for path in contents}
    try:
        for path, content in contents.items():
            _write(unfinished[path], path, content)
        for path, temporary in unfinished.items():
            os.replace(temporary, path)
    except OSError as error:
        if error.filename and Path(error.filename) not in (unfinished[path], *path.parents):
            raise  # it is about another file, which a content reads or writes
        raise OSError(error.errno, f"cannot be written: {error.strerror or error}", str(path)) from error
    finally:
        for temporary in unfinished.values():
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _write(temporary: Path, path: Path, content: Content) -> None:
    """Write the new content of `path` to `temporary`, a hidden file next to it."""
    with suppress(FileExistsError):  # a file where a folder should be; opening explains that better
        path.parent.mkdir(parents=True)
    if path.is_dir():  # otherwise the rename would fail, after other files are replaced
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    with open(temporary, "xb") as file:
        if callable(content):
            content(file)
        else:
            file.write(content)
        file.flush()
        os.fsync(file.fileno())  # a power cut must not keep the rename and lose the bytes


def npy(array: NDArray[Any]) -> Writer:
    """What writes an array in NumPy's .npy format, in chunks."""
    rows = np.ascontiguousarray(array)  # the bytes do not depend on its layout in memory
    # NumPy writes to a real file in a way that hides the operating system's reason when a disk is full
    return lambda file: np.save(cast(BinaryIO, SimpleNamespace(write=file.write)), rows, allow_pickle=False)


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
        raise StageError(f"{path} is not a whole .npy file ({reason(error)}); run `dvc repro prepare`.") from None
    if array.dtype != np.uint8 or array.ndim != dimensions:
        raise StageError(
            f"{path} holds {array.dtype} {list(array.shape)}, but has to hold {expected}; run `dvc repro prepare`."
        )
    return cast(Bytes, array)
