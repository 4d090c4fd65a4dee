"""The picture that a visitor saves: a digit, and what each model makes of it."""

import threading

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from stages.core.arrays import Bytes, Float32
from stages.core.style import STYLE, png
from stages.tools.reconstruct.sheets import draw_picture, finish

_drawing = threading.Lock()  # Matplotlib's settings are the whole process's


def sheet_png(image: Bytes, rows: list[tuple[str, Float32, float]], title: str, dpi: int) -> bytes:
    """As `draw_models`, as PNG bytes; safe to call from several threads."""
    with _drawing, plt.rc_context(STYLE):
        return png(draw_models(image, rows, title), dpi)


def draw_models(image: Bytes, rows: list[tuple[str, Float32, float]], title: str) -> Figure:
    """A digit beside each model's reconstruction and error.

    image: uint8 [height, width]. rows: name, reconstruction [height, width] in [0, 1], and squared error.
    """
    seen = image / 255
    figure, axes = plt.subplots(len(rows), 3, figsize=(5.6, 1.6 * len(rows) + 0.6), squeeze=False, layout="constrained")
    for index, ((name, picture, error), columns) in enumerate(zip(rows, axes, strict=True)):
        for ax, shown in zip(columns, (seen, picture, picture - seen), strict=True):
            draw_picture(ax, np.asarray(shown), error=ax is columns[2])
        columns[0].set_ylabel(name, rotation=0, ha="right", va="center", labelpad=8)
        columns[2].set_xlabel(f"squares sum to {error:.2f}", fontsize=8)
        if index == 0:
            for ax, heading in zip(columns, ("input", "reconstruction", "error"), strict=True):
                ax.set_title(heading)
    finish(figure, axes.ravel().tolist(), title)
    return figure
