"""Denoising: noisy images, and how well a method restores them.

Every method gets the same noisy test images, and its outputs are clipped to [0, 1] as they are.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stages.applications.charts import INK, name_ends
from stages.applications.schema import Denoise
from stages.core.arrays import Float32, Float64, Floats
from stages.core.comparison import PERCENTILES, bootstrap_means
from stages.core.evaluation import MODEL
from stages.core.files import read_images
from stages.core.measures import psnr, squared_error, ssim
from stages.core.style import COLOURS, colours, show_rows
from stages.core.tables import interval, markdown

CLASSICAL = Path("data/classical/denoising.npz")
TABLE, FIGURE, REPORT = Path("plots/denoising.csv"), Path("plots/denoising.png"), Path("metrics/denoising.md")
SHOWN = 8  # images in the figure
TEST, VALIDATION, TRAINING = 0, 1, 2  # streams of random numbers; from TRAINING on, one a block of images


@dataclass(frozen=True, eq=False)
class Denoised:
    """What one method makes of the noisy test images."""

    kind: str  # MODEL, BASELINE or REFERENCE
    name: str  # to display
    squared_error: Float64  # [noise, images], from the clean image, summed over pixels
    ssim: Float64  # [noise, images], to the clean image
    pictures: Float32  # [noise, SHOWN, height, width], of the first images


@dataclass(frozen=True, eq=False)
class Classical:
    """What does not depend on a model: the noisy test images, and what methods without a network make of them."""

    noise: Float64  # [noise], standard deviations
    seed: int  # of the noise and of the choice of images
    images: Float32  # [SHOWN, height, width], the first images without noise
    settings: NDArray[np.str_]  # [methods without a network, noise], what was chosen, in words
    methods: list[Denoised]  # the noisy images, then these methods


def read_chosen(split: str, count: int, seed: int) -> Float32:
    """At most `count` images of a split, chosen at random: float32 [images, height, width] in [0, 1].

    Raises StageError as `read_images` does.
    """
    images = read_images(split)
    chosen = np.random.default_rng(seed).permutation(len(images))[:count]
    return np.divide(images[np.sort(chosen)], np.float32(255), dtype=np.float32)


def add_noise(images: Float32, deviation: float, seed: int, stream: int) -> Float32:
    """Images float32 [images, height, width] with Gaussian noise of this standard deviation, clipped to [0, 1].

    The noise of one seed and stream differs between deviations by their factor only.
    """
    noise = np.random.default_rng((seed, stream)).standard_normal(images.shape, np.float32)
    return (images + np.float32(deviation) * noise).clip(0, 1)


def noisy_tests(clean: Float32, settings: Denoise) -> Iterator[Float32]:
    """The test images `clean` float32 [images, height, width], once with each noise of params.yaml."""
    return (add_noise(clean, deviation, settings.seed, TEST) for deviation in settings.noise)


def measure_denoised(kind: str, name: str, clean: Float32, outputs: Iterable[Floats]) -> Denoised:
    """Measure what a method makes of noisy images, for each noise.

    clean: float32 [images, height, width]. outputs: of the same number of values each, clipped to [0, 1] here.
    """
    errors, similarities, pictures = [], [], []
    for images in outputs:
        result = images.reshape(clean.shape).clip(0, 1)
        errors.append(squared_error(clean.reshape(len(clean), -1), result.reshape(len(clean), -1)))
        similarities.append(ssim(clean, result))
        pictures.append(result[:SHOWN].astype(np.float32))
    return Denoised(kind, name, np.stack(errors), np.stack(similarities), np.stack(pictures))


def denoising_table(methods: list[Denoised], noise: Float64, resamples: int, seed: int) -> pd.DataFrame:
    """PSNR and SSIM of every method at every noise, with the ends of their 95 % intervals.

    Columns: method, kind, noise, psnr, psnr_low, psnr_high, ssim, ssim_low, ssim_high. PSNR is that of the mean
    squared error over images; the bootstrap draws images, the same ones for every method.
    """
    rows = []
    for method in methods:
        pixels = method.pictures[0, 0].size
        for deviation, errors, similarities in zip(noise, method.squared_error, method.ssim, strict=True):
            means = bootstrap_means(np.stack([errors / pixels, similarities], axis=1), resamples, seed)
            (high_error, high_ssim), (low_error, low_ssim) = np.percentile(means, PERCENTILES[::-1], axis=0)
            rows.append(
                {
                    "method": method.name,
                    "kind": method.kind,
                    "noise": deviation,
                    "psnr": psnr(errors.mean() / pixels),
                    "psnr_low": psnr(high_error),
                    "psnr_high": psnr(low_error),
                    "ssim": similarities.mean(),
                    "ssim_low": low_ssim,
                    "ssim_high": high_ssim,
                }
            )
    return pd.DataFrame(rows)


def report(table: pd.DataFrame, classical: Classical) -> str:
    """How well noise is removed from test images, in Markdown. table: as `denoising_table` returns it."""
    noise = [f"{deviation:g}" for deviation in classical.noise]
    noisy, *others = classical.methods
    settings = [[method.name, *chosen] for method, chosen in zip(others, classical.settings, strict=True)]

    def measured(measure: str) -> str:
        rows = [
            [method, *(interval(*row) for row in group[[measure, f"{measure}_low", f"{measure}_high"]].to_numpy())]
            for method, group in table.groupby("method", sort=False)
        ]
        return markdown([f"`{measure}`", *noise], rows)

    return f"""\
# Denoising

{noisy.squared_error.shape[1]} test images with Gaussian noise of these standard deviations, denoised and compared with
the clean ones, with 95 % intervals. [docs/denoising.md](../docs/denoising.md) explains the methods.

{measured("psnr")}

{measured("ssim")}

Noisy validation images choose the settings of the methods without a network, and how their output x is corrected;
σ is the noise.

{markdown(["noise", *noise], settings)}
"""


def draw_denoising(images: Float32, methods: list[Denoised], table: pd.DataFrame) -> Figure:
    """Digits, noisy and denoised by each method, and PSNR against the noise.

    images: float32 [images, height, width], without noise. methods: the noisy images first. table: as
    `denoising_table` returns it. The digits have the middle one of its noises.
    """
    noise = np.sort(table["noise"].unique())
    level = len(noise) // 2
    at = list(dict.fromkeys(table["noise"])).index(noise[level])
    rows = [images, *(method.pictures[at] for method in methods)]
    figure, (ax, chart) = plt.subplots(1, 2, figsize=(9.6, 4.1), layout="constrained", width_ratios=(1, 1.25))
    show_rows(ax, np.stack(rows), ["original", *(method.name for method in methods)])
    ax.set_title(f"noise of standard deviation {noise[level]:g}")

    palette = {methods[0].name: INK} | method_colours(methods[1:])
    last: dict[str, tuple[float, float, str]] = {}
    for name, colour in palette.items():
        curve = table[table["method"] == name].sort_values("noise")
        ends = [curve["psnr"] - curve["psnr_low"], curve["psnr_high"] - curve["psnr"]]
        chart.errorbar(
            curve["noise"], curve["psnr"], ends, marker="o", markersize=3, capsize=2, label=name, color=colour
        )
        last[name] = (noise[-1], curve["psnr"].iloc[-1], colour)
    chart.set_xticks(noise, [f"{deviation:g}" for deviation in noise])
    chart.set(xlabel="standard deviation of the noise", ylabel="PSNR in dB, with 95 % intervals")
    chart.set_title("PSNR: higher is better", loc="left")
    name_ends(chart, last)
    figure.suptitle("Noisy test digits, and what each method makes of them")
    return figure


def method_colours(methods: list[Denoised]) -> dict[str, str]:
    """The palette from its start for models, as on all pages, and from its end for methods without a network."""
    models = colours(method.name for method in methods if method.kind == MODEL)
    others = [method.name for method in methods if method.kind != MODEL]
    return dict(zip(others, cycle(reversed(COLOURS)), strict=False)) | models
