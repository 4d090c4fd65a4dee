"""What is on screen, as a link and back: the model, the digit, and where its code was moved."""

import base64
import binascii
import zlib
from typing import NamedTuple
from urllib.parse import parse_qs, urlencode

import numpy as np

from stages.core.arrays import Bytes, Float32
from stages.core.errors import StageError

LONGEST = 2**18  # characters of a link; a code of thousands of numbers has less
LARGEST = 1e15  # number of a code; no model's comes near, and distances stay finite


class Scene(NamedTuple):
    """What a link restores."""

    model: str  # its name
    digit: int = 0  # position among the test images
    image: Bytes | None = None  # [height, width], of a digit that is no test image; it goes before `digit`
    code: Float32 | None = None  # [latent_dim], where the sliders are; None: the digit's own code
    start: Float32 | None = None  # [latent_dim], the frozen code that a walk begins with


def read_link(link: str, height: int, width: int, default: str) -> Scene:
    """The scene that a link's query describes; whatever else the query says is ignored.

    default: the model if the query names none. Raises StageError if the link is broken. Whether the model exists and
    codes are of its size is not looked at.
    """
    if len(link) > LONGEST:
        raise StageError("the link is too long to be one of this page's.")
    try:
        fields = parse_qs(link.removeprefix("?"), max_num_fields=100)
    except ValueError:
        raise StageError("the link has too many parts to be one of this page's.") from None
    values = {key: found[-1] for key, found in fields.items()}
    digit = values.get("digit", "0")
    if not digit.isdecimal() or len(digit) > 9:
        raise StageError(f"the test digit is {digit[:20]!r}, but has to be a whole number, 0 or above.")
    return Scene(
        values.get("model", default),
        int(digit),
        unpack_image(values["image"], height, width) if "image" in values else None,
        read_code(values["code"]) if "code" in values else None,
        read_code(values["from"]) if "from" in values else None,
    )


def write_link(scene: Scene) -> str:
    """The query that `read_link` reads, without a question mark; every number exactly."""
    values = {"model": scene.model}
    values |= {"digit": str(scene.digit)} if scene.image is None else {"image": pack_image(scene.image)}
    for key, code in (("code", scene.code), ("from", scene.start)):
        if code is not None:
            values[key] = write_code(code)
    return urlencode(values, safe=",()")


def write_code(code: Float32) -> str:
    """A code as the shortest decimal numbers that are the same in float32, with commas between."""
    return ",".join(np.format_float_positional(value, unique=True, trim="-") for value in code.astype(np.float32))


def read_code(text: str) -> Float32:
    """A code float32 [numbers] from text. Raises StageError if they are no numbers up to LARGEST."""
    try:
        code = np.array([float(part) for part in text.split(",")], np.float32)
    except (ValueError, OverflowError):
        raise StageError("the link's code is no list of numbers.") from None
    if not (np.abs(code) <= LARGEST).all():
        raise StageError(f"the link's code has numbers that are not finite, or beyond ±{LARGEST:g}.")
    return code


def pack_image(image: Bytes) -> str:
    """An image uint8 as text that may stand in a link."""
    return base64.urlsafe_b64encode(zlib.compress(image.tobytes(), 9)).decode().rstrip("=")


def unpack_image(text: str, height: int, width: int) -> Bytes:
    """The image uint8 [height, width] that was packed. Raises StageError if it is none of that size."""
    try:
        packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        content = zlib.decompressobj().decompress(packed, height * width + 1)
    except (binascii.Error, ValueError, zlib.error):
        raise StageError("the link's image is broken.") from None
    if len(content) != height * width:
        raise StageError(f"the link's image is not one of {height}×{width} pixels.")
    return np.frombuffer(content, np.uint8).reshape(height, width)
