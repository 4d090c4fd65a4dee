"""Checkpoints of a training run, so that a killed one continues instead of starting again.

DVC deletes the outputs of an interrupted stage, so checkpoints lie in a scratch folder
that neither git nor DVC looks at, under a name that digests everything that determines
the run: another run never finds them. They may be deleted at any time.
"""

import hashlib
import importlib.metadata
import json
import platform
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stages.core import files
from stages.core.backend import assign, keras, tf
from stages.core.errors import reason

FOLDER = Path(".dvc/tmp/checkpoints")
LARGEST_SHARE = 0.02  # of the time that may go into saving checkpoints
LIBRARIES = ("keras", "numpy", "tensorflow")


class Epoch(NamedTuple):
    """The losses of an epoch; divergences in nats, 0 if the model is not variational."""

    epoch: int  # from 1
    loss: float
    val_loss: float
    kl: float
    val_kl: float


History = list[Epoch]


def digest_run(settings: dict[str, Any], data: Iterable[Path], code: Iterable[Path]) -> dict[str, str]:
    """A SHA-256 of each thing that determines a run, by its name in words."""
    parts = {
        "settings": settings,
        "data": [_file_digest(path) for path in data],
        "code": [_file_digest(path) for path in code],
        "versions of Python or libraries": [sys.version, *map(importlib.metadata.version, LIBRARIES)],
        "kind of machine": [platform.machine(), platform.system(), *gpus()],
    }
    return {name: hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest() for name, part in parts.items()}


def gpus() -> list[str]:
    """The kinds of GPU that this process trains on."""
    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    return [detail.get("device_name", "GPU") for detail in details]


def loaded_code(stage: str) -> list[Path]:
    """The files of this project that a stage has loaded, itself included.

    stage: its `__file__`; a stage that is run as a program is not among the loaded modules under its own name.
    """
    modules = [m for name, m in sys.modules.items() if f"{name}.".startswith("stages.")]
    return [Path(name) for name in sorted({str(module.__file__) for module in modules} | {stage})]


def _file_digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checkpoint_path(digests: dict[str, str]) -> Path:
    """Where the run with these digests keeps its checkpoint."""
    return FOLDER / f"{hashlib.sha256(json.dumps(digests).encode()).hexdigest()}.npz"


def restore(path: Path, variables: list[keras.Variable]) -> History:
    """Put the values of a checkpoint into the variables and return the history; an empty one if there is no file.

    A checkpoint that cannot be read is ignored with a note, since the run can always start again.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            history = [Epoch(int(number), *map(float, losses)) for number, *losses in archive["history"]]
            values = [archive[f"variable_{index}"] for index in range(len(variables))]
        if [value.shape for value in values] != [tuple(variable.shape) for variable in variables]:
            raise ValueError("it holds variables of other shapes")
    except FileNotFoundError:
        return []
    except (OSError, *files.BROKEN_ARRAY) as error:
        print(f"note: the checkpoint {path} is ignored: {reason(error)}.", file=sys.stderr)
        return []
    assign(variables, values)
    return history


def save(path: Path, variables: list[keras.Variable], history: History) -> float:
    """Save variables and history, and return the moment, by time.monotonic(), until which to wait with the next save.

    A disk that does not take the checkpoint is worth a note, not the end of the run.
    """
    start = time.monotonic()
    arrays: dict[str, Any] = {f"variable_{i}": np.asarray(v) for i, v in enumerate(variables)}
    try:
        files.write_all({path: partial(np.savez, allow_pickle=False, history=np.array(history), **arrays)})
    except OSError as error:
        print(f"note: no checkpoint: {path} {error.strerror}", file=sys.stderr)
    end = time.monotonic()
    return end + (end - start) / LARGEST_SHARE
