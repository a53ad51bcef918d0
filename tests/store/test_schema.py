import hashlib
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dambench.cli.app import run_cli
from dambench.store.runs import Store
from dambench.store.upkeep import check, migrate
from dambench.store.version import VERSION
from tests.ledger import SCHEMAS, add, config, older, tables


@pytest.fixture(params=SCHEMAS)
def schema(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def old(schema: int, tmp_path: Path) -> Path:
    older(tmp_path / "old.db", schema)
    return tmp_path / "old.db"


def _contents(path: Path, like: dict[str, list[dict[str, object]]] | None = None) -> dict[str, list[dict[str, object]]]:
    """All rows of all tables; only those columns that `like` has."""
    with closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        names = tables(db) if like is None else like  # `scores` has become a view
        found = {table: [dict(row) for row in db.execute(f"select * from {table}")] for table in names}
    if like is None:
        return found
    if "validation_accuracy" not in {row["name"] for row in like.get("metrics", [])}:  # it came with schema 7
        found["metrics"] = [row for row in found.get("metrics", []) if row["name"] != "validation_accuracy"]
    return {
        table: [{key: value for key, value in row.items() if key in rows[0]} for row in found[table]]
        for table, rows in like.items()
        if rows
    }


def test_a_file_of_an_older_schema_is_brought_up_to_date_by_opening_it_to_write_and_keeps_all_rows(
    old: Path, schema: int
) -> None:
    before = _contents(old)
    assert ("samples" in before) == (schema > 1)
    assert len(before["runs"]) == 3
    with closing(Store.open(old, write=True)) as store:
        assert store.query("pragma user_version") == [{"user_version": VERSION}]
        assert store.query("pragma integrity_check") == [{"integrity_check": "ok"}]
        assert store.query("pragma foreign_key_check") == []
        assert _contents(old, before) == {table: rows for table, rows in before.items() if rows}
        assert {row["device_uuid"] for row in store.query("select device_uuid from environments")} == {""}
        assert {row["peak_reserved_bytes"] for row in store.query("select * from costs")} == {0}
        assert store.run(add(store, config(seed=7))).state == "finished"
    Store.open(old, write=True).close()
    assert len(_contents(old)["runs"]) == 4


def test_a_file_of_an_older_schema_has_the_schema_of_a_new_one_once_it_is_up_to_date(old: Path, tmp_path: Path) -> None:
    def columns(path: Path) -> dict[str, list[object]]:
        with closing(sqlite3.connect(path)) as db:
            return {table: db.execute(f"pragma table_info({table})").fetchall() for table in tables(db)}

    Store.open(old, write=True).close()
    Store.open(tmp_path / "new.db", write=True).close()
    assert columns(old) == columns(tmp_path / "new.db")


def test_a_file_of_an_older_schema_is_read_as_it_is(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_a_file_of_an_older_schema_reports_the_same_bytes_and_its_checksums_hold_before_and_after(
    old: Path, schema: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def reports() -> list[str]:
        with closing(Store.open(old)) as store:
            assert {finding.state for finding in check(store)} <= {"ok", "missing"}
            (results,) = (finding.detail for finding in check(store) if finding.what == "results")
            assert results.startswith("2 finished runs as" if schema > 3 else "0 finished runs as")
        for format_ in ("markdown", "latex", "csv", "html", "json"):
            assert run_cli(["report", "--format", format_, "--db", str(old)]) == 0
        return capsys.readouterr().out.splitlines()

    before = reports()
    assert migrate(old)[:2] == (schema, VERSION)
    assert reports() == before
    assert "62.5 ± – (1×2)" in "".join(before)


def test_an_older_file_is_copied_before_it_is_changed_and_each_one_anew(old: Path, schema: int) -> None:
    before = _contents(old)
    first = old.with_name(f"old.db.schema{schema}")
    for copy in (first, first.with_name(f"{first.name}-2")):
        assert migrate(old) == (schema, VERSION, copy)
        assert _contents(copy) == before
        assert migrate(old) == (VERSION, VERSION, None)
        old.write_bytes(first.read_bytes())
    assert not [name for name in os.listdir(old.parent) if name.endswith(".new")]
