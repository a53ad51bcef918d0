"""Notices: boxes over the screen in front that say something and are closed again."""

import traceback
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.geometry import Size
from textual.screen import ModalScreen
from textual.widgets import Static

from dambench.core.sanitize import display
from dambench.tui import hints
from dambench.tui.resilient import Resilient

NOT_NOW = "not now"
"""What the help calls keys that would do nothing as things stand."""

SMALLEST = (60, 16)
"""Columns and lines below which there is only a message."""


def too_small(terminal: Size) -> bool:
    """There is no room for any screen."""
    columns, lines = SMALLEST
    return terminal.width < columns or terminal.height < lines


class Notice(Resilient, ModalScreen[None]):
    """A box over the place in front; `esc` closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "close", "Back")]

    def __init__(self, title: str, text: Text) -> None:
        super().__init__()
        self._title, self._text = title, text

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="box") as box:
            box.border_title = Content(self._title)
            yield Static(self._text)

    def action_close(self) -> None:
        self.dismiss()


class Help(Notice):
    """Every key of the place in front, those last that would do nothing as things stand."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("question_mark", "close", "Back", show=False)]

    def __init__(self, keys: list[tuple[str, str, str]]) -> None:
        text = Text()
        for where in ("here", "everywhere", NOT_NOW):
            there = [f"  {key:<12} {meaning}\n" for place, key, meaning in keys if place == where]
            if there:
                text.append(f"{where}\n", "bold")
                text.append("".join(there), "dim" if where == NOT_NOW else "")
        super().__init__("Keys", text)


class Leaving(Notice):
    """Runs go on after the console is left."""

    # Of the keys of the app none holds under a box but those that it names itself.
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "app.leave", "Quit", id="everywhere.quit"),
        Binding("enter", "app.leave", "Quit", show=False),
    ]

    def __init__(self, alive: list[str]) -> None:
        go_on = "1 run goes" if len(alive) == 1 else f"{len(alive)} runs go"
        ways = f"{hints.hint('everywhere.quit', 'q')} or enter: quit, leave them running.\nesc: stay."
        super().__init__("Quit", Text(f"{go_on} on after you quit: {', '.join(alive)}.\n\n{ways}"))


class Broken(Notice):
    """Something in the console failed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "app.copy", "Copy", id="everywhere.copy"),
        Binding("q", "app.leave", "Quit", id="everywhere.quit"),
    ]

    def __init__(self, error: Exception, log: Path) -> None:
        copy = hints.hint("everywhere.copy", "y")
        summary = display(f"{type(error).__name__}: {error}", 400)
        super().__init__(
            "The console has a fault",
            Text(f"{summary}\n\nThe runs go on. What happened is in {log}.\n{copy} copies it, esc goes on."),
        )
        self._traceback = "".join(traceback.format_exception(error))

    def to_copy(self) -> str:
        return self._traceback


class TooSmall(Resilient, ModalScreen[None]):
    """The terminal has no room."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("q", "app.leave", "Quit", id="everywhere.quit")]

    def compose(self) -> ComposeResult:
        columns, lines = SMALLEST
        yield Static(
            Text(f"dambench needs {columns} × {lines}.\nThe runs go on; make it larger,\nor: dambench watch ID")
        )

    def on_screen_resume(self) -> None:
        if not too_small(self.app.size):
            self.dismiss()  # it became large enough while a box lay over this
