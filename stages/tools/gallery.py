"""Draw what the presets do, one picture for each, and print their numbers."""

import argparse
import sys
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from stages.applications.figures import draw_denoising
from stages.applications.records import load_denoised
from stages.applications.schema import ApplicationParams
from stages.core import charts
from stages.core.errors import ParamsError, StageError, run
from stages.core.evaluation import Evaluation, load_evaluation, shown_name
from stages.core.files import how_to_make, write_all
from stages.core.params import Choice, choose_model, nearest, read_params
from stages.core.schema import Model, Params
from stages.core.style import STYLE, png
from stages.core.tables import denoising_table, markdown, number
from stages.drawing.gallery import draw_model
from stages.explorer.measured import Metrics, read_metrics
from stages.tools.trained import check_trained, how_to_train

FOLDER = Path("plots/gallery")
DESCRIPTION = """\
Draw what the presets of params.yaml do, one picture for each, and print their numbers.

A preset has to be trained and evaluated with its present settings; without a name, others are left out.
Writes plots/gallery/<preset>.png, test digits above their reconstructions and generated digits;
<preset>-map.png, the codes of all test digits, if a code is a point of the plane; and
<preset>-noisy.png, what it makes of noisy digits, if it was trained with at least the least
noise of `apply`, after `python -m stages.apply <preset>`. Prints metrics/<preset>.json as one table.

examples:
  python -m stages gallery             # of all that are trained
  python -m stages gallery best16      # of one
"""


def main() -> None:
    names = parse_arguments()
    params = read_params(ApplicationParams)
    if unknown := [name for name in names if name not in params.presets]:
        known = ", ".join(params.presets) or "none"
        raise ParamsError(
            f"params.yaml has no preset {unknown[0]!r}{nearest(unknown[0], list(params.presets))}; it has {known}."
        )
    chosen = [choose_model(params, name) for name in names or params.presets]
    if names:
        for choice in chosen:
            check_ready(choice, params)
    else:
        chosen = those_ready(chosen, params)
    table = gallery_table(chosen)
    drawn: dict[Path, bytes] = {}
    with plt.rc_context(STYLE):
        for choice in chosen:
            drawn |= draw_preset(choice, load_evaluation(choice.files.evaluation), params)
    write_all(drawn)
    print(table)


def parse_arguments() -> list[str]:
    """The names of presets, none for all. Ends the process with status 2 if the arguments make no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m stages gallery", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help="a preset (default: all that are trained)")
    names: list[str] = parser.parse_args().names
    return names


def denoises(settings: Model, params: Params) -> bool:
    """Whether a model was trained with as much noise as denoising is measured with; less only regularizes."""
    return settings.noise >= min(params.apply.noise)


def check_ready(choice: Choice, params: Params) -> None:
    """Raise StageError with what to run if something that is drawn of a preset is missing or out of date."""
    check_trained(choice)
    check_current(choice)
    if denoises(choice.settings, params) and not choice.files.application.exists():
        raise StageError(f"{choice.files.application} is missing; {how_to_make(choice.files.application)}.")


def check_current(choice: Choice) -> None:
    """Raise StageError if the evaluation of a preset is missing or broken, or does not suit its row in the table."""
    evaluation, settings = load_evaluation(choice.files.evaluation), choice.settings
    epochs, size = len(evaluation.loss), evaluation.latent_dim
    trained = epochs == settings.epochs or (settings.early_stopping and epochs < settings.epochs)
    if size != settings.latent_dim or not trained:
        raise StageError(
            f"{choice.files.evaluation} is of {epochs} epochs and latent_dim {size}, but {choice.key} has epochs "
            f"{settings.epochs} and latent_dim {settings.latent_dim}; {how_to_train(choice)}."
        )


def those_ready(presets: list[Choice], params: Params) -> list[Choice]:
    """The presets that are ready; the others are named on stderr. Raises StageError if there is none."""
    ready, reasons = [], []
    for choice in presets:
        try:
            check_ready(choice, params)
            ready.append(choice)
        except StageError as error:
            reasons.append(str(error))
    if not ready:
        raise StageError("\n".join(reasons) or "params.yaml has no presets.")
    for reason in reasons:
        print(f"note: left out: {reason}", file=sys.stderr)
    return ready


def draw_preset(choice: Choice, evaluation: Evaluation, params: Params) -> dict[Path, bytes]:
    """The pictures of one preset by their files."""
    result, digits, name = evaluation.model, evaluation.digits, choice.name
    figures: dict[str, Figure] = {name: draw_model(result, digits, params.figures.classes)}
    if result.latent_dim == 2:
        figures[f"{name}-map"] = charts.draw_latent_space({name: result}, digits.labels)
    if denoises(choice.settings, params):
        classical, denoised = load_denoised({name: choice.files.application}, {name: evaluation})
        resamples, seed = params.compare.resamples, params.compare.seed
        table = denoising_table(denoised, classical.noise, [shown_name(name, evaluation)], resamples, seed)
        figures[f"{name}-noisy"] = draw_denoising(classical.images, denoised, table)
    return {FOLDER / f"{stem}.png": png(figure, params.figures.dpi) for stem, figure in figures.items()}


def gallery_table(presets: list[Choice]) -> str:
    """Settings and metrics of presets as a Markdown table, a row each.

    Raises StageError if a file of metrics is missing or not such a file.
    """
    rows = []
    for choice in presets:
        *measured, parameters = read_metrics(choice.files)
        cells = [*map(number, measured), "" if parameters is None else parameters]
        rows.append([f"`{choice.name}`", choice.settings.epochs, choice.settings.latent_dim, *cells])
    return markdown(["preset", "epochs", "latent_dim", *Metrics._fields], rows)


if __name__ == "__main__":
    run(main)
