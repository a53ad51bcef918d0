"""The queue of a journal: what all files say of it, taken into a host's index.

Workers of several hosts add lines at the same time. What was said of a queued run is put into one order, the same on
every host: by how often it had been taken by then, and then by time. Each of its takings has a file of its own, which
only one worker can make.
"""

from collections.abc import Mapping

import msgspec

from dambench.core.errors import BadInput
from dambench.store import journal, queue_tables
from dambench.store.connection import Database
from dambench.store.journal import Journal
from dambench.store.records import (
    AttemptSuperseded,
    QueuedRun,
    QueueEdited,
    QueueRecord,
    QueueTaken,
    RunsQueued,
    WorkerSeen,
    decoded,
)
from dambench.store.rows import SqlRow
from dambench.store.tables import Tables

TABLE = """
create table if not exists journal_queue (
    name text not null,         -- of the file; empty: of the database beside the journal
    line integer not null,
    uid text not null,          -- of the queued run
    attempt integer not null,   -- how often it had been taken
    at text not null,
    body text not null,         -- JSON: the record
    primary key (uid, attempt, at, name, line)
) strict, without rowid
"""

_FROM_BASE = ""
_record: msgspec.json.Decoder[QueueRecord] = msgspec.json.Decoder(QueueRecord)


class JournalQueue:
    """The part of an index that is about the queue."""

    def __init__(self, tables: Tables, files: Journal):
        self._tables, self._journal = tables, files

    def index(self, sizes: Mapping[str, int], *, whole: bool) -> None:
        """Take in what files say that was not there before, within a transaction.

        Args:
            sizes: of files by name, whatever they are about.
            whole: these are all files that there are.
        """
        rows = self._tables.query("select * from journal_files where name glob 'queue-*' or name glob 'taken-*'")
        known = {row["name"]: row for row in rows}
        about: set[str] = set()
        for name in [*known] if whole else []:
            if name not in sizes or sizes[name] < known[name]["size"]:
                about |= self._forget(name)
                del known[name]
        for name in sorted(name for name in sizes if journal.is_about_the_queue(name)):
            row = known.get(name)
            if row is None or row["size"] != sizes[name]:
                about |= self._read(name, sizes[name], row)
        for uid in about:
            self._rebuild(uid)

    def _forget(self, name: str) -> set[str]:
        about = {row["uid"] for row in self._tables.query("select uid from journal_queue where name = ?", name)}
        self._tables.execute("delete from journal_queue where name = ?", name)
        self._tables.execute("delete from journal_files where name = ?", name)
        return about

    def _read(self, name: str, size: int, known: SqlRow | None) -> set[str]:
        """Read what is new in a file. Returns the queued runs that it is about."""
        taken, number, unread = (known["taken"], known["sequence"], known["unread"]) if known else (0, 0, 0)
        if size < 0 or (known and known["size"] < 0):  # to be read anew
            self._forget(name)
            taken, number, unread = 0, 0, 0
        lines, end = self._journal.read(name, taken)
        about: set[str] = set()
        for raw in lines:
            number += 1
            line = decoded(raw)
            if isinstance(line, WorkerSeen):
                queue_tables.apply(self._tables.db, line)
            elif isinstance(line, RunsQueued | QueueTaken | QueueEdited):
                about |= self._keep(name, number, line)
            else:
                unread += bool(raw)
        self._tables.execute(
            "insert or replace into journal_files (name, size, taken, sequence, unread) values (?, ?, ?, ?, ?)",
            *(name, max(size, end), end, number, unread),
        )
        return about

    def _keep(self, name: str, number: int, line: RunsQueued | QueueTaken | QueueEdited) -> set[str]:
        if isinstance(line, RunsQueued):
            parts: list[tuple[str, int, QueueRecord]] = [
                (run.uid, -1, msgspec.structs.replace(line, runs=[run])) for run in line.runs
            ]
        else:
            parts = [(line.uid, line.attempt, line)]
        self._tables.db.conn.executemany(
            "insert or replace into journal_queue (uid, attempt, at, name, line, body) values (?, ?, ?, ?, ?, ?)",
            [
                # A taking comes before all that is said of it, whatever the clocks say.
                (uid, attempt, "" if isinstance(part, QueueTaken) else part.at, name, number, _encoded(part))
                for uid, attempt, part in parts
            ],
        )
        return {uid for uid, _, _ in parts}

    def _rebuild(self, uid: str) -> None:
        self._tables.execute("delete from queue where uid = ?", uid)
        sql = "select body from journal_queue where uid = ? order by attempt, at, name, line"
        for row in self._tables.query(sql, uid):
            try:
                queue_tables.apply(self._tables.db, _record.decode(row["body"]))
            except AttemptSuperseded:
                continue

    def copy_base(self, other: Database | None) -> None:
        """Have the queue of the database beside the journal, as it is there.

        Args:
            other: that database; None: there is none.
        """
        about = self._forget(_FROM_BASE)
        rows = [dict(row) for row in other.conn.execute("select * from queue").fetchall()] if other else []
        for number, row in enumerate(rows):
            about.add(row["uid"])
            try:
                json = {name: msgspec.json.decode(row[name]) for name in ("request", "settings", "after")}
                facts = {name: value for name, value in row.items() if name in QueuedRun.__struct_fields__}
                queued = msgspec.convert(facts | json | {"state": "waiting"}, QueuedRun)
            except (msgspec.MsgspecError, ValueError, TypeError) as error:
                raise BadInput(f"The queue of {str(self._journal.path)!r} cannot be read: {error}.") from None
            self._keep(_FROM_BASE, number, RunsQueued(at=row["added_at"], dambench=row["dambench"], runs=[queued]))
            stands = {name: row[name] for name in queue_tables.EDITABLE}
            self._keep(_FROM_BASE, number, QueueEdited(uid=row["uid"], attempt=0, at="", values=stands))
        for uid in about:
            self._rebuild(uid)


def _encoded(record: QueueRecord) -> str:
    return msgspec.json.encode(record).decode()
