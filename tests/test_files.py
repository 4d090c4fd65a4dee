"""Writing all files or none, also beside other writers and after killed ones."""

import os
import threading
import time
from pathlib import Path

import pytest

from stages.files import ABANDONED, write_files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_where_a_file_should_be_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "b").mkdir()
    with pytest.raises(OSError, match="cannot be written: Is a directory") as caught:
        write_files({tmp_path / "a": b"new", tmp_path / "b": b"new"})
    assert caught.value.filename == str(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a", "b"]


def test_what_a_killed_process_left_is_removed_after_an_hour(tmp_path: Path) -> None:
    old, young, other = (tmp_path / name for name in (".a.1.tmp", ".a.2.tmp", ".b.1.tmp"))
    for path, age in ((old, ABANDONED + 60), (young, 60), (other, ABANDONED + 60)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    write_files({tmp_path / "a": b"whole"})
    assert names(tmp_path) == [".a.2.tmp", ".b.1.tmp", "a"]


def test_writers_at_once_leave_one_whole_file_at_any_time(tmp_path: Path) -> None:
    """Threads have one process number, as processes in two containers may."""
    contents = [bytes([number]) * 2**16 for number in range(4)]
    failures: list[OSError] = []

    def write(content: bytes) -> None:
        try:
            for _ in range(30):
                write_files({tmp_path / "a": content, tmp_path / "b": content})
        except OSError as error:
            failures.append(error)

    write(contents[0])
    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert (tmp_path / "a").read_bytes() in contents
    assert failures == []
    assert names(tmp_path) == ["a", "b"]
