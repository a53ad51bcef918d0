"""Grid: a table of cells, one of which the keys are on. The names of the rows stay where they are."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.color import Color
from textual.events import Click, MouseScrollDown, MouseScrollUp, Resize
from textual.geometry import Offset, Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from dambench.tui import keys
from dambench.tui.models.comparison import Contents
from dambench.tui.resilient import Resilient
from dambench.tui.terminal.ascii_filter import plain, spelled
from dambench.tui.widgets.jump import Target

GAP = 1
SIGNS = 3
"""Cells of a column beside its texts: the cursor before them; a star and a mark after."""

LONGEST_NAME = 34

HEAT_SIGNS, HEAT_SIGNS_ASCII = " ▁▂▃▄▅▆▇█", " 12345678"
"""By degree: no meaning is in a colour alone."""

WARM = Color(0, 114, 178)
"""The colour of the best means, which others have less of; all eyes tell it from the background."""


class Grid(Resilient, Widget, can_focus=True):
    """Draws it, a line at a time.

    Args:
        ascii_: draw nothing but ASCII signs.
    """

    BINDINGS: ClassVar[list[BindingType]] = keys.named(
        keys.ROWS,
        [
            Binding("up,k", "go(-1, 0)", "Up", show=False),
            Binding("down,j", "go(1, 0)", "Down", show=False),
            Binding("left,h", "go(0, -1)", "Left", show=False),
            Binding("right,l", "go(0, 1)", "Right", show=False),
            Binding("g", "go(-999999, 0)", "First row", show=False),
            Binding("G", "go(999999, 0)", "Last row", show=False),
            Binding("home", "go(0, -999999)", "First column", show=False),
            Binding("end", "go(0, 999999)", "Last column", show=False),
            Binding("ctrl+d", "go(10, 0)", "Ten down", show=False),
            Binding("ctrl+u", "go(-10, 0)", "Ten up", show=False),
        ],
    )

    row: reactive[int] = reactive(0, repaint=False)
    column: reactive[int] = reactive(0, repaint=False)

    class CellHighlighted(Message):
        """The keys are on another cell."""

    def __init__(self, *, ascii_: bool = False, id: str | None = None):
        super().__init__(id=id)
        self._ascii = ascii_
        self.contents = Contents([], [], [], [])
        self.marks: set[tuple[int, int]] = set()
        """Row and column of cells that are marked."""
        self._top = 0
        self._first = 0
        """The first column that is on the screen."""

    def show(self, contents: Contents, marks: set[tuple[int, int]]) -> None:
        """Draw this."""
        if self._ascii:
            contents = in_ascii(contents)
        if contents == self.contents and marks == self.marks:
            return
        before = self.full_height()
        self.contents, self.marks = contents, set(marks)
        self.row = min(self.row, max(0, len(contents.names) - 1))
        self.column = min(self.column, max(0, len(contents.heads) - 1))
        self._follow()
        self.refresh(layout=self.full_height() != before)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return self.full_height()

    def on_click(self, event: Click) -> None:
        """Go to the cell; the screen goes to its row."""
        at = event.get_content_offset(self)
        row = -1 if at is None else at.y - self._head_lines() + self._top
        if at is None or not 0 <= row < len(self.contents.names):
            return
        end = self._name_width() + 2 + bool(self._first)
        for column, width in list(enumerate(self.widths()))[self._first :]:
            end += width + GAP
            if at.x < end:
                self.action_go(row - self.row, column - self.column)
                return

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        event.stop()
        self.action_go(1, 0)

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        event.stop()
        self.action_go(-1, 0)

    def jump_targets(self) -> Iterator[Target]:
        """The rows on the screen."""
        for row in range(self._top, len(self.contents.names)):
            at = self.content_region.offset + Offset(0, self._head_lines() + row - self._top)
            yield Target(at, partial(self._go_to, row))

    def _go_to(self, row: int) -> None:
        self.action_go(row - self.row, 0)

    def action_go(self, down: int, right: int) -> None:
        row = min(max(0, self.row + down), max(0, len(self.contents.names) - 1))
        column = min(max(0, self.column + right), max(0, len(self.contents.heads) - 1))
        if (row, column) == (self.row, self.column):
            return
        before, scrolled = self.row, (self._top, self._first)
        self.row, self.column = row, column
        self._follow()
        if scrolled != (self._top, self._first):
            self.refresh()
        else:
            for line in {before, row}:
                self._refresh_row(line)
        self.post_message(self.CellHighlighted())

    def _warm(self, degree: int) -> Style:
        """The background of a mean of this degree."""
        most = 0.7 if self.app.current_theme.dark else 0.4
        colour = self.background_colors[1].blend(WARM, most * degree / (len(HEAT_SIGNS) - 1))
        return Style(bgcolor=colour.rich_color)

    def _refresh_row(self, row: int) -> None:
        y = self._head_lines() + row - self._top
        self.refresh(Region(0, y, self.size.width, 1))

    def on_resize(self, event: Resize) -> None:
        self._follow()
        self.refresh()

    def _head_lines(self) -> int:
        return len(self.contents.corner) + 1

    def full_height(self) -> int:
        """The height at which everything is seen."""
        return self._head_lines() + len(self.contents.names) + len(self.contents.below)

    def _name_width(self) -> int:
        names = [*self.contents.corner, *self.contents.names, *(name for name, _ in self.contents.below)]
        most = LONGEST_NAME if self.size.width >= 100 else 24
        return min(most, max((cell_len(name) for name in names), default=0))

    def _signs(self) -> int:
        """Cells of a column beside its texts."""
        return SIGNS + 1 if self.contents.heat else SIGNS

    def widths(self) -> list[int]:
        """Cells of each column, with room for its signs."""
        widths = []
        for index, head in enumerate(self.contents.heads):
            texts = [*head, *(row[index] for row in self.contents.cells), *(b[index] for _, b in self.contents.below)]
            widths.append(max(map(cell_len, texts)) + self._signs())
        return widths

    def _follow(self) -> None:
        """See to it that the cell of the keys is seen."""
        lines = max(1, self.size.height - self._head_lines())
        if self.row < self._top:
            self._top = self.row
        # What stands below the last row is seen with it.
        last = len(self.contents.names) - 1
        bottom = self.row + (len(self.contents.below) if self.row == last else 0)
        # No line, and no column, stays empty that has something to show: there may be more room than before.
        self._top = min(self._top, max(0, last + len(self.contents.below) + 1 - lines))
        self._top = min(self.row, max(self._top, bottom - lines + 1))
        self._first = min(self._first, self.column)
        widths, room = [w + GAP for w in self.widths()], self.size.width - self._name_width() - 2
        while self._first < self.column and sum(widths[self._first : self.column + 1]) > room:
            self._first += 1
        while self._first > 0 and sum(widths[self._first - 1 :]) <= room:
            self._first -= 1

    def _visible_rows(self) -> str | None:
        """The rows that are on the screen, in words; None: all."""
        count, lines = len(self.contents.names), max(1, self.size.height - self._head_lines())
        last = min(count, self._top + lines)
        if self._top == 0 and lines >= count + len(self.contents.below):
            return None
        return f"{self._top + 1} to {last} of {count}"

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        base = self.rich_style
        contents = self.contents
        head = Style(bold=True)
        if not contents.heads:
            return Strip.blank(width, base)
        name_width = self._name_width()
        segments: list[Segment]
        at = y - self._head_lines() + self._top
        if y < len(contents.corner):
            segments = [Segment(f" {_fit(contents.corner[y], name_width)} ", base + head)]
            segments += self._across([h[y] for h in contents.heads], base + head, -1)
        elif y == len(contents.corner):
            rule = "-" if self._ascii else "─"
            rows = self._visible_rows()
            label = rule * name_width if rows is None else _fit(rows, name_width)
            segments = [Segment(f" {label} ", base)]
            segments += self._across([rule * (w - self._signs()) for w in self.widths()], base, -1)
        elif at < len(contents.names):
            segments = [Segment(f" {_fit(contents.names[at], name_width)} ", base)]
            segments += self._across(contents.cells[at], base, at)
        elif at - len(contents.names) < len(contents.below):
            name, texts = contents.below[at - len(contents.names)]
            quiet = base + Style(dim=True)
            segments = [Segment(f" {_fit(name, name_width)} ", quiet), *self._across(texts, quiet, -1)]
        else:
            return Strip.blank(width, base)
        return Strip(segments).adjust_cell_length(width, base)

    def _across(self, texts: Sequence[str], style: Style, row: int) -> list[Segment]:
        room = self.size.width - self._name_width() - 2
        segments: list[Segment] = []
        widths = self.widths()
        for index in range(self._first, len(texts)):
            width = widths[index]
            if width > room:
                break
            room -= width + GAP
            here = row == self.row and index == self.column and row >= 0
            marked, starred = (row, index) in self.marks, (row, index) in self.contents.stars
            text = texts[index] or ("-" if self._ascii else "–")
            shown = style + Style(bold=True) if starred else style
            heat = self.contents.heat.get((row, index), 0)
            if heat:
                shown += self._warm(heat)
            if here:
                shown += Style(reverse=True)
            segments.append(Segment((">" if self._ascii else "▐") if here else " ", style))
            signs = ("*" if starred else " ") + ("+" if marked else " ")
            if self.contents.heat:
                signs = (HEAT_SIGNS_ASCII if self._ascii else HEAT_SIGNS)[heat] + signs
            segments.append(Segment(" " * (width - self._signs() - cell_len(text)) + text + signs, shown))
            segments.append(Segment(" " * GAP, style))
        if self._first and segments:  # others are to the left
            segments.insert(0, Segment("<" if self._ascii else "…", style))
        if self._first + len(segments) // 3 < len(texts) and segments:
            segments[-1] = Segment(">" if self._ascii else "…", style)
        return segments


def in_ascii(contents: Contents) -> Contents:
    """The same texts in ASCII, before anything is measured: `+-` has a cell more than `±`."""

    def line(texts: Sequence[str]) -> list[str]:
        return [plain(spelled(text)) for text in texts]

    return Contents(
        corner=line(contents.corner),
        heads=[line(head) for head in contents.heads],
        names=line(contents.names),
        cells=[line(row) for row in contents.cells],
        stars=contents.stars,
        below=[(plain(name), line(texts)) for name, texts in contents.below],
        heat=contents.heat,
    )


def _fit(text: str, width: int) -> str:
    """Padded, or cut with an ellipsis."""
    return set_cell_size(text, width) if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"
