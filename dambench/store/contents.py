"""Contents: whether the rows of a database are such as dambench writes. A file that comes from elsewhere may hold any.

SQLite itself keeps a value of a wrong type out of a table only as long as nobody changes the schema by hand.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import datetime
from functools import cache
from itertools import islice
from typing import Annotated, Any, NamedTuple

import msgspec

from dambench.core.config import RunConfig
from dambench.core.events import AnyEvent, DataCard, Neighbour
from dambench.core.protocol import Protocol
from dambench.core.sanitize import display
from dambench.store import database
from dambench.store.rows import SqlRow
from dambench.store.runs import Store

_TYPES: dict[str, tuple[type, ...]] = {"TEXT": (str,), "INTEGER": (int,), "REAL": (float, int), "BLOB": (bytes,)}

_NAMES = {"TEXT": "text", "INTEGER": "whole number", "REAL": "number", "BLOB": "bytes"}

_JSON: dict[tuple[str, str], Any] = {
    ("runs", "config"): RunConfig,
    ("runs", "overrides"): dict[str, Any],
    ("datasets", "card"): DataCard,
    ("protocols", "definition"): Protocol,
    ("events", "body"): AnyEvent,
    ("artifacts", "shape"): Annotated[list[int], msgspec.Meta(min_length=1)],
    ("artifacts", "parts"): dict[str, Annotated[int, msgspec.Meta(ge=0)]],
    ("samples", "gpu_neighbours"): list[Neighbour],
    ("queue", "request"): dict[str, Any],
    ("queue", "settings"): dict[str, Any],
    ("queue", "after"): list[str],
    ("workers", "devices"): list[str],
}
"""Columns whose texts are JSON, and of what."""

_TIMES = {("runs", name) for name in ("created_at", "beat_at", "ended_at", "deleted_at")} | {("events", "at")}
_TIMES |= {("queue", name) for name in ("added_at", "taken_at", "ended_at")}
_TIMES |= {("workers", name) for name in ("began_at", "beat_at", "ended_at")}

MOST = 20
"""Faults of a table that are told."""


class Column(NamedTuple):
    name: str
    kind: str
    nullable: bool


@cache
def _schema() -> dict[str, list[Column]]:
    with closing(database.in_memory()) as db:
        rows = db.conn.execute("""
            select m.name of, c.name, c.type, c."notnull" or c.pk needed
            from sqlite_master m join pragma_table_info(m.name) c where m.type = 'table'
        """).fetchall()
    tables: dict[str, list[Column]] = {}
    for row in rows:
        tables.setdefault(row["of"], []).append(Column(row["name"], row["type"].upper(), not row["needed"]))
    return tables


def columns(table: str) -> list[Column]:
    """The columns of a table, as dambench makes it; none: it makes no such table."""
    return _schema().get(table, [])


def wrong(schema: list[Column], row: SqlRow) -> str:
    """Find a value of a row that is of another type than its column; empty: there is none."""
    for name, kind, nullable in schema:
        value = row.get(name)
        if name not in row or kind not in _TYPES or (value is None and nullable):
            continue
        if not isinstance(value, _TYPES[kind]):
            return f"{name} is {display(repr(value), 40)}, which is no {_NAMES[kind]}"
    return ""


def faults(store: Store) -> Iterator[str]:
    """All that no dambench wrote."""
    tables = store.query(
        "select name from sqlite_master where type = 'table' and name not like '%sqlite\\_%' escape '\\'"
    )
    for table in (row["name"] for row in tables):
        try:
            yield from islice(_faults_in(store, table), MOST)
        except sqlite3.DatabaseError as error:
            yield f"{table} cannot be read: {error}"
    with suppress(sqlite3.DatabaseError):  # which was told then
        for table, number, parent, _ in store.db.conn.execute("pragma foreign_key_check").fetchmany(MOST):
            yield f"{table} ({number or 'without a number'}) belongs to none of {parent}"


def _faults_in(store: Store, table: str) -> Iterator[str]:
    schema = columns(table)
    readers = {name: msgspec.json.Decoder(kind) for (of, name), kind in _JSON.items() if of == table}
    times = [name for of, name in _TIMES if of == table]
    for sql_row in store.db.conn.execute(f'select * from "{table}"'):
        row = dict(sql_row)
        which = f"{table} ({', '.join(display(str(row[key]), 20) for key in list(row)[:2])})"
        if fault := wrong(schema, row):
            yield f"{which}: {fault}"
            continue
        for name, reader in readers.items():
            try:
                if row[name] is not None:
                    reader.decode(row[name])
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                yield f"{which}: {name} is none of ours: {display(str(error), 200)}"
        for name in times:
            try:
                if row[name]:
                    datetime.fromisoformat(row[name])
            except ValueError:
                yield f"{which}: {name} is {display(row[name], 40)!r}, which is no time"
