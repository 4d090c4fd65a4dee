"""What the applications' figures share."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer

INK = "#222222"


def name_lines(ax: Axes, **options: Any) -> None:
    """A legend of lines with error bars, with enough of each line to distinguish dashes, and no bars."""
    drawn = [container for container in ax.containers if isinstance(container, ErrorbarContainer)]
    names = [str(container.get_label()) for container in drawn]
    ax.legend([container.lines[0] for container in drawn], names, handlelength=4, **options)


def name_ends(ax: Axes, size: float = 8) -> None:
    """Name each line with error bars at its right end, in its colour; names keep a distance from one another.

    size: of the letters, in points.
    """
    lines = [(container.lines[0], container.get_label()) for container in ax.containers]
    ends = sorted([(line.get_ydata()[-1], line, name) for line, name in lines], key=lambda end: end[0])
    bottom, top = ax.get_ylim()
    step = 1.25 * size / 72 * (top - bottom) / (ax.get_figure().get_figheight() * 0.8)
    place = bottom
    for value, line, name in ends:
        place = max(value, place + step)
        at = (line.get_xdata()[-1], place)
        ax.annotate(name, at, (6, 0), textcoords="offset points", va="center", size=size, color=line.get_color())
