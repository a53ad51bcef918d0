"""Final scores of finished runs and what they took, a row for each run: a table of thousands of runs reads little else.

A row is a copy. It is made when the checksum of the run's results was just written or found right, in the same
transaction, and triggers take it away with whatever changes what it is of, whoever writes. A run without one is read
from the tables themselves, and its checksum is looked at: the same numbers, later. The row has a digest of its own,
since SQLite has none of its pages.

`revisions` counts what was written that a table of finished runs can depend on. What a running run logs is none of it.
"""

import json
import math
import sqlite3
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from dambench.core.files import digest
from dambench.store.results import damaged
from dambench.store.rows import SqlRow

Query = Callable[..., list[SqlRow]]


class FinalScore(Struct, frozen=True, array_like=True, gc=False):
    """A network trained on the result of a run."""

    subject: str
    repeat: int
    iteration: int
    protocol_sha256: str
    set_sha256: str
    finite: dict[str, float]
    """By metric; without the accuracies of single classes."""
    others: dict[str, str]
    """The metrics that were not finite, and how."""

    @property
    def values(self) -> dict[str, float]:
        """All of them; nan: it was not finite, and not infinite either."""
        if not self.others:
            return self.finite
        return self.finite | {name: as_number(state) for name, state in self.others.items()}


class Trained(Struct, frozen=True, array_like=True, gc=False):
    """What the networks of one kind took that were trained on the sets of a run, those on the way too."""

    seconds: float | None
    """Mean."""
    peak_memory_bytes: int | None


class Computed(Struct, frozen=True, array_like=True, gc=False):
    """With what a run was computed, and what that took; None: not known, or there was no such phase."""

    dambench: str
    torch: str
    device: str
    device_name: str
    threads: int
    distil_seconds: float | None
    distil_peak: int | None
    experts_seconds: float | None
    experts_trained: int
    """1: it trained some of its experts itself."""
    distil_joules: float | None
    evaluate_joules: float | None
    shared: int | None


class FinalScores(Struct, frozen=True, array_like=True, gc=False):
    """What a finished run has shown, and how."""

    trained: int
    """Networks, by whichever evaluator."""
    subjects: dict[str, dict[str, Trained]]
    """By evaluator and network."""
    scores: dict[str, list[FinalScore]]
    """By evaluator, in the order of repeats."""
    computed: Computed | None = None
    """None: nothing was said of it."""
    alike: str = ""
    """Digest of the configuration without its seed."""
    made: str = ""
    """The set that this run only evaluates, by its SHA-256; empty: it made its own."""


_KEY = ("run", "iteration", "evaluator", "subject", "repeat")

_WHAT = ("subject", "repeat", "iteration", "protocol_sha256", "set_sha256")

_DECODER = msgspec.json.Decoder(FinalScores)

_TABLES = """
-- A copy of the final scores of a finished run, for tables of thousands: made when the checksum of its results was
-- found right, taken away by whatever changes them. Read `scores` or `results` instead.
create table finals (
    run integer primary key references runs on delete cascade,
    body text not null,                -- JSON
    sha256 text not null               -- of the body
) strict;

-- How often something was written that a table of finished runs can depend on.
create table revisions (
    name text primary key,
    number integer not null
) strict, without rowid;

insert into revisions values ('finished', 0);

create index artifacts_by_size on artifacts (sha256, parts);

drop index artifacts_by_sha256;

create index runs_by_standing on runs (deleted_at, purpose, state)
"""

_COUNT = "update revisions set number = number + 1 where name = 'finished';"

_FINISHED = "exists (select 1 from runs where number = {row}.run and state = 'finished')"

_SHOWN = (
    *("id", "name", "state", "method", "dataset", "ipc", "network", "protocol", "seed", "overrides", "recipe"),
    *("set_sha256", "error", "traceback", "created_at", "ended_at", "config", "config_sha256", "dataset_sha256"),
    *("protocol_sha256", "uid", "deleted_at", "note", "diverged_at", "results_sha256", "age", "purpose"),
)
"""Columns of a run that a table may depend on: all but what changes while it runs, and its process."""

_MEANT = ("state", "config", "config_sha256", "dataset_sha256", "set_sha256", "results_sha256")
"""Columns of a run that its copy depends on."""

_COPIED = ("evaluations", "measurements", "costs", "environments", "events")
"""The other tables that it is made of."""

_EXPERTS = "({row}.kind = 'warned' and {row}.body like '% experts of %')"
"""What is copied of events."""


def make(conn: sqlite3.Connection) -> None:
    """Add the tables to a database of schema 8, with the triggers that keep them right, and fill them."""
    for statement in _TABLES.split(";\n\n"):
        conn.execute(statement)
    for statement in TRIGGERS:
        conn.execute(statement)

    if not conn.execute("pragma database_list").fetchone()[2]:
        return  # a file of an older schema is looked at in memory, once: copies would take as long as they save

    def query(sql: str, *values: Any) -> list[SqlRow]:
        cursor = conn.execute(sql, values)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    broken = damaged(query, "runs.state = 'finished'")
    numbers = [row["number"] for row in query("select number from runs where state = 'finished'")]
    for number, scores in from_tables(query, [number for number in numbers if number not in broken]).items():
        _write(conn, number, scores)


def _triggers() -> list[str]:
    made = [
        f"CREATE TRIGGER finals_of_runs after update of {', '.join(_MEANT)} on runs "
        "begin delete from finals where run = new.number; end",
        f"CREATE TRIGGER revisions_of_runs after update of {', '.join(_SHOWN)} on runs begin {_COUNT} end",
        *(
            f"CREATE TRIGGER revisions_{verb}_runs after {verb} on runs begin {_COUNT} end"
            for verb in ("insert", "delete")
        ),
    ]
    for verb, row in (("insert", "new"), ("delete", "old"), ("update", "new")):
        for table in (*_COPIED, "artifacts"):
            told, when = "", _FINISHED.format(row=row)
            if verb == "update":
                when = f"({when} or {_FINISHED.format(row='old')})"
            if table == "events":  # of which tables tell this alone
                told = _EXPERTS.format(row=row)
                told = f"({told} or {_EXPERTS.format(row='old')})" if verb == "update" else told
                when = f"{told} and {when}"
            if table in _COPIED:
                moved = " delete from finals where run = old.run;" if verb == "update" else ""
                made.append(
                    f"CREATE TRIGGER finals_{verb}_{table} after {verb} on {table} {f'when {told} ' if told else ''}"
                    f"begin delete from finals where run = {row}.run;{moved} end"
                )
            made.append(
                f"CREATE TRIGGER revisions_{verb}_{table} after {verb} on {table} when {when} begin {_COUNT} end"
            )
        for table in ("tags", "datasets", "protocols", "metrics"):
            made.append(f"CREATE TRIGGER revisions_{verb}_{table} after {verb} on {table} begin {_COUNT} end")
    return made


TRIGGERS = tuple(_triggers())
"""The only ones that a database of dambench has, as SQLite spells them."""


def keep(conn: sqlite3.Connection, query: Query, number: int) -> None:
    """Copy the scores of a run whose results just got their checksum."""
    _write(conn, number, from_tables(query, [number])[number])


def _write(conn: sqlite3.Connection, number: int, scores: FinalScores) -> None:
    body = msgspec.json.encode(scores)
    conn.execute("insert or replace into finals values (?, ?, ?)", [number, body.decode(), digest(body)])


def revision(query: Query) -> int:
    """How often something was written that a table of finished runs can depend on."""
    return int(query("select number from revisions where name = 'finished'")[0]["number"])


def read(rows: Collection[tuple[int, str | None, str | None]]) -> dict[int, FinalScores]:
    """The copies that there are, and are whole.

    Args:
        rows: number, body and digest of runs.
    """
    found = {}
    for number, body, sha256 in rows:
        if body is None:
            continue
        text = body.encode()
        if digest(text) == sha256:
            try:
                found[number] = _DECODER.decode(text)
            except msgspec.MsgspecError:
                continue  # somebody has written it who knows no better
    return found


def faults(query: Query) -> list[str]:
    """The runs whose copy is not what the tables hold, by id."""
    rows = query("select run, id, body, finals.sha256 from finals left join runs on number = run order by run")
    copies = read([(row["run"], row["body"], row["sha256"]) for row in rows])
    true = from_tables(query, list(copies))
    wrong = (row for row in rows if row["run"] not in copies or copies[row["run"]] != true[row["run"]])
    return [str(row["id"] or f"number {row['run']}") for row in wrong]


def missing_triggers(query: Query) -> list[str]:
    """The triggers that somebody has taken away or written anew, by name."""
    there = {row["sql"] for row in query("select sql from sqlite_master where type = 'trigger'")}
    return [sql.split()[2] for sql in TRIGGERS if sql not in there]


def from_tables(query: Query, numbers: Collection[int]) -> dict[int, FinalScores]:
    """Read the final scores of runs from the tables that have them, as what is copied has them."""
    asked = json.dumps(sorted(numbers))
    found: dict[int, FinalScores] = {number: FinalScores(0, {}, {}) for number in numbers}
    values: dict[tuple[Any, ...], tuple[dict[str, float], dict[str, str]]] = {}
    for row in query(
        """
        select run, iteration, evaluator, subject, repeat, metric, value, state
        from evaluations join measurements using (run, iteration, evaluator, subject, repeat)
        where final = 1 and run in (select value from json_each(?)) and metric not glob 'class_*'
        order by run, iteration, evaluator, subject, repeat, metric
        """,
        asked,
    ):
        key = tuple(row[name] for name in _KEY)
        finite, others = values.setdefault(key, ({}, {}))
        mine: Mapping[str, Any] = finite if row["value"] is not None else others
        assert isinstance(mine, dict)
        mine[row["metric"]] = row["state"] if row["value"] is None else row["value"]
    for row in query(
        """
        select run, evaluator, subject, repeat, iteration, protocol_sha256, set_sha256 from evaluations
        where final = 1 and run in (select value from json_each(?)) order by run, repeat, iteration, evaluator, subject
        """,
        asked,
    ):
        key = tuple(row[name] for name in _KEY)
        finite, others = values.get(key, ({}, {}))
        one = FinalScore(**{name: row[name] for name in _WHAT}, finite=finite, others=others)
        found[row["run"]].scores.setdefault(row["evaluator"], []).append(one)
    for row in query(
        """
        select run, evaluator, subject, count(*) as trained, avg(seconds) as seconds, max(peak_memory_bytes) as peak
        from evaluations where run in (select value from json_each(?)) group by run, evaluator, subject
        """,
        asked,
    ):
        before = found[row["run"]]
        subjects = before.subjects
        subjects.setdefault(row["evaluator"], {})[row["subject"]] = Trained(row["seconds"], row["peak"])
        found[row["run"]] = msgspec.structs.replace(before, trained=before.trained + row["trained"])
    for row in query(_COMPUTED, asked):
        number, config = row.pop("number"), json.loads(row.pop("config"))
        config.pop("seed", None)
        found[number] = msgspec.structs.replace(
            found[number],
            computed=None if row["dambench"] is None else Computed(**row),
            alike=digest(json.dumps(config, sort_keys=True).encode()),
            made=str(config.get("where", {}).get("made") or ""),
        )
    return found


_COMPUTED = """
select runs.number, config, dambench, torch, device, device_name, threads,
    distil.seconds as distil_seconds, distil.peak_memory_bytes as distil_peak, experts.seconds as experts_seconds,
    experts.seconds is not null and exists (select 1 from events where events.run = runs.number
        and kind = 'warned' and json_extract(body, '$.message') like '% experts of % are trained, for %'
    ) as experts_trained,
    distil.joules as distil_joules, evaluate.joules as evaluate_joules,
    max(coalesce(distil.shared, evaluate.shared), coalesce(evaluate.shared, distil.shared)) as shared
from runs
    left join environments on environments.run = runs.number
    left join costs as distil on distil.run = runs.number and distil.phase = 'distil'
    left join costs as evaluate on evaluate.run = runs.number and evaluate.phase = 'evaluate'
    left join costs as experts on experts.run = runs.number and experts.phase = 'experts'
where runs.number in (select value from json_each(?))
"""


def as_number(state: str) -> float:
    """A value that is not finite."""
    return float(state) if state in ("inf", "-inf") else math.nan
