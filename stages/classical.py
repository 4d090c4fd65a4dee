"""What needs no training: denoise test images by classical methods, and classify them with few labels by pixels.

    python -m stages.classical

Reads data/prepared and writes data/classical/denoising.npz: noisy test images, and what non-local means,
total variation and wavelets make of them, as scikit-image has these. Their settings are chosen on noisy
validation images. Writes data/classical/labels.npz, too: how many test images a few labels tell by their pixels.
Needs no TensorFlow.
"""

import numpy as np

from stages.applications.classifiers import measure_labels
from stages.applications.denoisers import CHOICES, choose
from stages.applications.denoising import (
    METHODS,
    SHOWN,
    VALIDATION,
    Classical,
    add_noise,
    digest_noisy,
    measure_denoised,
    noisy_tests,
    read_chosen,
)
from stages.applications.labels import PixelLabels, read_task
from stages.applications.schema import ApplicationParams, Apply
from stages.core import files
from stages.core.command import parse_no_arguments
from stages.core.errors import run
from stages.core.params import read_params
from stages.core.records import save_record


def main() -> None:
    parse_no_arguments("classical", __doc__)
    settings = read_params(ApplicationParams).apply
    classical = measure_classical(settings)
    pixels = measure_pixels(settings)
    with files.replacing_all([files.CLASSICAL, files.PIXEL_LABELS]) as (denoising, labels):
        save_record(denoising, classical)
        save_record(labels, pixels)
    for method, chosen in zip(METHODS.values(), classical.settings, strict=True):
        print(f"{method}: {'; '.join(chosen)}")


def measure_classical(settings: Apply) -> Classical:
    """Choose every method's setting on validation images, for each noise, and measure it on test images."""
    clean = read_chosen("test", settings.images, settings.seed)
    held_out = read_chosen("validation", settings.validation_images, settings.seed)
    levels = list(zip(settings.noise, noisy_tests(clean, settings), strict=True))
    words, measured = [], {}
    for method, denoisers in CHOICES.items():
        chosen = [
            choose(denoisers, held_out, add_noise(held_out, deviation, settings.seed, VALIDATION), deviation)
            for deviation in settings.noise
        ]
        words.append([denoiser.setting for denoiser in chosen])
        given = (denoiser.apply(noisy, level) for denoiser, (level, noisy) in zip(chosen, levels, strict=True))
        measured[method] = measure_denoised(clean, given)
    return Classical(
        digest=digest_noisy(noisy for _, noisy in levels),
        noise=np.array(settings.noise, np.float64),
        images=clean[:SHOWN],
        settings=np.array(words),
        noisy=measure_denoised(clean, (noisy for _, noisy in levels)),
        **measured,
    )


def measure_pixels(settings: Apply) -> PixelLabels:
    """What few labels do with the pixels themselves."""
    task = read_task(settings)
    measured = measure_labels(lambda images: images, task, settings)
    return PixelLabels(task.numbers, len(task.candidates.labels), measured)


if __name__ == "__main__":
    run(main)
