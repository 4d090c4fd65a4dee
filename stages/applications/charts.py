"""What the applications' figures share."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.lines import Line2D

INK = "#222222"


def lines_by_name(ax: Axes) -> dict[str, Line2D]:
    """The lines that have error bars."""
    drawn = [container for container in ax.containers if isinstance(container, ErrorbarContainer)]
    return {str(container.get_label()): container.lines[0] for container in drawn}


def name_lines(ax: Axes, **options: Any) -> None:
    """A legend of lines with error bars, with enough of each line to distinguish dashes, and no bars."""
    lines = lines_by_name(ax)
    ax.legend(lines.values(), lines.keys(), handlelength=4, **options)


def name_ends(ax: Axes) -> None:
    """Name each line with error bars at its right end, in its colour; names keep a distance from one another."""
    bottom, top = ax.get_ylim()
    place, step = bottom, 0.045 * (top - bottom)
    lines = sorted(lines_by_name(ax).items(), key=lambda named: float(np.asarray(named[1].get_ydata())[-1]))
    for name, line in lines:
        x, y = (float(np.asarray(values)[-1]) for values in line.get_data())
        place = max(y, place + step)
        options: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 8}
        ax.annotate(name, (x, place), (6, 0), color=line.get_color(), **options)
