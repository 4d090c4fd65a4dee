"""The numbers of one model that `evaluate` leaves in metrics/, as the tools read them."""

import json
from typing import NamedTuple

from stages.common.errors import StageError
from stages.common.files import ModelFiles, how_to_make


class Metrics(NamedTuple):
    """Of a model or a preset, on the test images."""

    mse: float  # per pixel
    mse_pca: float  # of PCA with as many numbers; 0 if they are as many as the pixels
    ssim: float
    probe: float
    parameters: int | None  # None where classes were missing and auroc takes its place


def read_metrics(files: ModelFiles) -> Metrics:
    """Read metrics/<name>.json. Raises StageError if it is missing or lacks a number."""
    path, needed = files.metrics, Metrics._fields[:-1]
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Metrics._make([*(float(found[name]) for name in needed), found.get("parameters")])
    except FileNotFoundError:
        raise StageError(f"{path} is missing; {how_to_make(files.evaluation)}.") from None
    except (ValueError, KeyError, TypeError):
        raise StageError(f"{path} does not have {', '.join(needed)}; {how_to_make(files.evaluation)}.") from None
