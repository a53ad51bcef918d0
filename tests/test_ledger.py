"""The committed ledger, read from a copy: it holds what ledger.txt asks for, and the README shows its figures.

And how it is made: what is missing only, each finished run kept at once.
"""

import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from benchmarks import ledger as making
from dambench.cli.app import run_cli
from dambench.cli.compare import more_seeds
from dambench.core import registry
from dambench.core.config import Request, RunConfig
from dambench.core.config import read as config_of
from dambench.engine.settle import _fields as kept_options
from dambench.report.compared import Contestant
from dambench.report.formats.markdown import render as to_markdown
from dambench.store.leaderboard import leaderboard
from dambench.store.runs import Store
from dambench.store.version import VERSION
from tests.ledger import add, config, older, stopped

ROOT = Path(__file__).parents[1]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Of the ledger as git has it: whoever works in this checkout may have added runs since."""
    path = tmp_path / "ledger.db"
    committed = subprocess.run(["git", "-C", ROOT, "show", ":runs.db"], capture_output=True)
    path.write_bytes(committed.stdout if committed.returncode == 0 else (ROOT / "runs.db").read_bytes())
    return path


def _commands() -> Counter[tuple[str, ...]]:
    """The runs that ledger.txt asks for: dataset, method, IPC, protocol, recipe, seed."""
    found: Counter[tuple[str, ...]] = Counter()
    for line in (ROOT / "ledger.txt").read_text().partition("# To be made")[0].splitlines():
        if line.startswith("#"):
            continue
        words = shlex.split(line)
        said = {flag.removeprefix("--"): value for flag, value in zip(words[::2], words[1::2], strict=True)}
        for seed in (each.seed for each in Request(seeds=said.get("seeds", "0")).each_seed()):
            ipc = "" if said["method"] == "whole" else said.get("ipc", "1")
            found[said["dataset"], said["method"], ipc, said.get("protocol", "quick"), str(seed)] += 1
    return found


def test_the_ledger_holds_the_runs_of_its_list(copy: Path) -> None:
    with closing(Store.open(copy)) as store:
        rows = store.query("select * from runs where state = 'finished'")
    held: Counter[tuple[str, ...]] = Counter(
        (
            row["dataset"],
            row["method"],
            "" if row["ipc"] is None else str(row["ipc"]),
            row["protocol"].partition("#")[0],
            str(row["seed"]),
        )
        for row in rows
    )
    assert sum(_commands().values()) > 10
    assert not _commands() - held


def _of_the_ledger() -> str:
    """What the README shows of it, before it comes to other sets."""
    return (ROOT / "README.md").read_text().partition("## Use")[0]


def test_the_readme_shows_the_ledger_s_figures(copy: Path) -> None:
    with closing(Store.open(copy)) as store:
        board = leaderboard(store)
        report = to_markdown(board, ("method",), ("dataset", "ipc"))
    figure = r"\d+\.\d ± \S+ \([\d×]+\)"  # with its stars and signs: what the README has bold, the report has
    cells = set(re.findall(rf"\**{figure}", report))
    shown = re.findall(rf"\**{figure}", _of_the_ledger())
    assert len(shown) > 10
    assert not set(shown) - cells


def test_a_set_of_the_ledger_is_shown_without_its_tensors(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(Store.open(copy)) as store:
        run = store.query("select id from runs where method = 'datadam'")[0]["id"]
        assert store.preview(run).startswith(b"\x89PNG")
    assert run_cli(["show", run, "--db", str(copy)]) == 0
    assert "its tensors are not on this machine, a picture is" in capsys.readouterr().out


def test_the_ledger_names_no_place_of_the_machine_that_made_it(copy: Path) -> None:
    assert not re.findall(rb"/(?:tmp|root|home|work)/[\w/]+", copy.read_bytes())


def test_the_ledger_is_one_file_that_git_can_keep(copy: Path) -> None:
    header = copy.read_bytes()[:20]
    assert header[18:20] == b"\x01\x01", "not in rollback-journal mode: make ledger"
    assert copy.stat().st_size < 80_000 * sum(
        _commands().values()
    )  # and not what a run leaves behind besides its record


def test_runs_from_before_a_field_was_added_are_still_what_they_were(copy: Path) -> None:
    """Their hash leaves out what is as it was: they go on, and are in one cell with new ones."""
    with closing(Store.open(copy)) as store:
        for row in store.query("select config, config_sha256 from runs"):
            config = msgspec.json.decode(row["config"], type=RunConfig)
            assert config.sha256 == row["config_sha256"]
            assert (config.method_version, config.plugins) == (1, ())


def test_a_run_that_is_asked_for_again_is_one_of_the_ledger(copy: Path) -> None:
    """An option that a method got since has to be left out where it is as it was, else all is made once more."""
    with closing(Store.open(copy)) as store:
        rows = store.query("select config from runs")
    for row in rows:
        method = msgspec.json.decode(row["config"], type=RunConfig).method
        options = config_of(registry.load("methods", method.name).Options, method.options, method.name)
        assert kept_options(options) == method.options, method.name


LINE = "--dataset digits --method random --ipc 1 --protocol brief --eval-repeats 1 --evaluate-on convnet-d1-w4"


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs are made in this process, which is faster; returns the commands."""
    commands: list[str] = []

    def run(words: list[str], work: Path) -> int:
        commands.append(shlex.join(words))
        return run_cli([*words, "--headless", "--db", str(work)])

    monkeypatch.setattr(making, "run", run)
    return commands


def _make(lines: str, folder: Path) -> int:
    (folder / "ledger.txt").write_text(lines)
    return making.make(folder / "ledger.txt", folder / "made.db", folder / "ledger.db")


def _ids(path: Path) -> set[str]:
    with closing(Store.open(path)) as store:
        return {row["id"] for row in store.query("select id from runs")}


def test_what_is_there_is_not_made_again_and_what_is_missing_is_added(tmp_path: Path, in_process: list[str]) -> None:
    assert _make(f"# a comment\n{LINE}\n", tmp_path) == 0
    first, made = _ids(tmp_path / "made.db"), (tmp_path / "made.db").read_bytes()
    assert (len(first), len(in_process)) == (1, 1)
    assert _make(f"{LINE}\n", tmp_path) == 0
    assert (tmp_path / "made.db").read_bytes() == made, "nothing was missing, and it was written anew"
    assert _make(f"{LINE} --seeds 0-1\n", tmp_path) == 0
    assert len(in_process) == 2
    assert in_process[-1].endswith("--seed 1")
    assert first < _ids(tmp_path / "made.db")
    assert sorted(path.name for path in tmp_path.glob("*.db*")) == ["made.db"]
    assert (tmp_path / "made.db").read_bytes()[18:20] == b"\x01\x01", "not in rollback-journal mode"


def test_an_older_ledger_is_kept_as_it_is_until_there_is_more(
    tmp_path: Path, in_process: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    older(tmp_path / "made.db", 5)
    before = (tmp_path / "made.db").read_bytes()
    finished = _ids(tmp_path / "made.db")
    assert _make("", tmp_path) == 0
    assert (tmp_path / "made.db").read_bytes() == before
    assert _make(LINE, tmp_path) == 0
    with closing(sqlite3.connect(tmp_path / "made.db")) as db:
        assert db.execute("pragma user_version").fetchone() == (VERSION,)
        assert db.execute("select distinct state from runs").fetchall() == [("finished",)]
    assert len(finished & _ids(tmp_path / "made.db")) == 2, "two were finished, and one had failed"
    assert "2 runs that the list does not ask for" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.glob("*.db*")) == ["made.db"]


def test_a_run_that_fails_leaves_the_others_their_place(
    tmp_path: Path, in_process: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "no-such-folder"
    with pytest.raises(Exception, match="cannot be run"):
        _make(f"{LINE}\n{LINE.replace('digits', 'folder')} --data {folder}\n", tmp_path)
    assert not (tmp_path / "made.db").exists()
    assert "no-such-folder" in capsys.readouterr().err


def test_what_an_interrupted_attempt_has_finished_is_put_in_place_by_the_next(
    tmp_path: Path, in_process: list[str]
) -> None:
    with closing(Store.open(tmp_path / "ledger.db", write=True)) as store:
        finished = add(store, config("dm"))
        add(store, config("dm", seed=1), end=stopped())
    assert _make("", tmp_path) == 0
    assert _ids(tmp_path / "made.db") == {finished}


def test_nobody_else_may_be_writing_to_the_ledger(tmp_path: Path, in_process: list[str]) -> None:
    with closing(Store.open(tmp_path / "made.db", write=True)) as store:
        add(store, config("dm"))
        with pytest.raises(
            Exception, match=r"made.db is open elsewhere, or was left so \(made.db-wal lies beside it\)"
        ):
            _make(LINE, tmp_path)
    assert not in_process
    with making.alone(tmp_path / "ledger.db"), pytest.raises(Exception, match="Another process is making the ledger"):
        _make(LINE, tmp_path)


@pytest.mark.slow
def test_an_interrupted_ledger_is_whole_and_goes_on_where_it_was(tmp_path: Path) -> None:
    long = (
        f"--dataset digits --method dm --ipc 1 --iterations 4000 {LINE.partition('--ipc 1 ')[2]} --checkpoint-every 0"
    )
    (tmp_path / "ledger.txt").write_text(f"{LINE}\n{long}\n")
    command = [sys.executable, "-m", "benchmarks.ledger", "--ledger", "made.db"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def begin() -> subprocess.Popen[str]:
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)

    def wait_for(said: str, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        assert any(said in line for line in process.stderr), f"{said!r} was not said"

    with begin() as first:
        wait_for("iteration 1/4000", first)
        first.send_signal(signal.SIGINT)
        assert first.wait(30) == 130
    assert len(_ids(tmp_path / "made.db")) == 1
    with begin() as again:
        wait_for("goes on with", again)
        wait_for("resumed after iteration", again)
        again.send_signal(signal.SIGINT)
        assert again.wait(30) == 130
    with closing(sqlite3.connect(tmp_path / "made.db")) as db:
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)


def test_the_command_for_more_seeds_of_a_row_makes_sets_of_that_row(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a seed that is there already, it names the run that has made that set."""
    with closing(Store.open(copy)) as store:
        board = leaderboard(store, only=("runs.dataset = 'digits'", ()))
        cells = [cell for table in board.tables for cell in table.cells.values()]
        rows = [(Contestant(cell.scores[0].method, cell, is_run=False), cell.scores[0]) for cell in cells]
        commands = [(more_seeds(store, side, (score.seed,)), score.run) for side, score in rows]
    assert len(commands) >= 6
    for command, run in commands[:3]:
        assert run_cli([*shlex.split(command)[1:], "--headless", "--json", "--db", str(copy)]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["run"], found["existing"]) == (run, True)
