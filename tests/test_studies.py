"""No stage draws the committed pictures of studies, so these tests draw them again from their committed tables."""

import io
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from stages.core.style import STYLE, png
from stages.tools.studies import STUDIES
from stages.tools.study.picture import draw_study
from stages.tools.tune.charts import draw_front
from tests.conftest import ROOT

pytestmark = pytest.mark.quick


class Study(NamedTuple):
    name: str
    setting: str
    metric: str
    over: str | None = None


def check_picture(name: str, figure: Figure) -> None:
    committed = Image.open(ROOT / STUDIES / f"{name}.png").convert("L")
    drawn = Image.open(io.BytesIO(png(figure, 150))).convert("L")
    assert drawn.size == committed.size
    greys = np.abs(np.asarray(drawn, int) - np.asarray(committed, int))
    assert greys.max() <= 8  # the tool draws numbers that the table rounds


@pytest.mark.parametrize(
    "study",
    [
        Study("rate_distortion", "latent_dim", "mse"),
        Study("depth", "hidden_layers", "mse"),
        Study("one_class", "prepare.classes", "auroc"),
        Study("nine_classes", "prepare.classes", "auroc"),
        Study("code_sizes", "latent_dim", "auroc", "prepare.classes"),
    ],
    ids=lambda study: study.name,
)
def test_a_picture_of_experiments_shows_its_table(study: Study) -> None:
    table = pd.read_csv(ROOT / STUDIES / f"{study.name}.csv", dtype={"prepare.classes": str})
    with plt.rc_context(STYLE):
        check_picture(study.name, draw_study(table, study.setting, study.metric, study.over))


def test_the_picture_of_two_objectives_shows_the_trials_that_no_other_trial_dominates() -> None:
    trials = pd.read_csv(ROOT / STUDIES / "small-trials.csv")
    complete = trials[trials["state"] == "complete"].sort_values(["parameters", "mse"])
    front = complete[complete["mse"] < complete["mse"].cummin().shift(fill_value=np.inf)]
    with plt.rc_context(STYLE):
        check_picture("small-front", draw_front(trials, ["mse", "parameters"], front["trial"].tolist(), [True, True]))
