"""Arrangement: which rows and columns of the tables are shown, and in which order. It changes no number."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from dambench.core.errors import BadInput, unknown
from dambench.core.sanitize import display
from dambench.report import wording
from dambench.store.cells import Key
from dambench.store.leaderboard import Leaderboard, Table

NAME, BEST = "name", "best"
MOST_NAMES = 6


class Arrangement(NamedTuple):
    """What is hidden, what comes first, and how the other rows are ordered."""

    hide: tuple[str, ...] = ()
    """Names of rows and columns, as tables have them; `dm*`: all that begin so."""
    first: tuple[str, ...] = ()
    """Names of rows and columns, in the order in which they come before the others."""
    order: str = ""
    """The order of rows: `name`, `best` (of the first column), `best:COLUMN`; empty: as they come."""


def check(arrangement: Arrangement) -> None:
    """See that an order is one.

    Raises:
        BadInput: it is none.
    """
    kind, _, column = arrangement.order.partition(":")
    if arrangement.order and (kind not in (NAME, BEST) or (kind == NAME and column)):
        raise BadInput(
            f"--order {display(arrangement.order, 60)!r}: write name, best (of the first column), or best:COLUMN, such "
            "as 'best:digits IPC 1'."
        )


def arranged(
    board: Leaderboard, rows: Sequence[str], columns: Sequence[str], arrangement: Arrangement, *, strict: bool = False
) -> Leaderboard:
    """The board with its tables so arranged. What is hidden still counts in whatever is computed.

    Args:
        strict: a name must be that of a row or a column.

    Raises:
        BadInput: it is none, or nothing is left to be shown.
    """
    if arrangement == Arrangement() or not board.tables:
        return board
    if strict:
        _check_names(board, rows, columns, arrangement)
    tables = [_arranged(table, rows, columns, arrangement) for table in board.tables]
    left = [table for table in tables if table.rows and table.columns]
    if strict and not left:
        raise BadInput("--hide hides all rows, or all columns, of every table.")
    return replace(board, tables=left)


def names_in(table: Table, rows: Sequence[str], columns: Sequence[str]) -> Iterator[str]:
    """The names of a table's rows, then of its columns."""
    yield from (wording.name(rows, row) for row in table.rows)
    yield from (wording.name(columns, column) for column in table.columns)


def _check_names(board: Leaderboard, rows: Sequence[str], columns: Sequence[str], arrangement: Arrangement) -> None:
    names = list(dict.fromkeys(name for table in board.tables for name in names_in(table, rows, columns)))
    kind, _, column = arrangement.order.partition(":")
    for name in (*arrangement.hide, *arrangement.first, *([column] if kind == BEST and column else [])):
        if not any(_means(name, one) for one in names):
            raise unknown("row or column", name, names)


def _means(name: str, shown: str) -> bool:
    one, other = name.casefold().strip(), shown.casefold()
    return other.startswith(one[:-1]) if one.endswith("*") else one == other


def _arranged(table: Table, rows: Sequence[str], columns: Sequence[str], arrangement: Arrangement) -> Table:
    shown_rows, hidden_rows = _apart(table.rows, lambda key: wording.name(rows, key), arrangement.hide)
    shown_columns, hidden = _apart(table.columns, lambda key: wording.name(columns, key), arrangement.hide)
    shown_columns = _first(shown_columns, lambda key: wording.name(columns, key), arrangement.first)
    shown_rows = _ordered(table, shown_rows, shown_columns, rows, columns, arrangement.order)
    shown_rows = _first(shown_rows, lambda key: wording.name(rows, key), arrangement.first)
    notes = list(table.notes)
    if gone := [*hidden_rows, *hidden]:
        more = f" and {len(gone) - MOST_NAMES} more" if len(gone) > MOST_NAMES else ""
        notes.insert(0, f"Hidden, and still counted: {', '.join(gone[:MOST_NAMES])}{more}.")
    return replace(table, rows=shown_rows, columns=shown_columns, notes=notes)


def _apart(keys: Sequence[Key], name: Callable[[Key], str], hide: Sequence[str]) -> tuple[list[Key], list[str]]:
    """Those that are shown, and the names of the others."""
    named = [(key, name(key)) for key in keys]
    gone = {key for key, shown in named if any(_means(one, shown) for one in hide)}
    return [key for key in keys if key not in gone], [shown for key, shown in named if key in gone]


def _first(keys: Sequence[Key], name: Callable[[Key], str], first: Sequence[str]) -> list[Key]:
    """Some before the others, as their names come in `first`; else in the order that they had."""

    def place(key: Key) -> int:
        return next((number for number, one in enumerate(first) if _means(one, name(key))), len(first))

    return sorted(keys, key=place)


def _ordered(
    table: Table, keys: list[Key], shown: Sequence[Key], rows: Sequence[str], columns: Sequence[str], order: str
) -> list[Key]:
    kind, _, wanted = order.partition(":")
    if kind == NAME:
        return sorted(keys, key=lambda key: wording.name(rows, key).casefold())
    column = next((key for key in shown if not wanted or _means(wanted, wording.name(columns, key))), None)
    if kind != BEST or column is None:
        return keys
    sign = 1 if table.metric.better == "lower" else -1

    def place(row: Key) -> tuple[bool, float]:
        cell = table.cells.get((row, column))
        mean = math.nan if cell is None else cell.mean
        return not math.isfinite(mean), sign * mean if math.isfinite(mean) else 0.0

    return sorted(keys, key=place)
