"""Arranging: which rows and columns tables show, and in which order, as Compare and Report have them chosen."""

from collections.abc import Sequence
from dataclasses import replace

from dambench.report import wording
from dambench.report.arrangement import BEST, NAME, Arrangement, arranged, names_in
from dambench.report.document import DocumentQuery
from dambench.store.leaderboard import Leaderboard


def names_of(
    board: Leaderboard, rows: Sequence[str], columns: Sequence[str], arrangement: Arrangement, which: str
) -> list[str]:
    """The names of all rows, or columns, in their order, hidden ones among them.

    Args:
        which: `rows` or `columns`.
    """
    own = arranged(board, rows, columns, arrangement._replace(hide=()))
    axes = rows if which == "rows" else columns
    keys = [key for table in own.tables for key in (table.rows if which == "rows" else table.columns)]
    return list(dict.fromkeys(wording.name(axes, key) for key in keys))


def rearranged(arrangement: Arrangement, names: Sequence[str], shown: Sequence[str]) -> Arrangement:
    """An arrangement in which of these names the ones that were chosen are shown, in that order.

    Args:
        names: of all rows, or all columns, in the order that they had.
        shown: those that are chosen.
    """
    others = [name for name in arrangement.hide if name not in names]
    gone = [name for name in names if name not in shown]
    moved = [name for name in arrangement.first if name not in names]
    if list(shown) != [name for name in names if name in shown]:
        moved += shown
    elif any(name in arrangement.first for name in names):
        moved += [name for name in arrangement.first if name in names]
    return arrangement._replace(hide=(*others, *gone), first=tuple(moved))


def orders(columns: Sequence[str]) -> list[tuple[str, str]]:
    """Label and value of each order that rows can have.

    Args:
        columns: the names of the columns.
    """
    best = [(f"the best first, by {name}", f"{BEST}:{name}") for name in columns]
    return [("as they come", ""), ("by name", NAME), ("the best first, by the first column", BEST), *best]


def within(query: DocumentQuery, board: Leaderboard) -> DocumentQuery:
    """The same document without names of rows and columns that there are none of now: a command names no others."""
    names = {name for table in board.tables for name in names_in(table, query.rows, query.columns)}
    column = query.order.partition(":")[2]
    return replace(
        query,
        hide=tuple(name for name in query.hide if name in names),
        first=tuple(name for name in query.first if name in names),
        order=query.order if not column or column in names else "",
    )
