"""Reporting the epochs: a live bar on a terminal, lines in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10

Report = Callable[[int, float, float], None]  # epoch, loss, val_loss
Reporting = Callable[[int, int], AbstractContextManager[Report]]  # epochs, those trained before


@contextmanager
def reporting(epochs: int, done: int) -> Iterator[Report]:
    """A function to report each epoch with; `done` of them were trained before.

    On a terminal it moves a bar. In a log it prints a line every ten seconds, and for the last epoch.
    """
    if sys.stdout.isatty():
        with tqdm(total=epochs, initial=done, unit="epoch", file=sys.stdout) as bar:

            def move_bar(epoch: int, loss: float, val_loss: float) -> None:
                bar.set_postfix(loss=f"{loss:.5f}", val_loss=f"{val_loss:.5f}", refresh=False)
                bar.update()

            yield move_bar
        return

    next_line = 0.0
    compiled: float | None = None

    def print_line(epoch: int, loss: float, val_loss: float) -> None:
        nonlocal next_line, compiled
        now = time.monotonic()
        left = ""
        if compiled is None:  # the first epoch compiles, so it says nothing of the others' duration
            compiled = now
        else:
            left = f", {(now - compiled) / (epoch - done - 1) * (epochs - epoch):.0f} s left"
        if now >= next_line or epoch == epochs:
            print(f"epoch {epoch} of {epochs}: loss {loss:.5f}, val_loss {val_loss:.5f}{left}", flush=True)
            next_line = now + SECONDS_BETWEEN_LINES

    yield print_line
