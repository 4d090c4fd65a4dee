"""Put one trained autoencoder to use, next to PCA: denoise test images, and classify them with few labels.

    python -m stages.apply deep

Reads data/prepared, data/models/<name>.keras and data/evaluation/<name>.npz, which has the
PCA, and writes data/applications/<name>.npz: what the model and PCA make of noisy test images, and how
many test images a few labels tell on their codes and on those of an untrained encoder.
"""

from stages.analysis.applications import Application
from stages.analysis.classifiers import measure_labels
from stages.analysis.denoising import measure_denoised, noisy_tests, read_chosen
from stages.analysis.evaluation import load_evaluation
from stages.analysis.labels import CodeLabels, read_task
from stages.analysis.linear import Pca
from stages.analysis.measures import psnr
from stages.analysis.records import save_record
from stages.common import files
from stages.common.errors import StageError, run
from stages.model.backend import keras, use_threads
from stages.params import Apply, choose_model, read_params
from stages.params.command import parse_model
from stages.trained import uncompiled
from stages.trained.loading import check_size, load_autoencoder


def main() -> None:
    argument = parse_model("apply", __doc__)
    params = read_params()
    name, _, settings, written = choose_model(params, argument)
    use_threads(settings.threads)
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
        model=measure_denoised(clean, map(uncompiled(model), noisy)),
        pca=measure_denoised(clean, (pca.decode(pca.encode(images)) for images in noisy)),
        labels=measure_codes(model.get_layer("encoder"), pca, params.apply),
    )
    with files.replacing(written.application) as file:
        save_record(file, application)
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
        model=measure_labels(uncompiled(encoder), task, settings),
        pca=measure_labels(pca.encode, task, settings),
        untrained=measure_labels(uncompiled(untrained), task, settings),
    )


if __name__ == "__main__":
    run(main)
