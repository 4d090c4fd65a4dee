"""Plot what the models do: reconstructions, latent spaces, generated digits and errors.

    python -m stages.figures

Reads data/evaluation/<name>.npz of every model in params.yaml, and the test images in data/prepared. Writes
plots/<figure>.png. Loads no TensorFlow.
"""

from pathlib import Path

import matplotlib.pyplot as plt

from stages.core import charts, files, pictures
from stages.core.command import stage_parser
from stages.core.errors import run
from stages.core.evaluation import load_evaluations, results_by_name
from stages.core.params import read_params
from stages.core.schema import Params
from stages.core.style import STYLE, png


def main() -> None:
    stage_parser("figures", __doc__).parse_args()
    params = read_params(Params)
    classes, dpi = params.figures.classes, params.figures.dpi
    evaluations = load_evaluations(list(params.models))
    results = results_by_name(evaluations)
    digits = next(iter(evaluations.values())).digits
    with plt.rc_context(STYLE):
        figures = {
            "reconstructions": pictures.draw_reconstructions(results, digits, classes),
            "errors": charts.draw_errors(results),
            "extremes": pictures.draw_extremes(results, files.read_images("test")),
            "latent_space": charts.draw_latent_space(results, digits.labels),
            "interpolations": pictures.draw_interpolations(results, digits),
            "traversals": pictures.draw_traversals(results),
            "samples": pictures.draw_samples(results, classes),
        }
        files.write_all({Path(f"plots/{name}.png"): png(figure, dpi) for name, figure in figures.items()})
    print(f"plotted plots/: {', '.join(figures)}")


if __name__ == "__main__":
    run(main)
