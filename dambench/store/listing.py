"""Listing: runs in any order, page by page, and one of them at a glance. What a table of runs asks.

A page costs the same in a database of ten runs and of ten thousand: only the numbers of all runs are read, in their
order, which SQLite makes.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dambench.store.filters import ITERATION, NETWORK, Clause
from dambench.store.metrics import accuracies, course, latest_mean
from dambench.store.rows import ListedRun
from dambench.store.runs import EVALUATES, Store
from dambench.store.selection import selections
from dambench.store.statistics import Estimate, estimate

PEAK = "(select max(peak_memory_bytes) from costs where costs.run = runs.number)"
SECONDS = "(select sum(seconds) from costs where costs.run = runs.number)"
STEP = """(select body from events where events.run = runs.number and kind = 'stepped'
    order by sequence desc limit 1)"""

STATE = """
    case when runs.number in (select value from json_each(?)) then 0
    else instr('running waiting failed stopped finished', runs.state) end
"""

ORDERS = {
    "run": "runs.id",
    "state": STATE,
    "method": "runs.method",
    "dataset": "runs.dataset",
    "ipc": "runs.ipc",
    "network": NETWORK,
    "seed": "runs.seed",
    "accuracy": latest_mean(),
    "step": ITERATION,
    "age": "runs.age",
    "peak": PEAK,
    "took": SECONDS,
    "name": "runs.name",
    "note": "runs.note",
    "protocol": "runs.protocol",
    "host": "runs.host",
}
"""What runs can be sorted by, in SQL; age: as `Store.by_age` has it."""


def ordered(store: Store, only: Clause, order: str, *, down: bool, lost: Sequence[int] = ()) -> list[int]:
    """The numbers of all runs that meet a condition and are not in the trash, sorted; what is unknown comes last.

    Args:
        order: of ORDERS.
        lost: those that have no process any more: they come first, sorted by state.
    """
    values = [*only.values, *([json.dumps(list(lost))] if order == "state" else [])]
    direction = "desc" if down else "asc"
    # Many rows of one value each: no dict is made of them.
    by = f"{ORDERS[order]} {direction} nulls last, {store.by_age(newest_first=True)}"
    rows = store.db.conn.execute(
        f"select runs.number from runs where runs.deleted_at = '' and {only.sql} "
        f"order by {store.by_age(newest_first=down) if order == 'age' else by}",
        values,
    ).fetchall()
    return [row[0] for row in rows]


def page(store: Store, numbers: Sequence[int], stands: Mapping[int, str] | None = None) -> dict[int, ListedRun]:
    """Read what a table shows of these runs, by their numbers.

    Args:
        stands: how they really stand, where that is not what they say.
    """
    rows = store.query(
        f"""
        select runs.number, runs.uid, runs.id, runs.name, runs.state, runs.method, runs.overrides, runs.dataset,
            runs.ipc, {NETWORK} as network, runs.protocol, runs.seed, runs.phase, runs.done, runs.total,
            {ITERATION} as iteration, json_extract(runs.config, '$.method.options.iterations') as iterations,
            runs.created_at, runs.ended_at, runs.beat_at, runs.host, runs.boot, runs.pid, runs.process_started,
            runs.log, runs.attempt, runs.error, runs.diverged_at, runs.note, runs.config_sha256,
            {EVALUATES} as evaluates,
            (select json_group_array(tag) from tags where tags.run = runs.number) as tags,
            (select max(iteration) from checkpoints where checkpoints.run = runs.number) as checkpoint,
            {PEAK} as peak, {SECONDS} as seconds, {STEP} as step,
            json_extract(runs.config, '$.evaluate_every') as evaluate_every
        from runs where runs.number in (select value from json_each(?))
        """,
        json.dumps(list(numbers)),
    )
    estimates = accuracies(store, numbers)
    chosen = _validated(store, [row["id"] for row in rows if row.pop("evaluate_every")])
    listed = {}
    for row in rows:
        step = json.loads(row.pop("step") or "{}")
        row |= {
            "tags": sorted(json.loads(row["tags"])),
            "accuracy": estimates.get(row["number"]),
            "loss": next(iter(step.get("losses", {}).values()), None),
            "rate": step["iteration"] / step["seconds"] if step.get("seconds") else None,
            "peak": row["peak"] or step.get("memory_bytes") or None,
            "validated": chosen.get(row["id"]),
            "stands": (stands or {}).get(row["number"], row["state"]),
        }
        listed[row["number"]] = ListedRun(**row)
    return listed


def _validated(store: Store, runs: Sequence[str]) -> dict[str, Estimate]:
    """The accuracies of the first network on the sets that validation chose, of those runs that have them."""
    found = {}
    for run, selection in (selections(store, runs) if runs else {}).items():
        values = None
        if not selection.one_set and selection.first in selection.courses:
            values = selection.values(selection.first, "validation-selected")
        if values:
            found[run] = estimate(list(values.values()))
    return found


class RunGlance(NamedTuple):
    """The course of a run."""

    losses: list[float | None]
    """The first one it logs, at moments spread over the run; None: it was no number."""
    accuracies: list[Estimate]
    """After each iteration at which networks were trained."""
    rate: float | None
    """Iterations per second, lately."""


def glance(store: Store, number: int, points: int = 44) -> RunGlance:
    """Look at a run without reading all of it: its losses are read at so many moments."""
    (span,) = store.query("select min(sequence) first, max(sequence) last from events where run = ?", number)
    steps: dict[int, dict[str, Any]] = {}
    if span["last"] is not None:
        width = (span["last"] - span["first"]) / max(1, points - 1)
        moments = json.dumps(sorted({span["first"] + round(index * width) for index in range(points)}))
        rows = store.query(
            """
            select (select body from events where run = ? and sequence >= value and kind = 'stepped'
                order by sequence limit 1) as body
            from json_each(?)
            union all
            select (select body from events where run = ? and kind = 'stepped' order by sequence desc limit 1)
            """,
            number,
            moments,
            number,
        )
        for row in rows:
            if row["body"]:
                step = json.loads(row["body"])
                steps[step["iteration"]] = step
    logged = [steps[iteration] for iteration in sorted(steps)]
    losses = [next(iter(step["losses"].values()), None) for step in logged]
    rate = None
    if len(logged) > 1 and logged[-1]["seconds"] > logged[-2]["seconds"]:
        before, last = logged[-2:]
        rate = (last["iteration"] - before["iteration"]) / (last["seconds"] - before["seconds"])
    return RunGlance(
        losses=[loss if isinstance(loss, int | float) else None for loss in losses],
        accuracies=[estimate for _, estimate in course(store, number)],
        rate=rate,
    )
