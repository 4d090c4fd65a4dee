"""Compare all models: which one is better, and how certain is that?

    python -m stages.compare

Reads data/evaluation/<name>.npz of every model in params.yaml. Writes metrics/README.md, all
measures as tables to read, and the tables behind the charts of `dvc plots show`: plots/comparison.csv, a row
for each pair of models and for each model and baseline of the same latent size, plots/mse_per_class.csv and
plots/losses.csv.
"""

import shlex
from pathlib import Path

from stages.core import files, tables
from stages.core.command import stage_parser
from stages.core.comparison import compare_all
from stages.core.errors import StageError, run
from stages.core.evaluation import load_evaluations
from stages.core.params import read_params
from stages.core.schema import Params


def main() -> None:
    stage_parser("compare", __doc__).parse_args()
    params = read_params(Params)
    check_no_other_files(params)
    evaluations = load_evaluations(list(params.models))
    comparisons = compare_all(evaluations, params.compare.resamples, params.compare.seed)
    per_class = tables.mse_per_class_table(evaluations)
    losses = tables.loss_table(evaluations, {name: settings.kl_weight for name, settings in params.models.items()})
    files.write_all(
        {
            tables.REPORT: tables.report(evaluations, comparisons, per_class).encode(),
            tables.COMPARISON: tables.csv(tables.comparison_table(comparisons)),
            tables.MSE_PER_CLASS: tables.csv(per_class),
            tables.LOSSES: tables.csv(losses, digits=9),
        }
    )
    for row in comparisons:
        print(
            f"{row.model} makes {row.ratio:.3f} times the squared error of {row.opponent} ({row.ratio_low:.3f} to "
            f"{row.ratio_high:.3f}), and a smaller one on {row.wins:.1%} of the test images"
        )


def check_no_other_files(params: Params) -> None:
    """Raise StageError if the folder of evaluations, which DVC counts as an input, holds what belongs to no model."""
    kept = {path for name in params.models for path in files.model_files(name)}
    kept |= {path for name in params.presets for path in files.model_files(name, preset=True)}
    found = sorted(files.EVALUATIONS.glob("[!.]*"))  # .dvcignore lists the rest
    others = [path for path in found if path not in kept]
    if others:
        left = dict.fromkeys(str(path) for other in others for path in leftovers(other, kept))
        command = shlex.join(["rm", "-r", *left])
        raise StageError(
            f"{others[0]} belongs to no model in params.yaml; delete what is left of that model and run `dvc repro` "
            f"again: {command}"
        )


def leftovers(other: Path, kept: set[Path]) -> list[Path]:
    """What to delete with a path in this folder: all files of the model that the path belongs to, or the path only."""
    of_model = files.model_files(other.stem)
    if other not in of_model:
        return [other]
    return [path for path in of_model if path.exists() and path not in kept]


if __name__ == "__main__":
    run(main)
