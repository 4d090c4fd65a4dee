"""Keras and TensorFlow, loaded without TensorFlow's notes on GPUs that are not there.

TF_CPP_MIN_LOG_LEVEL does not reach what TensorFlow logs while it loads (its issue 100442),
so standard error goes to another process for that long, which prints it if loading fails
or this process dies.
"""

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Read all, wait for the end, and print it unless the last byte is 0, which means success.
_KEEPER = "import sys; text = sys.stdin.buffer.read(); sys.stderr.buffer.write(b'' if text.endswith(b'\\0') else text)"


@contextmanager
def _stderr_kept() -> Iterator[None]:
    """Keep what is written to file descriptor 2 in the block; show it if the block fails or never ends."""
    stderr = os.dup(2)
    keeper = subprocess.Popen(  # noqa: S603
        [sys.executable, "-I", "-S", "-c", _KEEPER],
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is not for it
    )
    assert keeper.stdin is not None  # noqa: S101
    os.dup2(keeper.stdin.fileno(), 2)
    failed = False
    try:
        yield
    except Exception:
        failed = True  # unlike Ctrl-C or SIGTERM
        raise
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        with suppress(BrokenPipeError):  # the keeper may have been killed
            keeper.stdin.write(b"" if failed else b"\0")
            keeper.stdin.close()
        keeper.wait()


@contextmanager
def _loading_less(*names: str) -> Iterator[None]:
    """Load faster in the block: no import finds the modules of these names, and no garbage is looked for."""
    hidden = dict.fromkeys(name for name in names if name not in sys.modules)
    sys.modules |= hidden  # type: ignore[arg-type]  # None, as the import system has it for a module that is not there
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        for name in hidden:
            del sys.modules[name]


# Keras would load both, for its wrappers and galleries, which nobody here uses.
with _stderr_kept(), _loading_less("matplotlib", "sklearn"):
    import keras
    import tensorflow as tf


def use_all_cores() -> None:
    """Let one operation use all cores, before TensorFlow runs the first.

    The number changes no byte from two on; XLA cuts some products in another way for a single thread.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    tf.config.threading.set_intra_op_parallelism_threads(max(2, cores))
    tf.config.threading.set_inter_op_parallelism_threads(1)


__all__ = ["keras", "tf", "use_all_cores"]
