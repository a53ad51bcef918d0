"""Store: runs.db, the ledger of all runs. Writes what a run says, reads it back.

Whatever is written is a `Line` first: the words with which a run is entered, a word of a run, or what somebody
changed about one. Applied in their order to an empty database, all lines give it again.
"""

import json
import os
import secrets
import sqlite3
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec
from msgspec import Struct
from sqlite_utils import Database

from dambench.core import files
from dambench.core.config import RunConfig
from dambench.core.errors import BadInput, NotKept
from dambench.core.events import (
    PHASES,
    Adapted,
    AnyEvent,
    Beginning,
    Checkpointed,
    Cost,
    DataCard,
    Evaluated,
    Failed,
    Finished,
    Measured,
    Neighbour,
    Previewed,
    Process,
    Progressed,
    Resumed,
    Sampled,
    Snapshot,
    Started,
    Stepped,
    Stopped,
    Warned,
    remark,
    shown,
)
from dambench.core.sanitize import display
from dambench.store import database, journal
from dambench.store.database import transaction
from dambench.store.results import checksum, damaged
from dambench.store.usage import usage

CHECKPOINTS = 2
"""Of a run that are kept."""

PREVIEWS = 20
"""Of a run that are kept, besides those of its sets."""

EVENT = msgspec.json.Decoder(AnyEvent)
"""Made once: to look at so many types takes longer than to read an event."""

_MADE = "coalesce(json_extract({}.config, '$.where.made'), '')"
MAKER = f"""(select maker.id from artifacts join runs as maker on maker.number = artifacts.run
    where artifacts.sha256 = {_MADE.format("runs")} and {_MADE.format("maker")} = ''
    order by maker.deleted_at != '', maker.number limit 1)"""
"""The id of the run whose set a run only evaluates, in SQL; null: it makes its own, or that run is not here."""

EVALUATES = f"""case {_MADE.format("runs")} when '' then ''
    else coalesce({MAKER} || '''s set', 'the set ' || substr({_MADE.format("runs")}, 1, 8)) end"""
"""What a run evaluates that does nothing else, as `ab2cde's set`; empty: it makes a set."""

NO_PROCESS = Process(host="", boot="", pid=0, started=0)

_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


def new_id() -> str:
    """Six characters nobody mistakes for others; the first is a letter."""
    return secrets.choice(_ALPHABET[:23]) + "".join(secrets.choice(_ALPHABET) for _ in range(5))


def default_path() -> Path:
    """DAMBENCH_DB, else runs.db here."""
    return files.user_path(os.environ.get("DAMBENCH_DB") or "runs.db")


def exists(path: Path) -> bool:
    """Whether there is such a database."""
    return path.exists() or (bool(journal.why(path)) and journal.folder(path).is_dir())


def check(path: Path) -> None:
    """See to it that a run could be recorded in this database, and change nothing of it.

    Raises:
        BadInput: it could not.
    """
    if journal.why(path):
        journal.check(path)
    else:
        database.check(path)


class Created(Struct, frozen=True, kw_only=True, tag_field="line", tag=str.lower):
    """A run is about to begin."""

    uid: str
    id: str
    name: str
    tags: list[str]
    at: str
    config: RunConfig
    card: DataCard
    process: Process
    recipe: str = ""
    overrides: dict[str, Any] = {}


class Said(Struct, frozen=True, kw_only=True, tag_field="line", tag=str.lower):
    """A word of a run."""

    uid: str
    attempt: int
    sequence: int
    at: str
    event: AnyEvent


def said(uid: str, attempt: int, sequence: int, event: AnyEvent) -> Said:
    """A word that a run says now."""
    return Said(uid=uid, attempt=attempt, sequence=sequence, at=_now(), event=event)


Editable = Literal["deleted_at", "stop_asked", "name", "note", "tag", "untag"]
"""What is not the run's own to say: columns of its row, and the tags it is given and loses."""


class Edited(Struct, frozen=True, kw_only=True, tag_field="line", tag=str.lower):
    """What somebody changed about a run."""

    uid: str
    at: str
    what: Editable
    value: str | int


Line = Created | Said | Edited


class Changed(BadInput):
    """What was to be replaced is not what it was taken to be. Nothing was written."""

    def __init__(self, run: str, what: str, now: str):
        super().__init__(f"The {what} of {run} was changed meanwhile, to {display(now, 400)!r}: nothing was written.")
        self.now = now


LONGEST = 2000
"""Characters of a note, a name or a tag."""


class Superseded(NotKept):
    """Another process has gone on with the run: this one may not speak for it any more."""


class Store:
    """An open runs.db."""

    notes: Sequence[str] = ()
    """What whoever opened it should know."""
    AGE: ClassVar[tuple[str, ...]] = ("number",)
    """The columns that say which run is older: not a clock, which may be set back."""
    late_seconds = 0.0
    """After which the processes of other hosts see what is written here, at the latest."""

    def __init__(self, path: Path, db: Database, *, wrote: bool = False):
        self.path = path
        self.file = path
        """That SQLite has open."""
        self.db = db
        self._wrote = wrote

    @classmethod
    def open(cls, path: Path, *, write: bool = False) -> "Store":
        """Open a database; to write, make it if it is not there, and bring it up to date.

        Raises:
            BadInput: it is missing (to read), foreign, empty, damaged, newer, or cannot be written.
        """
        try:
            if why := journal.why(path):
                from dambench.store.shared import Shared  # which is a Store

                store: Store = Shared.reach(path, why, write=write)
            elif write:
                store = cls(path, database.open_to_write(path), wrote=True)
            else:
                if not path.exists():
                    raise BadInput(f"There is no database {str(path)!r} yet: `dambench run` makes it.")
                database.identify(path)
                store = cls(path, database.open_to_read(path))
        except NotKept as error:
            raise BadInput(str(error)) from None
        except sqlite3.Error as error:
            raise BadInput(f"The database {str(path)!r} cannot be used: {database.reason(error, path)}.") from None
        except OSError as error:
            raise BadInput(f"The database {str(path)!r} cannot be used: {error.strerror}.") from None
        if write:
            files.note_database(path)
        return store

    @property
    def is_copy(self) -> bool:
        """Whether this is a copy in memory: of a file of an older schema, which may be read but not changed."""
        return not self.query("pragma database_list")[0]["file"]

    def close(self) -> None:
        database.close(self.db, self.file, wrote=self._wrote)

    def by_age(self, *, newest_first: bool = False) -> str:
        """What to order runs by, for SQL."""
        return ", ".join(f"runs.{column}{' desc' if newest_first else ''}" for column in self.AGE)

    def refresh(self) -> None:
        """See what others have written since. An ordinary database always shows it."""

    def create(
        self,
        config: RunConfig,
        card: DataCard,
        name: str = "",
        tags: Iterable[str] = (),
        process: Process = NO_PROCESS,
        recipe: str = "",
        overrides: dict[str, Any] | None = None,
    ) -> str:
        """Enter a run that is about to begin. Returns its id.

        Args:
            recipe, overrides: as the run will say itself, unless it is killed before.
        """
        run_id = new_id()
        while self.query("select 1 from runs where id = ?", run_id):
            run_id = new_id()
        created = Created(
            uid=secrets.token_hex(16),
            id=run_id,
            name=display(name),
            tags=list(dict.fromkeys(map(display, tags))),
            at=_now(),
            config=config,
            card=card,
            process=process,
            recipe=display(recipe, 400),
            overrides=shown(overrides or {}),
        )
        self.write([created])
        return str(self.query("select id from runs where uid = ?", created.uid)[0]["id"])

    def record(self, run: str, events: Iterable[AnyEvent], attempt: int = 1) -> Iterator[AnyEvent]:
        """Keep everything a run says, and hand it on.

        Losses and previews are written about once a second, all else at once: what else was handed on is on disk.

        Args:
            attempt: which of the run's processes this is.

        Raises:
            KeptElsewhere: the database could not be written, and it is in another file.
            NotKept: the database could not be written.
            Superseded: another process has gone on with the run.
        """
        from dambench.store.recorder import Recorder  # which writes to a Store

        yield from Recorder(self, run, attempt).record(events)

    def finished(self, config: RunConfig, card: DataCard, set_sha256: str = "") -> str | None:
        """The id of the newest finished run of this configuration on these data, if there is one outside of the trash.

        A run whose results are not those of their checksum is none.

        Args:
            set_sha256: of the set that it has to be about; empty: of any.
        """
        meant = (
            "runs.state = 'finished' and runs.deleted_at = '' and runs.config_sha256 = ? and runs.dataset_sha256 = ? "
            "and ? in ('', runs.set_sha256)"
        )
        values = config.sha256, card.sha256, set_sha256
        broken = damaged(self.query, meant, values)
        rows = self.query(
            f"select number, id from runs where {meant} order by {self.by_age(newest_first=True)}", *values
        )
        return next((str(row["id"]) for row in rows if row["number"] not in broken), None)

    def beat(self, run: str, attempt: int) -> bool:
        """Give a sign of life. Returns whether somebody has asked the run to stop."""
        with transaction(self.db, self.file, database.SPEAK_SECONDS):
            self.db.conn.execute("update runs set beat_at = ? where id = ? and attempt = ?", [_now(), run, attempt])
        return self._is_asked_to_stop(run, attempt)

    def _is_asked_to_stop(self, run: str, attempt: int) -> bool:
        return bool(self.query("select 1 from runs where id = ? and stop_asked = ?", run, attempt))

    def edit(self, run: str, what: Editable, value: str | int, *, was: str | None = None) -> None:
        """Change what is not the run's own to say.

        Args:
            was: the text that is to be replaced; None: whatever is there.

        Raises:
            BadInput: the text is too long.
            Changed: another text is there by now.
        """
        if isinstance(value, str):
            if len(value) > LONGEST:
                raise BadInput(
                    f"The {what.removeprefix('un')} has {len(value)} characters: it can have {LONGEST} at most."
                )
            value = display(value, LONGEST)
        self.refresh()
        row = self.run(run)

        def check() -> None:
            if was is not None and (now := self.run(row["id"])[what]) != was:
                raise Changed(row["id"], what, now)

        self._write_checked(Edited(uid=row["uid"], at=_now(), what=what, value=value), check)

    def _write_checked(self, edited: Edited, check: Callable[[], None]) -> None:
        """Add a change, unless `check`, within the same transaction, raises."""
        with transaction(self.db, self.file):
            check()
            self.apply(edited)

    def delete(self, run: str) -> None:
        """Put a run into the trash."""
        self.edit(run, "deleted_at", _now())

    def restore(self, run: str) -> None:
        """Take a run out of the trash."""
        self.edit(run, "deleted_at", "")

    def write(self, lines: Sequence[Line], patience: float | None = None) -> None:
        """Add lines, all or none.

        Args:
            patience: seconds to wait for others who write; None: as long as is usual.

        Raises:
            NotKept: they could not be written.
        """
        with transaction(self.db, self.file, patience):
            for line in lines:
                self.apply(line)

    def apply(self, line: Line) -> None:
        """Within a transaction."""
        match line:
            case Created():
                self._enter(line)
            case Said():
                self._hear(line)
            case Edited(uid=uid, what="tag", value=tag):
                self.db.conn.execute("insert or ignore into tags select ?, number from runs where uid = ?", [tag, uid])
            case Edited(uid=uid, what="untag", value=tag):
                mine = "(select number from runs where uid = ?)"
                self.db.conn.execute(f"delete from tags where tag = ? and run = {mine}", [tag, uid])
            case Edited(uid=uid, what=what, value=value):
                self.db.conn.execute(f"update runs set {what} = ? where uid = ?", [value, uid])

    def _enter(self, created: Created) -> None:
        config, card, protocol, process = created.config, created.card, created.config.protocol, created.process
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
                "label": display(card.label),
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
        run_id = created.id
        while self.query("select 1 from runs where id = ?", run_id):
            run_id = new_id()
        number = self._insert(
            "insert into",
            "runs",
            {
                "uid": created.uid,
                "id": run_id,
                "name": created.name,
                "state": "waiting",
                "method": config.method.name,
                "dataset": display(card.label),
                "ipc": config.ipc,
                "network": config.network,
                "protocol": protocol.label,
                "seed": config.seed,
                "overrides": msgspec.json.encode(created.overrides).decode(),
                "recipe": created.recipe,
                "created_at": created.at,
                "config": msgspec.json.encode(config).decode(),
                "config_sha256": config.sha256,
                "dataset_sha256": card.sha256,
                "protocol_sha256": protocol.sha256,
                **_process(process),
                "beat_at": created.at,
            },
        )
        for tag in created.tags:
            self._insert("insert into", "tags", {"tag": tag, "run": number})

    def _hear(self, said: Said) -> None:
        attempt = said.event.attempt - 1 if isinstance(said.event, Resumed) else said.attempt
        found = self.query("select number from runs where uid = ? and attempt = ?", said.uid, attempt)
        if not found:
            raise Superseded("Another process has gone on with this run: this one ends without a word of its own.")
        number, event = int(found[0]["number"]), said.event
        if isinstance(event, Sampled):
            self._sample(number, said.sequence, event)
            return
        self._view(number, said, event)
        if isinstance(event, Progressed | Previewed):
            return  # only the latest matters, and the run's row has it; pictures have a table of their own
        if isinstance(event, Snapshot):
            event = msgspec.structs.replace(event, preview=b"")  # the artifact's row has it
        self._insert(
            "insert into",
            "events",
            {
                "run": number,
                "sequence": said.sequence,
                "at": said.at,
                "kind": type(event).__name__.lower(),
                "body": msgspec.json.encode(event).decode(),
            },
        )

    def _view(self, number: int, said: Said, event: AnyEvent) -> None:
        """What an event changes in the tables that people read."""
        at = said.at
        if not isinstance(event, Progressed | Stepped):  # of which there are many
            self._update(number, beat_at=at)
        match event:
            case Resumed():
                self._go_on(number, event)
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
                for evaluator, metrics in event.metrics.items():
                    for name, metric in metrics.items():  # what is known of one stays: a run may come from anybody
                        row = {"evaluator": evaluator, "name": name, **msgspec.structs.asdict(metric)}
                        self._insert("insert or ignore into", "metrics", row)
            case Progressed():
                self._update(number, beat_at=at, phase=event.phase, done=event.done, total=event.total)
            case Stepped():
                self._update(number, beat_at=at, phase="distil", done=event.iteration)
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
            case Previewed():
                row = {"run": number, "iteration": event.iteration, "preview": event.preview}
                self._insert("insert or replace into", "previews", row)
                self._thin_out(number)
            case Evaluated():
                self._measure(number, event.measured)
            case Measured():
                self._measure(number, event)
            case Checkpointed():
                row = {"sha256": event.sha256, "bytes": event.size_bytes, "iteration": event.iteration}
                self._insert("insert into", "checkpoints", {"run": number, "sequence": said.sequence, **row})
                self.db.conn.execute(
                    "delete from checkpoints where run = ?1 and sequence not in "
                    "(select sequence from checkpoints where run = ?1 order by sequence desc limit ?2)",
                    [number, CHECKPOINTS],
                )
            case Finished():
                self._update(number, state="finished", phase="", ended_at=at, set_sha256=event.set_sha256)
                self.db.conn.execute("delete from checkpoints where run = ?", [number])
                self._costs(number, event.costs)
                self._update(number, results_sha256=checksum(self.query, number))
            case Failed():
                self._update(
                    number,
                    state="failed",
                    ended_at=at,
                    error=event.error,
                    traceback=event.traceback,
                    diverged_at=event.diverged,
                )
                self._costs(number, event.costs)
            case Stopped():
                self._update(number, state="stopped", ended_at=at, error=f"stopped by {event.signal}")
                if event.phase == "distil":
                    self._update(number, done=event.iteration)
                self._costs(number, event.costs)

    def _go_on(self, number: int, resumed: Resumed) -> None:
        """Another process takes over; what was said of iterations after its checkpoint no longer holds."""
        config = json.loads(self.query("select config from runs where number = ?", number)[0]["config"])
        later = [number, resumed.iteration]
        self.db.conn.execute(
            "delete from events where run = ? and kind in "
            "('stepped', 'snapshot', 'evaluated', 'measured', 'checkpointed', 'adapted') "
            "and cast(json_extract(body, '$.iteration') as integer) > ?",
            later,
        )
        for table in ("evaluations", "artifacts", "checkpoints", "previews"):
            self.db.conn.execute(f"delete from {table} where run = ? and iteration > ?", later)
        self._update(
            number,
            state="running",
            attempt=resumed.attempt,
            **_process(resumed.process),
            phase="distil",
            done=max(0, resumed.iteration),
            total=config["method"].get("options", {}).get("iterations", 0),
            ended_at=None,
            error="",
            traceback="",
            diverged_at=None,
            stop_asked=0,
        )

    def _thin_out(self, number: int) -> None:
        """Forget the preview that is closest to its neighbours: what stays tells the run from its beginning on."""
        rows = self.query("select iteration from previews where run = ? order by iteration", number)
        if len(rows) <= PREVIEWS:
            return
        found = [row["iteration"] for row in rows]
        index = min(range(1, len(found) - 1), key=lambda at: found[at + 1] - found[at - 1])
        self.db.conn.execute("delete from previews where run = ? and iteration = ?", [number, found[index]])

    def _sample(self, number: int, sequence: int, sample: Sampled) -> None:
        row = {"run": number, "sequence": sequence} | msgspec.structs.asdict(sample)
        if sample.gpu_neighbours is not None:
            row["gpu_neighbours"] = msgspec.json.encode(sample.gpu_neighbours).decode()
        self._insert("insert into", "samples", row)

    def _measure(self, number: int, event: Measured) -> None:
        """A resumed run may measure again what it had measured: the last time counts."""
        key = {
            "run": number,
            **{name: getattr(event, name) for name in ("iteration", "evaluator", "subject", "repeat")},
        }
        self.db.conn.execute(
            f"delete from evaluations where {' and '.join(f'{name} = ?' for name in key)}", list(key.values())
        )
        facts = ("protocol_sha256", "final", "seconds", "peak_memory_bytes", "set_sha256")
        self._insert("insert into", "evaluations", key | {name: getattr(event, name) for name in facts})
        for metric, value in event.values.items():
            row = {"value": None, "state": value} if isinstance(value, str) else {"value": value}
            self._insert("insert into", "measurements", key | {"metric": metric} | row)

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
        # By the index: the last character there is comes after all that an id can hold.
        rows = self.query("select * from runs where id >= ? and id < ? order by id", prefix, f"{prefix}\U0010ffff")
        exact = [row for row in rows if row["id"] == prefix]
        if exact or (prefix and len(rows) == 1):
            return (exact or rows)[0]
        if not prefix or not rows:
            raise BadInput(f"No run has the id {display(prefix)!r}: `dambench runs` lists them.")
        raise BadInput(f"{len(rows)} runs have an id that begins with {display(prefix)!r}: type more of it.")

    def newest(
        self, most: int = -1, *, deleted: bool = False, only: tuple[str, Sequence[Any]] = ("1", ())
    ) -> list[dict[str, Any]]:
        """The last runs that were entered, newest first, with their mean accuracy and from how many scores it is.

        It is that on the first network of each, as on every screen.

        Args:
            most: how many; -1: all.
            deleted: those in the trash instead.
            only: a condition on `runs` and its parameters.
        """
        # By the primary key of each run that is listed: to join and group would read the scores of all.
        scores = (
            "from scores where run = runs.number and final = 1 and network = json_extract(config, '$.evaluate_on[0]')"
        )
        # Those that are left where others diverged stand for nothing.
        mean = "iif(state != 'finished' or count(*) >= json_extract(config, '$.eval_repeats'), avg(accuracy), null)"
        return self.query(
            f"""
            select id, name, state, method, overrides, dataset, ipc, protocol, seed, phase, done, total,
                created_at, host, boot, pid, process_started, attempt, beat_at, log, deleted_at,
                {EVALUATES} as evaluates,
                (select {mean} {scores}) as accuracy, (select count(*) {scores}) as n
            from runs where (deleted_at != '') = ? and {only[0]}
            order by {self.by_age(newest_first=True)} limit ?
            """,
            deleted,
            *only[1],
            most,
        )

    def describe(self, prefix: str) -> dict[str, Any]:
        """Everything that is known of one run, in parts that JSON can hold."""
        row = self.run(prefix)
        number = row.pop("number")

        def part(table: str, order: str) -> list[dict[str, Any]]:
            rows = self.query(f"select * from {table} where run = ? order by {order}", number)
            return [{key: value for key, value in found.items() if key not in ("run", "preview")} for found in rows]

        sets = part("artifacts", "iteration")
        (other,) = self.query(f"select {EVALUATES} as evaluates from runs where number = ?", number)
        return {
            "run": row | other | {key: json.loads(row[key]) for key in ("config", "overrides")},
            "tags": [found["tag"] for found in part("tags", "tag")],
            "environment": next(iter(part("environments", "run")), {}),
            "attempts": self._attempts(row["id"]),
            "costs": part("costs", f"instr('{' '.join(PHASES)}', phase)"),
            "usage": msgspec.to_builtins(usage(*self._by_attempt(row["id"], number))),
            "scores": part("scores", "iteration, network, repeat"),
            "sets": [made | {"file": str(files.find_set(made["sha256"]) or "")} for made in sets],
            "checkpoints": part("checkpoints", "sequence"),
            # A resumed run may have to say again what it had said.
            "warnings": list(
                dict.fromkeys(remark(event) for _, event in self.tail(row["id"]) if isinstance(event, Warned | Adapted))
            ),
        }

    def _by_attempt(self, run: str, number: int) -> list[list[Sampled]]:
        """A run's samples."""
        found = self.query("select sequence from events where run = ? and kind = 'resumed' order by sequence", number)
        begins = [row["sequence"] for row in found]
        parts: list[list[Sampled]] = [[] for _ in range(1 + len(begins))]
        for sequence, sample in self.samples(run):
            parts[bisect(begins, sequence)].append(sample)
        return parts

    def _attempts(self, run: str) -> list[dict[str, Any]]:
        """Where and in what environment each process of a run that was resumed has worked, from the second on."""
        rows = self.query(
            "select at, body from events where run = ? and kind = 'resumed' order by sequence", self.run(run)["number"]
        )
        return [
            {
                "attempt": event.attempt,
                "at": row["at"],
                "iteration": event.iteration,
                "environment": msgspec.structs.asdict(event.environment),
            }
            for row in rows
            if isinstance(event := EVENT.decode(row["body"]), Resumed)
        ]

    def beginning(self, run: str, process: Process) -> Beginning:
        """What whoever goes on with a run must know."""
        row = self.run(run)
        said = [event for _, event in self.tail(run)]
        environments = [event.environment for event in said if isinstance(event, Started)]
        known = "select {} from {} where run = ? order by {}"
        scores = self.query(known.format("iteration, subject, repeat", "evaluations", "iteration"), row["number"])
        stacks = [event.value for event in said if isinstance(event, Adapted) and event.what == "stack"]
        return Beginning(
            attempt=row["attempt"] + 1,
            process=process,
            environment=environments[0] if environments else None,
            checkpoints=[
                found["sha256"]
                for found in self.query(known.format("sha256", "checkpoints", "sequence"), row["number"])
            ],
            scores=[(score["iteration"], score["subject"], score["repeat"]) for score in scores],
            sets=[
                found["iteration"]
                for found in self.query(known.format("iteration", "artifacts", "iteration"), row["number"])
            ],
            losses=[event for event in said if isinstance(event, Stepped)],
            stack=stacks[-1] if stacks else 0,
        )

    def seconds(self, run: str) -> float:
        """Since the run's first event, by the clock of this machine; 0: it has said nothing yet."""
        number = self.run(run)["number"]
        began = self.query("select at from events where run = ? order by sequence limit 1", number)
        if not began:
            return 0.0
        last = self.query("select coalesce(max(seconds), 0) last from samples where run = ?", number)[0]["last"]
        passed = (datetime.now(UTC) - datetime.fromisoformat(began[0]["at"])).total_seconds()
        return float(max(last, passed))  # a clock may have been set back

    def preview(self, prefix: str) -> bytes:
        """A PNG of the run's latest set, a row per class, which needs no tensors; empty: it has none yet."""
        number = self.run(prefix)["number"]
        rows = self.query("select preview from artifacts where run = ? order by iteration desc limit 1", number)
        return bytes(rows[0]["preview"]) if rows else b""

    def pictures(self, run: str) -> list[int]:
        """The iterations after which there is a picture of the run's synthetic set, in order."""
        number = self.run(run)["number"]
        both = "select iteration from previews where run = ?1 union select iteration from artifacts where run = ?1"
        return [row["iteration"] for row in self.query(f"{both} order by iteration", number)]

    def picture(self, run: str, iteration: int) -> bytes:
        """One of `pictures`, a PNG: a row per class. Empty: there is none of that iteration."""
        number = self.run(run)["number"]
        for table in ("artifacts", "previews"):
            found = self.query(f"select preview from {table} where run = ? and iteration = ?", number, iteration)
            if found:
                return bytes(found[0]["preview"])
        return b""

    def extent(self, run: str) -> tuple[int, int, bool]:
        """How many classes and images a run's set has, and whether as many of each: a picture may show fewer."""
        (made,) = self.query(
            "select ipc, card, (select shape from artifacts where run = number order by iteration desc limit 1) shape "
            "from runs join datasets on datasets.sha256 = dataset_sha256 where number = ?",
            self.run(run)["number"],
        )
        counts = msgspec.json.decode(made["card"], type=DataCard).train_counts
        if made["ipc"] is None:
            return len(counts), sum(counts), len(set(counts)) == 1
        images = made["ipc"] * len(counts)
        return len(counts), json.loads(made["shape"])[0] if made["shape"] else images, True

    def tail(self, run: str, after: int = 0) -> Iterator[tuple[int, AnyEvent]]:
        """What a run has said since its event number `after`, in order.

        Left out are Progressed, of which only the latest is kept, Sampled, which `samples` tells, and Previewed, which
        `pictures` lists.
        """
        number = self.run(run)["number"]
        rows = self.query(
            "select sequence, body from events where run = ? and sequence > ? order by sequence",
            number,
            after,
        )
        for row in rows:
            yield row["sequence"], EVENT.decode(row["body"])

    def samples(self, run: str, after: int = 0) -> Iterator[tuple[int, Sampled]]:
        """What a run's machine was doing since its event number `after`, in order."""
        number = self.run(run)["number"]
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
        """All rows at once: no cursor stays open, which would keep the log from being folded in.

        Raises:
            BadInput: it cannot be read, or holds bytes where a text or a number belongs.
        """
        try:
            rows = [dict(row) for row in self.db.conn.execute(sql, values).fetchall()]
        except sqlite3.DatabaseError as error:
            # What SQLite has a limit for was asked; nothing is wrong with the file.
            limit = error.sqlite_errorcode in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_TOOBIG) and " too " in str(error)
            what = "cannot answer what was asked" if limit else "cannot be read"
            raise BadInput(f"The database {str(self.path)!r} {what}: {error}.") from None
        for row in rows:
            for name, value in row.items():
                if type(value) is bytes and name != "preview":
                    raise BadInput(
                        f"The database {str(self.path)!r} is not as a dambench wrote it: {display(name)} is bytes. "
                        "`dambench db check` tells more."
                    )
        return rows


def _process(process: Process) -> dict[str, Any]:
    """The columns of a run's row that say which process it is."""
    return {
        "host": process.host,
        "boot": process.boot,
        "pid": process.pid,
        "process_started": process.started,
        "log": process.log,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
