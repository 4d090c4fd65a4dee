"""Put one trained autoencoder to use, next to PCA: denoise test images, classify them with few labels, generate digits.

    python -m stages.apply deep

Reads data/prepared, data/models/<name>.keras and data/evaluation/<name>.npz, which has the
PCA. Writes data/applications/<name>.npz, what the model and PCA make of noisy test images and how many
test images a few labels tell on their codes and on those of an untrained encoder, and
data/generation/<name>.npz: how good the digits are that they generate, by the classifier in
data/classifier. It holds no measure unless `classifier.train` is true in params.yaml.
"""

import numpy as np

from stages.applications.classifier import check_classes, load_classifier
from stages.applications.classifiers import measure_labels
from stages.applications.denoising import digest_noisy, measure_denoised, noisy_tests, read_chosen
from stages.applications.generation import (
    Generations,
    check_mixture,
    collect,
    digest_judge,
    generate,
    judge_methods,
    no_generation,
)
from stages.applications.labels import CodeLabels, read_task
from stages.applications.records import Application
from stages.applications.schema import ApplicationParams, Apply
from stages.core import files
from stages.core.autoencoder import code_encoder, is_variational
from stages.core.backend import keras, use_all_cores
from stages.core.command import parse_model
from stages.core.errors import StageError, run
from stages.core.evaluation import load_evaluation
from stages.core.inference import BATCH, check_size, compile_model, load_autoencoder
from stages.core.linear import Pca
from stages.core.measures import in_batches, psnr
from stages.core.params import choose_model, read_params
from stages.core.records import save_record


def main() -> None:
    argument = parse_model("apply", __doc__)
    params = read_params(ApplicationParams)
    name, _, _, written = choose_model(params, argument)
    use_all_cores()
    clean = read_chosen("test", params.apply.images, params.apply.seed)
    evaluation = load_evaluation(written.evaluation)
    model = load_autoencoder(written.model)
    _, height, width = clean.shape
    check_size(written.model, model, height, width)
    if evaluation.pixels != height * width:
        raise StageError(f"{written.evaluation} is of other test images than those prepared; run `dvc repro`.")
    pca = Pca(evaluation.pca_mean, evaluation.pca_components)
    noisy = [images.reshape(len(images), -1) for images in noisy_tests(clean, params.apply)]
    application = Application(
        digest=digest_noisy(noisy),
        model=measure_denoised(clean, map(compile_model(model), noisy)),
        pca=measure_denoised(clean, (pca.decode(pca.encode(images)) for images in noisy)),
        labels=measure_codes(code_encoder(model), pca, params.apply),
    )
    none = no_generation(height, width)
    judged = (
        judge_generated(name, model, pca, (height, width), params)
        if params.classifier.train
        else Generations("", params.generate.components, params.generate.codes, none, none)
    )
    with files.replacing_all([written.application, written.generation]) as (applied, generated):
        save_record(applied, application)
        save_record(generated, judged)
    levels = zip(params.apply.noise, application.model.squared_error / clean[0].size, strict=True)
    print(f"{name}: psnr {', '.join(f'{psnr(e.mean()):.1f} dB at noise {deviation:g}' for deviation, e in levels)}")
    accuracies = zip(application.labels.numbers, application.labels.model.logistic.mean(axis=1), strict=True)
    print(f"{name}: accuracy {', '.join(f'{share:.3f} with {number:,} labels' for number, share in accuracies)}")


def measure_codes(encoder: keras.Model, pca: Pca, settings: Apply) -> CodeLabels:
    """What few labels do with codes of a trained encoder, of PCA, and of the encoder before any training."""
    task = read_task(settings)
    keras.utils.set_random_seed(settings.seed)
    untrained = keras.models.clone_model(encoder)  # with new weights
    return CodeLabels(
        numbers=task.numbers,
        model=measure_labels(compile_model(encoder), task, settings),
        pca=measure_labels(pca.encode, task, settings),
        untrained=measure_labels(compile_model(untrained), task, settings),
    )


def judge_generated(
    name: str, model: keras.Model, pca: Pca, shape: tuple[int, int], params: ApplicationParams
) -> Generations:
    """Judge the digits that a model and PCA generate, and say how good they are, method by method."""
    from stages.applications.judge import build_judge  # loads the training, which the defaults need not

    train, validation, test = (files.read_split(split) for split in files.SPLITS)
    settings = params.generate
    check_mixture(settings, len(train.images))
    classes = np.unique(train.labels)
    validation, test = (split.of_classes(classes) for split in (validation, test))
    classifier = load_classifier(files.CLASSIFIER)
    check_size(files.CLASSIFIER, classifier, *shape)
    check_classes(files.CLASSIFIER, classifier, len(classes))
    judge = build_judge(classifier, classes, validation, params.classifier, settings.digits, shape)
    encoder, decoder = compile_model(code_encoder(model)), compile_model(model.get_layer("decoder"))
    generations = []
    for shown, encode, decode, variational in (
        (name, encoder, decoder, is_variational(model)),
        (f"PCA ({len(pca.components)})", pca.encode, pca.decode, False),
    ):
        codes = in_batches(encode, train.images, BATCH)
        methods = generate(decode, codes, train.labels, judge, settings, variational)
        judged = []
        for one in judge_methods(methods, judge, test, shape):
            judged.append(one)
            distance, accuracy = np.mean(one.frechet), np.mean(one.accuracy)
            print(f"{shown}, {one.method}: Fréchet distance {distance:.3g}, accuracy {accuracy:.2%}", flush=True)
        generations.append(collect(judged))
    digest = digest_judge(files.CLASSIFIER.read_bytes(), classes, settings)
    return Generations(digest, settings.components, settings.codes, *generations)


if __name__ == "__main__":
    run(main)
