"""What the applications measured of each model, and everything that was measured by the name to show."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.applications.denoising import METHODS, Classical, Denoised
from stages.applications.labels import PIXELS, UNTRAINED, Classified, CodeLabels, PixelLabels
from stages.core.errors import StageError
from stages.core.evaluation import Evaluation, by_name
from stages.core.files import CLASSICAL, PIXEL_LABELS
from stages.core.records import how_to_match, load_record


@dataclass(frozen=True, eq=False)
class Application:
    """What a model makes of the noisy test images, beside PCA of its latent size, and what few labels do with codes."""

    digest: str  # of the noisy test images, as `digest_noisy` gives it
    model: Denoised
    pca: Denoised
    labels: CodeLabels


def load_denoised(paths: dict[str, Path], evaluations: dict[str, Evaluation]) -> tuple[Classical, dict[str, Denoised]]:
    """The record of the classical methods, and what every method made of the noisy images, by the name to show.

    paths, evaluations: by model name. The noisy images themselves come first, the models last.
    Raises StageError if a file is missing, broken or of other images than the rest.
    """
    classical = load_record(Classical, CLASSICAL)
    applications = {name: load_record(Application, path) for name, path in paths.items()}
    for name, path in paths.items():
        if applications[name].digest != classical.digest:
            raise StageError(f"{path} is of other images or noise than {CLASSICAL}; {how_to_match(path)}.")
    without = {"noisy image": classical.noisy} | {name: getattr(classical, key) for key, name in METHODS.items()}
    models = {name: a.model for name, a in applications.items()}
    return classical, without | by_name(evaluations, models, {name: a.pca for name, a in applications.items()})


def load_labels(
    paths: dict[str, Path], evaluations: dict[str, Evaluation]
) -> tuple[PixelLabels, dict[str, Classified]]:
    """The record of pixels, and what every method does with few labels, by the name to show.

    paths, evaluations: by model name. Pixels come first, then PCA and untrained encoders, the models last.
    Raises StageError if a file is missing, broken or of other images or numbers of labels than the rest.
    """
    pixels = load_record(PixelLabels, PIXEL_LABELS)
    records = {name: load_record(Application, path).labels for name, path in paths.items()}
    for name, path in paths.items():
        same = np.array_equal(records[name].numbers, pixels.numbers)
        if not same or records[name].model.precision.shape != pixels.pixels.precision.shape:
            raise StageError(f"{path} is of other images or labels than {PIXEL_LABELS}; {how_to_match(path)}.")
    shown = by_name(evaluations, records, records)
    pcas = {name: record.pca for name, record in shown.items() if name.startswith("PCA")}
    models = {name: record for name, record in shown.items() if name not in pcas}
    untrained = {f"{UNTRAINED}{name}": record.untrained for name, record in models.items()}
    return pixels, {PIXELS: pixels.pixels} | pcas | untrained | {name: r.model for name, r in models.items()}
