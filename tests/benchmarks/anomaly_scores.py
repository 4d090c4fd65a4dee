"""Which anomaly score do validation digits choose? AUROC of candidates, on no test image.

    dvc exp apply one-class-4 && python -m tests.benchmarks.anomaly_scores

Takes the models of the workspace, trained without some classes. The anomalies are digits of those classes from the
training file, which the models have not seen. docs/anomalies.md has the mean over ten classes.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from stages.applications.anomalies import inverse_covariance, mahalanobis
from stages.applications.methods import all_methods, load_models, model_paths
from stages.core.evaluation import load_evaluations, results_by_name
from stages.core.files import read_images, read_split
from stages.core.idx import read_idx
from stages.core.linear import Moments
from stages.core.measures import squared_error
from stages.core.params import read_params
from stages.core.schema import Params
from stages.prepare import find_raw

OF_EACH_CLASS = 500  # anomalies
WEIGHTS = (0.25, 0.5, 0.75, 1.0)  # of the logarithm of the distance; `combined` has 0.5


def main() -> None:
    params = read_params(Params)
    normal, unseen = read_images("validation"), missing_digits(params)
    images = np.concatenate([normal, unseen])
    pixels = np.divide(images.reshape(len(images), -1), np.float32(255), dtype=np.float32)
    anomalous = np.arange(len(pixels)) >= len(normal)
    results = results_by_name(load_evaluations(list(params.models)))
    table = {}
    for _, name, halves in all_methods(load_models(model_paths(params)), read_split("train")):
        codes = halves.encode(pixels)
        moments = Moments(results[name].code_mean, results[name].code_covariance)
        distance = np.log(mahalanobis(codes.astype(np.float64), moments.mean, inverse_covariance(moments)))
        error = np.log(squared_error(pixels, halves.decode(codes)))
        over_ink = error - np.log(pixels.sum(axis=1, dtype=np.float64))
        scores = {"error": error, "error / ink": over_ink, "distance": distance}
        scores |= {f"error / ink, {weight} log distance": over_ink + weight * distance for weight in WEIGHTS}
        table[name] = {score: roc_auc_score(anomalous, values) for score, values in scores.items()}
    print(pd.DataFrame(table).to_markdown(floatfmt=".4f"))


def missing_digits(params: Params) -> np.ndarray:
    """Digits of the classes that training lacked: uint8 [images, height, width]."""
    raw = find_raw(Path(params.prepare.raw))
    labels = read_idx(raw["train", "labels"], 1)
    missing = np.setdiff1d(labels, params.prepare.classes)
    random = np.random.default_rng(0)
    chosen = [random.permutation(np.flatnonzero(labels == label))[:OF_EACH_CLASS] for label in missing]
    images: np.ndarray = read_idx(raw["train", "images"], 3)[np.concatenate(chosen)]
    return images


if __name__ == "__main__":
    main()
