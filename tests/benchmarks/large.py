"""Peak memory and time of every stage on a data set of the size of EMNIST's largest: 700,000 images.

    python -m tests.benchmarks.large

Takes three minutes on two cores, and 3 GB of disk. The images are MNIST's, each moved by all ten of
SHIFTS; the stages are those of a clone in a temporary folder, with one epoch of training.
Prints a table in Markdown; exit status 1 if a stage fails or takes more memory than BOUND.
"""

import gzip
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from stages.core.idx import read_idx
from tests.conftest import ARGUMENTS, NAMES, RAW, ROOT, STAGES, change_params, environment, idx_bytes

BOUND = 2048  # MiB, as the README promises
SHIFTS = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1), (2, 0)]
RUN = [name for name in STAGES if name != "generate"]  # which is off by default


def write_moved(folder: Path) -> None:
    """The four raw files, each image as often as there are shifts, labels likewise."""
    folder.mkdir(parents=True)
    for images_name, labels_name in NAMES.values():
        images, labels = read_idx(RAW / images_name, 3), read_idx(RAW / labels_name, 1)
        moved = np.concatenate([np.roll(images, shift, axis=(1, 2)) for shift in SHIFTS])
        for name, array in ((images_name, moved), (labels_name, np.tile(labels, len(SHIFTS)))):
            (folder / name).write_bytes(gzip.compress(idx_bytes(array), 1, mtime=0))


def measured(project: Path, stage: str, *arguments: str) -> tuple[float, float]:
    """Run a stage; its peak memory in MiB and its seconds."""
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", f"stages.{stage}", *arguments], cwd=project, env=environment(), stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"stage {stage} failed")
    return usage.ru_maxrss / 1024, time.monotonic() - start  # kibibytes on Linux


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(project)], check=True)
        # In a process of its own: the measured ones would inherit its peak memory.
        subprocess.run([sys.executable, "-m", __spec__.name, str(project / "data/large")], check=True)

        def large(params: dict[str, Any]) -> None:
            params["prepare"]["raw"] = "data/large"
            for model in params["models"].values():
                model["epochs"] = 1

        change_params(project, large)
        print("| stage | peak memory | seconds |\n| --- | ---: | ---: |")
        peaks = {}
        for stage in (f"{name} {argument}".strip() for name in RUN for argument in ARGUMENTS.get(name, ("",))):
            peaks[stage], seconds = measured(project, *stage.split())
            print(f"| `{stage}` | {peaks[stage]:.0f} MiB | {seconds:.0f} |", flush=True)
    if too_large := [stage for stage, memory in peaks.items() if memory > BOUND]:
        sys.exit(f"more than {BOUND} MiB: {', '.join(too_large)}")


if __name__ == "__main__":
    write_moved(Path(sys.argv[1])) if len(sys.argv) > 1 else main()
