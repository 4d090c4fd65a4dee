"""The interactive charts, drawn, and the page that `dvc plots show` makes of everything."""

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import vl_convert
import yaml
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from stages.core.style import BASELINE_COLOURS, COLOURS
from tests.conftest import ROOT, pictures, succeed

CHARTS = {"losses", "mse_per_class", "comparison"}
VEGA_LITE = "5.8"  # the oldest here; DVC's own page asks for 5.2
PAIRS = ["deep / shallow", "shallow / PCA (16)", "deep / PCA (16)"]


def charts_of(page: Path) -> dict[str, Any]:
    """The specification of each chart on a page of `dvc plots`."""
    text = (page / "index.html").read_text()
    found = re.findall(r'id = "plots_(\w+)_csv".*?var spec = ([^\n]*);\n', text, re.DOTALL)
    return {name: json.loads(specification) for name, specification in found}


@pytest.fixture(scope="module")
def page(run_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plots") / "page"
    succeed(run_template, "dvc", "plots", "show", "-o", str(folder))
    return folder


def share_of(colour: str, picture: np.ndarray) -> float:
    """The share of a picture [height, width, 4] that has a colour."""
    return float((np.abs(picture[..., :3] - to_rgb(colour)).max(axis=-1) < 0.02).mean())


def drawn(chart: Any) -> np.ndarray:
    png = vl_convert.vegalite_to_png(chart, vl_version=VEGA_LITE, allowed_base_urls=[])
    return imread(io.BytesIO(png))


def intervals(chart: Any) -> list[tuple[str, str, float, float]]:
    """Revision, colour and both ends in pixels of every interval that is drawn."""
    svg = vl_convert.vegalite_to_svg(chart, vl_version=VEGA_LITE, allowed_base_urls=[])
    found = []
    for line in re.findall(r"<line [^>]*ratio_high[^>]*>", svg):
        revision, colour = (re.findall(p, line)[0] for p in (r"rev: (\w+)", r'stroke="(#\w+)"'))
        start, x2 = (float(re.findall(p, line)[0]) for p in (r"translate\(([-\d.]+)", r'x2="([-\d.]+)"'))
        found.append((revision, colour, start, start + x2))
    return found


def test_the_charts_show_every_model_in_its_colour(page: Path) -> None:
    losses, bars = (drawn(charts_of(page)[name]) for name in ("losses", "mse_per_class"))
    for picture in (losses, bars):
        assert picture.shape[0] > 250
        assert picture.shape[1] > 500
        for colour in COLOURS[:2]:
            assert share_of(colour, picture) > 0.001
        assert share_of(COLOURS[2], picture) == 0  # there is no third model
    for picture, baselines in ((losses, False), (bars, True)):
        assert (share_of(BASELINE_COLOURS[0], picture) > 0.01) == baselines


def test_bars_start_at_zero(page: Path) -> None:
    chart = charts_of(page)["mse_per_class"]
    vega = vl_convert.vegalite_to_vega(chart, vl_version=VEGA_LITE)
    scale = next(s for s in vega["scales"] if s["name"] == "y")
    assert scale["zero"] is True
    rows = chart["data"]["values"]
    assert len(rows) == 30  # three models, ten classes
    assert {row["model"] for row in rows} == {"PCA (16)", "shallow", "deep"}


def test_the_interval_of_every_pair_is_at_its_place_on_the_scale(page: Path, run_template: Path) -> None:
    chart = charts_of(page)["comparison"]
    table = pd.read_csv(run_template / "plots/comparison.csv")
    assert [f"{row['model']} / {row['opponent']}" for row in chart["data"]["values"]] == PAIRS
    lines = intervals(chart)
    assert {(revision, colour) for revision, colour, _, _ in lines} == {("workspace", COLOURS[0])}
    per_unit, zero = np.polyfit(
        [*table["ratio_low"], *table["ratio_high"]], [start for *_, start, _ in lines] + [end for *_, end in lines], 1
    )
    assert per_unit > 50
    for row, (*_, start, end) in zip(table.itertuples(), lines, strict=True):
        assert (start, end) == pytest.approx((zero + per_unit * row.ratio_low, zero + per_unit * row.ratio_high), abs=1)
    assert share_of(BASELINE_COLOURS[0], drawn(chart)) > 0.0005  # the line at 1


@pytest.mark.quick
@pytest.mark.parametrize("name", sorted(CHARTS))
def test_every_template_keeps_the_palette(name: str) -> None:
    assert json.dumps(list(COLOURS)) in (ROOT / f".dvc/plots/{name}.json").read_text()


@pytest.mark.quick
def test_the_page_has_a_place_and_a_question_for_every_plot() -> None:
    """Plots of `foreach` share a place."""
    page = (ROOT / ".dvc/plots/page.html").read_text()
    selector = r'(?:#|\[id\^=")(plots_\w+)(?:"\])?'
    places = dict(re.findall(selector + r" \{ order: (\d+) \}", page))
    questions = dict(re.findall(selector + r'::before \{ content: "([A-Z][^"]+\?)" \}', page))
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    plots = [path for stage in stages for plot in stage.get("do", stage).get("plots", []) for path in plot]
    assert {re.sub(r"\W", "_", path.partition("$")[0]) for path in plots} == set(places)
    assert [int(place) for place in places.values()] == list(range(1, len(plots) + 1))
    assert set(questions) == set(places)


def test_the_page_needs_no_network(page: Path) -> None:
    """Scripts come from a local copy if there is one, every picture is a file, and each has a title and a place."""
    text = (page / "index.html").read_text()
    inert, active = text.split("</template>")
    assert "https://cdn" in inert
    assert "https://" not in re.sub(r"var spec = .*", "", active)
    shown = re.findall(r'<img src="([^"]+)"', text)
    assert len(shown) == len(pictures("figures", "anomalies", "denoise", "few_labels"))
    for picture in shown:
        assert imread(page / picture).size > 0
    assert charts_of(page).keys() == CHARTS
    for plot in [*re.findall(r'id="(plots_\w+_png)"', text), *(f"plots_{name}_csv" for name in CHARTS)]:
        assert f"#{plot} {{ order: " in text


def test_two_revisions_side_by_side(extended_template: Path, tmp_path: Path) -> None:
    """The second has one more model."""
    succeed(extended_template, "dvc", "plots", "diff", "-o", str(tmp_path / "page"))
    text = (tmp_path / "page/index.html").read_text()
    for name in ("reconstructions", "errors"):
        assert len(re.findall(rf'<img src="[^"]*{name}\.png"', text)) == 2
    charts = charts_of(tmp_path / "page")
    assert charts.keys() == CHARTS
    for chart in charts.values():
        assert {row["rev"] for row in chart["data"]["values"]} == {"HEAD", "workspace"}
        assert share_of(COLOURS[0], drawn(chart)) > 0.0001  # the comparison's thin marks have the least
    lines = intervals(charts["comparison"])
    colours = [(revision, colour) for revision, colour, _, _ in lines]
    more = len(PAIRS) + 3  # with each of two models and with PCA
    assert sorted(colours) == sorted([("workspace", COLOURS[0])] * more + [("HEAD", COLOURS[1])] * len(PAIRS))
    assert len({(start, end) for *_, start, end in lines}) == more + len(PAIRS)  # fewer resamples, other intervals
