"""Writing all files or none, with other writers around and on a full disk; and reading arrays."""

import errno
import io
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from stages.core import files
from stages.core.errors import StageError, TerminatedError
from stages.core.files import Content, model_files, npy, write_all
from tests.conftest import full_disk

pytestmark = pytest.mark.quick
UNCHANGED = {"a": b"old", "b": b"old", "c": b"old"}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in a folder, including hidden and unfinished ones."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with three files."""
    write_all({tmp_path / name: content for name, content in UNCHANGED.items()})
    return tmp_path


# --- writing -------------------------------------------------------------------------------


def test_a_file_is_replaced_when_it_is_whole_and_not_before(old: Path) -> None:
    def write(file: BinaryIO) -> None:
        file.write(b"new ")
        file.flush()
        assert (old / "a").read_bytes() == b"old"
        file.write(b"and whole")

    write_all({old / "a": write})
    assert contents(old) == UNCHANGED | {"a": b"new and whole"}


def test_a_writer_may_write_or_read_another_file_and_an_error_names_that_file(old: Path) -> None:
    (old / "d").mkdir()
    write_all({old / "a": lambda file: write_all({old / "b": b"new"})})
    assert ((old / "a").read_bytes(), (old / "b").read_bytes()) == (b"", b"new")
    with pytest.raises(IsADirectoryError, match="cannot be written: Is a directory") as caught:
        write_all({old / "c": lambda file: write_all({old / "d": b"new"})})
    assert caught.value.filename == str(old / "d")
    with pytest.raises(FileNotFoundError, match=r"^\[Errno 2\] No such file or directory") as missing:
        write_all({old / "c": lambda file: file.write((old / "e").read_bytes())})
    assert missing.value.filename == str(old / "e")
    assert (old / "c").read_bytes() == b"old"


def test_all_files_are_complete_before_the_first_is_renamed(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def replace(source: Path, target: Path) -> None:
        seen.append(sorted(content for name, content in contents(old).items() if name.endswith(".tmp")))
        Path(source).rename(target)

    monkeypatch.setattr(os, "replace", replace)
    write_all({old / name: b"new" for name in "abc"})
    assert seen == [[b"new"] * left for left in (3, 2, 1)]
    assert contents(old) == dict.fromkeys("abc", b"new")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, TerminatedError])
def test_an_error_leaves_the_old_files_and_no_trace(old: Path, error: type[BaseException]) -> None:
    def fail(file: BinaryIO) -> None:
        file.write(bytes(2**20))
        raise error

    with pytest.raises(error):
        write_all({old / "a": b"new", old / "d": fail})
    assert contents(old) == UNCHANGED


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
@pytest.mark.parametrize("size", [200, 10**6])  # one stays in the buffer until the end, the other does not
@pytest.mark.parametrize("large", ["a", "c"])
@pytest.mark.parametrize("content", [bytes, lambda size: npy(np.zeros(size, np.uint8))])
def test_a_full_disk_names_the_file_that_does_not_fit_and_replaces_none(
    old: Path, large: str, size: int, content: Callable[[int], Content]
) -> None:
    with pytest.raises(OSError, match="cannot be written: File too large") as caught, full_disk(199):
        write_all({old / name: content(size if name == large else 5) for name in "abc"})
    assert caught.value.filename == str(old / large)
    assert contents(old) == UNCHANGED


def test_a_disk_that_fails_late_names_the_file(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of three files fails while its bytes go to the disk itself."""
    failures = iter([None, OSError(errno.EIO, os.strerror(errno.EIO)), None])

    def sync(descriptor: int) -> None:
        if failure := next(failures):
            raise failure

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(OSError, match="cannot be written: Input/output error") as caught:
        write_all({old / name: b"new" for name in "abc"})
    assert caught.value.filename == str(old / "b")
    assert contents(old) == UNCHANGED


@pytest.mark.parametrize(("target", "reason"), [("folder", "Is a directory"), ("b/x", "Not a directory")])
def test_a_path_that_cannot_be_a_file_is_named(old: Path, target: str, reason: str) -> None:
    (old / "folder").mkdir()
    with pytest.raises(OSError, match=f"cannot be written: {reason}") as caught:
        write_all({old / "a": b"new", old / target: b"new", old / "c": b"new"})
    assert caught.value.filename == str(old / target)
    (old / "folder").rmdir()
    assert contents(old) == UNCHANGED


def test_writers_at_once_leave_a_whole_file_at_any_time(tmp_path: Path) -> None:
    """Threads share a process number, as processes in two containers may."""
    versions = [bytes([number]) * 2**16 for number in range(4)]
    failures: list[OSError] = []

    def write(version: bytes) -> None:
        try:
            for _ in range(30):
                write_all({tmp_path / "x/a": version, tmp_path / "x/b": version})
        except OSError as error:
            failures.append(error)

    write(versions[0])
    writers = [threading.Thread(target=write, args=(version,)) for version in versions]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert (tmp_path / "x/a").read_bytes() in versions
    assert failures == []
    assert sorted(contents(tmp_path / "x")) == ["a", "b"]


def saved(array: np.ndarray) -> bytes:
    """The array as NumPy itself saves it, row by row, in a file of its own."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "array", [np.zeros(0), np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.eye(3)[::2], np.ones((2, 3)).T]
)
def test_arrays_are_written_as_numpy_writes_them(tmp_path: Path, array: np.ndarray) -> None:
    write_all({tmp_path / "a.npy": npy(array)})
    assert (tmp_path / "a.npy").read_bytes() == saved(array)


# --- reading -------------------------------------------------------------------------------


@pytest.fixture
def split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a split of five images of 2×3 pixels."""
    monkeypatch.chdir(tmp_path)
    images, labels = np.arange(30, dtype=np.uint8).reshape(5, 2, 3), np.arange(5, dtype=np.uint8)
    write_all({files.images_path("test"): saved(images), files.labels_path("test"): saved(labels)})
    return tmp_path / "data/prepared"


def test_a_split_is_read_with_a_row_per_image(split: Path) -> None:
    images, labels = files.read_split("test")
    np.testing.assert_array_equal(images, np.arange(30).reshape(5, 6))
    assert labels.tolist() == [0, 1, 2, 3, 4]
    assert files.read_images("test").shape == (5, 2, 3)
    assert isinstance(files.read_images("test"), np.memmap)
    assert not isinstance(files.read_images("test", mapped=False), np.memmap)


@pytest.mark.parametrize("content", ["images", "labels"])
def test_a_missing_or_broken_split_is_reported_with_what_makes_it(split: Path, content: str) -> None:
    path, archive = split / f"test_{content}.npy", io.BytesIO()
    whole = path.read_bytes()
    np.savez(archive, images=np.zeros(5, np.uint8))
    cases = {b"": "not a whole", b"hello": "not a whole", whole[:60]: "not a whole", whole[:-1]: "not a whole"}
    cases |= {saved(np.array([None])): "not a whole", archive.getvalue(): "an .npz archive"}
    cases |= {saved(np.zeros(5, np.float32)): "float32 [5]", saved(np.zeros((5, 6), np.uint8)): "uint8 [5, 6]"}
    cases |= {saved(np.zeros((5, 2, 3), np.int64)): "int64 [5, 2, 3]"}
    for written, found in cases.items():
        path.write_bytes(written)
        with pytest.raises(StageError, match=rf"^data/prepared/{path.name} .*; run `dvc repro prepare`\.$") as caught:
            files.read_split("test")
        assert found in str(caught.value)
    path.unlink()
    with pytest.raises(StageError, match=rf"^data/prepared/{path.name} is missing; run `dvc repro prepare`\.$"):
        files.read_split("test")


def test_files_of_a_preset_are_where_no_stage_looks_and_its_stages_make_them() -> None:
    stage_files, preset_files = model_files("x"), model_files("x", preset=True)
    assert {str(path.parent) for path in preset_files[:3]} == {"data/presets"}
    assert stage_files.metrics == preset_files.metrics  # `dvc metrics show metrics/x.json` reads either
    assert {files.how_to_make(path) for path in stage_files} == {"run `dvc repro`"}
    commands = [files.how_to_make(path) for path in preset_files[:3]]
    assert commands == [f"run `python -m stages.{stage} x`" for stage in ("train", "train", "evaluate")]
