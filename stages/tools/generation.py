"""Compare the digits that models and presets generate."""

import argparse

from matplotlib import pyplot as plt

from stages.applications.figures import draw_generation
from stages.applications.generation import load_generations
from stages.core.errors import StageError, run
from stages.core.evaluation import load_evaluation
from stages.core.files import FLOOR, write_all
from stages.core.params import choose_model, read_params
from stages.core.schema import Params
from stages.core.style import STYLE, png
from stages.core.tables import STUDIES, csv, generation_rows, generation_table, markdown
from stages.tools.trained import check_trained

DESCRIPTION = """\
Compare the digits that models and presets generate, as a table and a picture.

Reads the measures of `apply` and those of the classifier for real digits. Writes
plots/studies/generation.csv and generation.png, and prints the table.

example:
  dvc exp run -S classifier.train=true
  python -m stages generation shallow deep
"""


def main() -> None:
    names = parse_arguments().models
    params = read_params(Params)
    chosen = [choose_model(params, name) for name in names]
    for one in chosen:
        check_trained(one)
    evaluations = {one.name: load_evaluation(one.files.evaluation) for one in chosen}
    floor, generations = load_generations({one.name: one.files.generation for one in chosen}, evaluations)
    if not floor.measured:
        raise StageError(
            f"{FLOOR} has no measures, since classifier.train was false; run `dvc exp run -S classifier.train=true`."
        )
    table = generation_table(floor, generations)
    with plt.rc_context(STYLE):
        picture = png(draw_generation(floor, generations), params.figures.dpi)
    write_all({STUDIES / "generation.csv": csv(table), STUDIES / "generation.png": picture})
    print(markdown(*generation_rows(table)))


def parse_arguments() -> argparse.Namespace:
    """The names of the models. Wrong arguments end the process with status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m stages generation",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a key of `models` or `presets` in params.yaml")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
