"""Report each epoch: as a bar on a terminal, as lines in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from tqdm import tqdm

from stages.core.checkpoint import Epoch

SECONDS_BETWEEN_LINES = 10

Report = Callable[[Epoch], None]
Reporting = Callable[[int, int], AbstractContextManager[Report]]  # epochs in all, epochs done


@contextmanager
def reporting(epochs: int, done: int) -> Iterator[Report]:
    """Yield a function that reports one epoch of `epochs`; an earlier run trained the first `done`.

    A log gets a line at the first epoch, about every ten seconds, and at the last one, unless training stops early.
    """
    terminal = sys.stdout.isatty()
    next_line = compiled = 0.0
    with tqdm(total=epochs, initial=done, unit="epoch", file=sys.stdout, disable=not terminal) as bar:

        def report(row: Epoch) -> None:
            nonlocal next_line, compiled
            losses = f"loss {row.loss:.5f}, val_loss {row.val_loss:.5f}"
            if row.kl:
                losses += f", kl {row.kl:.3f}, val_kl {row.val_kl:.3f}"
            bar.set_postfix_str(losses, refresh=False)
            bar.update()
            now = time.monotonic()
            if compiled:  # the first epoch compiles, so its duration says nothing about the others
                losses += f", {(now - compiled) / (row.epoch - done - 1) * (epochs - row.epoch):.0f} s left"
            compiled = compiled or now
            if not terminal and (now >= next_line or row.epoch == epochs):
                print(f"epoch {row.epoch} of {epochs}: {losses}", flush=True)
                next_line = now + SECONDS_BETWEEN_LINES

        yield report
