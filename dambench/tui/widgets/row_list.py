"""A list with a line per row and a cursor, of which only those lines are sent that can be seen and have changed."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.events import MouseScrollDown, MouseScrollUp
from textual.geometry import Offset, Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from dambench.tui import keys
from dambench.tui.resilient import Resilient
from dambench.tui.widgets.jump import Target

WHEEL = 3
"""Rows of a step of the wheel."""


class RowList(Resilient, Widget, can_focus=True):
    """Rows, a line each below a line of heads. Its kinds say how many there are, and draw them."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "runs--head",
        "runs--cursor",
        "runs--good",
        "runs--bad",
        "runs--odd",
        "runs--quiet",
    }
    BINDINGS: ClassVar[list[BindingType]] = keys.named(
        keys.ROWS,
        [
            Binding("down,j", "step(1)", "Down", show=False),
            Binding("up,k", "step(-1)", "Up", show=False),
            Binding("pagedown,ctrl+f", "page(2)", "Page down", show=False),
            Binding("pageup,ctrl+b", "page(-2)", "Page up", show=False),
            Binding("ctrl+d", "page(1)", "Half a page down", show=False),
            Binding("ctrl+u", "page(-1)", "Half a page up", show=False),
            Binding("home,g", "end(False)", "First run", show=False),
            Binding("end,G", "end(True)", "Last run", show=False),
        ],
    )

    def __init__(self, *, ascii_only: bool = False) -> None:
        super().__init__()
        self.at = 0
        """The index of the cursor."""
        self._ascii = ascii_only
        self._top = 0
        self._drawn: list[Strip] = []

    @property
    def count(self) -> int:
        """The number of rows."""
        raise NotImplementedError

    def highlighted(self) -> Message:
        """What is posted when the cursor has moved."""
        raise NotImplementedError

    def redraw(self) -> None:
        """Draw the lines that have changed."""
        raise NotImplementedError

    def action_step(self, by: int) -> None:
        self._go(self.at + by)

    def action_page(self, halves: int) -> None:
        self._go(self.at + halves * max(1, self._lines // 2))

    def action_end(self, last: bool) -> None:
        self._go(self.count - 1 if last else 0)

    def _go(self, at: int) -> None:
        at = max(0, min(at, self.count - 1))
        if at != self.at:
            self.at = at
            self.redraw()
            self.post_message(self.highlighted())

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        event.stop()
        self.action_step(WHEEL)

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        event.stop()
        self.action_step(-WHEEL)

    def jump_targets(self) -> Iterator[Target]:
        """The rows on the screen."""
        for row in range(self._top, min(self.count, self._top + self._lines)):
            yield Target(self.content_region.offset + Offset(0, 1 + row - self._top), partial(self._go, row))

    @property
    def _lines(self) -> int:
        """Rows for which there is room."""
        return max(1, self.size.height - 1)

    def _scroll(self) -> None:
        """See to it that the cursor is seen, and no line stays empty that has a row to show."""
        self._top = max(min(self._top, self.at, self.count - self._lines), self.at - self._lines + 1, 0)

    def _put(self, lines: Sequence[Strip]) -> None:
        """Have these on the screen: only lines that are other than before are sent."""
        blank = Strip.blank(self.size.width, self.rich_style)
        drawn = [*lines, *[blank] * (self.size.height - len(lines))]
        before, self._drawn = self._drawn, drawn
        if len(before) != len(drawn):
            self.refresh()
            return
        for y, (old, new) in enumerate(zip(before, drawn, strict=True)):
            if old != new:
                self.refresh(Region(0, y, self.size.width, 1))

    def render_line(self, y: int) -> Strip:
        return self._drawn[y] if y < len(self._drawn) else Strip.blank(self.size.width, self.rich_style)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._drawn = []
        self.redraw()
