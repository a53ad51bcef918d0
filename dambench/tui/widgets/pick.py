"""Boxes that ask for one thing: one of a list, or a text."""

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from dambench.core.sanitize import display
from dambench.tui.resilient import Resilient
from dambench.tui.widgets.entry import Entry


class Box(Resilient, ModalScreen[str | None]):
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Back")]


class Pick(Box):
    """One of a list; gives its value, or None.

    Args:
        options: label and value of each.
        chosen: the value to begin at.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "down", "Down", show=False),
        Binding("k", "up", "Up", show=False),
    ]

    def __init__(self, title: str, options: Sequence[tuple[str, str]], chosen: str = ""):
        super().__init__()
        self._title, self._options, self._chosen = title, list(options), chosen

    def compose(self) -> ComposeResult:
        with Vertical(id="ask") as box:
            box.border_title = Content(display(self._title))
            yield OptionList(*(Option(Text(display(label))) for label, _ in self._options), compact=True)

    def on_mount(self) -> None:
        values = [value for _, value in self._options]
        if self._chosen in values:
            self.query_one(OptionList).highlighted = values.index(self._chosen)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._options[event.option_index][1])

    def action_down(self) -> None:
        self.query_one(OptionList).action_cursor_down()

    def action_up(self) -> None:
        self.query_one(OptionList).action_cursor_up()


class Ask(Box):
    """A text; gives it, or None."""

    def __init__(self, title: str, value: str, about: str = ""):
        super().__init__()
        self._title, self._value, self._about = title, value, about

    def compose(self) -> ComposeResult:
        with Vertical(id="ask") as box:
            box.border_title = Content(display(self._title))
            yield Static(Text(self._about))
            entry = Entry(self._value, compact=True)
            entry.cursor_blink = False
            yield entry

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value)
