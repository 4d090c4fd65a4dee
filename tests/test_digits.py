"""Photos, scans and drawings of real digits become MNIST images, and everything else is refused."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from stages.tools.reconstruct.digits import SIDE, centre, read_as_is, read_digit
from stages.tools.reconstruct.files import ImageFileError, read_image
from stages.tools.reconstruct.ink import find_ink, ink_box

pytestmark = pytest.mark.quick

MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
Mnist = dict[str, tuple[np.ndarray, np.ndarray]]
HEIGHT, WIDTH = 480, 640


def enlarged(digit: np.ndarray, size: int) -> np.ndarray:
    """A digit as a drawing program shows it: float [size, size] from 0 to 1."""
    return np.asarray(Image.fromarray(digit).resize((size, size), Image.Resampling.BICUBIC)) / 255


def placed(rng: np.random.Generator, digit: np.ndarray) -> np.ndarray:
    """The ink of a digit somewhere on a sheet: float [HEIGHT, WIDTH] from 0 to 1."""
    size = int(rng.integers(200, 420))
    top, left = rng.integers(20, HEIGHT - size - 20), rng.integers(20, WIDTH - size - 20)
    ink = np.zeros((HEIGHT, WIDTH))
    ink[top : top + size, left : left + size] = enlarged(digit, size)
    return ink


def save(pixels: np.ndarray, path: Path, **options: Any) -> Path:
    """Save float [rows, columns] or [rows, columns, 3] from 0 to 1 as an image."""
    Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8)).save(path, **options)
    return path


def difference(image: np.ndarray, digit: np.ndarray) -> float:
    """Mean absolute difference, of 255. Between MNIST's images and the same one pixel further it is 17."""
    return float(np.abs(image.astype(float) - digit).mean())


# --- MNIST's form --------------------------------------------------------------------------


def test_mnists_own_images_stay_as_they_are(mnist: Mnist) -> None:
    differences = [difference(centre(digit / 255, 28, 28), digit) for digit in mnist["train"][0]]
    assert np.median(differences) < 0.1
    assert np.mean(differences) < 1
    assert np.mean(np.array(differences) > 10) < 0.03


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
    ink[0, 0] = 1
    image = centre(ink, height, width)
    assert (image.shape, str(image.dtype), image.max()) == ((height, width), "uint8", 255)


# --- pictures ------------------------------------------------------------------------------


@pytest.mark.parametrize("ink", ["dark", "light"])
def test_enlarged_digits_come_back_and_their_ink_is_found(mnist: Mnist, ink: str) -> None:
    differences = []
    for digit in mnist["train"][0][:40]:
        grey = enlarged(digit, 280)
        found = find_ink(1 - grey if ink == "dark" else grey)
        assert found
        assert found.ink == ink
        differences.append(difference(centre(found.strength, 28, 28), digit))
    assert np.median(differences) < 7
    assert np.mean(differences) < 9


def lit(rng: np.random.Generator, sheet: np.ndarray, shading: str) -> np.ndarray:
    """A sheet, badly lit and noisy."""
    y, x = np.meshgrid(np.linspace(-1, 1, HEIGHT), np.linspace(-1, 1, WIDTH), indexing="ij")
    angle = rng.uniform(0, 2 * np.pi)
    light = {
        "even": 1,
        "side": 0.75 + 0.25 * (np.cos(angle) * x + np.sin(angle) * y) / np.sqrt(2),
        "vignette": 1 - 0.2 * (x**2 + y**2),
    }[shading]
    noisy: np.ndarray = sheet * light + rng.normal(0, 0.02, sheet.shape)
    return noisy


def ruled(rng: np.random.Generator, slope: float, every: int = 45, thickness: int = 3) -> np.ndarray:
    """Straight lines across a sheet: [HEIGHT, WIDTH], 0 or 1."""
    y, x = np.indices((HEIGHT, WIDTH))
    lines: np.ndarray = ((y - slope * x + rng.integers(every)) % every < thickness).astype(float)
    return lines


def squared(rng: np.random.Generator) -> np.ndarray:
    """The lines of squared paper."""
    x = np.indices((HEIGHT, WIDTH))[1]
    lines: np.ndarray = np.maximum(ruled(rng, 0.01), (x + rng.integers(45)) % 45 < 2)
    return lines


def coloured(ink: np.ndarray, paper: tuple[int, int, int], pen: tuple[int, int, int]) -> np.ndarray:
    mixed: np.ndarray = (np.array(paper) * (1 - ink[..., None]) + np.array(pen) * ink[..., None]) / 255
    return mixed


def outlined(ink: np.ndarray) -> np.ndarray:
    """Ink in a drawn rectangle, with paper around it."""
    return np.pad(np.pad(np.pad(ink, 20), 8, constant_values=1), 25)


def beside_bar(ink: np.ndarray) -> np.ndarray:
    """A pencil's digit on a scan with black bars along two edges."""
    sheet = 0.95 - 0.5 * ink
    sheet[:, :25] = sheet[-18:] = 0.02
    return sheet


def tiny(ink: np.ndarray) -> np.ndarray:
    """A digit some 60 pixels high in a large picture."""
    small = Image.fromarray(ink.astype(np.float32)).resize((WIDTH // 5, HEIGHT // 5), Image.Resampling.BOX)
    return 1 - np.pad(np.asarray(small), ((900, 1000), (1700, 1100)))


# name: picture of the ink of a digit, largest median difference
Scene = Callable[[np.random.Generator, np.ndarray], np.ndarray]
SCENES: dict[str, tuple[Scene, float]] = {
    "dark even": (lambda rng, ink: lit(rng, 0.9 - 0.65 * ink, "even"), 8),
    "dark from one side": (lambda rng, ink: lit(rng, 0.9 - 0.65 * ink, "side"), 8),
    "dark vignette": (lambda rng, ink: lit(rng, 0.9 - 0.65 * ink, "vignette"), 8),
    "light from one side": (lambda rng, ink: lit(rng, 0.15 + 0.65 * ink, "side"), 8),
    "dark black frame": (lambda rng, ink: np.pad(1 - ink, 15), 8),
    "dark noisy black frame": (lambda rng, ink: np.pad(lit(rng, 0.9 - 0.65 * ink, "side"), 30), 8),
    "dark thin black frame": (lambda rng, ink: np.pad(1 - ink, 1), 8),
    "light white frame": (lambda rng, ink: np.pad(0.1 + 0.8 * ink, 25, constant_values=1), 8),
    "dark outline": (lambda rng, ink: 1 - outlined(ink), 8),
    "dark scanner's bars": (lambda rng, ink: beside_bar(ink), 8),
    "dark ruled": (lambda rng, ink: 1 - np.maximum(ink, ruled(rng, 0)), 9),
    "dark ruled askew": (lambda rng, ink: lit(rng, 0.9 - 0.65 * np.maximum(ink, ruled(rng, 0.05)), "side"), 9),
    "dark squared": (lambda rng, ink: 1 - np.maximum(ink, squared(rng)), 12),
    "dark ruled in a frame": (lambda rng, ink: np.pad(1 - np.maximum(ink, ruled(rng, 0)), 20), 9),
    "dark margin line": (lambda rng, ink: 1 - np.maximum(ink, np.arange(WIDTH) // 4 == 2), 8),
    "dark tiny": (lambda rng, ink: tiny(ink), 10),
    "coloured red on green": (lambda rng, ink: coloured(ink, (0, 102, 0), (200, 0, 0)), 8),
    "coloured orange on cyan": (lambda rng, ink: coloured(ink, (60, 180, 190), (230, 130, 60)), 8),
    "dark blue on white": (lambda rng, ink: coloured(ink, (250, 250, 245), (30, 50, 160)), 8),
}


def test_specks_do_not_widen_the_box() -> None:
    ink = np.zeros((200, 200))
    ink[60:140, 80:120] = 1
    ink[3, 5] = ink[198, 190] = ink[100, 0] = 1
    assert ink_box(ink) == (slice(60, 140), slice(80, 120))


@pytest.mark.parametrize("scene", SCENES)
def test_pictures_of_digits_come_back(mnist: Mnist, tmp_path: Path, scene: str) -> None:
    rng = np.random.default_rng(0)
    make, largest = SCENES[scene]
    differences = []
    for digit in mnist["train"][0][:8]:
        found = read_digit(save(make(rng, placed(rng, digit)), tmp_path / "x.png", compress_level=0), 28, 28)
        assert found.ink == scene.split()[0]
        differences.append(difference(found.image, digit))
    assert np.median(differences) < largest
    assert max(differences) < 35  # a missed frame or line makes it 40 or more


def test_ruled_lines_do_not_shrink_a_thin_digit(mnist: Mnist, tmp_path: Path) -> None:
    """A thin pen's digit looks the same on ruled paper and on plain paper."""
    from skimage.morphology import dilation, disk, skeletonize

    rng = np.random.default_rng(1)
    differences = []
    for digit in mnist["train"][0][:8]:
        ink = dilation(skeletonize(placed(rng, digit) > 0.5), disk(2)).astype(float)
        plain = read_digit(save(1 - ink, tmp_path / "plain.png"), 28, 28)
        lines = read_digit(save(1 - np.maximum(ink, ruled(rng, 0.01, every=60)), tmp_path / "ruled.png"), 28, 28)
        differences.append(difference(lines.image, plain.image))
    assert np.median(differences) < 8


@pytest.mark.parametrize("margins", [(0, 0, 0, 0), (0, 60, 60, 60), (60, 60, 0, 0)])
def test_digits_that_touch_the_edge_stay_whole(mnist: Mnist, tmp_path: Path, margins: tuple[int, ...]) -> None:
    """Margins at the top, bottom, left and right. A one without margins, which fills the picture, may be refused."""
    top, bottom, left, right = margins
    differences = []
    for digit in mnist["train"][0][mnist["train"][1] != 1][:20]:
        ink = enlarged(digit, 280)
        cropped = ink[np.ix_(*(slice_of(ink.max(axis=axis) > 0.3) for axis in (1, 0)))]
        path = save(1 - np.pad(cropped, ((top, bottom), (left, right))), tmp_path / "x.png")
        differences.append(difference(read_digit(path, 28, 28).image, digit))
    assert np.median(differences) < 7
    assert max(differences) < 35


def test_a_rectangle_alone_is_the_digit(tmp_path: Path) -> None:
    """A zero with corners, and a speck of dust."""
    paper = np.zeros((200, 200))
    paper[50:150, 70:130] = 1
    paper[60:140, 80:120] = 0
    zero = read_digit(save(1 - paper, tmp_path / "x.png"), 28, 28).image
    assert zero[14, 14] == 0 < 200 < zero[14, 8]
    paper[10, 10] = 1
    assert difference(read_digit(save(1 - paper, tmp_path / "x.png"), 28, 28).image, zero) < 1


def slice_of(flags: np.ndarray) -> np.ndarray:
    found = np.flatnonzero(flags)
    return np.arange(found[0], found[-1] + 1)


def test_ink_can_be_forced(mnist: Mnist, tmp_path: Path) -> None:
    """A sheet that is mostly ink: what looks like paper is what was written."""
    digit = mnist["train"][0][0]
    path = save(1 - enlarged(digit, 280)[40:240, 40:240], tmp_path / "x.png")
    assert read_digit(path, 28, 28).ink == "dark"
    dark, light = read_digit(path, 28, 28, "dark"), read_digit(path, 28, 28, "light")
    assert (dark.ink, light.ink) == ("dark", "light")
    assert difference(dark.image, digit) < 15 < 40 < difference(light.image, digit)


# --- files ---------------------------------------------------------------------------------


def test_a_photo_is_turned_upright_as_exif_says(mnist: Mnist, tmp_path: Path) -> None:
    drawing = Image.open(save(1 - enlarged(mnist["train"][0][0], 200), tmp_path / "x.png"))
    exif = Image.Exif()
    exif[0x0112] = 5  # mirrored and turned
    drawing.transpose(Image.Transpose.TRANSPOSE).save(tmp_path / "x.jpg", exif=exif, quality=95)
    assert difference(read_digit(tmp_path / "x.jpg", 28, 28).image, mnist["train"][0][0]) < 9


def drawings(digit: np.ndarray) -> dict[str, tuple[Image.Image, dict[str, Any]]]:
    """A drawing, dark on white, in the many ways in which files hold pixels: image and options of saving."""
    light = Image.fromarray((enlarged(digit, 200) * 255).astype(np.uint8))
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
        "x.avif": (dark.convert("RGB"), {}),
        "x.jp2": (dark, {}),
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
    assert max(read.picture.shape) <= SIDE


def test_as_is_changes_nothing(mnist: Mnist, tmp_path: Path) -> None:
    digit = mnist["train"][0][0]
    Image.fromarray(digit).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_as_is(tmp_path / "x.png", 28, 28).image, digit)
    with pytest.raises(ImageFileError, match=r"x\.png.* 28×28 .* 28×30"):
        read_as_is(tmp_path / "x.png", 28, 30)


def png_header(width: int, height: int) -> bytes:
    """The start of a grey PNG that claims a size, up to its pixels."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return start + b"\0\0\1\0IDAT"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"hello", "not an image .* AVIF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "save HEIC photos as JPEG"),
        (png_header(10_000, 9_000), r"more than \d+ pixels"),
        (png_header(100_000, 90_000), r"more than \d+ pixels"),
        (png_header(10, 10), "damaged or incomplete"),
    ],
)
def test_files_that_are_no_image(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ImageFileError, match=f"/x: .*{sentence}"):
        read_image(tmp_path / "x")


def test_paper_without_ink(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for value in (0, 0.5, 1):
        for deviation in (0, 0.016):
            save(value + rng.normal(0, deviation, (120, 160)), tmp_path / f"{value}-{deviation}.png")
    save(rng.random((90, 90)), tmp_path / "noise.png")
    save(rng.random((90, 90, 3)), tmp_path / "coloured noise.png")
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(tmp_path / "transparent.png")
    for path in tmp_path.iterdir():
        with pytest.raises(ImageFileError, match=rf"{path.name}: .*no ink"):
            read_digit(path, 28, 28)


def refused_or_read(path: Path, ink: Any = None) -> None:
    """An image file is read, or refused in one sentence with its name, and nothing else happens."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            image = read_digit(path, 28, 28, ink).image
            assert (image.shape, image.max()) == ((28, 28), 255)
        except ImageFileError as error:
            assert str(error).startswith(f"{path}: ")
            assert "\n" not in str(error)
            assert str(error).endswith(".")


@MANY
@given(kind=st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "JPEG2000"]), data=st.data())
def test_damaged_images_are_refused_or_read(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    y, x = np.indices((40, 30))
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
    pixels=arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=24))
    | arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3))),
    ink=st.sampled_from([None, "dark", "light"]),
)
def test_any_pixels_are_refused_or_read(tmp_path: Path, pixels: np.ndarray, ink: Any) -> None:
    Image.fromarray(pixels).save(tmp_path / "x.png")
    refused_or_read(tmp_path / "x.png", ink)
