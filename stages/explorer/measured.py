"""What was measured of the models: the numbers that `evaluate` leaves in metrics/, and a sentence of each."""

import json
from pathlib import Path
from typing import NamedTuple

from stages.core.errors import StageError
from stages.core.files import ModelFiles, how_to_make
from stages.core.params import Choice
from stages.core.tables import COMPARISON, read_table


class Metrics(NamedTuple):
    """Of a model or a preset, on the test images."""

    mse: float  # per pixel
    mse_pca: float  # of PCA with as many numbers; 0 if they are at least as many as the pixels
    ssim: float
    probe: float
    parameters: int | None  # None where classes were missing and auroc takes its place


def read_metrics(files: ModelFiles) -> Metrics:
    """Read metrics/<name>.json. Raises StageError if it is missing or lacks a number."""
    path, needed = files.metrics, Metrics._fields[:-1]
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Metrics._make([*(float(found[name]) for name in needed), found.get("parameters")])
    except FileNotFoundError:
        raise StageError(f"{path} is missing; {how_to_make(files.evaluation)}.") from None
    except (ValueError, KeyError, TypeError):
        raise StageError(f"{path} does not have {', '.join(needed)}; {how_to_make(files.evaluation)}.") from None


def model_sentence(choice: Choice, pixels: int) -> str:
    """What a model's metrics say. Raises StageError if the file is missing or broken."""
    metrics, size = read_metrics(choice.files), choice.settings.latent_dim
    sentence = f"{choice.name} loses {metrics.mse * pixels:.2f} of squared error per test digit on average"
    if metrics.mse_pca:
        sentence += f", {metrics.mse / metrics.mse_pca:.2f} times what PCA with {size} numbers loses"
    return f"{sentence}; a linear probe reads the class off {per_cent(metrics.probe)} of its codes."


def pca_sentence(choice: Choice, pixels: int) -> str:
    """The same for PCA with as many numbers as a model's code has."""
    metrics, size = read_metrics(choice.files), choice.settings.latent_dim
    return (
        f"PCA with {size} numbers loses {metrics.mse_pca * pixels:.2f} of squared error per test digit on average; "
        "it is the best that a linear map and back can do on the training images."
    )


def pair_sentences(names: list[str], path: Path = COMPARISON) -> list[str]:
    """A sentence for every two of these models that were compared on the same test images.

    Raises StageError if the table is missing or broken.
    """
    table = read_table(path)
    sentences = []
    try:
        for _, row in table.iterrows():
            first, second = str(row["pair"]).split(" / ")
            if {first, second} <= set(names):
                sentences.append(
                    f"{first} makes {row['ratio']:.3f} times the error of {second} (95\N{NO-BREAK SPACE}% interval "
                    f"{row['ratio_low']:.3f} to {row['ratio_high']:.3f}) and is better on {per_cent(row['wins'])} of "
                    "the test digits."
                )
    except (KeyError, ValueError, TypeError):
        raise StageError(f"{path} is no table of compared models; run `dvc repro compare`.") from None
    return sentences


def per_cent(value: float) -> str:
    """A share from 0 to 1 in per cent."""
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"
