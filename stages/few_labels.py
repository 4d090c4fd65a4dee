"""Classify test images with few labels, on the codes of all models and on other features.

    python -m stages.few_labels

Reads data/prepared and data/models. Compares codes of the models with those of the same encoders before training,
those of the baselines, and pixels. Writes plots/labels.csv and .png, and metrics/few_labels.md.
"""

from pathlib import Path

import matplotlib.pyplot as plt

from stages.applications.classifiers import measure_labels
from stages.applications.labels import (
    FIGURE,
    REPORT,
    TABLE,
    Features,
    Task,
    draw_labels,
    labels_table,
    read_task,
    report,
)
from stages.applications.methods import all_methods, load_models, model_paths
from stages.applications.schema import FewLabels, FewLabelsParams
from stages.core.autoencoder import code_encoder
from stages.core.backend import keras, use_all_cores
from stages.core.command import stage_parser
from stages.core.errors import run
from stages.core.evaluation import REFERENCE, UNTRAINED
from stages.core.files import read_split, write_all
from stages.core.inference import compile_model
from stages.core.params import read_params
from stages.core.style import STYLE, png
from stages.core.tables import csv


def main() -> None:
    stage_parser("few_labels", __doc__).parse_args()
    params = read_params(FewLabelsParams)
    use_all_cores()
    task = read_task(params.few_labels)
    features = measure_features(model_paths(params), task, params.few_labels)
    table = labels_table(features, task.numbers, params.compare.resamples, params.compare.seed)
    with plt.rc_context(STYLE):
        picture = png(draw_labels(features, table), params.figures.dpi)
    write_all({TABLE: csv(table), FIGURE: picture, REPORT: report(table, task).encode()})
    for name, rows in table.groupby("method", sort=False):
        shares = zip(rows["labels"], rows["spreading"], strict=True)
        found = ", ".join(f"{share:.3f} with {number:,} labels" for number, share in shares)
        print(f"{name}: accuracy of label spreading {found}")


def measure_features(paths: dict[str, Path], task: Task, settings: FewLabels) -> list[Features]:
    """Pixels, the baselines, untrained encoders, and the models."""
    models = load_models(paths)
    methods = all_methods(models, read_split("train"))  # baselines, then models
    pixels = Features(REFERENCE, "all pixels", "", measure_labels(lambda images: images, task, settings))
    untrained = [measure_untrained(name, model, task, settings) for name, model in models.items()]
    encoded = [
        Features(kind, name, "", measure_labels(halves.encode, task, settings)) for kind, name, halves in methods
    ]
    return [pixels, *encoded[: -len(models)], *untrained, *encoded[-len(models) :]]


def measure_untrained(name: str, model: keras.Model, task: Task, settings: FewLabels) -> Features:
    """The encoder of a model, with new weights."""
    keras.utils.set_random_seed(settings.seed)
    encoder = keras.models.clone_model(code_encoder(model))
    classified = measure_labels(compile_model(encoder), task, settings)
    return Features(UNTRAINED, f"untrained {name}", name, classified)


if __name__ == "__main__":
    run(main)
