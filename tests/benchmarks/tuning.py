"""Which sampler finds good settings soonest, and what does cutting trials short save?

    python -m tests.benchmarks.tuning

Tunes the shallow model by every sampler and pruner below, over three seeds, with the same
number of trials each, on the prepared images. Writes the best validation mse after each
trial to plots/studies/samplers.csv and .png, and prints a table: the best mse at the end and
the epochs that were run. Interrupted, it goes on where it was.
"""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from stages.core import files
from stages.core.backend import tf, use_all_cores
from stages.core.params import read_params
from stages.core.style import COLOURS, STYLE, png
from stages.core.tables import STUDIES, csv, markdown
from stages.params.schema import Tune, TuneParams
from stages.params.space import base_of
from stages.tuning.results import trial_table
from stages.tuning.storage import default_storage, open_storage, open_study
from stages.tuning.worker import digest_study, read_data, run_trials

SEEDS = (0, 1, 2)
TRIALS = 36
RATES = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3]
CHOICES: dict[str, Any] = {"batch_size": [64, 128, 256], "loss": ["binary_crossentropy", "mse"]}
RANGES = CHOICES | {"learning_rate": {"low": RATES[0], "high": RATES[-1], "log": True}}
VARIANTS: dict[str, dict[str, Any]] = {
    "tpe": {"sampler": "tpe", "pruner": "none", "space": RANGES},
    "random": {"sampler": "random", "pruner": "none", "space": RANGES},
    "grid": {"sampler": "grid", "pruner": "none", "space": CHOICES | {"learning_rate": RATES}},
    "tpe, median": {"sampler": "tpe", "pruner": "median", "space": RANGES},
    "tpe, hyperband": {"sampler": "tpe", "pruner": "hyperband", "space": RANGES},
}
COMMON = {"model": "shallow", "objectives": ["mse"], "trials": TRIALS, "epochs": 9, "seconds": 0}


def main() -> None:
    params = read_params(TuneParams)
    url = default_storage("benchmark")
    storage = open_storage(url)
    curves, summary = [], []
    use_all_cores()
    tf.get_logger().setLevel("ERROR")
    data = read_data(params)
    for name, variant in VARIANTS.items():
        bests, epochs = [], []
        for seed in SEEDS:
            tune = Tune.model_validate(COMMON | variant | {"seed": seed})
            base = base_of(params, tune)
            study = open_study(storage, url, f"{name} {seed}", tune, digest_study(params, tune, base))
            while not run_trials(study, storage, tune, base, data):
                pass
            table = trial_table(study, tune)
            complete = table["mse"].where(table["state"] == "complete", np.inf)
            bests.append(complete.cummin().to_numpy())
            epochs.append(int(table["epochs_run"].sum()))
        rows = np.array(bests)
        curves.append(
            pd.DataFrame(
                {"series": name, "trial": range(1, TRIALS + 1), "mean": rows.mean(0), "std": rows.std(0, ddof=1)}
            )
        )
        last = rows[:, -1]
        summary.append([name, f"{last.mean():.6f} ± {last.std(ddof=1):.6f}", f"{np.mean(epochs):.0f}"])
    table = pd.concat(curves)
    with plt.rc_context(STYLE):
        picture = png(draw(table), read_params(TuneParams).figures.dpi)
    files.write_all({STUDIES / "samplers.csv": csv(table), STUDIES / "samplers.png": picture})
    print(markdown(["", "best validation mse", "epochs run"], summary))


def draw(table: pd.DataFrame) -> Figure:
    """The best so far of each variant, mean over seeds with one standard deviation."""
    figure, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    for (name, rows), colour in zip(table.groupby("series", sort=False), COLOURS, strict=False):
        ax.plot(rows["trial"], rows["mean"], color=colour, label=name)
        ax.fill_between(rows["trial"], rows["mean"] - rows["std"], rows["mean"] + rows["std"], color=colour, alpha=0.15)
    ends = table[table["trial"] == table["trial"].max()]["mean"]
    ax.set_ylim(ends.min() * 0.995, ends.min() * 1.06)
    ax.set(xlabel="trial", ylabel="best validation mse so far")
    ax.set_title(f"Mean of {len(SEEDS)} seeds, band: one standard deviation", loc="left")
    ax.legend()
    return figure


if __name__ == "__main__":
    main()
