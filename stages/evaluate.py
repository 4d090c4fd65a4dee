"""Measure one trained autoencoder, next to PCA and the mean image.

    python -m stages.evaluate deep

Writes metrics/<name>.json, one flat table row, and data/evaluation/<name>.npz, the
arrays that figures draw. The only stage that reads the test images.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from stages import files
from stages.autoencoder import load_autoencoder
from stages.engine import compile_reconstruction, use_threads
from stages.errors import StageError, run
from stages.measures import bce, fit_pca, pca_reconstruct, psnr, scaled_batches, squared_error
from stages.params import choose_model, read_params

Reconstruct = Callable[[np.ndarray], np.ndarray]


def score(reconstruct: Reconstruct, images: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Squared error (sum over pixels) and binary cross-entropy (mean over pixels) of each image.

    images: uint8 [images, pixels]. Returns two float64 [images].
    """
    squared_errors, cross_entropies = [], []
    for batch in scaled_batches(images, batch_size):
        reconstructions = reconstruct(batch)
        squared_errors.append(squared_error(batch, reconstructions))
        cross_entropies.append(bce(batch, reconstructions))
    return np.concatenate(squared_errors), np.concatenate(cross_entropies)


def first_of_each_class(labels: np.ndarray) -> np.ndarray:
    """The position of the first image of every class, in the order of labels: int64 [classes]."""
    return np.unique(labels, return_index=True)[1]


def significant(value: float) -> float:
    """Six significant digits: more than any comparison needs, and the same on other processors."""
    return float(f"{value:.6g}")


def main() -> None:
    params = read_params()
    name = choose_model(params, sys.argv[1:])
    batch_size = params.evaluate.batch_size
    use_threads(params.models[name].threads)

    splits = {split: files.read_images(split) for split in files.SPLITS}
    height, width = splits["test"].shape[1:]
    flat = {split: images.reshape(len(images), -1) for split, images in splits.items()}
    labels = files.read_labels("test")
    history = pd.read_csv(files.history_path(name))

    model = load_autoencoder(files.model_path(name))
    if model.input_shape[1] != height * width:
        raise StageError(
            f"{files.model_path(name)} takes {model.input_shape[1]} pixels, but the images of data/prepared "
            f"have {height}×{width}; run `dvc repro`."
        )
    latent_dim = model.get_layer("encoder").output_shape[1]
    reconstruct = compile_reconstruction(model)
    pca = fit_pca(flat["train"], latent_dim, batch_size)

    errors, cross_entropies = score(reconstruct, flat["test"], batch_size)
    pca_errors, _ = score(lambda images: pca_reconstruct(pca, images), flat["test"], batch_size)
    mean_errors, _ = score(lambda images: np.broadcast_to(pca.mean, images.shape), flat["test"], batch_size)
    pixels = height * width
    mse = errors.mean() / pixels
    metrics = {
        "mse": mse,
        "squared_error_per_image": errors.mean(),
        "psnr": psnr(mse),
        "bce": cross_entropies.mean(),
        "mse_train": score(reconstruct, flat["train"], batch_size)[0].mean() / pixels,
        "mse_validation": score(reconstruct, flat["validation"], batch_size)[0].mean() / pixels,
        "mse_pca": pca_errors.mean() / pixels,
        "mse_mean_image": mean_errors.mean() / pixels,
        "latent_dim": latent_dim,
        "parameters": model.count_params(),
    }
    metrics = {key: v if isinstance(v, int) else significant(v) for key, v in metrics.items()}

    shown = first_of_each_class(labels)
    shown_images = next(scaled_batches(flat["test"][shown], len(shown)))
    arrays: dict[str, Any] = {
        "labels": labels,  # uint8 [test images]
        "squared_error": errors,  # float64 [test images], sum over pixels
        "pca_squared_error": pca_errors,
        "shown": shown,  # int64 [classes], positions of the digits below among the test images
        "images": shown_images.reshape(-1, height, width),
        "reconstructions": reconstruct(shown_images).reshape(-1, height, width),
        "pca_reconstructions": pca_reconstruct(pca, shown_images).reshape(-1, height, width),
        "latent_dim": np.array(latent_dim),
        "loss": history["loss"].to_numpy(),  # float64 [epochs]
        "val_loss": history["val_loss"].to_numpy(),
    }
    files.write_files(
        {
            files.metrics_path(name): (json.dumps(metrics, indent=2) + "\n").encode(),
            files.evaluation_path(name): lambda file: np.savez(file, allow_pickle=False, **arrays),
        }
    )
    print(f"{name}: test mse {metrics['mse']:.4g} per pixel, pca {metrics['mse_pca']:.4g}")


if __name__ == "__main__":
    run(main)
