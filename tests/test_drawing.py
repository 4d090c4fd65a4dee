"""Every figure shows what its words say: data, colours, labels and order, read back from what was drawn."""

import io
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import scipy.spatial
import skimage.color
import sklearn.decomposition
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from stages.applications.charts import name_ends
from stages.core import charts
from stages.core.linear import principal_plane
from stages.core.style import GREY, SIGNED, STYLE, class_colours, mosaic, png, show
from stages.tools.reconstruct import sheets
from stages.tools.reconstruct.digits import Digit
from tests.made_up import HEIGHT, WIDTH

pytestmark = pytest.mark.quick


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    with plt.rc_context(STYLE):
        yield
    plt.close("all")


def shown(ax: Axes) -> np.ndarray:
    """The data of the picture in `ax`; what is masked is NaN."""
    (image,) = ax.images
    data = np.ma.filled(np.ma.asarray(image.get_array(), np.float64), np.nan)
    assert isinstance(data, np.ndarray)
    return data


def rgb(ax: Axes, value: float) -> tuple[float, float, float]:
    """The colour in which the picture in `ax` shows a value."""
    red, green, blue, _ = ax.images[0].to_rgba(np.array([[value]]))[0, 0]
    return red, green, blue


def is_signed(ax: Axes) -> bool:
    """Whether errors in `ax` are red where too dark and blue where too bright, and white where none."""
    (too_dark, too_bright, right) = (rgb(ax, value) for value in (-0.7, 0.7, 0))
    return too_dark[0] > 0.6 > 0.4 > too_dark[2] and too_bright[2] > 0.6 > 0.4 > too_bright[0] and min(right) > 0.96


def is_grey(ax: Axes) -> bool:
    """Whether the picture in `ax` goes from black at 0 to white at 1, whatever values it has."""
    return rgb(ax, 0) == (0, 0, 0) and rgb(ax, 1) == (1, 1, 1) and 0.4 < rgb(ax, 0.5)[0] < 0.6


def suptitle(figure: Figure) -> str:
    return figure.get_suptitle()


# --- style ---------------------------------------------------------------------------------


def test_a_mosaic_has_rows_and_columns_with_a_gap_between() -> None:
    tiles = np.array([[[[1, 2]], [[3, 4]]], [[[5, 6]], [[7, 8]]]])  # 2 rows, 2 columns, 1×2 pixels
    assert mosaic(tiles).tolist() == [[1, 2, 1, 3, 4], [1, 1, 1, 1, 1], [5, 6, 1, 7, 8]]


def test_a_png_is_as_large_as_its_dpi_says_and_names_no_program() -> None:
    sizes = []
    for dpi in (50, 100):
        figure = plt.figure(figsize=(3, 2))
        show(figure.add_axes((0, 0, 1, 1)), np.zeros((2, 3)), **GREY)
        picture = Image.open(io.BytesIO(png(figure, dpi)))
        sizes.append(picture.size)
        assert "Software" not in picture.info
        assert picture.convert("L").getpixel((dpi, dpi)) == 0
        assert not plt.fignum_exists(figure.number)
    assert sizes[0] == pytest.approx((3 * 50, 2 * 50), abs=15)  # a narrow white margin
    assert sizes[1] == pytest.approx((3 * 100, 2 * 100), abs=30)


# --- charts --------------------------------------------------------------------------------


def test_codes_lie_on_their_principal_components() -> None:
    codes = np.random.default_rng(0).normal(size=(40, 5)) * [1, 5, 2, 3, 1]
    _, points, share = principal_plane(codes)
    theirs = sklearn.decomposition.PCA(2).fit(codes)
    np.testing.assert_allclose(np.abs(points), np.abs(theirs.transform(codes)), atol=1e-9)
    assert share == pytest.approx(theirs.explained_variance_ratio_.sum())


def test_codes_of_one_number_lie_on_a_line_and_dead_ones_on_a_point() -> None:
    _, points, share = principal_plane(np.array([[1.0], [4], [7]]))
    assert sorted(points[:, 0]) == [-3, 0, 3]
    assert not points[:, 1].any()
    assert share == pytest.approx(1)
    _, points, share = principal_plane(np.ones((3, 4)))
    assert not points.any()
    assert share == 1


@pytest.mark.parametrize("classes", [10, 26])
def test_every_class_has_a_colour_and_its_name_at_its_mean(classes: int) -> None:
    labels = np.repeat(np.arange(classes, dtype=np.uint8), 2)
    codes = np.random.default_rng(0).normal(size=(2 * classes, 2))
    _, ax = plt.subplots()
    charts.draw_classes(ax, codes, labels)
    colours = np.asarray(ax.collections[0].get_facecolor())[:, :3]
    assert len(np.unique(colours, axis=0)) == classes
    for label, text in enumerate(ax.texts):
        assert text.get_text() == str(label)
        np.testing.assert_allclose(text.get_position(), codes[labels == label].mean(axis=0))
        np.testing.assert_allclose(colours[labels == label], [to_rgb(text.get_color())] * 2)


# Deuteranopia in linear RGB: G. Machado, M. Oliveira, L. Fernandes (2009), table 1
DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
)


def test_ten_classes_differ_without_green_receptors() -> None:
    """Twice as much as Matplotlib's usual ten colours, four pairs of which look alike."""

    def smallest_distance(colours: Iterable[Any]) -> float:
        rgb = np.array([to_rgb(colour) for colour in colours])
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        seen = (linear @ DEUTERANOPIA.T).clip(0, 1)
        shown = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
        return float(scipy.spatial.distance.pdist(skimage.color.rgb2lab(shown)).min())

    usual = smallest_distance(matplotlib.color_sequences["tab10"])
    assert smallest_distance(class_colours(np.arange(10, dtype=np.uint8)).values()) > 2 * usual


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_names_at_the_ends_of_curves_do_not_cover_each_other(scale: Any) -> None:
    figure, ax = plt.subplots(figsize=(7, 3.6))
    ends = {
        "equal": (1.0, 0.5, "red"),
        "to it": (1.0, 0.5, "green"),
        "near": (1.0, 0.48, "blue"),
        "far": (1.0, 0.1, "red"),
    }
    ax.set_yscale(scale)
    ax.plot([0, 1, 1], [0.01, 0.1, 0.5])
    name_ends(ax, ends)
    figure.canvas.draw()
    places = {text.get_text(): text.get_window_extent() for text in ax.texts}
    assert not any(a.overlaps(b) for a, b in combinations(places.values(), 2))
    assert [text.get_color() for text in ax.texts if text.get_text() == "to it"] == ["green"]
    left, height = ax.transData.transform((1, 0.1))
    assert left < places["far"].x0 < left + 20
    assert places["far"].y0 < height < places["far"].y1


# --- sheets --------------------------------------------------------------------------------


def legend_of_errors(figure: Figure) -> dict[str, tuple[float, ...]]:
    """The words next to the colour bar and the colours that they stand for."""
    bar = figure.axes[-1]
    colour_map = plt.get_cmap(SIGNED["cmap"])
    low, high = bar.get_ylim()
    words = zip(bar.get_yticks(), bar.get_yticklabels(), strict=True)
    return {label.get_text(): colour_map((place - low) / (high - low)) for place, label in words}


def test_a_digit_is_shown_from_file_to_error() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (2, 6, 3), np.uint8)
    seen = np.array([[0, 255], [51, 102]], np.uint8)
    reconstruction = np.array([[0.5, 0], [0.2, 0.6]], np.float32)
    figure = sheets.draw_digit(Digit(picture, seen, "dark"), reconstruction, 16, 1.2345, "deep: all is well")
    source, saw, came_out, error, _ = figure.axes
    titles = [ax.get_title() for ax in figure.axes[:4]]
    assert titles == ["input", "what the model saw", "reconstruction", "error"]
    np.testing.assert_allclose(shown(source), picture / 255)
    np.testing.assert_allclose(shown(saw), np.array([[0, 1], [0.2, 0.4]]))
    np.testing.assert_allclose(shown(came_out), reconstruction)
    np.testing.assert_allclose(shown(error), [[0.5, -1], [0, 0.2]], atol=1e-7)  # ink added, ink lost
    assert is_signed(error)
    assert all(map(is_grey, (saw, came_out)))
    labels = [ax.get_xlabel() for ax in figure.axes[:4]]
    assert labels == ["dark ink", "2×2 pixels", "from 16 numbers", "squares sum to 1.23"]
    assert suptitle(figure) == "deep: all is well"
    red, green, blue, _ = legend_of_errors(figure)["−1 too dark"]
    assert red > 0.3 > blue
    red, green, blue, _ = legend_of_errors(figure)["+1 too bright"]
    assert blue > 0.3 > red
    assert green < 0.3


def test_a_sheet_has_ten_images_to_a_row_each_above_its_reconstruction_and_error() -> None:
    random: Any = np.random.default_rng(0)
    images = random.integers(0, 256, (12, HEIGHT, WIDTH), np.uint8)
    reconstructions = random.random((12, HEIGHT, WIDTH)).astype(np.float32)
    errors = np.arange(12, dtype=np.float64) + 0.04
    figure = sheets.draw_sheet(images, reconstructions, errors, "deep: twelve")
    rows = np.array(figure.axes[:-1]).reshape(6, 10)
    for index in range(12):
        block, column = divmod(index, 10)
        image, reconstruction, error = rows[3 * block : 3 * block + 3, column].tolist()
        np.testing.assert_allclose(shown(image), images[index] / 255)
        np.testing.assert_array_equal(shown(reconstruction), reconstructions[index])
        np.testing.assert_allclose(shown(error), reconstructions[index] - images[index] / 255, atol=1e-7)
        assert is_signed(error)
        assert is_grey(image)
        assert is_grey(reconstruction)
        assert error.get_xlabel() == f"{index}.0"
    assert [ax.get_ylabel() for ax in rows[:, 0]] == ["input", "reconstruction", "error"] * 2
    assert not any(ax.axison or ax.images for ax in rows[3:, 2:].ravel())
    assert suptitle(figure) == "deep: twelve"
