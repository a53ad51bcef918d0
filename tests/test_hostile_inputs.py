"""What somebody could name, say or hand over, to no good end: one sentence, exit code 2, and nothing changed.

In one process, so that many take seconds. An alarm ends what hangs.
"""

import gzip
import io
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from dambench import datasets, engine, report
from dambench.cli.app import run_cli
from dambench.core import registry
from dambench.core.config import Choice
from dambench.core.errors import BadInput
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
    monkeypatch.setattr(report, "READER_SECONDS", 0.05)
    monkeypatch.chdir(place)
    before = (place / "runs.db").read_bytes()
    yield
    assert (place / "runs.db").read_bytes() == before


@pytest.fixture(scope="module")
def digits(place: Path) -> None:
    """Prepared there."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DAMBENCH_HOME", str(place / "home"))
        datasets.prepare(Choice("digits"), None)


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
@pytest.mark.parametrize("name", ["pipe", "/dev/zero", "folder"])
def test_what_is_no_file_is_no_database(
    capsys: pytest.CaptureFixture[str], command: tuple[str, ...], name: str
) -> None:
    sentence = refused(capsys, *command, name)
    assert NO_FILES[name] in sentence or (command == ("db", "merge") and name == "folder")  # it could be a bundle


@pytest.mark.parametrize("name", NO_FILES)
def test_what_is_no_file_holds_no_settings(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert NO_FILES[name] in refused(capsys, *CHECK, name)


@pytest.mark.parametrize("dataset", ["arrays", "folder", "imagenet", "mhist", "tinyimagenet"])
@pytest.mark.parametrize("name", ["pipe", "/dev/zero", "loop", "n" * 300, ""])
def test_what_is_no_file_holds_no_data(capsys: pytest.CaptureFixture[str], dataset: str, name: str) -> None:
    assert "data" in refused(capsys, "run", "--method", "dm", "--check", "--dataset", dataset, "--data", name)


@pytest.mark.parametrize("dataset", ["mnist", "fashionmnist", "svhn", "cifar10", "cifar100"])
def test_what_is_no_file_is_not_downloaded_over(tmp_path: Path, dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket", None)
    there = tmp_path / next(iter(registry.load("datasets", dataset).FILES))
    there.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(there)
    with in_time(), pytest.raises(BadInput, match=f"is not a file: {dataset} needs one of that name"):
        datasets.prepare(Choice(dataset), tmp_path)


@pytest.mark.parametrize("name", NO_FILES)
def test_what_is_no_file_is_no_set(capsys: pytest.CaptureFixture[str], digits: None, name: str) -> None:
    for form in ("auto", "npz"):
        with in_time():
            assert run_cli(["import", name, "--dataset", "digits", "--format", form]) == 2
        said = capsys.readouterr().err
        assert re.fullmatch(r"dambench: [^\n]{10,1000}\n", said)
    with in_time():
        assert run_cli(["experts", "import", name, "--dataset", "digits"]) == 2
    assert re.fullmatch(r"(Looking at .*\n)?dambench: [^\n]{10,1000}\n", capsys.readouterr().err)


@pytest.mark.parametrize("output", ["pipe", "to-pipe", "socket", "/dev/full", "folder", "n" * 300, "empty/x", "no/x"])
def test_what_is_no_file_takes_no_output(capsys: pytest.CaptureFixture[str], output: str) -> None:
    refused(capsys, "report", "-o", output)
    refused(capsys, "show", "abcdef", "--preview", output)
    refused(capsys, "db", "backup", output)
    refused(capsys, "db", "bundle", output)
    if output.endswith("/x"):
        assert "no such folder" in refused(capsys, "shot", "runs", "-o", output)


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


TOML: dict[str, tuple[str | bytes, str]] = {
    "arrays without end": ("a = " + "[" * 50_000, "not valid TOML"),
    "arrays in arrays": ("a = " + "[" * 30_000 + "]" * 30_000, "not valid TOML"),
    "tables in tables": ("[a" + ".b" * 5_000 + "]", "No setting is called 'a'"),
    "keys in keys": ("method" + ".b" * 2_000 + " = 1", "No method was named"),
    "too long": ("name = '" + "x" * 70_000 + "'", "64000 are the most"),
    "a long name": ("name = '" + "x" * 2_000 + "'", "name = 'xxx"),
    "a long tag": ("tags = ['" + "x" * 2_000 + "']", "length <= 200"),
    "many tags": (f"tags = {['x'] * 200}", "length <= 100"),
    "many networks": (f"evaluate_on = {['convnet'] * 200}", "length <= 100"),
    "many seeds": (f"seeds = {list(range(2_000))}", "length <= 1000"),
    "more seeds": ("seeds = '0-999999999999999999'", "more than 1000 runs"),
    "foreign seeds": ("seeds = '\u0663'", "not of the form 0-4"),
    "high seeds": ("seeds = '\u00b2'", "not of the form 0-4"),
    "a negative seed": ("seeds = [-1]", "`int` >= 0"),
    "a long number": ("seed = " + "9" * 5_000, "not valid TOML"),
    "a long hexadecimal number": ("seed = 0x" + "f" * 10_000, "seed = … is not allowed"),
    "infinity": ("checkpoint_every = inf", "not a finite number"),
    "NaN": ("checkpoint_every = nan", "not a finite number"),
    "more than a float": ("checkpoint_every = 1e400", "not a finite number"),
    "NaN for a method": ("method = {name = 'dm', lr_images = nan}", "In method dm: lr_images = nan is not a finite"),
    "a long number for a method": ("method = {name = 'dm', lr_images = " + "1" * 400 + "}", "out of range"),
    "a date for a number": ("seed = 2020-01-01", "seed = 2020-01-01 is not allowed"),
    "a date for a text": ("name = 2020-01-01T00:00:00Z", "name = 2020-01-01 00:00:00+00:00 is not allowed"),
    "a time for a number": ("ipc = 12:00:00", "ipc = 12:00:00 is not allowed"),
    "a truth for a number": ("ipc = true", "got `bool`"),
    "a date for a method": ("method = {name = 2020-01-01}", "which is not a text"),
    "a table for a number": ("method = {name = 'dm', lr_images = {a = 1}}", "got `object`"),
    "several methods": (
        "[[method]]\nname = 'dm'\n[[method]]\nname = 'dc'",
        "which this is by several values of method",
    ),
    "a nameless option": ("method = {name = 'dm', '' = 1}", "No option is called ''"),
    "an option that steers": ("method = {name = 'dm', '\\u001b[2J' = 1}", "No option is called"),
    "a key that steers": ("'\\u001b]0;x\\u0007' = 1", "No setting is called"),
    "half a character": ('name = "\\ud800"', "not valid TOML"),
    "twice": ("ipc = 1\nipc = 2", "not valid TOML"),
    "bytes": (bytes(range(256)), "not valid TOML"),
    "zeros": (bytes(100), "not valid TOML"),
    "UTF-16": ("ipc = 1".encode("utf-16"), "not valid TOML"),
    "Latin": ("name = '\u00e9'".encode("latin-1"), "not valid TOML"),
    "a mark before it": ("\ufeffipc = 0".encode(), "`int` >= 1"),
}


@pytest.mark.parametrize("what", TOML)
def test_settings_that_cannot_be_are_a_sentence(capsys: pytest.CaptureFixture[str], place: Path, what: str) -> None:
    text, why = TOML[what]
    (place / "it.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    method = [] if what in ("keys in keys", "a date for a method") or "method" in str(text) else ["--method", "dm"]
    assert why in refused(capsys, "run", "it.toml", *method, "--dataset", "digits", "--check")


FLAGS = [
    *(("--ipc", text) for text in ("0", "-1", "9" * 400, "9" * 5_000, "1e5", "nan", "\u0663", "\u00b2", "")),
    *(("--seed", text) for text in ("-1", "9" * 400, str(2**63), "0x10", "1.5")),
    *(("--seeds", text) for text in ("", ",", "-", "0-", "-1", "5-1", "1,1", "0-1000", "0-" + "9" * 400, "1-2-3")),
    *(("--checkpoint-every", text) for text in ("nan", "inf", "-inf", "1e400", "-1")),
    *(("--threads", text) for text in ("-1", "9" * 30)),
    *(("--eval-repeats", text) for text in ("0", "9" * 30)),
    *(("--iterations", text) for text in ("0", "-1", "9" * 400)),
    ("--evaluate-every", "-5"),
    *(
        ("--set", f"method.lr_images={value}")
        for value in (
            "nan",
            "inf",
            "1e400",
            "-1",
            "1e-400",
            "9" * 400,
            "0x" + "f" * 5_000,
            "[" * 50_000,
            "{a" + ".b" * 25_000 + "=1}",
            "2020-01-01",
            "true",
            "'1'",
            "",
            "1\nipc = 3",
            "\0",
            "\x1b[2J",
        )
    ),
    *(("--set", text) for text in ("", "=", "method", "method.=1", "method.a.b=1", "method." + "x" * 9_999 + "=1")),
    ("--set", "method.iterations=" + "9" * 30),
    *(
        ("--network", text)
        for text in ("", "-", "convnet-d" + "9" * 50, "convnet-w999999", "convnet-\u0663", "\x1b[2J")
    ),
    *(("--evaluate-on", text) for text in ("", ",", "pool-", "convnet,,")),
    *(("--device", text) for text in ("", "cuda:-1", "cuda:" + "9" * 40, "meta", "\x1b[2J", "x" * 9_999)),
    *(("--protocol", text) for text in ("", "x" * 9_999, "\x1b[2J", "../dm")),
    *(("--recipe", text) for text in ("", "\x1b[2J")),
    *(("--precision", text) for text in ("", "fp8")),
    *(("--compile", text) for text in ("", "maybe")),
    *(("--preprocessing", text) for text in ("", "\x1b[2J")),
    *(("--name", text) for text in ("x" * 201, "x" * 100_000)),
    *(("--tag", text) for text in ("", "x" * 201)),
    *(("--data", text) for text in ("", "\0")),
    ("--dataset", "../digits"),
]


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: f"{flag[0]} {ascii(flag[1])[:30]}")
def test_a_value_that_cannot_be_is_a_sentence(capsys: pytest.CaptureFixture[str], flag: tuple[str, str]) -> None:
    dataset = [] if flag[0] == "--dataset" else ["--dataset", "digits"]
    name, value = flag
    refused(capsys, "run", "--method", "dm", *dataset, f"{name}={value}", "--check")


IDS = ["", "%", "_", "*", "'; drop table runs", "\0", "\x1b[2J", "\U0001f4a9", "x" * 10_000]


@pytest.mark.parametrize("command", [("show",), ("note",), ("tag",), ("stop",), ("logs",), ("delete",), ("evaluate",)])
def test_an_id_that_cannot_be_is_a_sentence(capsys: pytest.CaptureFixture[str], command: tuple[str]) -> None:
    more = ["x"] if command[0] in ("note", "tag") else []
    for said in IDS:
        assert re.search("No run has the id|names nothing", refused(capsys, *command, said, *more))


OTHERS = [
    ("tag", "abcdef", "x" * 10**5),
    ("note", "abcdef", "x" * 10**5),
    ("shot", "nowhere", "-o", "x.svg"),
    ("shot", "runs", "-o", "x.svg", "--size", "\u00b2x\u00b2"),
    ("shot", "runs", "-o", "x.svg", "--size", "9" * 400 + "x1"),
    ("shot", "runs", "-o", "x.svg", "--keys", "a," * 10_000),
    ("report", "--rows", "x" * 10_000),
    ("report", "--columns", ""),
    ("report", "--format", "\x1b[2J"),
    ("experts", "delete", "x"),
    ("experts", "train", "--dataset", "digits", "--count", "9" * 400),
    ("experts", "train", "--dataset", "digits", "--seed", "-1"),
    ("experts", "train", "--dataset", "digits", "--set", "lr=nan"),
    ("experts", "train", "--dataset", "digits", "--epochs", "0"),
    ("\x1b[2J",),
    ("runs", "--\x1b[2J"),
    ("runs", "\udcff"),
    ("import", "no/such.pt", "--dataset", "\x1b[2J"),
]


@pytest.mark.parametrize("command", OTHERS, ids=lambda command: ascii(" ".join(command))[:40])
def test_what_else_cannot_be_is_a_sentence(capsys: pytest.CaptureFixture[str], command: tuple[str, ...]) -> None:
    refused(capsys, *command)


ENVIRONMENT = [
    ("DAMBENCH_DISK", "weird", ("runs",)),
    ("DAMBENCH_DB", "pipe", ("runs",)),
    ("DAMBENCH_DB", "\udcff", ("runs",)),
    ("DAMBENCH_DB", "~nobody-has-this-name/x", RUN),
    ("DAMBENCH_HOME", "\udcff", CHECK),
    ("DAMBENCH_HOME", "pipe", CHECK),
    ("DAMBENCH_HOME", "empty", CHECK),
    ("DAMBENCH_HOME", "empty/x", CHECK),
    ("DAMBENCH_HOME", "/dev/null/x", CHECK),
    ("DAMBENCH_HOME", "/proc/x", CHECK),
    ("DAMBENCH_HOME", "n" * 300, CHECK),
    ("DAMBENCH_HOME", "~nobody-has-this-name/x", CHECK),
    ("DAMBENCH_DATA", "\udcff", CHECK),
    ("DAMBENCH_DETACHED", "abc:x", ("run", "--method", "dm", "--dataset", "x", "--headless")),
    ("DAMBENCH_DETACHED", "999:x", ("run", "--method", "dm", "--dataset", "x", "--headless")),
]


@pytest.mark.parametrize("said", ENVIRONMENT, ids=lambda said: f"{said[0]} {ascii(said[1])[:20]}")
def test_an_environment_that_cannot_be_is_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, said: tuple[str, str, tuple[str, ...]]
) -> None:
    name, value, command = said
    monkeypatch.setenv(name, value)
    refused(capsys, *command)
    assert not Path("~nobody-has-this-name").exists()


def test_a_home_that_nobody_knows_becomes_no_folder(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAMBENCH_HOME", "")
    monkeypatch.setenv("XDG_DATA_HOME", "~nobody-has-this-name/x")
    assert "Nobody knows which home is meant" in refused(capsys, *CHECK)


@pytest.mark.parametrize(
    ("command", "code", "out", "err"),
    [
        ("-m dambench report -o out.md 2>&-", 0, "", ""),
        pytest.param("-m dambench runs --db no/such 2>/dev/full", 2, "", "", marks=pytest.mark.slow),
        pytest.param("-m dambench runs 0<&- 1>&-", 0, "", "", marks=pytest.mark.slow),
        (
            "-m dambench run --headless --method dm --dataset digits --db x.db",
            2,
            "",
            "dambench: The folder in which this was started is no longer there",
        ),
    ],
)
def test_streams_that_are_not_there_and_a_folder_that_is_gone(
    place: Path, command: str, code: int, out: str, err: str
) -> None:
    gone = "mkdir gone && cd gone && rmdir ../gone && " if "x.db" in command else ""
    text = f"{gone}exec {shlex.quote(sys.executable)} {command}"
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (code, out)
    assert done.stderr.startswith(err)
    assert done.stderr.count("\n") <= 1


def _npy(header: str, content: bytes = b"") -> bytes:
    """An array with this header: a shape, or all of it."""
    text = header if header.startswith("{") else f"{{'descr': '|u1', 'fortran_order': False, 'shape': {header}}}"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + content


def _saved(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def _typed(descr: str) -> bytes:
    return _npy(f"{{'descr': {descr}, 'fortran_order': False, 'shape': (0,)}}")


def _linked() -> zipfile.ZipInfo:
    link = zipfile.ZipInfo("y_test.npy")
    link.external_attr = 0o120777 << 16
    return link


def _claimed(content: bytes, size: int) -> bytes:
    """An archive whose directory claims another size of its first file."""
    entry = content.index(b"PK\x01\x02")
    return content[: entry + 24] + size.to_bytes(4, "little") + content[entry + 28 :]


def _locked(content: bytes) -> bytes:
    entry = content.index(b"PK\x01\x02")
    return content[: entry + 8] + b"\x01\x00" + content[entry + 10 :]


ARRAYS: dict[str, tuple[bytes, str]] = {
    "objects": (_saved(np.array([{}], object)), "Python objects, which could run code"),
    "objects in a record": (_typed("[('a', 'O')]"), "Python objects, which could run code"),
    "code": (_npy("{'descr': __import__('os').system('id')}"), "malformed"),
    "a negative shape": (_npy("(-1, 8)"), "claims -8 bytes"),
    "a shape beyond memory": (_npy("(99999999999999999999,)"), "claims 99999999999999999999 bytes"),
    "nothing, in the billions": (_npy("(0, 99999999999999999999)"), "not a whole .npz file"),
    "many dimensions": (_npy(f"({'1,' * 4000})"), "not a whole .npz file"),
    "many brackets": (_npy("(" * 5000), "not a whole .npz file"),
    "half an image": (_npy("(1.5,)"), "shape is not valid"),
    "no shape": (_npy("None"), "shape is not valid"),
    "no bytes each": (_typed("'|V0'"), "not a whole .npz file"),
    "texts without letters": (_typed("'<U0'"), "not a whole .npz file"),
    "fields beyond memory": (_typed("('u1', (999999999, 999999999))"), "not a whole .npz file"),
    "times": (_typed("'<M8[ns]'"), "numbers are needed"),
    "records": (_typed("'u1,u1'"), "numbers are needed"),
    "a version that nobody knows": (b"\x93NUMPY\x09\x09", "has version (9, 9)"),
    "a header beyond memory": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "not a whole .npz file"),
    "no array": (b"", "is not an array"),
}

ARCHIVES: dict[str, tuple[list[str | zipfile.ZipInfo], Callable[[bytes], bytes], str]] = {
    "twice": (["x_train.npy"], bytes, "has 'x_train.npy' twice"),
    "an absolute name": (["/y_test.npy"], bytes, "leads out of its folder"),
    "a name that leads out": (["../y_test.npy"], bytes, "leads out of its folder"),
    "a drive": (["C:y_test.npy"], bytes, "a drive letter"),
    "a deep name": (["a/" * 20 + "y.npy"], bytes, "longer name"),
    "a link": ([_linked()], bytes, "is a link"),
    "locked": ([], _locked, "is encrypted"),
    "a larger size": ([], lambda content: _claimed(content, 2**32 - 2), ""),
    "a size of 64 bits that is not there": ([], lambda content: _claimed(content, 2**32 - 1), ""),
    "cut": ([], lambda content: content[:-30], "not a zip file"),
    "no archive": ([], lambda content: gzip.compress(content), "not a zip file"),
}


def _arrays(path: Path, more: dict[str | zipfile.ZipInfo, bytes], change: Callable[[bytes], bytes] = bytes) -> None:
    images = np.arange(20 * 64, dtype=np.uint8).reshape(20, 8, 8)
    usual = {"x_train": images, "y_train": np.arange(20) % 2, "x_test": images, "y_test": np.arange(20) % 2}
    members = {f"{name}.npy": _saved(array) for name, array in usual.items() if f"{name}.npy" not in more}
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")
        for name, content in [*members.items(), *more.items()]:
            archive.writestr(name, content)
        if "x_train.npy" in more and not more["x_train.npy"]:
            archive.writestr("x_train.npy", b"")
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize("what", ARRAYS)
def test_an_array_that_cannot_be_is_a_sentence(place: Path, what: str) -> None:
    content, why = ARRAYS[what]
    _arrays(place / "a.npz", {"x_train.npy": content} if content else {"x_train.npy": b"x"})
    with in_time(), pytest.raises(BadInput, match=re.escape(why)):
        datasets.prepare(Choice("arrays"), place / "a.npz")


@pytest.mark.parametrize("what", ARCHIVES)
def test_an_archive_that_cannot_be_is_a_sentence(place: Path, what: str) -> None:
    names, change, why = ARCHIVES[what]
    _arrays(place / "a.npz", dict.fromkeys(names, b""), change)
    for dataset in ("arrays", "cifar10"):
        sizes = "claims 1280 bytes" if dataset == "arrays" else "would unpack to 4 files of 4.3 GB, but 400 MB"
        with in_time(), pytest.raises(BadInput, match=re.escape(why or sizes)):
            datasets.prepare(Choice(dataset), place / "a.npz")


def test_what_is_no_file_among_our_own_is_passed_over(
    capsys: pytest.CaptureFixture[str], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAMBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DAMBENCH_DB", str(tmp_path / "runs.db"))
    shutil.copy(place / "runs.db", tmp_path / "runs.db")
    for name in (
        "data/x.json",
        "data/x.intact",
        "databases.jsonl",
        "experts/abc/0-0.safetensors",
        "sets/x.safetensors",
    ):
        (tmp_path / "home" / name).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(tmp_path / "home" / name)
    for command in (("data", "list"), ("experts", "list"), ("note", "abcdef", "x"), ("db", "purge"), ("db", "check")):
        with in_time():
            assert run_cli(command) == 0
    os.mkfifo(tmp_path / "runs.db-journal")
    with in_time():
        assert run_cli(["runs"]) == 2
    assert "runs.db-journal' is not a file" in capsys.readouterr().err
