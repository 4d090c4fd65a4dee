"""The tables that put all models side by side, and where they lie."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tabulate import tabulate

from stages.applications.anomalies import Area
from stages.applications.denoising import METHODS, Classical, Denoised
from stages.applications.generation import Floor, Generation
from stages.applications.labels import NEAREST, Classified, PixelLabels
from stages.core.arrays import Float64, Int64
from stages.core.comparison import PERCENTILES, Comparison, bootstrap_means
from stages.core.errors import StageError
from stages.core.evaluation import Evaluation, Result, results_by_name
from stages.core.measures import psnr

REPORT = Path("metrics/README.md")
COMPARISON = Path("plots/comparison.csv")
DENOISING = Path("plots/denoising.csv")
LABELS = Path("plots/labels.csv")
MSE_PER_CLASS = Path("plots/mse_per_class.csv")
LOSSES = Path("plots/losses.csv")
STUDIES = Path("plots/studies")  # tables and pictures of the tools

# The rows of the report; what they mean is in docs/metrics.md. None where there is no such number.
MEASURES: dict[str, Callable[[Result], float | None]] = {
    "mse": lambda result: result.mse,
    "mse_train": lambda result: result.mse_train,
    "mse_validation": lambda result: result.mse_validation,
    "squared_error": lambda result: float(result.squared_error.mean()),
    "psnr": lambda result: result.psnr,
    "ssim": lambda result: result.ssim,
    "bce": lambda result: result.bce,
    "probe": lambda result: result.probe,
    "generation": lambda result: result.generation,
    "kl": lambda result: float(result.kl.mean()) if result.variational else None,
    "active_dimensions": lambda result: result.active_dimensions,
    "latent_dim": lambda result: result.latent_dim,
    "parameters": lambda result: result.parameters,
}


def comparison_table(comparisons: dict[str, Comparison]) -> pd.DataFrame:
    """The column pair and the fields of Comparison, a row per pair."""
    return pd.DataFrame([(pair, *row) for pair, row in comparisons.items()], columns=["pair", *Comparison._fields])


def mse_per_class_table(evaluations: dict[str, Evaluation]) -> pd.DataFrame:
    """Mean squared error per pixel of each model and PCA on each class: class, model, mse, images."""
    first = next(iter(evaluations.values()))
    rows = []
    for name, result in results_by_name(evaluations).items():
        for label in np.unique(first.digits.labels):
            errors = result.squared_error[first.digits.labels == label]
            rows.append({"class": label, "model": name, "mse": errors.mean() / first.pixels, "images": len(errors)})
    return pd.DataFrame(rows)


def denoising_table(
    denoised: dict[str, Denoised], noise: Float64, models: list[str], resamples: int, seed: int
) -> pd.DataFrame:
    """PSNR and SSIM of every method at every noise, with the ends of their 95 % intervals.

    Columns: method, kind ("model" for those among `models`, else "baseline"), noise, psnr, psnr_low, psnr_high, ssim,
    ssim_low, ssim_high. PSNR is that of the mean squared error over images; the bootstrap draws images, the same ones
    for every method.
    """
    rows = []
    for method, result in denoised.items():
        pixels = result.pictures[0, 0].size
        for deviation, errors, similarities in zip(noise, result.squared_error, result.ssim, strict=True):
            means = bootstrap_means(np.stack([errors / pixels, similarities], axis=1), resamples, seed)
            (high_error, high_ssim), (low_error, low_ssim) = np.percentile(means, PERCENTILES[::-1], axis=0)
            rows.append(
                {
                    "method": method,
                    "kind": "model" if method in models else "baseline",
                    "noise": deviation,
                    "psnr": psnr(errors.mean() / pixels),
                    "psnr_low": psnr(high_error),
                    "psnr_high": psnr(low_error),
                    "ssim": similarities.mean(),
                    "ssim_low": low_ssim,
                    "ssim_high": high_ssim,
                }
            )
    return pd.DataFrame(rows)


def labels_table(
    classified: dict[str, Classified], numbers: Int64, models: list[str], resamples: int, seed: int
) -> pd.DataFrame:
    """What every method does with each number of labels, a row for both.

    method, kind ("model" or "baseline"), labels, the mean accuracy over draws of both classifiers (logistic,
    neighbours) with its standard deviation (_std), and the precision of retrieval, which needs no labels, with
    the ends of its 95 % interval (_low, _high).
    """
    shares = np.stack([method.precision for method in classified.values()], axis=1)
    ends = np.percentile(bootstrap_means(shares, resamples, seed), PERCENTILES, axis=0).T
    return pd.DataFrame(
        {
            "method": name,
            "kind": "model" if name in models else "baseline",
            "labels": number,
            "logistic": method.logistic[row].mean(),
            "logistic_std": spread(method.logistic[row]),
            "neighbours": method.neighbours[row].mean(),
            "neighbours_std": spread(method.neighbours[row]),
            "precision": method.precision.mean(),
            "precision_low": low,
            "precision_high": high,
        }
        for (name, method), (low, high) in zip(classified.items(), ends, strict=True)
        for row, number in enumerate(numbers)
    )


def spread(values: Float64) -> float:
    """Standard deviation of at least two values; exactly 0 of equal ones."""
    return float((values - values[0]).std(ddof=1))


def loss_table(evaluations: dict[str, Evaluation], kl_weights: dict[str, float]) -> pd.DataFrame:
    """All losses as one long table: epoch, model, series ("train" or "validation"), loss.

    A variational model has two more series for each, whose sum it is: "train, reconstruction"
    and "train, KL". kl_weights: by model, 0 of those that are not variational.
    """
    tables = []
    for name, e in evaluations.items():
        for series, losses, kl in (("train", e.loss, e.kl), ("validation", e.val_loss, e.val_kl)):
            curves, weighted = {series: losses}, kl_weights[name] / e.pixels * kl
            if kl_weights[name]:
                curves |= {f"{series}, reconstruction": losses - weighted, f"{series}, KL": weighted}
            epochs = np.arange(1, len(losses) + 1)
            tables += [
                pd.DataFrame({"epoch": epochs, "model": name, "series": curve, "loss": values})
                for curve, values in curves.items()
            ]
    return pd.concat(tables)


def report(evaluations: dict[str, Evaluation], comparisons: dict[str, Comparison], per_class: pd.DataFrame) -> str:
    """Everything that was measured, in Markdown. per_class: as `mse_per_class_table` has it."""
    results = results_by_name(evaluations)
    first = next(iter(evaluations.values()))
    values = {name: [of(result) for result in results.values()] for name, of in MEASURES.items()}
    measures = [
        [f"`{name}`", *("–" if value is None else number(value) for value in row)]
        for name, row in values.items()
        if any(value is not None for value in row)
    ]
    pairs = [
        [
            pair,
            interval(row.ratio, row.ratio_low, row.ratio_high),
            interval(row.difference, row.difference_low, row.difference_high),
            number(row.wins),
        ]
        for pair, row in comparisons.items()
    ]
    classes = [
        [label, number(int(rows["images"].iloc[0])), *map(number, rows["mse"])]
        for label, rows in per_class.groupby("class")
    ]
    return f"""\
# What was measured

`dvc repro` writes this page. [docs/metrics.md](../docs/metrics.md) explains the rows.

{markdown(["", *results], measures)}

The mean training image, shown for every test image, has an `mse` of {number(first.mse_mean_image)}.
A linear probe that sees all {first.pixels} pixels has a `probe` of {number(first.probe_pixels)}.

## Which one is better?

Squared errors on the same test images, with 95 % intervals; `wins` is the share of images on
which the first of the pair is better.

{markdown(["pair", "ratio of mean errors", "difference of mean errors", "wins"], pairs)}

## `mse` per class

{markdown(["class", "images", *results], classes)}
"""


def report_anomalies(areas: dict[str, dict[str, Area]], missing: list[int]) -> str:
    """How well classes that training never saw are told from the others, in Markdown.

    areas: as `anomalies.compare_aurocs` has it. missing: those classes.
    """
    heading = "## Which digits are anomalous?\n\n"
    if not areas:
        return heading + (
            "No class is missing from training, so there is none to be told from the others;\n"
            "[docs/anomalies.md](../docs/anomalies.md) shows how to leave one out.\n"
        )
    names = [f"`{score}`" for score in next(iter(areas.values()))]
    rows = [[name, *(interval(*area) for area in of_scores.values())] for name, of_scores in areas.items()]
    return f"""\
{heading}Missing from training: {", ".join(map(str, missing))}. Area under the ROC curve of telling their test images
from the others, by three scores, with 95 % intervals. [docs/anomalies.md](../docs/anomalies.md)
explains the scores.

{markdown(["", *names], rows)}
"""


def report_denoising(table: pd.DataFrame, classical: Classical) -> str:
    """How well noise is removed from test images, in Markdown. table: as `denoising_table` has it."""
    noise = [f"{deviation:g}" for deviation in classical.noise]
    images = classical.noisy.squared_error.shape[1]
    settings = [[name, *chosen] for name, chosen in zip(METHODS.values(), classical.settings, strict=True)]

    def measured(measure: str) -> str:
        rows = [
            [method, *(interval(*row) for row in group[[measure, f"{measure}_low", f"{measure}_high"]].to_numpy())]
            for method, group in table.groupby("method", sort=False)
        ]
        return markdown([f"`{measure}`", *noise], rows)

    return f"""\
## How well is noise removed?

{images} test images with Gaussian noise of these standard deviations, denoised and compared with
the clean ones, with 95 % intervals. [docs/denoising.md](../docs/denoising.md) explains the methods.

{measured("psnr")}

{measured("ssim")}

The settings of the classical methods were chosen on noisy validation images; σ is the noise.

{markdown(["noise", *noise], settings)}
"""


def report_labels(table: pd.DataFrame, pixels: PixelLabels) -> str:
    """How far a few labels go, in Markdown. table: as `labels_table` has it."""
    numbers = [f"{number:,}" for number in pixels.numbers]
    header = [f"{classifier}, {number}" for classifier in ("logistic", "neighbours") for number in numbers]
    rows = []
    for method, group in table.groupby("method", sort=False):
        accuracies = [
            f"{mean:.3f} ± {deviation:.3f}"
            for name in ("logistic", "neighbours")
            for mean, deviation in zip(group[name], group[f"{name}_std"], strict=True)
        ]
        retrieval = group[["precision", "precision_low", "precision_high"]].iloc[0]
        rows.append([method, *accuracies, "{:.3f} ({:.3f} to {:.3f})".format(*retrieval)])
    draws, queries = pixels.pixels.logistic.shape[1], len(pixels.pixels.precision)
    return f"""\
## How far do a few labels go?

Accuracy on {queries:,} test images of logistic regression and of k-nearest neighbours, with the given
number of labelled training images: mean ± standard deviation over {draws} draws of these. `precision` is the
share of the {NEAREST} nearest of {pixels.candidates:,} training images that are of the same class, with 95 % intervals.
[docs/few-labels.md](../docs/few-labels.md) explains the methods.

{markdown(["", *header, "precision"], rows)}
"""


def generation_table(floor: Floor, generations: dict[str, Generation]) -> pd.DataFrame:
    """How good generated digits are, a row for every model and method, that of real images first.

    Columns: model, method, frechet, frechet_std, accuracy, accuracy_std: means and standard deviations over draws.
    """
    rows = []
    for name, generation in [("real", floor.real), *generations.items()]:
        for method, distances, accuracies in zip(
            generation.methods, generation.frechet, generation.accuracy, strict=True
        ):
            rows.append(
                {
                    "model": name,
                    "method": method,
                    "frechet": distances.mean(),
                    "frechet_std": spread(distances),
                    "accuracy": accuracies.mean(),
                    "accuracy_std": spread(accuracies),
                }
            )
    return pd.DataFrame(rows)


def report_generation(floor: Floor, generations: dict[str, Generation]) -> str:
    """How good generated digits are, in Markdown."""
    heading = "## How good are generated digits?\n\n"
    if not floor.measured:
        return heading + (
            "No classifier was trained, so there is nothing to judge them by;\n"
            "[docs/generation.md](../docs/generation.md) shows how to train one.\n"
        )
    draws = floor.real.frechet.shape[1]
    rows = generation_rows(generation_table(floor, generations))
    return f"""\
{heading}`frechet` is the distance to the test images in a classifier's features, lower is better. `accuracy`
is the share of the test images that another classifier gets right after learning from these digits
alone. The classifier itself gets {number(floor.accuracy)} right. Mean and standard deviation over {draws} draws.
[docs/generation.md](../docs/generation.md) explains both.

{markdown(*rows)}
"""


def generation_rows(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Header and rows to read of what `generation_table` gives."""
    rows = [
        [
            f"{row['model']}: {row['method']}",
            *(with_spread(row[key], row[f"{key}_std"]) for key in ("frechet", "accuracy")),
        ]
        for _, row in table.iterrows()
    ]
    return ["", "`frechet`", "`accuracy`"], rows


def with_spread(mean: float, deviation: float) -> str:
    """A mean with its standard deviation, both with as many decimals as give the deviation two digits."""
    decimals = max(0, 1 - int(np.floor(np.log10(deviation)))) if deviation > 0 else 4
    return f"{mean:.{decimals}f} ± {deviation:.{decimals}f}"


def interval(value: float, low: float, high: float) -> str:
    """A number with its interval."""
    return f"{number(value)} ({number(low)} to {number(high)})"


def number(value: float) -> str:
    """Whole numbers in full, others with four significant digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:#.4g}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    alignment = ["left", *["right"] * (len(header) - 1)]
    table: str = tabulate(rows, header, tablefmt="pipe", disable_numparse=True, colalign=alignment)
    return table


def csv(table: pd.DataFrame, digits: int = 6, header: bool = True) -> bytes:
    """A table as a CSV file, numbers with `digits` significant digits."""
    return table.to_csv(index=False, header=header, float_format=f"%.{digits}g", lineterminator="\n").encode()


def read_table(path: Path) -> pd.DataFrame:
    """A table that compare wrote. Raises StageError if the file is missing or broken."""
    try:
        return pd.read_csv(path)
    except FileNotFoundError:
        raise StageError(f"{path} is missing; run `dvc repro compare`.") from None
    except ValueError as error:  # pandas' own errors are kinds of ValueError
        raise StageError(
            f"{path} is not a whole table ({' '.join(str(error).split())}); run `dvc repro compare`."
        ) from None
