"""What the explorer computes, without a browser: as functions of arrays, and answers on models trained on a few."""

import base64
import os
import threading
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
from stages.core.linear import fit_pca, image_moments
from stages.core.params import choose_model, read_params
from stages.core.schema import Params
from stages.explorer import answers, library
from stages.explorer.atlas import class_of, encode_to_file, line, make_atlas, neighbours, random_code, traversals
from stages.explorer.library import Library
from stages.explorer.measured import model_sentence, pair_sentences
from stages.explorer.pixels import data_uri, grey, read_drawing, signed, sprite
from stages.explorer.scenes import LONGEST, Scene, read_link, write_link
from stages.tools.explore import OF_ALL, in_address
from tests.conftest import ROOT, call, change_params

quick = pytest.mark.quick
WANT = {"want": list(answers.PARTS)}


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
    found = read_link(write_link(scene), 5, 7, "none")
    assert found.model == scene.model
    assert found.digit == (scene.digit if scene.image is None else 0)
    for one, other in zip(found[2:], scene[2:], strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_array_equal(one, other)


@quick
@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("digit=-1", "has to be a whole number"),
        ("digit=12345678901", "has to be a whole number"),
        ("code=1,two", "no list of numbers"),
        ("code=1,nan", "not finite"),
        ("code=1e99", "not finite"),
        ("code=3e38", r"beyond ±1e\+15"),
        ("&".join(f"a{number}=1" for number in range(101)), "too many parts"),
        ("image=zzzz", "broken"),
        ("image=eJwDAAAAAAE", "not one of 5×7"),
        ("code=" + "1," * LONGEST, "too long"),
    ],
)
def test_a_broken_link_says_so(link: str, reason: str) -> None:
    with np.errstate(over="ignore"), pytest.raises(StageError, match=reason):
        read_link(link, 5, 7, "deep")


# --- codes -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def some_codes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training codes, their labels, and test codes."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.array([2, 5, 7], np.uint8), 400)
    train = random.normal(size=(1200, 3)).astype(np.float32) * [1, 2, 3] + labels[:, None]
    return train.astype(np.float32), labels, train[::4].astype(np.float32)


@quick
def test_an_atlas_holds_what_numpy_says(some_codes: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    train, labels, test = some_codes
    atlas = make_atlas(train, labels, test)
    np.testing.assert_allclose(atlas.mean, train.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(atlas.quartiles, np.percentile(train, (25, 50, 75), axis=0), rtol=1e-6)
    np.testing.assert_allclose(atlas.ends, np.percentile(train, (0.1, 99.9), axis=0), rtol=1e-6)
    np.testing.assert_allclose(atlas.class_means[1], train[labels == 5].mean(axis=0), rtol=1e-5)
    centred = test - test.mean(axis=0)
    _, scales, axes = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(atlas.points), np.abs(centred @ axes[:2].T), atol=1e-3)
    assert atlas.share == pytest.approx((scales[:2] ** 2).sum() / (scales**2).sum(), rel=1e-5)


@quick
def test_a_class_that_was_not_trained_has_no_mean(some_codes: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    atlas = make_atlas(*some_codes)
    assert [class_of(atlas, label) for label in (2, 5, 7)] == [0, 1, 2]
    with pytest.raises(StageError, match=r"no training digit is of class 3\."):
        random_code(atlas, 3, seed=0)


@quick
def test_a_code_of_one_number_has_a_map_too(some_codes: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    train, labels, test = (values[:, :1] if values.ndim > 1 else values for values in some_codes)
    atlas = make_atlas(train, labels, test)
    assert atlas.points.shape == (len(test), 2)
    assert not atlas.points[:, 1].any()
    assert atlas.share == pytest.approx(1)


@quick
def test_neighbours_are_the_nearest_codes(some_codes: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    train, labels, test = some_codes
    atlas = make_atlas(train, labels, test)
    distances = np.linalg.norm(train - train[17], axis=1)
    assert neighbours(atlas, train[17], 6).tolist() == np.argsort(distances, kind="stable")[:6].tolist()
    assert len(neighbours(atlas, train[17], 5000)) == len(train)


@quick
def test_a_class_gaussian_has_the_classes_mean(some_codes: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    train, labels, test = some_codes
    atlas = make_atlas(train, labels, test)
    drawn = np.stack([random_code(atlas, 7, seed) for seed in range(300)])
    np.testing.assert_allclose(drawn.mean(axis=0), train[labels == 7].mean(axis=0), atol=0.6)
    assert (random_code(atlas, 7, 1) == random_code(atlas, 7, 1)).all()


@quick
def test_lines_and_traversals_move_nothing_else(some_codes: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    train, labels, test = some_codes
    atlas = make_atlas(train, labels, test)
    way = line(train[0], train[1], 5)
    np.testing.assert_allclose(way[[0, 2, 4]], [train[0], (train[0] + train[1]) / 2, train[1]], rtol=1e-5)
    moved = traversals(atlas, train[0])
    for i in range(3):
        np.testing.assert_allclose(moved[i, :, i], atlas.ends[:, i])
        others = [j for j in range(3) if j != i]
        np.testing.assert_allclose(moved[i][:, others], np.tile(train[0][others], (2, 1)))


@quick
def test_codes_of_a_split_come_from_a_file_of_that_size(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2500, 12), np.uint8)
    pca = fit_pca(image_moments(images, 1000), 4)
    found = encode_to_file(pca.encode, images, tmp_path / "codes.npy")
    assert isinstance(found, np.memmap)
    np.testing.assert_allclose(found, pca.encode(images / 255), atol=1e-5)


# --- pixels ----------------------------------------------------------------------------------


@quick
def test_pictures_keep_every_pixel() -> None:
    picture = np.random.default_rng(0).random((9, 5))
    assert (pixels_of(data_uri(grey(picture))) == np.rint(picture * 255)).all()
    assert grey(np.array([[-0.2, 1.3]])).tolist() == [[0, 255]]
    tiles = np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2)
    assert (sprite(tiles)[2:, 4:] == tiles[1, 2]).all()


@quick
def test_lost_ink_is_red_added_ink_blue_and_nothing_white() -> None:
    lost, none, added = signed(np.array([-1.0, 0.0, 1.0]))
    assert lost[0] > 100 > lost[2]
    assert none.min() > 240
    assert added[2] > 90 > added[0]


@quick
@pytest.mark.parametrize("sent", [None, 7, "http://x/", "data:image/png;base64,@@", "data:image/png;base64,aGFsbG8="])
def test_a_drawing_that_is_none_is_refused(sent: object) -> None:
    with pytest.raises(StageError, match="did not arrive"):
        read_drawing(sent)


@quick
def test_a_drawing_of_a_million_pixels_on_a_side_is_refused() -> None:
    with pytest.raises(StageError, match="1024 pixels"):
        read_drawing(data_uri(np.zeros((2, 2000), np.uint8)))


# --- what was measured -----------------------------------------------------------------------


@quick
def test_sentences_hold_the_committed_numbers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/deep.json").write_text('{"mse": 0.01, "mse_pca": 0.04, "ssim": 0.9, "probe": 0.8789}')
    choice = choose_model(read_params(Params, ROOT / "params.yaml"), "deep")
    assert "loses 7.84 of squared error" in (found := model_sentence(choice, 784))
    assert "0.25 times what PCA with 16 numbers" in found
    assert "87.9" in found
    for content in ("", "[]", '{"mse": "?"}', "{}"):
        (tmp_path / "metrics/deep.json").write_text(content)
        with pytest.raises(
            StageError, match=r"metrics/deep\.json does not have mse, mse_pca, ssim, probe; run `dvc repro`"
        ):
            model_sentence(choice, 784)
    (tmp_path / "metrics/deep.json").unlink()
    with pytest.raises(StageError, match=r"metrics/deep\.json is missing"):
        model_sentence(choice, 784)


@quick
def test_only_pairs_on_screen_have_a_sentence(tmp_path: Path) -> None:
    table = tmp_path / "comparison.csv"
    table.write_text(
        "pair,ratio,ratio_low,ratio_high,difference,difference_low,difference_high,wins\n"
        "deep / shallow,0.379771,0.376446,0.383147,-9.9,-10.0,-9.8,0.9956\n"
        "deep / PCA (16),0.29,0.28,0.30,-14.9,-15.0,-14.8,0.99\n"
    )
    (sentence,) = pair_sentences(["shallow", "deep"], table)
    assert all(number in sentence for number in ("0.380", "0.376", "0.383", "99.6"))
    table.write_text("pair\ndeep / shallow\n")
    with pytest.raises(StageError, match="no table of compared models"):
        pair_sentences(["shallow", "deep"], table)


# --- answers on trained models ---------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(run_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """The models of the small run, in whose folder the tests work."""
    before = Path.cwd()
    os.chdir(run_template)
    yield Library(read_params(Params), tmp_path_factory.mktemp("codes"))
    os.chdir(before)


def ask(trained: Library, link: str, tmp_path: Path, **request: Any) -> answers.Answer:
    found = answers.answer(trained, {"link": link} | WANT | request, "deep", tmp_path)
    assert "problem" not in found, found["problem"]
    return found


def test_an_answer_is_what_keras_computes(trained: Library, tmp_path: Path) -> None:
    import keras

    found = ask(trained, "model=deep&digit=3", tmp_path)
    model = keras.saving.load_model("data/models/deep.keras", compile=False)
    image = np.load("data/prepared/test_images.npy")[3]
    pixels = image.reshape(1, -1).astype(np.float32) / 255
    decoded = np.asarray(model(pixels))
    assert (pixels_of(found["input"]) == image).all()
    assert np.abs(pixels_of(found["reconstruction"]).ravel() - decoded[0] * 255).max() < 1
    np.testing.assert_allclose(found["code"], np.asarray(model.get_layer("encoder")(pixels))[0], atol=1e-4)
    assert found["squared_error"] == pytest.approx(((decoded - pixels) ** 2).sum(), rel=1e-4)
    assert {row["name"] for row in found["side"]} == {"shallow", "deep", "PCA (16)"}
    assert len(found["near"]) == answers.NEIGHBOURS
    assert pixels_of(found["previews"]).shape == (16 * 28, 2 * 28)
    errors = np.load("data/evaluation/deep.npz")["model.squared_error"]
    assert found["percentile"] == pytest.approx((errors < errors[3] * (1 - 1e-6)).mean() * 100, abs=1)


@pytest.mark.parametrize(("model", "key"), [("deep", "model"), ("PCA (16)", "pca")])
def test_the_anomaly_score_ranks_as_evaluate_does(trained: Library, tmp_path: Path, model: str, key: str) -> None:
    evaluation = np.load("data/evaluation/deep.npz")
    ink = np.load("data/prepared/test_images.npy").sum(axis=(1, 2))
    score = (evaluation[f"{key}.squared_error"] / ink) ** 2 * evaluation[f"{key}.distance"]
    for digit in (score.argmin(), 3, score.argmax()):
        found = ask(trained, f"model={model}&digit={digit}", tmp_path)
        assert found["anomaly"] == pytest.approx((score < score[digit]).mean() * 100, abs=1)
    moved = ask(trained, f"model={model}", tmp_path, act={"do": "mean", "label": 9})
    assert moved["moved"]
    assert moved["anomaly"] is None


def test_pca_is_what_evaluate_measured(trained: Library, tmp_path: Path) -> None:
    found = ask(trained, "model=PCA (16)&digit=5", tmp_path)
    assert found["squared_error"] == pytest.approx(np.load("data/evaluation/deep.npz")["pca.squared_error"][5])


def test_buttons_move_where_they_say(trained: Library, tmp_path: Path) -> None:
    labels, errors = trained.test.labels, np.load("data/evaluation/deep.npz")["model.squared_error"]
    worst = ask(trained, f"model=deep&digit={errors.argmin()}", tmp_path, act={"do": "worst"})
    assert worst["digit"] == errors.argmax()
    assert ask(trained, worst["link"], tmp_path, act={"do": "worst"})["digit"] == np.argsort(-errors)[1]
    assert ask(trained, worst["link"], tmp_path, act={"do": "best"})["digit"] == errors.argmin()
    assert ask(trained, "", tmp_path, act={"do": "class", "label": 4})["label"] == 4
    assert 0 <= ask(trained, "", tmp_path, act={"do": "random"})["digit"] < len(labels)
    mean = ask(trained, "model=deep", tmp_path, act={"do": "mean", "label": 9})
    np.testing.assert_allclose(mean["code"], trained.atlas("deep").class_means[9], rtol=1e-5)
    assert mean["moved"]
    start = ",".join(map(str, mean["code"]))
    assert len(ask(trained, f"model=deep&digit=1&from={start}", tmp_path)["walk"]["pictures"]) == answers.STEPS


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (None, "asked for nothing"),
        ({"link": 5}, "no text"),
        ({"link": "model=deeep"}, r"did you mean deep\?"),
        ({"link": "digit=999999"}, "no test digit 999999"),
        ({"link": "code=1,2"}, "2 numbers, but deep has 16"),
        ({"link": "", "act": {"do": "explode"}}, "no button"),
        ({"link": "", "act": "random"}, "no button 'random'"),
        ({"link": "", "want": 5}, "are no list"),
        ({"link": "", "photo": "/etc/passwd"}, "no such photo"),
        ({"link": "", "drawing": data_uri(np.zeros((50, 50), np.uint8))}, "shows no ink"),
    ],
)
def test_what_cannot_be_answered_is_said(trained: Library, tmp_path: Path, request_: Any, reason: str) -> None:
    with pytest.raises(AssertionError, match=reason):
        assert not answers.answer(trained, request_, "deep", tmp_path).get("problem")


def test_photos_are_read_once_and_removed(trained: Library, tmp_path: Path) -> None:
    photo = tmp_path / "seven.png"
    large = Image.fromarray(255 - trained.test.images[0]).resize((280, 280), Image.Resampling.BICUBIC)
    large.save(photo)
    found = ask(trained, "", tmp_path, photo=str(photo))
    assert found["note"] == "dark ink found and inverted"
    assert not photo.exists()
    difference = pixels_of(found["input"]).astype(float) - trained.test.images[0]
    assert np.abs(difference).mean() < 10
    again = ask(trained, found["link"], tmp_path)
    assert again["input"] == found["input"]
    (tmp_path / "text.png").write_text("no picture")
    refused = answers.answer(trained, {"link": "", "photo": str(tmp_path / "text.png")}, "deep", tmp_path)
    assert refused["problem"].startswith("text.png is no image")


def test_the_saved_picture_is_a_png(trained: Library) -> None:
    found = answers.sheet(trained, {"link": "digit=3&model=deep"}, "deep", 50)
    assert found["name"] == "test-digit-3.png"
    assert pixels_of(found["picture"]).shape[0] > 200


def test_only_so_many_models_are_in_memory(trained: Library, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(library, "KEPT", 2)
    few = Library(read_params(Params), tmp_path)
    for name in (*few.names, *few.names):
        assert few.model(name).name == name
        assert few.atlas(name).train_codes.shape == (500, 16)
        assert len(few._entries) <= 2
    assert not list(tmp_path.iterdir())  # the codes' files have no name left


def test_ten_ask_at_once(trained: Library, tmp_path: Path) -> None:
    alone = [ask(trained, f"model=deep&digit={i}", tmp_path)["reconstruction"] for i in range(10)]
    found: dict[int, str] = {}

    def client(i: int) -> None:
        found[i] = ask(trained, f"model=deep&digit={i}", tmp_path)["reconstruction"]

    threads = [threading.Thread(target=client, args=(i,)) for i in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(10)] == alone


def test_a_broken_model_is_said_and_mended_without_a_restart(run_project: Path, tmp_path: Path) -> None:
    before = Path.cwd()
    os.chdir(run_project)
    try:
        models = Library(read_params(Params), tmp_path)
        path = Path("data/models/deep.keras")
        whole = path.read_bytes()
        path.unlink()
        for content, reason in ((None, "is missing"), (whole[:1000], "is not a whole autoencoder")):
            if content is not None:
                path.write_bytes(content)
            found = answers.answer(models, {"link": "model=deep"}, "deep", tmp_path)
            assert reason in found["problem"]
            side = ask(models, "model=shallow", tmp_path)["side"]
            assert reason in next(row for row in side if row["name"] == "deep")["problem"]
        path.write_bytes(whole)
        assert ask(models, "model=deep", tmp_path)["model"] == "deep"
        change_params(run_project, lambda params: params["models"]["deep"].update(latent_dim=15))
        models = Library(read_params(Params), tmp_path)
        for name in ("deep", "PCA (15)"):
            found = answers.answer(models, {"link": f"model={name}"}, "deep", tmp_path)
            told = "is of latent_dim 16, but models.deep.latent_dim is 15 in params.yaml; run `dvc repro`"
            assert told in found["problem"]
    finally:
        os.chdir(before)


# --- the command -----------------------------------------------------------------------------


def explore(project: Path, *arguments: str, **options: Any) -> tuple[int, str]:
    result = call(project, "python", "-m", "stages", "explore", "--no-browser", *arguments, **options)
    return result.returncode, result.stderr


@quick
def test_an_address_of_ipv6_stands_in_brackets() -> None:
    assert [in_address(host) for host in ("::1", "127.0.0.1", "localhost")] == ["[::1]", "127.0.0.1", "localhost"]
    assert {in_address(found) for found in OF_ALL.values()} == {"127.0.0.1", "[::1]"}


def test_wrong_arguments_end_with_a_sentence(project: Path, run_template: Path) -> None:
    status, errors = explore(project, "--port", "99999")
    assert (status, "has to be from 1 to 65535" in errors) == (2, True)
    for host in ("nowhere.invalid", "127..0.1"):
        status, errors = explore(project, "--host", host)
        assert (status, "no address of this machine" in errors) == (2, True)
    status, errors = explore(project, "--host", "0.0.0.0")
    assert (status, "asks for no password" in errors) == (1, True)
    assert "data/prepared/test_images.npy is missing; run `dvc repro prepare`." in errors
    assert "Traceback" not in errors
    status, errors = explore(run_template, "--model", "deeep")
    assert (status, "did you mean deep?" in errors) == (2, True)
    status, errors = explore(run_template, "--model", "best16")
    assert (
        status,
        "the preset best16 is not trained and evaluated; run `python -m stages.train best16 && " in errors,
    ) == (1, True)
