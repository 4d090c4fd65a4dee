"""How a stage fails: with one clear sentence on standard error and an exit status, without a traceback."""

import io
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from stages import NUMPY_CAME_FIRST


class StageError(Exception):
    """A fault that you can mend. Its text says what was found and what is allowed."""

    exit_status = 1


class ParamsError(StageError):
    """A fault in params.yaml or on the command line. Its text has one line for each problem."""

    exit_status = 2


class TerminatedError(KeyboardInterrupt):
    """Raised on SIGTERM. Libraries treat it like Ctrl-C, and no handler of errors catches it."""


def reason(error: BaseException) -> str:
    """What an error of a library says, without its further lines, which may advise what is not safe."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200].rstrip(".")


def terminate(number: int, frame: object) -> NoReturn:
    """Handle a signal by ending the stage; its `finally` blocks remove unfinished files."""
    raise TerminatedError


def run(main: Callable[[], None]) -> None:
    """Call `main`, and end the process with one sentence if it fails in a foreseeable way.

    The exit status is 2 for bad parameters, 1 for bad data or a failing disk, 130 for Ctrl-C, and 143 for SIGTERM.
    If the reader of a pipe has gone, it is 1, without a sentence. Programming errors keep their traceback.
    Signals and output work the same however the process was started.
    """
    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background processes start by ignoring it
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what the encoding lacks, as on standard error
    try:
        if NUMPY_CAME_FIRST:
            raise StageError(
                "code that Python runs at startup loads NumPy, which changes results; remove that import from "
                "your sitecustomize.py, usercustomize.py or .pth file, or import stages before it."
            )
        main()
        if sys.stdout:
            sys.stdout.flush()  # report a failure here; Python's own flush at exit has no sentence
    except StageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except BrokenPipeError:  # the reader of the output has gone, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}.", file=sys.stderr)
        sys.exit(1)
    except MemoryError as error:
        detail = f" ({error})" if str(error) else ""
        print(f"error: the machine's memory is too small for this data{detail}.", file=sys.stderr)
        sys.exit(1)
    except TerminatedError:
        print("terminated.", file=sys.stderr)
        sys.exit(143)
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        sys.exit(130)
