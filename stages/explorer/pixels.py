"""Pictures for the page: arrays as PNG, a pixel each, and back."""

import base64
import warnings
from io import BytesIO

import matplotlib
import numpy as np
from PIL import Image

from stages.core.arrays import Bytes, Float32, Floats
from stages.core.errors import StageError
from stages.core.style import SIGNED

DRAWING = 1024  # pixels of a drawing's longer side at most
PREFIX = "data:image/png;base64,"


def grey(picture: Floats) -> Bytes:
    """A picture from 0 black to 1 white as bytes of the same shape."""
    levels: Bytes = np.rint(picture.clip(0, 1) * 255).astype(np.uint8)
    return levels


def signed(errors: Floats) -> Bytes:
    """Errors from -1 to 1, [..., height, width], in colours: uint8 [..., height, width, 3]."""
    colours: Bytes = matplotlib.colormaps[SIGNED["cmap"]]((errors + 1) / 2, bytes=True)
    return colours[..., :3]


def png_bytes(picture: Bytes) -> bytes:
    """A picture uint8 [height, width] or [height, width, 3] as a PNG file."""
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def data_uri(picture: Bytes) -> str:
    """The same as an address that holds the picture itself."""
    return PREFIX + base64.b64encode(png_bytes(picture)).decode()


def sprite(pictures: Bytes) -> Bytes:
    """Pictures uint8 [rows, columns, height, width] side by side in one: [rows * height, columns * width]."""
    rows, columns, height, width = pictures.shape
    return pictures.swapaxes(1, 2).reshape(rows * height, columns * width)


def read_drawing(uri: object) -> Float32:
    """A drawing that the page sends, as grey float32 [rows, columns] from 0 black to 1 white.

    Raises StageError if it is no such drawing.
    """
    if not isinstance(uri, str) or not uri.startswith(PREFIX):
        raise StageError("the drawing did not arrive as a picture.")
    try:
        content = base64.b64decode(uri[len(PREFIX) :], validate=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(BytesIO(content), formats=["PNG"]) as image:
                if max(image.size) > DRAWING:
                    raise StageError(f"the drawing has more than {DRAWING} pixels on a side.")
                return np.asarray(image.convert("L")).astype(np.float32) / np.float32(255)
    except StageError:
        raise
    except Exception as error:  # Pillow's readers raise whatever the broken bytes lead to
        raise StageError("the drawing did not arrive as a whole picture.") from error
