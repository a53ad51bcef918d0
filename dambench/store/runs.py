"""Store: runs.db, the ledger of all runs, opened to write what runs say and to read it back."""

import json
import os
import secrets
import sqlite3
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from dambench.core import files
from dambench.core.config import RunConfig
from dambench.core.errors import BadInput, NotKept
from dambench.core.events import (
    PHASES,
    Adapted,
    AnyEvent,
    Beginning,
    DataCard,
    Neighbour,
    Process,
    Resumed,
    Sampled,
    Started,
    Stepped,
    Warned,
    remark,
    shown,
)
from dambench.core.sanitize import display
from dambench.store import database, final_scores, journal, prefixes, records
from dambench.store.connection import Database
from dambench.store.database import transaction
from dambench.store.records import (
    LONGEST,
    AttemptSuperseded,
    Editable,
    EditConflict,
    Identity,
    LogRecord,
    Purpose,
    RunCreated,
    RunEdited,
)
from dambench.store.results import damaged
from dambench.store.rows import RUN_COLUMNS, RunRow, RunSummary, SqlRow
from dambench.store.set_bytes import needs, set_bytes
from dambench.store.tables import Tables
from dambench.store.usage import usage

EVENT = msgspec.json.Decoder(AnyEvent)
"""Made once: to look at so many types takes longer than to read an event."""

_MADE = "coalesce(json_extract({}.config, '$.where.made'), '')"
_HELD_OUT = "coalesce(json_extract({}.config, '$.held_out.sha256'), '')"
"""The whole set less its validation images has the digest of the whole set."""
MAKER = f"""(select maker.id from artifacts join runs as maker on maker.number = artifacts.run
    where artifacts.sha256 = {_MADE.format("runs")} and {_MADE.format("maker")} = ''
    and {_HELD_OUT.format("maker")} = {_HELD_OUT.format("runs")}
    order by maker.deleted_at != '', maker.number limit 1)"""
"""The id of the run whose set a run only evaluates, in SQL; null: it makes its own, or that run is not here."""

EVALUATES = f"""case {_MADE.format("runs")} when '' then ''
    else coalesce({MAKER} || '''s set', 'the set ' || substr({_MADE.format("runs")}, 1, 8))
    || case coalesce(json_extract(runs.config, '$.evaluator.name'), 'accuracy') when 'accuracy' then ''
    else ' (' || json_extract(runs.config, '$.evaluator.name') || ')' end end"""
"""What a run evaluates that does nothing else, as `ab2cde's set` and, if not for accuracy, by which evaluator, as
`ab2cde's set (nas)`; empty: it makes a set."""

MEASUREMENTS = """
    select iteration, evaluator, subject, repeat, metric, value, state, unit, better, description
    from measurements join metrics using (evaluator) where run = ? and metrics.name = metric
        and not (evaluator = 'accuracy' and metric in ('accuracy', 'balanced_accuracy', 'loss', 'train_accuracy',
            'validation_accuracy'))
    order by evaluator, iteration, subject, repeat, metric
"""
"""What was measured of a run besides its `scores`."""

NO_PROCESS = Process(host="", boot="", pid=0, started=0)


def default_path() -> Path:
    """DAMBENCH_DB, else runs.db here."""
    return files.user_path(os.environ.get("DAMBENCH_DB") or "runs.db")


def exists(path: Path) -> bool:
    """Tell whether there is such a database."""
    return path.exists() or (bool(journal.network_disk_reason(path)) and journal.folder(path).is_dir())


def check(path: Path) -> None:
    """See to it that a run could be recorded in this database, and change nothing of it.

    Raises:
        BadInput: it could not.
    """
    if journal.network_disk_reason(path):
        journal.check(path)
    else:
        database.check(path)


class Store:
    """An open runs.db."""

    notes: Sequence[str] = ()
    """What whoever opened it should know."""
    late_seconds = 0.0
    """After which the processes of other hosts see what is written here, at the latest."""

    def __init__(self, path: Path, db: Database, *, wrote: bool = False):
        self.path = path
        self.file = path
        """The file that SQLite has open."""
        self.db = db
        self.tables = Tables(db)
        self._wrote = wrote

    @classmethod
    def open(cls, path: Path, *, write: bool = False) -> "Store":
        """Open a database; to write, make it if it is not there, and bring it up to date.

        Raises:
            BadInput: it is missing (to read), foreign, empty, damaged, newer, or cannot be written.
        """
        try:
            if why := journal.network_disk_reason(path):
                from dambench.store.journal_store import JournalStore  # which is a Store

                store: Store = JournalStore.reach(path, why, write=write)
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
        """True for a copy in memory: of a file of an older schema, which may be read but not changed."""
        return not self.query("pragma database_list")[0]["file"]

    def close(self) -> None:
        database.close(self.db, self.file, wrote=self._wrote)

    def by_age(self, *, newest_first: bool = False) -> str:
        """The order of runs by their age, in SQL."""
        return "runs.age desc, runs.number desc" if newest_first else "runs.age, runs.number"

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
        purpose: Purpose = "",
        queued: Identity | None = None,
    ) -> str:
        """Enter a run that is about to begin. Returns its id.

        Args:
            recipe, overrides: as the run will say itself, unless it is killed before.
            queued: of a run that was queued; None: a new identity.

        Raises:
            AttemptSuperseded: the run that was queued has been begun by another process.
        """
        run_id = queued.id if queued else records.new_id()
        while self.query("select 1 from runs where id = ? union all select 1 from queue where id = ?", *[run_id] * 2):
            if queued:
                break  # what is entered finds another one, should a run have it
            run_id = records.new_id()
        now = records.now()
        created = RunCreated(
            uid=queued.uid if queued else secrets.token_hex(16),
            id=run_id,
            name=display(name),
            tags=list(dict.fromkeys(map(display, tags))),
            at=now,
            config=config,
            card=card,
            process=process,
            recipe=display(recipe, 400),
            overrides=shown(overrides or {}),
            age=max(now, self.query("select coalesce(max(age), '') as age from runs")[0]["age"]),
            purpose=purpose,
        )
        if queued:
            self.decide(lambda: self._unless_begun(created))
        else:
            self.write([created])
        return str(self.query("select id from runs where uid = ?", created.uid)[0]["id"])

    def _unless_begun(self, created: RunCreated) -> list[LogRecord]:
        if self.with_uid(created.uid):
            raise AttemptSuperseded("Another process has begun this run already: this one ends.")
        return [created]

    def record(self, run: str, events: Iterable[AnyEvent], attempt: int = 1) -> Iterator[AnyEvent]:
        """Keep everything a run says, and hand it on.

        Losses and previews are written about once a second, all else at once: what else was handed on is on disk.

        Args:
            attempt: which of the run's processes this is.

        Raises:
            KeptElsewhere: the database could not be written, and it is in another file.
            NotKept: the database could not be written.
            AttemptSuperseded: another process has gone on with the run.
        """
        from dambench.store.recorder import Recorder  # which writes to a Store

        yield from Recorder(self, run, attempt).record(events)

    def finished(self, config: RunConfig, card: DataCard, set_sha256: str = "", purpose: Purpose = "") -> str | None:
        """The id of the newest finished run of this configuration on these data, if there is one outside of the trash.

        A run whose results are not those of their checksum is none.

        Args:
            set_sha256: of the set that it has to be about; empty: of any.
            purpose: what it was made for.
        """
        condition = (
            "runs.state = 'finished' and runs.deleted_at = '' and runs.config_sha256 = ? and runs.dataset_sha256 = ? "
            "and ? in ('', runs.set_sha256) and runs.purpose = ?"
        )
        values = config.sha256, card.sha256, set_sha256, purpose
        broken = damaged(self.query, condition, values)
        rows = self.query(
            f"select number, id from runs where {condition} order by {self.by_age(newest_first=True)}", *values
        )
        return next((str(row["id"]) for row in rows if row["number"] not in broken), None)

    def beat(self, run: str, attempt: int) -> bool:
        """Give a sign of life. Returns whether somebody has asked the run to stop."""
        with transaction(self.db, self.file, database.SPEAK_SECONDS):
            self.tables.execute("update runs set beat_at = ? where id = ? and attempt = ?", records.now(), run, attempt)
        return self._is_asked_to_stop(run, attempt)

    def _is_asked_to_stop(self, run: str, attempt: int) -> bool:
        return bool(self.query("select 1 from runs where id = ? and stop_asked = ?", run, attempt))

    def edit(self, run: str, what: Editable, value: str | int, *, was: str | None = None) -> None:
        """Change what is not the run's own to say.

        Args:
            was: the text that is to be replaced; None: whatever is there.

        Raises:
            BadInput: the text is too long.
            EditConflict: another text is there by now.
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
            if was is not None and (now := getattr(self.run(row.id), what)) != was:
                raise EditConflict(row.id, what, now)

        def decision() -> list[LogRecord]:
            check()
            return [RunEdited(uid=row.uid, at=records.now(), what=what, value=value)]

        self.decide(decision)

    def decide(self, decision: Callable[[], Sequence[LogRecord]]) -> None:
        """Write what a decision comes to, all or none of it. It may look at everything: nobody else writes meanwhile.

        Raises:
            NotKept: it could not be written; and whatever the decision raises.
        """
        with transaction(self.db, self.file):
            for record in decision():
                self.tables.apply(record)

    def delete(self, run: str) -> None:
        """Put a run into the trash."""
        self.edit(run, "deleted_at", records.now())

    def restore(self, run: str) -> None:
        """Take a run out of the trash."""
        self.edit(run, "deleted_at", "")

    def write(self, log: Sequence[LogRecord], patience: float | None = None) -> None:
        """Add records, all or none.

        Args:
            patience: seconds to wait for others who write; None: as long as is usual.

        Raises:
            NotKept: they could not be written.
        """
        with transaction(self.db, self.file, patience):
            for record in log:
                self.tables.apply(record)

    def run(self, prefix: str) -> RunRow:
        """The run of that id, or of the only id that begins so.

        Raises:
            BadInput: there is none, or more than one.
        """
        rows = self.runs(f"{prefixes.CONDITION} order by id", *prefixes.bounds(prefix))
        if prefix and not rows:
            queued = self.query(f"select id, state from queue where {prefixes.CONDITION}", *prefixes.bounds(prefix))
            if len(queued) == 1:
                raise BadInput(
                    f"{display(queued[0]['id'], 40)} is queued ({queued[0]['state']}), and has not begun: "
                    "`dambench queue list` shows it."
                )
        return prefixes.meant(rows, prefix, "run", "`dambench runs` lists them")

    def runs(self, condition: str, *values: Any) -> list[RunRow]:
        """The runs that meet a condition, in SQL."""
        return [RunRow(**row) for row in self.query(f"select {RUN_COLUMNS} from runs where {condition}", *values)]

    def unfinished(self) -> list[RunRow]:
        """The runs that are waiting or running by their own word."""
        return self.runs("state in ('waiting', 'running') and deleted_at = ''")

    def with_id(self, run: str) -> RunRow | None:
        return next(iter(self.runs("id = ?", run)), None)

    def with_uid(self, uid: str) -> RunRow | None:
        return next(iter(self.runs("uid = ?", uid)), None)

    def ids(self) -> list[str]:
        """All runs that are not in the trash, newest first."""
        order = self.by_age(newest_first=True)
        return [row["id"] for row in self.query(f"select id from runs where deleted_at = '' order by {order}")]

    def number_of(self, run: str) -> int | None:
        return next((int(row["number"]) for row in self.query("select number from runs where id = ?", run)), None)

    def count_by_state(self) -> dict[str, int]:
        rows = self.query("select state, count(*) n from runs where deleted_at = '' group by state")
        return {row["state"]: row["n"] for row in rows}

    def finished_by_protocol(self) -> dict[str, int]:
        """The number of finished runs by the protocol's SHA-256."""
        sql = "select protocol_sha256, count(*) n from runs where state = 'finished' and deleted_at = '' group by 1"
        return {row["protocol_sha256"]: row["n"] for row in self.query(sql)}

    def maker(self, run: str) -> str | None:
        """The run whose set this one only evaluates; None: it makes its own, or that run is not here."""
        (row,) = self.query(f"select {MAKER} as maker from runs where id = ?", run)
        return None if row["maker"] is None else str(row["maker"])

    def evaluates(self, run: str) -> str:
        """The set that a run evaluates that does nothing else, as `ab2cde's set`; empty: it makes a set."""
        (row,) = self.query(f"select {EVALUATES} as evaluates from runs where id = ?", run)
        return str(row["evaluates"])

    def measured_elsewhere(self, row: RunRow) -> list[SqlRow]:
        """The other finished runs that measured a run's set, each with its evaluator, the newest first."""
        if row.set_sha256 is None:
            return []
        return self.query(
            f"""
            select runs.id as run, coalesce(json_extract(runs.config, '$.evaluator.name'), 'accuracy') as evaluator
            from runs where number in (select run from evaluations where set_sha256 = ? and final = 1)
                and number != ? and state = 'finished' and deleted_at = '' order by {self.by_age(newest_first=True)}
            """,
            row.set_sha256,
            row.number,
        )

    def card(self, run: RunRow) -> DataCard:
        """The card of the data of a run."""
        (row,) = self.query("select card from datasets where sha256 = ?", run.dataset_sha256)
        return msgspec.json.decode(row["card"], type=DataCard)

    def last_checkpoint(self, run: RunRow) -> int | None:
        """The iteration that a run can go on from."""
        (row,) = self.query("select max(iteration) last from checkpoints where run = ?", run.number)
        return None if row["last"] is None else int(row["last"])

    def iteration_of(self, run: RunRow) -> int | None:
        """After which iteration the resulting set of a run was as it is; None: there is none."""
        (row,) = self.query(
            "select max(iteration) last from artifacts where run = ? and sha256 = ?", run.number, run.set_sha256
        )
        return None if row["last"] is None else int(row["last"])

    def event_mark(self, number: int, sequence: int) -> object:
        """A mark that tells an event from another one of the same number, which has taken its place."""
        return self.query("select at, kind from events where run = ? and sequence = ?", number, sequence)

    def version(self) -> tuple[int, int]:
        """Another one: something was written, by others or by this very store."""
        return int(self.query("pragma data_version")[0]["data_version"]), self.db.conn.total_changes

    def revision(self) -> int:
        """Another one: something was written that a table of finished runs can depend on."""
        return final_scores.revision(self.query)

    @contextmanager
    def moment(self) -> Iterator[None]:
        """See one moment of the database, whatever others write meanwhile."""
        try:
            self.db.conn.execute("begin")
            yield
        finally:
            if self.db.conn.in_transaction:
                self.db.conn.execute("rollback")

    def newest(
        self, most: int = -1, *, deleted: bool = False, only: tuple[str, Sequence[Any]] = ("1", ())
    ) -> list[RunSummary]:
        """The last runs that were entered, newest first, with their mean accuracy and from how many scores it is.

        It is that on the first network of each, as on every screen.

        Args:
            most: how many; -1: all.
            deleted: those in the trash instead.
            only: a condition on `runs` and its parameters.
        """
        # By the primary key of each run that is listed: to join and group would read the scores of all.
        scores = (
            "from evaluations cross join measurements using (run, iteration, evaluator, subject, repeat) "
            "where run = runs.number and final = 1 and evaluator = 'accuracy' and metric = 'accuracy' "
            "and subject = json_extract(config, '$.evaluate_on[0]')"
        )
        # Those that are left where others diverged stand for nothing.
        mean = "iif(runs.state != 'finished' or count(*) >= json_extract(config, '$.eval_repeats'), avg(value), null)"
        rows = self.query(
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
        return [RunSummary(**row) for row in rows]

    def test_images(self, run: RunRow) -> int:
        """The number of test images of its dataset; 0: not known."""
        rows = self.query("select test_images from datasets where sha256 = ?", run.dataset_sha256)
        return next((row["test_images"] for row in rows if isinstance(row["test_images"], int)), 0)

    def describe(self, prefix: str) -> dict[str, Any]:
        """Everything that is known of one run, in parts that JSON can hold."""
        row = self.run(prefix)
        facts, number = msgspec.structs.asdict(row), row.number
        del facts["number"], facts["age"]  # what rows are found and sorted by

        def part(table: str, order: str) -> list[SqlRow]:
            rows = self.query(f"select * from {table} where run = ? order by {order}", number)
            return [{key: value for key, value in one.items() if key not in ("run", "preview")} for one in rows]

        sets = part("artifacts", "iteration")
        sizes = set_bytes(self.query, [artifact["sha256"] for artifact in sets])
        return {
            "run": facts
            | {"evaluates": self.evaluates(row.id)}
            | {"config": json.loads(row.config), "overrides": json.loads(row.overrides)},
            "tags": [one["tag"] for one in part("tags", "tag")],
            "environment": next(iter(part("environments", "run")), {}),
            "attempts": self._attempts(row.id),
            "costs": part("costs", f"instr('{' '.join(PHASES)}', phase)"),
            "usage": msgspec.to_builtins(usage(*self._by_attempt(row.id, number))),
            "scores": part("scores", "iteration, network, repeat"),
            "test_images": self.test_images(row),
            "measurements": self.query(MEASUREMENTS, number),
            "sets": [
                artifact
                | {"file": str(files.find_set(artifact["sha256"]) or "")}
                | needs(sizes.get(artifact["sha256"]))
                for artifact in sets
            ],
            "checkpoints": part("checkpoints", "sequence"),
            # A resumed run may have to say again what it had said.
            "warnings": list(
                dict.fromkeys(remark(event) for _, event in self.tail(row.id) if isinstance(event, Warned | Adapted))
            ),
        }

    def _by_attempt(self, run: str, number: int) -> list[list[Sampled]]:
        """A run's samples."""
        rows = self.query("select sequence from events where run = ? and kind = 'resumed' order by sequence", number)
        begins = [row["sequence"] for row in rows]
        parts: list[list[Sampled]] = [[] for _ in range(1 + len(begins))]
        for sequence, sample in self.samples(run):
            parts[bisect(begins, sequence)].append(sample)
        return parts

    def _attempts(self, run: str) -> list[SqlRow]:
        """The environments of each process of a run that was resumed, from the second on."""
        rows = self.query(
            "select at, body from events where run = ? and kind = 'resumed' order by sequence", self.run(run).number
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
        """Read what whoever goes on with a run must know."""
        row = self.run(run)
        events = [event for _, event in self.tail(run)]
        environments = [event.environment for event in events if isinstance(event, Started)]
        sql = "select {} from {} where run = ? order by {}"
        scores = self.query(sql.format("iteration, subject, repeat", "evaluations", "iteration"), row.number)
        stacks = [event.value for event in events if isinstance(event, Adapted) and event.what == "stack"]
        return Beginning(
            attempt=row.attempt + 1,
            process=process,
            environment=environments[0] if environments else None,
            checkpoints=[
                one["sha256"] for one in self.query(sql.format("sha256", "checkpoints", "sequence"), row.number)
            ],
            scores=[(score["iteration"], score["subject"], score["repeat"]) for score in scores],
            sets=[
                one["iteration"] for one in self.query(sql.format("iteration", "artifacts", "iteration"), row.number)
            ],
            losses=[event for event in events if isinstance(event, Stepped)],
            stack=stacks[-1] if stacks else 0,
        )

    def seconds(self, run: str) -> float:
        """Seconds since the run's first event, by the clock of this machine; 0: it has logged nothing yet."""
        number = self.run(run).number
        began = self.query("select at from events where run = ? order by sequence limit 1", number)
        if not began:
            return 0.0
        last = self.query("select coalesce(max(seconds), 0) last from samples where run = ?", number)[0]["last"]
        passed = (datetime.now(UTC) - datetime.fromisoformat(began[0]["at"])).total_seconds()
        return float(max(last, passed))  # a clock may have been set back

    def preview(self, prefix: str) -> bytes:
        """A PNG of the run's latest set, a row per class, which needs no tensors; empty: it has none yet."""
        number = self.run(prefix).number
        rows = self.query("select preview from artifacts where run = ? order by iteration desc limit 1", number)
        return bytes(rows[0]["preview"]) if rows else b""

    def pictures(self, run: str) -> list[int]:
        """The iterations after which there is a picture of the run's synthetic set, in order."""
        number = self.run(run).number
        both = "select iteration from previews where run = ?1 union select iteration from artifacts where run = ?1"
        return [row["iteration"] for row in self.query(f"{both} order by iteration", number)]

    def picture(self, run: str, iteration: int) -> bytes:
        """One of `pictures`, a PNG: a row per class. Empty: there is none of that iteration."""
        number = self.run(run).number
        for table in ("artifacts", "previews"):
            rows = self.query(f"select preview from {table} where run = ? and iteration = ?", number, iteration)
            if rows:
                return bytes(rows[0]["preview"])
        return b""

    def extent(self, run: str) -> tuple[int, int, bool]:
        """Count the classes and images of a run's set; True: as many of each. A picture may show fewer."""
        (made,) = self.query(
            "select ipc, card, (select shape from artifacts where run = number order by iteration desc limit 1) shape "
            "from runs join datasets on datasets.sha256 = dataset_sha256 where number = ?",
            self.run(run).number,
        )
        counts = msgspec.json.decode(made["card"], type=DataCard).train_counts
        if made["ipc"] is None:
            return len(counts), sum(counts), len(set(counts)) == 1
        images = made["ipc"] * len(counts)
        return len(counts), json.loads(made["shape"])[0] if made["shape"] else images, True

    def tail(self, run: str, after: int = 0) -> Iterator[tuple[int, AnyEvent]]:
        """Iterate over the events of a run after number `after`, in order.

        Left out are Progressed, of which only the latest is kept, Sampled, which `samples` tells, and Previewed, which
        `pictures` lists.
        """
        number = self.run(run).number
        rows = self.query(
            "select sequence, body from events where run = ? and sequence > ? order by sequence",
            number,
            after,
        )
        for row in rows:
            yield row["sequence"], EVENT.decode(row["body"])

    def samples(self, run: str, after: int = 0) -> Iterator[tuple[int, Sampled]]:
        """Iterate over the samples of a run's machine after event number `after`, in order."""
        number = self.run(run).number
        fields = Sampled.__struct_fields__
        rows = self.query(
            f"select sequence, {', '.join(fields)} from samples where run = ? and sequence > ? order by sequence",
            number,
            after,
        )
        for row in rows:
            values = {name: row[name] for name in fields}
            if values["gpu_neighbours"] is not None:
                values["gpu_neighbours"] = msgspec.json.decode(values["gpu_neighbours"], type=list[Neighbour])
            yield row["sequence"], Sampled(**values)

    def query(self, sql: str, *values: Any) -> list[SqlRow]:
        """All rows at once: no cursor stays open, which would keep the log from being folded in.

        Raises:
            BadInput: it cannot be read, or holds bytes where a text or a number belongs.
        """
        names, rows = self._read(sql, values)
        return [dict(zip(names, row, strict=True)) for row in rows]

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """The same without names, for many rows.

        Raises:
            BadInput: as `query` does.
        """
        return self._read(sql, values)[1]

    def _read(self, sql: str, values: Sequence[Any]) -> tuple[list[str], list[tuple[Any, ...]]]:
        try:
            cursor = self.db.conn.cursor()
            cursor.row_factory = None
            rows = cursor.execute(sql, values).fetchall()
        except sqlite3.DatabaseError as error:
            # What SQLite has a limit for was asked; nothing is wrong with the file.
            limit = error.sqlite_errorcode in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_TOOBIG) and " too " in str(error)
            problem = "cannot answer what was asked" if limit else "cannot be read"
            raise BadInput(f"The database {str(self.path)!r} {problem}: {error}.") from None
        names = [column[0] for column in cursor.description or ()]
        for row in rows:
            if bytes in map(type, row):
                for name, value in zip(names, row, strict=True):
                    if type(value) is bytes and name != "preview":
                        raise BadInput(
                            f"The database {str(self.path)!r} is not as a dambench wrote it: {display(name)} is bytes. "
                            "`dambench db check` tells more."
                        )
        return names, rows
