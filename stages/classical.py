"""Denoise test images without a network: by wavelet shrinkage and by linear regression.

    python -m stages.classical

Reads data/prepared. Writes data/classical/denoising.npz: noisy test images, and what both methods make of
them. The regression learns from noisy training images. Noisy validation images choose the settings of both; if
prepare.validation_images is 0, noisy training images do. Loads no TensorFlow.
"""

from functools import partial

import numpy as np

from stages.applications.denoisers import CHOICES, choose
from stages.applications.denoising import (
    CLASSICAL,
    SHOWN,
    VALIDATION,
    Classical,
    add_noise,
    measure_denoised,
    noisy_tests,
    read_chosen,
)
from stages.applications.schema import Denoise, DenoiseParams
from stages.core import files
from stages.core.command import stage_parser
from stages.core.errors import run
from stages.core.evaluation import BASELINE, REFERENCE
from stages.core.params import read_params
from stages.core.records import save_record


def main() -> None:
    stage_parser("classical", __doc__).parse_args()
    params = read_params(DenoiseParams)
    # without validation images, data/prepared has the test images in their place, and those choose nothing
    split = "validation" if params.prepare.validation_images else "train"
    classical = measure_classical(params.denoise, split)
    files.write_all({CLASSICAL: partial(save_record, record=classical)})
    for method, chosen in zip(CHOICES, classical.settings, strict=True):
        print(f"{method}: {'; '.join(chosen)}")


def measure_classical(settings: Denoise, split: str) -> Classical:
    """Choose every method's setting on images of a split, for each noise, and measure it on test images."""
    clean = read_chosen("test", settings.images, settings.seed)
    held_out = read_chosen(split, settings.validation_images, settings.seed)
    train = files.read_images("train")
    levels = list(zip(settings.noise, noisy_tests(clean, settings), strict=True))
    words, measured = [], [measure_denoised(REFERENCE, "noisy image", clean, (noisy for _, noisy in levels))]
    for name, candidates in CHOICES.items():
        chosen = [
            choose(
                candidates(train, deviation, settings.seed),
                held_out,
                add_noise(held_out, deviation, settings.seed, VALIDATION),
                deviation,
            )
            for deviation in settings.noise
        ]
        words.append([denoiser.words() for denoiser in chosen])
        outputs = (denoiser.apply(noisy, level) for denoiser, (level, noisy) in zip(chosen, levels, strict=True))
        measured.append(measure_denoised(BASELINE, name, clean, outputs))
    noise = np.array(settings.noise, np.float64)
    return Classical(noise, settings.seed, clean[:SHOWN], np.array(words), measured)


if __name__ == "__main__":
    run(main)
