"""Several: the runs that go on, or the marked ones, beside each other."""

import time
from collections.abc import Iterator
from functools import partial
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.geometry import Offset

from dambench.core.sanitize import counted
from dambench.tui import hints
from dambench.tui.feed import Question
from dambench.tui.main_screen import MainScreen
from dambench.tui.models.several import SeveralReader, SeveralRuns, beside, grid, small
from dambench.tui.terminal import refresh_rate
from dambench.tui.widgets.jump import Target, targets
from dambench.tui.widgets.lines import Lines


class SeveralScreen(MainScreen):
    """Several runs at once, a small chart each."""

    NAME: ClassVar[str] = "Several"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open", key_display="enter", tooltip="This run in Live"),
        Binding("right,l,tab", "step(1)", "Next", show=False),
        Binding("left,h,shift+tab", "step(-1)", "Before", show=False),
        Binding("down,j", "step_row(1)", "Below", show=False),
        Binding("up,k", "step_row(-1)", "Above", show=False),
        Binding("L", "logarithm", "Log y"),
        Binding("space", "freeze", "Freeze"),
        Binding("escape", "back", "Live", key_display="esc", tooltip="Back to one run"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._reader = SeveralReader()
        self._found: SeveralRuns | None = None
        self._at = 0
        """The run that the keys are on."""
        self._log = False
        self._frozen = False
        self._painted = 0.0

    def content(self) -> ComposeResult:
        yield Lines(id="runs")

    def on_mount(self) -> None:
        pane = self.query_one("#runs", Lines)
        pane.painter, pane.can_focus = self._paint, True
        self.set_focus(pane)

    def question(self) -> Question:
        return partial(self._reader.read, marked=self.console_app.marked())

    def forget(self) -> None:
        super().forget()
        self._reader, self._found = SeveralReader(), None
        self._paint()

    def show(self, answer: SeveralRuns | None) -> bool:
        first = self._found is None
        if not first and self._frozen:
            return True
        now = time.monotonic()
        every = refresh_rate.CHARTS * self.console_app.options.refresh
        if not first and (now - self._painted < every or refresh_rate.backlog(self.app)):
            return False
        self._found, self._painted = answer, now
        self._paint()
        return True

    def _paint(self) -> None:
        pane, found = self.query_one("#runs", Lines), self._found
        width, height = pane.size
        if found is None or not found.shown or not width:
            places = hints.hint("everywhere.place-1", "1"), hints.hint("runs.mark", "space")
            pane.show(
                [Text(), Text("  No run goes on."), Text(f"  {places[1]} in place {places[0]} marks runs to see here.")]
            )
            return
        self._at = min(self._at, len(found.shown) - 1)
        columns, rows = grid(len(found.shown), width, height - 1)
        first = self._at // (columns * rows) * columns * rows
        shown = found.shown[first : first + columns * rows]
        wide, high = width // columns - 1, max(4, (height - 1) // rows)
        ascii_, lines = self.console_app.options.ascii, []
        for begin in range(0, len(shown), columns):
            cells = [
                small(one, wide, high, here=first + begin + at == self._at, ascii=ascii_, log=self._log)
                for at, one in enumerate(shown[begin : begin + columns])
            ]
            lines += beside([[*cell, *[Text()] * (high - len(cell))] for cell in cells], wide)
        which = "marked" if found.marked else "going on"
        below = f" {counted(len(found.shown) + found.more, 'run')} {which}"
        if len(shown) < len(found.shown) + found.more:
            below += f", {first + 1} to {first + len(shown)} shown"
        below += f"   frozen ({hints.hint('several.freeze', 'space')})" if self._frozen else ""
        lines = lines[: height - 1] + [Text()] * (height - 1 - len(lines))
        pane.show([*lines, Text(below, "dim")])

    def jump_targets(self) -> Iterator[Target]:
        """The runs on the screen."""
        area, count = self.query_one("#runs").content_region, len(self._found.shown) if self._found else 0
        columns, rows = grid(count, area.width, area.height - 1)
        first = self._at // (columns * rows) * columns * rows
        wide, high = area.width // columns, max(4, (area.height - 1) // rows)
        for number in range(min(count - first, columns * rows)):
            at = area.offset + Offset(number % columns * wide, number // columns * high)
            yield Target(at, partial(self._go_to, first + number))

    def target_at(self, at: Offset) -> Target | None:
        """The run whose chart is there."""
        before = [one for one in targets(self) if one.at.y <= at.y and one.at.x <= at.x]
        return max(before, key=lambda one: one.at, default=None)

    def _go_to(self, at: int) -> None:
        self._at = at
        self._paint()

    def idle_actions(self) -> set[str]:
        steps = {f"{name}({by})" for name in ("step", "step_row") for by in (-1, 1)}
        if self._found is None or not self._found.shown:
            return {"open", "logarithm", "freeze", "copy"} | steps
        return steps if len(self._found.shown) < 2 else set()

    def action_step(self, by: int) -> None:
        count = len(self._found.shown) if self._found else 0
        self._at = max(0, min(count - 1, self._at + by))
        self._paint()

    def action_step_row(self, by: int) -> None:
        pane = self.query_one("#runs", Lines)
        count = len(self._found.shown) if self._found else 0
        self.action_step(by * grid(count, pane.size.width, pane.size.height - 1)[0])

    def action_logarithm(self) -> None:
        """Losses on a logarithmic axis, or not."""
        self._log = not self._log
        self._paint()

    def action_freeze(self) -> None:
        """Hold the view; the runs go on."""
        self._frozen = not self._frozen
        self._paint()
        if not self._frozen:
            self.ask()

    def action_open(self) -> None:
        if self._found and self._found.shown:
            self.console_app.watch_run(self._found.shown[self._at].run)

    def action_back(self) -> None:
        self.console_app.go("live")

    def to_copy(self) -> str:
        """The ids of the runs that are shown."""
        return "\n".join(one.run for one in self._found.shown) if self._found else ""
