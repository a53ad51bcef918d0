"""Boxes that ask before something is done, and one to choose several of a list."""

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from dambench.core.sanitize import display
from dambench.tui.resilient import Resilient


class Sure(Resilient, ModalScreen[bool]):
    """Is this meant? Gives whether it is."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,y", "dismiss(True)", "Yes"),
        Binding("escape,n,q", "dismiss(False)", "No"),
    ]

    def __init__(self, title: str, text: str, yes: str):
        super().__init__()
        self._title, self._text, self._yes = title, text, yes

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="box") as box:
            box.border_title = Content(display(self._title))
            yield Static(Text(f"{self._text}\n\ny or enter: {self._yes}.\nesc: no."))


class _Choices(Resilient, OptionList):
    """A list whose key to take what is chosen waits for the keys before it, however fast they are typed."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "screen.take", "Take these")]


class Several(Resilient, ModalScreen[list[str] | None]):
    """Some of a list; gives their values in the order of the list, or None.

    Args:
        options: label, value and whether it is chosen already.
        movable: whether the order can be changed, by J and K.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "choose", "Choose"),
        Binding("escape,q", "dismiss(None)", "Back"),
        Binding("j", "go(1)", "Down", show=False),
        Binding("k", "go(-1)", "Up", show=False),
        Binding("J,shift+down", "move(1)", "Move down", show=False),
        Binding("K,shift+up", "move(-1)", "Move up", show=False),
    ]

    def __init__(self, title: str, options: Sequence[tuple[str, str, bool]], *, movable: bool = False):
        super().__init__()
        self._title, self._options, self._movable = title, list(options), movable
        self._chosen = {value for _, value, on in options if on}

    def compose(self) -> ComposeResult:
        options = _Choices(*(Option(self._label(index)) for index in range(len(self._options))), compact=True)
        options.border_title = Content(display(self._title))
        moves = ", J and K move" if self._movable else ""
        options.border_subtitle = f"space chooses{moves}, enter takes"
        yield options

    def _label(self, index: int) -> Text:
        label, value, _ = self._options[index]
        return Text(f"[{'x' if value in self._chosen else ' '}] {display(label)}")

    def on_option_list_option_selected(self) -> None:
        """Choose by the mouse, too."""
        self.action_choose()

    def action_choose(self) -> None:
        options = self.query_one(OptionList)
        if (at := options.highlighted) is not None:
            self._chosen ^= {self._options[at][1]}
            options.replace_option_prompt_at_index(at, self._label(at))

    def action_move(self, by: int) -> None:
        options = self.query_one(OptionList)
        if not self._movable or (at := options.highlighted) is None or not 0 <= at + by < len(self._options):
            return
        self._options[at], self._options[at + by] = self._options[at + by], self._options[at]
        for index in (at, at + by):
            options.replace_option_prompt_at_index(index, self._label(index))
        options.highlighted = at + by

    def action_take(self) -> None:
        self.dismiss([value for _, value, _ in self._options if value in self._chosen])

    def action_go(self, by: int) -> None:
        options = self.query_one(OptionList)
        (options.action_cursor_down if by > 0 else options.action_cursor_up)()
