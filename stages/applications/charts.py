"""What the applications' figures share."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer

INK = "#222222"


def name_lines(ax: Axes, **options: Any) -> None:
    """A legend of lines with error bars, with enough of each line to distinguish dashes, and no bars."""
    drawn = [container for container in ax.containers if isinstance(container, ErrorbarContainer)]
    names = [str(container.get_label()) for container in drawn]
    ax.legend([container.lines[0] for container in drawn], names, handlelength=4, **options)


def name_ends(ax: Axes, ends: dict[str, tuple[float, float, str]]) -> None:
    """Write names at the right ends of curves, none on top of another. ends: x, y and colour by name."""
    ax.get_ylim()  # makes Matplotlib set limits that it has postponed
    height = -np.inf
    for name, (x, y, colour) in sorted(ends.items(), key=lambda end: end[1][1]):
        height = max((ax.transScale + ax.transLimits).transform((x, y))[1], height + 0.05)  # as a fraction of the axis
        offset: dict[str, Any] = {"xytext": (6, 0), "textcoords": "offset points"}
        ax.annotate(name, (x, height), xycoords=("data", "axes fraction"), color=colour, va="center", **offset)
