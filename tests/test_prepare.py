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

from stages.prepare import choose_validation
from tests.conftest import NAMES, change_params, idx_bytes, stage

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


def test_another_seed_chooses_others() -> None:
    labels = np.repeat(np.arange(10, dtype=np.uint8), 50)
    assert (choose_validation(labels, 100, 0) != choose_validation(labels, 100, 1)).any()


def prepared(project: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    folder = project / "data/prepared"
    return np.load(folder / f"{split}_images.npy"), np.load(folder / f"{split}_labels.npy")


def test_train_and_validation_partition_the_training_images(project: Path, mnist: Mnist) -> None:
    result = stage(project, "prepare")
    assert result.returncode == 0
    assert "has no SHA256SUMS, so nothing was verified" in result.stdout
    train, validation, test = (prepared(project, split) for split in ("train", "validation", "test"))
    assert (len(train[0]), len(validation[0]), len(test[0])) == (500, 100, 200)
    np.testing.assert_array_equal(test[0], mnist["test"][0])
    both = np.concatenate([train[0], validation[0]]).reshape(600, -1)
    raw = mnist["train"][0].reshape(600, -1)
    np.testing.assert_array_equal(np.sort(both.view("V784"), axis=0), np.sort(raw.view("V784"), axis=0))


def test_no_validation_images_means_the_test_images(project: Path) -> None:
    change_params(project, lambda p: p["prepare"].update(validation_images=0))
    result = stage(project, "prepare")
    assert "validation_images is 0, so training is monitored on the test images" in result.stdout
    np.testing.assert_array_equal(prepared(project, "validation")[0], prepared(project, "test")[0])
    assert len(prepared(project, "train")[0]) == 600


def test_other_sets_are_a_drop_in(project: Path, mnist: Mnist) -> None:
    """EMNIST's file names, no gzip, other image sizes, labels from 1."""
    folder = project / "data/letters"
    folder.mkdir()
    for split, (images, labels) in mnist.items():
        (folder / f"emnist-letters-{split}-images-idx3-ubyte").write_bytes(idx_bytes(images[:, 3:24, :20]))
        (folder / f"emnist-letters-{split}-labels-idx1-ubyte").write_bytes(idx_bytes(labels + 1))
    change_params(project, lambda p: p["prepare"].update(raw="data/letters"))
    result = stage(project, "prepare")
    assert result.returncode == 0, result.stderr
    assert prepared(project, "train")[0].shape == (500, 21, 20)


def write_sums(folder: Path) -> None:
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in sorted(folder.glob("*.gz"))]
    (folder / "SHA256SUMS").write_text("".join(lines))


def damage_digest(raw: Path) -> None:
    write_sums(raw)
    (raw / IMAGES).write_bytes((raw / IMAGES).read_bytes() + b"\0")


def drop_digest(raw: Path) -> None:
    write_sums(raw)
    (raw / "SHA256SUMS").write_text("")


def cut(raw: Path) -> None:
    (raw / IMAGES).write_bytes((raw / IMAGES).read_bytes()[:-1000])


def flip(raw: Path) -> None:
    content = bytearray((raw / IMAGES).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (raw / IMAGES).write_bytes(content)


def swap(raw: Path) -> None:
    shutil.copy(raw / LABELS, raw / IMAGES)


def fewer_labels(raw: Path) -> None:
    (raw / LABELS).write_bytes(gzip.compress(idx_bytes(np.zeros(599, np.uint8))))


def no_images(raw: Path) -> None:
    (raw / IMAGES).write_bytes(gzip.compress(idx_bytes(np.zeros((0, 28, 28), np.uint8))))


def other_size(raw: Path) -> None:
    (raw / NAMES["test"][0]).write_bytes(gzip.compress(idx_bytes(np.zeros((200, 27, 28), np.uint8))))


def twice(raw: Path) -> None:
    (raw / IMAGES.removesuffix(".gz")).write_bytes(gzip.decompress((raw / IMAGES).read_bytes()))


def not_a_file(raw: Path) -> None:
    (raw / IMAGES).unlink()
    (raw / IMAGES).mkdir()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda raw: (raw / IMAGES).unlink(), "data/raw lacks the train images: a file *train-images-idx3-ubyte"),
        (shutil.rmtree, "data/raw, named by prepare.raw in params.yaml, is not a folder."),
        (cut, f"data/raw/{IMAGES} is truncated: its gzip stream ends too early."),
        (flip, f"data/raw/{IMAGES} is corrupted: "),
        (swap, f"data/raw/{IMAGES} starts with the bytes 00 00 08 01, but an IDX file of unsigned bytes in 3"),
        (lambda raw: (raw / IMAGES).write_bytes(b"P5 28 28"), f"data/raw/{IMAGES} starts with the bytes 50 35 20 32"),
        (fewer_labels, f"data/raw/{IMAGES} has 600 images, but data/raw/{LABELS} has 599 labels"),
        (no_images, f"data/raw/{IMAGES} is empty: its IDX header declares 0 × 28 × 28 values."),
        (other_size, f"data/raw/{IMAGES} has images of 28×28 pixels, but data/raw/{NAMES['test'][0]} of 27×28"),
        (damage_digest, f"data/raw/{IMAGES} has the SHA-256 digest "),
        (drop_digest, f"data/raw/SHA256SUMS has no line for {IMAGES}; add one or remove SHA256SUMS."),
        (twice, "data/raw has 2 files of train images, keep one of: "),
        (not_a_file, f"data/raw/{IMAGES}: Is a directory."),
    ],
)
def test_bad_raw_data_is_one_sentence_and_leaves_nothing(
    project: Path, damage: Callable[[Path], object], sentence: str
) -> None:
    damage(project / "data/raw")
    result = stage(project, "prepare")
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {sentence}")
    assert result.stderr.count("\n") == 1
    assert not (project / "data/prepared").exists()


def test_digests_that_match_are_said_to(project: Path) -> None:
    write_sums(project / "data/raw")
    assert "data/raw: the four files match SHA256SUMS" in stage(project, "prepare").stdout


def test_too_many_validation_images(project: Path) -> None:
    change_params(project, lambda p: p["prepare"].update(validation_images=600))
    result = stage(project, "prepare")
    assert result.returncode == 2
    assert "prepare.validation_images is 600, but has to be below 600, the number of images in" in result.stderr
