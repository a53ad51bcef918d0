"""The checksum of a finished run's results: whether the figures are still those that were measured.

SQLite has no checksums of what its pages hold: a bit that flips in a number, or a hand that changes it, goes unseen.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dambench.core import files
from dambench.store.rows import SqlRow

SCORE = (
    *("iteration", "network", "protocol_sha256", "repeat", "accuracy", "balanced_accuracy", "loss", "loss_state"),
    *("train_accuracy", "seconds", "peak_memory_bytes", "set_sha256"),
)

RUNS = "select number, id, config_sha256, dataset_sha256, set_sha256, results_sha256 from runs"
"""What the checksum is of: what was asked, of which data, and the set that came of it, …"""

SCORES = f"select run, {', '.join(SCORE)} from scores where final = 1"
"""… its scores, …"""

OTHERS = """
    select run, iteration, evaluator, subject, repeat, metric, value, state, protocol_sha256, seconds,
        peak_memory_bytes, set_sha256
    from measurements join evaluations using (run, iteration, evaluator, subject, repeat)
    where final = 1 and not (evaluator = 'accuracy'
        and metric in ('accuracy', 'balanced_accuracy', 'loss', 'train_accuracy'))
"""
"""… and what else was measured; runs of up to schema 5 have nothing of it."""

Query = Callable[..., list[SqlRow]]


def checksum(query: Query, number: int) -> str:
    """SHA-256 over all that was measured of one run's result, as the database has it."""
    (run,) = query(f"{RUNS} where number = ?", number)
    return _checksum(run, query(f"{SCORES} and run = ?", number), query(f"{OTHERS} and run = ?", number))


def _checksum(run: Mapping[str, Any], scores: Iterable[Mapping[str, Any]], others: Iterable[Mapping[str, Any]]) -> str:
    facts = [run["config_sha256"], run["dataset_sha256"], run["set_sha256"]]
    rows, more = (sorted(_without_run(row) for row in part) for part in (scores, others))
    return files.digest(json.dumps([facts, rows, *([more] if more else [])]).encode())


def _without_run(row: Mapping[str, Any]) -> list[Any]:
    return [value for name, value in row.items() if name != "run"]


def damaged(query: Query, condition: str, values: Sequence[Any] = (), order: str = "number") -> dict[int, str]:
    """The runs whose results are not those of their checksum: number → id.

    Args:
        condition: on `runs`, which are finished ones. Those that finished before there were checksums have none.
        order: of what comes back, in SQL.
    """
    numbers = f"(select number from runs where results_sha256 != '' and {condition})"
    parts: list[dict[int, list[Mapping[str, Any]]]] = []
    for sql in (SCORES, OTHERS):
        parts.append({})
        for row in query(f"{sql} and run in {numbers}", *values):
            parts[-1].setdefault(row["run"], []).append(row)
    return {
        run["number"]: run["id"]
        for run in query(f"{RUNS} where number in {numbers} order by {order}", *values)
        if _checksum(run, *(part.get(run["number"], []) for part in parts)) != run["results_sha256"]
    }
