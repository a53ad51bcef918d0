"""What the README shows must exist. (`make test-slow` runs its commands.)"""

import re
import shlex
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dambench.cli.app import run_cli
from dambench.core import config
from dambench.runner import processes
from dambench.store.leaderboard import leaderboard
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
    named = command[1:3] if command[1] in ("data", "db", "experts", "figure") else command[1:2]
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


def test_its_sql_keeps_apart_what_a_report_does_and_gives_its_figures(tmp_path: Path) -> None:
    """Runs of every kind that once had one row: their means and counts are those of the leaderboard."""
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        different: list[dict[str, Any]] = [
            *({}, {}, {"seed": 1}, {"ipc": 10}, {"method": config.Choice("dm", {"lr": 2})}),
            *({"preprocessing": "zca"}, {"precision": "bf16"}, {"network": "convnet-d2-w8"}),
            *({"method_version": 2}, {"evaluate_on": ("vgg11",)}, {"eval_repeats": 3}),
            {"plugins": (config.Plugin(kind="methods", name="dm", sha256="a" * 64),)},
        ]
        for number, changes in enumerate(different):
            run = msgspec.structs.replace(run_config("dm"), **changes)
            add(store, run, [number / 100, number / 50])
        add(store, run_config("dm"), [0.9, 0.95], card=ledger.other_data("e"))
        add(store, run_config("dm", seed=3), [0.1], end=ledger.failed())
        # A run of before there were such fields is as one that was merged, which has their defaults.
        fields = ", ".join(f"'$.{name}'" for name in ("evaluator", "evaluator_version", "plugins", "method_version"))
        store.tables.execute(f"update runs set config = json_remove(config, {fields}) where number = 3")
        cells = [cell for table in leaderboard(store).tables for cell in table.cells.values()]
    (sql,) = re.findall(r'sqlite3 runs.db "(.*?)"', README, re.S)
    with closing(sqlite3.connect(tmp_path / "runs.db")) as plain:
        found = plain.execute(sql).fetchall()
    assert sorted(row[-2:] for row in found) == [
        pytest.approx(pair) for pair in sorted((cell.mean, cell.networks) for cell in cells)
    ]
    assert ("dm", "{}", "zca", "digits", 1, "quick#3528", "convnet-d1-w8", pytest.approx(0.075), 2) in found
    assert len(found) == 10  # the first run was repeated, its seeds are pooled, and of one network some diverged


def test_both_commands_are_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\S+)", README, re.M):
        assert re.search(rf"^{target}:", makefile, re.M)


@pytest.mark.slow
def test_its_commands_do_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = newest = ""
    Path("names.toml").write_text('[method]\ndm = "DM"')
    Path("digits.toml").write_text(
        '[run]\ndataset = "digits"\neval_repeats = 1\n[grid]\nmethod = "random"\nseed = [0, 1]'
    )
    for command in COMMANDS:
        if "folder" in command or "arrays" in command or any("mnist" in word or "cifar10" in word for word in command):
            continue  # somebody else's flowers, what has to be downloaded, and the ledger's runs of it
        if command[1] in ("watch", "wait"):
            continue  # until its end
        arguments = [{"$run": run, "ID": newest}.get(word, word) for word in command[1:]]
        capsys.readouterr()
        assert run_cli(arguments) == 0, arguments
        if "--detach" in command:
            run = capsys.readouterr().out.strip()
        elif "--headless" in command:
            with closing(Store.open(tmp_path / "runs.db")) as store:
                newest = store.query("select id from runs order by number desc")[0]["id"]
    with closing(Store.open(tmp_path / "runs.db")) as store:
        row = store.run(run)
        assert row.attempt == 2, "it was not resumed"
        # The suite takes minutes: it may have come to its end.
        assert processes.send(row, signal.SIGKILL) or processes.state(row) == "finished"
    assert "| dm " in (tmp_path / "report.md").read_text()
