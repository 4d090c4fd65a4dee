"""What was measured of the models, in one sentence each."""

from pathlib import Path

from stages.analysis.metrics import read_metrics
from stages.analysis.tables import COMPARISON, read_table
from stages.common.errors import StageError
from stages.params import Choice


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
