"""Turn a photo, a scan or a drawing of a digit into an image like those of MNIST.

    digit = read_digit(Path("my_digit.jpg"), 28, 28)

The digit is separated from its paper (ink.py), then cropped, scaled and centred by mass as the
makers of MNIST did (Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied
to document recognition", Proc. IEEE 86, 1998, section III). docs/your-own-digits.md describes
the steps, the accuracy and the limits.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from stages.core.arrays import Bytes, Float32, Floats
from stages.tools.reconstruct.files import ImageFileError, grey, read_image, shrink
from stages.tools.reconstruct.ink import SOLID, Found, Ink, find_ink, ink_box, near

SIDE = 512  # pixels kept of a longer side: many more than the 20 that are needed
FAINT = 0.2  # contrast below which colour may show more than brightness
BOX = 20 / 28  # of the image's side


class Digit(NamedTuple):
    """An image file and what a model sees of it."""

    picture: Bytes  # [rows, columns, 3], the file's, upright
    image: Bytes  # [height, width] from 0 paper to 255 ink
    ink: Ink  # in the file


def read_digit(path: Path, height: int, width: int, ink: Ink | None = None) -> Digit:
    """Read an image file and bring its one digit into MNIST's form, height × width pixels.

    ink: "dark" or "light"; detected if None.
    Raises ImageFileError if the file is not a readable image or shows no ink, and OSError.
    """
    picture = read_image(path)
    side = max(SIDE, 4 * height, 4 * width)
    found = look(picture, side, ink)
    if found is None:
        raise ImageFileError(path, "the picture shows no ink that stands out from its paper.")
    if max(picture.size) > side:
        found = close_up(picture, found, side)
    shown = np.asarray(shrink(picture, side).convert("RGB"))
    return Digit(shown, centre(found.strength, height, width), found.ink)


def read_as_is(path: Path, height: int, width: int) -> Digit:
    """Read an image file that is in MNIST's form already: light ink on black, height × width pixels.

    Raises ImageFileError if the file is not a readable image or has another size, and OSError.
    """
    picture = read_image(path)
    columns, rows = picture.size
    if (rows, columns) != (height, width):
        size = f"the image has {rows}×{columns} pixels (height × width), but the model takes {height}×{width}."
        raise ImageFileError(path, size)
    return Digit(np.asarray(picture.convert("RGB")), np.asarray(picture.convert("L")), "light")


def look(picture: Image.Image, side: int, ink: Ink | None) -> Found | None:
    """The ink in a picture at no more than `side` pixels, by brightness or, where that shows little, by colour."""
    small = shrink(picture, side)
    found = None if ink == "coloured" else find_ink(grey(small), ink)
    if small.mode == "L" or (found and found.contrast >= FAINT):
        return found
    coloured = find_ink(hue(np.asarray(small)), None)
    if coloured is None or (found and coloured.contrast < 2 * found.contrast):
        return found
    return coloured._replace(ink="coloured")


def hue(pixels: Bytes) -> Float32:
    """Where pixels lie between the picture's two main colours of equal brightness: float32 [rows, columns], 0 to 1.

    pixels: [rows, columns, 3], red, green, blue.
    """
    colours = pixels / np.float32(255)
    colours -= colours @ np.array([[0.299], [0.587], [0.114]], np.float32)
    flat = colours.reshape(-1, 3) - np.median(colours, axis=(0, 1))
    axis = np.linalg.eigh(flat.T @ flat)[1][:, -1]
    between: Float32 = (0.5 + (flat @ axis).reshape(pixels.shape[:2]) / 2).clip(0, 1).astype(np.float32)
    return between


def close_up(picture: Image.Image, found: Found, side: int) -> Found:
    """Look again at the part of a large picture where ink was found, since shrinking the whole blurs small digits."""
    scale = max(picture.size) / max(found.strength.shape)
    box = ink_box(found.strength)
    margin = max(s.stop - s.start for s in box) // 2
    wider = tuple(slice(max(0, s.start - margin), s.stop + margin) for s in box)
    around = Image.fromarray(near(found.strength > SOLID)[wider])
    top, left = (int(s.start * scale) for s in wider)
    part = picture.crop((left, top, left + int(around.width * scale), top + int(around.height * scale)))
    closer = look(part, side, found.ink)
    if closer is None:
        return found
    rows, columns = closer.strength.shape
    strength = np.where(np.asarray(around.resize((columns, rows))), closer.strength, 0)
    return closer._replace(strength=strength) if strength.max() > SOLID else found


def centre(ink: Floats, height: int, width: int) -> Bytes:
    """Scale and centre ink as in MNIST: uint8 [height, width] from 0 to 255; the strongest pixel is 255.

    ink: float [rows, columns] from 0 paper to 1, of any size, with a pixel above 0.25. The content of its
    box (`ink_box`) is scaled, with its proportions, to fit 20/28 of the image, and shifted by whole pixels
    until its centre of mass lies in the pixel (height // 2, width // 2), or as near as the edges allow.
    """
    crop = ink[ink_box(ink)].astype(np.float32)
    scale = min(height * BOX / crop.shape[0], width * BOX / crop.shape[1])
    rows, columns = (max(1, round(length * scale)) for length in crop.shape)
    # Hamming does not overshoot along strokes; it is sharp when shrinking and smooth when enlarging.
    small = np.asarray(Image.fromarray(crop).resize((columns, rows), Image.Resampling.HAMMING), np.float64)
    small = small / small.max() * 255
    image = np.zeros((height, width), np.uint8)
    top, left = (
        min(max(0, size // 2 - int(np.rint(mass @ np.arange(len(mass)) / mass.sum()))), size - len(mass))
        for size, mass in ((height, small.sum(axis=1)), (width, small.sum(axis=0)))
    )
    image[top : top + rows, left : left + columns] = np.rint(small)
    return image
