"""Lines: a pane of text that repaints only what has changed. What all moving parts of a screen are made of."""

from collections.abc import Callable, Sequence
from typing import Any

from rich.cells import cell_len
from rich.segment import Segment
from rich.text import Text
from textual.content import Content
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from dambench.tui.resilient import Resilient


class Lines(Resilient, Widget):
    """Text, a line for a line; what is too long or too much is cut off.

    `Static.update` repaints all of a widget: on a slow line that is a key press that is answered late.
    """

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self._lines: list[Text] = []
        self._titles = "", ""
        self.painter: Callable[[], None] | None = None
        """Called when the pane has another size."""

    def on_resize(self) -> None:
        if self.painter:
            self.painter()

    @property
    def lines(self) -> list[Text]:
        return self._lines

    def entitle(self, title: str, subtitle: str = "") -> None:
        """Say what this is, on the border. (Textual would repaint all of it also for the same title.)"""
        if self._titles != (title, subtitle):
            self._titles = title, subtitle
            self.border_title, self.border_subtitle = Content(title), Content(subtitle)

    def show_whole(self, text: Sequence[Text], width: int) -> None:
        """Show a text broken to that width, as high as that is; nothing is no pane."""
        lines = [piece for line in text for piece in line.wrap(self.app.console, width)]
        self.show(lines)
        if self.display != bool(lines) or self.styles.height is None or self.styles.height.value != len(lines):
            self.display = bool(lines)
            self.styles.height = max(1, len(lines))

    def show(self, lines: Sequence[Text]) -> None:
        """Show these lines instead of the ones before."""
        before, self._lines = self._lines, list(lines)
        blank = Text()
        for y in range(min(max(len(before), len(lines)), self.size.height)):
            old = before[y] if y < len(before) else blank
            new = self._lines[y] if y < len(self._lines) else blank
            if old != new or old.style != new.style:
                begin, end = changed(old, new)
                if begin < self.size.width:
                    self.refresh(Region(begin, y, min(end, self.size.width) - begin, 1))

    def render_line(self, y: int) -> Strip:
        style = self.rich_style
        if y >= len(self._lines):
            return Strip.blank(self.size.width, style)
        segments = self._lines[y].render(self.app.console)
        strip = Strip(Segment(segment.text, style + (segment.style or style)) for segment in segments)
        return strip.adjust_cell_length(self.size.width, style)


def cut(lines: Sequence[Text], width: int, height: int, more: str) -> list[Text]:
    """As many lines as there is room for; where some are left out, the last one ends in a sign that says so."""
    if len(lines) <= height:
        return list(lines)
    *kept, last = (line.copy() for line in lines[: max(1, height)])
    last.rstrip()
    room = max(0, width - cell_len(more) - 1)
    if last.cell_len > room:  # half a number would be another one
        last.truncate(room + 1)
        last = last[: max(0, last.plain.rfind(" "))]
    return [*kept, last.append(f" {more}")]


def changed(old: Text, new: Text) -> tuple[int, int]:
    """The columns from which and up to which two lines differ."""
    before, after = _cells(old), _cells(new)
    length = max(len(before), len(after))
    before += [(" ", "")] * (length - len(before))
    after += [(" ", "")] * (length - len(after))
    differ = [column for column in range(length) if before[column] != after[column]]
    return (differ[0], differ[-1] + 1) if differ else (0, length)


def _cells(line: Text) -> list[tuple[str, str]]:
    """Character and style of each column; a wide character has two."""
    styles = [str(line.style)] * len(line.plain)
    for span in line.spans:
        for index in range(span.start, min(span.end, len(styles))):
            styles[index] += f";{span.style}"
    cells: list[tuple[str, str]] = []
    for character, style in zip(line.plain, styles, strict=True):
        if not cell_len(character) and cells:  # it stands above the one before
            cells[-1] = cells[-1][0] + character, style
        cells += [(character, style)] * cell_len(character)
    return cells
