import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dambench.__main__ import main as program
from dambench.cli import app as cli
from dambench.cli.app import commands, run_cli
from dambench.runner import processes
from dambench.store.runs import Store
from tests.cli.lab import BARE, DM

BAD = [
    ([], "The console needs a terminal, and this is none. `dambench run --headless` runs"),
    (["run", "--method", "dm", "--dataset", "digits"], "needs a terminal, and this is none: --headless or --detach"),
    (["rum"], "Did you mean 'run'"),
    (["run", "--headless"], "say --method NAME"),
    ([*DM, "--ipcs", "3"], "--ipcs"),
    ([*DM, "--ipc", "three"], "--ipc"),
    ([*DM, "--ipc", "0"], "ipc = 0 is not allowed: expected `int` >= 1"),
    ([*DM, "--ipc", "9" * 30], "ipc = 999"),
    ([*BARE, "--iterations", "9" * 25], "iterations = 999"),
    ([*DM, "--threads", "-1"], "threads = -1 is not allowed"),
    ([*DM, "--threads", "99999999999"], "threads = 99999999999 is not allowed"),
    ([*DM, "--seeds", "0-99999999999999999999"], "more than 1000 runs"),
    ([*BARE, "--device", "cuda:" + "9" * 5000], "is not a device"),
    ([*BARE, "--network", "convnet-d" + "9" * 5000], "no part is called"),
    ([*DM, "--set", "method.lr_images=" + "[" * 3000], "lr_images"),
    ([*DM, "--set", "method.lr_images=" + "9" * 5000], "lr_images"),
    ([*DM, "--protocol", ""], "No protocol is called ''"),
    ([*DM, "--recipe", ""], "No recipe of dm is called ''"),
    ([*BARE, "--device", ""], "--device '' is not a device"),
    ([*DM, "--name", "\udcff"], "is not valid UTF-8"),
    ([*DM, "--data", "a\0b"], "is not a path that can be kept"),
    ([*DM, "--db", "x" * 300], "File name too long"),
    (["run", "deep.toml", "--headless"], "not valid TOML"),
    (["show", "\udcff"], "is not valid UTF-8"),
    (["report", "--rows", "method,method"], "none may be there twice"),
    ([*DM, "--set", "method.lr_image=1"], "Did you mean 'lr_images'"),
    ([*DM, "--set", "method.lr_images=nan"], "not a finite number"),
    ([*DM, "--set", "method.lr_images=-1"], "lr_images = -1"),
    ([*DM, "--set", "lr_images=1"], "is not of the form"),
    ([*DM, "--seeds", "4-2"], "seeds"),
    ([*DM, "--seed", "1", "--seeds", "0-2"], "exclude each other"),
    ([*DM, "--method", "random"], "--method is given 2 times: say it once"),
    ([*DM, "--ipc", "1", "--ipc=1"], "--ipc is given 2 times"),
    ([*DM, "--deterministic", "--no-deterministic"], "--deterministic/--no-deterministic is given 2 times"),
    (["--db", "a.db", "--db", "b.db", "runs"], "--db is given 2 times"),
    (["report", "-o", "a.md", "--output", "b.md"], "--output/-o is given 2 times"),
    (["experts", "train", "--dataset", "digits", "--count", "1", "--count", "2"], "--count is given 2 times"),
    ([*DM, "--set", "method.lr_images=1", "--set", "method.lr_images=2"], "--set method.lr_images is given more than"),
    ([*DM, "--set", "method.iterations=4"], "iterations and method.iterations are the same setting"),
    (["run", "twice.toml", "--headless"], "'twice.toml': iterations and method.iterations are the same setting"),
    ([*DM, "--set", "method.name=random"], "say --method random"),
    (["experts", "train", "--dataset", "digits", "--set", "epochs=2"], "is not how that is said: --epochs N"),
    (["experts", "train", "--dataset", "digits", "--precision", "BF16"], "experts have fp32, or tf32"),
    ([*DM, "--method="], "--method is given 2 times"),
    ([*DM, "--db", ""], "DB is an empty text"),
    (["run", "", "--headless"], "FILE is an empty text"),
    (["runs", "--db", "."], "it is a folder"),
    (["report", "-o", ""], "OUTPUT is an empty text"),
    (["db", "merge", "a.db", ""], "OTHERS is an empty text"),
    (["run", "--headless", "--dataset", "digits", "--method", " "], "No method is called ' '"),
    ([*DM, "--data", ""], "data = '' is not allowed"),
    ([*DM, "--tag", ""], "TAG is an empty text"),
    ([*DM, "--name", "x" * 201], "of length <= 200"),
    ([*DM, "--detach"], "--headless and --detach exclude each other"),
    ([*DM, "--dry-run", "--check"], "--detach, --dry-run and --check exclude each other"),
    (["report", "-o", "fig.pdf"], "a report has the suffix .md"),
    (["report", "-o", "a.csv", "--format", "latex"], "a report in latex has the suffix .tex, not .csv"),
    (["show", "zzzzzz", "--preview", "set.pdf"], "a preview has the suffix .png, not .pdf"),
    (["shot", "runs", "-o", "runs.jpg"], "a picture of the console has the suffix .svg or .png, not .jpg"),
    (["db", "backup", "runs.tar"], "a backup is one database"),
    ([*DM, "--db", "no/such/folder/runs.db"], "there is no folder"),
    (["run", "none.toml", "--headless"], "No such file"),
    (["run", "bad.toml", "--headless"], "not valid TOML"),
    (["show", "zzzzzz"], "No run has the id 'zzzzzz'"),
    (["report", "--rows", "metod"], "Did you mean 'method'"),
    (["report", "--rows", "method", "--columns", "method"], "none may be there twice"),
    (["report", "-o", "no/such/folder/report.md"], "no such folder"),
]


@pytest.mark.parametrize(("arguments", "said"), BAD, ids=[ascii(" ".join(a))[-40:] or "nothing" for a, _ in BAD])
@pytest.mark.parametrize("exists", [False, True])
def test_bad_input_is_one_sentence_exit_code_2_and_an_untouched_database(
    arguments: list[str], said: str, exists: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.toml").write_text("ipc = ")
    (tmp_path / "deep.toml").write_text("x = " + "[" * 3000)
    (tmp_path / "twice.toml").write_text("iterations = 3\n[method]\nname = 'dm'\niterations = 4\n")
    path = tmp_path / "runs.db"
    if exists:
        Store.open(path, write=True).close()
    before = hashlib.sha256(path.read_bytes()).hexdigest() if exists else None
    if arguments == ["show", "zzzzzz"] and not exists:
        said = "There is no database"
    if arguments[:2] == ["report", "--rows"] and not exists and said.startswith("Did"):
        said = ""  # nothing to report on: the sentence about that comes first
    code = run_cli(arguments)
    captured = capsys.readouterr()
    if said:
        assert code == 2
        assert said in captured.err
        assert captured.err.startswith("dambench: ")
        assert captured.err.count("\n") == 1
        assert captured.out == ""
    assert (hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None) == before


@pytest.mark.parametrize(
    "command",
    [
        "queue work",
        "queue work --executor ray",
        "queue stop",
        "queue drop --all",
        "note abc hello",
        "tag abc good",
        "delete abc",
        "restore abc",
        "stop abc",
        "watch abc",
        "db purge",
        "db merge none.db",
        "export abc",
    ],
)
def test_what_changes_a_database_makes_none(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(command.split()) == 2
    said = capsys.readouterr().err
    assert "There is no database" in said or "'none.db' cannot be read: No such file" in said
    assert not list(tmp_path.glob("runs.db*"))


def test_output_that_cannot_be_written_is_a_sentence(ledger_path: Path) -> None:
    for command in ("report >/dev/full", "runs >&-"):
        done = subprocess.run(
            ["bash", "-c", f"{shlex.quote(sys.executable)} -m dambench {command}"], capture_output=True, text=True
        )
        assert "Traceback" not in done.stderr
        assert done.returncode == (1 if "full" in command else 0)


def test_a_terminal_that_knows_only_ascii_is_no_error(ledger_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dambench", "report"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0
    assert "| dm " in done.stdout


def test_no_runs_yet_is_a_friendly_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["report"]) == 0
    assert "There is no database" in capsys.readouterr().out
    assert not (tmp_path / "runs.db").exists()
    Store.open(tmp_path / "runs.db", write=True).close()
    assert run_cli(["report"]) == 0
    assert "No finished runs yet" in capsys.readouterr().out
    assert run_cli(["runs"]) == 0
    assert "No runs yet" in capsys.readouterr().out


def _commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands by their words."""
    for name, member in getattr(command, "commands", {}).items():
        yield from _commands(member, (*words, name))
    if not hasattr(command, "commands"):
        yield words, command


COMMANDS = dict(_commands(commands()))


@pytest.mark.parametrize("words", [words for words in COMMANDS if words != ("shot",)], ids=" ".join)
def test_what_is_said_before_a_command_is_taken_notice_of_or_refused(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAMBENCH_DB", str(tmp_path / "usual.db"))
    (tmp_path / "their.db").write_text("not a database of ours")
    needed = [param for param in COMMANDS[words].params if param.required]
    rest = [word for param in needed for word in ([param.opts[0], "x.svg"] if param.opts[0][0] == "-" else ["runs"])]
    rest += ["--check", "--method", "dm", "--dataset", "digits"] if words == ("run",) else []
    rest += {("compare",): ["others"], ("queue", "move"): ["--first"]}.get(words, [])
    rest = ["1", "runs"] if words == ("queue", "priority") else rest
    if words == ("sweep",):
        (tmp_path / "grid.toml").write_text('[grid]\nseed = [0, 1]\n[run]\nmethod = "random"\ndataset = "digits"\n')
        rest = [str(tmp_path / "grid.toml")]
    rest += ["--method", "dm", "--dataset", "digits", "--grid", "iterations=1,2"] if words == ("tune",) else []
    assert run_cli(["--db", str(tmp_path / "their.db"), *words, *rest]) in (1, 2)
    told = capsys.readouterr()
    assert "their.db" in told.err + told.out, "the database that was named is not the one that was used"
    assert run_cli(["--ascii", *words, *rest]) == 2
    assert "--ascii is for the console" in capsys.readouterr().err


def test_a_database_may_be_named_before_a_command_and_only_once(
    ledger_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAMBENCH_DB", "nowhere.db")
    for words in (["--db", str(ledger_path), "runs"], ["runs", "--db", str(ledger_path)]):
        assert run_cli(words) == 0
        assert "whole" in capsys.readouterr().out
    assert run_cli(["--db", str(ledger_path), "runs", "--db", "other.db"]) == 2
    assert "--db was said twice" in capsys.readouterr().err
    assert run_cli(["--version", "runs"]) == 0
    assert capsys.readouterr().out.startswith("dambench ")
    started: list[list[str]] = []

    def start(arguments: list[str], say: object) -> tuple[str, int]:
        started.append(arguments)
        return "", 1

    monkeypatch.setattr(processes, "start", start)
    run_cli(["--db", "run", "run", "--detach", "--method", "dm", "--dataset", "digits"])
    assert started == [["run", "--method", "dm", "--dataset", "digits", "--db", "run", "--headless"]]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone knows these settings")
def test_only_the_program_run_starts_anew_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda path, words, environment: begun.append((words, environment)))
    monkeypatch.setattr(cli, "run_cli", lambda arguments: 0)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "dambench", "run", "x y"])
    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)

    def start(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["dambench", *arguments])
        with pytest.raises(SystemExit):
            program()

    start("report")
    assert begun == []
    start("run", "x y")
    ((words, environment),) = begun
    assert words == [sys.executable, "-m", "dambench", "run", "x y"]
    assert environment.items() > os.environ.items()
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")  # somebody has an opinion
    start("run", "x y")
    assert len(begun) == 1


def test_doctor_says_what_is_wrong_and_has_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs.db").write_text("no " * 100)
    assert run_cli(["doctor", "--json"]) == 1
    states = {check["what"]: check["state"] for check in json.loads(capsys.readouterr().out)}
    assert states["database"] == "wrong"
    assert states["torch"] == "ok"


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["--version"]) == 0
    assert capsys.readouterr().out.startswith("dambench 0.")
    assert run_cli(["run", "--help"]) == 0
    assert "--evaluate-on" in capsys.readouterr().out


@pytest.mark.parametrize("reader", ["true", "head -1", "sleep 1"])
def test_a_reader_that_leaves_early_is_no_error(ledger_path: Path, reader: str) -> None:
    command = f"{shlex.quote(sys.executable)} -m dambench report | {reader}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stderr == ""


def test_a_shell_completes_commands_and_flags(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_DAMBENCH_COMPLETE", "complete_bash")
    for words, completions in (
        ("dambench ru", "run runs"),
        ("dambench run --evaluate-", "--evaluate-on --evaluate-every"),
    ):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
        with pytest.raises(SystemExit) as end:
            run_cli([])
        assert not end.value.code
        assert capsys.readouterr().out.split() == completions.split()


def test_ctrl_c_before_a_command_has_begun_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dambench.cli.app.main", interrupted)
    monkeypatch.setattr("sys.argv", ["dambench", "runs"])
    with pytest.raises(SystemExit) as ended:
        program()
    assert ended.value.code == 130
