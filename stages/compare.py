"""Put all models side by side: which one is better, and how surely?

    python -m stages.compare

Reads data/evaluation, data/applications and data/generation of every model in params.yaml,
data/classical and data/classifier. Writes metrics/README.md, everything that was measured as tables
to read, and the tables behind the charts of `dvc plots show`: plots/comparison.csv, a row for each pair
of models and each model beside PCA of the same latent size, plots/denoising.csv, plots/labels.csv,
plots/mse_per_class.csv and plots/losses.csv.
"""

import shlex
from pathlib import Path

from stages.applications.anomalies import compare_aurocs, missing_classes
from stages.applications.generation import load_generations
from stages.applications.records import load_denoised, load_labels
from stages.core import files, tables
from stages.core.command import parse_no_arguments
from stages.core.comparison import compare_all
from stages.core.errors import StageError, run
from stages.core.evaluation import load_evaluations, results_by_name
from stages.core.params import read_params
from stages.core.schema import Params


def main() -> None:
    parse_no_arguments("compare", __doc__)
    params = read_params(Params)
    check_no_other_files(params)
    evaluations = load_evaluations(list(params.models))
    written = {name: files.model_files(name) for name in params.models}
    applications = {name: paths.application for name, paths in written.items()}
    classical, denoised = load_denoised(applications, evaluations)
    pixels, classified = load_labels(applications, evaluations)
    floor, generations = load_generations({name: paths.generation for name, paths in written.items()}, evaluations)
    resamples, seed = params.compare.resamples, params.compare.seed
    comparisons = compare_all(evaluations, resamples, seed)
    results = results_by_name(evaluations)
    models = [name for name in results if not name.startswith("PCA")]
    digits = next(iter(evaluations.values())).digits
    aurocs = compare_aurocs(results, digits, resamples, seed)
    denoising = tables.denoising_table(denoised, classical.noise, models, resamples, seed)
    labels = tables.labels_table(classified, pixels.numbers, models, resamples, seed)
    per_class = tables.mse_per_class_table(evaluations)
    losses = tables.loss_table(evaluations, {name: settings.kl_weight for name, settings in params.models.items()})
    files.write_all(
        {
            tables.REPORT: "\n".join(
                [
                    tables.report(evaluations, comparisons, per_class),
                    tables.report_anomalies(aurocs, missing_classes(digits)),
                    tables.report_denoising(denoising, classical),
                    tables.report_labels(labels, pixels),
                    tables.report_generation(floor, generations),
                ]
            ).encode(),
            tables.COMPARISON: tables.csv(tables.comparison_table(comparisons)),
            tables.DENOISING: tables.csv(denoising),
            tables.LABELS: tables.csv(labels),
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
    """Raise StageError if a folder that DVC counts as an input holds what belongs to no model."""
    kept = {path for name in params.models for path in files.model_files(name)}
    kept |= {path for name in params.presets for path in files.model_files(name, preset=True)}
    folders = (files.EVALUATIONS, files.APPLICATIONS, files.GENERATIONS)
    found = [path for folder in folders for path in sorted(folder.glob("[!.]*"))]  # .dvcignore has the rest
    others = [path for path in found if path not in kept]
    if others:
        left = dict.fromkeys(str(path) for other in others for path in leftovers(other, kept))
        command = shlex.join(["rm", "-r", *left])
        raise StageError(
            f"{others[0]} belongs to no model in params.yaml; delete what is left of that model and run `dvc repro` "
            f"again: {command}"
        )


def leftovers(other: Path, kept: set[Path]) -> list[Path]:
    """What to delete with a path in one of these folders: all files of the model whose it would be, or itself."""
    of_model = files.model_files(other.stem)
    if other not in of_model:
        return [other]
    return [path for path in of_model if path.exists() and path not in kept]


if __name__ == "__main__":
    run(main)
