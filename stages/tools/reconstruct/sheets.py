"""Show a user's images next to what a model makes of them."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from stages.core.arrays import Bytes, Float32, Float64
from stages.core.style import GREY, SIGNED, show
from stages.tools.reconstruct.digits import Digit


def draw_digit(digit: Digit, reconstruction: Float32, latent_dim: int, squared_error: float, title: str) -> Figure:
    """One digit in a row: the file, what the model saw, its reconstruction and the error.

    reconstruction: [height, width] in [0, 1]. squared_error: summed over pixels.
    """
    seen = digit.image / 255
    height, width = seen.shape
    figure, axes = plt.subplots(1, 4, figsize=(7.6, 2.55), layout="constrained")
    show(axes[0], digit.picture / 255)
    show(axes[1], seen, **GREY)
    show(axes[2], reconstruction, **GREY)
    show(axes[3], reconstruction - seen, **SIGNED)
    captions = {
        "input": f"{digit.ink} ink",
        "what the model saw": f"{height}×{width} pixels",
        "reconstruction": f"from {latent_dim} numbers",
        "error": f"squares sum to {squared_error:.2f}",
    }
    for ax, (name, caption) in zip(axes, captions.items(), strict=True):
        ax.set_title(name, fontsize=9)
        ax.set_xlabel(caption, fontsize=8)
    half = max(digit.picture.shape) / 2  # a square around the input, as large as the other pictures
    rows, columns, _ = digit.picture.shape
    axes[0].set(xlim=(columns / 2 - half, columns / 2 + half), ylim=(rows / 2 + half, rows / 2 - half))
    finish(figure, axes.tolist(), title)
    return figure


def draw_sheet(images: Bytes, reconstructions: Float32, squared_errors: Float64, title: str) -> Figure:
    """Ten images to a row, each above its reconstruction and error, with the squared error below.

    images, reconstructions: [images, height, width], from 0 to 255 and from 0 to 1. squared_errors: summed over pixels.
    """
    columns, blocks = min(10, len(images)), -(-len(images) // 10)
    size = (max(3.6, 0.68 * columns + 1.9), 2.2 * blocks + 0.4)
    figure, axes = plt.subplots(3 * blocks, columns, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.ravel():
        ax.set_axis_off()
    for index, (image, reconstruction) in enumerate(zip(images / 255, reconstructions, strict=True)):
        block, column = divmod(index, 10)
        rows = axes[3 * block : 3 * block + 3, column]
        pictures = (image, reconstruction, reconstruction - image)
        for ax, picture, options in zip(rows, pictures, (GREY, GREY, SIGNED), strict=True):
            ax.set_axis_on()
            show(ax, picture, **options)
        rows[2].set_xlabel(f"{squared_errors[index]:.1f}", fontsize=8, labelpad=2)
        if column == 0:
            for ax, name in zip(rows, ("input", "reconstruction", "error"), strict=True):
                ax.set_ylabel(name, rotation=0, ha="right", va="center")
    finish(figure, axes.ravel().tolist(), title)
    return figure


def finish(figure: Figure, axes: list[Axes], title: str) -> None:
    """Add the title and the legend of the error's colours."""
    colours = ScalarMappable(Normalize(SIGNED["vmin"], SIGNED["vmax"]), SIGNED["cmap"])
    bar = figure.colorbar(colours, ax=axes, ticks=[-1, 0, 1], shrink=0.7, aspect=14, pad=0.015)
    bar.ax.set_yticklabels(["−1 too dark", "0", "+1 too bright"], fontsize=7)
    bar.outline.set_visible(False)
    figure.suptitle(title, fontsize=10)
