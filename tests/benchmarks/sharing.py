"""What it saves that trials of one process share a compiled epoch.

    python -m tests.benchmarks.sharing

Trains each model of params.yaml for one epoch at ever other learning rates, as trials of a study do, on
the prepared images: by turns with the epoch that the trials before have compiled, and with one of its own.
Prints the seconds of a trial, from the model's making to the end of its epoch. Two minutes on 2 cores.
"""

import statistics
import time

import numpy as np

from stages.applications.reference_classifier import silent
from stages.core.backend import tf, use_all_cores
from stages.core.params import read_params
from stages.core.schema import Model
from stages.core.tables import markdown
from stages.core.training import train
from stages.tools.tune.schema import TuneParams
from stages.tools.tune.worker import Compiled, Inputs, read_inputs, training_of

ROUNDS = 5


def main() -> None:
    params = read_params(TuneParams)
    use_all_cores()
    tf.get_logger().setLevel("ERROR")  # which warns of functions that are compiled again and again
    inputs = read_inputs(params, next(iter(params.tune)))
    rows = []
    for name, settings in params.models.items():
        shared: Compiled = {}
        trial(settings, inputs, shared)  # compiles what the others share
        with_own, with_shared = [], []
        for rate in np.linspace(0.5, 1, ROUNDS) * settings.learning_rate:
            one = settings.model_copy(update={"learning_rate": float(rate)})
            with_own.append(trial(one, inputs, {}))
            with_shared.append(trial(one, inputs, shared))
        own, other = statistics.median(with_own), statistics.median(with_shared)
        rows.append([name, spread(with_own), spread(with_shared), f"{own / other:.1f}×"])
    print(markdown(["model", "compiled for the trial", "shared", "times as fast"], rows))


def trial(settings: Model, inputs: Inputs, compiled: Compiled) -> float:
    """Seconds to make and train a model for one epoch."""
    start = time.perf_counter()
    one_epoch = settings.model_copy(update={"epochs": 1})
    training = training_of(one_epoch, inputs, compiled)
    train(training, inputs.train, inputs.validation, reporting=silent)
    return time.perf_counter() - start


def spread(seconds: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(seconds):.1f} ({min(seconds):.1f}–{max(seconds):.1f})"


if __name__ == "__main__":
    main()
