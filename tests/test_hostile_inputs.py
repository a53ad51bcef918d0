"""What somebody could name, say or hand over, to no good end: one sentence, exit code 2, and nothing changed.

In one process, so that many take seconds. An alarm ends what hangs.
"""

import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType

import pytest

from dambench import engine, report
from dambench.cli import run_cli
from dambench.store.runs import Store
from tests import ledger
from tests.hostile import steering

LATE = 30.0
"""Seconds after which an answer is none: far more than any takes, for a machine may be busy."""

assert engine  # imported here, where nothing waits for it

CHECK = ("run", "--method", "dm", "--dataset", "digits", "--check")
RUN = ("run", "--headless", "--method", "dm", "--dataset", "digits")
NOBODY = os.getuid() != 0
"""Whether permissions hold for us: root may do everything."""


class Late(BaseException):
    """It hung."""


@contextmanager
def in_time(seconds: float = LATE) -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database, and with all that is no file."""
    folder = tmp_path_factory.mktemp("odd")
    with closing(Store.open(folder / "runs.db", write=True)) as store:
        run = store.create(ledger.config("dm"), ledger.CARD, "a run")
        for _ in store.record(run, ledger.words(ledger.config("dm"), [0.5, 0.6])):
            pass
        store.db.conn.execute("update runs set id = 'abcdef'")
    os.mkfifo(folder / "pipe")
    (folder / "to-pipe").symlink_to("pipe")
    os.mkfifo(folder / "pipe.npz")
    (folder / "loop").symlink_to("loop")
    (folder / "folder").mkdir()
    (folder / "empty").touch()
    (folder / "text.toml").write_text("ipc = 1\n")
    here = os.getcwd()
    os.chdir(folder)  # a socket's path may not be long
    with closing(socket.socket(socket.AF_UNIX)) as made:
        made.bind("socket")
    os.chdir(here)
    return folder


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DAMBENCH_DB", str(place / "runs.db"))
    monkeypatch.setenv("DAMBENCH_HOME", str(place / "home"))
    monkeypatch.setattr(report, "PATIENCE", 0.05)
    monkeypatch.chdir(place)
    before = (place / "runs.db").read_bytes()
    yield
    assert (place / "runs.db").read_bytes() == before


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """The one sentence that a command answers, and nothing else."""
    with in_time():
        assert run_cli(arguments) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"dambench: [^\n]{10,1000}\n", said.err), said.err
    assert not steering(said.err)
    return said.err


NO_FILES = {
    "pipe": "it is a pipe",
    "to-pipe": "it is a pipe",
    "socket": "it is a socket",
    "/dev/zero": "it is a device",
    "/dev/full": "it is a device",
    "folder": "it is a folder",
    "loop": "Too many levels of symbolic links",
    "n" * 300: "File name too long",
    "text.toml/x": "Not a directory",
    "no/such": "No such file",
    "nul\0byte": "null byte",
}

DATABASE = [
    ("runs", "--db"),
    ("report", "--db"),
    ("show", "abcdef", "--db"),
    ("watch", "abcdef", "--db"),
    ("tag", "abcdef", "x", "--db"),
    (*RUN, "--db"),
    ("resume", "abcdef", "--db"),
    ("db", "backup", "--db"),
    ("db", "migrate", "--db"),
    ("db", "purge", "--db"),
    ("db", "merge"),
]


@pytest.mark.parametrize("command", DATABASE, ids=" ".join)
@pytest.mark.parametrize("name", ["pipe", "to-pipe", "socket", "/dev/zero", "folder"])
def test_what_is_no_file_is_no_database(capsys: pytest.CaptureFixture[str], command: list[str], name: str) -> None:
    assert NO_FILES[name] in refused(capsys, *command, name)


@pytest.mark.parametrize("name", NO_FILES)
def test_what_is_no_file_holds_no_settings(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert NO_FILES[name] in refused(capsys, *CHECK, name)


@pytest.mark.parametrize("dataset", ["arrays", "folder", "imagenet", "mhist", "tinyimagenet"])
@pytest.mark.parametrize("name", ["pipe", "socket", "/dev/zero", "loop", "n" * 300, "empty/x", ""])
def test_what_is_no_file_holds_no_data(capsys: pytest.CaptureFixture[str], dataset: str, name: str) -> None:
    assert "data" in refused(capsys, "run", "--method", "dm", "--check", "--dataset", dataset, "--data", name)


@pytest.mark.parametrize("output", ["pipe", "to-pipe", "socket", "/dev/full", "folder", "n" * 300, "empty/x", "no/x"])
def test_what_is_no_file_takes_no_output(capsys: pytest.CaptureFixture[str], output: str) -> None:
    refused(capsys, "report", "-o", output)
    refused(capsys, "show", "abcdef", "--preview", output)
    refused(capsys, "db", "backup", output)


def test_a_report_goes_into_a_pipe_that_somebody_reads(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    reader = os.open(place / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert run_cli(["report", "-o", "pipe"]) == 0
        assert os.read(reader, 100_000).startswith(b"# ")
    finally:
        os.close(reader)


FILTERS = {
    "many alternatives": (" | ".join(f"name:a{n}" for n in range(50_000)), "200 words"),
    "many words": (" ".join(f"a{n}" for n in range(50_000)), "200 words"),
    "many short words": ("a " * 300, "200 words"),
    "many values": ("name:" + "|".join(map(str, range(300))), "200 words"),
    "one long word": ("name:" + "a" * 60_000, "2000 are the most"),
    "many stars": ("name:" + "*a" * 25_000, "2000 are the most"),
    "many quotes": ('"' * 50_001, "2000 are the most"),
    "NUL": ("a\0b", "NUL"),
    "no number": ("seed:nan", "whole number"),
    "a number too large": ("seed:" + "9" * 400, "whole number"),
    "infinity": ("ipc<=1e400", "whole number"),
    "foreign digits": ("seed:\u0663", "whole number"),
    "foreign percent": ("accuracy>=\u0663", "percent"),
    "NaN percent": ("accuracy>nan", "percent"),
    "foreign hours": ("age<\u0663h", "needs a time"),
    "endless hours": ("age<1e400h", "needs a time"),
    "no such day": ("created>=2026-02-30", "needs a date"),
    "no such month": ("created>=2026-13", "needs a date"),
    "foreign year": ("created>=\u0662\u0660\u0662\u0666", "needs a date"),
    "an open quote": ('name:"a', "closes it"),
    "nothing on one side": ("a |", "nothing on one side"),
    "an unknown field": ("colour:red", "No field is called 'colour'"),
    "an empty value": ("name:", "needs a value"),
}


@pytest.mark.parametrize("said", FILTERS)
def test_a_filter_that_cannot_be_is_a_sentence(capsys: pytest.CaptureFixture[str], said: str) -> None:
    text, why = FILTERS[said]
    sentence = refused(capsys, "runs", "--filter", text)
    assert why in sentence
    assert "cannot be read" not in sentence


def test_the_longest_filter_that_may_be_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    for text in (" ".join(["a"] * 200), " | ".join(["-*a|b"] * 50), "name:" + "*a" * 990, "x|" * 99 + "x"):
        with in_time():
            assert run_cli(["runs", "--all", "--filter", text]) == 0
        assert not capsys.readouterr().err
