"""Which sampler finds good settings soonest, and what does pruning save?

    python -m tests.benchmarks.tuning

Tunes the shallow model on the prepared images with each sampler and pruner below, over three
seeds, 36 trials each. Prints a table: the best validation mse, and the epochs that ran.
Run it again after an interruption, and it continues.
"""

from typing import Any

import numpy as np

from stages.core.params import read_params
from stages.core.tables import markdown
from stages.tools.tune.results import trial_table
from stages.tools.tune.schema import Tune, TuneParams
from stages.tools.tune.study import default_storage, is_complete, load_study
from stages.tools.tune.worker import run_trials

SEEDS = (0, 1, 2)
CHOICES: dict[str, Any] = {"batch_size": [64, 128, 256], "loss": ["binary_crossentropy", "mse"]}
GRID = CHOICES | {"learning_rate": [0.001, 0.003, 0.01, 0.03, 0.1, 0.3]}
RANGES = CHOICES | {"learning_rate": {"low": 0.001, "high": 0.3, "log": True}}
VARIANTS = (
    ("tpe", "none", RANGES),
    ("random", "none", RANGES),
    ("grid", "none", GRID),
    ("tpe", "median", RANGES),
    ("tpe", "hyperband", RANGES),
)
COMMON = {"model": "shallow", "objectives": ["mse"], "trials": 36, "epochs": 9, "seconds": 0}


def main() -> None:
    rows = []
    for sampler, pruner, space in VARIANTS:
        variant = COMMON | {"sampler": sampler, "pruner": pruner, "space": space}
        results = [run_study(Tune.model_validate(variant | {"seed": seed})) for seed in SEEDS]
        best, epochs = np.array(results).T
        rows.append([f"{sampler}, {pruner}", f"{best.mean():.6f} ± {best.std(ddof=1):.6f}", f"{epochs.mean():.0f}"])
    print(markdown(["sampler, pruner", "best validation mse", "epochs run"], rows))


def run_study(tune: Tune) -> tuple[float, int]:
    """The best mse of a study, and the epochs of all its trials."""
    name, url = f"{tune.sampler}-{tune.pruner}-{tune.seed}", default_storage("benchmark")
    params = read_params(TuneParams).model_copy(update={"tune": {name: tune}})
    run_trials(params, name, url)
    while not is_complete(study := load_study(url, name), tune):
        run_trials(params, name, url)
    return study.best_value, int(trial_table(study)["epochs_run"].sum())


if __name__ == "__main__":
    main()
