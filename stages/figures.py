"""Draw what the models do: reconstructed digits, loss curves, error per class.

    python -m stages.figures

Reads data/evaluation/<name>.npz of every model in params.yaml and writes
plots/reconstructions.png, plots/losses.png, plots/mse_per_class.png and plots/losses.csv,
the long table behind the interactive chart of `dvc plots show`. Needs no TensorFlow.
"""

from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # before pyplot: stages run without a screen
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stages import files
from stages.errors import StageError, run
from stages.params import Params, read_params

PLOTS = Path("plots")
# Okabe and Ito's palette, distinguishable with any colour vision (M. Okabe, K. Ito, "Color Universal
# Design", 2008); .dvc/plots/losses.json holds the same list, so a model keeps its colour everywhere.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BASELINE_COLOUR = "#8C8C8C"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with Matplotlib, so every machine draws the same
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}

Evaluation = dict[str, np.ndarray]


def read_evaluation(name: str) -> Evaluation:
    """The arrays that the evaluate stage wrote for a model.

    Raises StageError if the file is missing or broken.
    """
    path = files.evaluation_path(name)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except FileNotFoundError:
        raise StageError(
            f"{path} is missing; a model added to params.yaml also needs this file among the deps of "
            "figures in dvc.yaml, then `dvc repro`."
        ) from None
    except files.BROKEN_ARRAY as error:
        raise StageError(f"{path} is not a whole .npz file ({error}); run `dvc repro`.") from None


def baselines(evaluations: dict[str, Evaluation]) -> dict[str, Evaluation]:
    """One evaluation with PCA's arrays for each latent size in use, by the name to show."""
    by_size = {int(e["latent_dim"]): e for e in evaluations.values()}
    return {f"PCA ({size})": by_size[size] for size in sorted(by_size)}


def colours(names: list[str]) -> dict[str, str]:
    """A colour for every model, in the order of params.yaml."""
    return dict(zip(names, cycle(COLOURS), strict=False))


def draw_reconstructions(evaluations: dict[str, Evaluation], classes: int) -> Figure:
    """The first test image of each class, as it is and as PCA and each model give it back.

    Under each reconstruction stands its squared error summed over pixels, and at the left
    the mean of that over all test images.
    """
    first = next(iter(evaluations.values()))
    shown, images = first["shown"][:classes], first["images"][:classes]
    rows: list[tuple[str, np.ndarray, np.ndarray | None]] = [("original", images, None)]
    for name, e in baselines(evaluations).items():
        rows.append((name, e["pca_reconstructions"], e["pca_squared_error"]))
    for name, e in evaluations.items():
        rows.append((name, e["reconstructions"], e["squared_error"]))

    figure, axes = plt.subplots(
        len(rows), len(shown), figsize=(0.68 * len(shown) + 1.1, 0.84 * len(rows) + 0.35), squeeze=False
    )
    for row, (name, pictures, errors) in zip(axes, rows, strict=True):
        for column, ax in enumerate(row):
            ax.imshow(pictures[column], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if errors is not None:
                ax.set_xlabel(f"{errors[shown[column]]:.1f}", fontsize=8, labelpad=2)
        label = name if errors is None else f"{name}\nmean {errors.mean():.1f}"
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", labelpad=8)
    figure.suptitle("Test digits and their squared error, summed over pixels", fontsize=10, x=0.56)
    figure.tight_layout(h_pad=0.3, w_pad=0.3)
    return figure


def draw_losses(histories: pd.DataFrame, loss_names: dict[str, str]) -> Figure:
    """Loss against epoch: colour by model, training solid, validation dashed.

    histories: the columns epoch, model, series ("train" or "validation"), loss.
    loss_names: the loss that each model minimises; curves of different losses don't compare.
    """
    figure, ax = plt.subplots(figsize=(7, 3.6))
    names = list(loss_names)
    same = len(set(loss_names.values())) == 1
    for name, colour in colours(names).items():
        for series, dashes in (("train", "-"), ("validation", (0, (4, 2)))):
            curve = histories[(histories["model"] == name) & (histories["series"] == series)]
            label = f"{name}, {series}" if same else f"{name}, {series} ({loss_names[name]})"
            ax.plot(curve["epoch"], curve["loss"], color=colour, linestyle=dashes, label=label)
    ax.set_xlabel("epoch")
    ax.set_ylabel(loss_names[names[0]].replace("_", " ") if same else "loss")
    ax.set_title("Loss per epoch", fontsize=10, loc="left")
    ax.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True))
    ax.set_xlim(left=0)
    ax.legend()
    figure.tight_layout()
    return figure


def draw_mse_per_class(evaluations: dict[str, Evaluation], classes: int) -> Figure:
    """Bars of each model's mean squared error per pixel over the test images of each class."""
    first = next(iter(evaluations.values()))
    labels, pixels = first["labels"], first["images"][0].size
    shown = np.unique(labels)[:classes]
    bars = {name: (e["pca_squared_error"], BASELINE_COLOUR) for name, e in baselines(evaluations).items()}
    for name, colour in colours(list(evaluations)).items():
        bars[name] = (evaluations[name]["squared_error"], colour)

    figure, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
    width = 0.8 / len(bars)
    for index, (name, (errors, colour)) in enumerate(bars.items()):
        heights = [errors[labels == label].mean() / pixels for label in shown]
        offsets = np.arange(len(shown)) + (index - (len(bars) - 1) / 2) * width
        ax.bar(offsets, heights, width * 0.92, color=colour, label=f"{name}, {errors.mean() / pixels:.4f} overall")
    ax.set_xticks(range(len(shown)), [str(label) for label in shown])
    ax.set_xlabel("class")
    ax.set_ylabel("MSE per pixel")
    ax.set_title("Test error per class", fontsize=10, loc="left")
    figure.legend(ncols=min(3, len(bars)), loc="outside lower center")
    return figure


def loss_table(evaluations: dict[str, Evaluation]) -> pd.DataFrame:
    """All histories as one long table: epoch, model, series ("train" or "validation"), loss."""
    tables = []
    for name, e in evaluations.items():
        for series, losses in (("train", e["loss"]), ("validation", e["val_loss"])):
            epochs = np.arange(1, len(losses) + 1)
            tables.append(pd.DataFrame({"epoch": epochs, "model": name, "series": series, "loss": losses}))
    return pd.concat(tables)


def png(figure: Figure, dpi: int) -> bytes:
    """The figure as PNG bytes that don't name the Matplotlib that drew it; closes the figure."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()


def main() -> None:
    params: Params = read_params()
    evaluations = {name: read_evaluation(name) for name in params.models}
    classes, dpi = params.figures.classes, params.figures.dpi
    losses = loss_table(evaluations)
    loss_names = {name: str(settings.loss) for name, settings in params.models.items()}
    with plt.rc_context(STYLE):
        pictures = {
            PLOTS / "reconstructions.png": png(draw_reconstructions(evaluations, classes), dpi),
            PLOTS / "losses.png": png(draw_losses(losses, loss_names), dpi),
            PLOTS / "mse_per_class.png": png(draw_mse_per_class(evaluations, classes), dpi),
        }
    table = losses.to_csv(index=False, float_format="%.9g", lineterminator="\n").encode()
    files.write_files({**pictures, PLOTS / "losses.csv": table})
    print(f"drew {', '.join(map(str, pictures))}")


if __name__ == "__main__":
    run(main)
