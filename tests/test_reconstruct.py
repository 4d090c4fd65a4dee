"""The command that reconstructs a user's own digits, on real digits.

What it writes and says is tested quickly with PCA for a model; what depends on Keras, on models
trained on a few digits.
"""

import gzip
import re
import shutil
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from PIL import Image

from stages.core import backend
from stages.core.errors import StageError
from stages.core.linear import fit_pca, image_moments
from stages.core.measures import squared_error
from stages.core.params import choose_model, read_params
from stages.core.schema import Params
from stages.tools import reconstruct, trained
from stages.tools.reconstruct import command as program
from stages.tools.reconstruct.inputs import open_source
from stages.tools.trained import TrainedModel, load_model
from tests import made_up
from tests.conftest import ROOT, call, change_params, full_disk, idx_bytes

Mnist = dict[str, tuple[np.ndarray, np.ndarray]]
Command = Callable[..., made_up.Ended]

quick = pytest.mark.quick


@pytest.fixture(scope="module")
def pca(mnist: Mnist) -> TrainedModel:
    """PCA of the training digits in the place of a trained model."""
    images = {split: mnist[split][0].reshape(-1, 784) for split in mnist}
    fitted = fit_pca(image_moments(images["train"]), 16)

    def encode(pixels: np.ndarray) -> np.ndarray:
        return fitted.encode(pixels).astype(np.float32)

    def decode(codes: np.ndarray) -> np.ndarray:
        return fitted.decode(codes).clip(0, 1).astype(np.float32)

    test = images["test"] / np.float32(255)
    errors = np.sort(squared_error(test, decode(encode(test))))
    return TrainedModel("deep", 28, 28, 16, encode, decode, errors)


@pytest.fixture
def command(
    pca: TrainedModel,
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    """Run the command in this process, with PCA for its model; it writes to tmp_path/out."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "params.yaml", folder)
    change_params(folder, lambda p: p["figures"].update(dpi=50))
    (folder / "data").mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(program, "load_model", lambda chosen: pca)

    def run(*arguments: object) -> made_up.Ended:
        given = ("--model", "deep", "--out", tmp_path / "out", *arguments)
        return made_up.call_main(reconstruct.main, monkeypatch, capsys, *given)

    return run


def draw(digit: np.ndarray, path: Path) -> Path:
    """Save a digit as a dark drawing on white, 280 × 280 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    large = Image.fromarray(digit).resize((280, 280), Image.Resampling.BICUBIC)
    Image.fromarray(255 - np.asarray(large)).save(path)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- what it writes --------------------------------------------------------------------------


@quick
def test_drawings_give_pictures_and_rows(command: Command, mnist: Mnist, tmp_path: Path) -> None:
    first = draw(mnist["test"][0][0], tmp_path / "in/one.png")
    second = draw(mnist["test"][0][1], tmp_path / "in/two.JPG")
    (tmp_path / "in/notes.txt").write_text("not an image")
    (tmp_path / "in/.hidden.png").write_text("nor this")
    draw(mnist["test"][0][2], tmp_path / "in/deeper/three.png")
    result = command(first, tmp_path / "in")  # the first one is named twice
    assert (result.status, result.err) == (0, "")
    assert [line.split(":")[0] for line in result.out.splitlines()[:2]] == [str(first), str(second)]
    assert re.search(r"dark ink; squared error \d+\.\d\d, higher than \d+\.\d % of the test digits", result.out)
    assert set(contents(tmp_path / "out")) == {"one.png", "two.png", "codes.csv"}
    height, width, _ = imread(tmp_path / "out/one.png").shape
    assert 100 < height < 160
    assert 330 < width < 430
    rows = pd.read_csv(tmp_path / "out/codes.csv")
    assert rows["file"].tolist() == [str(first), str(second)]
    latent = [f"latent_{n}" for n in range(1, 17)]
    assert list(rows.columns) == ["file", "index", "squared_error", "mse", "percentile", "unusual", *latent]
    np.testing.assert_allclose(rows["mse"] * 784, rows["squared_error"], rtol=1e-6)


def test_rows_agree_with_keras_and_with_the_evaluation(
    run_template: Path, mnist: Mnist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test images as an IDX file, which is what `evaluate` measured, and a name that the terminal cannot show."""
    path = tmp_path / "t10k.idx.gz"
    path.write_bytes(gzip.compress(idx_bytes(mnist["test"][0])))
    drawing = draw(mnist["test"][0][0], tmp_path / "in/zahl-ä.png")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    arguments = ("--model", "deep", "--out", str(tmp_path / "out"), str(path), str(drawing))
    result = call(run_template, sys.executable, "-m", "stages", "reconstruct", *arguments)
    assert (result.returncode, result.stderr) == (0, "")  # no progress bar without a terminal
    assert set(contents(tmp_path / "out")) == {"t10k.idx.png", "zahl-ä.png", "codes.csv"}
    with np.load(run_template / "data/evaluation/deep.npz") as evaluation:
        errors = evaluation["model.squared_error"]
    rows = pd.read_csv(tmp_path / "out/codes.csv")[:200]
    assert rows["index"].tolist() == list(range(200))
    np.testing.assert_allclose(rows["squared_error"], errors, rtol=1e-5)
    assert rows["unusual"].tolist() == (errors > np.percentile(errors, 99)).tolist()
    assert rows["percentile"].max() > 99
    assert f"images: 200; mean squared error {errors.mean():.2f}; unusual: 2, above" in result.stdout

    from stages.core.backend import keras  # takes seconds to load

    model = keras.saving.load_model(run_template / "data/models/deep.keras")
    codes = model.get_layer("encoder").predict(mnist["test"][0].reshape(200, -1) / np.float32(255), verbose=0)
    np.testing.assert_allclose(rows.filter(like="latent_"), codes, rtol=1e-4, atol=1e-4)
    again = call(run_template, sys.executable, "-m", "stages", "reconstruct", "--codes-only", *arguments)
    assert (again.returncode, again.stderr) == (0, "")
    np.testing.assert_allclose(np.load(tmp_path / "out/codes.npy")[:200], codes, rtol=1e-4, atol=1e-4)
    assert imread(tmp_path / "out/t10k.idx.png").shape[1] < 1600  # the first twenty, not all


@pytest.mark.parametrize(("work", "count"), [(program.append_codes, 40_000), (program.append_rows, 8_000)])
def test_a_large_array_streams(pca: TrainedModel, tmp_path: Path, work: Callable[..., object], count: int) -> None:
    """31 MB and 6 MB of images need no more memory than 2,000 images do."""
    path = tmp_path / "many.gz"

    def pass_through(images: int) -> int:
        path.write_bytes(gzip.compress(idx_bytes(np.zeros((images, 28, 28), np.uint8)), 1))
        tracemalloc.start()
        with open(tmp_path / "out", "wb") as file:
            work(pca, open_source(path, 28, 28, trained.BATCH, None, as_is=False), file)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    pass_through(300)  # loads modules
    few = pass_through(2000)
    assert pass_through(count) < few + 2**19
    rows = (tmp_path / "out").read_bytes()
    assert len(rows) == count * 16 * 4 if work is program.append_codes else rows.count(b"\n") == count + 1


@quick
def test_a_reader_that_has_gone_costs_no_file(
    command: Command, mnist: Mnist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*arguments: object, **options: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", gone)
    assert command(draw(mnist["test"][0][0], tmp_path / "x.png")).status == 0
    assert set(contents(tmp_path / "out")) == {"x.png", "codes.csv"}


@quick
def test_what_is_unlike_a_digit_is_reported(command: Command, mnist: Mnist, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    Image.fromarray(mnist["train"][0][3]).save(tmp_path / "one.png")
    result = command("--as-is", tmp_path / "noise.png", tmp_path / "one.png")
    assert ["unusual: above" in line for line in result.out.splitlines()[:2]] == [True, False]
    assert pd.read_csv(tmp_path / "out/codes.csv")["unusual"].tolist() == [True, False]


# --- names -------------------------------------------------------------------------------------


@quick
def test_inputs_are_never_overwritten(command: Command, mnist: Mnist, tmp_path: Path) -> None:
    """Nor do two pictures get one name, even where case does not count."""
    path = draw(mnist["test"][0][0], tmp_path / "out/x.png")
    before = path.read_bytes()
    assert command(path, draw(mnist["test"][0][1], tmp_path / "a/X.jpg")).status == 0
    assert path.read_bytes() == before
    assert set(contents(tmp_path / "out")) == {"x.png", "x-2.png", "X-3.png", "codes.csv"}
    np.save(tmp_path / "out/codes.npy", mnist["test"][0])
    result = command("--codes-only", tmp_path / "out/codes.npy")
    assert result.status == 2
    assert "codes.npy is an input and would be overwritten; choose another --out." in result.err
    np.testing.assert_array_equal(np.load(tmp_path / "out/codes.npy"), mnist["test"][0])


@quick
def test_odd_names(command: Command, mnist: Mnist, tmp_path: Path) -> None:
    names = ["$x_1$.png", "two\nlines.png", "ö 数 🙂.png", "-dash.png", "x" * 200 + ".png"]
    for name in names:
        draw(mnist["test"][0][0], tmp_path / "in" / name)
    result = command(tmp_path / "in")
    assert (result.status, result.err) == (0, "")
    assert len(result.out.splitlines()) == len(names) + 1
    assert len(contents(tmp_path / "out")) == len(names) + 1
    assert f"{tmp_path}/in/two\\nlines.png" in pd.read_csv(tmp_path / "out/codes.csv")["file"].tolist()


# --- inputs that can't be used -------------------------------------------------------------------


def npy_header(shape: str) -> bytes:
    """The start of a .npy file that says it holds an array of this shape."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


@quick
def test_bad_inputs_are_named_and_do_not_stop_the_others(command: Command, mnist: Mnist, tmp_path: Path) -> None:
    images = mnist["test"][0][:3]
    good = draw(images[0], tmp_path / "good.png")
    bad: dict[str, tuple[bytes, str]] = {
        "empty.png": (b"", ": the file is empty."),
        "text.png": (b"hello", ": the file is not an image of a known kind;"),
        "cut.png": (good.read_bytes()[:-300], ": the image is damaged or incomplete ("),
        "labels.idx": (idx_bytes(mnist["test"][1]), " is an IDX file of unsigned bytes in 1 dimension, but has to be"),
        "small.idx": (idx_bytes(images[:, 1:, 2:]), " has images of 27×26 pixels (height × width), but the model"),
        "cut.idx.gz": (gzip.compress(idx_bytes(images))[:-20], " is truncated: its gzip stream ends too early."),
        "other.gz": (gzip.compress(b"hello"), " starts with the bytes 68 65 6c 6c, but has to be an IDX file"),
        "cut.npy": (b"\x93NUMPY\x01\x00\x10\x00", " is not a complete .npy file ("),
        "negative.npy": (npy_header("(-1, 28, 28)"), " is not a complete .npy file ("),
        "huge.npy": (npy_header(f"({10**31}, 28, 28)"), " is not a complete .npy file ("),
    }
    for name, (content, _) in bad.items():
        (tmp_path / name).write_bytes(content)
    arrays = {
        "float.npy": (images / 255, " holds float64 [3, 28, 28], but must hold uint8 [images, height, width] or"),
        "small.npy": (images[0][1:], " has images of 27×28 pixels (height × width), but the model takes 28×28."),
        "none.npy": (images[:0], " "),
    }
    for name, (array, _) in arrays.items():
        np.save(tmp_path / name, array)
    (tmp_path / "folder").mkdir()
    sentences = {name: sentence for name, (_, sentence) in [*bad.items(), *arrays.items()]}
    sentences |= {"missing.png": " does not exist.", "good.png/x.png": " cannot be read: Not a directory."}

    result = command(tmp_path / "folder", *(tmp_path / name for name in sentences), good)
    assert result.status == 1
    assert "Traceback" not in result.err
    first, *lines, last = result.err.splitlines()
    assert first == f"error: {tmp_path}/folder has no image files; subfolders are not searched."
    assert len(lines) == len(sentences)
    for line, (name, sentence) in zip(lines, sentences.items(), strict=True):
        assert line.startswith(f"error: {tmp_path}/{name}{sentence}")
    assert last == f"error: {len(sentences) + 1} of {len(sentences) + 2} inputs could not be used."
    assert pd.read_csv(tmp_path / "out/codes.csv")["file"].tolist() == [str(good)]
    assert set(contents(tmp_path / "out")) == {"good.png", "codes.csv"}


@quick
def test_a_full_disk_ends_it_and_leaves_nothing_half_written(command: Command, mnist: Mnist, tmp_path: Path) -> None:
    path = draw(mnist["test"][0][0], tmp_path / "x.png")
    with full_disk(2000):
        ended = command(path)
    assert (ended.status, ended.err) == (1, f"error: {tmp_path}/out/x.png: cannot be written: File too large.\n")
    assert contents(tmp_path / "out") == {}


# --- the command line ----------------------------------------------------------------------------


@quick
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["INPUT"]),
        (["x.png", "--model", "deeep"], ["'deeep'", "deep", "shallow"]),
        (["x.png", "--ink", "blue"], ["--ink", "'blue'", "dark", "light"]),
        (["x.png", "--ink", "dark", "--as-is"], ["--ink", "--as-is"]),
        (["x.png", "--out", "params.yaml"], ["--out", "params.yaml", "folder"]),
        (["data", "--out", "data"], ["--out", "data", "input"]),
    ],
)
def test_wrong_arguments(command: Command, arguments: list[str], words: list[str]) -> None:
    result = command(*arguments)
    assert result.status == 2
    assert all(word in result.err for word in words)


def test_help_does_not_load_tensorflow() -> None:
    code = "import sys, stages.tools.reconstruct as r; sys.argv = ['x', '--help']\ntry:\n    r.main()\n"
    code += "except SystemExit:\n    sys.exit(bool({'tensorflow', 'keras'} & set(sys.modules)))"
    result = call(ROOT, sys.executable, "-c", code)
    assert (result.returncode, result.stderr) == (0, "")
    for word in ("--model", "--out", "--ink", "--as-is", "--codes-only", "codes.csv", "codes.npy", "exit status"):
        assert word in result.stdout


def test_models_that_are_missing_or_broken(run_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run_project)
    monkeypatch.setattr(backend, "use_all_cores", lambda: None)  # TensorFlow may have run already in this process
    deep, path = choose_model(read_params(Params), "deep"), run_project / "data/evaluation/deep.npz"
    content = path.read_bytes()
    with np.load(path) as archive:
        arrays = dict(archive)
    path.unlink()
    with pytest.raises(StageError, match=r"data/evaluation/deep\.npz is missing; run `dvc repro`\."):
        load_model(deep)
    path.write_bytes(content[:500])
    with pytest.raises(StageError, match=r"data/evaluation/deep\.npz is broken \("):
        load_model(deep)
    np.savez(path, allow_pickle=False, **arrays | {"digits.images": np.zeros((10, 28, 30), np.float32)})
    with pytest.raises(StageError, match=r"deep\.keras takes 784 pixels, but .*deep\.npz has images of 28×30; run"):
        load_model(deep)
    (run_project / "data/models/deep.keras").unlink()
    with pytest.raises(StageError, match=r"data/models/deep\.keras is missing; run `dvc repro`\.$"):
        load_model(deep)


# --- what the numbers mean -----------------------------------------------------------------------


def halving(test_errors: list[float]) -> TrainedModel:
    """A model of images of 1×2 pixels that reconstructs half of the left pixel and nothing of the right one."""
    return TrainedModel(
        "half", 1, 2, 1, lambda pixels: pixels[:, :1], lambda codes: np.pad(codes / 2, ((0, 0), (0, 1))),
        np.array(test_errors),
    )  # fmt: skip


@quick
def test_a_percentile_is_the_share_of_test_digits_with_a_smaller_error() -> None:
    """Equal errors are not smaller; the test errors' 99th percentile is the limit of what is usual."""
    images = np.array([[[0, 0]], [[255, 0]], [[0, 255]], [[255, 255]]], np.uint8)
    found = trained.reconstruct(halving([0.1, 0.25, 0.5, 0.75, 1.1]), images)
    assert found.squared_error.tolist() == [0, 0.25, 1, 1.25]
    assert found.percentile.tolist() == pytest.approx([0, 20, 80, 100])
    assert found.codes.tolist() == [[0], [1], [0], [1]]
    assert found.images.tolist() == [[[0, 0]], [[0.5, 0]], [[0, 0]], [[0.5, 0]]]
    model = halving([n / 100 for n in range(1, 102)])
    assert model.unusual_error == pytest.approx(1)
    images = np.array([[[0, 254]], [[26, 255]]], np.uint8)  # errors 0.992 and 1.003
    assert trained.reconstruct(model, images).unusual.tolist() == [False, True]


@quick
@pytest.mark.parametrize("options", [[], ["--codes-only"]])
def test_rows_of_an_input_that_fails_half_way_are_taken_back(
    command: Command,
    pca: TrainedModel,
    mnist: Mnist,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
) -> None:
    """IDX files of three batches that break off in the second, each before one that is whole."""
    monkeypatch.setattr(program, "draw", lambda *given: b"a picture")  # takes seconds
    images = mnist["train"][0]
    (tmp_path / "cut.gz").write_bytes(gzip.compress(idx_bytes(images)[: 16 + 784 * 400]))
    zipped = gzip.compress(idx_bytes(images))
    (tmp_path / "torn.gz").write_bytes(zipped[: len(zipped) * 2 // 3])
    np.save(tmp_path / "a.npy", images[:300])
    np.save(tmp_path / "b.npy", images[300:310])
    np.save(tmp_path / "c.npy", images[310])
    inputs = [tmp_path / name for name in ("cut.gz", "a.npy", "torn.gz", "b.npy", "c.npy")]
    ended = command(*options, *inputs, tmp_path / "a.npy")  # the last one is named twice
    assert ended.status == 1
    assert ended.err.splitlines() == [
        f"error: {tmp_path}/cut.gz is truncated: its IDX header declares 600 × 28 × 28 values, "
        f"but the file holds {784 * 400}.",
        f"error: {tmp_path}/torn.gz is truncated: its gzip stream ends too early.",
        "error: 2 of 5 inputs could not be used.",
    ]
    codes = pca.encode(images[:311].reshape(311, -1) / np.float32(255)).astype(np.float32)
    a, b, c = (f"{tmp_path}/{letter}.npy" for letter in "abc")
    if options:
        found = np.load(tmp_path / "out/codes.npy", allow_pickle=False)
        np.testing.assert_allclose(found, codes, atol=1e-5, strict=True)
        rows = pd.read_csv(tmp_path / "out/inputs.csv").to_numpy().tolist()
        assert rows == [[a, 0, 300], [b, 300, 10], [c, 310, 1]]
    else:
        table = pd.read_csv(tmp_path / "out/codes.csv")
        assert table["file"].tolist() == [a] * 300 + [b] * 10 + [c]
        assert table["index"].tolist() == [*range(300), *range(10), 0]
        np.testing.assert_allclose(table.filter(like="latent_"), codes, atol=1e-4)
    assert not re.search("cut|torn", ended.out)
    names = {"codes.npy", "inputs.csv"} if options else {"codes.csv", "a.png", "b.png", "c.png"}
    assert set(contents(tmp_path / "out")) == names


@quick
@pytest.mark.parametrize("options", [[], ["--codes-only"]])
def test_no_file_changes_when_no_input_can_be_used(
    command: Command, mnist: Mnist, tmp_path: Path, options: list[str]
) -> None:
    assert command(*options, tmp_path / "missing.npy").err.splitlines() == [
        f"error: {tmp_path}/missing.npy does not exist.",
        "error: no input could be used; nothing was written.",
    ]
    assert contents(tmp_path / "out") == {}
    np.save(tmp_path / "a.npy", mnist["test"][0][:2])
    assert command(*options, tmp_path / "a.npy").status == 0
    before = contents(tmp_path / "out")
    assert command(*options, tmp_path / "missing.npy").status == 1
    assert contents(tmp_path / "out") == before
