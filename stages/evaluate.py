"""Measure one trained autoencoder and its baselines, such as PCA.

    python -m stages.evaluate deep

Reads data/prepared, data/models/<name>.keras and data/history/<name>.csv. Writes
metrics/<name>.json, one flat table row, and data/evaluation/<name>.npz, all results,
which compare, figures and the applications read.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from stages.core import files
from stages.core.backend import keras, use_all_cores
from stages.core.baselines import fit_baselines
from stages.core.command import parse_model
from stages.core.encoder_decoder import Data, as_pictures, mean_squared_error, measure, probe_pixels
from stages.core.errors import StageError, reason, run
from stages.core.evaluation import BASELINE, MODEL, Digits, Evaluation, shown_name
from stages.core.inference import check_size, halves, load_autoencoder
from stages.core.linear import fit_pca, image_moments
from stages.core.measures import BATCH
from stages.core.params import choose_model, read_params
from stages.core.records import save_record
from stages.core.schema import Evaluate, Params
from stages.core.shown import first_of_each_class

COLLAPSED = 0.99  # of the mean image's error: a model that gives nearly the mean image for every digit


def main() -> None:
    argument = parse_model("evaluate", __doc__)
    params = read_params(Params)
    name, key, _, written = choose_model(params, argument)
    use_all_cores()
    height, width = files.read_images("test").shape[1:]
    train, validation, test = (files.read_split(split) for split in files.SPLITS)
    history = read_history(written.history)
    model = load_autoencoder(written.model)
    check_size(written.model, model, height, width)
    data = Data(train, validation, test, (height, width), image_moments(train.images))
    evaluation = evaluate(name, model, data, history, params.evaluate)
    record = partial(save_record, record=evaluation)
    files.write_all({written.metrics: metrics_json(evaluation), written.evaluation: record})
    if warning := collapse(evaluation):
        print(f"warning: {key} collapsed: {warning}", file=sys.stderr)
    result = evaluation.model
    nats = f", kl {result.kl.mean():.4g}, nll {result.nll.mean():.4g} nats" if result.variational else ""
    print(f"{name}: test mse {result.mse:.4g} per pixel, PCA {mse_pca(evaluation):.4g}{nats}")


def evaluate(name: str, model: keras.Model, data: Data, history: pd.DataFrame, settings: Evaluate) -> Evaluation:
    """Measure a model and its baselines. history: as `read_history` returns it."""
    latent_dim, (height, width) = model.get_layer("decoder").input_shape[1], data.shape
    pca, mean_image = fit_pca(data.moments, latent_dim), data.moments.mean
    digits_shown = first_of_each_class(data.test.labels)
    no_codes = np.zeros((len(data.test.images), 0))
    fitted = fit_baselines(data.train.images, data.moments, latent_dim)
    with ThreadPoolExecutor(1) as background:  # NumPy works while TensorFlow does
        baselines = background.map(lambda item: measure(BASELINE, item[0], item[1], data, settings), fitted.items())
        trained = halves(model, BATCH)
        of_model = measure(MODEL, shown_name(name, latent_dim, height * width), trained, data, settings)
        of_baselines = list(baselines)
    return Evaluation(
        mse_mean_image=mean_squared_error(lambda _: mean_image[None], no_codes, data.test.images),
        probe_pixels=probe_pixels(data, settings),
        loss=history["loss"].to_numpy(),
        val_loss=history["val_loss"].to_numpy(),
        kl=history["kl"].to_numpy(),
        val_kl=history["val_kl"].to_numpy(),
        pca_mean=pca.mean,
        pca_components=pca.components,
        digits=Digits(
            labels=data.test.labels,
            trained=np.unique(data.train.labels),
            shown=digits_shown,
            images=as_pictures(data.test.images[digits_shown] / np.float32(255), data.shape),
        ),
        model=of_model,
        baselines=of_baselines,
    )


def collapse(evaluation: Evaluation) -> str | None:
    """What shows that all images come out much the same, and what to try; None if they do not.

    A divergence near 0 needs no test of its own: half the summed variance of the means is at most as large.
    """
    result, mse_mean_image = evaluation.model, evaluation.mse_mean_image
    if result.variational and not result.active_dimensions:
        return (
            f"its posterior is much the same for every image: of {result.latent_dim} latent dimensions none is active, "
            f"and the divergence from the prior is {result.kl.mean():.2g} nats. Try a smaller kl_weight or "
            "learning_rate, or kl_warmup_epochs."
        )
    if result.mse >= COLLAPSED * mse_mean_image:
        return (
            f"its test mse per pixel, {result.mse:.4f}, is no better than that of the mean image, "
            f"{mse_mean_image:.4f}, so every output looks much the same. Try latent_activation linear, another "
            "hidden_activation, a smaller learning_rate or code_l1, or more epochs."
        )
    return None


def mse_pca(evaluation: Evaluation) -> float:
    """The error of PCA of the model's latent size; 0 if the code is as large as the image."""
    return evaluation.baselines[0].mse if evaluation.baselines else 0.0


def metrics_json(evaluation: Evaluation) -> bytes:
    """The row of `dvc metrics show`. The keys are always the same.

    Six significant digits: more than any comparison needs, and the same on other processors.
    """
    model = evaluation.model
    row = {
        "mse": model.mse,
        "mse_pca": mse_pca(evaluation),
        "mse_validation": model.mse_validation,
        "ssim": model.ssim,
        "probe": model.probe,
        "parameters": model.parameters,
    }
    rounded = {key: value if isinstance(value, int) else float(f"{value:.6g}") for key, value in row.items()}
    return (json.dumps(rounded, indent=2) + "\n").encode()


def read_history(path: Path) -> pd.DataFrame:
    """A model's losses: epoch, loss, val_loss, kl, val_kl, a row per epoch; divergences 0 if not variational.

    Raises StageError if the file is missing or not such a table.
    """
    try:
        table = pd.read_csv(path)
        return table.assign(**{name: 0.0 for name in ("kl", "val_kl") if name not in table}).astype(float)[
            ["epoch", "loss", "val_loss", "kl", "val_kl"]
        ]
    except FileNotFoundError:
        raise StageError(f"{path} is missing; {files.how_to_make(path)}.") from None
    except (KeyError, ValueError) as error:  # pandas' own errors are kinds of ValueError
        raise StageError(f"{path} is not a table of losses ({reason(error)}); {files.how_to_make(path)}.") from None


if __name__ == "__main__":
    run(main)
