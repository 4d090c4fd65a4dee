"""Put all models side by side: which one is better, and how surely?

    python -m stages.compare

Reads data/evaluation/<name>.npz of every model in params.yaml and writes
metrics/README.md, everything that was measured as tables to read, and the tables behind the
charts of `dvc plots show`: plots/comparison.csv, a row for each pair of models and each
model beside PCA of the same latent size, plots/mse_per_class.csv and plots/losses.csv.
"""

import shlex
from pathlib import Path

from stages.analysis import tables
from stages.analysis.comparison import compare_all
from stages.analysis.evaluation import load_evaluations
from stages.common import files
from stages.common.errors import StageError, run
from stages.params import Params, read_params
from stages.params.command import parse_no_arguments


def main() -> None:
    parse_no_arguments("compare", __doc__)
    params = read_params()
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
    for pair, row in comparisons.items():
        print(
            f"{pair}: {row.ratio:.3f} times the squared error ({row.ratio_low:.3f} to {row.ratio_high:.3f}), "
            f"smaller on {row.wins:.1%} of the test images"
        )


def check_no_other_files(params: Params) -> None:
    """Raise StageError if data/evaluation holds what belongs to no model, since DVC would count it as an input."""
    kept = {path for name in params.models for path in files.model_files(name)}
    kept |= {path for name in params.presets for path in files.model_files(name, preset=True)}
    others = sorted(path for path in files.EVALUATIONS.glob("[!.]*") if path not in kept)  # .dvcignore has the rest
    if others:
        command = shlex.join(["rm", "-r", *(str(path) for other in others for path in leftovers(other, kept))])
        raise StageError(
            f"{others[0]} belongs to no model in params.yaml; delete what is left of that model and run `dvc repro` "
            f"again: {command}"
        )


def leftovers(other: Path, kept: set[Path]) -> list[Path]:
    """What to delete with a path in data/evaluation: all files of the model that it evaluates, or itself."""
    of_model = files.model_files(other.stem)
    if other != of_model.evaluation:
        return [other]
    return [path for path in of_model if path.exists() and path not in kept]


if __name__ == "__main__":
    run(main)
