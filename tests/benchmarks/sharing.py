"""What it saves that trials of one process share a compiled epoch.

    python -m tests.benchmarks.sharing

Trains each model of params.yaml for one epoch at ever other learning rates, as trials of a study do, on
the prepared images: by turns with the epoch that the trials before have compiled, and with one of its own.
Prints the seconds of a trial, from the model's making to the end of its epoch. Two minutes on 2 cores.
"""

import statistics
import time
from typing import Any

import numpy as np

from stages.applications.judge import silent
from stages.core.backend import tf, use_all_cores
from stages.core.params import read_params
from stages.core.schema import Model
from stages.core.tables import markdown
from stages.core.training import train
from stages.params.schema import TuneParams
from stages.tuning.worker import Data, read_data, training_of

ROUNDS = 5


def main() -> None:
    params = read_params(TuneParams)
    use_all_cores()
    tf.get_logger().setLevel("ERROR")  # which warns of functions that are compiled again and again
    data = read_data(params)
    rows = []
    for name, settings in params.models.items():
        shared: dict[str, Any] = {}
        trial(settings, data, shared)  # compiles what the others share
        with_own, with_shared = [], []
        for rate in np.linspace(0.5, 1, ROUNDS) * settings.learning_rate:
            one = settings.model_copy(update={"learning_rate": float(rate)})
            with_own.append(trial(one, data, {}))
            with_shared.append(trial(one, data, shared))
        own, other = statistics.median(with_own), statistics.median(with_shared)
        rows.append([name, spread(with_own), spread(with_shared), f"{own / other:.1f}×"])
    print(markdown(["model", "compiled for the trial", "shared", "times as fast"], rows))


def trial(settings: Model, data: Data, compiled: dict[str, Any]) -> float:
    """Seconds to make and train a model for one epoch."""
    start = time.perf_counter()
    one_epoch = settings.model_copy(update={"epochs": 1})
    train(training_of(one_epoch, data, compiled), data.train, data.validation, reporting=silent)
    return time.perf_counter() - start


def spread(seconds: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(seconds):.1f} ({min(seconds):.1f}–{max(seconds):.1f})"


if __name__ == "__main__":
    main()
