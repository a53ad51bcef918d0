"""The table of runs: draws the lines that can be seen, and of those only the ones that have changed."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.message import Message
from textual.strip import Strip

from dambench.store.rows import ListedRun
from dambench.tui.models.columns import COLUMNS, cell, heads, layout, value
from dambench.tui.widgets.row_list import RowList

MARGIN = 2
"""Cells before the first column: the cursor and the mark."""


class RunsTable(RowList):
    """Runs, a line each, of which only those around the cursor are known."""

    STYLES: ClassVar[dict[str, str]] = {
        "running": "runs--good",
        "failed": "runs--bad",
        "lost": "runs--bad",
        "silent": "runs--odd",
        "stopped": "runs--odd",
        "waiting": "runs--quiet",
    }

    class RunHighlighted(Message):
        """The cursor is at another run."""

    def __init__(self, *, ascii_only: bool = False) -> None:
        super().__init__(ascii_only=ascii_only)
        self.numbers: Sequence[int] = ()
        """The numbers of all runs, in their order."""
        self.rows: Mapping[int, ListedRun] = {}
        self.marks: dict[int, str] = {}
        """By number, so that no other run of that number is taken for it, what is marked."""
        self.columns: list[str] = []
        self.chosen = False
        """These were chosen by hand."""
        self.left_out = 0
        """The number of them for which there is no room."""
        self.order, self.down = "age", True
        self._heads: dict[str, str] = {}
        self._layout: list[tuple[str, int]] = []

    @property
    def number(self) -> int | None:
        """The number of the run under the cursor."""
        return self.numbers[self.at] if self.at < len(self.numbers) else None

    @property
    def row(self) -> ListedRun | None:
        """The row of the run under the cursor, once it was read."""
        return None if self.number is None else self.rows.get(self.number)

    def fill(self, numbers: Sequence[int], rows: Mapping[int, ListedRun]) -> None:
        """Take in what was found; the cursor stays at its run as long as that is there."""
        before, line = self.number, self.at - self._top
        self.numbers, self.rows = numbers, rows
        self.at = max(0, min(self.at, len(numbers) - 1))
        if before is not None and before != self.number:
            with suppress(ValueError):
                self.at = numbers.index(before)
                # Whoever looks at the beginning sees what is new.
                self._top = max(0, self.at - line) if self._top else 0
        self.measure()

    def clear(self) -> None:
        """Know of no run any more."""
        self.marks.clear()
        self.at = self._top = 0
        self.fill((), {})

    def measure(self) -> None:
        """Give the columns their widths anew, and draw."""
        self._heads = heads(self.columns, self.order, down=self.down, ascii_only=self._ascii)
        room = self.size.width - MARGIN
        self._layout, self.left_out = layout(
            self._heads, self.rows.values(), room, ascii_only=self._ascii, chosen=self.chosen
        )
        self.redraw()

    @property
    def count(self) -> int:
        return len(self.numbers)

    def highlighted(self) -> Message:
        return self.RunHighlighted()

    @property
    def numbers_on_screen(self) -> list[int]:
        """The numbers of the runs that are on the screen."""
        return list(self.numbers[self._top : self._top + self._lines])

    def on_resize(self) -> None:
        self.measure()

    def redraw(self) -> None:
        """Draw the lines that have changed."""
        if not self.size:
            return
        self._scroll()
        if any(number not in self.rows for number in self.numbers_on_screen):
            return  # what is there stays until the rows have come
        self._put(
            [
                self._head(),
                *(self._line(index) for index in range(self._top, self._top + len(self.numbers_on_screen))),
            ]
        )

    def _head(self) -> Strip:
        parts = [cell(self._heads[name], width, right=COLUMNS[name].number) for name, width in self._layout]
        style = self.rich_style + self.get_component_rich_style("runs--head", partial=True)
        return self._strip([Segment(" " * MARGIN + " ".join(parts), style)], style)

    def _line(self, index: int) -> Strip:
        number = self.numbers[index]
        row, here = self.rows[number], index == self.at
        style = self.rich_style
        if here:
            style += self.get_component_rich_style("runs--cursor", partial=True)
        bar = (">" if self._ascii else "▌") if here else " "
        segments = [Segment(bar + ("*" if number in self.marks else " "), style)]
        for name, width in self._layout:
            text = value(name, row, ascii_only=self._ascii)
            cell_style = style
            if name == "state" and (kind := self.STYLES.get(row.stands)):
                cell_style += self.get_component_rich_style(kind, partial=True)
            segments.append(Segment(cell(text, width, right=COLUMNS[name].number, ascii_only=self._ascii), cell_style))
            segments.append(Segment(" ", style))
        return self._strip(segments, style)

    def _strip(self, segments: list[Segment], style: Style) -> Strip:
        return Strip(segments).adjust_cell_length(self.size.width, style)
