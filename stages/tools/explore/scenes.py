"""What is on screen as the fields of a link, and back."""

import base64
import binascii
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from stages.core.arrays import Bytes, Float32
from stages.core.errors import StageError

LARGEST = 1e15  # in a code; no model's numbers come near, and distances stay finite


class Scene(NamedTuple):
    """What a link restores."""

    model: str
    digit: int = 0  # position among the test images
    image: Bytes | None = None  # [height, width], if the digit isn't a test image; takes precedence over `digit`
    code: Float32 | None = None  # [latent_dim], where the sliders are; None: the digit's own code
    start: Float32 | None = None  # [latent_dim], the frozen code that a walk starts from


def read_scene(fields: Mapping[str, str], height: int, width: int, default: str) -> Scene:
    """Parse the fields of a link; ignores fields that it doesn't know.

    default: the model if the link names none. Raises StageError if a field is broken. Doesn't check whether the model
    exists and whether the codes fit it.
    """
    digit = fields.get("digit", "0")
    if not digit.isdecimal() or len(digit) > 9:
        raise StageError(f"the test digit is {digit[:20]!r}, but must be a whole number from 0.")
    return Scene(
        fields.get("model", default),
        int(digit),
        unpack_image(fields["image"], height, width) if "image" in fields else None,
        read_code(fields["code"]) if "code" in fields else None,
        read_code(fields["from"]) if "from" in fields else None,
    )


def write_scene(scene: Scene) -> dict[str, str]:
    """The fields that `read_scene` parses, with every number exact."""
    fields = {"model": scene.model}
    fields |= {"digit": str(scene.digit)} if scene.image is None else {"image": pack_image(scene.image)}
    codes = {"code": scene.code, "from": scene.start}
    return fields | {key: write_code(code) for key, code in codes.items() if code is not None}


def write_code(code: Float32) -> str:
    """The shortest decimal numbers that are the same in float32, separated by commas."""
    return ",".join(np.format_float_positional(value, unique=True, trim="-") for value in code.astype(np.float32))


def read_code(text: str) -> Float32:
    """A code as float32 [numbers]. Raises StageError if the text isn't a list of numbers up to LARGEST."""
    try:
        code = np.array([float(part) for part in text.split(",")])
    except ValueError:
        raise StageError(f"the link's code is {text[:20]!r}, but must be a list of numbers.") from None
    if not (np.abs(code) <= LARGEST).all():
        raise StageError(f"the link's code has numbers that are not finite, or beyond ±{LARGEST:g}.")
    return code.astype(np.float32)


def pack_image(image: Bytes) -> str:
    """An image uint8 as text for a link."""
    return base64.urlsafe_b64encode(zlib.compress(image.tobytes(), 9)).decode().rstrip("=")


def unpack_image(text: str, height: int, width: int) -> Bytes:
    """The image uint8 [height, width]. Raises StageError if the text isn't a packed image of that size."""
    try:
        packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        content = zlib.decompressobj().decompress(packed, height * width + 1)
    except (binascii.Error, ValueError, zlib.error):
        raise StageError("the link's image is broken.") from None
    if len(content) != height * width:
        raise StageError(f"the link's image must have {height}×{width} pixels.")
    return np.frombuffer(content, np.uint8).reshape(height, width)
