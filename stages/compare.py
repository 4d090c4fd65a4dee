"""Is one model really better than another? Paired differences on the test images.

    python -m stages.compare

Reads data/evaluation/<name>.npz of every model in params.yaml and writes
metrics/comparison.json, for each pair of models and each model beside PCA of the same
latent size, and plots/mse_per_class.csv, the table behind a chart of `dvc plots show`.

The intervals tell how far the result depends on which digits happened to be in the test
set. They say nothing about another seed or another training run.
"""

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from stages import files
from stages.errors import run
from stages.files import Evaluation
from stages.measures import bootstrap_means
from stages.params import Compare, read_params, refuse_arguments, stage_arguments

MSE_PER_CLASS = Path("plots/mse_per_class.csv")
PERCENTILES = (2.5, 97.5)  # the ends of a 95 % interval


def compare(errors: np.ndarray, others: np.ndarray, settings: Compare) -> dict[str, float]:
    """How much smaller the squared errors of one model are than those of another on the same images.

    errors, others: float [images], summed over pixels. Returns `difference`, the mean of
    errors - others in the unit of the errors, below 0 if the first is better; `ratio`, the
    mean of errors over the mean of others; both with the ends of the 95 % interval by the
    bootstrap's percentiles; and `wins`, the share of images on which the first is strictly
    better, 0 to 1.
    """
    resampled, reference = bootstrap_means(np.stack([errors, others], axis=1), settings.resamples, settings.seed).T
    difference_low, difference_high = np.percentile(resampled - reference, PERCENTILES)
    ratio_low, ratio_high = np.percentile(resampled / reference, PERCENTILES)
    return {
        "difference": (errors - others).mean(),
        "difference_low": difference_low,
        "difference_high": difference_high,
        "ratio": errors.mean() / others.mean(),
        "ratio_low": ratio_low,
        "ratio_high": ratio_high,
        "wins": (errors < others).mean(),
    }


def compare_all(evaluations: dict[str, Evaluation], settings: Compare) -> dict[str, dict[str, float]]:
    """Every later model of params.yaml against every earlier one, and each against PCA where PCA makes an error."""
    errors = {name: e["squared_error"] for name, e in evaluations.items()}
    pairs = {f"{b}_vs_{a}": (errors[b], errors[a]) for a, b in combinations(errors, 2)}
    for name, e in evaluations.items():
        if e["latent_dim"] < e["images"][0].size:  # else PCA makes no error
            pairs[f"{name}_vs_pca"] = (errors[name], e["pca_squared_error"])
    return {pair: compare(*both, settings) for pair, both in pairs.items()}


def mse_per_class(evaluations: dict[str, Evaluation]) -> pd.DataFrame:
    """Mean squared error per pixel of each model and PCA on each class: class, model, mse, images."""
    rows = []
    for name, e in files.with_baselines(evaluations).items():
        pixels = e["images"][0].size
        for label in np.unique(e["labels"]):
            errors = e["squared_error"][e["labels"] == label]
            rows.append({"class": label, "model": name, "mse": errors.mean() / pixels, "images": len(errors)})
    return pd.DataFrame(rows)


def main() -> None:
    refuse_arguments(stage_arguments(__doc__))
    params = read_params()
    evaluations = {name: files.read_evaluation(name) for name in params.models}
    comparison = compare_all(evaluations, params.compare)
    table = mse_per_class(evaluations).to_csv(index=False, float_format="%.6g", lineterminator="\n").encode()
    files.write_files({files.metrics_path("comparison"): files.metrics_json(comparison), MSE_PER_CLASS: table})
    for pair, row in comparison.items():
        print(
            f"{pair}: {row['ratio']:.3f} times the squared error ({row['ratio_low']:.3f} to {row['ratio_high']:.3f}), "
            f"smaller on {row['wins']:.1%} of the test images"
        )


if __name__ == "__main__":
    run(main)
