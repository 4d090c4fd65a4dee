"""Read an image file of any common kind."""

import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from stages.core.arrays import Float32
from stages.core.errors import StageError, reason

# Pillow's other readers are rare, and one of them (EPS) starts an interpreter.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
LARGEST = 4096  # pixels of the longer side; larger images are shrunk at once to save memory
VISIBLE = 20  # of 255 grey levels


class ImageFileError(StageError):
    """An image file that cannot be used: its path, and the problem as a sentence of its own."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.problem = problem


def read_image(path: Path) -> Image.Image:
    """The first picture in an image file, upright as EXIF says, in mode L or RGB.

    Transparent pixels become white paper, or black paper if nothing would be visible on white.
    Raises ImageFileError if the file is not a complete image or has more pixels than Pillow
    considers safe, and OSError if it cannot be opened.
    """
    with open(path, "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about harmless oddities
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        if not file.read(1):
            raise ImageFileError(path, "the file is empty.")
        file.seek(0)
        try:
            return _decode(file)
        except UnidentifiedImageError:
            allowed = f"allowed are {', '.join(FORMATS)}; save HEIC photos as JPEG."
            raise ImageFileError(path, f"the file is not an image of a known kind; {allowed}") from None
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            limit = f"the image has more than {Image.MAX_IMAGE_PIXELS} pixels; make it smaller."
            raise ImageFileError(path, limit) from None
        except Exception as error:  # Pillow's readers raise whatever the broken bytes lead to
            raise ImageFileError(path, f"the image is damaged or incomplete ({reason(error)}).") from None


def _decode(file: BinaryIO) -> Image.Image:
    """`read_image` for an open file; raises whatever Pillow raises."""
    with Image.open(file, formats=FORMATS) as opened:
        opened.load()
        image = ImageOps.exif_transpose(opened)
    if image.mode == "F" or image.mode.startswith("I"):
        image = _to_8_bits(image)
    transparent = image.has_transparency_data
    if transparent or image.mode not in ("L", "RGB"):
        image = image.convert("RGBA" if transparent else "RGB")
    image = shrink(image, LARGEST)
    return _on_paper(image) if transparent else image


def _to_8_bits(image: Image.Image) -> Image.Image:
    """An image of 16 or 32 bits, or of floats, in mode L; Pillow itself would clip the values."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("some pixels are not numbers")
    largest = max(1.0 if image.mode == "F" else 65535.0, values.max())
    return Image.fromarray(np.rint((values / largest).clip(0, 1) * 255).astype(np.uint8))


def _on_paper(image: Image.Image) -> Image.Image:
    on_white, on_black = (
        Image.alpha_composite(Image.new("RGBA", image.size, paper), image).convert("RGB")
        for paper in ("white", "black")
    )
    return on_white if np.ptp(np.asarray(on_white.convert("L"))) >= VISIBLE else on_black


def shrink(image: Image.Image, side: int) -> Image.Image:
    """The image with at most `side` pixels on its longer side, each the mean of the pixels it replaces."""
    scale = side / max(image.size)
    if scale >= 1:
        return image
    columns, rows = (max(1, round(length * scale)) for length in image.size)
    return image.resize((columns, rows), Image.Resampling.BOX)


def grey(image: Image.Image) -> Float32:
    """Brightness, float32 [rows, columns] from 0 black to 1 white."""
    return np.asarray(image.convert("L")).astype(np.float32) / np.float32(255)
