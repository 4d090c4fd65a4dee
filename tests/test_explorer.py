"""What the explorer computes, without a browser: as functions of arrays, and answers on models trained on a few."""

import base64
import contextlib
import gc
import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from stages.core.errors import StageError
from stages.core.evaluation import load_evaluation
from stages.core.files import Split
from stages.core.params import read_params
from stages.core.schema import Params
from stages.core.style import BASELINE_COLOURS
from stages.tools.explore import answers, library
from stages.tools.explore.answers import Question, following
from stages.tools.explore.atlas import Atlas, class_codes, make_atlas, neighbours, traversals
from stages.tools.explore.library import Entry, Library
from stages.tools.explore.pixels import data_uri, grey, png_bytes, read_drawing, signed
from stages.tools.explore.scenes import Scene, read_scene, write_scene
from tests.conftest import call, change_params

quick = pytest.mark.quick


def pixels_of(uri: str) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(base64.b64decode(uri.partition(",")[2]))))


# --- links -----------------------------------------------------------------------------------

codes = st.none() | arrays.arrays(np.float32, st.integers(1, 40), elements=st.floats(-(2.0**49), 2.0**49, width=32))
scenes = st.builds(
    Scene,
    st.text(st.characters(categories=("L", "N")), min_size=1, max_size=20) | st.just("PCA (16)"),
    st.integers(0, 10**9 - 1),
    st.none() | arrays.arrays(np.uint8, (5, 7)),
    codes,
    codes,
)


@quick
@given(scenes)
def test_a_link_restores_its_scene_exactly(scene: Scene) -> None:
    found = read_scene(write_scene(scene), 5, 7, "none")
    assert found.model == scene.model
    assert found.digit == (scene.digit if scene.image is None else 0)
    for one, other in zip(found[2:], scene[2:], strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_array_equal(one, other)


@quick
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"digit": "-1"}, "'-1', but must be a whole number"),
        ({"digit": "12345678901"}, "must be a whole number"),
        ({"code": "1,two"}, "'1,two', but must be a list of numbers"),
        ({"code": "1,nan"}, "not finite"),
        ({"from": "3e38"}, r"beyond ±1e\+15"),
        ({"image": "zzzz"}, "image is broken"),
        ({"image": "eJwDAAAAAAE"}, "must have 5×7 pixels"),
    ],
)
def test_a_broken_link_is_refused(fields: dict[str, str], reason: str) -> None:
    with pytest.raises(StageError, match=reason):
        read_scene(fields, 5, 7, "deep")


# --- codes -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def train() -> Split:
    """Training images that are their own codes: three numbers, which differ by class."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.array([2, 5, 7], np.uint8), 400)
    return Split((random.normal(100, [5, 10, 15], (1200, 3)) + labels[:, None]).astype(np.uint8), labels)


@pytest.fixture(scope="module")
def atlas(train: Split) -> Atlas:
    return make_atlas(lambda pixels: pixels, train, train.images[::4] / 255)


@quick
def test_an_atlas_holds_what_numpy_says(atlas: Atlas, train: Split) -> None:
    codes = train.images / 255
    np.testing.assert_allclose(atlas.train_codes, codes, rtol=1e-6)
    np.testing.assert_allclose(atlas.mean, codes.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(atlas.quartiles, np.percentile(codes, (25, 50, 75), axis=0), rtol=1e-6)
    np.testing.assert_allclose(atlas.ends, np.percentile(codes, (0.1, 99.9), axis=0), rtol=1e-6)
    np.testing.assert_allclose(atlas.class_means[1], codes[train.labels == 5].mean(axis=0), rtol=1e-5)
    assert atlas.classes.tolist() == [2, 5, 7]
    assert (class_codes(atlas, 7) == atlas.train_codes[800:]).all()


@quick
def test_neighbours_are_the_nearest_codes(atlas: Atlas) -> None:
    distances = np.linalg.norm(atlas.train_codes - atlas.train_codes[17], axis=1)
    found = neighbours(atlas, atlas.train_codes[17], 6)
    np.testing.assert_allclose(distances[found], np.sort(distances)[:6])
    assert len(neighbours(atlas, atlas.train_codes[17], 5000)) == len(atlas.train_codes)


@quick
def test_traversals_move_one_number_at_a_time(atlas: Atlas) -> None:
    code = atlas.train_codes[0]
    moved = traversals(atlas, code)
    for i in range(3):
        np.testing.assert_allclose(moved[i, :, i], atlas.ends[:, i])
        others = [j for j in range(3) if j != i]
        np.testing.assert_allclose(moved[i][:, others], np.tile(code[others], (2, 1)))


@quick
def test_a_button_goes_to_the_next_digit_and_starts_over() -> None:
    positions = np.array([3, 8, 20])
    assert [following(positions, here) for here in (-1, 3, 8, 20)] == [3, 8, 20, 3]
    with pytest.raises(StageError):
        following(np.array([], int), 0)


# --- pixels ----------------------------------------------------------------------------------


@quick
def test_pictures_keep_every_pixel() -> None:
    picture = np.random.default_rng(0).random((9, 5))
    assert (pixels_of(data_uri(grey(picture))) == np.rint(picture * 255)).all()
    assert grey(np.array([[-0.2, 1.3]])).tolist() == [[0, 255]]


@quick
def test_lost_ink_is_red_added_ink_blue_and_nothing_white() -> None:
    lost, none, added = signed(np.array([-1.0, 0.0, 1.0]))
    assert lost[0] > 100 > lost[2]
    assert none.min() > 240
    assert added[2] > 90 > added[0]


@quick
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"half", "not a complete PNG"),
        (png_bytes(np.full((50, 50), 255, np.uint8))[:70], "not a complete PNG"),
        (png_bytes(np.full((2, 2000), 255, np.uint8)), "2000 pixels on a side, but at most 1024"),
        (png_bytes(np.zeros((50, 50), np.uint8)), "empty"),
    ],
)
def test_a_drawing_that_is_none_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(StageError, match=reason):
        read_drawing(content)


# --- answers on trained models ---------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(run_template: Path) -> Iterator[Library]:
    """The models of the small run, in whose folder the tests work."""
    with contextlib.chdir(run_template):
        yield Library(read_params(Params))


def ask(trained: Library, scene: Scene, **question: Any) -> answers.Answer:
    return answers.answer(trained, scene, Question(**question))


def test_an_answer_is_what_keras_computes(trained: Library) -> None:
    import keras

    found = ask(trained, Scene("deep", 3), tab="Code")
    model = keras.saving.load_model("data/models/deep.keras", compile=False)
    image = np.load("data/prepared/test_images.npy")[3]
    pixels = image.reshape(1, -1).astype(np.float32) / 255
    decoded = np.asarray(model(pixels))
    assert (pixels_of(found["input"]) == image).all()
    assert np.abs(pixels_of(found["reconstruction"]).ravel() - decoded[0] * 255).max() < 1
    np.testing.assert_allclose(found["code"], np.asarray(model.get_layer("encoder")(pixels))[0], atol=1e-4)
    assert found["squared_error"] == pytest.approx(((decoded - pixels) ** 2).sum(), rel=1e-4)
    assert {row["name"] for row in found["side"]} == {"shallow", "deep", "PCA (16)"}
    assert [pixels_of(preview).shape for preview in found["previews"]] == [(28, 28)] * 2 * 16
    errors = np.load("data/evaluation/deep.npz")["model.squared_error"]
    assert found["percentile"] == pytest.approx((errors < errors[3] * (1 - 1e-6)).mean() * 100, abs=1)


def test_facts_are_those_of_the_metrics_and_baselines_are_grey(trained: Library) -> None:
    metrics = json.loads(Path("metrics/deep.json").read_text())
    fact = next(row["fact"] for row in ask(trained, Scene("deep"))["side"] if row["name"] == "deep")
    assert f"deep loses {metrics['mse'] * 784:.2f} of squared error" in fact
    assert f"{metrics['mse'] / metrics['mse_pca']:.2f} times what PCA" in fact
    assert f"reads the class from {metrics['probe']:.1%}" in fact
    assert answers.start(trained)["colours"]["PCA (16)"] == BASELINE_COLOURS[0]


@pytest.mark.parametrize("model", ["deep", "PCA (16)"])
def test_errors_and_ranks_of_anomalies_are_those_of_the_pipeline(trained: Library, model: str) -> None:
    evaluation = load_evaluation(Path("data/evaluation/deep.npz"))
    result = evaluation.model if model == "deep" else evaluation.baselines[0]
    ink = np.load("data/prepared/test_images.npy").sum(axis=(1, 2))
    centred = result.codes - result.code_mean
    distance = (centred @ np.linalg.inv(result.code_covariance) * centred).sum(axis=1)
    score = (result.squared_error / ink) ** 2 * distance
    for digit in (int(score.argmin()), 3, int(score.argmax())):
        found = ask(trained, Scene(model, digit))
        assert found["anomaly"] == pytest.approx((score < score[digit]).mean() * 100, abs=1)
        assert found["squared_error"] == pytest.approx(result.squared_error[digit], rel=1e-4)
    assert ask(trained, Scene(model), do="mean", label=9)["anomaly"] is None


def test_buttons_move_where_they_say(trained: Library) -> None:
    errors = np.load("data/evaluation/deep.npz")["model.squared_error"]
    order = np.argsort(errors).tolist()
    for do, here, expected in (("best", 99, order[0]), ("worst", order[0], order[-1]), ("worst", order[-1], order[-2])):
        assert ask(trained, Scene("deep", here), do=do)["scene"]["digit"] == str(expected)
    assert ask(trained, Scene("deep"), do="class", label=4)["label"] == 4
    assert 0 <= int(ask(trained, Scene("deep"), do="random")["scene"]["digit"]) < len(errors)
    codes = class_codes(trained.atlas("deep"), 9)
    mean = ask(trained, Scene("deep"), do="mean", label=9)["code"]
    np.testing.assert_allclose(mean, codes.mean(axis=0), rtol=1e-5)
    samples = [ask(trained, Scene("deep"), do="sample", label=9)["code"] for _ in range(20)]
    assert np.ptp(samples, axis=0).any()
    assert (np.abs(np.mean(samples, axis=0) - mean) <= 2 * codes.std(axis=0) + 1e-6).all()
    assert len(ask(trained, Scene("deep", 1, start=np.array(mean, np.float32)), tab="Code")["walk"]) == answers.STEPS


def test_refining_lowers_the_error_of_a_network_and_keeps_the_code_of_pca(trained: Library) -> None:
    before, after = ask(trained, Scene("deep", 3)), ask(trained, Scene("deep", 3), do="refine")
    assert after["squared_error"] < before["squared_error"]
    again = ask(trained, read_scene(after["scene"], 28, 28, "none"), do="refine")
    assert again["squared_error"] < after["squared_error"]
    moved = Scene("PCA (16)", 3, code=np.ones(16, np.float32))
    assert ask(trained, moved, do="refine")["code"] == ask(trained, Scene("PCA (16)", 3))["code"]


@pytest.mark.parametrize(
    ("scene", "question", "reason"),
    [
        (Scene("deeep"), {}, r"did you mean deep\?"),
        (Scene("deep", 999999), {}, "no test digit 999999"),
        (Scene("deep", code=np.ones(2, np.float32)), {}, "2 numbers, but deep has 16"),
        (Scene("deep"), {"do": "class", "label": 12}, "no test digit"),
        (Scene("deep"), {"do": "mean", "label": 12}, "class 12"),
        (Scene("deep"), {"photo": "note.png", "picture": base64.b64encode(b"text")}, "^note.png.* image"),
    ],
)
def test_what_cannot_be_answered_is_refused(trained: Library, scene: Scene, question: Any, reason: str) -> None:
    with pytest.raises(StageError, match=reason):
        ask(trained, scene, **question)


def test_only_so_many_models_are_in_memory(trained: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "KEPT", 1)
    gc.collect()
    before = sum(isinstance(one, Entry) for one in gc.get_objects())
    few = Library(read_params(Params))
    for name in (*few.names, few.names[0]):
        assert few.entry(name).model.name == name
        assert sum(isinstance(one, Entry) for one in gc.get_objects()) <= before + 2  # the last, and the present one


def test_a_broken_model_is_reported_and_mended_without_a_restart(run_project: Path) -> None:
    with contextlib.chdir(run_project):
        models = Library(read_params(Params))
        path = Path("data/models/deep.keras")
        whole = path.read_bytes()
        path.unlink()
        for content, reason in ((None, "data/models/deep.keras is missing"), (whole[:1000], "data/models/deep.keras")):
            if content is not None:
                path.write_bytes(content)
            with pytest.raises(StageError, match=reason):
                ask(models, Scene("deep"))
            side = ask(models, Scene("shallow"))["side"]
            assert reason in next(row for row in side if row["name"] == "deep")["problem"]
        path.write_bytes(whole)
        assert ask(models, Scene("deep"))["scene"]["model"] == "deep"
        change_params(run_project, lambda params: params["models"]["deep"].update(latent_dim=15))
        models = Library(read_params(Params))
        for name in ("deep", "PCA (15)"):
            with pytest.raises(StageError, match=r"latent_dim 16, but models\.deep\.latent_dim is 15; run `dvc repro`"):
                ask(models, Scene(name))


# --- the command -----------------------------------------------------------------------------


def explore(project: Path, *arguments: str, **options: Any) -> tuple[int, str]:
    result = call(project, "python", "-m", "stages", "explore", "--no-browser", *arguments, **options)
    return result.returncode, result.stderr


def test_wrong_arguments_end_with_a_sentence(project: Path, run_template: Path) -> None:
    status, errors = explore(project, "--port", "99999")
    assert (status, "must be from 1 to 65535" in errors) == (2, True)
    status, errors = explore(project, "--host", "127..0.1")
    assert (status, "not an address of this machine" in errors) == (2, True)
    status, errors = explore(project, "--host", "0.0.0.0")
    assert (status, "without a password" in errors) == (1, True)
    assert "data/prepared/test_images.npy is missing; run `dvc repro prepare`." in errors
    assert "Traceback" not in errors
    status, errors = explore(run_template, "--model", "deeep")
    assert (status, "did you mean deep?" in errors) == (2, True)
    status, errors = explore(run_template, "--model", "best16")
    remedy = "the preset best16 is not trained and evaluated; run `python -m stages.train best16 && "
    assert (status, remedy in errors) == (1, True)
