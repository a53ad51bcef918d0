import hashlib
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlite_utils import Database

from dambench.cli import run_cli
from dambench.store.runs import Store
from dambench.store.schema import APPLICATION_ID, VERSION, migrations
from tests import ledger
from tests.ledger import add, config


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file as the dambench of schema 1 left it, with three runs."""
    new, path = tmp_path / "new.db", tmp_path / "old.db"
    with closing(Store.open(new, write=True)) as store:
        add(store, config("dm"), [0.5, 0.75])
        add(store, config("random"), [0.25])
        add(store, config("dm", seed=1), end=ledger.failed())
    db = Database(path)
    migrations.apply(db, stop_before="m002_samples")
    db.conn.execute(f"pragma application_id = {APPLICATION_ID}")
    db.conn.execute("pragma user_version = 1")
    db.conn.execute("attach ? as new", [str(new)])
    for table in _tables(db.conn):
        columns = ", ".join(row[1] for row in db.conn.execute(f"pragma main.table_info({table})"))
        db.conn.execute(f"insert into main.{table} ({columns}) select {columns} from new.{table}")
    db.conn.execute("update events set body = json_remove(body, '$.environment.device_uuid')")
    db.conn.commit()
    db.close()
    return path


def _tables(db: sqlite3.Connection) -> list[str]:
    rows = db.execute("select name from main.sqlite_master where type = 'table'").fetchall()
    return [name for (name,) in rows if not name.startswith(("sqlite_", "_sqlite"))]


def _contents(path: Path, like: dict[str, list[dict[str, object]]] | None = None) -> dict[str, list[dict[str, object]]]:
    """All rows of all tables; only those columns that `like` has."""
    with closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        found = {table: [dict(row) for row in db.execute(f"select * from {table}")] for table in _tables(db)}
    if like is None:
        return found
    return {
        table: [{key: value for key, value in row.items() if key in rows[0]} for row in found[table]]
        for table, rows in like.items()
        if rows
    }


def test_a_file_of_schema_1_is_brought_up_to_date_by_opening_it_to_write_and_keeps_all_rows(old: Path) -> None:
    before = _contents(old)
    assert "samples" not in before
    assert len(before["runs"]) == 3
    with closing(Store.open(old, write=True)) as store:
        assert store.query("pragma user_version") == [{"user_version": VERSION}]
        assert store.query("pragma integrity_check") == [{"integrity_check": "ok"}]
        assert store.query("pragma foreign_key_check") == []
        assert _contents(old, before) == {table: rows for table, rows in before.items() if rows}
        assert {row["device_uuid"] for row in store.query("select device_uuid from environments")} == {""}
        assert {row["peak_reserved_bytes"] for row in store.query("select * from costs")} == {0}
        assert store.run(add(store, config(seed=7)))["state"] == "finished"
    Store.open(old, write=True).close()
    assert len(_contents(old)["runs"]) == 4


def test_a_file_of_schema_1_has_the_schema_of_a_new_one_once_it_is_up_to_date(old: Path, tmp_path: Path) -> None:
    def columns(path: Path) -> dict[str, list[object]]:
        with closing(sqlite3.connect(path)) as db:
            return {table: db.execute(f"pragma table_info({table})").fetchall() for table in _tables(db)}

    Store.open(old, write=True).close()
    assert columns(old) == columns(tmp_path / "new.db")


def test_a_file_of_schema_1_is_read_as_it_is(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = hashlib.sha256(old.read_bytes()).hexdigest()
    with closing(Store.open(old)) as store:
        ids = [row["id"] for row in store.query("select id from runs order by number")]
        assert list(store.samples(ids[0])) == []
        assert [type(event).__name__ for _, event in store.tail(ids[0])][-1] == "Finished"
    for command in (["runs"], ["runs", "--json"], ["show", ids[0]], ["show", ids[2]], ["report"], ["doctor"]):
        assert run_cli([*command, "--db", str(old)]) == 0, command
    capsys.readouterr()
    assert run_cli(["show", ids[0], "--json", "--db", str(old)]) == 0
    assert json.loads(capsys.readouterr().out)["usage"]["samples"] == 0
    assert hashlib.sha256(old.read_bytes()).hexdigest() == digest
    assert [name for name in os.listdir(old.parent) if name.startswith("old.db")] == ["old.db"]
