"""Pictures for the page: arrays as PNG, a pixel each, and back."""

import base64
import binascii
import warnings
from io import BytesIO

import numpy as np
from PIL import Image

from stages.common.arrays import Bytes, Float32, Floats
from stages.common.errors import StageError

DRAWING = 1024  # pixels of a drawing's longer side at most
PREFIX = "data:image/png;base64,"
# RdBu of ColorBrewer, as in all figures: red is ink lost, white is right, blue is ink added.
SIGNED = ((103, 0, 31), (178, 24, 43), (214, 96, 77), (244, 165, 130), (253, 219, 199), (247, 247, 247),
          (209, 229, 240), (146, 197, 222), (67, 147, 195), (33, 102, 172), (5, 48, 97))  # fmt: skip


def grey(picture: Floats) -> Bytes:
    """A picture from 0 black to 1 white as bytes of the same shape."""
    levels: Bytes = np.rint(picture.clip(0, 1) * 255).astype(np.uint8)
    return levels


def signed(errors: Floats) -> Bytes:
    """Errors from -1 to 1, [..., height, width], in colours: uint8 [..., height, width, 3]."""
    places = np.linspace(-1, 1, len(SIGNED))
    channels = [np.interp(errors, places, column) for column in np.array(SIGNED, float).T]
    colours: Bytes = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return colours


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
    except (binascii.Error, Exception) as error:  # Pillow's readers raise whatever the broken bytes lead to
        raise StageError("the drawing did not arrive as a whole picture.") from error
