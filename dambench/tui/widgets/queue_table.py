"""The list of queued runs."""

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from textual.message import Message
from textual.strip import Strip

from dambench.core.sanitize import display
from dambench.tui.models.columns import cell, plain
from dambench.tui.models.queue_page import STATES, QueueLine
from dambench.tui.widgets.row_list import RowList


class QueueTable(RowList):
    """Queued runs, a line each, in the order of their turn."""

    STYLES: ClassVar[dict[str, str]] = {"taken": "runs--good", "failed": "runs--bad", "paused": "runs--odd"}

    class Highlighted(Message):
        """The cursor is at another queued run."""

    def __init__(self, *, ascii_only: bool = False) -> None:
        super().__init__(ascii_only=ascii_only)
        self.lines: Sequence[QueueLine] = ()
        self.marks: set[str] = set()
        """The uids of those that are marked."""

    @property
    def line(self) -> QueueLine | None:
        """What is under the cursor."""
        return self.lines[self.at] if self.at < len(self.lines) else None

    def fill(self, lines: Sequence[QueueLine]) -> None:
        """Take in what was found; the cursor stays at its run as long as that is there."""
        before = self.line
        self.lines = lines
        self.at = max(0, min(self.at, len(lines) - 1))
        if before is not None:
            uids = [line.one.uid for line in lines]
            if before.one.uid in uids:
                self.at = uids.index(before.one.uid)
        self.marks &= {line.one.uid for line in lines}
        self.redraw()

    @property
    def count(self) -> int:
        return len(self.lines)

    def highlighted(self) -> Message:
        return self.Highlighted()

    def on_resize(self) -> None:
        self.redraw()

    def redraw(self) -> None:
        """Draw the lines that have changed."""
        if not self.size:
            return
        self._scroll()
        texts = [self._texts(line) for line in self.lines]
        heads = ["#", "STATE", "RUN", "WHAT", "SEED", "DEVICE", "WHEN", "WHY"]
        widths = (
            [max(len(head), *(len(row[i]) for row in texts)) for i, head in enumerate(heads)]
            if texts
            else [len(head) for head in heads]
        )
        # What it is gives way first, and why takes what is left.
        rest = self.size.width - 2 - sum(widths[:3]) - sum(widths[4:7]) - 7
        widths[3] = max(8, min(widths[3], rest - 12))
        widths[7] = max(0, rest - widths[3])
        style = self.rich_style
        head_style = style + self.get_component_rich_style("runs--head", partial=True)
        drawn = [Strip([Segment("  " + self._row(heads, widths), head_style)])]
        for index, row in enumerate(texts[self._top : self._top + self._lines], start=self._top):
            line, line_style = self.lines[index], style
            if index == self.at:
                line_style += self.get_component_rich_style("runs--cursor", partial=True)
            if kind := self.STYLES.get(line.one.state):
                line_style += self.get_component_rich_style(kind, partial=True)
            bar = (">" if self._ascii else "▌") if index == self.at else " "
            mark = "*" if line.one.uid in self.marks else " "
            drawn.append(Strip([Segment(f"{bar}{mark}{self._row(row, widths)}", line_style)]))
        self._put([strip.adjust_cell_length(self.size.width, style) for strip in drawn[: self.size.height]])

    def _texts(self, line: QueueLine) -> list[str]:
        one = line.one
        ipc = "" if one.ipc is None else f" IPC {one.ipc}"
        kind = "" if one.command == "run" else f"{one.command} "
        texts = [
            str(one.number),
            STATES.get(one.state, one.state),
            line.run or one.id,
            display(f"{kind}{one.method} {one.dataset}{ipc}", 80),
            "–" if one.seed is None else str(one.seed),
            display(one.device, 20) or "any",
            line.when,
            line.why,
        ]
        return [plain(text) for text in texts] if self._ascii else texts

    def _row(self, texts: Sequence[str], widths: Sequence[int]) -> str:
        right = (0, 4)
        return " ".join(
            cell(text, width, right=index in right, ascii_only=self._ascii)
            for index, (text, width) in enumerate(zip(texts, widths, strict=True))
        )
