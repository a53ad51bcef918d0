"""Runs in groups by any keys of their configurations, with the mean of each group that has one."""

from collections.abc import Sequence
from typing import Any

from dambench.core.sanitize import display
from dambench.report import wording
from dambench.report.labels import MISSING
from dambench.report.parts import Part, Records, Section, finite
from dambench.report.wording import TableEntry
from dambench.store.grouping import RunGroup
from dambench.store.leaderboard import Leaderboard


def parts(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> list[Part]:
    """One table: a line for each group, and below it for those in it; none where no keys were asked for."""
    groups = [one for group in board.groups for one in group.below()]
    if not groups:
        return []
    by = ", ".join(key for key, _ in max(groups, key=lambda one: len(one.path)).path)
    label = wording.metric_label(board.metric)
    notes = [
        f"Cells are {wording.SHORT}. Only what differs in the seed alone has a mean: a group of several methods, "
        "datasets, IPCs, networks or protocols says so in its place."
    ]
    lines = [(name(one), [entry(one), TableEntry(spread(one)), TableEntry(str(len(one.runs)))]) for one in groups]
    return [Part(f"{label} of runs by {display(by)}", [display(by), label, "spread", "runs"], lines, notes)]


def name(group: RunGroup) -> str:
    """`digits / 1 / dm`."""
    return " / ".join(display(value) for _, value in group.path)


def entry(group: RunGroup) -> TableEntry:
    """The mean of a group, or what it mixes."""
    return TableEntry(f"{MISSING} ({group.mixed})") if group.cell is None else wording.entry(group.cell)


def spread(group: RunGroup) -> str:
    """`between sets 5.6, within a set 1.3`."""
    return MISSING if group.cell is None else wording.spread(group.cell)


def records(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> Records:
    """One for each group; of one that has no mean, what it mixes."""
    head = ["depth", "key", "value", "group", board.metric.name, "low", "high", "sets", "networks", "unit"]
    head += ["std_between_sets", "std_within_set", "mixed", "runs"]
    lines = []
    for one in (one for group in board.groups for one in group.below()):
        cell = one.cell
        figures: list[Any] = [None] * 8
        if cell is not None:
            figures = [finite(cell.mean), *(cell.interval or (None, None)), cell.sets, cell.networks, cell.unit]
            figures += [cell.spread.between_std, cell.spread.within_std]
        lines.append([len(one.path), *one.path[-1], name(one), *figures, one.mixed, " ".join(one.runs)])
    return Records(head, lines)


SECTION = Section("runs in groups by the keys of --group, with the mean of each", parts, records, usual=False)
