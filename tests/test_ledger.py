"""The committed ledger: it holds what ledger.txt asks for, and the README shows its figures. Read from a copy."""

import re
import shlex
import subprocess
from collections import Counter
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from dambench.cli.app import run_cli
from dambench.core.config import Request, RunConfig
from dambench.report.formats.markdown import render as to_markdown
from dambench.store.leaderboard import leaderboard
from dambench.store.runs import Store

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
    for line in (ROOT / "ledger.txt").read_text().splitlines():
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
    cells = set(re.findall(r"\d+\.\d ± \d+\.\d\S* \([\d×]+\)", report.replace("**", "")))
    shown = re.findall(r"\d+\.\d ± \d+\.\d \([\d×]+\)", _of_the_ledger().replace("**", ""))
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
    assert copy.stat().st_size < 5_000_000


def test_runs_from_before_a_field_was_added_are_still_what_they_were(copy: Path) -> None:
    """Their hash leaves out what is as it was: they go on, and are in one cell with new ones."""
    with closing(Store.open(copy)) as store:
        for row in store.query("select config, config_sha256 from runs"):
            config = msgspec.json.decode(row["config"], type=RunConfig)
            assert config.sha256 == row["config_sha256"]
            assert (config.method_version, config.plugins) == (1, ())
