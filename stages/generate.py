"""Measure the digits that all models generate, by a classifier that is trained on real digits.

    python -m stages.generate 0

The argument is the seed of the classifier and of all draws. Reads data/prepared and data/models. Writes
data/generation/<seed>.keras, the classifier, plots/generation_<seed>.csv and .png, and metrics/generation_<seed>.md.
If you stop it while the classifier trains, it continues at the last saved epoch.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from stages.applications.classification import build_classification, labelled_rows
from stages.applications.classifier import build_classifier
from stages.applications.generation import (
    REAL,
    Generated,
    accuracy,
    check_mixture,
    draw_generation,
    generate,
    generation_table,
    measure_generated,
    real_digits,
    report,
)
from stages.applications.methods import all_methods, load_models, model_paths
from stages.applications.reference_classifier import ReferenceClassifier, classifying, reference_classifier
from stages.applications.schema import Generate, GenerateParams, SeededClassifier
from stages.core import files
from stages.core.archive import keras_bytes
from stages.core.backend import keras, use_all_cores
from stages.core.checkpoint import checkpoint_path, digest_run, loaded_code
from stages.core.command import stage_parser
from stages.core.errors import ParamsError, run
from stages.core.evaluation import REFERENCE
from stages.core.files import Split
from stages.core.params import read_params
from stages.core.style import STYLE, png
from stages.core.tables import csv
from stages.core.training import resident, train

Ways = tuple[str, str, Iterable[tuple[str, Iterator[Split]]]]  # kind and name of a method, its ways to sample codes


def main() -> None:
    seed = parse_seed()
    params = read_params(GenerateParams)
    settings = params.generate
    splits = [files.read_split(split) for split in files.SPLITS]
    check_fit(settings, splits[0])
    use_all_cores()
    classes = np.unique(splits[0].labels)
    training, validation, test = splits[0], *(split.of_classes(classes) for split in splits[1:])
    shape = files.read_images("test").shape[1:]
    recipe = SeededClassifier(**settings.classifier.model_dump(), seed=seed)
    models = load_models(model_paths(params))
    classifier, checkpoint = train_classifier(recipe, training, validation, shape)
    share = accuracy(classifying(classifier, classes), test)
    print(f"classifier: {share:.2%} of the test images right", flush=True)
    reference = reference_classifier(classifier, classes, validation, recipe, settings.digits, shape)
    methods = all_methods(models, training)
    ways: list[Ways] = [(REFERENCE, "real", [(REAL, real_digits(training, settings, seed))])]
    ways += [(m.kind, m.name, generate(m, training, reference, settings, seed)) for m in methods]
    generated = measure_all(ways, reference, test)
    table = generation_table(generated)
    with plt.rc_context(STYLE):
        picture = png(draw_generation(generated, shape), params.figures.dpi)
    files.write_all(
        {
            Path(f"data/generation/{seed}.keras"): keras_bytes(classifier),
            Path(f"plots/generation_{seed}.csv"): csv(table),
            Path(f"plots/generation_{seed}.png"): picture,
            Path(f"metrics/generation_{seed}.md"): report(table, settings.draws, share).encode(),
        }
    )
    with suppress(OSError):  # a checkpoint that stays does no harm
        checkpoint.unlink()


def parse_seed() -> int:
    """The seed. Ends the process with status 2 if the argument is none."""
    parser = stage_parser("generate", __doc__)
    parser.add_argument("seed", type=int, metavar="SEED", help="a whole number from 0 to 4294967295")
    seed: int = parser.parse_args().seed
    if not 0 <= seed < 2**32:
        parser.error(f"SEED is {seed}, but has to be from 0 to {2**32 - 1}")
    return seed


def check_fit(settings: Generate, train: Split) -> None:
    """Raise ParamsError if the settings do not suit the training images."""
    if len(np.unique(train.labels)) < 2:
        raise ParamsError("params.yaml: prepare.classes leaves training images of one class; a classifier needs two.")
    if settings.digits > len(train.images):
        raise ParamsError(
            f"params.yaml: generate.digits is {settings.digits}, but has to be at most {len(train.images)}, the number "
            "of training images."
        )
    check_mixture(settings, len(train.images))


def train_classifier(
    settings: SeededClassifier, train_split: Split, validation: Split, shape: tuple[int, int]
) -> tuple[keras.Model, Path]:
    """A classifier trained on real digits, and the file of its checkpoint."""
    classes = np.unique(train_split.labels)
    classifier = build_classifier(*shape, len(classes), settings)
    checkpoint = checkpoint_path(
        digest_run(
            settings.model_dump(),
            data=[of(split) for split in ("train", "validation") for of in (files.images_path, files.labels_path)],
            code=loaded_code(__file__),
        )
    )
    rows, held_out = (resident(labelled_rows(*split, classes)) for split in (train_split, validation))
    train(build_classification(classifier, settings, len(rows), shape), rows, held_out, checkpoint)
    return classifier, checkpoint


def measure_all(ways: list[Ways], reference: ReferenceClassifier, test: Split) -> list[Generated]:
    """Measure each method in each of its ways, and report each."""
    generated = []
    for kind, name, of_method in ways:
        for one in measure_generated(kind, name, of_method, reference, test):
            generated.append(one)
            distance, share = one.frechet.mean(), one.accuracy.mean()
            print(f"{name}, {one.way}: Fréchet distance {distance:.3g}, accuracy {share:.2%}", flush=True)
    return generated


if __name__ == "__main__":
    run(main)
