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
