"""The files that the stages exchange: where they lie, and how they are written and read.

All paths are relative to the repository's root, where DVC runs the stages.
"""

import errno
import glob
import json
import os
import secrets
import time
import tokenize
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from stages.errors import StageError

Evaluation = dict[str, np.ndarray]  # the arrays of data/evaluation/<name>.npz

SPLITS = ("train", "validation", "test")
ABANDONED = 3600  # seconds after which an unfinished file is that of a killed process; a living one writes on
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
    """metrics/<name>.json of a model, or of "comparison"."""
    return Path(f"metrics/{name}.json")


def write_files(writers: Mapping[Path, bytes | Callable[[BinaryIO], object]]) -> None:
    """Write all files or none: each to a temporary neighbour first, renamed when all are whole.

    writers: for each path its bytes, or a function that writes them to an open file.
    Any number of processes may write the same paths at once.
    Raises OSError, naming the file, if the disk is full or the folder not writable.
    """
    temporaries: dict[Path, Path] = {}
    try:
        for path, writer in writers.items():
            # a name of its own for every writer: processes in two containers may have the same number
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
            try:
                with suppress(FileExistsError):  # if it is a file, opening the temporary says so better
                    path.parent.mkdir(parents=True)
                _remove_abandoned(path)
                if path.is_dir():  # a rename would find out too late, with other files renamed
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                with open(temporary, "xb") as file:
                    temporaries[path] = temporary
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


def _remove_abandoned(path: Path) -> None:
    """Remove what killed processes left of `path`, so that a crashing machine does not fill its disk."""
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with suppress(OSError):
            if time.time() - temporary.stat().st_mtime > ABANDONED:
                temporary.unlink()


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


def read_evaluation(name: str) -> Evaluation:
    """The arrays that the evaluate stage wrote for a model.

    Raises StageError if the file is missing or broken.
    """
    path = evaluation_path(name)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except FileNotFoundError:
        raise StageError(
            f"{path} is missing; run `dvc repro`. (A model added to params.yaml needs this file among the deps "
            "of compare and figures in dvc.yaml.)"
        ) from None
    except BROKEN_ARRAY as error:
        raise StageError(f"{path} is not a whole .npz file ({error}); run `dvc repro`.") from None


def with_baselines(evaluations: dict[str, Evaluation]) -> dict[str, Evaluation]:
    """The evaluations by the name to show, those of PCA first, one for each latent size in use.

    A model with at least as many latent dimensions as pixels is called overcomplete.

    Not for sizes of all pixels and more, where PCA gives every image back.
    """
    by_size = {int(e["latent_dim"]): e for e in evaluations.values() if int(e["latent_dim"]) < e["images"][0].size}
    baselines = {}
    for size in sorted(by_size):
        e = by_size[size]
        baselines[f"PCA ({size})"] = e | {k.removeprefix("pca_"): v for k, v in e.items() if k.startswith("pca_")}
    overcomplete = {name for name, e in evaluations.items() if int(e["latent_dim"]) >= e["images"][0].size}
    return baselines | {f"{n} (overcomplete)" if n in overcomplete else n: e for n, e in evaluations.items()}


def metrics_json(metrics: Mapping[str, Any]) -> bytes:
    """A metrics file: numbers by name, perhaps a level deeper.

    Six significant digits: more than any comparison needs, and the same on other processors.
    """

    def rounded(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: rounded(v) for key, v in value.items()}
        return value if isinstance(value, int) else float(f"{value:.6g}")

    return (json.dumps(rounded(metrics), indent=2) + "\n").encode()


def _read_npy(path: Path, mapped: bool) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except FileNotFoundError:
        raise StageError(f"{path} is missing; run `dvc repro prepare`.") from None
    except BROKEN_ARRAY as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise StageError(f"{path} is not a whole .npy file ({reason}); run `dvc repro prepare`.") from None
