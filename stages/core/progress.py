"""Reporting the epochs: a live bar on a terminal, lines in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from tqdm import tqdm

from stages.core.checkpoint import Epoch

SECONDS_BETWEEN_LINES = 10

Report = Callable[[Epoch], None]
Reporting = Callable[[int, int], AbstractContextManager[Report]]  # epochs, those trained before


@contextmanager
def reporting(epochs: int, done: int) -> Iterator[Report]:
    """A function to report each epoch with; `done` of them were trained before.

    On a terminal it moves a bar. In a log it prints a line every ten seconds, and for epoch `epochs`.
    """
    if sys.stdout.isatty():
        with tqdm(total=epochs, initial=done, unit="epoch", file=sys.stdout) as bar:

            def move_bar(row: Epoch) -> None:
                bar.set_postfix(shown(row), refresh=False)
                bar.update()

            yield move_bar
        return

    next_line = 0.0
    compiled: float | None = None

    def print_line(row: Epoch) -> None:
        nonlocal next_line, compiled
        now = time.monotonic()
        left = ""
        if compiled is None:  # the first epoch compiles, so it says nothing of the others' duration
            compiled = now
        else:
            left = f", {(now - compiled) / (row.epoch - done - 1) * (epochs - row.epoch):.0f} s left"
        if now >= next_line or row.epoch == epochs:
            losses = ", ".join(f"{name} {value}" for name, value in shown(row).items())
            print(f"epoch {row.epoch} of {epochs}: {losses}{left}", flush=True)
            next_line = now + SECONDS_BETWEEN_LINES

    yield print_line


def shown(row: Epoch) -> dict[str, str]:
    """The losses of an epoch to print, with the divergence where there is one."""
    losses = {"loss": f"{row.loss:.5f}", "val_loss": f"{row.val_loss:.5f}"}
    return losses | {"kl": f"{row.kl:.3f}", "val_kl": f"{row.val_kl:.3f}"} if row.kl else losses
