"""Arrays as PNG pictures for the page, one pixel per number."""

import base64
from io import BytesIO

import matplotlib
import numpy as np
from PIL import Image

from stages.core.arrays import Bytes, Float32, Floats
from stages.core.errors import StageError
from stages.core.style import SIGNED

LARGEST_DRAWING = 1024  # pixels on a side


def grey(picture: Floats) -> Bytes:
    """A picture from 0 black to 1 white as bytes of the same shape."""
    levels: Bytes = np.rint(picture.clip(0, 1) * 255).astype(np.uint8)
    return levels


def signed(errors: Floats) -> Bytes:
    """Errors [height, width] from -1 to 1 as colours, uint8 [height, width, 3]: red is too dark, blue too bright."""
    colours: Bytes = matplotlib.colormaps[SIGNED["cmap"]]((errors + 1) / 2, bytes=True)
    return colours[..., :3]


def png_bytes(picture: Bytes) -> bytes:
    """A picture uint8 [height, width] or [height, width, 3] as a PNG file."""
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def data_uri(picture: Bytes) -> str:
    """The PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(picture)).decode()


def read_drawing(content: bytes) -> Float32:
    """A drawing, a PNG file, as float32 [rows, columns] from 0 black to 1 white. Raises StageError if it's unusable."""
    try:
        with Image.open(BytesIO(content), formats=["PNG"]) as image:
            if max(image.size) > LARGEST_DRAWING:
                raise StageError(
                    f"the drawing has {max(image.size)} pixels on a side, but at most {LARGEST_DRAWING} fit."
                )
            drawing = np.asarray(image.convert("L")).astype(np.float32) / np.float32(255)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # from Pillow, if bytes are broken
        raise StageError("the drawing is not a complete PNG picture.") from None
    if drawing.max() < 0.5:
        raise StageError("the drawing is empty.")
    return drawing
