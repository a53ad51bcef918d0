"""The tables of a database as the records of its log change them."""

import json
from typing import Any

import msgspec

from dambench.core.events import (
    AnyEvent,
    Checkpointed,
    Cost,
    Evaluated,
    Failed,
    Finished,
    Measured,
    Previewed,
    Process,
    Progressed,
    Resumed,
    Sampled,
    Snapshot,
    Started,
    Stepped,
    Stopped,
)
from dambench.core.sanitize import display
from dambench.store import final_scores, queue_tables, records
from dambench.store.connection import Database
from dambench.store.records import (
    AttemptSuperseded,
    EventLogged,
    LogRecord,
    QueueEdited,
    QueueTaken,
    RunCreated,
    RunEdited,
    RunsQueued,
    WorkerSeen,
)
from dambench.store.results import checksum
from dambench.store.rows import SqlRow

CHECKPOINTS = 2
"""How many of a run are kept."""

PREVIEWS = 20
"""How many of a run are kept, besides those of its sets."""


class Tables:
    """Applies records, within a transaction of the caller's."""

    def __init__(self, db: Database):
        self.db = db

    def query(self, sql: str, *values: Any) -> list[SqlRow]:
        return [dict(row) for row in self.db.conn.execute(sql, values).fetchall()]

    def execute(self, sql: str, *values: Any) -> None:
        self.db.conn.execute(sql, values)

    def apply(self, record: LogRecord) -> None:
        """Within a transaction."""
        match record:
            case RunCreated():
                self._insert_run(record)
            case EventLogged():
                self._insert_event(record)
            case RunEdited(uid=uid, what="tag", value=tag):
                self.db.conn.execute("insert or ignore into tags select ?, number from runs where uid = ?", [tag, uid])
            case RunEdited(uid=uid, what="untag", value=tag):
                mine = "(select number from runs where uid = ?)"
                self.db.conn.execute(f"delete from tags where tag = ? and run = {mine}", [tag, uid])
            case RunEdited(uid=uid, what=what, value=value):
                self.db.conn.execute(f"update runs set {what} = ? where uid = ?", [value, uid])
            case RunsQueued() | QueueTaken() | QueueEdited() | WorkerSeen():
                queue_tables.apply(self.db, record)

    def _insert_run(self, created: RunCreated) -> None:
        config, card, protocol, process = created.config, created.card, created.config.protocol, created.process
        self.insert(
            "insert or ignore into",
            "protocols",
            {
                "sha256": protocol.sha256,
                "name": protocol.name,
                "version": protocol.version,
                "definition": msgspec.json.encode(protocol).decode(),
            },
        )
        self.insert(
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
            run_id = records.new_id()
        number = self.insert(
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
                "age": created.age or created.at,
                "purpose": created.purpose,
                "config": msgspec.json.encode(config).decode(),
                "config_sha256": config.sha256,
                "dataset_sha256": card.sha256,
                "protocol_sha256": protocol.sha256,
                **process_columns(process),
                "beat_at": created.at,
            },
        )
        for tag in created.tags:
            self.insert("insert into", "tags", {"tag": tag, "run": number})

    def _insert_event(self, record: EventLogged) -> None:
        attempt = record.event.attempt - 1 if isinstance(record.event, Resumed) else record.attempt
        rows = self.query("select number from runs where uid = ? and attempt = ?", record.uid, attempt)
        if not rows:
            raise AttemptSuperseded
        number, event = int(rows[0]["number"]), record.event
        if isinstance(event, Sampled):
            self.add_sample(number, record.sequence, event)
            return
        self._apply_event(number, record, event)
        if isinstance(event, Progressed | Previewed):
            return  # only the latest matters, and the run's row has it; pictures have a table of their own
        if isinstance(event, Snapshot):
            event = msgspec.structs.replace(event, preview=b"")  # the artifact's row has it
        self.insert(
            "insert into",
            "events",
            {
                "run": number,
                "sequence": record.sequence,
                "at": record.at,
                "kind": type(event).__name__.lower(),
                "body": msgspec.json.encode(event).decode(),
            },
        )

    def _apply_event(self, number: int, record: EventLogged, event: AnyEvent) -> None:
        """Change the tables that people read, as an event says."""
        at = record.at
        if not isinstance(event, Progressed | Stepped):  # of which there are many
            self.update_run(number, beat_at=at)
        match event:
            case Resumed():
                self._resume(number, event)
            case Started():
                self.update_run(
                    number,
                    state="running",
                    total=event.config.iterations,
                    recipe=event.recipe,
                    overrides=msgspec.json.encode(event.overrides).decode(),
                )
                self.insert(
                    "insert into",
                    "environments",
                    {"run": number, **msgspec.structs.asdict(event.environment)},
                )
                for evaluator, metrics in event.metrics.items():
                    for name, metric in metrics.items():  # what is known of one stays: a run may come from anybody
                        row = {"evaluator": evaluator, "name": name, **msgspec.structs.asdict(metric)}
                        self.insert("insert or ignore into", "metrics", row)
            case Progressed():
                self.update_run(number, beat_at=at, phase=event.phase, done=event.done, total=event.total)
            case Stepped():
                self.update_run(number, beat_at=at, phase="distil", done=event.iteration)
            case Snapshot():
                row = {
                    "sha256": event.sha256,
                    "bytes": event.size_bytes,
                    "dtype": event.dtype,
                    "preview": event.preview,
                    "parts": msgspec.json.encode(event.parts).decode(),
                }
                shape = msgspec.json.encode(event.shape).decode()
                key = {"run": number, "iteration": event.iteration}
                self.insert("insert or replace into", "artifacts", {**key, **row, "shape": shape})
            case Previewed():
                row = {"run": number, "iteration": event.iteration, "preview": event.preview}
                self.insert("insert or replace into", "previews", row)
                self._thin_out_previews(number)
            case Evaluated():
                self._add_measurement(number, event.measured)
            case Measured():
                self._add_measurement(number, event)
            case Checkpointed():
                row = {"sha256": event.sha256, "bytes": event.size_bytes, "iteration": event.iteration}
                self.insert("insert into", "checkpoints", {"run": number, "sequence": record.sequence, **row})
                self.db.conn.execute(
                    "delete from checkpoints where run = ?1 and sequence not in "
                    "(select sequence from checkpoints where run = ?1 order by sequence desc limit ?2)",
                    [number, CHECKPOINTS],
                )
            case Finished():
                self.update_run(number, state="finished", phase="", ended_at=at, set_sha256=event.set_sha256)
                self.db.conn.execute("delete from checkpoints where run = ?", [number])
                self._add_costs(number, event.costs)
                self.update_run(number, results_sha256=checksum(self.query, number))
                final_scores.keep(self.db.conn, self.query, number)
            case Failed():
                self.update_run(
                    number,
                    state="failed",
                    ended_at=at,
                    error=event.error,
                    traceback=event.traceback,
                    diverged_at=event.diverged,
                )
                self._add_costs(number, event.costs)
            case Stopped():
                self.update_run(number, state="stopped", ended_at=at, error=f"stopped by {event.signal}")
                if event.phase == "distil":
                    self.update_run(number, done=event.iteration)
                self._add_costs(number, event.costs)

    def _resume(self, number: int, resumed: Resumed) -> None:
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
        self.update_run(
            number,
            state="running",
            attempt=resumed.attempt,
            **process_columns(resumed.process),
            phase="distil",
            done=max(0, resumed.iteration),
            total=config["method"].get("options", {}).get("iterations", 0),
            ended_at=None,
            error="",
            traceback="",
            diverged_at=None,
            stop_asked=0,
        )

    def _thin_out_previews(self, number: int) -> None:
        """Forget the preview that is closest to its neighbours: what stays tells the run from its beginning on."""
        rows = self.query("select iteration from previews where run = ? order by iteration", number)
        if len(rows) <= PREVIEWS:
            return
        iterations = [row["iteration"] for row in rows]
        index = min(range(1, len(iterations) - 1), key=lambda at: iterations[at + 1] - iterations[at - 1])
        self.db.conn.execute("delete from previews where run = ? and iteration = ?", [number, iterations[index]])

    def add_sample(self, number: int, sequence: int, sample: Sampled) -> None:
        row = {"run": number, "sequence": sequence} | msgspec.structs.asdict(sample)
        if sample.gpu_neighbours is not None:
            row["gpu_neighbours"] = msgspec.json.encode(sample.gpu_neighbours).decode()
        self.insert("insert into", "samples", row)

    def _add_measurement(self, number: int, event: Measured) -> None:
        """A resumed run may measure again what it had measured: the last time counts."""
        key = {
            "run": number,
            **{name: getattr(event, name) for name in ("iteration", "evaluator", "subject", "repeat")},
        }
        self.db.conn.execute(
            f"delete from evaluations where {' and '.join(f'{name} = ?' for name in key)}", list(key.values())
        )
        facts = ("protocol_sha256", "final", "seconds", "peak_memory_bytes", "set_sha256")
        self.insert("insert into", "evaluations", key | {name: getattr(event, name) for name in facts})
        for metric, value in event.values.items():
            row = {"value": None, "state": value} if isinstance(value, str) else {"value": value}
            self.insert("insert into", "measurements", key | {"metric": metric} | row)

    def _add_costs(self, number: int, costs: list[Cost]) -> None:
        for cost in costs:
            self.insert("insert or replace into", "costs", {"run": number, **msgspec.structs.asdict(cost)})

    def insert(self, verb: str, table: str, row: SqlRow) -> int:
        # Names come from this module and the schema alone; only values come from outside.
        marks = ", ".join("?" * len(row))
        cursor = self.db.conn.execute(f"{verb} {table} ({', '.join(row)}) values ({marks})", list(row.values()))
        return int(cursor.lastrowid or 0)

    def update_run(self, number: int, **values: Any) -> None:
        assignments = ", ".join(f"{name} = ?" for name in values)
        self.db.conn.execute(f"update runs set {assignments} where number = ?", [*values.values(), number])


def process_columns(process: Process) -> dict[str, Any]:
    """The columns of a run's row that say which process it is."""
    return {
        "host": process.host,
        "boot": process.boot,
        "pid": process.pid,
        "process_started": process.started,
        "log": process.log,
    }
