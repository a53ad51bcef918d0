import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dambench.core import files
from dambench.core.errors import BadInput


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

    monkeypatch.setattr(f"dambench.core.files.os.{broken}", fail)
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


@pytest.mark.parametrize("mask", [0o077, 0o002])
def test_every_file_may_be_read_and_written_by_whom_the_umask_says(mask: int, tmp_path: Path) -> None:
    """In a process of its own: the mask is the whole process's."""
    code = f"""
import os
import subprocess
import sys
from pathlib import Path
from dambench.core import files
from dambench.cli.app import run_cli
from dambench.store import journal
from dambench.store.runs import Store
from tests.ledger import add, config
os.umask({mask})
store = Store.open(Path("runs.db"), write=True)
run = add(store, config())
assert run_cli(["db", "backup", "copy.db"]) == run_cli(["db", "backup", "small.db", "--no-pictures"]) == 0
os.chmod("small.db", 0o640)
assert run_cli(["db", "backup", "small.db", "--overwrite"]) == 0
for name in ("report.md", "report.html"):
    assert run_cli(["report", "-o", name]) == 0
assert run_cli(["show", run, "--preview", "set.png"]) == 0
files.write_whole(files.set_path("a" * 64), b"set")
files.mark_imported("a" * 64)
journal.Journal(Path("net.db")).begin("edits-" + "0" * 32 + ".jsonl", b"")
"""
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    )
    found = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    assert found.pop("small.db") == 0o640  # one that is replaced stays as it was
    assert len(found) >= 10
    assert set(found.values()) == {0o666 & ~mask}, found
