"""The gallery of presets, drawn from made-up evaluations; the page itself is checked in test_docs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from stages.applications.figures import draw_denoising
from stages.applications.schema import ApplicationParams
from stages.core.errors import ParamsError, StageError
from stages.core.evaluation import Evaluation
from stages.core.files import CLASSICAL
from stages.core.params import choose_model, read_params
from stages.core.records import save_record
from stages.drawing.gallery import draw_model
from stages.tools import gallery
from tests import made_up
from tests.conftest import ROOT

pytestmark = pytest.mark.quick
PARAMS = read_params(ApplicationParams, ROOT / "params.yaml")
METRICS = {"mse": 0.00512345, "mse_pca": 0.0268, "ssim": 0.9, "probe": 0.85, "parameters": 1234567}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with nothing but params.yaml, and the metrics of one preset."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/best16.json").write_text(json.dumps(METRICS))
    return tmp_path


def one(latent_dim: int = 16, **values: Any) -> Evaluation:
    """An evaluation of three test digits, a 4 and two 7s."""
    results = made_up.result([1, 2, 3], latent_dim, **values), made_up.result([2, 3, 4], latent_dim)
    return made_up.evaluation(*results, labels=[4, 7, 7])


def test_a_picture_has_digits_above_reconstructions_above_samples() -> None:
    evaluation = one()
    figure = draw_model(evaluation.model, evaluation.digits, classes=2)
    (ax,) = figure.axes
    shown = np.asarray(ax.images[0].get_array())
    assert [label.get_text() for label in ax.get_yticklabels()] == ["test digits", "reconstructions", "samples"]
    height, width = evaluation.digits.images.shape[1:]
    for row, pictures in enumerate(
        (evaluation.digits.images, evaluation.model.reconstructions, evaluation.model.samples[:, 0])
    ):
        for column in range(2):
            top, left = row * (height + 1), column * (width + 1)
            np.testing.assert_array_equal(shown[top : top + height, left : left + width], pictures[column])
        assert top < ax.get_yticks()[row] < top + height
    plt.close(figure)


def test_classes_that_training_lacked_are_not_drawn() -> None:
    """Of the classes 4 and 7 only 7 was trained, so samples are of 7 alone."""
    model, pca = made_up.result([1, 2, 3], classes=2), made_up.result([1, 2, 3])
    model = replace(model, samples=model.samples[:1])
    evaluation = replace(made_up.evaluation(model, pca, [4, 7, 7]), digits=made_up.digits([4, 7, 7], trained=[7]))
    figure = draw_model(model, evaluation.digits, classes=2)
    shown = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_array_equal(shown[: made_up.HEIGHT], evaluation.digits.images[1])
    plt.close(figure)


def test_without_a_name_what_is_not_trained_is_left_out(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`denoising` is trained, but was not put to use."""
    ended = made_up.call_main(gallery.main, monkeypatch, capsys)
    assert ended.status == 1
    assert "the preset sparse is not trained and evaluated; run `python -m stages.train sparse && " in ended.err
    for name in ("best16", "denoising"):
        written = choose_model(PARAMS, name).files
        written.model.parent.mkdir(parents=True, exist_ok=True)
        written.model.touch()
        with written.evaluation.open("wb") as file:
            save_record(file, replace(one(), loss=np.ones(choose_model(PARAMS, name).settings.epochs)))
    ended = made_up.call_main(gallery.main, monkeypatch, capsys)
    assert ended.status == 0
    notes = ended.err.splitlines()
    assert len(notes) == len(PARAMS.presets) - 1
    missing = "data/presets/denoising.application.npz is missing; run `python -m stages.apply denoising`."
    assert f"note: left out: {missing}" in notes
    assert [path.name for path in Path("plots/gallery").iterdir()] == ["best16.png"]
    assert ended.out.splitlines()[-1].startswith("| `best16` ")


def test_samples_stand_below_their_class() -> None:
    """Of the trained classes 1, 4 and 7, no test image is a 4."""
    model = made_up.result([1, 2, 3], classes=3)
    model = replace(model, reconstructions=model.reconstructions[:2])
    digits = made_up.digits([1, 7, 7], trained=[1, 4, 7])
    figure = draw_model(model, digits, classes=10)
    shown, height, width = np.asarray(figure.axes[0].images[0].get_array()), made_up.HEIGHT, made_up.WIDTH
    for column, sampled in enumerate((0, 2)):
        left = column * (width + 1)
        below = shown[2 * (height + 1) : 3 * height + 2, left : left + width]
        np.testing.assert_array_equal(below, model.samples[sampled, 0])
    plt.close(figure)


def test_a_preset_without_its_parameters_has_an_empty_cell(here: Path) -> None:
    """auroc takes their place where training lacked a class."""
    without = {key: value for key, value in METRICS.items() if key != "parameters"} | {"auroc": 0.9}
    (here / "metrics/best16.json").write_text(json.dumps(without))
    row = gallery.gallery_table([choose_model(PARAMS, "best16")]).splitlines()[-1]
    assert [cell.strip() for cell in row.split("|")][-3:] == ["0.8500", "", ""]


@pytest.mark.parametrize(
    ("latent_dim", "name"), [(4, "denoising"), (made_up.HEIGHT * made_up.WIDTH, "denoising (overcomplete)")]
)
def test_a_preset_that_saw_noise_is_drawn_with_noisy_digits(
    here: Path, monkeypatch: pytest.MonkeyPatch, latent_dim: int, name: str
) -> None:
    tables = []

    def spy(images: np.ndarray, denoised: dict[str, Any], table: pd.DataFrame) -> Figure:
        tables.append(table)
        return draw_denoising(images, denoised, table)

    monkeypatch.setattr(gallery, "draw_denoising", spy)
    choice = choose_model(PARAMS, "denoising")
    choice.files.application.parent.mkdir(parents=True)
    CLASSICAL.parent.mkdir(parents=True)
    for path, record in ((choice.files.application, made_up.application()), (CLASSICAL, made_up.classical())):
        with path.open("wb") as file:
            save_record(file, record)
    drawn = gallery.draw_preset(choice, one(latent_dim), PARAMS)
    assert [path.name for path in drawn] == ["denoising.png", "denoising-noisy.png"]
    (table,) = tables
    assert table[table["kind"] == "model"]["method"].unique().tolist() == [name]


@pytest.mark.parametrize(("latent_dim", "expected"), [(16, ["best16"]), (2, ["best16", "best16-map"])])
def test_a_preset_has_the_pictures_that_suit_it(latent_dim: int, expected: list[str]) -> None:
    evaluation = one(latent_dim)
    drawn = gallery.draw_preset(choose_model(PARAMS, "best16"), evaluation, PARAMS)
    assert [str(path) for path in drawn] == [f"plots/gallery/{stem}.png" for stem in expected]


def test_the_table_has_settings_and_metrics(here: Path) -> None:
    table = gallery.gallery_table([choose_model(PARAMS, "best16")])
    cells = [cell.strip() for cell in table.splitlines()[2].strip("|").split("|")]
    assert cells == ["`best16`", "120", "16", "0.005123", "0.02680", "0.9000", "0.8500", "1234567"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, r"metrics/best16\.json is missing; run `python -m stages\.evaluate best16`\."),
        ("{", r"metrics/best16\.json does not have mse, mse_pca, .*; run"),
        ('{"mse": 1}', "does not have"),
    ],
)
def test_broken_metrics_are_named(here: Path, text: str | None, reason: str) -> None:
    path = here / "metrics/best16.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(StageError, match=reason):
        gallery.gallery_table([choose_model(PARAMS, "best16")])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["best17"], r"no preset 'best17' \(did you mean best16\?\)"),
        (["deep"], "no preset 'deep'"),
        ([], "the preset .* is not trained and evaluated; run `python -m stages.train"),
    ],
)
def test_what_cannot_be_drawn_is_said(
    here: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], reason: str
) -> None:
    monkeypatch.setattr("sys.argv", ["gallery", *arguments])
    with pytest.raises((ParamsError, StageError), match=reason):
        gallery.main()
    assert not (here / "plots").exists()


@pytest.mark.parametrize(("early_stopping", "epochs", "current"), [
    (0, 120, True), (0, 119, False), (0, 121, False), (5, 119, True), (5, 120, True), (5, 121, False),
])  # fmt: skip
def test_an_evaluation_of_other_settings_is_not_drawn(
    here: Path, early_stopping: int, epochs: int, current: bool
) -> None:
    """Of another latent size or number of epochs; early stopping leaves fewer."""
    choice = choose_model(PARAMS, "best16")
    choice = choice._replace(settings=choice.settings.model_copy(update={"early_stopping": early_stopping}))
    choice.files.evaluation.parent.mkdir(parents=True)
    for latent_dim in (16, 15):
        evaluation = replace(one(latent_dim), loss=np.ones(epochs))
        with choice.files.evaluation.open("wb") as file:
            save_record(file, evaluation)
        if current and latent_dim == 16:
            gallery.check_current(choice)
        else:
            with pytest.raises(StageError, match=rf"npz is of {epochs} epochs and latent_dim {latent_dim}, but "):
                gallery.check_current(choice)


def test_it_draws_what_was_trained(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    files = choose_model(PARAMS, "best16").files
    files.evaluation.parent.mkdir(parents=True)
    with files.evaluation.open("wb") as file:
        save_record(file, replace(one(), loss=np.ones(120)))
    files.model.write_bytes(b"not read")
    monkeypatch.setattr("sys.argv", ["gallery", "best16"])
    gallery.main()
    assert "| `best16` |" in capsys.readouterr().out
    with Image.open(here / "plots/gallery/best16.png") as picture:
        assert picture.width > 300
