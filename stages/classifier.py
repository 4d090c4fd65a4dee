"""Train a classifier on real digits, to judge generated ones.

    python -m stages.classifier

Reads data/prepared and writes data/classifier/classifier.keras, and data/classifier/floor.npz: what real
training images give where generated digits are measured. Unless `classifier.train` is true in
params.yaml, the first says so, the second holds no measure, and nothing loads TensorFlow. A
run that was killed continues at its last saved epoch.
"""

from contextlib import suppress

import numpy as np

from stages.applications.generation import (
    REAL,
    Floor,
    collect,
    digest_judge,
    judge_methods,
    no_generation,
    real_digits,
    share_right,
)
from stages.applications.schema import ApplicationParams
from stages.core import files
from stages.core.arrays import Bytes
from stages.core.command import parse_no_arguments
from stages.core.errors import ParamsError, run
from stages.core.files import Split
from stages.core.params import read_params
from stages.core.records import save_record


def main() -> None:
    parse_no_arguments("classifier", __doc__)
    params = read_params(ApplicationParams)
    if not params.classifier.train:
        _, height, width = files.read_images("test").shape
        write(b"classifier.train is false\n", Floor("", 0.0, no_generation(height, width)))
        print("no classifier, since classifier.train is false")
        return
    train, validation, test = (files.read_split(split) for split in files.SPLITS)
    check_fit(params, train)
    classes = np.unique(train.labels)
    train_and_write(params, classes, train, *(split.of_classes(classes) for split in (validation, test)))


def check_fit(params: ApplicationParams, train: Split) -> None:
    """Raise ParamsError if the settings do not suit the training images."""
    if len(np.unique(train.labels)) < 2:
        raise ParamsError(
            "params.yaml: classifier.train is true, but the training images are of one class; a classifier needs two."
        )
    if params.generate.digits > len(train.images):
        raise ParamsError(
            f"params.yaml: generate.digits is {params.generate.digits}, but has to be at most {len(train.images)}, "
            "the number of training images, beside which generated digits are measured."
        )


def train_and_write(params: ApplicationParams, classes: Bytes, train: Split, validation: Split, test: Split) -> None:
    """Train the classifier, and measure real digits with it.

    classes: uint8 [classes], those of the training images and of all others given.
    """
    # TensorFlow takes seconds to load, and the defaults need none.
    from stages.applications.classification import build_classification, labelled_rows
    from stages.applications.classifier import build_classifier
    from stages.applications.judge import build_judge, classifying
    from stages.core.archive import keras_bytes
    from stages.core.backend import use_all_cores
    from stages.core.checkpoint import checkpoint_path, digest_run, loaded_code
    from stages.core.training import resident
    from stages.core.training import train as train_network

    settings = params.classifier
    use_all_cores()
    _, height, width = files.read_images("test").shape
    classifier = build_classifier(height, width, len(classes), settings)
    checkpoint = checkpoint_path(
        digest_run(
            settings.model_dump(),
            data=[of(split) for split in ("train", "validation") for of in (files.images_path, files.labels_path)],
            code=loaded_code(__file__),
        )
    )
    rows, held_out = (resident(labelled_rows(*split, classes)) for split in (train, validation))
    training = build_classification(classifier, settings, len(rows), (height, width))
    train_network(training, rows, held_out, checkpoint)
    accuracy = share_right(classifying(classifier, classes), test)
    print(f"classifier: {accuracy:.2%} of the test images right", flush=True)
    judge = build_judge(classifier, classes, validation, settings, params.generate.digits, (height, width))
    methods = [(REAL, real_digits(train, params.generate))]
    real = collect(judge_methods(methods, judge, test, (height, width)))
    content = keras_bytes(classifier)
    write(content, Floor(digest_judge(content, classes, params.generate), accuracy, real))
    print(f"{REAL}: Fréchet distance {real.frechet.mean():.3g}, accuracy {real.accuracy.mean():.2%}")
    with suppress(OSError):  # a checkpoint that stays does no harm
        checkpoint.unlink()


def write(classifier: bytes, floor: Floor) -> None:
    """Write both files or none."""
    with files.replacing_all([files.CLASSIFIER, files.FLOOR]) as (model, record):
        model.write(classifier)
        save_record(record, floor)


if __name__ == "__main__":
    run(main)
