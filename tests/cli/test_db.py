import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dambench.cli.app import run_cli
from dambench.store.runs import Store
from dambench.store.version import VERSION
from tests.ledger import add, config, older


def test_the_database_is_checked_copied_and_merged_from_the_command_line(
    ledger_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["db", "check"]) == 0
    assert "missing" in capsys.readouterr().out
    assert run_cli(["db", "backup"]) == 0
    copy = Path(capsys.readouterr().out.strip())
    assert run_cli(["db", "backup", str(copy)]) == 2
    assert run_cli(["db", "backup", str(copy), "--overwrite"]) == 0
    assert run_cli(["db", "migrate"]) == 0
    assert "it is up to date" in capsys.readouterr().out
    with closing(Store.open(copy, write=True)) as store:
        new = add(store, config("dm", seed=1))
        other = store.query("select id from runs order by number")[0]["id"]
        store.db.conn.execute("update events set body = replace(body, 'a note', 'another') where run = 1")
    assert run_cli(["db", "merge", str(copy), "--json"]) == 1
    shown = capsys.readouterr()
    merged = json.loads(shown.out)
    assert (merged["added"], merged["unchanged"], list(merged["conflicts"])) == ([new], 2, [other])
    assert f"{other} is left as it is: it says something else there from its event 2 (warned) on" in shown.err
    assert run_cli(["db", "merge", str(copy)]) == 1
    assert "0 runs added, 0 gone on with, 3 were here already" in capsys.readouterr().out
    with closing(Store.open(ledger_path, write=True)) as store:
        store.db.conn.execute("update measurements set value = 1.0 where metric = 'accuracy'")
    assert run_cli(["db", "check", "--json"]) == 1
    assert [f["state"] for f in json.loads(capsys.readouterr().out)].count("damaged") == 4


def test_an_older_database_is_brought_up_to_date_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    older(tmp_path / "old.db", 2)
    assert run_cli(["db", "migrate", "--db", "old.db"]) == 0
    assert f"had schema 2 and has schema {VERSION} now; as it was: old.db.schema2" in capsys.readouterr().out
    assert run_cli(["db", "migrate", "--db", "none.db"]) == 2


def test_a_reader_says_that_another_program_has_locked_the_database(
    ledger_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dambench.store.database.SPEAK_SECONDS", 0.02)
    monkeypatch.setattr("dambench.store.database.WAIT_SECONDS", 0.3)
    with closing(sqlite3.connect(ledger_path, isolation_level=None)) as other:
        other.execute("pragma locking_mode = exclusive")
        other.execute("begin exclusive")
        for command in ("runs", "report"):
            assert run_cli([command]) == 2
            lines = capsys.readouterr().err.splitlines()
            assert len(lines) == 2
            assert lines[0].startswith("waiting for another program that has locked the database")
            assert "database is locked" in lines[1]
    assert run_cli(["runs"]) == 0
    assert capsys.readouterr().err == ""
