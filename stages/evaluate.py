"""Measure one trained autoencoder, next to PCA and the mean image.

    python -m stages.evaluate deep

Writes metrics/<name>.json, one flat table row, and data/evaluation/<name>.npz, the
arrays that compare and figures use. The only stage that reads the test images. Ten
seconds on MNIST.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from stages import files
from stages.autoencoder import load_autoencoder
from stages.backend import keras
from stages.engine import compile_model, use_threads
from stages.errors import StageError, run
from stages.measures import (
    Moments,
    active_dimensions,
    bce,
    class_means,
    code_moments,
    fit_pca,
    fit_probe,
    image_moments,
    nearest_images,
    psnr,
    sample_codes,
    scaled_batches,
    squared_error,
    ssim,
)
from stages.params import Evaluate, choose_model, read_params, stage_arguments

Arrays = dict[str, np.ndarray]
Metrics = dict[str, Any]

# Numbers of pictures and of steps between them, chosen to fit a page.
SAMPLES, EXTREMES, PAIRS, STEPS, DIMENSIONS = 10, 5, 4, 9, 16
TRAVERSAL = 2.5  # standard deviations to either side of the mean code


class Codec(NamedTuple):
    """What compresses images and gives them back: a model's two halves, or PCA."""

    encode: Callable[[np.ndarray], np.ndarray]  # images float32 [images, pixels] in [0, 1] -> codes
    decode: Callable[[np.ndarray], np.ndarray]  # codes float [images, latent_dim] -> images


class Split(NamedTuple):
    """Images uint8 [images, pixels] and their labels uint8 [images]."""

    images: np.ndarray
    labels: np.ndarray


def read_split(split: str) -> Split:
    """A split's images, mapped from disk, and labels. Raises StageError if a file is missing or broken."""
    images = files.read_images(split)
    return Split(images.reshape(len(images), -1), files.read_labels(split))


def read_history(name: str) -> pd.DataFrame:
    """A model's losses: epoch, loss, val_loss, a row per epoch.

    Raises StageError if the file is missing or not such a table.
    """
    path = files.history_path(name)
    try:
        return pd.read_csv(path)[["epoch", "loss", "val_loss"]].astype(float)
    except FileNotFoundError:
        raise StageError(f"{path} is missing; run `dvc repro`.") from None
    except (KeyError, ValueError) as error:  # pandas' own errors are kinds of ValueError
        raise StageError(
            f"{path} is not a table of losses ({' '.join(str(error).split())}); run `dvc repro`."
        ) from None


def score(codec: Codec, images: np.ndarray, shape: tuple[int, int], batch_size: int) -> Arrays:
    """Codes and errors of each image, a batch at a time.

    images: uint8 [images, pixels]; shape: their height and width. Returns `codes` float
    [images, latent_dim], `squared_error` (sum over pixels), `bce` (mean over pixels, nats)
    and `ssim`, each float [images].
    """
    batches = []
    for batch in scaled_batches(images, batch_size):
        codes = codec.encode(batch)
        reconstructions = codec.decode(codes)
        batches.append(
            {
                "codes": codes,
                "squared_error": squared_error(batch, reconstructions),
                "bce": bce(batch, reconstructions),
                "ssim": ssim(batch.reshape(-1, *shape), reconstructions.reshape(-1, *shape)),
            }
        )
    return {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}


def encode_all(codec: Codec, images: np.ndarray, batch_size: int) -> np.ndarray:
    """Codes of images uint8 [images, pixels]: float [images, latent_dim]."""
    return np.concatenate([codec.encode(batch) for batch in scaled_batches(images, batch_size)])


def mean_squared_error(codec: Codec, images: np.ndarray, batch_size: int) -> float:
    """Mean over images uint8 [images, pixels] and pixels."""
    batches = scaled_batches(images, batch_size)
    return sum(squared_error(b, codec.decode(codec.encode(b))).sum() for b in batches) / images.size


def probe_accuracy(
    train_codes: np.ndarray, train_labels: np.ndarray, codes: np.ndarray, test: Split, ridge: float
) -> float:
    """Share of the test images whose class a linear probe, fitted to the training codes, reads off their codes."""
    probe = fit_probe(code_moments(train_codes), class_means(train_codes, train_labels), train_labels, ridge)
    return float((probe.predict(codes) == test.labels).mean())


def pixel_probe_accuracy(pixels: Moments, train: Split, test: Split, settings: Evaluate) -> float:
    """The same for a probe that sees every pixel. pixels: the moments of the training images."""
    probe = fit_probe(pixels, class_means(train.images, train.labels) / 255, train.labels, settings.ridge)
    predicted = [probe.predict(batch) for batch in scaled_batches(test.images, settings.batch_size)]
    return float((np.concatenate(predicted) == test.labels).mean())


def generate(codec: Codec, train_codes: np.ndarray, train: Split, settings: Evaluate) -> tuple[np.ndarray, float]:
    """Digits decoded from each class' Gaussian: float [classes, samples, pixels], and how often they are of the class.

    A generated digit counts as of its class if the nearest training image is.
    """
    drawn = sample_codes(train_codes, train.labels, settings.samples_per_class, settings.seed)
    digits = codec.decode(drawn.reshape(-1, drawn.shape[-1])).clip(0, 1)
    nearest = train.labels[nearest_images(digits, train.images, settings.batch_size)]
    intended = np.repeat(np.unique(train.labels), settings.samples_per_class)
    return digits.reshape(*drawn.shape[:2], -1), float((nearest == intended).mean())


def first_of_each_class(labels: np.ndarray) -> np.ndarray:
    """The position of the first image of every class, in the order of labels: int64 [classes]."""
    return np.unique(labels, return_index=True)[1]


def extremes(errors: np.ndarray, count: int) -> np.ndarray:
    """Positions of the images with the smallest, the median and the largest errors: int64 [3, count].

    errors: float [images]. With fewer images than `count`, some stand there twice.
    """
    order = np.argsort(errors, kind="stable")
    middle = (len(order) - count) // 2
    places = [np.arange(count), middle + np.arange(count), len(order) - count + np.arange(count)]
    return order[np.stack(places).clip(0, len(order) - 1)]


def interpolate(decode: Callable[[np.ndarray], np.ndarray], codes: np.ndarray) -> np.ndarray:
    """Pictures along straight lines between codes: float [pairs, STEPS, pixels].

    codes: float [classes, latent_dim]; the first half is paired with the second half.
    """
    half = len(codes) // 2
    pairs = min(PAIRS, half)
    weights = np.linspace(0, 1, STEPS)[:, None]
    lines = codes[:pairs, None] * (1 - weights) + codes[half : half + pairs, None] * weights
    decoded = decode(lines.reshape(-1, codes.shape[1]))
    return decoded.reshape(pairs, STEPS, decoded.shape[1])


def traverse(decode: Callable[[np.ndarray], np.ndarray], codes: np.ndarray) -> np.ndarray:
    """The decoder's response to one latent dimension at a time: float [dimensions, STEPS, pixels].

    Starts from the mean of codes float [images, latent_dim] and moves by TRAVERSAL standard
    deviations to either side. Up to DIMENSIONS dimensions, the most varied first.
    """
    mean, deviation = codes.mean(axis=0, dtype=np.float64), codes.std(axis=0, dtype=np.float64)
    chosen = np.argsort(-deviation, kind="stable")[:DIMENSIONS]
    moved = np.tile(mean, (len(chosen), STEPS, 1))
    moved[np.arange(len(chosen)), :, chosen] += np.linspace(-TRAVERSAL, TRAVERSAL, STEPS) * deviation[chosen, None]
    return decode(moved.reshape(-1, len(mean))).reshape(len(chosen), STEPS, -1)


def encoder_kernel(model: keras.Model) -> np.ndarray:
    """The weights of a shallow encoder: float32 [latent_dim, pixels].

    Empty for an encoder with hidden layers, whose latent units look at no pixels.
    """
    layers = [layer for layer in model.get_layer("encoder").layers if layer.weights]
    return layers[0].kernel.numpy().T if len(layers) == 1 else np.zeros((0, model.input_shape[1]))


def measure(
    codec: Codec, train: Split, test: Split, shape: tuple[int, int], settings: Evaluate
) -> tuple[Metrics, Arrays]:
    """Everything that is measured of a model and of PCA alike, and the arrays for compare and figures.

    Pictures are float [..., height, width], black 0 and white 1.
    """
    train_codes = encode_all(codec, train.images, settings.batch_size)
    scores = score(codec, test.images, shape, settings.batch_size)
    codes, errors = scores["codes"], scores["squared_error"]
    digits, generation_accuracy = generate(codec, train_codes, train, settings)
    shown, chosen = first_of_each_class(test.labels), extremes(errors, EXTREMES)
    metrics = {
        "mse": errors.mean() / test.images.shape[1],
        "squared_error_per_image": errors.mean(),
        "psnr": psnr(errors.mean() / test.images.shape[1]),
        "ssim": scores["ssim"].mean(),
        "bce": scores["bce"].mean(),
        "probe_accuracy": probe_accuracy(train_codes, train.labels, codes, test, settings.ridge),
        "generation_accuracy": generation_accuracy,
        "active_dimensions": active_dimensions(train_codes, settings.active_variance),
    }
    rows = {
        "reconstructions": codec.decode(codes[shown]),
        "extreme_images": test.images[chosen] / np.float32(255),
        "extreme_reconstructions": codec.decode(codes[chosen.ravel()]).reshape(*chosen.shape, -1),
        "interpolations": interpolate(codec.decode, codes[shown]),
        "traversals": traverse(codec.decode, train_codes),
        "samples": digits[:, :SAMPLES],
    }
    return (
        metrics,
        {
            "squared_error": errors,  # float64 [test images], sum over pixels
            "codes": codes.astype(np.float32),
            "extremes": chosen,  # int64 [3, EXTREMES], positions among the test images
            "generation_accuracy": np.array(generation_accuracy),
        }
        | {key: value.reshape(*value.shape[:-1], *shape).astype(np.float32) for key, value in rows.items()},
    )


def evaluate(
    model: keras.Model, train: Split, validation: Split, test: Split, shape: tuple[int, int], settings: Evaluate
) -> tuple[Metrics, Arrays]:
    """The row of metrics of a model and the arrays for compare and figures, those of PCA with `pca_` in front.

    shape: height and width of the images.
    """
    encode, decode = (compile_model(model.get_layer(half), settings.batch_size) for half in ("encoder", "decoder"))
    latent_dim = model.get_layer("encoder").output_shape[1]
    pixels = image_moments(train.images, settings.batch_size)
    pca, mean_image = fit_pca(pixels, latent_dim), fit_pca(pixels, 0)  # without components the mean is left
    codec = Codec(encode, decode)
    ours, arrays = measure(codec, train, test, shape, settings)
    theirs, pca_arrays = measure(Codec(pca.encode, pca.decode), train, test, shape, settings)

    constant = Codec(mean_image.encode, mean_image.decode)
    metrics = {
        "mse": ours["mse"],
        "mse_pca": theirs["mse"],
        "mse_mean_image": mean_squared_error(constant, test.images, settings.batch_size),
        "mse_train": mean_squared_error(codec, train.images, settings.batch_size),
        "mse_validation": mean_squared_error(codec, validation.images, settings.batch_size),
        "squared_error_per_image": ours["squared_error_per_image"],
        "psnr": ours["psnr"],
        "ssim": ours["ssim"],
        "ssim_pca": theirs["ssim"],
        "bce": ours["bce"],
        "probe_accuracy": ours["probe_accuracy"],
        "probe_accuracy_pca": theirs["probe_accuracy"],
        "probe_accuracy_pixels": pixel_probe_accuracy(pixels, train, test, settings),
        "generation_accuracy": ours["generation_accuracy"],
        "generation_accuracy_pca": theirs["generation_accuracy"],
        "latent_dim": latent_dim,
        "active_dimensions": ours["active_dimensions"],
        "compression_ratio": test.images.shape[1] / latent_dim,  # pixels per number of the code
        "overcomplete": latent_dim >= test.images.shape[1],
        "parameters": model.count_params(),
    }
    shown = first_of_each_class(test.labels)
    deviation = np.sqrt(np.diag(pixels.covariance).clip(0))  # pixels that never vary can have any weight
    weights = {"weights": encoder_kernel(model), "pca_weights": pca.components}
    weights = {k: (v[:DIMENSIONS] * deviation).reshape(-1, *shape).astype(np.float32) for k, v in weights.items()}
    common = {
        "labels": test.labels,  # uint8 [test images]
        "shown": shown,  # int64 [classes], positions of the digits below among the test images
        "images": test.images[shown].reshape(-1, *shape) / np.float32(255),
        "latent_dim": np.array(latent_dim),
        **weights,
    }
    return metrics, {**common, **arrays, **{f"pca_{key}": value for key, value in pca_arrays.items()}}


def main() -> None:
    params = read_params()
    name, model_settings = choose_model(params, stage_arguments(__doc__))
    use_threads(model_settings.threads)
    height, width = files.read_images("test").shape[1:]
    train, validation, test = (read_split(split) for split in files.SPLITS)
    history = read_history(name)
    model = load_autoencoder(files.model_path(name))
    if model.input_shape[1] != height * width:
        raise StageError(
            f"{files.model_path(name)} takes {model.input_shape[1]} pixels, but the images of data/prepared "
            f"have {height}×{width}; run `dvc repro`."
        )
    metrics, arrays = evaluate(model, train, validation, test, (height, width), params.evaluate)
    losses = {key: history[key].to_numpy() for key in ("loss", "val_loss")}  # float64 [epochs]
    files.write_files(
        {
            files.metrics_path(name): files.metrics_json(metrics),
            files.evaluation_path(name): lambda file: np.savez(file, allow_pickle=False, **arrays, **losses),
        }
    )
    print(f"{name}: test mse {metrics['mse']:.4g} per pixel, pca {metrics['mse_pca']:.4g}")


if __name__ == "__main__":
    run(main)
