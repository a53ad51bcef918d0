"""What figures take from cells: the mean and the interval that tables print, in the same unit."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dambench.core.sanitize import display
from dambench.report import names
from dambench.report.wording import ONLY
from dambench.store.cells import Cell
from dambench.store.leaderboard import Leaderboard, Table
from dambench.store.metrics import MetricRow

INTERVAL = "Bars are 95 % confidence intervals, Student's t over sets of different seeds"


@dataclass(frozen=True)
class Value:
    """A cell to be drawn, in percent where the metric is a fraction."""

    mean: float
    low: float | None
    """The interval; None: there is none."""
    high: float | None
    source: bool
    """Whether it is on the network that the set was matched on."""
    only: bool
    """Whether it is about one set, whose networks the interval is over."""


def scale(metric: MetricRow) -> float:
    """By what a value is multiplied, as tables do."""
    return {"fraction": 100.0, "bytes": 1e-9}.get(metric.unit, 1.0)


def value_of(cell: Cell) -> Value | None:
    """What is drawn of a cell; None: its mean is no number."""
    if not math.isfinite(cell.mean):
        return None
    by = scale(cell.metric)
    low, high = (None, None) if cell.interval is None else (by * cell.interval.low, by * cell.interval.high)
    return Value(by * cell.mean, low, high, all(score.source for score in cell.scores), cell.unit == "network")


def is_whole(cells: Iterable[Cell]) -> bool:
    """Whether a row is of the whole training set, which has no IPC."""
    return all(score.base_method == "whole" for cell in cells for score in cell.scores)


def methods(board: Leaderboard) -> list[str]:
    """The rows of all tables, in the order of the names, then in that of the tables."""
    found = dict.fromkeys(str(row[0]) for table in board.tables for row in table.rows)
    order = {method: number for number, method in enumerate(found)}
    return sorted(found, key=lambda method: (names.current.get().place("method", method), order[method]))


def titles(tables: Sequence[Table]) -> tuple[list[str], str]:
    """Name what tells each table from the others; and what all share, for the caption."""
    axes = [axis for axis in tables[0].fixed if tables[0].fixed[axis] is not None]
    different = [axis for axis in axes if len({table.fixed[axis] for table in tables}) > 1]
    own = [
        ", ".join(display(names.shown(axis, value)) for axis in different if (value := table.fixed[axis]) is not None)
        for table in tables
    ]
    prefix = {"protocol": "protocol ", "network": "trained network "}
    shared = ", ".join(
        prefix.get(axis, "") + display(names.shown(axis, value))
        for axis in axes
        if axis not in different and (value := tables[0].fixed[axis]) is not None
    )
    return own, shared


def about_intervals(values: Sequence[Value]) -> list[str]:
    """Sentences on the bars of these values."""
    notes = [f"{INTERVAL}."] if any(value.low is not None and not value.only for value in values) else []
    if any(value.only for value in values):
        notes.append(f"{ONLY}: about one set only, the bars are over its networks.")
    if any(value.low is None for value in values):
        notes.append("Hollow: of one set, which gives no interval.")
    return notes


def marked(method: str, values: Sequence[Value]) -> str:
    """The name of a method in a legend, with the sign of those that are about one set only."""
    return names.of("method", method) + (ONLY if values and all(value.only for value in values) else "")
