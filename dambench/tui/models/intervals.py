"""Intervals: the means of a column drawn over each other, each with its interval and its sets."""

import math
from collections.abc import Callable

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from dambench.report import wording
from dambench.report.quantities import TableView, by_seed
from dambench.report.wording import ONLY
from dambench.store.cells import Cell, Key

LONGEST_NAME = 30
LEAST_BAR = 16


def lines(view: TableView, column: Key, width: int, *, ascii_: bool, said: Callable[[str], str] = str) -> list[Text]:
    """A line for each row of the table that has a cell there, and below them the ends of the scale.

    Args:
        said: puts in place of signs those that the terminal has.
    """
    shown = [(row, cell) for row in view.table.rows if (cell := view.table.cells.get((row, column))) is not None]
    shown = [(row, cell) for row, cell in shown if math.isfinite(cell.mean)]
    if not shown:
        return [Text("Nothing was measured here yet.")]
    names = [said(wording.name(view.rows, row)) for row, _ in shown]
    numbers = [said(f"{entry.number} ({entry.n})") for _, cell in shown if (entry := wording.entry(cell))]
    name_width = min(LONGEST_NAME, max(map(cell_len, names)))
    number_width = max(map(cell_len, numbers))
    room = max(LEAST_BAR, width - name_width - number_width - 4)
    ends = [value for _, cell in shown for value in _values(cell)]
    low, high = min(ends), max(ends)
    made = []
    for (row, cell), name, number in zip(shown, names, numbers, strict=True):
        best = (row, column) in view.table.best
        line = Text(f"{set_cell_size(name, name_width)}  {set_cell_size(number, number_width)}  ", no_wrap=True)
        line.append(_bar(cell, low, high, room, ascii_=ascii_), "bold" if best else "")
        made.append(line)
    first, last = (wording.figure(shown[0][1].metric, value) for value in (low, high))
    scale = " " * (name_width + number_width + 4) + first + " " * max(1, room - len(first) - len(last)) + last
    return [*made, Text(scale, "dim", no_wrap=True)]


def _values(cell: Cell) -> list[float]:
    """What is drawn of a cell."""
    return [cell.mean, *_units(cell), *(cell.interval or ())]


def _units(cell: Cell) -> list[float]:
    """What the interval is over: the means of sets, or the networks on the only one."""
    values = cell.values if cell.unit == "network" else [mean for _, mean in by_seed(cell)]
    return [value for value in values if math.isfinite(value)]


def _bar(cell: Cell, low: float, high: float, width: int, *, ascii_: bool) -> str:
    left, line, right, mean, own = "|-|#o" if ascii_ else "├─┤┃○"

    def at(value: float) -> int:
        return round((width - 1) * ((value / 2 - low / 2) / (high / 2 - low / 2))) if high > low else 0

    bar = [" "] * width
    if cell.interval is not None:
        first, last = (at(end) for end in cell.interval)
        bar[first : last + 1] = [line] * (last - first + 1)
        bar[first], bar[last] = left, right
    for value in _units(cell):
        bar[at(value)] = own
    bar[at(cell.mean)] = mean
    return "".join(bar)


def legend(*, ascii_: bool) -> str:
    """What the signs of the bars are."""
    left, line, right, mean, own = "|-|#o" if ascii_ else "├─┤┃○"
    return (
        f"{left}{line}{right} 95 % interval over sets, {mean} their mean, {own} each set's mean; "
        f"{ONLY}: over networks, "
        f"{own} each network. Bold: the best and all not told from it."
    )
