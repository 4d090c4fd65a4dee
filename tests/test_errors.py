"""How a stage ends: a sentence on standard error and an exit status for what can be foreseen."""

import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from stages.core.errors import ParamsError, StageError, run
from tests.conftest import ROOT, environment

pytestmark = pytest.mark.quick


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    """`run` takes over signals of the whole process."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def ending(main: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """The exit status of a stage and what it has written on standard error; nothing may be on standard output."""
    with pytest.raises(SystemExit) as caught:
        run(main)
    out, err = capsys.readouterr()
    assert out == ""
    return caught.value.code, err


def raising(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (StageError("x.npy is missing."), 1, "error: x.npy is missing.\n"),
        (ParamsError("one.\ntwo."), 2, "error: one.\ntwo.\n"),
        (OSError(errno.ENOSPC, "No space left on device", "x.npy"), 1, "error: x.npy: No space left on device.\n"),
        (OSError(errno.EIO, "Input/output error"), 1, "error: Input/output error.\n"),
        (KeyboardInterrupt(), 130, "interrupted.\n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_a_foreseen_failure_is_one_sentence_and_a_status(
    error: BaseException, status: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending(raising(error), capsys) == (status, sentence)


def test_an_array_larger_than_memory_is_reported_with_its_size(capsys: pytest.CaptureFixture[str]) -> None:
    status, err = ending(lambda: np.empty(2**60, np.uint8).fill(0), capsys)
    assert status == 1
    assert re.fullmatch(r"error: the machine's memory is too small for this data \(.*1\.00 EiB.*\)\.\n", err)


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ on Windows")
@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted.\n"), (signal.SIGTERM, 143, "terminated.\n")]
)
def test_a_signal_ends_the_stage_through_its_finally_blocks(
    number: signal.Signals, status: int, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """No handler of ordinary errors swallows it, even if the parent process ignores it, as a script's shell does."""
    signal.signal(number, signal.SIG_IGN)
    cleared = []

    def main() -> None:
        try:
            try:
                os.kill(os.getpid(), number)
                signal.pause()
            except Exception:
                cleared.append("swallowed")
        finally:
            cleared.append("finally")

    assert ending(main, capsys) == (status, word)
    assert cleared == ["finally"]


@pytest.mark.parametrize("encoding", ["ascii", "cp1251"])
def test_output_that_the_encoding_lacks_fails_nothing(encoding: str) -> None:
    """A multiplication sign, letters of two alphabets, and a file name that isn't UTF-8."""
    code = r"from stages.core.errors import run; run(lambda: print('28×28 ä я \udce4', 'end'))"
    output = subprocess.check_output(
        (sys.executable, "-c", code), cwd=ROOT, env=environment() | {"PYTHONIOENCODING": encoding}
    )
    assert output.decode(encoding).startswith("28")
    assert output.decode(encoding).endswith(" end\n")


def test_no_standard_output_fails_nothing() -> None:
    code = "from stages.core.errors import run; run(lambda: print('28×28'))"
    result = subprocess.run(f'"{sys.executable}" -c "{code}" >&-', shell=True, cwd=ROOT, capture_output=True)
    assert (result.returncode, result.stderr) == (0, b"")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes differ on Windows")
def test_output_that_nobody_reads_any_more_ends_the_stage_silently() -> None:
    """As in `python -m stages check | head -1`; what is written at the end, too."""
    for lines in (1, 100_000):
        code = f"from stages.core.errors import run; run(lambda: print('line\\n' * {lines}))"
        reader, writer = os.pipe()
        os.close(reader)
        buffered = environment() | {"PYTHONUNBUFFERED": ""}
        command = (sys.executable, "-c", code)
        result = subprocess.run(command, cwd=ROOT, env=buffered, stdout=writer, stderr=subprocess.PIPE)
        os.close(writer)
        assert (result.returncode, result.stderr) == (1, b"")


def test_a_programming_error_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 / 0)  # type: ignore[arg-type]
