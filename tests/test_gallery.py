"""The gallery of presets, drawn from made-up evaluations; the page itself is checked in test_docs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import sklearn.decomposition
from PIL import Image

from stages.applications.denoising import CLASSICAL
from stages.applications.schema import ApplicationParams
from stages.core.errors import ParamsError, StageError
from stages.core.evaluation import Evaluation
from stages.core.files import SPLITS, images_path, labels_path
from stages.core.params import Choice, choose_model, read_params
from stages.core.records import save_record
from stages.core.style import COLOURS
from stages.tools import gallery
from stages.tools.trained import TrainedModel
from tests import made_up
from tests.conftest import ROOT

pytestmark = pytest.mark.quick
PARAMS = read_params(ApplicationParams, ROOT / "params.yaml")
FEW = PARAMS.model_copy(update={"denoise": PARAMS.denoise.model_copy(update={"noise": [0.3], "validation_images": 2})})
TINY = {"layers": "dense", "hidden_units": [], "normalization": "none", "latent_dim": 2}  # compiles soon
METRICS = {"mse": 0.00512345, "mse_pca": 0.0268, "ssim": 0.9, "probe": 0.85, "parameters": 1234567}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with nothing but settings, and the metrics of one preset."""
    monkeypatch.chdir(tmp_path)
    for name in ("params.yaml", "presets.yaml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/best16.json").write_text(json.dumps(METRICS))
    return tmp_path


def one(latent_dim: int = 16, **values: Any) -> Evaluation:
    """An evaluation of three test digits, a 4 and two 7s."""
    results = made_up.result([1, 2, 3], latent_dim, **values), made_up.result([2, 3, 4], latent_dim)
    return made_up.evaluation(*results, labels=[4, 7, 7])


@pytest.mark.parametrize(
    ("labels", "trained", "columns"), [([7, 4, 7], [7], [(1, 0)]), ([1, 7, 8], [1, 4, 7, 8], [(0, 0), (1, 2)])]
)
def test_digits_are_above_their_reconstructions_and_samples_of_their_class(
    labels: list[int], trained: list[int], columns: list[tuple[int, int]]
) -> None:
    """Classes that training lacked are not drawn. columns: each one's test digit and samples."""
    digits = made_up.digits(labels, trained=trained)
    model = made_up.result([1, 2, 3], classes=4)
    samples = model.pictures.samples[: len(trained)]
    model = replace(model, pictures=replace(model.pictures, samples=samples))
    figure = gallery.draw_model(model, digits, classes=2)
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["test digits", "reconstructions", "samples"]
    shown, height, width = np.asarray(ax.images[0].get_array()), made_up.HEIGHT + 1, made_up.WIDTH + 1
    assert shown.shape == (3 * height - 1, len(columns) * width - 1)
    for column, (digit, sampled) in enumerate(columns):
        reconstruction = model.reconstructions[digits.shown[digit]] / 255
        for row, expected in enumerate((digits.images[digit], reconstruction, samples[sampled, 0])):
            top, left = row * height, column * width
            np.testing.assert_array_equal(shown[top : top + height - 1, left : left + width - 1], expected)
    plt.close(figure)


def save_evaluation(choice: Choice, evaluation: Evaluation) -> None:
    choice.files.evaluation.parent.mkdir(parents=True, exist_ok=True)
    with choice.files.evaluation.open("wb") as file:
        save_record(file, evaluation)


def test_without_a_name_what_is_not_trained_is_left_out(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = made_up.call_main(gallery.main, monkeypatch, capsys)
    assert ended.status == 1
    assert "the preset sparse is not trained and evaluated; run `python -m stages.train sparse && " in ended.err
    assert not Path("plots").exists()
    choice = choose_model(PARAMS, "best16")
    save_evaluation(choice, replace(one(), loss=np.ones(choice.settings.epochs)))
    choice.files.model.parent.mkdir(parents=True, exist_ok=True)
    choice.files.model.write_bytes(b"not read")
    ended = made_up.call_main(gallery.main, monkeypatch, capsys)
    assert ended.status == 0
    assert len(ended.err.splitlines()) == len(PARAMS.presets) - 1
    (path,) = Path("plots/gallery").iterdir()
    assert path.name == "best16.png"
    with Image.open(path) as picture:
        assert picture.width > 300
    assert ended.out.splitlines()[-1].startswith("| `best16` ")


@pytest.fixture
def denoising(here: Path, mnist: dict[str, tuple[np.ndarray, np.ndarray]], monkeypatch: pytest.MonkeyPatch) -> Choice:
    """The preset `denoising`, untrained, with 15 real images of each split and what `classical` makes of the noise."""
    from stages.classical import measure_classical
    from stages.core import backend  # loads TensorFlow, which may have run already in this process
    from stages.core.autoencoder import build_autoencoder

    monkeypatch.setattr(backend, "use_all_cores", lambda: None)
    (here / "data/prepared").mkdir(parents=True)
    for split in SPLITS:
        images, labels = mnist["test" if split == "test" else "train"]
        np.save(images_path(split), images[:15])
        np.save(labels_path(split), labels[:15])
    CLASSICAL.parent.mkdir()
    with CLASSICAL.open("wb") as file:
        save_record(file, measure_classical(FEW.denoise, "validation"))
    choice = choose_model(PARAMS, "denoising")
    for one in (choice, *(choose_model(PARAMS, name) for name in PARAMS.models)):
        one.files.model.parent.mkdir(exist_ok=True)
        build_autoencoder(28, 28, one.settings.model_copy(update=TINY)).save(one.files.model)
    return choice


def test_a_preset_that_saw_noise_is_drawn_with_noisy_digits(denoising: Choice) -> None:
    """Every method has a row and a curve; the models of params.yaml keep their colours."""
    figure, table = gallery.draw_noisy(denoising, FEW)
    digits, chart = figure.axes[:2]
    rows = [label.get_text() for label in digits.get_yticklabels()]
    assert [rows[0], rows[1], *rows[-3:]] == ["original", "noisy image", *PARAMS.models, "denoising"]
    drawn_in = {str(container.get_label()): container[0].get_color() for container in chart.containers}
    assert set(drawn_in) == set(rows[1:]) == set(table["method"])
    assert [drawn_in[name] for name in rows[-3:]] == list(COLOURS[:3])
    assert len(set(drawn_in.values())) == len(drawn_in)
    assert {text.get_text(): text.get_color() for text in chart.texts} == drawn_in
    plt.close(figure)
    drawn = gallery.draw_preset(denoising, one(), FEW)
    assert [path.name for path in drawn] == ["denoising.png", "denoising-noisy.png", "denoising-noisy.csv"]
    other = FEW.model_copy(update={"denoise": FEW.denoise.model_copy(update={"seed": 1})})
    with pytest.raises(StageError, match=rf"{CLASSICAL} .*`denoise`.*`dvc repro`"):
        gallery.draw_preset(denoising, one(), other)


# Its pictures have two pixels, the numbers of their code.
SHOWS_CODES = TrainedModel("made up", 1, 2, 2, lambda images: images, lambda codes: codes, np.zeros(1))


@pytest.mark.parametrize(("latent_dim", "expected"), [(16, ["best16"]), (2, ["best16", "best16-plane"])])
def test_a_preset_has_the_pictures_that_suit_it(
    latent_dim: int, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "load_model", lambda choice: SHOWS_CODES)
    evaluation = one(latent_dim)
    drawn = gallery.draw_preset(choose_model(PARAMS, "best16"), evaluation, PARAMS)
    assert [str(path) for path in drawn] == [f"plots/gallery/{stem}.png" for stem in expected]


def test_a_decoded_code_has_the_same_place_as_on_the_map() -> None:
    """In both pictures, the first number grows to the right and the second upwards; outliers are left out."""
    codes = np.random.default_rng(0).normal(size=(1000, 2)).astype(np.float32) * [1, 5]
    figure = gallery.draw_plane(codes, np.zeros(1000, np.uint8), SHOWS_CODES)
    (left, right), (bottom, top) = np.quantile(codes, [0.01, 0.99], axis=0).T
    for ax in figure.axes:
        assert (*ax.get_xlim(), *ax.get_ylim()) == pytest.approx((left, right, bottom, top))
    pixels = np.asarray(figure.axes[1].images[0].get_array())
    for row, column, code in ((0, 0, (left, top)), (0, -2, (right, top)), (-1, 0, (left, bottom))):
        assert pixels[row, [column, column + 1]].tolist() == pytest.approx(code)
    assert figure.axes[1].images[0].get_extent() == pytest.approx((left, right, bottom, top))
    plt.close(figure)


def test_a_sparse_code_is_compared_with_pca_of_the_numbers_that_it_uses(
    here: Path, mnist: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    train, test = (images.reshape(len(images), -1) / 255 for images, _ in (mnist["train"], mnist["test"]))
    (here / "data/prepared").mkdir(parents=True)
    np.save(images_path("test"), mnist["test"][0])
    theirs = sklearn.decomposition.PCA(3, svd_solver="full").fit(train)
    everything = sklearn.decomposition.PCA(svd_solver="full").fit(train)
    codes = np.zeros((3, 1000), np.float32)
    codes[[0, 0, 1, 1, 1, 2, 2, 2, 2], [1, 999, 0, 4, 5, 9, 10, 11, 500]] = 0.5  # 2, 3 and 4 numbers
    sparse = replace(one(1000, codes=codes), pca_mean=everything.mean_, pca_components=everything.components_)
    sparse = replace(sparse, digits=replace(sparse.digits, images=np.zeros((1, 28, 28), np.float32)))
    expected = np.square(theirs.inverse_transform(theirs.transform(test)).clip(0, 1) - test).mean()
    note = gallery.compare_sparse("sparse", sparse)
    assert note == f"A code of sparse uses 3 numbers on average; PCA (3) has an mse of {expected:#.4g}."


def test_the_table_has_settings_and_metrics(here: Path) -> None:
    table = gallery.gallery_table([choose_model(PARAMS, "best16")])
    row = ["`best16`", "120", "16", "0.005123", "0.02680", "0.9000", "0.8500", "1,234,567"]
    assert [cell.strip() for cell in table.splitlines()[2].split("|")][1:-1] == row


@pytest.mark.parametrize("text", [None, "{", '{"mse": 1}'])
def test_broken_metrics_are_named(here: Path, text: str | None) -> None:
    path = here / "metrics/best16.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(StageError, match=r"metrics/best16\.json .*; run `python -m stages\.evaluate best16`"):
        gallery.gallery_table([choose_model(PARAMS, "best16")])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("best17", r"no preset 'best17' \(did you mean best16\?\)"),
        ("best16", "the preset best16 is not trained and evaluated; run `python -m stages.train best16"),
    ],
)
def test_what_cannot_be_drawn_is_said(here: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str) -> None:
    monkeypatch.setattr("sys.argv", ["gallery", name])
    with pytest.raises((ParamsError, StageError), match=reason):
        gallery.main()


@pytest.mark.parametrize(
    ("early_stopping", "latent_dim", "epochs", "current"),
    [
        (0, 16, 120, True),
        (0, 16, 119, False),
        (5, 16, 119, True),
        (5, 16, 121, False),
        (0, 15, 120, False),
    ],
)
def test_an_evaluation_of_other_settings_is_not_drawn(
    here: Path, early_stopping: int, latent_dim: int, epochs: int, current: bool
) -> None:
    """Of another latent size or number of epochs; early stopping leaves fewer."""
    choice = choose_model(PARAMS, "best16")
    choice = choice._replace(settings=choice.settings.model_copy(update={"early_stopping": early_stopping}))
    save_evaluation(choice, replace(one(latent_dim), loss=np.ones(epochs)))
    if current:
        gallery.check_current(choice)
    else:
        with pytest.raises(StageError, match=rf"npz has {epochs} epochs and latent_dim {latent_dim}, but "):
            gallery.check_current(choice)
