"""Make a picture of each preset's results, and print their metrics."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from stages.applications.denoising import CLASSICAL, Classical, denoising_table, draw_denoising, read_chosen
from stages.applications.schema import ApplicationParams
from stages.core import charts
from stages.core.errors import ParamsError, StageError, run
from stages.core.evaluation import Digits, Evaluation, Result, load_evaluation
from stages.core.files import how_to_make, write_all
from stages.core.params import Choice, choose_model, nearest, read_params
from stages.core.records import load_record
from stages.core.schema import Model
from stages.core.style import STYLE, png, show_rows
from stages.core.tables import markdown, number
from stages.tools.trained import check_trained, how_to_train

FOLDER = Path("plots/gallery")
DESCRIPTION = """\
Make a picture of each preset's results, and print their metrics.

A preset must be trained and evaluated with its current settings; without names, presets that
are not are left out. Writes plots/gallery/<preset>.png, test digits above their
reconstructions and generated digits; <preset>-map.png, the codes of all test digits, if a
code is two numbers; and <preset>-noisy.png, denoised digits, if the preset was trained with
at least the smallest noise of `denoise`.

examples:
  python -m stages gallery             # all trained presets
  python -m stages gallery best16      # one preset
"""
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
    with plt.rc_context(STYLE):
        for choice in chosen:
            drawn |= draw_preset(choice, load_evaluation(choice.files.evaluation), params)
    write_all(drawn)
    print(table)


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
        raise StageError("\n".join(reasons) or "params.yaml has no presets.")
    for reason in reasons:
        print(f"note: left out: {reason}", file=sys.stderr)
    return ready


def draw_preset(choice: Choice, evaluation: Evaluation, params: ApplicationParams) -> dict[Path, bytes]:
    """The pictures of one preset by their files."""
    result, digits, name = evaluation.model, evaluation.digits, choice.name
    figures: dict[str, Figure] = {name: draw_model(result, digits, params.figures.classes)}
    if result.latent_dim == 2:
        figures[f"{name}-map"] = charts.draw_latent_space({name: result}, digits.labels)
    if denoises(choice.settings, params):
        figures[f"{name}-noisy"] = draw_noisy(choice, params)
    return {FOLDER / f"{stem}.png": png(figure, params.figures.dpi) for stem, figure in figures.items()}


def draw_noisy(choice: Choice, params: ApplicationParams) -> Figure:
    """Noisy digits, denoised by the preset, by baselines and by classical methods."""
    from stages.denoise import check_same, measure_methods  # loads TensorFlow, which other pictures don't need

    classical = load_record(Classical, CLASSICAL)
    clean = read_chosen("test", params.denoise.images, params.denoise.seed)
    check_same(classical, clean, params.denoise)
    methods = classical.methods + measure_methods({choice.name: choice.files.model}, clean, params.denoise)
    table = denoising_table(methods, classical.noise, params.compare.resamples, params.compare.seed)
    return draw_denoising(classical.images, methods, table)


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
        cells = map(number, read_metrics(choice))
        rows.append([f"`{choice.name}`", choice.settings.epochs, choice.settings.latent_dim, *cells])
    return markdown(["preset", "epochs", "latent_dim", *METRICS], rows)


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
