"""Tables: of all models together, and how numbers, tables and CSV files look."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
from tabulate import tabulate

from stages.core.comparison import Comparison
from stages.core.evaluation import Evaluation, Measures, Result, results_by_name

REPORT = Path("metrics/README.md")
COMPARISON = Path("plots/comparison.csv")
MSE_PER_CLASS = Path("plots/mse_per_class.csv")
LOSSES = Path("plots/losses.csv")

MEASURES = [field.name for field in fields(Measures)]  # the rows of the report


def comparison_table(comparisons: list[Comparison]) -> pd.DataFrame:
    """The fields of Comparison, a row per pair."""
    return pd.DataFrame(comparisons, columns=list(Comparison._fields))


def mse_per_class_table(evaluations: dict[str, Evaluation]) -> pd.DataFrame:
    """Mean squared error per pixel of each result on each class: class, model, kind, mse, images."""
    first = next(iter(evaluations.values()))
    rows = []
    for name, result in results_by_name(evaluations).items():
        for label in np.unique(first.digits.labels):
            errors = result.squared_error[first.digits.labels == label]
            mse, count = errors.mean() / first.pixels, len(errors)
            rows.append({"class": label, "model": name, "kind": result.kind, "mse": mse, "images": count})
    return pd.DataFrame(rows)


def loss_table(evaluations: dict[str, Evaluation], kl_weights: dict[str, float]) -> pd.DataFrame:
    """All losses as one long table: epoch, model, split ("train" or "validation"), part ("total"), loss.

    The loss of a variational model is the sum of two more parts, "reconstruction" and "KL".
    kl_weights: by model, 0 of those that are not variational.
    """
    tables = []
    for name, e in evaluations.items():
        for split, losses, kl in (("train", e.loss, e.kl), ("validation", e.val_loss, e.val_kl)):
            parts, weighted = {"total": losses}, kl_weights[name] / e.pixels * kl
            if kl_weights[name]:
                parts |= {"reconstruction": losses - weighted, "KL": weighted}
            epochs = np.arange(1, len(losses) + 1)
            tables += [
                pd.DataFrame({"epoch": epochs, "model": name, "split": split, "part": part, "loss": values})
                for part, values in parts.items()
            ]
    return pd.concat(tables)


def report(evaluations: dict[str, Evaluation], comparisons: list[Comparison], per_class: pd.DataFrame) -> str:
    """Everything that `evaluate` and `compare` measure, in Markdown. per_class: as `mse_per_class_table` returns it."""
    results = results_by_name(evaluations)
    first = next(iter(evaluations.values()))
    measures = [[f"`{name}`", *(measure(result, name) for result in results.values())] for name in MEASURES]
    classes = [
        [label, number(int(rows["images"].iloc[0])), *map(number, rows["mse"])]
        for label, rows in per_class.groupby("class")
    ]
    return f"""\
# Results

`dvc repro` writes this page. [docs/metrics.md](../docs/metrics.md) explains the rows.

{markdown(["", *results], [row for row in measures if set(row[1:]) != {"–"}])}

An `mse` of {number(first.mse_mean_image)} is that of the mean training image, shown for every test image.
A linear probe that sees all {first.pixels} pixels has a `probe` of {number(first.probe_pixels)}.
PCA's outputs are clipped to [0, 1]; unclipped, no linear method has a smaller squared error on the training images.

## Comparisons

Squared errors on the same test images, with 95 % intervals. `wins` is the share of images on
which the model is better than its opponent.

{markdown(["model", "opponent", "ratio of mean errors", "difference of mean errors", "wins"], pair_rows(comparisons))}

## `mse` per class

{markdown(["class", "images", *results], classes)}
"""


def measure(result: Result, name: str) -> str:
    """The cell of a measure; a dash if the result has none."""
    value = getattr(result, name)
    if isinstance(value, np.ndarray):
        return number(float(value.mean())) if value.size else "–"
    return number(value)


def pair_rows(comparisons: list[Comparison]) -> list[list[str]]:
    """The cells of each comparison, with intervals."""
    return [
        [
            row.model,
            row.opponent,
            interval(row.ratio, row.ratio_low, row.ratio_high),
            interval(row.difference, row.difference_low, row.difference_high),
            number(row.wins),
        ]
        for row in comparisons
    ]


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
