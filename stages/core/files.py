"""The files that the stages exchange: where they lie, and how arrays are read and files written.

All paths are relative to the repository's root, where DVC runs the stages.
"""

import errno
import glob
import io
import lzma
import os
import secrets
import time
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

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

EVALUATIONS = Path("data/evaluation")
APPLICATIONS = Path("data/applications")
GENERATIONS = Path("data/generation")
PRESETS = Path("data/presets")
CLASSICAL = Path("data/classical/denoising.npz")
PIXEL_LABELS = Path("data/classical/labels.npz")
CLASSIFIER = Path("data/classifier/classifier.keras")
FLOOR = Path("data/classifier/floor.npz")
SPLITS = ("train", "validation", "test")
CHUNK = 2**24  # bytes of an array written at a time
ABANDONED_AFTER = 3600  # seconds without a write, after which an unfinished file's writer may be dead
# What NumPy and zipfile raise for files that are no whole .npy or .npz, depending on where they break.
BROKEN_ARRAY = (
    ValueError, EOFError, KeyError, SyntaxError, TypeError, RuntimeError, OverflowError, tokenize.TokenError,
    zipfile.BadZipFile, lzma.LZMAError,
)  # fmt: skip


class ModelFiles(NamedTuple):
    """What the stages write of one model."""

    model: Path
    history: Path
    evaluation: Path
    application: Path
    generation: Path
    metrics: Path


def model_files(name: str, preset: bool = False) -> ModelFiles:
    """The files of a model. Those of presets, but for their metrics, lie in a folder that no stage depends on."""
    metrics = Path(f"metrics/{name}.json")
    if preset:
        return ModelFiles(
            PRESETS / f"{name}.keras",
            PRESETS / f"{name}.csv",
            PRESETS / f"{name}.npz",
            PRESETS / f"{name}.application.npz",  # no model's name has a dot
            PRESETS / f"{name}.generation.npz",
            metrics,
        )
    return ModelFiles(
        Path(f"data/models/{name}.keras"),
        Path(f"data/history/{name}.csv"),
        EVALUATIONS / f"{name}.npz",
        APPLICATIONS / f"{name}.npz",
        GENERATIONS / f"{name}.npz",
        metrics,
    )


def how_to_make(path: Path) -> str:
    """What to run for a file that is missing or broken: DVC, or the stage that writes it of a preset."""
    if path.parent != PRESETS:
        return "run `dvc repro`"
    name, *kind = path.stem.split(".")
    stage = "apply" if kind else "evaluate" if path.suffix == ".npz" else "train"
    return f"run `python -m stages.{stage} {name}`"


def images_path(split: str) -> Path:
    return Path(f"data/prepared/{split}_images.npy")


def labels_path(split: str) -> Path:
    return Path(f"data/prepared/{split}_labels.npy")


# --- writing -----------------------------------------------------------------------------


class _Unfinished(io.FileIO):
    """A new file that stands for `path` until it is complete; its errors name that path."""

    def __init__(self, path: Path) -> None:
        # a name of its own for every writer: processes in two containers may have the same number
        self.temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        self.path = path
        super().__init__(self.temporary, "xb")
        with suppress(OSError):
            _lock(self)  # tells other processes that its writer lives

    def write(self, data: Any) -> int:
        with _naming(self.path):
            return cast(int, super().write(data))


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that replaces `path` if the block ends without an error, and leaves no trace otherwise.

    Any number of processes may replace the same path at once.
    Raises OSError, naming `path`, if the disk is full or the folder not writable.
    """
    with replacing_all([path]) as (file,):
        yield file


@contextmanager
def replacing_all(paths: Sequence[Path]) -> Iterator[list[BinaryIO]]:
    """As `replacing`, for several files: all are complete on disk before the first is renamed."""
    files: list[io.BufferedWriter] = []
    unfinished: list[_Unfinished] = []
    try:
        for path in paths:
            with _naming(path):
                with suppress(FileExistsError):  # if it is a file, opening the temporary says so better
                    path.parent.mkdir(parents=True)
                _remove_abandoned(path)
                if path.is_dir():  # a rename would find out too late, with other files renamed
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                unfinished.append(_Unfinished(path))
            files.append(io.BufferedWriter(unfinished[-1]))
        yield cast(list[BinaryIO], files)
        for file, raw in zip(files, unfinished, strict=True):
            file.flush()
            with _naming(raw.path):
                os.fsync(raw.fileno())  # a rename must not overtake the bytes in a power cut
                file.close()
        for raw in unfinished:
            with _naming(raw.path):
                os.replace(raw.temporary, raw.path)
    finally:
        for raw in unfinished:
            with suppress(OSError):
                raw.close()  # whatever the buffer still holds is not wanted
            with suppress(OSError):
                raw.temporary.unlink(missing_ok=True)


def write_all(contents: Mapping[Path, bytes]) -> None:
    """Write all files or none, as `replacing_all` does."""
    with replacing_all(list(contents)) as files:
        for file, content in zip(files, contents.values(), strict=True):
            file.write(content)


def write_npy(file: BinaryIO, array: NDArray[Any]) -> None:
    """Write an array in NumPy's .npy format.

    In chunks, since NumPy's own write to a real file loses the operating system's reason on a full disk.
    """
    header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(file, header)
    rows = max(1, CHUNK // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        file.write(np.ascontiguousarray(array[start : start + rows]).data)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let an OSError in the block say which file cannot be written."""
    try:
        yield
    except OSError as error:
        if error.filename == str(path):
            raise
        raise OSError(error.errno, f"cannot be written: {error.strerror or error}", str(path)) from error


def _remove_abandoned(path: Path) -> None:
    """Remove what killed processes left of `path`, so that a crashing machine does not fill its disk."""
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with suppress(OSError):
            if time.time() - temporary.stat().st_mtime > ABANDONED_AFTER:
                with open(temporary, "rb") as file:
                    _lock(file)  # fails if its writer lives
                temporary.unlink()


def _lock(file: BinaryIO | io.FileIO) -> None:
    """Lock an open file until it is closed. Raises OSError if another process holds it. No lock on Windows."""
    if fcntl:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


# --- reading -----------------------------------------------------------------------------


class Split(NamedTuple):
    """Images and their labels."""

    images: Bytes  # [images, pixels] or [images, height, width], 0 to 255
    labels: Bytes  # [images]

    def of_classes(self, classes: Sequence[int] | Bytes) -> "Split":
        """The images of these classes, in their order."""
        kept = np.isin(self.labels, classes)
        return Split(self.images[kept], self.labels[kept])


def read_split(split: str) -> Split:
    """A split's images, mapped from disk, and labels. Raises StageError if a file is missing or broken."""
    images = read_images(split)
    return Split(images.reshape(len(images), -1), read_labels(split))


def read_images(split: str, mapped: bool = True) -> Bytes:
    """The images of a split: uint8 [images, height, width], 0 to 255, mapped from disk or read whole.

    Raises StageError if the file is missing or not such an array.
    """
    return _read_npy(images_path(split), 3, "uint8 [images, height, width]", mapped)


def read_labels(split: str) -> Bytes:
    """The labels of a split: uint8 [images]. Raises StageError as read_images does."""
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
