"""The tables of the queue as the records of the log change them."""

import msgspec

from dambench.core.sanitize import display
from dambench.store.connection import Database
from dambench.store.records import (
    LONGEST,
    AttemptSuperseded,
    QueuedRun,
    QueueEdited,
    QueueRecord,
    QueueTaken,
    RunsQueued,
    WorkerSeen,
)

EDITABLE = (
    *("state", "priority", "place", "worker", "attempt", "losses", "run", "reason", "threads", "device"),
    *("seconds", "peak_memory_bytes", "disk_bytes", "taken_at", "ended_at"),
)
"""Columns of `queue` that change once a run is queued."""

WORKER = {
    **dict.fromkeys(("host", "boot", "dambench", "executor", "log", "began_at", "beat_at", "ended_at", "asked"), ""),
    **{"devices": "[]", "pid": 0, "process_started": 0, "slots": 0},
}
"""Columns of `workers`, and what stands there where nothing is known."""


def apply(db: Database, record: QueueRecord) -> None:
    """Change the tables, within a transaction.

    Raises:
        AttemptSuperseded: another worker has taken the run.
    """
    match record:
        case RunsQueued():
            for run in record.runs:
                _add(db, run, record)
        case QueueTaken():
            taken = db.conn.execute(
                "update queue set state = 'taken', attempt = ?, worker = ?, taken_at = ?, ended_at = '' "
                "where uid = ? and attempt = ?",
                [record.attempt, record.worker, record.at, record.uid, record.attempt - 1],
            )
            if not taken.rowcount:
                raise AttemptSuperseded("Another worker has taken this run.")
        case QueueEdited():
            values = {name: _kept(value) for name, value in record.values.items() if name in EDITABLE}
            if values:
                assignments = ", ".join(f"{name} = ?" for name in values)
                db.conn.execute(
                    f"update queue set {assignments} where uid = ? and attempt = ?",
                    [*values.values(), record.uid, record.attempt],
                )
        case WorkerSeen():
            _see(db, record)


def _kept(value: str | int | float | None) -> str | int | float | None:
    return display(value, LONGEST) if isinstance(value, str) else value


def _add(db: Database, run: QueuedRun, record: RunsQueued) -> None:
    row = msgspec.structs.asdict(run) | {
        "request": msgspec.json.encode(run.request).decode(),
        "settings": msgspec.json.encode(run.settings).decode(),
        "after": msgspec.json.encode(run.after).decode(),
        "method": display(run.method),
        "dataset": display(run.dataset),
        "tag": display(run.tag),
        "reason": display(run.reason, LONGEST),
        "run": run.run or run.uid,
        "dambench": display(record.dambench),
        "added_at": record.at,
    }
    marks = ", ".join("?" * len(row))
    db.conn.execute(f"insert into queue ({', '.join(row)}) values ({marks})", list(row.values()))


def _see(db: Database, record: WorkerSeen) -> None:
    values = {name: _kept(value) for name, value in record.values.items() if name in WORKER}
    blank = {"uid": record.uid} | WORKER
    marks = ", ".join("?" * len(blank))
    db.conn.execute(f"insert or ignore into workers ({', '.join(blank)}) values ({marks})", list(blank.values()))
    if values:
        assignments = ", ".join(f"{name} = ?" for name in values)
        db.conn.execute(f"update workers set {assignments} where uid = ?", [*values.values(), record.uid])
