"""Writing all files or none, also beside other writers, on a full disk and after killed ones; and reading arrays."""

import errno
import io
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from stages.core import files
from stages.core.errors import StageError, TerminatedError
from stages.core.files import ABANDONED_AFTER, model_files, replacing, replacing_all, write_all, write_npy

pytestmark = pytest.mark.quick


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in a folder, hidden and unfinished ones, too."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with three files."""
    for name in "abc":
        (tmp_path / name).write_bytes(b"old")
    return tmp_path


UNCHANGED = {"a": b"old", "b": b"old", "c": b"old"}


# --- writing -------------------------------------------------------------------------------


def test_a_file_is_replaced_when_the_block_ends_and_not_before(old: Path) -> None:
    with replacing(old / "a") as file:
        file.write(b"new ")
        file.flush()
        assert (old / "a").read_bytes() == b"old"
        file.write(b"and whole")
    assert contents(old) == UNCHANGED | {"a": b"new and whole"}


def test_folders_are_made(tmp_path: Path) -> None:
    write_all({tmp_path / "x/y/a": b"1", tmp_path / "z/b": b"2"})
    assert (tmp_path / "x/y/a").read_bytes() == b"1"
    assert (tmp_path / "z/b").read_bytes() == b"2"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, TerminatedError])
def test_an_error_in_the_block_leaves_the_old_files_and_no_trace(old: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with replacing_all([old / "a", old / "d"]) as (first, second):
            first.write(b"new")
            second.write(bytes(2**20))
            raise error

    with pytest.raises(error):
        fail()
    assert contents(old) == UNCHANGED


@pytest.fixture
def limit_files() -> Iterator[Callable[[int], None]]:
    """Let no file of this process grow beyond a number of bytes, which is as near as it comes to a full disk."""
    resource = pytest.importorskip("resource")
    handler, (soft, hard) = signal.getsignal(signal.SIGXFSZ), resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("size", [200, 10**6])  # what waits in the buffer until the end, and what does not
@pytest.mark.parametrize("large", ["a", "b", "c"])
def test_a_full_disk_names_the_file_that_did_not_fit_and_replaces_none(
    old: Path, limit_files: Callable[[int], None], large: str, size: int
) -> None:
    limit_files(100)
    with pytest.raises(OSError, match="cannot be written: File too large") as caught:
        write_all({old / name: bytes(size if name == large else 50) for name in "abc"})
    assert caught.value.filename == str(old / large)
    assert contents(old) == UNCHANGED


def test_a_full_disk_names_the_array_that_did_not_fit(old: Path, limit_files: Callable[[int], None]) -> None:
    def write() -> None:
        with replacing_all([old / "a", old / "b"]) as outputs:
            for file, count in zip(outputs, (100, 100_000), strict=True):
                write_npy(file, np.zeros(count, np.uint8))

    limit_files(10_000)
    with pytest.raises(OSError, match="cannot be written: File too large") as caught:
        write()
    assert caught.value.filename == str(old / "b")
    assert contents(old) == UNCHANGED


def test_a_disk_that_fails_at_last_names_the_file(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the bytes are to reach the disk itself, of the second of three files."""
    synced = []

    def sync(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(OSError, match="cannot be written: Input/output error") as caught:
        write_all({old / name: b"new" for name in "abc"})
    assert caught.value.filename == str(old / "b")
    assert contents(old) == UNCHANGED


def test_a_folder_where_a_file_should_be_leaves_the_others_as_they_are(old: Path) -> None:
    (old / "b").unlink()
    (old / "b").mkdir()
    with pytest.raises(OSError, match="cannot be written: Is a directory") as caught:
        write_all({old / "a": b"new", old / "b": b"new", old / "c": b"new"})
    assert caught.value.filename == str(old / "b")
    (old / "b").rmdir()
    assert contents(old) == {"a": b"old", "c": b"old"}


def test_a_file_where_a_folder_should_be_is_named(old: Path) -> None:
    with pytest.raises(OSError, match="cannot be written: Not a directory") as caught:
        write_all({old / "b": b"new", old / "a/x": b"new"})
    assert caught.value.filename == str(old / "a/x")
    assert contents(old) == UNCHANGED


def test_what_a_killed_process_left_is_removed_after_an_hour(tmp_path: Path) -> None:
    past, young, other = (tmp_path / name for name in (".a.1.tmp", ".a.2.tmp", ".b.1.tmp"))
    for path, age in ((past, ABANDONED_AFTER + 60), (young, 60), (other, ABANDONED_AFTER + 60)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    write_all({tmp_path / "a": b"whole"})
    assert contents(tmp_path) == {".a.2.tmp": b"half", ".b.1.tmp": b"half", "a": b"whole"}


def test_writers_at_once_leave_one_whole_file_at_any_time(tmp_path: Path) -> None:
    """Threads have one process number, as processes in two containers may."""
    versions = [bytes([number]) * 2**16 for number in range(4)]
    failures: list[OSError] = []

    def write(version: bytes) -> None:
        try:
            for _ in range(30):
                write_all({tmp_path / "a": version, tmp_path / "b": version})
        except OSError as error:
            failures.append(error)

    write(versions[0])
    writers = [threading.Thread(target=write, args=(version,)) for version in versions]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert (tmp_path / "a").read_bytes() in versions
    assert failures == []
    assert sorted(contents(tmp_path)) == ["a", "b"]


def npy(array: np.ndarray) -> bytes:
    """The array as NumPy itself saves it, in C order."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array))
    return buffer.getvalue()


@settings(max_examples=100, deadline=None)
@given(
    array=arrays(st.sampled_from(["u1", "<i8", "<f4", ">f8", "?"]), array_shapes(min_side=0, max_dims=3, max_side=5)),
    backwards=st.booleans(),
    chunk=st.sampled_from([1, 24, files.CHUNK]),
)
def test_arrays_are_written_as_numpy_does(array: np.ndarray, backwards: bool, chunk: int) -> None:
    array = array[::-1] if backwards else array
    buffer = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "CHUNK", chunk)
        write_npy(buffer, array)
    assert buffer.getvalue() == npy(array)


def test_a_transposed_array_is_written_as_it_looks() -> None:
    buffer = io.BytesIO()
    array = np.arange(6).reshape(2, 3).T
    write_npy(buffer, array)
    buffer.seek(0)
    np.testing.assert_array_equal(np.load(buffer), array)


# --- reading -------------------------------------------------------------------------------


@pytest.fixture
def split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a split of five images of 2×3 pixels."""
    monkeypatch.chdir(tmp_path)
    images = np.arange(30, dtype=np.uint8).reshape(5, 2, 3)
    for path, array in ((files.images_path("test"), images), (files.labels_path("test"), np.arange(5, dtype=np.uint8))):
        with replacing(path) as file:
            write_npy(file, array)
    return tmp_path / "data/prepared"


def test_a_split_is_read_with_a_row_per_image(split: Path) -> None:
    images, labels = files.read_split("test")
    np.testing.assert_array_equal(images, np.arange(30).reshape(5, 6))
    assert labels.tolist() == [0, 1, 2, 3, 4]
    assert files.read_images("test").shape == (5, 2, 3)
    assert isinstance(files.read_images("test"), np.memmap)
    assert not isinstance(files.read_images("test", mapped=False), np.memmap)


@pytest.mark.parametrize("content", ["images", "labels"])
def test_a_split_that_is_missing_or_broken_is_said(split: Path, content: str) -> None:
    path = split / f"test_{content}.npy"
    whole = path.read_bytes()
    for broken in (b"", b"hello", whole[:60], whole[:-1], npy(np.array([None]))):
        path.write_bytes(broken)
        with pytest.raises(StageError, match=rf"^data/prepared/{path.name} is not a whole \.npy file \([^\n]+\); run"):
            files.read_split("test")
    for other in (np.zeros(5, np.float32), np.zeros((5, 2, 3), np.int64), np.zeros((5, 6), np.uint8)):
        path.write_bytes(npy(other))
        with pytest.raises(StageError, match=rf"^data/prepared/{path.name} holds .*, but has to hold uint8 \[images"):
            files.read_split("test")
    path.unlink()
    with pytest.raises(StageError, match=rf"^data/prepared/{path.name} is missing; run `dvc repro prepare`\.$"):
        files.read_split("test")


def test_presets_write_where_no_stage_looks() -> None:
    stage_files, preset_files = model_files("x"), model_files("x", preset=True)
    assert {str(path.parent) for path in preset_files[:3]} == {"data/presets"}
    assert not set(stage_files[:3]) & set(preset_files[:3])
    assert stage_files.metrics == preset_files.metrics  # `dvc metrics show metrics/x.json` reads either


def test_what_to_run_for_a_missing_file_is_what_writes_it() -> None:
    """DVC for a model of its own, the stage for a preset, which DVC leaves alone."""
    stages = ("train", "train", "evaluate", "apply", "apply")
    for path, stage in zip(model_files("best16", preset=True), stages, strict=False):
        assert files.how_to_make(path) == f"run `python -m stages.{stage} best16`"
    assert {files.how_to_make(path) for path in model_files("deep")} == {"run `dvc repro`"}
