"""Run a stage of the project in the current folder under one fault after another, and then without any.

    python tests/faults.py '["train", "shallow"]' 50000 data/history data/prepared/train_images.npy

All runs share a process, because loading TensorFlow takes longer than the rest. Each fault prints a line of
JSON: its name, the stage's exit status, its standard error, and the files that it leaves.
"""

import contextlib
import io
import json
import resource
import runpy
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Let no file grow beyond `limit` bytes: the nearest thing to a full disk that a process can do to itself."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@contextmanager
def mode(path: Path, bits: int) -> Iterator[None]:
    before = path.stat().st_mode
    path.chmod(bits)
    yield
    path.chmod(before)


@contextmanager
def replaced(path: Path, create: Callable[[Path], None], remove: Callable[[Path], None]) -> Iterator[None]:
    """Put something else at `path`."""
    away = path.with_name(f".{path.name}.away")  # compare would take a name without a dot for a model's
    path.rename(away)
    create(path)
    yield
    remove(path)
    away.rename(path)


def faults(limit: int, folder: Path, source: Path) -> dict[str, AbstractContextManager[None]]:
    return {
        "full disk": full_disk(limit),
        "read-only folder": mode(folder, 0o555),
        "file for the folder": replaced(folder, Path.touch, Path.unlink),
        "unreadable input": mode(source, 0),
        "folder for the input": replaced(source, Path.mkdir, Path.rmdir),
        "none": contextlib.nullcontext(),
    }


def present() -> set[str]:
    return {str(path) for kind in ("data", "metrics", "plots") for path in Path(kind).rglob("*")}


def main() -> None:
    (stage, *arguments), limit, folder, source = json.loads(sys.argv[1]), *sys.argv[2:]
    sys.path.insert(0, str(Path.cwd()))
    sys.argv = ["x", *arguments]
    before = present()
    for name, fault in faults(int(limit), Path(folder), Path(source)).items():
        error = io.StringIO()
        status: object = 0
        with fault, contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
            try:
                runpy.run_module(f"stages.{stage}", run_name="__main__")
            except SystemExit as end:
                status = end.code
        left = sorted(present() - before)
        print(json.dumps({"fault": name, "status": status, "error": error.getvalue(), "left": left}))


if __name__ == "__main__":
    main()
