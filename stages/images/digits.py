"""Turn a photo, a scan or a drawing of a digit into an image as MNIST has them.

    digit = read_digit(Path("my_digit.jpg"), 28, 28)

The ink is separated from the paper behind it, then cropped, scaled and centred by mass as MNIST's
makers did (Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to
document recognition", Proc. IEEE 86, 1998, section III). docs/your-own-digits.md gives the
steps, how near the result comes, and what this cannot do.
"""

import sys
import warnings
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from stages.core.arrays import Bytes, Float32, Floats
from stages.core.errors import StageError

Ink = Literal["dark", "light"]

# Pillow's other readers are rare, and one of them (EPS) starts an interpreter.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
SIDE = 512  # pixels kept of a longer side: many more than the 20 that are wanted
COARSE = 64  # pixels of the longer side on which the paper is judged
DEGREE = 4
EVEN = 0.01  # share of the image's contrast within which half of an even paper's border lies
FAINTEST = 0.08  # of the range from black to white; anything fainter is the paper's own texture
RESTLESS = 0.8  # of the ink's level; paper that strays as far to the other side hides any ink
BOX = 20 / 28  # of the image's side


class Digit(NamedTuple):
    """An image file and what a model is to see of it."""

    grey: Float32  # [rows, columns] from 0 black to 1 white, upright, as in the file otherwise
    image: Bytes  # [height, width] from 0 paper to 255 ink
    ink: Ink  # what the ink was in the file


def read_digit(path: Path, height: int, width: int, ink: Ink | None = None) -> Digit:
    """Read an image file and bring its one digit into MNIST's form, height × width pixels.

    ink: whether it is dark or light; found out if None.
    Raises StageError, naming the file, if it is no readable image or shows no ink, and OSError.
    """
    grey = read_grey(path, max(SIDE, 4 * height, 4 * width))
    try:
        strength, ink = find_ink(grey, ink)
    except StageError as error:
        raise StageError(f"{path} {error}") from None
    return Digit(grey, centre(strength, height, width), ink)


def read_as_is(path: Path, height: int, width: int) -> Digit:
    """Read an image file that is in MNIST's form already: light ink on black, height × width pixels.

    Raises StageError, naming the file, if it is no readable image or of another size, and OSError.
    """
    grey = read_grey(path, sys.maxsize)
    if grey.shape != (height, width):
        raise StageError(
            f"{path} has {grey.shape[0]}×{grey.shape[1]} pixels (height × width), but an image taken as it is has "
            f"to have the model's {height}×{width}."
        )
    return Digit(grey, np.rint(grey * 255).astype(np.uint8), "light")


def read_grey(path: Path, side: int = SIDE) -> Float32:
    """An image file in grey: float32 [rows, columns] from 0 black to 1 white.

    Upright as its EXIF orientation says, the first of several frames, at most `side` pixels
    on the longer side. What is transparent shows white paper, or black where nothing would
    be seen on white.
    Raises StageError, naming the file, if it is not a whole image or has more pixels than
    Pillow considers safe, and OSError if it cannot be opened.
    """
    with open(path, "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow's, on oddities that do no harm
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        if not file.read(1):
            raise StageError(f"{path} is empty.")
        file.seek(0)
        try:
            with Image.open(file, formats=FORMATS) as image:
                image.load()
                return _grey(ImageOps.exif_transpose(image), side)
        except UnidentifiedImageError:
            heic = " (save HEIC photos as JPEG)" if path.suffix.lower() in (".heic", ".heif") else ""
            kinds = ", ".join(FORMATS)
            raise StageError(
                f"{path} is no image, or a broken one, of a kind that can be read: {kinds}{heic}."
            ) from None
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise StageError(
                f"{path} has more than {Image.MAX_IMAGE_PIXELS} pixels, which may be an attack on this machine's "
                "memory; make it smaller."
            ) from None
        except Exception as error:  # Pillow's readers raise whatever the broken bytes lead to
            reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
            raise StageError(f"{path} is not a whole image ({reason}).") from None


def _grey(image: Image.Image, side: int) -> Float32:
    """A loaded image as read_grey gives it."""
    if image.mode == "F" or image.mode.startswith("I"):  # more than 8 bits; Pillow would clip them
        values = np.asarray(image).astype(np.float64)
        if not np.isfinite(values).all():
            raise ValueError("it has pixels that are not a number")
        largest = max(1.0 if image.mode == "F" else 65535.0, values.max())
        return _shrunk((values / largest).clip(0, 1).astype(np.float32), side)
    if not image.has_transparency_data:
        return _scaled(_shrunk_image(image.convert("L"), side))
    layers = _shrunk_image(image.convert("RGBA"), side)
    on_white, on_black = (
        _scaled(Image.alpha_composite(Image.new("RGBA", layers.size, colour), layers).convert("L"))
        for colour in ("white", "black")
    )
    return on_white if np.ptp(on_white) >= FAINTEST else on_black


def _scaled(image: Image.Image) -> Float32:
    """A grey image of 8 bits as float32 [rows, columns] from 0 to 1."""
    return np.asarray(image).astype(np.float32) / np.float32(255)


def _shrunk_image(image: Image.Image, side: int) -> Image.Image:
    """The image with at most `side` pixels on its longer side, each the mean of those it replaces."""
    scale = side / max(image.size)
    if scale >= 1:
        return image
    columns, rows = (max(1, round(length * scale)) for length in image.size)
    return image.resize((columns, rows), Image.Resampling.BOX)


def _shrunk(grey: Float32, side: int) -> Float32:
    """The same for float32 [rows, columns]."""
    return np.asarray(_shrunk_image(Image.fromarray(grey), side))


def find_ink(grey: Floats, ink: Ink | None = None) -> tuple[Float32, Ink]:
    """Tell ink from paper: (float32 [rows, columns] from 0 paper to 1 ink, whether the ink is dark or light).

    grey: float [rows, columns] in [0, 1]. ink: decided here if None.
    Raises StageError if no ink stands out.
    """
    coarse = _shrunk(grey.astype(np.float32), COARSE)
    paper = paper_brightness(coarse)
    found: Ink = "light" if np.power(coarse - paper, 3).sum() > 0 else "dark"
    if ink not in (None, found):  # then what looks like paper is ink, and the rest is paper
        paper = np.full_like(paper, np.percentile(coarse, 95 if ink == "dark" else 5))
    ink = ink or found
    rows, columns = grey.shape
    paper = np.asarray(Image.fromarray(paper).resize((columns, rows), Image.Resampling.BICUBIC))
    light = (paper / max(float(np.median(paper)), 1e-3)).clip(0.25)  # it shines on the ink, too
    deviation = (grey - paper if ink == "light" else paper - grey) / light

    strength = deviation.clip(0)
    beyond = strength[strength > otsu(strength)]
    level = np.percentile(beyond, 75) if beyond.size else 0
    if level < FAINTEST:
        raise StageError("shows no ink, only paper.")
    # Paper strays from its fitted brightness to both sides alike, and on the side without ink it is seen alone.
    unrest = np.percentile((-deviation).clip(0), 99.5) / level
    if unrest > RESTLESS:
        raise StageError("shows no ink that stands out from its paper; one digit alone on even paper does.")
    return ((strength / level - unrest) / (1 - unrest)).clip(0, 1).astype(np.float32), ink


def paper_brightness(grey: Floats) -> Float32:
    """The brightness of the paper behind the ink: float32, of the shape of `grey`, float [rows, columns] in [0, 1].

    One value if the border is even, else the polynomial of DEGREE in x and y that deviates
    least from the image in sum of absolute values, found by reweighted least squares.
    """
    border = np.ones(grey.shape, bool)
    border[1:-1, 1:-1] = False
    middle = np.median(grey[border])
    if np.mean(np.abs(grey[border] - middle) <= EVEN * np.ptp(grey)) >= 0.5:
        return np.full(grey.shape, middle, np.float32)
    y, x = (axis.ravel() for axis in np.meshgrid(*(np.linspace(-1, 1, n) for n in grey.shape), indexing="ij"))
    terms = np.stack([x**i * y**j for i in range(DEGREE + 1) for j in range(DEGREE + 1 - i)], axis=1)
    target, weights = grey.ravel().astype(np.float64), np.ones(grey.size)
    for _ in range(12):
        weighted = terms.T * weights
        fitted = terms @ np.linalg.lstsq(weighted @ terms, weighted @ target, rcond=None)[0]
        weights = 1 / np.maximum(np.abs(target - fitted), 1e-3)
    return fitted.reshape(grey.shape).astype(np.float32)


def otsu(values: Floats) -> float:
    """The threshold that parts values, at least 0, into the two classes with the smallest variance within them."""
    counts, edges = np.histogram(values, 256, (0, max(values.max(), 1e-6)))
    sums = counts * (edges[1:] + edges[:-1]) / 2
    below, total = np.cumsum(counts)[:-1], counts.sum()
    mean_below = np.cumsum(sums)[:-1] / np.maximum(below, 1)
    mean_above = (sums.sum() - np.cumsum(sums)[:-1]) / np.maximum(total - below, 1)
    return float(edges[1:-1][np.argmax(below * (total - below) * (mean_above - mean_below) ** 2)])


def ink_box(ink: Floats) -> tuple[slice, slice]:
    """Rows and columns of the smallest box around the ink, float [rows, columns] from 0 paper to 1.

    Ink fainter than a quarter doesn't count, nor the last thousandth at every edge.
    Raises StageError if there is none.
    """
    solid = np.where(ink > 0.25, ink, 0)
    total = solid.sum()
    if total == 0:
        raise StageError("shows no ink, only paper.")
    rows, columns = (
        slice(int(np.searchsorted(share, 0.001, "right")), int(np.searchsorted(share, 0.999)) + 1)
        for share in (np.cumsum(solid.sum(axis=axis)) / total for axis in (1, 0))
    )
    return rows, columns


def centre(ink: Floats, height: int, width: int) -> Bytes:
    """Scale and centre ink as MNIST does: uint8 [height, width] from 0 to 255, of which the strongest pixel is 255.

    ink: float [rows, columns] from 0 paper to 1, of any size. What is in its box (`ink_box`)
    is scaled, with its shape kept, to fit 20/28 of the image, and shifted by whole pixels
    until its centre of mass lies in the pixel (height // 2, width // 2), as it does in
    MNIST's images, or as near as the image's edge lets it.
    Raises StageError if there is no ink.
    """
    crop = ink[ink_box(ink)].astype(np.float32)
    scale = min(height * BOX / crop.shape[0], width * BOX / crop.shape[1])
    rows, columns = (max(1, round(length * scale)) for length in crop.shape)
    # No overshoot beside strokes, sharp when shrinking and smooth when enlarging.
    small = np.asarray(Image.fromarray(crop).resize((columns, rows), Image.Resampling.HAMMING), np.float64)
    small = small / small.max() * 255
    image = np.zeros((height, width), np.uint8)
    top, left = (
        min(max(0, size // 2 - int(np.rint(mass @ np.arange(len(mass)) / mass.sum()))), size - len(mass))
        for size, mass in ((height, small.sum(axis=1)), (width, small.sum(axis=0)))
    )
    image[top : top + rows, left : left + columns] = np.rint(small)
    return image
