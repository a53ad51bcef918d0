import errno
import os
from pathlib import Path

import pytest

from dambench import files
from dambench.errors import BadInput


def test_a_file_is_written_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.bin"
    files.write_whole(path, b"one")
    files.write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["file.bin"]


@pytest.mark.parametrize("broken", ["fsync", "replace", "fchmod"])
def test_when_writing_fails_the_old_file_stays_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    path = tmp_path / "file.bin"
    files.write_whole(path, b"old")

    def fail(*args: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(f"dambench.files.os.{broken}", fail)
    with pytest.raises(OSError, match="No space left"):
        files.write_whole(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]


def test_only_a_plain_file_is_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path):
        with pytest.raises(OSError, match="no plain file"):
            files.write_whole(path, b"new")
    assert pipe.is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    files.write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").read_bytes() == b"new"


def test_a_full_disk_is_said_in_a_sentence_with_a_way_out(tmp_path: Path) -> None:
    with (
        pytest.raises(BadInput, match="the disk is full"),
        files.writing("The set", tmp_path),
    ):
        raise OSError(errno.ENOSPC, "x")


def test_home_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DAMBENCH_HOME", str(tmp_path / "here"))
    assert files.home() == tmp_path / "here"
    monkeypatch.delenv("DAMBENCH_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert files.home() == tmp_path / "dambench"


def test_the_digest_of_bytes_is_that_of_the_file(tmp_path: Path) -> None:
    files.write_whole(tmp_path / "x", b"abc")
    assert files.sha256(tmp_path / "x") == files.digest(b"abc")
