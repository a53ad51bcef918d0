"""What the README shows must exist. (`make test-slow` runs its commands.)"""

import re
import shlex
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dambench import config, launch
from dambench.cli import run_cli
from dambench.store.runs import Store
from tests import ledger
from tests.ledger import add
from tests.ledger import config as run_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [
    shlex.split(line.partition("#")[0]) for line in re.findall(r"^    (?:run=\$\()?(dambench [^\n)]*)", README, re.M)
]


def test_it_shows_commands() -> None:
    assert len(COMMANDS) > 6


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_each_command_and_option_exists(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    named = command[1:3] if command[1] in ("data", "db", "experts") else command[1:2]
    assert run_cli([*named, "--help"]) == 0
    known = capsys.readouterr().out
    for word in command[2:]:
        if word.startswith("-"):
            assert re.search(rf"(^|\s|,){re.escape(word)}\b", known), word


def test_each_command_is_in_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["--help"]) == 0
    listed = capsys.readouterr().out.rpartition("Commands:")[2]
    for name in re.findall(r"^  (\w+) ", listed, re.M):
        assert re.search(rf"`[^`]*\b{name}\b|dambench {name}\b", README), name


def test_its_toml_file_is_a_request(tmp_path: Path) -> None:
    (tmp_path / "dm.toml").write_text(re.findall(r"```toml\n(.*?)```", README, re.S)[0])
    request = config.read(config.Request, config.read_toml(tmp_path / "dm.toml"), "the README")
    assert [each.seed for each in request.each_seed()] == [0, 1, 2, 3, 4]
    assert request.choice("method").options == {"iterations": 500}


def test_its_sql_answers(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        add(store, run_config("dm"), [0.5, 0.7])
        add(store, run_config("dm", seed=1), [0.1], end=ledger.failed())
    (sql,) = re.findall(r'sqlite3 runs.db "(.*)"', README)
    with closing(sqlite3.connect(tmp_path / "runs.db")) as plain:
        assert plain.execute(sql).fetchall() == [("dm", "digits", 1, "quick#3528", "convnet-d1-w8", 0.6, 2)]


def test_both_commands_are_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\S+)", README, re.M):
        assert re.search(rf"^{target}:", makefile, re.M)


@pytest.mark.slow
def test_its_commands_do_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ""
    for command in COMMANDS:
        if "folder" in command or "arrays" in command or {"mnist", "cifar10"} & {*command}:
            continue  # somebody else's flowers, and what has to be downloaded
        if command[1] == "watch":
            continue  # until its end
        arguments = [run if word == "$run" else word for word in command[1:]]
        capsys.readouterr()
        assert run_cli(arguments) == 0, arguments
        if "--detach" in command:
            run = capsys.readouterr().out.strip()
    with closing(Store.open(tmp_path / "runs.db")) as store:
        assert launch.send(store.run(run), signal.SIGKILL), "it was not resumed"
    assert "| dm " in (tmp_path / "report.md").read_text()
