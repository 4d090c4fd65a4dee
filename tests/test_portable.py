"""The same bytes on every x86-64 processor: a real one and an emulated one compute the same."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT, call

KIND = "conv"  # has dense layers too; `python -m tests.portable` has more, but emulated each takes minutes


@pytest.mark.skipif(not shutil.which("qemu-x86_64") and not os.environ.get("CI"), reason="needs Debian's qemu-user")
def test_an_emulated_processor_of_amd_trains_and_measures_the_same_bytes() -> None:
    """With other caches than most, and without AVX-512."""
    command = (sys.executable, "-m", "tests.portable", KIND)
    here = call(ROOT, *command).stdout
    assert len(here.splitlines()) == 3  # an epoch, the training and the measures
    emulated = ["qemu-x86_64", "-cpu", "EPYC", *command]
    assert subprocess.run(emulated, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=900).stdout == here
