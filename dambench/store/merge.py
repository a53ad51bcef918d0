"""Merge: the runs of another database, added to ours. Runs are told apart by their uid.

What is added is what the runs have said, word by word, as if they had said it here: numbers, scores and costs follow
from that. The other file may come from anybody. Only its tables are read, nothing in it is executed, every word must
be one that a run could say, and its texts are made harmless.
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from dambench.core.config import RunConfig
from dambench.core.errors import BadInput
from dambench.core.events import (
    Adapted,
    AnyEvent,
    Checkpointed,
    DataCard,
    Evaluated,
    Event,
    Finished,
    Measured,
    Neighbour,
    Previewed,
    Process,
    Progressed,
    Resumed,
    Sampled,
    Snapshot,
    Stepped,
)
from dambench.core.sanitize import display
from dambench.store import contents, database, final_scores
from dambench.store.records import AttemptSuperseded, EventLogged, LogRecord, RunCreated, RunEdited, new_id
from dambench.store.rows import SqlRow
from dambench.store.runs import EVENT, Store

READ = ("runs", "datasets", "tags", "events", "samples", "artifacts", "previews")
"""The tables of the other file that are looked at."""

UNDONE = (Stepped, Snapshot, Evaluated, Measured, Checkpointed, Adapted)
"""What a run takes back when it is resumed from an earlier iteration."""

LONGEST_WORD = 1_000_000
"""Characters of an event, a configuration or a card."""

LONGEST_LINE = 10_000
"""Characters of a line of text that had to be made harmless."""

LARGEST_PREVIEW = 64_000
"""Bytes."""

MOST_PREVIEW_PIXELS = 10**7

CONFIG = msgspec.json.Decoder(RunConfig)
OVERRIDES = msgspec.json.Decoder(dict[str, Any])
CARD = msgspec.json.Decoder(DataCard)
NEIGHBOURS = msgspec.json.Decoder(list[Neighbour])

_ID = re.compile(r"[a-z][a-z0-9]{3,11}")
_UID = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Refused(ValueError):
    """The contents of the other file are not such as a run could have logged."""


@dataclass
class Merged:
    """The result of a merge, by id."""

    added: list[str] = field(default_factory=list)
    continued: list[str] = field(default_factory=list)
    """They had gone on elsewhere."""
    unchanged: int = 0
    """Were here before, as they are there or further."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Their id was that of another run here: id there → id here."""
    conflicts: dict[str, str] = field(default_factory=dict)
    """Here and there they are not the same: left alone. What differs."""
    refused: dict[str, str] = field(default_factory=dict)
    """Left alone. Why."""
    sets: int = 0
    """Files of bundles that were taken in."""
    missing: list[str] = field(default_factory=list)
    """Runs with sets that are not on this machine."""
    damaged: list[str] = field(default_factory=list)
    """Files in the bundles that were left out, because they are not what their names say."""


@dataclass
class Copy:
    """A run as one database has it."""

    id: str
    created: RunCreated
    log: list[EventLogged]
    """Its words in their order, samples among them."""
    last: list[LogRecord]
    """What only its row knows: how far it was, whether it was asked to stop or is in the trash."""
    results_sha256: str


@contextmanager
def opened(store: Store, other: Path, named: Path | None = None) -> Iterator[Store]:
    """Open another database to merge it, one moment of it, whoever writes there.

    Args:
        named: what whoever asked for it calls it, where that is not its path.

    Raises:
        BadInput: it is not a database of dambench, or not one that is safe to read.
    """
    called = str(named or other)
    _check_plain(other, called)
    if other.samefile(store.path):
        raise BadInput(f"{called!r} is the database that it would be merged into: name another.")
    with closing(Store.open(other)) as theirs:
        theirs.db.conn.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 4 * LONGEST_WORD)  # nothing longer is even read
        theirs.db.conn.execute("begin")
        for table in READ:
            columns = f"select name, type, hidden from pragma_table_xinfo('{table}')"
            if theirs.query(columns) != store.query(columns):
                raise BadInput(f"The database {called!r} is not merged: its table {table} is not dambench's.")
        yield theirs


def merge(store: Store, other: Path, merged: Merged | None = None, named: Path | None = None) -> Merged:
    """Add the runs of another database to an open one, all in one transaction. To do so again changes nothing.

    Args:
        found: what came of others before, to be added to.
        named: as for `opened`.

    Raises:
        BadInput: the other file is not a database of dambench, or not one that is safe to read.
        NotKept: nothing could be written, and nothing was.
    """
    merged = merged or Merged()
    with opened(store, other, named) as theirs:
        try:
            runs = _as_they_are(theirs, "select * from runs order by number")
        except sqlite3.DatabaseError as error:
            raise BadInput(f"The database {str(named or other)!r} cannot be read: {error}.") from None
        # Reading both copies of a run takes time, and others wait for whoever writes.
        new = [run for run in runs if not _same(store, theirs, run)]
        merged.unchanged += len(runs) - len(new)
        if new:
            with database.transaction(store.db, store.file):
                for run in new:
                    _merge_run(store, theirs, run, merged)
    return merged


def _check_plain(other: Path, called: str) -> None:
    database.identify(other)
    try:
        with closing(database.open_as_it_is(other)) as db:
            objects = db.conn.execute("select type, name, sql from sqlite_master").fetchall()
    except sqlite3.Error as error:
        raise BadInput(f"The database {called!r} cannot be read: {error}.") from None
    for kind, name, sql in objects:
        strange = kind == "trigger" and sql.removesuffix(";") not in final_scores.TRIGGERS
        if strange or (name in READ and not (kind == "table" and sql.lower().startswith("create table"))):
            raise BadInput(
                f"The database {called!r} is not merged: {display(name, 60)!r} in it is a "
                f"{'virtual table' if kind == 'table' else kind}, which no dambench made."
            )


def _same(store: Store, theirs: Store, run: SqlRow) -> bool:
    """Tell whether a run is here already, to the letter."""
    if contents.wrong(contents.columns("runs"), run):
        return False
    mine = store.query("select number from runs where uid = ?", run["uid"])
    if not mine:
        return False
    for sql in (
        "select config, created_at, dataset_sha256 from runs where number = ?",
        "select sequence, at, body from events where run = ? order by sequence",
        f"select sequence, {', '.join(Sampled.__struct_fields__)} from samples where run = ? order by sequence",
    ):
        try:
            if store.query(sql, mine[0]["number"]) != _as_they_are(theirs, sql, run["number"]):
                return False
        except sqlite3.DatabaseError:
            return False
    return True


def _as_they_are(theirs: Store, sql: str, *values: object) -> list[SqlRow]:
    """Rows with values of whatever types."""
    return [dict(row) for row in theirs.db.conn.execute(sql, values).fetchall()]


def _merge_run(store: Store, theirs: Store, run: SqlRow, merged: Merged) -> None:
    """Add one run, or what is new of it; within a transaction."""
    shown = display(str(run["id"]), 20)
    store.db.conn.execute("savepoint one")
    try:
        copy = copy_of(theirs, run)
        mine = store.query("select * from runs where uid = ?", copy.created.uid)
        if mine:
            shown = mine[0]["id"]
            _continue(store, copy_of(store, mine[0]), copy, merged)
        else:
            _add(store, copy, merged)
    except Refused as reason:
        store.db.conn.execute("rollback to one")
        merged.refused[shown] = str(reason)
    except (sqlite3.IntegrityError, sqlite3.DataError, AttemptSuperseded, OverflowError, TypeError, BadInput) as error:
        store.db.conn.execute("rollback to one")
        merged.refused[shown] = f"its events do not go together: {display(str(error))}"
    store.db.conn.execute("release one")


def _add(store: Store, copy: Copy, merged: Merged) -> None:
    store.tables.apply(copy.created)
    _apply_log(store, copy.created.uid, copy.log, copy.last)
    row = store.query("select id, results_sha256 from runs where uid = ?", copy.created.uid)[0]
    if copy.results_sha256 not in ("", row["results_sha256"]):
        raise Refused("its results are not those of their checksum")
    merged.added.append(row["id"])
    if row["id"] != copy.id:
        merged.renamed[copy.id] = row["id"]


def _continue(store: Store, ours: Copy, theirs: Copy, merged: Merged) -> None:
    # Of the card the digest: where the data were prepared from, and what was noted of it, may differ.
    facts = [(copy.created.config, copy.created.card.sha256) for copy in (ours, theirs)]
    if facts[0] != facts[1]:
        merged.conflicts[ours.id] = "its settings or its data are not the same there"
    elif (new := _news(ours, theirs)) is not None:
        if new:
            _apply_log(store, theirs.created.uid, new, [line for line in theirs.last if isinstance(line, EventLogged)])
            merged.continued.append(ours.id)
        else:
            merged.unchanged += 1
    elif _news(theirs, ours) is not None:
        merged.unchanged += 1
    else:
        both = zip(ours.log, theirs.log, strict=False)
        first = next((mine for mine, other in both if mine != other), None)
        where = f"from its event {first.sequence} ({type(first.event).__name__.lower()}) on" if first else "at its end"
        merged.conflicts[ours.id] = f"it says something else there {where}"


def _apply_log(store: Store, uid: str, events: list[EventLogged], last: list[LogRecord]) -> None:
    """Apply the words of a run; those of which there are many, and which change no other table, all at once."""
    many = [record for record in events if isinstance(record.event, Stepped | Sampled)]
    for line in (*(record for record in events if not isinstance(record.event, Stepped | Sampled)), *last):
        store.tables.apply(line)
    number = store.query("select number from runs where uid = ?", uid)[0]["number"]
    store.db.conn.executemany(
        "insert into events (run, sequence, at, kind, body) values (?, ?, ?, 'stepped', ?)",
        (
            (number, record.sequence, record.at, msgspec.json.encode(record.event).decode())
            for record in many
            if isinstance(record.event, Stepped)
        ),
    )
    for record in many:
        if isinstance(record.event, Sampled):
            store.tables.add_sample(number, record.sequence, record.event)


def _news(ours: Copy, theirs: Copy) -> list[EventLogged] | None:
    """The records of theirs from where ours ends; None: ours is not the beginning of theirs."""
    end = ours.log[-1].sequence if ours.log else 0
    old = [record for record in theirs.log if record.sequence <= end]
    new = [record for record in theirs.log if record.sequence > end]
    back = [record.event.iteration for record in new if isinstance(record.event, Resumed)]
    since = min(back, default=None)
    kept = [
        record
        for record in ours.log
        if since is None or not isinstance(record.event, UNDONE) or record.event.iteration <= since
    ]
    return new if kept == old else None


def copy_of(store: Store, run: SqlRow) -> Copy:
    """All that a database holds of a run, as lines.

    Raises:
        Refused: there is something that no run says.
    """
    if fault := contents.wrong(contents.columns("runs"), run):
        raise Refused(f"its {fault}")
    uid, at = run["uid"], run["created_at"]
    if not _UID.fullmatch(uid):
        raise Refused("its uid is none")
    for time in (at, run["beat_at"], run["deleted_at"]):
        if time:
            _time(time)
    card = _typed(store, "datasets", "select card from datasets where sha256 = ?", run["dataset_sha256"])
    tags = _typed(store, "tags", "select tag from tags where run = ? order by tag", run["number"])
    created = RunCreated(
        uid=uid,
        id=run["id"] if _ID.fullmatch(run["id"]) else new_id(),
        name=display(run["name"]),
        tags=[display(row["tag"]) for row in tags],
        at=_time(at),
        config=_read(run["config"], CONFIG, "configuration"),
        card=_read(card[0]["card"] if card else "", CARD, "dataset"),
        process=Process(
            host=display(run["host"]),
            boot=display(run["boot"]),
            pid=run["pid"],
            started=run["process_started"],
            log=display(run["log"], LONGEST_LINE),
        ),
        recipe=display(run["recipe"], LONGEST_LINE),
        overrides=_read(run["overrides"], OVERRIDES, "settings"),
        age=_time(run["age"]) if run["age"] else "",
        purpose="tuning" if run["purpose"] else "",
    )
    if created.card.sha256 != run["dataset_sha256"] or not _SHA256.fullmatch(created.card.sha256):
        raise Refused("its dataset is not the one it names")
    if not created.card.train_counts or sum(created.card.test_counts) < 1:
        raise Refused("its dataset has no images")
    far = Progressed(phase=display(run["phase"]), done=run["done"], total=run["total"])
    pictures = _rows(store, "previews", run["number"], "iteration, preview")
    shown = [Previewed(iteration=row["iteration"], preview=_preview(row["preview"])) for row in pictures]
    words: list[AnyEvent] = [*shown, far]
    last: list[LogRecord] = [
        EventLogged(uid=uid, attempt=run["attempt"], sequence=0, at=run["beat_at"], event=event) for event in words
    ]
    if run["stop_asked"]:
        last.append(RunEdited(uid=uid, at=at, what="stop_asked", value=run["stop_asked"]))
    if run["deleted_at"]:
        last.append(RunEdited(uid=uid, at=at, what="deleted_at", value=run["deleted_at"]))
    log = sorted([*_events(store, run), *_samples(store, run)], key=lambda log: log.sequence)
    attempt = 1
    for index, record in enumerate(log):
        attempt = record.event.attempt if isinstance(record.event, Resumed) else attempt
        if attempt != record.attempt:
            log[index] = msgspec.structs.replace(record, attempt=attempt)
    return Copy(created.id, created, log, last, run["results_sha256"])


def _events(store: Store, run: SqlRow) -> Iterator[EventLogged]:
    uid, number = run["uid"], run["number"]
    previews = {row["iteration"]: row["preview"] for row in _rows(store, "artifacts", number, "iteration, preview")}
    for row in _rows(store, "events", number, "sequence, at, body"):
        event = _read(row["body"], EVENT, f"event {row['sequence']}")
        if isinstance(event, Snapshot | Evaluated | Measured | Finished | Checkpointed):
            _check_names(event)
        if isinstance(event, Snapshot):
            event = msgspec.structs.replace(event, preview=_preview(previews.get(event.iteration, b"")))
        if isinstance(event, Sampled | Progressed):
            raise Refused(f"its event {row['sequence']} is none that is kept as one")
        yield EventLogged(uid=uid, attempt=1, sequence=row["sequence"], at=_time(row["at"]), event=event)


def _samples(store: Store, run: SqlRow) -> Iterator[EventLogged]:
    fields = Sampled.__struct_fields__
    for row in _rows(store, "samples", run["number"], f"sequence, {', '.join(fields)}"):
        sequence = row.pop("sequence")
        if row["gpu_neighbours"] is not None:
            row["gpu_neighbours"] = _read(row["gpu_neighbours"], NEIGHBOURS, f"sample {sequence}")
        try:
            sample = msgspec.convert(row, Sampled)
        except msgspec.ValidationError as error:
            raise Refused(f"its sample {sequence} cannot be read: {display(str(error))}") from None
        yield EventLogged(uid=run["uid"], attempt=1, sequence=sequence, at="", event=sample)


def _rows(store: Store, table: str, run: int, columns: str) -> list[SqlRow]:
    return _typed(store, table, f"select {columns} from {table} where run = ? order by 1", run)


def _typed(store: Store, table: str, sql: str, value: object) -> list[SqlRow]:
    """Rows of a table.

    Raises:
        Refused: they cannot be read, or a value is of another type than its column.
    """
    schema = contents.columns(table)
    try:
        rows = _as_they_are(store, sql, value)
    except sqlite3.DatabaseError as error:
        raise Refused(f"its {table} cannot be read: {error}") from None
    for row in rows:
        if fault := contents.wrong(schema, row):
            raise Refused(f"its {table} are not such as dambench writes: {fault}")
    return rows


T = TypeVar("T")


def _read(text: str, kind: msgspec.json.Decoder[T], title: str) -> T:
    """Decode JSON, its texts made harmless.

    Raises:
        Refused: it is too long, no JSON, or says nothing of that kind.
    """
    if len(text) > LONGEST_WORD:
        raise Refused(f"its {title} has {len(text)} characters")
    try:
        # Where nothing is escaped and all can be shown, there is nothing to be made harmless.
        if not text.isprintable() or "\\" in text:
            return kind.decode(msgspec.json.encode(_harmless(msgspec.json.decode(text))))
        return kind.decode(text)
    except (ValueError, RecursionError) as error:
        raise Refused(f"its {title} cannot be read: {display(str(error))}") from None


def _harmless(value: Any) -> Any:
    match value:
        case str():
            return "\n".join(display(line, LONGEST_LINE) for line in value.split("\n"))
        case list():
            return [_harmless(part) for part in value]
        case dict():
            return {display(key): _harmless(part) for key, part in value.items()}
    return value


def _check_names(event: Event) -> None:
    """Files are named by them."""
    for name in ("sha256", "set_sha256", "protocol_sha256"):
        if not _SHA256.fullmatch(getattr(event, name, "0" * 64)):
            raise Refused(f"a {name} of its is none")


def _time(text: str) -> str:
    try:
        if datetime.fromisoformat(text).tzinfo is not None and text.isascii():
            return text
    except ValueError:
        pass
    raise Refused(f"{display(text, 40)!r} is no time")


def _preview(png: bytes) -> bytes:
    """A picture that a viewer can open without being sorry for it."""
    if not png:
        return b""
    width, height = (int.from_bytes(png[start : start + 4], "big") for start in (16, 20))
    if png[:8] != b"\x89PNG\r\n\x1a\n" or len(png) > LARGEST_PREVIEW or not 0 < width * height <= MOST_PREVIEW_PIXELS:
        raise Refused("a preview of its is no small PNG")
    return png
