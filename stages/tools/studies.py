"""What `study` and `tune` share: where they write tables and pictures, and when an axis is logarithmic."""

from pathlib import Path

from stages.core.arrays import Floats

STUDIES = Path("plots/studies")


def spans_decades(values: Floats) -> bool:
    """Whether values are better shown on a logarithmic axis: above 0, the largest at least 8 times the smallest."""
    return bool((values > 0).all() and values.max() >= 8 * values.min())
