"""Make a picture of each preset's results, and print their metrics."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from stages.applications.denoising import CLASSICAL, Classical, denoising_table, draw_denoising, read_chosen
from stages.applications.schema import ApplicationParams
from stages.core import charts
from stages.core.arrays import Bytes, Floats
from stages.core.baselines import clipped_pca
from stages.core.errors import ParamsError, StageError, run
from stages.core.evaluation import Digits, Evaluation, Result, load_evaluation
from stages.core.files import how_to_make, read_images, write_all
from stages.core.linear import Pca
from stages.core.measures import in_batches, squared_error
from stages.core.params import Choice, choose_model, nearest, read_params
from stages.core.records import load_record
from stages.core.schema import Model
from stages.core.style import GREY, STYLE, mosaic, png, show_rows
from stages.core.tables import csv, markdown, number
from stages.tools.trained import TrainedModel, check_trained, how_to_train, load_model

FOLDER = Path("plots/gallery")
DESCRIPTION = """\
Make a picture of each preset's results, and print their metrics.

A preset must be trained and evaluated; without names, presets that are not are left out.
Writes plots/gallery/<preset>.png, test digits above their reconstructions and generated
digits; <preset>-plane.png, if a code is two numbers: the codes of all test digits, and
decoded codes; and <preset>-noisy.png and .csv, denoised digits and their PSNR and SSIM, if
the preset was trained with at least the smallest noise of `denoise`.

examples:
  python -m stages gallery             # all trained presets
  python -m stages gallery best16      # one preset
"""
SIDE = 20  # decoded digits in a row of a plane
PERCENTILES = (1, 99)  # of the codes, the ends of a plane
METRICS = ("mse", "mse_pca", "ssim", "probe", "parameters")


def main() -> None:
    names = parse_arguments()
    params = read_params(ApplicationParams)
    if unknown := [name for name in names if name not in params.presets]:
        known = ", ".join(params.presets) or "none"
        hint = nearest(unknown[0], list(params.presets))
        raise ParamsError(f"presets.yaml has no preset {unknown[0]!r}{hint}; it has {known}.")
    chosen = [choose_model(params, name) for name in names or params.presets]
    if names:
        for choice in chosen:
            check_ready(choice)
    else:
        chosen = those_ready(chosen)
    table = gallery_table(chosen)
    drawn: dict[Path, bytes] = {}
    notes = []
    with plt.rc_context(STYLE):
        for choice in chosen:
            evaluation = load_evaluation(choice.files.evaluation)
            drawn |= draw_preset(choice, evaluation, params)
            if choice.settings.code_l1:
                notes.append(compare_sparse(choice.name, evaluation))
    write_all(drawn)
    print(table, *notes, sep="\n")


def parse_arguments() -> list[str]:
    """The names of presets; none means all. Wrong arguments end the process with status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m stages gallery", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help="a preset (default: all that are trained)")
    names: list[str] = parser.parse_args().names
    return names


def denoises(settings: Model, params: ApplicationParams) -> bool:
    """Whether a model was trained with the noise that denoising is measured with; weaker noise only regularizes."""
    return bool(settings.noise >= min(params.denoise.noise))


def check_ready(choice: Choice) -> None:
    """Raise StageError with the command to run if a file of a preset is missing or out of date."""
    check_trained(choice)
    check_current(choice)


def check_current(choice: Choice) -> None:
    """Raise StageError if the evaluation of a preset is missing or broken, or belongs to other settings."""
    evaluation, settings = load_evaluation(choice.files.evaluation), choice.settings
    epochs, size = len(evaluation.loss), evaluation.latent_dim
    trained = epochs == settings.epochs or (settings.early_stopping and epochs < settings.epochs)
    if size != settings.latent_dim or not trained:
        raise StageError(
            f"{choice.files.evaluation} has {epochs} epochs and latent_dim {size}, but {choice.key} has "
            f"{settings.epochs} epochs and latent_dim {settings.latent_dim}; {how_to_train(choice)}."
        )


def those_ready(presets: list[Choice]) -> list[Choice]:
    """The presets that are ready; stderr names the others. Raises StageError if there is none."""
    ready, reasons = [], []
    for choice in presets:
        try:
            check_ready(choice)
            ready.append(choice)
        except StageError as error:
            reasons.append(str(error))
    if not ready:
        raise StageError("\n".join(reasons) or "presets.yaml has no presets.")
    for reason in reasons:
        print(f"note: left out: {reason}", file=sys.stderr)
    return ready


def draw_preset(choice: Choice, evaluation: Evaluation, params: ApplicationParams) -> dict[Path, bytes]:
    """The pictures of one preset, and the table of one that denoises, by their files."""
    result, digits, dpi = evaluation.model, evaluation.digits, params.figures.dpi
    drawn = {FOLDER / f"{choice.name}.png": png(draw_model(result, digits, params.figures.classes), dpi)}
    if result.latent_dim == 2:
        plane = draw_plane(result.codes, digits.labels, load_model(choice))
        drawn[FOLDER / f"{choice.name}-plane.png"] = png(plane, dpi)
    if denoises(choice.settings, params):
        noisy, table = draw_noisy(choice, params)
        drawn |= {FOLDER / f"{choice.name}-noisy.png": png(noisy, dpi), FOLDER / f"{choice.name}-noisy.csv": csv(table)}
    return drawn


def draw_plane(codes: Floats, labels: Bytes, model: TrainedModel) -> Figure:
    """Codes of two numbers, float [images, 2], in the colours of their classes, and the same square decoded."""
    low, high = np.percentile(codes, PERCENTILES, axis=0)
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 4.4), layout="constrained")
    charts.draw_classes(axes[0], codes, labels)
    axes[0].set_title("test digits, and their labels at the class means")
    across, down = np.meshgrid(np.linspace(low[0], high[0], SIDE), np.linspace(high[1], low[1], SIDE))
    decoded = model.decode(np.stack([across, down], axis=-1).reshape(-1, 2))
    pictures = mosaic(decoded.reshape(SIDE, SIDE, model.height, model.width))
    axes[1].imshow(pictures, extent=(low[0], high[0], low[1], high[1]), aspect="auto", **GREY)
    axes[1].set_title("what the decoder makes of the codes")
    for ax in axes:
        ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel="latent 1", ylabel="latent 2", box_aspect=1)
    return figure


def draw_noisy(choice: Choice, params: ApplicationParams) -> tuple[Figure, pd.DataFrame]:
    """Noisy digits, denoised by methods without a network, by the models of params.yaml, and by the preset.

    The table is that of `denoising_table`.
    """
    from stages.applications.methods import model_paths  # loads TensorFlow, which other pictures don't need
    from stages.core.backend import use_all_cores
    from stages.denoise import check_same, measure_models

    use_all_cores()
    classical = load_record(Classical, CLASSICAL)
    clean = read_chosen("test", params.denoise.images, params.denoise.seed)
    check_same(classical, clean, params.denoise)
    paths = model_paths(params) | {choice.name: choice.files.model}
    methods = classical.methods + measure_models(paths, clean, params.denoise)
    table = denoising_table(methods, classical.noise, params.compare.resamples, params.compare.seed)
    return draw_denoising(classical.images, methods, table), table


def draw_model(result: Result, digits: Digits, classes: int) -> Figure:
    """The first test digit of each trained class, its reconstruction below it, and generated digits.

    A generated digit is in the column of the class from whose Gaussian its code was sampled; codes of a
    variational model are sampled from the prior and have no class. classes: the most columns.
    """
    trained = np.flatnonzero(np.isin(digits.labels[digits.shown], digits.trained))[:classes]
    rows = {
        "test digits": digits.images[trained],
        "reconstructions": result.reconstructions[digits.shown[trained]] / 255,
        "samples": result.pictures.samples[np.searchsorted(digits.trained, digits.labels[digits.shown[trained]]), 0],
    }
    figure, ax = plt.subplots(figsize=(0.5 * len(trained) + 1.2, 1.6), layout="constrained")
    show_rows(ax, np.stack(list(rows.values())), list(rows))
    return figure


def gallery_table(presets: list[Choice]) -> str:
    """Settings and metrics of presets as a Markdown table, one row each. Raises StageError as `read_metrics` does."""
    rows = []
    for choice in presets:
        cells = (number(value) if value else "–" for value in read_metrics(choice))
        rows.append([f"`{choice.name}`", choice.settings.epochs, choice.settings.latent_dim, *cells])
    return markdown(["preset", "epochs", "latent_dim", *METRICS], rows)


def compare_sparse(name: str, evaluation: Evaluation) -> str:
    """How well PCA does with as many numbers as a code of the model has on average that are not zero."""
    used = round(np.count_nonzero(evaluation.model.codes, axis=1).mean())
    pca = clipped_pca(Pca(evaluation.pca_mean, evaluation.pca_components[:used]))
    images = read_images("test").reshape(-1, evaluation.pixels)
    errors = in_batches(lambda batch: squared_error(batch, pca.decode(pca.encode(batch))), images)
    mse = errors.mean() / evaluation.pixels
    return f"A code of {name} uses {used} numbers on average; PCA ({used}) has an mse of {number(mse)}."


def read_metrics(choice: Choice) -> list[Any]:
    """The METRICS in metrics/<name>.json. Raises StageError if the file is missing or lacks one."""
    path, repair = choice.files.metrics, how_to_make(choice.files.evaluation)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [*(float(found[name]) for name in METRICS[:-1]), int(found[METRICS[-1]])]
    except FileNotFoundError:
        raise StageError(f"{path} is missing; {repair}.") from None
    except (ValueError, KeyError, TypeError):
        raise StageError(f"{path} does not have {', '.join(METRICS)}; {repair}.") from None


if __name__ == "__main__":
    run(main)
