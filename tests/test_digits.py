"""Photos, scans and drawings of real digits come back as MNIST has them, and anything else is refused."""

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from stages.core.errors import StageError
from stages.images.digits import (
    SIDE,
    Ink,
    centre,
    find_ink,
    ink_box,
    otsu,
    paper_brightness,
    read_as_is,
    read_digit,
    read_grey,
)

pytestmark = pytest.mark.quick

MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
INKS: tuple[Ink, Ink] = ("dark", "light")
Mnist = dict[str, tuple[np.ndarray, np.ndarray]]


def enlarged(digit: np.ndarray, size: int) -> Image.Image:
    """A digit, uint8 [28, 28], as a drawing program would show it: size × size pixels, light on black."""
    return Image.fromarray(digit).resize((size, size), Image.Resampling.BICUBIC)


def photo(rng: np.random.Generator, digit: np.ndarray, shading: str, ink: str) -> np.ndarray:
    """A digit somewhere on a sheet, badly lit and noisy: float32 [240, 320] in [0, 1]."""
    height, width, size = 240, 320, int(rng.integers(100, 220))
    top, left = rng.integers(0, height - size), rng.integers(0, width - size)
    strength = np.zeros((height, width))
    strength[top : top + size, left : left + size] = np.asarray(enlarged(digit, size)) / 255
    sheet = 0.9 - 0.65 * strength if ink == "dark" else 0.15 + 0.65 * strength
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    angle = rng.uniform(0, 2 * np.pi)
    light = {
        "even": 1,
        "from one side": 0.75 + 0.25 * (np.cos(angle) * x + np.sin(angle) * y) / np.sqrt(2),
        "vignette": 1 - 0.2 * (x**2 + y**2),
    }[shading]
    noisy: np.ndarray = (sheet * light + rng.normal(0, 0.02, sheet.shape)).clip(0, 1).astype(np.float32)
    return noisy


def difference(image: np.ndarray, digit: np.ndarray) -> float:
    """Mean absolute difference, of 255. Between MNIST's images and the same one pixel further it is 17."""
    return float(np.abs(image.astype(float) - digit).mean())


# --- MNIST's form --------------------------------------------------------------------------


def test_mnists_own_images_stay_as_they_are(mnist: Mnist) -> None:
    differences = [difference(centre(digit / 255, 28, 28), digit) for digit in mnist["train"][0]]
    assert np.median(differences) < 0.1
    assert np.mean(differences) < 1
    assert np.mean(np.array(differences) > 10) < 0.03


@pytest.mark.parametrize("ink", ["dark", "light"])
def test_enlarged_digits_come_back_and_their_ink_is_found(mnist: Mnist, ink: str) -> None:
    differences = []
    for digit in mnist["train"][0][:200]:
        grey = np.asarray(enlarged(digit, 280)) / np.float32(255)
        strength, found = find_ink(1 - grey if ink == "dark" else grey)
        assert found == ink
        differences.append(difference(centre(strength, 28, 28), digit))
    assert np.median(differences) < 7
    assert np.mean(differences) < 9


@pytest.mark.parametrize("shading", ["even", "from one side", "vignette"])
@pytest.mark.parametrize("ink", ["dark", "light"])
def test_photos_of_digits_come_back(mnist: Mnist, ink: str, shading: str) -> None:
    rng = np.random.default_rng(0)
    differences = []
    for digit in mnist["train"][0][:30]:
        strength, found = find_ink(photo(rng, digit, shading, ink))
        assert found == ink
        differences.append(difference(centre(strength, 28, 28), digit))
    assert np.median(differences) < 8


def test_the_centre_of_mass_lies_where_mnists_does(mnist: Mnist) -> None:
    for digit in mnist["train"][0][:50]:
        moved = np.zeros((90, 140))
        moved[50:78, 3:31] = digit / 255
        image = centre(moved, 28, 28).astype(float)
        for axis in (0, 1):
            mass = image.sum(axis=axis)
            assert abs((mass * np.arange(28)).sum() / mass.sum() - 14) <= 0.51


@MANY
@given(
    ink=arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.floats(0, 1, width=32)),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
)
def test_any_ink_is_centred_in_any_size(ink: np.ndarray, height: int, width: int) -> None:
    if not (ink > 0.25).any():
        with pytest.raises(StageError, match="shows no ink"):
            centre(ink, height, width)
        return
    image = centre(ink, height, width)
    assert image.shape == (height, width)
    assert image.dtype == np.uint8
    assert image.max() == 255


def test_specks_do_not_widen_the_box() -> None:
    ink = np.zeros((200, 200))
    ink[60:140, 80:120] = 1
    clean = ink_box(ink)
    assert clean == (slice(60, 140), slice(80, 120))
    ink[3, 5] = ink[198, 190] = ink[100, 0] = 1
    assert ink_box(ink) == clean


def test_otsu_parts_two_classes() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0.2, 0.03, 900), rng.normal(0.8, 0.03, 100)]).clip(0)
    assert (values > otsu(values)).sum() == 100


def test_a_gradient_is_paper() -> None:
    y, x = np.meshgrid(np.linspace(0, 1, 50), np.linspace(0, 1, 70), indexing="ij")
    light = (0.4 + 0.3 * x + 0.2 * y**2).astype(np.float32)
    sheet = light.copy()
    sheet[20:30, 30:40] = 0.1
    np.testing.assert_allclose(paper_brightness(sheet), light, atol=0.005)


# --- files ---------------------------------------------------------------------------------


def test_exif_orientation(mnist: Mnist, tmp_path: Path) -> None:
    """All eight orientations of a JPEG show the same digit."""
    digit = mnist["train"][0][0]  # a 5, which no rotation or reflection leaves as it is
    drawing = Image.fromarray(255 - np.asarray(enlarged(digit, 200)))
    stored = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    for orientation, transposition in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = drawing if transposition is None else drawing.transpose(transposition)
        image.save(tmp_path / "x.jpg", exif=exif, quality=95)
        assert difference(read_digit(tmp_path / "x.jpg", 28, 28).image, digit) < 9


def drawings(digit: np.ndarray) -> dict[str, tuple[Image.Image, dict[str, Any]]]:
    """The same drawing, dark on white, in the many ways in which files hold pixels: image and options of saving."""
    light = enlarged(digit, 200)
    dark = Image.fromarray(255 - np.asarray(light))
    on_transparent = Image.merge("LA", (Image.new("L", light.size, 0), light))
    white_on_transparent = Image.merge("LA", (Image.new("L", light.size, 255), light))
    blank = Image.new("L", light.size, 255)
    return {
        "grey.png": (dark, {}),
        "sixteen_bits.png": (Image.fromarray(np.asarray(dark).astype(np.uint16) * 257), {}),
        "thirty_two_bits.tiff": (Image.fromarray(np.asarray(dark).astype(np.int32) * 257), {}),
        "float.tiff": (Image.fromarray(np.asarray(dark) / np.float32(255)), {}),
        "palette.png": (dark.convert("P"), {}),
        "one_bit.png": (dark.convert("1", dither=Image.Dither.NONE), {}),
        "colour.jpg": (dark.convert("RGB"), {}),
        "cmyk.jpg": (dark.convert("RGB").convert("CMYK"), {}),
        "black_on_transparent.png": (on_transparent.convert("RGBA"), {}),
        "white_on_transparent.png": (white_on_transparent, {}),
        "palette_transparent.png": (dark.convert("P"), {"transparency": 255}),
        "animated.gif": (dark, {"save_all": True, "append_images": [blank, blank]}),
        "pages.tiff": (dark, {"save_all": True, "append_images": [blank]}),
        "two_pictures.mpo": (dark.convert("RGB"), {"save_all": True, "append_images": [blank.convert("RGB")]}),
        "x.webp": (dark.convert("RGB"), {"quality": 90}),
        "x.bmp": (dark, {}),
        "x.pgm": (dark, {}),
        "large.png": (dark.resize((3000, 3000)), {}),
    }


@pytest.mark.parametrize("name", drawings(np.eye(28, dtype=np.uint8)))
def test_every_kind_of_image_file(mnist: Mnist, tmp_path: Path, name: str) -> None:
    digit = mnist["train"][0][0]
    image, options = drawings(digit)[name]
    image.save(tmp_path / name, **options)
    read = read_digit(tmp_path / name, 28, 28)
    assert read.ink == ("light" if name == "white_on_transparent.png" else "dark")
    assert difference(read.image, digit) < 11
    assert max(read.grey.shape) <= SIDE


def test_ink_can_be_forced(mnist: Mnist, tmp_path: Path) -> None:
    """A sheet that is mostly ink: what looks like paper is what was written."""
    digit = mnist["train"][0][0]
    negative = Image.fromarray(255 - np.asarray(enlarged(digit, 280)))
    negative.crop((40, 40, 240, 240)).save(tmp_path / "x.png")
    assert read_digit(tmp_path / "x.png", 28, 28).ink == "dark"
    dark, light = (read_digit(tmp_path / "x.png", 28, 28, ink) for ink in INKS)
    assert (dark.ink, light.ink) == INKS
    assert difference(dark.image, digit) < 15 < 40 < difference(light.image, digit)


def test_as_is_changes_nothing(mnist: Mnist, tmp_path: Path) -> None:
    digit = mnist["train"][0][0]
    Image.fromarray(digit).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_as_is(tmp_path / "x.png", 28, 28).image, digit)
    with pytest.raises(StageError, match=r"x\.png has 28×28 pixels .* to have the model's 28×30"):
        read_as_is(tmp_path / "x.png", 28, 30)


# --- files that can't be used ------------------------------------------------------------------


def png_header(width: int, height: int) -> bytes:
    """The start of a grey PNG that claims a size, up to its pixels."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return start + b"\0\0\1\0IDAT"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"hello", "is no image, or a broken one, of a kind that can be read: AVIF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no image, or a broken one"),
        (png_header(10_000, 9_000), r"has more than \d+ pixels"),
        (png_header(100_000, 90_000), r"has more than \d+ pixels"),
        (png_header(10, 10), "is not a whole image"),
    ],
)
def test_files_that_are_no_image(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(StageError, match=sentence):
        read_grey(tmp_path / "x")


def test_iphone_photos_are_refused_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "x.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    with pytest.raises(StageError, match="save HEIC photos as JPEG"):
        read_grey(tmp_path / "x.HEIC")


@pytest.mark.parametrize("value", [0, 128, 255])
def test_paper_without_ink(tmp_path: Path, value: int) -> None:
    rng = np.random.default_rng(0)
    for noise in (0, 4):
        sheet = (value + rng.normal(0, noise, (120, 160))).clip(0, 255).astype(np.uint8)
        Image.fromarray(sheet).save(tmp_path / "x.png")
        with pytest.raises(StageError, match=r"x\.png shows no ink, only paper"):
            read_digit(tmp_path / "x.png", 28, 28)
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(tmp_path / "x.png")
    with pytest.raises(StageError, match=r"x\.png shows no ink, only paper"):
        read_digit(tmp_path / "x.png", 28, 28)


def test_noise_is_no_ink(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90), np.uint8)).save(tmp_path / "x.png")
    with pytest.raises(StageError, match=r"x\.png shows no ink that stands out from its paper"):
        read_digit(tmp_path / "x.png", 28, 28)


def refused_or_read(path: Path) -> None:
    """An image file is read, or refused in one sentence with its name, and nothing else happens."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            assert read_digit(path, 28, 28).image.shape == (28, 28)
        except StageError as error:
            assert str(error).startswith(f"{path} ")
            assert "\n" not in str(error)
            assert str(error).endswith(".")


@MANY
@given(
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "JPEG2000"]),
    data=st.data(),
)
def test_damaged_images_are_refused_or_read(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    y, x = np.meshgrid(np.arange(40), np.arange(30), indexing="ij")
    drawing = Image.fromarray(np.where((x - 15) ** 2 + (y - 20) ** 2 < 60, 20, 230).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    drawing.save(buffer, kind, **({"exif": exif} if kind in ("PNG", "JPEG", "WEBP", "TIFF") else {}))
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, min(len(content), 600) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "x").write_bytes(content[: data.draw(st.integers(0, len(content)))])
    refused_or_read(tmp_path / "x")


@MANY
@given(
    content=st.binary(max_size=200), start=st.sampled_from([b"", b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0", b"P5 "])
)
def test_any_bytes_are_refused_or_read(tmp_path: Path, content: bytes, start: bytes) -> None:
    (tmp_path / "x").write_bytes(start + content)
    refused_or_read(tmp_path / "x")


@MANY
@given(
    pixels=arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=12)),
    ink=st.sampled_from([None, "dark", "light"]),
)
def test_any_pixels_are_refused_or_read(tmp_path: Path, pixels: np.ndarray, ink: Any) -> None:
    Image.fromarray(pixels).save(tmp_path / "x.png")
    try:
        assert read_digit(tmp_path / "x.png", 28, 28, ink).image.max() == 255
    except StageError as error:
        assert "shows no ink" in str(error)
