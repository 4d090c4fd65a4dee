"""The same bytes on every x86-64 processor: real ones and emulated ones compute the same."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT, call

KIND = "conv"  # has dense layers too; `python -m tests.portable` has more, but emulated each takes a minute to compile


@pytest.mark.skipif(not shutil.which("qemu-x86_64") and not os.environ.get("CI"), reason="needs Debian's qemu-user")
def test_emulated_processors_of_intel_and_amd_train_and_measure_the_same_bytes() -> None:
    command = (sys.executable, "-m", "tests.portable", KIND)
    emulated = {
        processor: subprocess.Popen(
            ["qemu-x86_64", "-cpu", processor, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for processor in ("Haswell", "EPYC")
    }
    here = call(ROOT, *command).stdout
    assert len(here.splitlines()) == 3  # an epoch, the training and the measures
    for processor, process in emulated.items():
        assert (processor, process.communicate(timeout=900)[0]) == (processor, here)
