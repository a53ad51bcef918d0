"""Store: runs.db, the ledger of all runs. Writes what a run says, reads it back."""

import json
import os
import secrets
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from sqlite_utils import Database

from dambench import files
from dambench.config import RunConfig
from dambench.display import display
from dambench.errors import BadInput
from dambench.events import (
    Adapted,
    AnyEvent,
    Cost,
    DataCard,
    Evaluated,
    Failed,
    Finished,
    Neighbour,
    Progressed,
    Sampled,
    Snapshot,
    Started,
    Stepped,
    Stopped,
    Warned,
    remark,
)
from dambench.store.schema import APPLICATION_ID, VERSION, migrations
from dambench.store.usage import usage

FLUSH_SECONDS = 1.0
FLUSH_EVENTS = 500
WAIT_SECONDS = 30.0
"""For another writer to be done. SQLite's waiting is not fair, so it must be long."""

_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


def new_id() -> str:
    """Six characters nobody mistakes for others; the first is a letter."""
    return secrets.choice(_ALPHABET[:23]) + "".join(secrets.choice(_ALPHABET) for _ in range(5))


def default_path() -> Path:
    """DAMBENCH_DB, else runs.db here."""
    return files.user_path(os.environ.get("DAMBENCH_DB") or "runs.db")


def check(path: Path) -> None:
    """See to it that a run could be recorded in this file, and change nothing.

    Raises:
        BadInput: it is not a database of dambench, a newer dambench made it, it is damaged, or it (or the folder
            where it would be made) cannot be written.
    """
    try:
        exists = path.exists()
    except OSError as error:
        raise BadInput(f"The database {str(path)!r} cannot be reached: {error.strerror}.") from None
    if not exists:
        folder = path.absolute().parent
        if not folder.is_dir():
            raise BadInput(f"The database {str(path)!r} cannot be made: there is no folder {str(folder)!r}.")
        if not os.access(folder, os.W_OK):
            raise BadInput(f"The database {str(path)!r} cannot be made: {str(folder)!r} may not be written.")
        return
    _identify(path)
    # SQLite writes journals beside the file.
    if not (os.access(path, os.W_OK) and os.access(path.absolute().parent, os.W_OK)):
        raise BadInput(f"The database {str(path)!r} may only be read: choose another with --db or DAMBENCH_DB.")


def _identify(path: Path) -> None:
    """See that the file is a database of dambench that this dambench knows, without changing or adding a file."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
        size = path.stat().st_size
    except OSError as error:
        raise BadInput(f"The database {str(path)!r} cannot be read: {error.strerror}.") from None
    if not size:
        raise BadInput(f"{str(path)!r} is an empty file, not a database: remove it, or choose another with --db.")
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0") or _field(header, 68) != APPLICATION_ID:
        raise BadInput(f"{str(path)!r} is not a database of dambench: choose another with --db or DAMBENCH_DB.")
    page = int.from_bytes(header[16:18], "big")
    if size < _field(header, 28) * (65536 if page == 1 else page):
        raise BadInput(f"The database {str(path)!r} is damaged: its end is missing.")
    _check_version(path, _field(header, 60))


def _field(header: bytes, offset: int) -> int:
    return int.from_bytes(header[offset : offset + 4], "big")


def _check_version(path: Path, version: int) -> None:
    if version > VERSION:
        raise BadInput(
            f"The database {str(path)!r} has schema {version}, this dambench knows {VERSION}: "
            "a newer dambench made it; update dambench."
        )


def _connect(path: Path, mode: str) -> Database:
    connection = sqlite3.connect(
        f"file://{quote(os.path.abspath(path))}?{mode}", uri=True, timeout=WAIT_SECONDS, isolation_level=None
    )
    connection.row_factory = sqlite3.Row
    for pragma in ("foreign_keys = on", "synchronous = full", "mmap_size = 0", "trusted_schema = off"):
        connection.execute(f"pragma {pragma}")
    return Database(connection)


def _open(path: Path, mode: str) -> Database:
    """Connect, and see that it is whole: the log may hold more than the file's header told."""
    db = _connect(path, mode)
    try:
        _check_version(path, int(db.conn.execute("pragma user_version").fetchone()[0]))
        ours = "select count(*) from sqlite_master where name in ('runs', 'events', 'scores')"
        if db.conn.execute(ours).fetchone()[0] != 3:
            raise BadInput(f"The database {str(path)!r} is damaged: its tables are missing.")
    except BaseException:
        db.close()
        raise
    return db


def _open_to_read(path: Path) -> Database:
    try:
        return _open(path, "mode=ro")
    except sqlite3.OperationalError:
        # In a folder that may not be written SQLite cannot make the files it shares with writers. Where there is
        # no log, nobody writes, and it can do without.
        if path.with_name(f"{path.name}-wal").exists():
            raise
        return _open(path, "mode=ro&immutable=1")


@contextmanager
def _transaction(db: Database) -> Iterator[None]:
    """An immediate one: a transaction that reads first and then writes can fail at once, whatever the timeout."""
    db.conn.execute("begin immediate")
    try:
        yield
    except BaseException:
        db.conn.execute("rollback")
        raise
    db.conn.execute("commit")


def _migrate(db: Database) -> None:
    with _transaction(db):
        migrations.apply(db)
        db.conn.execute(f"pragma user_version = {VERSION}")


def _create(path: Path) -> None:
    """A new database, made under another name and then linked to its own: it is never seen half made."""
    handle, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.", suffix=".new")
    os.close(handle)
    try:
        db = _connect(Path(name), "mode=rw")
        db.conn.execute(f"pragma application_id = {APPLICATION_ID}")
        _migrate(db)
        db.close()
        os.chmod(name, 0o644)
        with suppress(FileExistsError):  # another process was faster: its file is as good
            os.link(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


class Store:
    """An open runs.db."""

    def __init__(self, path: Path, db: Database):
        self.path = path
        self.db = db

    @classmethod
    def open(cls, path: Path, *, write: bool = False) -> "Store":
        """Open a database; to write, make it if it is not there, and bring it up to date.

        Raises:
            BadInput: it is missing (to read), foreign, empty, damaged, newer, or cannot be written.
        """
        try:
            if not write:
                if not path.exists():
                    raise BadInput(f"There is no database {str(path)!r} yet: `dambench run` makes it.")
                _identify(path)
                return cls(path, _open_to_read(path))
            check(path)
            if not path.exists():
                _create(path)
            db = _open(path, "mode=rw")
            db.conn.execute("pragma journal_mode = wal")
            if int(db.conn.execute("pragma user_version").fetchone()[0]) < VERSION:
                _migrate(db)
            return cls(path, db)
        except sqlite3.Error as error:
            raise BadInput(f"The database {str(path)!r} cannot be used: {error}.") from None
        except OSError as error:
            raise BadInput(f"The database {str(path)!r} cannot be used: {error.strerror}.") from None

    def close(self) -> None:
        self.db.close()

    def create(self, config: RunConfig, card: DataCard, name: str = "", tags: Iterable[str] = ()) -> str:
        """Enter a run that is about to begin. Returns its id."""
        protocol = config.protocol
        run = {
            "id": new_id(),
            "name": display(name),
            "state": "waiting",
            "method": config.method.name,
            "dataset": card.label,
            "ipc": config.ipc,
            "network": config.network,
            "protocol": protocol.label,
            "seed": config.seed,
            "overrides": "{}",
            "created_at": _now(),
            "config": msgspec.json.encode(config).decode(),
            "config_sha256": config.sha256,
            "dataset_sha256": card.sha256,
            "protocol_sha256": protocol.sha256,
        }
        with _transaction(self.db):
            self._insert(
                "insert or ignore into",
                "protocols",
                {
                    "sha256": protocol.sha256,
                    "name": protocol.name,
                    "version": protocol.version,
                    "definition": msgspec.json.encode(protocol).decode(),
                },
            )
            self._insert(
                "insert or ignore into",
                "datasets",
                {
                    "sha256": card.sha256,
                    "name": card.name,
                    "label": card.label,
                    "train_images": sum(card.train_counts),
                    "test_images": sum(card.test_counts),
                    "classes": len(card.classes),
                    "smallest_class": min(card.train_counts),
                    "majority": card.majority,
                    "channels": card.channels,
                    "height": card.height,
                    "width": card.width,
                    "card": msgspec.json.encode(card).decode(),
                },
            )
            while self.db.conn.execute("select 1 from runs where id = ?", [run["id"]]).fetchone():
                run["id"] = new_id()
            number = self._insert("insert into", "runs", run)
            for tag in dict.fromkeys(map(display, tags)):
                self._insert("insert into", "tags", {"tag": tag, "run": number})
        return str(run["id"])

    def record(self, run: str, events: Iterable[AnyEvent]) -> Iterator[AnyEvent]:
        """Keep everything a run says, and hand it on.

        Losses are written about once a second, all else at once: what was handed on and is not a loss is on disk.
        """
        number = int(self.run(run)["number"])
        both = "select sequence from events where run = ?1 union all select sequence from samples where run = ?1"
        sequence = self.db.conn.execute(f"select coalesce(max(sequence), 0) from ({both})", [number]).fetchone()[0]
        waiting: list[tuple[int, str, AnyEvent]] = []
        flushed = time.monotonic()
        for event in events:
            sequence += 1
            waiting.append((sequence, _now(), event))
            late = time.monotonic() - flushed > FLUSH_SECONDS or len(waiting) >= FLUSH_EVENTS
            # A sample never has a transaction of its own: it goes with the event that it came with.
            if not isinstance(event, Sampled) and (late or not isinstance(event, Stepped | Progressed)):
                self._flush(number, waiting)
                waiting.clear()
                flushed = time.monotonic()
            yield event
        if waiting:
            self._flush(number, waiting)

    def _flush(self, number: int, events: list[tuple[int, str, AnyEvent]]) -> None:
        with _transaction(self.db):
            for sequence, at, event in events:
                if isinstance(event, Sampled):
                    self._sample(number, sequence, event)
                    continue
                self._view(number, at, event)
                if isinstance(event, Progressed):
                    continue  # only the latest matters, and the run's row has it
                if isinstance(event, Snapshot):
                    event = msgspec.structs.replace(event, preview=b"")  # the artifact's row has it
                self._insert(
                    "insert into",
                    "events",
                    {
                        "run": number,
                        "sequence": sequence,
                        "at": at,
                        "kind": type(event).__name__.lower(),
                        "body": msgspec.json.encode(event).decode(),
                    },
                )

    def _view(self, number: int, at: str, event: AnyEvent) -> None:
        """What an event changes in the tables that people read."""
        match event:
            case Started():
                self._update(
                    number,
                    state="running",
                    total=event.config.method.options.get("iterations", 0),
                    recipe=event.recipe,
                    overrides=msgspec.json.encode(event.overrides).decode(),
                )
                self._insert(
                    "insert into",
                    "environments",
                    {"run": number, **msgspec.structs.asdict(event.environment)},
                )
            case Progressed():
                self._update(number, phase=event.phase, done=event.done, total=event.total)
            case Stepped():
                self._update(number, phase="distil", done=event.iteration)
            case Snapshot():
                row = {
                    "sha256": event.sha256,
                    "bytes": event.size_bytes,
                    "dtype": event.dtype,
                    "preview": event.preview,
                }
                shape = msgspec.json.encode(event.shape).decode()
                key = {"run": number, "iteration": event.iteration}
                self._insert("insert or replace into", "artifacts", {**key, **row, "shape": shape})
            case Evaluated():
                score = msgspec.structs.asdict(event) | {"run": number}
                if isinstance(event.loss, str):
                    score |= {"loss": None, "loss_state": event.loss}
                self._insert("insert or replace into", "scores", score)
            case Finished():
                self._update(number, state="finished", phase="", ended_at=at, set_sha256=event.set_sha256)
                self._costs(number, event.costs)
            case Failed():
                self._update(
                    number,
                    state="failed",
                    ended_at=at,
                    error=display(event.error, 2000),
                    traceback=event.traceback,
                )
                self._costs(number, event.costs)
            case Stopped():
                self._update(number, state="stopped", ended_at=at, error=f"stopped by {display(event.signal)}")
                self._costs(number, event.costs)

    def _sample(self, number: int, sequence: int, sample: Sampled) -> None:
        row = {"run": number, "sequence": sequence} | msgspec.structs.asdict(sample)
        if sample.gpu_neighbours is not None:
            row["gpu_neighbours"] = msgspec.json.encode(sample.gpu_neighbours).decode()
        self._insert("insert into", "samples", row)

    def _costs(self, number: int, costs: list[Cost]) -> None:
        for cost in costs:
            self._insert("insert or replace into", "costs", {"run": number, **msgspec.structs.asdict(cost)})

    def _insert(self, verb: str, table: str, row: dict[str, Any]) -> int:
        # Names come from this module and the schema alone; only values come from outside.
        marks = ", ".join("?" * len(row))
        cursor = self.db.conn.execute(f"{verb} {table} ({', '.join(row)}) values ({marks})", list(row.values()))
        return int(cursor.lastrowid or 0)

    def _update(self, number: int, **values: Any) -> None:
        assignments = ", ".join(f"{name} = ?" for name in values)
        self.db.conn.execute(f"update runs set {assignments} where number = ?", [*values.values(), number])

    def run(self, prefix: str) -> dict[str, Any]:
        """The run of that id, or of the only id that begins so.

        Raises:
            BadInput: there is none, or more than one.
        """
        rows = self.query("select * from runs where substr(id, 1, length(?)) = ? order by id", prefix, prefix)
        exact = [row for row in rows if row["id"] == prefix]
        if exact or (prefix and len(rows) == 1):
            return (exact or rows)[0]
        if not prefix or not rows:
            raise BadInput(f"No run has the id {display(prefix)!r}: `dambench runs` lists them.")
        raise BadInput(f"{len(rows)} runs have an id that begins with {display(prefix)!r}: type more of it.")

    def describe(self, prefix: str) -> dict[str, Any]:
        """Everything that is known of one run, in parts that JSON can hold."""
        row = self.run(prefix)
        number = row.pop("number")

        def part(table: str, order: str) -> list[dict[str, Any]]:
            rows = self.query(f"select * from {table} where run = ? order by {order}", number)
            return [{key: value for key, value in found.items() if key not in ("run", "preview")} for found in rows]

        sets = part("artifacts", "iteration")
        return {
            "run": row | {key: json.loads(row[key]) for key in ("config", "overrides")},
            "tags": [found["tag"] for found in part("tags", "tag")],
            "environment": next(iter(part("environments", "run")), {}),
            "costs": part("costs", "instr('prepare distil evaluate', phase)"),
            "usage": msgspec.to_builtins(usage(sample for _, sample in self.samples(row["id"]))),
            "scores": part("scores", "iteration, network, repeat"),
            "sets": [made | {"file": str(files.find_set(made["sha256"]) or "")} for made in sets],
            "warnings": [remark(event) for _, event in self.tail(row["id"]) if isinstance(event, Warned | Adapted)],
        }

    def preview(self, prefix: str) -> bytes:
        """A PNG of the run's latest set, a row per class, which needs no tensors; empty: it has none yet."""
        number = self.run(prefix)["number"]
        rows = self.query("select preview from artifacts where run = ? order by iteration desc limit 1", number)
        return bytes(rows[0]["preview"]) if rows else b""

    def tail(self, run: str, after: int = 0) -> Iterator[tuple[int, AnyEvent]]:
        """What a run has said since its event number `after`, in order.

        Left out are Progressed, of which only the latest is kept, and Sampled, which `samples` tells.
        """
        number = self.run(run)["number"]
        rows = self.query(
            "select sequence, body from events where run = ? and sequence > ? order by sequence",
            number,
            after,
        )
        for row in rows:
            yield row["sequence"], msgspec.json.decode(row["body"], type=AnyEvent)

    def samples(self, run: str, after: int = 0) -> Iterator[tuple[int, Sampled]]:
        """What a run's machine was doing since its event number `after`, in order.

        A file of schema 1, which is brought up to date only when it is opened to write, holds none.
        """
        number = self.run(run)["number"]
        if not self.query("select 1 from sqlite_master where name = 'samples'"):
            return
        fields = Sampled.__struct_fields__
        rows = self.query(
            f"select sequence, {', '.join(fields)} from samples where run = ? and sequence > ? order by sequence",
            number,
            after,
        )
        for row in rows:
            known = {name: row[name] for name in fields}
            if known["gpu_neighbours"] is not None:
                known["gpu_neighbours"] = msgspec.json.decode(known["gpu_neighbours"], type=list[Neighbour])
            yield row["sequence"], Sampled(**known)

    def query(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """All rows at once: no cursor stays open, which would keep the log from being folded in."""
        try:
            return [dict(row) for row in self.db.conn.execute(sql, values).fetchall()]
        except sqlite3.DatabaseError as error:
            raise BadInput(f"The database {str(self.path)!r} cannot be read: {error}.") from None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
