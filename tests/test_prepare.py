"""The prepare stage: the split, the digests, and every way in which raw data can be wrong."""

import gzip
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages import prepare as stage
from stages.prepare import choose_validation
from tests import made_up
from tests.conftest import NAMES, ROOT, change_params, idx_bytes, write_raw

pytestmark = pytest.mark.quick

IMAGES, LABELS = NAMES["train"]
Mnist = dict[str, tuple[np.ndarray, np.ndarray]]


@settings(max_examples=200, deadline=None)
@given(labels=st.lists(st.integers(0, 6), min_size=2, max_size=200), data=st.data())
def test_validation_takes_the_same_share_of_every_class(labels: list[int], data: st.DataObject) -> None:
    array = np.array(labels, np.uint8)
    count = data.draw(st.integers(1, len(labels) - 1))
    seed = data.draw(st.integers(0, 2**32 - 1))
    chosen = choose_validation(array, count, seed)
    assert chosen.sum() == count
    for label in np.unique(array):
        assert abs(chosen[array == label].sum() - count * (array == label).mean()) < 1
    np.testing.assert_array_equal(chosen, choose_validation(array, count, seed))


@pytest.mark.parametrize(
    ("sizes", "count", "chosen"),
    [
        ([4, 3, 3], 4, [2, 1, 1]),  # shares 1.6, 1.2, 1.2
        ([6, 3, 1], 5, [3, 2, 0]),  # shares 3, 1.5, 0.5
        ([3] * 20, 25, [2] * 5 + [1] * 15),  # shares of 1.25
        ([3, 2] * 20, 50, [2, 1] * 10 + [1, 1] * 10),  # shares 1.5 and 1, in turns: sorts that are not stable mix them
    ],
)
def test_images_left_over_go_to_the_largest_remainders_and_the_first_of_equal_ones(
    sizes: list[int], count: int, chosen: list[int]
) -> None:
    labels = np.repeat(np.arange(len(sizes), dtype=np.uint8), sizes)
    found = choose_validation(labels, count, seed=0)
    assert np.bincount(labels[found], minlength=len(sizes)).tolist() == chosen


Prepare = Callable[[], made_up.Ended]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mnist: Mnist) -> Path:
    """A folder with all that the stage reads: the small data and the parameters."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    change_params(tmp_path, lambda p: p["prepare"].update(validation_images=100))
    write_raw(tmp_path / "data/raw", mnist)
    return tmp_path


@pytest.fixture
def prepare(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Prepare:
    return lambda: made_up.call_main(stage.main, monkeypatch, capsys)


def prepared(project: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    folder = project / "data/prepared"
    return np.load(folder / f"{split}_images.npy"), np.load(folder / f"{split}_labels.npy")


def pairs(images: np.ndarray, labels: np.ndarray) -> list[tuple[bytes, int]]:
    return [(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)]


def test_train_and_validation_partition_the_training_images(project: Path, prepare: Prepare, mnist: Mnist) -> None:
    """Each with its own label, in their order."""
    ended = prepare()
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.splitlines() == [
        "note: data/raw has no SHA256SUMS, so nothing was verified",
        "500 training, 100 validation and 200 test images of 28×28 pixels, 10 classes",
    ]
    train, validation, test = (pairs(*prepared(project, split)) for split in ("train", "validation", "test"))
    assert (len(train), len(validation)) == (500, 100)
    assert test == pairs(*mnist["test"])
    given_images = pairs(*mnist["train"])
    assert sorted(train + validation) == sorted(given_images)
    held_out = set(validation)
    assert [pair for pair in given_images if pair not in held_out] == train
    assert [pair for pair in given_images if pair in held_out] == validation


def test_the_seed_of_params_yaml_decides_which_images_are_held_out(project: Path, prepare: Prepare) -> None:
    def held_out(seed: int) -> bytes:
        change_params(project, lambda p: p["prepare"].update(seed=seed))
        assert prepare().status == 0
        return prepared(project, "validation")[0].tobytes()

    assert held_out(0) == held_out(0) != held_out(1)


def test_no_validation_images_means_the_test_images(project: Path, prepare: Prepare, mnist: Mnist) -> None:
    change_params(project, lambda p: p["prepare"].update(validation_images=0))
    note = "note: prepare.validation_images is 0, so training is monitored on the test images"
    assert note in prepare().out.splitlines()
    assert pairs(*prepared(project, "validation")) == pairs(*mnist["test"])
    assert pairs(*prepared(project, "train")) == pairs(*mnist["train"])


def test_other_sets_are_a_drop_in(project: Path, prepare: Prepare, mnist: Mnist) -> None:
    """EMNIST's file names, no gzip, other image sizes, labels from 1, and the hidden files that macOS leaves."""
    folder = project / "data/letters"
    folder.mkdir()
    for split, (images, labels) in mnist.items():
        (folder / f"emnist-letters-{split}-images-idx3-ubyte").write_bytes(idx_bytes(images[:, 3:24, :20]))
        (folder / f"emnist-letters-{split}-labels-idx1-ubyte").write_bytes(idx_bytes(labels + 1))
        (folder / f"._emnist-letters-{split}-images-idx3-ubyte").touch()
    change_params(project, lambda p: p["prepare"].update(raw="data/letters"))
    ended = prepare()
    assert ended.status == 0, ended.err
    assert prepared(project, "train")[0].shape == (500, 21, 20)
    images, labels = mnist["test"]
    assert pairs(*prepared(project, "test")) == pairs(images[:, 3:24, :20], labels + 1)


@pytest.mark.parametrize("held_out", [100, 0])
def test_classes_that_are_left_out_are_missing_from_training_only(
    project: Path, prepare: Prepare, mnist: Mnist, held_out: int
) -> None:
    """What is kept is split as it is among all classes, in the same order."""
    change_params(project, lambda p: p["prepare"].update(validation_images=held_out))
    assert prepare().status == 0
    whole = {split: pairs(*prepared(project, split)) for split in ("train", "validation")}
    change_params(project, lambda p: p["prepare"].update(classes=[7, 3]))
    ended = prepare()
    assert ended.status == 0, ended.err
    for split, everything in whole.items():
        assert pairs(*prepared(project, split)) == [pair for pair in everything if pair[1] in (3, 7)]
    assert pairs(*prepared(project, "test")) == pairs(*mnist["test"])
    assert ended.out.splitlines()[-1].endswith("200 test images of 28×28 pixels, 2 classes")


def test_settings_have_to_suit_the_images(project: Path, prepare: Prepare, mnist: Mnist) -> None:
    images, labels = mnist["test"]
    lacking_3 = mnist | {"test": (images, np.where(labels == 3, 4, labels))}
    shifted = mnist | {"test": (images, labels + 20)}
    for raw, changes, status, found in (
        (mnist, {"classes": [3, 12, 10]}, 2, f"has 10, 12, but data/raw/{LABELS} only 0, 1, 2, 3, 4, 5, 6, 7, 8, 9."),
        (lacking_3, {"classes": [2, 3]}, 2, f"has 3, but data/raw/{NAMES['test'][1]} only 0, 1, 2, 4, 5, 6, 7, 8, 9."),
        (mnist, {"classes": [2], "validation_images": 1}, 2, " training and 0 validation images, but at least one"),
        (shifted, {"classes": "all"}, 1, "have no class in common; at least one is needed."),
        (mnist, {"validation_images": 600}, 2, "validation_images is 600, but has to be below 600, the number of"),
        (mnist, {"raw": "~/raw"}, 1, "~/raw, named by prepare.raw in params.yaml, is not a folder. DVC doesn't expand"),
    ):
        write_raw(project / "data/raw", raw)
        change_params(project, lambda p: p["prepare"].update(changes))  # noqa: B023 (called at once)
        ended = prepare()
        assert (ended.status, ended.err.count("\n")) == (status, 1)
        assert found in ended.err
        assert not (project / "data/prepared").exists()


def write_sums(folder: Path) -> None:
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in sorted(folder.glob("*.gz"))]
    (folder / "SHA256SUMS").write_text("".join(lines))


def varied(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape) % 200


def fewer_labels(raw: Path) -> None:
    (raw / LABELS).write_bytes(gzip.compress(idx_bytes(np.zeros(599, np.uint8))))


def other_size(raw: Path) -> None:
    (raw / IMAGES).write_bytes(gzip.compress(idx_bytes(varied(600, 26, 28))))
    (raw / NAMES["test"][0]).write_bytes(gzip.compress(idx_bytes(varied(200, 28, 27))))


def all_black(raw: Path) -> None:
    (raw / IMAGES).write_bytes(gzip.compress(idx_bytes(np.zeros((600, 28, 28), np.uint8))))


def unequal_copies(raw: Path) -> None:
    (raw / IMAGES.removesuffix(".gz")).write_bytes(idx_bytes(varied(600, 28, 28)))


def not_a_file(raw: Path) -> None:
    (raw / IMAGES).unlink()
    (raw / IMAGES).mkdir()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            lambda raw: (raw / IMAGES).unlink(),
            "data/raw lacks the train images: a file *train-images-idx3-ubyte, or the same with .gz.\n",
        ),
        (
            lambda raw: (raw / NAMES["test"][1]).unlink(),
            "data/raw lacks the test labels: a file *t10k-labels-idx1-ubyte or *test-labels-idx1-ubyte, or the same",
        ),
        (shutil.rmtree, "data/raw, named by prepare.raw in params.yaml, is not a folder."),
        (
            lambda raw: shutil.copy(raw / LABELS, raw / IMAGES),
            f"data/raw/{IMAGES} is an IDX file of unsigned bytes in 1",
        ),
        (fewer_labels, f"data/raw/{IMAGES} has 600 images, but data/raw/{LABELS} has 599 labels"),
        (
            other_size,
            f"data/raw/{IMAGES} has images of 26×28 pixels, but data/raw/{NAMES['test'][0]} has images of 28×27",
        ),
        (all_black, f"data/raw/{IMAGES} shows nothing: all pixels are 0, but at least two values are needed."),
        (
            unequal_copies,
            "data/raw has 2 files of train images whose contents differ; "
            f"keep one of {IMAGES.removesuffix('.gz')}, {IMAGES}.\n",
        ),
        (not_a_file, f"data/raw/{IMAGES}: Is a directory."),
    ],
)
def test_bad_raw_data_is_one_sentence_and_leaves_nothing(
    project: Path, prepare: Prepare, damage: Callable[[Path], object], sentence: str
) -> None:
    damage(project / "data/raw")
    ended = prepare()
    assert ended.status == 1
    assert ended.err.startswith(f"error: {sentence}")
    assert ended.err.count("\n") == 1
    assert not (project / "data/prepared").exists()


@pytest.mark.parametrize(
    ("line", "encoding"),
    [
        ("{}  {}\n", "utf-8"),
        ("{} *{}\r\n", "utf-8"),  # of a binary file, as on Windows
        ("{}  data/raw/{}\n", "utf-8-sig"),  # saved by an editor that begins files with a byte order mark
        ("{} *{}\r\n", "utf-16"),  # redirected by PowerShell
    ],
)
def test_digests_in_every_form_are_verified(project: Path, prepare: Prepare, line: str, encoding: str) -> None:
    """Digests can be in capitals, names can begin with anything, and other names don't have to be UTF-8."""
    (project / "data/raw" / IMAGES).rename(project / "data/raw" / f"X-{IMAGES}")
    write_sums(project / "data/raw")
    sums = project / "data/raw/SHA256SUMS"
    pairs = [entry.split() for entry in sums.read_text().splitlines()]
    listed = "".join(line.format(digest.upper(), name) for digest, name in pairs).encode(encoding)
    sums.write_bytes(listed + (b"" if encoding == "utf-16" else b"0" * 64 + b"  \xe9t\xe9\n"))
    ended = prepare()
    assert ended.status == 0, ended.err
    assert "data/raw: the four files match SHA256SUMS" in ended.out


def extracted_as_well(raw: Path) -> None:
    """torchvision keeps the .gz files and what they contain."""
    for path in raw.glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))


def in_folders(raw: Path) -> None:
    """Kaggle's ZIP has each file in a folder of the same name, and again next to it with a dot in its name."""
    for path in list(raw.glob("*.gz")):
        name, content = path.stem, gzip.decompress(path.read_bytes())
        (raw / name).mkdir()
        (raw / name / name).write_bytes(content)
        (raw / name.replace("-idx", ".idx")).write_bytes(content)
        path.unlink()


@pytest.mark.parametrize("arrange", [extracted_as_well, in_folders])
def test_copies_with_equal_contents_are_one_file(
    project: Path, prepare: Prepare, mnist: Mnist, arrange: Callable[[Path], object]
) -> None:
    arrange(project / "data/raw")
    ended = prepare()
    assert (ended.status, ended.err) == (0, "")
    assert pairs(*prepared(project, "test")) == pairs(*mnist["test"])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda images: images // 255, "its brightest pixel is 1, but white is 255; scale the pixels"),
        (lambda images: 255 - images, "its pixels are 223 on average, but ink has to be white"),
    ],
)
def test_images_of_another_range_or_inverted_are_a_warning(
    project: Path, prepare: Prepare, mnist: Mnist, change: Callable[[np.ndarray], np.ndarray], problem: str
) -> None:
    write_raw(project / "data/raw", {"train": (change(mnist["train"][0]), mnist["train"][1]), "test": mnist["test"]})
    ended = prepare()
    assert ended.status == 0
    assert ended.err.startswith(f"warning: data/raw/{IMAGES}: {problem}")
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("name", [*NAMES["train"], *NAMES["test"]])
def test_the_digest_of_each_of_the_four_files_is_needed_and_verified(
    project: Path, prepare: Prepare, name: str
) -> None:
    """A file is replaced by another whole one: only its digest differs."""
    raw = project / "data/raw"
    write_sums(raw)
    sums = (raw / "SHA256SUMS").read_text()
    listed = hashlib.sha256((raw / name).read_bytes()).hexdigest()
    (raw / name).write_bytes(gzip.compress(gzip.decompress((raw / name).read_bytes()), compresslevel=1, mtime=1))
    digest = hashlib.sha256((raw / name).read_bytes()).hexdigest()
    ended = prepare()
    assert (ended.status, ended.err.count("\n")) == (1, 1)
    assert f"data/raw/{name} has the SHA-256 digest {digest}, but data/raw/SHA256SUMS lists {listed};" in ended.err
    (raw / "SHA256SUMS").write_text(sums.replace(f"{listed}  {name}\n", ""))
    ended = prepare()
    assert (ended.status, ended.err.count("\n")) == (1, 1)
    assert f"data/raw/SHA256SUMS has no line for {name};" in ended.err
    assert not (project / "data/prepared").exists()
