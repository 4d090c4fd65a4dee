"""Reading IDX files: any array comes back, and anything else is refused in a sentence."""

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from stages.core.errors import StageError
from stages.core.idx import idx_shape, read_idx, stream_idx
from tests.conftest import RAW, idx_bytes

pytestmark = pytest.mark.quick

MANY = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
bytes_arrays = arrays(np.uint8, array_shapes(max_dims=4, max_side=6))


@MANY
@given(array=bytes_arrays, zipped=st.booleans())
def test_any_array_comes_back(tmp_path: Path, array: np.ndarray, zipped: bool) -> None:
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(idx_bytes(array)) if zipped else idx_bytes(array))
    result = read_idx(path, array.ndim)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, array)
    assert idx_shape(path, array.ndim) == array.shape
    blocks = list(stream_idx(path, array.ndim, 2))
    assert {block.dtype for block in blocks} == {np.dtype(np.uint8)}
    assert [len(block) for block in blocks[:-1]] == [2] * (len(blocks) - 1)
    np.testing.assert_array_equal(np.concatenate(blocks), array)


@MANY
@given(array=bytes_arrays, zipped=st.booleans(), data=st.data())
def test_a_cut_or_longer_file_is_refused(tmp_path: Path, array: np.ndarray, zipped: bool, data: st.DataObject) -> None:
    content = idx_bytes(array)
    keep = data.draw(st.integers(0, len(content) + 20).filter(lambda n: n != len(content)))
    content = (content + bytes(20))[:keep]
    (tmp_path / "x").write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(StageError, match=f"{tmp_path}/x (is|starts) ") as whole:
        read_idx(tmp_path / "x", array.ndim)
    with pytest.raises(StageError) as streamed:
        list(stream_idx(tmp_path / "x", array.ndim, 2))
    assert str(streamed.value) == str(whole.value)


@MANY
@given(array=bytes_arrays, data=st.data())
def test_a_damaged_gzip_file_is_refused_or_harmless(tmp_path: Path, array: np.ndarray, data: st.DataObject) -> None:
    content = bytearray(gzip.compress(idx_bytes(array), mtime=0))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    (tmp_path / "x").write_bytes(content)
    try:
        np.testing.assert_array_equal(read_idx(tmp_path / "x", array.ndim), array)  # a flip of the header's fluff
    except StageError as error:
        assert str(error).startswith(f"{tmp_path}/x ")


@MANY
@given(content=st.binary(max_size=64))
def test_any_bytes_are_refused_or_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    try:
        assert idx_bytes(read_idx(tmp_path / "x", 1)) == content
    except StageError as error:
        assert str(error).startswith(f"{tmp_path}/x ")


def test_a_header_that_claims_the_world_takes_no_memory(tmp_path: Path) -> None:
    header = bytes([0, 0, 8, 3]) + b"\xff" * 12
    for content in (header, gzip.compress(header)):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(StageError, match="is too large: its IDX header declares 4294967295"):
            read_idx(tmp_path / "x", 3)
    (tmp_path / "x").write_bytes(header[:8] + (2**12).to_bytes(4, "big") * 2)
    for rows, problem in ((100, "truncated"), (1000, "too large")):  # when streaming, the limit applies to a block
        with pytest.raises(StageError, match=f"is {problem}: its IDX header declares 4294967295"):
            next(stream_idx(tmp_path / "x", 3, rows))
    claim = bytes([0, 0, 8, 1]) + (2**30).to_bytes(4, "big")
    (tmp_path / "x").write_bytes(gzip.compress(claim))
    with pytest.raises(StageError, match="is truncated: its IDX header declares 1073741824 values"):
        read_idx(tmp_path / "x", 1)
    (tmp_path / "x").write_bytes(bytes(2) + bytes([8, 1]) + bytes(4))
    with pytest.raises(StageError, match="is empty: its IDX header declares 0 values"):
        read_idx(tmp_path / "x", 1)


def test_streaming_takes_the_memory_of_a_block(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros((40_000, 28, 28), np.uint8))))
    tracemalloc.start()
    assert sum(len(block) for block in stream_idx(path, 3, 100)) == 40_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**21  # of the 30 MiB that the file inflates to


def test_a_gzip_bomb_takes_no_memory(tmp_path: Path) -> None:
    """A header that promises ten bytes, and sixteen gigabytes in sixteen megabytes."""
    bomb = gzip.compress(idx_bytes(np.zeros(10, np.uint8))) + gzip.compress(bytes(2**26)) * 2**8
    (tmp_path / "x").write_bytes(bomb)
    tracemalloc.start()
    try:
        with pytest.raises(StageError, match="is too long: its IDX header declares 10 values"):
            read_idx(tmp_path / "x", 1)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


IDX_OF = "is an IDX file of "


@pytest.mark.parametrize(
    ("content", "found", "remedy"),
    [
        (b"", "starts with the bytes of an empty file", ""),
        (b"hello", "starts with the bytes 68 65 6c 6c", ""),
        (bytes([0, 0, 0x0D, 1, 0, 0, 0, 1, 0]), f"{IDX_OF}32-bit floats in 1 dimension", "convert it"),
        (bytes([0, 0, 8, 3, 0, 0, 0, 1]), f"{IDX_OF}unsigned bytes in 3 dimensions", ""),
        (bytes([0, 0, 0x0C, 2]) + bytes(16), f"{IDX_OF}32-bit integers in 2 dimensions", "keep its first column only"),
        (b"\n<!DOCTYPE html><html>", "is an HTML page", "download the file itself"),
        (b"\xef\xbb\xbf<html>", "is an HTML page", "download the file itself"),
        (gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 1, 7]), mtime=0), "is gzipped twice", "unpack it once with gunzip"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer", "git lfs pull"),
        (b"PK\x03\x04" + bytes(30), "is a ZIP archive", "unpack it"),
    ],
)
def test_other_files_are_refused_by_what_they_are(tmp_path: Path, content: bytes, found: str, remedy: str) -> None:
    (tmp_path / "x").write_bytes(gzip.compress(content))
    if not content.startswith(b"\x1f\x8b"):
        (tmp_path / "y").write_bytes(content)
    for path in tmp_path.iterdir():
        with pytest.raises(StageError) as refused:
            read_idx(path, 1)
        sentence = str(refused.value)
        assert sentence.startswith(f"{path} {found}, but has to be an IDX file of unsigned bytes in 1 dimension")
        assert remedy in sentence


def test_the_committed_files_are_mnist() -> None:
    images, labels = read_idx(RAW / "t10k-images-idx3-ubyte.gz", 3), read_idx(RAW / "t10k-labels-idx1-ubyte.gz", 1)
    assert images.shape == (10_000, 28, 28)
    assert labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
