"""The interactive charts, drawn, and the page that `dvc plots show` makes of everything."""

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vl_convert
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from stages.figures import BASELINE_COLOURS, COLOURS
from tests.conftest import change_params, succeed

CHARTS = ("losses", "mse_per_class")
VEGA_LITE = "5.8"  # the oldest here; DVC's own page asks for 5.2


def specification(project: Path, name: str) -> Any:
    return json.loads(succeed(project, "dvc", "plots", "show", f"plots/{name}.csv", "--show-vega"))


def share_of(colour: str, picture: np.ndarray) -> float:
    """The share of a picture [height, width, 4] that has a colour."""
    return float((np.abs(picture[..., :3] - to_rgb(colour)).max(axis=-1) < 0.02).mean())


def drawn(chart: Any) -> np.ndarray:
    png = vl_convert.vegalite_to_png(chart, vl_version=VEGA_LITE, allowed_base_urls=[])
    return imread(io.BytesIO(png))


def test_the_charts_show_every_model_in_its_colour(run_template: Path) -> None:
    losses, bars = (drawn(specification(run_template, name)) for name in CHARTS)
    for picture, baselines in ((losses, 0), (bars, 1)):
        assert picture.shape[0] > 250
        assert picture.shape[1] > 500
        for colour in COLOURS[:2]:
            assert share_of(colour, picture) > 0.001
        assert share_of(COLOURS[2], picture) == 0  # there is no third model
        assert (share_of(BASELINE_COLOURS[0], picture) > 0.01) == bool(baselines)


def test_bars_start_at_zero(run_template: Path) -> None:
    chart = specification(run_template, "mse_per_class")
    vega = vl_convert.vegalite_to_vega(chart, vl_version=VEGA_LITE)
    scale = next(s for s in vega["scales"] if s["name"] == "y")
    assert scale["zero"] is True
    rows = chart["data"]["values"]
    assert len(rows) == 30  # three models, ten classes
    assert {row["model"] for row in rows} == {"PCA (16)", "shallow", "deep"}


@pytest.mark.parametrize("name", CHARTS)
def test_every_template_keeps_the_palette(run_template: Path, name: str) -> None:
    assert json.dumps(list(COLOURS)) in (run_template / f".dvc/plots/{name}.json").read_text()


def test_the_page_needs_no_network(run_template: Path, tmp_path: Path) -> None:
    """Scripts come from a local copy if there is one, every picture is a file, and each has a title and a place."""
    succeed(run_template, "dvc", "plots", "show", "-o", str(tmp_path / "page"))
    page = (tmp_path / "page/index.html").read_text()
    inert, active = page.split("</template>")
    assert "https://cdn" in inert
    assert "https://" not in re.sub(r"var spec = .*", "", active)
    pictures = re.findall(r'<img src="([^"]+)"', page)
    assert len(pictures) == 10
    for picture in pictures:
        assert imread(tmp_path / "page" / picture).size > 0
    for plot in [*re.findall(r'id="(plots_\w+_png)"', page), *re.findall(r'id = "(plots_\w+_csv)"', page)]:
        assert f"#{plot} {{ order: " in page


def test_two_revisions_side_by_side(run_project: Path, tmp_path: Path) -> None:
    change_params(run_project, lambda p: p["figures"].update(dpi=60))
    succeed(run_project, "dvc", "repro")
    succeed(run_project, "dvc", "plots", "diff", "-o", str(tmp_path / "page"))
    page = (tmp_path / "page/index.html").read_text()
    for name in ("reconstructions", "errors"):
        assert len(re.findall(rf'<img src="[^"]*{name}\.png"', page)) == 2
    charts = [json.loads(spec) for spec in re.findall(r"var spec = (\{.*\});", page)]
    assert len(charts) == len(CHARTS)
    for chart in charts:
        assert {row["rev"] for row in chart["data"]["values"]} == {"HEAD", "workspace"}
        assert share_of(COLOURS[0], drawn(chart)) > 0.001
