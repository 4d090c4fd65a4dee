"""Every figure shows what its words say: data, colours, labels and order, read back from what was drawn."""

import io
from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import sklearn.decomposition
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.colors import same_color
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from PIL import Image

from stages.applications import figures as applications
from stages.core import charts, pictures, tables
from stages.core.comparison import Comparison
from stages.core.evaluation import Result
from stages.core.linear import principal_plane
from stages.core.style import BASELINE_COLOURS, COLOURS, GREY, SIGNED, STYLE, colours, mosaic, png, show
from stages.tools.reconstruct import sheets
from stages.tools.reconstruct.digits import Digit
from tests import made_up
from tests.made_up import HEIGHT, WIDTH

pytestmark = pytest.mark.quick

LABELS = [3, 0, 3, 5, 8]  # of the test digits
CLASSES = 4
BLUE, ORANGE, GREEN = COLOURS[:3]


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    with plt.rc_context(STYLE):
        yield
    plt.close("all")


@pytest.fixture
def results() -> dict[str, Result]:
    """As figures gets them: PCA, then the models in the order of params.yaml."""
    return {
        "PCA (2)": made_up.result([9, 8, 7, 6, 5], seed=1, classes=CLASSES),
        "zebra": made_up.result([1, 2, 3, 4, 100], seed=2, classes=CLASSES),
        "ant": made_up.result([2, 2, 2, 2, 2.5], seed=3, classes=CLASSES, weights=np.zeros((0, HEIGHT, WIDTH))),
    }


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


def test_models_get_the_palette_in_their_order_and_pca_greys() -> None:
    found = colours(["PCA (2)", "PCA (16)", "zebra", "ant", "bee"])
    assert found == {
        "PCA (2)": BASELINE_COLOURS[0], "PCA (16)": BASELINE_COLOURS[1], "zebra": BLUE, "ant": ORANGE, "bee": GREEN
    }  # fmt: skip
    for grey in BASELINE_COLOURS:
        assert grey[1:3] == grey[3:5] == grey[5:7]
    many = list(colours(map(str, range(8))).values())
    assert many[6:] == many[:2]  # they begin again


def test_a_mosaic_has_rows_and_columns_with_a_gap_between() -> None:
    tiles = np.array([[[[1, 2]], [[3, 4]]], [[[5, 6]], [[7, 8]]]])  # 2 rows, 2 columns, 1×2 pixels
    assert mosaic(tiles, gap=0).tolist() == [[1, 2, 0, 3, 4], [0, 0, 0, 0, 0], [5, 6, 0, 7, 8]]


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


def test_a_picture_has_no_axes_and_sharp_pixels() -> None:
    _, ax = plt.subplots()
    show(ax, np.eye(2), **GREY)
    assert (len(ax.get_xticks()), len(ax.get_yticks())) == (0, 0)
    assert not any(spine.get_visible() for spine in ax.spines.values())
    assert ax.images[0].get_interpolation() == "nearest"
    assert is_grey(ax)


# --- pictures ------------------------------------------------------------------------------


def test_reconstructions_stand_under_their_originals(results: dict[str, Result]) -> None:
    digits = made_up.digits(LABELS)  # shows the images 1, 0, 3, 4: the first 0, 3, 5, 8
    figure = pictures.draw_reconstructions(results, digits, classes=3)
    rows = np.array(figure.axes).reshape(7, 3)
    assert [row[0].get_ylabel() for row in rows] == [
        "original", "PCA (2)\nmean 7.0", "difference", "zebra\nmean 22.0", "difference", "ant\nmean 2.1", "difference"
    ]  # fmt: skip
    for column in range(3):
        np.testing.assert_array_equal(shown(rows[0, column]), digits.images[column])
        assert is_grey(rows[0, column])
        for row, result in zip((1, 3, 5), results.values(), strict=True):
            reconstruction, error = rows[row : row + 2, column]
            np.testing.assert_array_equal(shown(reconstruction), result.reconstructions[column])
            np.testing.assert_allclose(shown(error), result.reconstructions[column] - digits.images[column])
            assert is_grey(reconstruction)
            assert is_signed(error)
    assert [ax.get_xlabel() for ax in rows[1]] == ["8.0", "9.0", "6.0"]
    assert [ax.get_xlabel() for ax in rows[3]] == ["2.0", "1.0", "4.0"]
    assert "red pixels came out too dark, blue ones too bright" in suptitle(figure)


def test_extremes_are_named_by_what_they_are(results: dict[str, Result]) -> None:
    places = np.array([[0, 1, 1, 1, 1], [2, 2, 2, 2, 2], [3, 4, 4, 4, 4]])
    results["zebra"] = made_up.result([1, 2, 3, 4, 100], seed=2, extremes=places)
    figure = pictures.draw_extremes(results)
    rows = np.array(figure.axes).reshape(3, 3)
    titles = [ax.get_title() for ax in rows[:, 1]]
    assert titles == ["zebra, best: 1.0 to 2.0", "zebra, median: 3.0", "zebra, worst: 4.0 to 100.0"]
    for kind, ax in enumerate(rows[:, 1]):
        above, below = shown(ax)[:HEIGHT], shown(ax)[HEIGHT + 1 :]
        np.testing.assert_array_equal(above[:, -WIDTH:], results["zebra"].extreme_images[kind, -1])
        np.testing.assert_array_equal(below[:, -WIDTH:], results["zebra"].extreme_reconstructions[kind, -1])
        assert is_grey(ax)


def row_of(ax: Axes, row: int) -> np.ndarray:
    """The pictures in a row of the mosaic in `ax`: [columns, height, width]."""
    strip = shown(ax)[row * (HEIGHT + 1) :][:HEIGHT]
    return np.stack([strip[:, start : start + WIDTH] for start in range(0, strip.shape[1], WIDTH + 1)])


def test_interpolations_lie_below_the_blend_of_the_same_two_digits(results: dict[str, Result]) -> None:
    digits = made_up.digits(LABELS)
    figure = pictures.draw_interpolations(results, digits)
    assert len(figure.axes) == 2
    for pair, ax in enumerate(figure.axes):
        assert ax.axison
        blend = row_of(ax, 0)
        np.testing.assert_allclose(blend[0], digits.images[pair])
        np.testing.assert_allclose(blend[4], (digits.images[pair] + digits.images[2 + pair]) / 2)
        np.testing.assert_allclose(blend[8], digits.images[2 + pair])
        for row, result in enumerate(results.values(), 1):
            np.testing.assert_array_equal(row_of(ax, row), result.interpolations[pair])
        assert [label.get_text() for label in ax.get_yticklabels()] == ["pixels", *results]
        for row, place in enumerate(ax.get_yticks()):
            assert row * (HEIGHT + 1) - 0.5 <= place <= row * (HEIGHT + 1) + HEIGHT  # beside its own row


def test_one_class_alone_leaves_interpolations_empty() -> None:
    figure = pictures.draw_interpolations({"a": made_up.result([1], classes=1)}, made_up.digits([7]))
    (ax,) = figure.axes
    assert not ax.images
    assert not ax.axison


def test_traversals_go_from_minus_to_plus(results: dict[str, Result]) -> None:
    figure = pictures.draw_traversals(results)
    for ax, (name, result) in zip(figure.axes, results.items(), strict=True):
        assert ax.get_title() == name
        assert ax.get_xlabel() == "−2.5 to +2.5 standard deviations"
        for row in range(2):
            np.testing.assert_array_equal(row_of(ax, row), result.traversals[row])
    assert figure.axes[0].get_ylabel() == "latent dimension, the most varied first"


def test_samples_have_a_row_per_class_and_the_share_that_came_out_right(results: dict[str, Result]) -> None:
    results["ant"] = made_up.result([1], seed=3, classes=CLASSES, generation=0.4567)
    figure = pictures.draw_samples(results, classes=3)
    assert figure.axes[2].get_title() == "ant: 45.7% of the class"
    for ax, result in zip(figure.axes, results.values(), strict=True):
        assert shown(ax).shape[0] == 3 * (HEIGHT + 1) - 1
        for row in range(3):
            np.testing.assert_array_equal(row_of(ax, row), result.samples[row])


def test_weights_are_each_scaled_to_their_largest(results: dict[str, Result]) -> None:
    """Encoders with hidden layers have none; a dead unit stays blank, and so does what fills up the square."""
    weights = np.zeros((3, HEIGHT, WIDTH))
    weights[0, 0, 0], weights[0, 1, 2], weights[2] = -8, 2, 0.01
    results["zebra"] = made_up.result([1], seed=2, weights=weights)
    figure = pictures.draw_weights(results)
    assert [ax.get_title() for ax in figure.axes] == ["PCA (2)", "zebra"]
    ax = figure.axes[1]
    first, second = row_of(ax, 0)
    assert first.tolist() == [[-1, 0, 0], [0, 0, 0.25]]
    assert not second.any()
    assert (row_of(ax, 1)[0] == 1).all()
    assert not row_of(ax, 1)[1].any()
    assert np.isnan(shown(ax)[HEIGHT]).all()  # nothing between the pictures
    assert is_signed(ax)
    assert "blue positive, red negative" in suptitle(figure)


def test_a_figure_says_that_there_are_no_weights(results: dict[str, Result]) -> None:
    (ax,) = pictures.draw_weights({"ant": results["ant"]}).axes
    assert [text.get_text() for text in ax.texts] == ["no shallow encoder"]


# --- applications --------------------------------------------------------------------------


def labels_below(ax: Axes) -> list[tuple[str, bool]]:
    """The labels below a row of digits, and whether each is red."""
    ax.figure.canvas.draw()
    return [(tick.get_text(), same_color(tick.get_color(), applications.ALARM)) for tick in ax.get_xticklabels()]


def test_anomalous_digits_have_their_class_below_and_scores_their_curves() -> None:
    """Class 8 is missing; of the two models, one tells it by its error and the other one gets it wrong."""
    digits = made_up.digits([3, 0, 3, 8, 8], trained=[0, 3])
    places = np.array([[4, 3, 2, 1, 0] * 2, [0, 1, 2, 3, 4] * 2])
    two = {
        "PCA (2)": made_up.result([5, 5, 5, 1, 1], seed=1, unusual=places),
        "ant": made_up.result([1, 2, 3, 4, 5], seed=2, distance=np.array([1.0, 2, 9, 3, 4]), unusual=places[::-1]),
    }
    figure = applications.draw_anomalies(two, digits)
    assert "in red the classes that training never saw" in suptitle(figure)
    curves, rows = figure.axes[:3], np.array(figure.axes[3:]).reshape(2, 2)
    assert [ax.get_title() for ax in curves] == ["score: error", "score: distance", "score: combined"]
    for ax in curves:
        pca, ant, _ = ax.lines
        assert same_color(pca.get_color(), BASELINE_COLOURS[0])
        assert same_color(ant.get_color(), BLUE)
    legend = curves[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["PCA (2), 0.000", "ant, 1.000"]
    x, y = np.asarray(curves[1].lines[1].get_data())  # of the distances 9, 4, 3, 2, 1 the second and third are missing
    assert np.interp([0, 1 / 3, 1], x[[0, -2, -1]], y[[0, -2, -1]]).tolist() == [0, 1, 1]
    assert (1 / 3, 0) in zip(x.tolist(), y.tolist(), strict=True)
    for (name, result), row in zip(two.items(), rows, strict=True):
        assert [ax.get_title() for ax in row] == [f"{name}, most anomalous", f"{name}, least anomalous"]
        for side, ax in enumerate(row):
            np.testing.assert_array_equal(row_of(ax, 0), result.unusual_images[side])
            assert is_grey(ax)
            expected = [(str(digits.labels[i]), digits.labels[i] == 8) for i in result.unusual[side]]
            assert labels_below(ax) == expected
            middles = [column * (WIDTH + 1) + (WIDTH - 1) / 2 for column in range(10)]
            np.testing.assert_allclose(ax.get_xticks(), middles)


def test_where_no_class_is_missing_a_sentence_says_so(results: dict[str, Result]) -> None:
    figure = applications.draw_anomalies(results, made_up.digits(LABELS))
    told, *rows = figure.axes
    assert [text.get_text() for text in told.texts] == ["no class is missing from training, so there is no ROC curve"]
    assert len(rows) == 2 * len(results)
    assert "in red" not in suptitle(figure)
    assert not any(red for ax in rows for _, red in labels_below(ax))


def test_denoised_digits_stand_under_the_noisy_ones_and_curves_have_their_intervals() -> None:
    levels: list[list[float]] = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    names = ("noisy image", "wavelets", "PCA (2)", "ant")
    classical = made_up.classical(*levels)
    given = {name: made_up.denoised(*levels, seed=seed) for seed, name in enumerate(names)}
    noise = np.array([0.5, 0.1, 0.3])  # in any order; the middle one is the last
    table = tables.denoising_table(given, noise, ["ant"], 100, seed=0)
    figure = applications.draw_denoising(classical.images, given, table)
    ax, chart = figure.axes
    assert ax.get_title() == "noise of standard deviation 0.3"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["original", *given]
    np.testing.assert_array_equal(row_of(ax, 0), classical.images)
    for row, method in enumerate(given.values(), 1):
        np.testing.assert_array_equal(row_of(ax, row), method.pictures[2])
    assert is_grey(ax)
    for row, place in enumerate(ax.get_yticks()):
        assert place == row * (HEIGHT + 1) + (HEIGHT - 1) / 2
    lines = {container.get_label(): container for container in chart.containers}
    assert list(lines) == list(given)
    legend = chart.get_legend()
    assert legend is not None
    handles = dict(zip(lines, legend.get_lines(), strict=True))
    for name, colour in (("PCA (2)", BASELINE_COLOURS[0]), ("ant", BLUE), ("wavelets", applications.INK)):
        assert same_color(handles[name].get_color(), colour)
        assert handles[name].is_dashed() == (name == "wavelets")
        line, _, (bars,) = lines[name]
        rows = table[table["method"] == name].sort_values("noise")
        assert same_color(line.get_color(), colour)
        assert line.is_dashed() == (name == "wavelets")
        assert list(line.get_xdata()) == [0.1, 0.3, 0.5]
        assert list(line.get_ydata()) == rows["psnr"].tolist()
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        np.testing.assert_allclose(ends, rows[["psnr_low", "psnr_high"]])
    assert [text.get_text() for text in legend.get_texts()] == list(given)
    assert "PSNR in dB" in chart.get_ylabel()


def test_curves_of_accuracy_have_their_spread_and_bars_their_intervals() -> None:
    names = ("all pixels", "PCA (2)", "untrained ant", "ant")
    given = {name: made_up.classified(seed) for seed, name in enumerate(names)}
    table = tables.labels_table(given, np.array([10, 1000]), ["ant"], 100, seed=0)
    *curves, bars = applications.draw_labels(table).axes
    inks = dict(zip(names, (applications.INK, BASELINE_COLOURS[0], BLUE, BLUE), strict=True))
    dashed = dict(zip(names, (True, False, True, False), strict=True))
    for ax, classifier, title in zip(
        curves, ("logistic", "neighbours"), ("logistic regression", "k-nearest neighbours"), strict=True
    ):
        assert ax.get_title(loc="left") == title
        assert [text.get_text() for text in ax.get_xticklabels()] == ["10", "1,000"]
        assert [container.get_label() for container in ax.containers] == list(names)
        for name, (line, _, (spread,)) in zip(names, ax.containers, strict=True):
            accuracies = getattr(given[name], classifier)
            assert same_color(line.get_color(), inks[name])
            assert line.is_dashed() == dashed[name]
            assert list(line.get_xdata()) == [10, 1000]
            means, deviations = accuracies.mean(axis=1), accuracies.std(axis=1, ddof=1)
            np.testing.assert_allclose(np.asarray(line.get_ydata(), np.float64), means)
            ends = np.array([segment[:, 1] for segment in spread.get_segments()])
            np.testing.assert_allclose(ends, np.stack([means - deviations, means + deviations], axis=1))
    legend = curves[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == list(names)
    assert curves[0].get_ylim() == curves[1].get_ylim()
    assert [text.get_text() for text in bars.get_yticklabels()] == list(names)
    assert bars.yaxis_inverted()
    (drawn,) = (container for container in bars.containers if isinstance(container, BarContainer))
    for bar, name in zip(drawn, names, strict=True):
        assert bar.get_width() == given[name].precision.mean()
        assert same_color(bar.get_facecolor()[:3], inks[name])
    assert drawn.errorbar
    intervals = [segment[:, 0] for segment in drawn.errorbar.lines[2][0].get_segments()]
    rows = table.drop_duplicates("method")[["precision_low", "precision_high"]]
    np.testing.assert_allclose(intervals, rows.to_numpy(np.float64))


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


def face(dots: Collection) -> Any:
    """The colour of dots: red, green, blue, opacity."""
    return tuple(np.asarray(dots.get_facecolor())[0])


def test_latent_spaces_show_each_class_where_its_codes_are() -> None:
    labels = np.array([7, 2, 2, 7, 9], np.uint8)
    codes = np.array([[5, 1, 0], [-5, 1, 0.5], [-6, -1, 0], [4, -1, 0], [1, 0, 0]], np.float32)
    few = {name: made_up.result([1] * 5, codes=array) for name, array in (("a", codes), ("b", codes[:, :1]))}
    figure = charts.draw_latent_space(few, labels)
    assert len(figure.axes) == 2
    for ax, (name, result) in zip(figure.axes, few.items(), strict=True):
        _, points, share = principal_plane(result.codes)
        assert ax.get_title() == f"{name}: {share:.0%} of the variance"
        assert [dots.get_label() for dots in ax.collections] == ["2", "7", "9"]
        assert [text.get_text() for text in ax.texts] == ["2", "7", "9"]
        for dots, text, label in zip(ax.collections, ax.texts, (2, 7, 9), strict=True):
            own = points[labels == label]
            np.testing.assert_allclose(np.asarray(dots.get_offsets()), own, atol=1e-6)
            assert text.get_position() == pytest.approx(tuple(own.mean(axis=0)), abs=1e-6)
            assert same_color(text.get_color(), face(dots)[:3])
    assert len({face(dots) for dots in figure.axes[0].collections}) == 3
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["2", "7", "9"]


def test_many_classes_have_as_many_colours() -> None:
    codes = np.random.default_rng(0).normal(size=(26, 2)).astype(np.float32)
    figure = charts.draw_latent_space({"a": made_up.result([1] * 26, codes=codes)}, np.arange(26, dtype=np.uint8))
    assert len({face(dots) for dots in figure.axes[0].collections}) == 26


def test_errors_have_their_medians_and_ratios_in_the_legend(results: dict[str, Result]) -> None:
    table = tables.comparison_table({
        "ant / zebra": Comparison(0.5, 0.25, 0.75, -1, -2, -0.5, 0.876),
        "zebra / PCA (2)": Comparison(3.25, 2.125, 4.5, 1, 0.5, 2, 0.8),
    })  # fmt: skip
    figure = charts.draw_errors(results, table)
    (ax,), (legend,) = figure.axes, figure.legends
    expected = {"PCA (2)": (BASELINE_COLOURS[0], 7), "zebra": (BLUE, 3), "ant": (ORANGE, 2)}
    assert [text.get_text() for text in legend.get_texts()] == [
        f"{name}, median {median:.1f}" for name, (_, median) in expected.items()
    ]
    assert legend.get_title().get_text().splitlines()[1:3] == [
        "ant / zebra: 0.500 (0.250–0.750), better on 87.6%",
        "zebra / PCA (2): 3.250 (2.125–4.500), better on 80.0%",
    ]
    curves = {c.get_label(): c for c in ax.patches if isinstance(c, StepPatch) and not c.get_fill()}
    for (name, (colour, median)), line in zip(expected.items(), ax.lines, strict=True):
        curve = curves[f"{name}, median {median:.1f}"]
        assert same_color(curve.get_edgecolor(), colour)
        assert same_color(line.get_color(), colour)
        assert line.is_dashed()
        assert np.asarray(line.get_xdata()).tolist() == [median, median]
        values, edges, _ = curve.get_data()
        inside = [((edges[:-1] <= error) & (error < edges[1:])) for error in results[name].squared_error]
        np.testing.assert_allclose(values, np.mean(inside, axis=0))  # every error is in a bin
        assert values.sum() == pytest.approx(1)
    assert ax.get_xscale() == "log"
    assert ax.get_ylim()[0] == 0


def losses(**curves: list[float]) -> pd.DataFrame:
    rows = [(epoch, *name.split("_"), loss) for name, values in curves.items() for epoch, loss in enumerate(values, 1)]
    return pd.DataFrame(rows, columns=["epoch", "model", "series", "loss"])


def test_training_losses_are_solid_and_validation_losses_dashed() -> None:
    table = losses(
        zebra_train=[5, 4, 3], zebra_validation=[6, 5, 4.5], ant_train=[2, 1, 0.5], ant_validation=[2.5, 1.5, 1]
    )
    (ax,) = charts.draw_losses(table, {"zebra": "binary_crossentropy", "ant": "binary_crossentropy"}).axes
    found = {
        line.get_label(): (line.get_color(), line.is_dashed(), *np.asarray(line.get_data()).tolist())
        for line in ax.lines
    }
    assert found == {
        "zebra, train": (BLUE, False, [1, 2, 3], [5, 4, 3]),
        "zebra, validation": (BLUE, True, [1, 2, 3], [6, 5, 4.5]),
        "ant, train": (ORANGE, False, [1, 2, 3], [2, 1, 0.5]),
        "ant, validation": (ORANGE, True, [1, 2, 3], [2.5, 1.5, 1]),
    }
    assert ax.get_ylabel() == "binary crossentropy"
    assert {line.get_marker() for line in ax.lines} == {"None"}
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == list(found)


def test_different_losses_are_named_and_a_single_epoch_is_a_point() -> None:
    table = losses(zebra_train=[5], zebra_validation=[6], ant_train=[2, 1], ant_validation=[3, 2])
    (ax,) = charts.draw_losses(table, {"zebra": "mse", "ant": "mse + code_l1"}).axes
    labels = ["zebra, train (mse)", "zebra, validation (mse)"]
    labels += ["ant, train (mse + code_l1)", "ant, validation (mse + code_l1)"]
    assert [line.get_label() for line in ax.lines] == labels
    assert [line.get_marker() for line in ax.lines] == ["o", "o", "None", "None"]
    assert ax.get_ylabel() == "loss"


def test_bars_are_as_high_as_the_errors_of_their_class() -> None:
    """With rows out of order and more classes than are to be shown."""
    heights: dict[str, dict[int, float]] = {
        "PCA (2)": {2: 0.3, 0: 0.1, 5: 0.5},
        "zebra": {5: 0.05, 0: 0.01, 2: 0.03},
        "ant": {0: 1, 2: 3, 5: 5},
    }
    table = pd.DataFrame(
        [(label, name, mse, 9) for name, values in heights.items() for label, mse in values.items()],
        columns=["class", "model", "mse", "images"],
    )
    figure = charts.draw_mse_per_class(table, {"PCA (2)": 0.2, "zebra": 0.02, "ant": 2}, classes=2)
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "2"]
    bars = [container for container in ax.containers if isinstance(container, BarContainer)]
    for container, name, colour in zip(bars, heights, (BASELINE_COLOURS[0], BLUE, ORANGE), strict=True):
        assert [bar.get_height() for bar in container] == [heights[name][0], heights[name][2]]
        assert all(same_color(bar.get_facecolor(), colour) for bar in container)
    for position, place in enumerate(ax.get_xticks()):
        middles = [container[position].get_x() + container[position].get_width() / 2 for container in bars]
        assert middles == sorted(middles)
        assert middles[1] == pytest.approx(place)
        assert max(np.abs(np.array(middles) - place)) < 0.5  # between its neighbours
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "PCA (2), 0.2000 overall", "zebra, 0.0200 overall", "ant, 2.0000 overall"
    ]  # fmt: skip


# --- sheets --------------------------------------------------------------------------------


def legend_of_errors(figure: Figure) -> dict[str, tuple[float, ...]]:
    """The words beside the colour bar and the colours that they stand for."""
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
