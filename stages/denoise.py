"""Denoise test images with all models, and compare them with methods without a network.

    python -m stages.denoise

Reads data/prepared, data/models and data/classical/denoising.npz. Writes plots/denoising.csv and .png, and
metrics/denoising.md.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from stages.applications.denoising import (
    CLASSICAL,
    FIGURE,
    REPORT,
    TABLE,
    Classical,
    Denoised,
    denoising_table,
    draw_denoising,
    measure_denoised,
    noisy_tests,
    read_chosen,
    report,
)
from stages.applications.methods import load_models, model_paths
from stages.applications.schema import Denoise, DenoiseParams
from stages.core.arrays import Float32
from stages.core.backend import use_all_cores
from stages.core.command import stage_parser
from stages.core.errors import StageError, run
from stages.core.evaluation import MODEL
from stages.core.files import write_all
from stages.core.inference import halves
from stages.core.params import read_params
from stages.core.records import load_record
from stages.core.style import STYLE, png
from stages.core.tables import csv


def main() -> None:
    stage_parser("denoise", __doc__).parse_args()
    params = read_params(DenoiseParams)
    settings = params.denoise
    use_all_cores()
    clean = read_chosen("test", settings.images, settings.seed)
    classical = load_record(Classical, CLASSICAL)
    check_same(classical, clean, settings)
    methods = classical.methods + measure_models(model_paths(params), clean, settings)
    table = denoising_table(methods, classical.noise, params.compare.resamples, params.compare.seed)
    with plt.rc_context(STYLE):
        picture = png(draw_denoising(classical.images, methods, table), params.figures.dpi)
    write_all({TABLE: csv(table), FIGURE: picture, REPORT: report(table, classical).encode()})
    for name, rows in table.groupby("method", sort=False):
        levels = zip(rows["noise"], rows["psnr"], strict=True)
        print(f"{name}: psnr {', '.join(f'{value:.1f} dB at noise {noise:g}' for noise, value in levels)}")


def check_same(classical: Classical, clean: Float32, settings: Denoise) -> None:
    """Raise StageError if the classical methods have other noisy images than the models would get."""
    same = np.array_equal(classical.noise, settings.noise) and classical.seed == settings.seed
    count = classical.methods[0].squared_error.shape[1]
    if not same or count != len(clean) or not np.array_equal(classical.images, clean[: len(classical.images)]):
        raise StageError(f"{CLASSICAL} is of other images or noise than the `denoise` section; run `dvc repro`.")


def measure_models(paths: dict[str, Path], clean: Float32, settings: Denoise) -> list[Denoised]:
    """What the models in these files make of noisy images."""
    noisy = [images.reshape(len(images), -1) for images in noisy_tests(clean, settings)]
    models = {name: halves(model) for name, model in load_models(paths).items()}
    return [
        measure_denoised(MODEL, name, clean, (model.decode(model.encode(images)) for images in noisy))
        for name, model in models.items()
    ]


if __name__ == "__main__":
    run(main)
