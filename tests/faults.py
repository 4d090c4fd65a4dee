"""Run stages of the project in the current folder under one fault after another, and then without any.

    python tests/faults.py '[["train shallow", 50000, "data/prepared/train_images.npy", null]]'

Each case is a stage with its argument, a limit to the size of files, an input, and, to try faults of it too, the
folder of the outputs. All runs share a process, because loading TensorFlow takes longer than the rest. Each prints
a line of JSON: the stage, the fault, the exit status, the standard error, and the files that it leaves.
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


def faults(limit: int, source: Path, folder: Path | None) -> dict[str, AbstractContextManager[None]]:
    of_folder: dict[str, AbstractContextManager[None]] = {}
    if folder:
        of_folder["read-only folder"] = mode(folder, 0o555)
        of_folder["file for the folder"] = replaced(folder, Path.touch, Path.unlink)
    return of_folder | {
        "full disk": full_disk(limit),
        "unreadable input": mode(source, 0),
        "folder for the input": replaced(source, Path.mkdir, Path.rmdir),
        "none": contextlib.nullcontext(),
    }


def present() -> set[str]:
    return {str(path) for kind in ("data", "metrics", "plots") for path in Path(kind).rglob("*")}


def run(stage: str) -> tuple[object, str]:
    """The exit status and standard error of a stage."""
    name, *sys.argv[1:] = stage.split()
    error = io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
        try:
            runpy.run_module(f"stages.{name}", run_name="__main__")
        except SystemExit as end:
            return end.code, error.getvalue()
    return 0, error.getvalue()


def main() -> None:
    sys.path.insert(0, str(Path.cwd()))
    for stage, limit, source, folder in json.loads(sys.argv[1]):
        before = present()
        for name, fault in faults(limit, Path(source), folder and Path(folder)).items():
            with fault:
                status, error = run(stage)
            left = sorted(present() - before)
            print(json.dumps({"stage": stage, "fault": name, "status": status, "error": error, "left": left}))


if __name__ == "__main__":
    main()
