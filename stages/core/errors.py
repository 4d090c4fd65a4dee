"""How a stage fails: one clear sentence on standard error and an exit status, no traceback."""

import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn


class StageError(Exception):
    """A fault that the user can mend; its text says what was found and what is allowed."""

    exit_status = 1


class ParamsError(StageError):
    """A fault in params.yaml or on the command line; one sentence per line and problem."""

    exit_status = 2


class TerminatedError(BaseException):
    """SIGTERM, as KeyboardInterrupt is SIGINT: no handler of ordinary errors swallows it."""


def terminate(number: int, frame: object) -> NoReturn:
    """A signal handler that ends the stage through its `finally` blocks, which remove unfinished files."""
    raise TerminatedError


def run(main: Callable[[], None]) -> None:
    """Call `main` and end the process with one sentence if it fails in a foreseeable way.

    Exit status 2 for bad parameters, 1 for bad data or a failing disk, 130 for Ctrl-C, 143 for SIGTERM,
    and 1 without a sentence where the reader of a pipe has gone.
    Programming errors keep their traceback.
    """
    signal.signal(signal.SIGTERM, terminate)
    try:
        main()
        sys.stdout.flush()  # here, since what fails later has no sentence
    except StageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except BrokenPipeError:  # the reader of our output has gone, as in `| head`
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
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        sys.exit(130)
    except TerminatedError:
        print("terminated.", file=sys.stderr)
        sys.exit(143)
