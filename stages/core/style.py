"""How everything that is drawn looks: colours, fonts, and the way from a figure to PNG bytes."""

from collections.abc import Container, Iterable, Sequence
from io import BytesIO
from itertools import cycle
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from stages.core.arrays import Bytes, Floats

# Okabe and Ito's palette, distinguishable with any colour vision (M. Okabe, K. Ito, "Color Universal
# Design", 2008); the charts in .dvc/plots/ hold the same list, so a model keeps its colour everywhere.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BASELINE_COLOURS = ("#8C8C8C", "#B8B8B8", "#5C5C5C")
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with Matplotlib, so every machine draws the same
    "font.size": 9,
    "axes.titlesize": 9,
    "figure.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}
GREY: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1}
SIGNED: dict[str, Any] = {"cmap": "RdBu", "vmin": -1, "vmax": 1}  # red too dark, blue too bright


def colours(names: Iterable[str], baselines: Container[str] = ()) -> dict[str, str]:
    """A colour for every name: greys for those in `baselines`, the palette's for the others in their order."""
    greys, palette = cycle(BASELINE_COLOURS), cycle(COLOURS)
    return {name: next(greys if name in baselines else palette) for name in names}


def class_colours(labels: Bytes) -> dict[int, str]:
    """A colour for every class in labels uint8 [images], ascending.

    Up to ten are distinguishable with any colour vision (M. Petroff, "Accessible color sequences for data
    visualization", 2021).
    """
    classes = np.unique(labels).tolist()
    few = matplotlib.color_sequences["petroff10"]
    many = matplotlib.colormaps["gist_rainbow"](np.arange(len(classes)) / len(classes))
    palette = few if len(classes) <= len(few) else list(many)
    return {label: to_hex(colour) for label, colour in zip(classes, palette, strict=False)}


def mosaic(pictures: Floats) -> Floats:
    """Pictures [rows, columns, height, width] as one, with a white pixel between neighbours."""
    padded = np.pad(pictures, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=1)
    rows, columns, height, width = padded.shape
    return padded.swapaxes(1, 2).reshape(rows * height, columns * width)[:-1, :-1]


def show(ax: Axes, picture: Floats, **options: Any) -> None:
    """A picture [height, width] without axes, each of its pixels a square."""
    ax.imshow(picture, interpolation="nearest", **options)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def show_rows(ax: Axes, pictures: Floats, names: Sequence[str]) -> None:
    """Grey pictures [rows, columns, height, width] from 0 to 1, each row with its name at the left."""
    show(ax, mosaic(pictures), **GREY)
    height = pictures.shape[2] + 1
    ax.set_yticks([height * (row + 0.5) - 1 for row in range(len(names))], names)
    ax.tick_params(length=0)


def png(figure: Figure, dpi: int) -> bytes:
    """The figure as PNG bytes that don't name the Matplotlib that drew it; closes the figure."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()
