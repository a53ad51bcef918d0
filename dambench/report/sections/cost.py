"""What each method took: seconds and memory of distilling, and of training a network on the set."""

from collections.abc import Sequence
from dataclasses import fields

from dambench.report import wording
from dambench.report.parts import Part, Records, Section
from dambench.report.wording import TableEntry
from dambench.store.costs import MethodCost
from dambench.store.leaderboard import Leaderboard


def parts(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> list[Part]:
    """One table."""
    head, *lines = wording.cost_lines(board.costs)
    return [Part("What it took", head, [(name, [TableEntry(text) for text in line]) for name, *line in lines])]


def records(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> Records:
    """One for each method, column, trained network and device."""
    names = [field.name for field in fields(MethodCost)]
    return Records(names, [[getattr(cost, name) for name in names] for cost in board.costs])


SECTION = Section("what each method took in seconds and memory", parts, records)
