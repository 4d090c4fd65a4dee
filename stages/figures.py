"""Plot what the models do: reconstructions, latent spaces, generated digits, losses and errors.

    python -m stages.figures

Reads data/evaluation/<name>.npz of every model in params.yaml, the test images in data/prepared and the tables
of compare. Writes plots/<figure>.png. Loads no TensorFlow.
"""

from pathlib import Path

import matplotlib.pyplot as plt

from stages.core import charts, files, pictures
from stages.core.command import parse_no_arguments
from stages.core.errors import run
from stages.core.evaluation import load_evaluations, results_by_name
from stages.core.params import read_params
from stages.core.schema import Model, Params
from stages.core.style import STYLE, png
from stages.core.tables import LOSSES, MSE_PER_CLASS, read_table


def main() -> None:
    parse_no_arguments("figures", __doc__)
    params = read_params(Params)
    classes, dpi = params.figures.classes, params.figures.dpi
    evaluations = load_evaluations(list(params.models))
    results = results_by_name(evaluations)
    digits = next(iter(evaluations.values())).digits
    overall = {name: result.mse for name, result in results.items()}
    loss_names = {name: loss_name(settings) for name, settings in params.models.items()}
    with plt.rc_context(STYLE):
        figures = {
            "reconstructions": pictures.draw_reconstructions(results, digits, classes),
            "errors": charts.draw_errors(results),
            "mse_per_class": charts.draw_mse_per_class(read_table(MSE_PER_CLASS), overall, classes),
            "extremes": pictures.draw_extremes(results, files.read_images("test")),
            "latent_space": charts.draw_latent_space(results, digits.labels),
            "interpolations": pictures.draw_interpolations(results, digits),
            "traversals": pictures.draw_traversals(results),
            "samples": pictures.draw_samples(results, classes),
            "losses": charts.draw_losses(read_table(LOSSES), loss_names),
        }
        files.write_all({Path(f"plots/{name}.png"): png(figure, dpi) for name, figure in figures.items()})
    print(f"plotted plots/: {', '.join(figures)}")


def loss_name(settings: Model) -> str:
    """What a model minimises, in the words of its settings."""
    name: str = settings.loss
    if settings.code_l1:
        name += " + code_l1"
    if settings.kl_weight:
        name += f" + {settings.kl_weight:g} KL"
    return name


if __name__ == "__main__":
    run(main)
