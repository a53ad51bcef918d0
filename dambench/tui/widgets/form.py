"""Form: rows of a label, a field and a note on it."""

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Select, Static

from dambench.core.sanitize import display
from dambench.tui.resilient import Resilient
from dambench.tui.widgets.entry import Entry


class ChoiceField(Resilient, Select[str]):
    """A field of few values. Up and down leave it, left and right change it, enter lists them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,space", "show_overlay", "Choose", show=False),
        Binding("left,h", "turn(-1)", "Previous value", show=False),
        Binding("right,l", "turn(1)", "Next value", show=False),
        Binding("up,k", "screen.move(-1)", "Field above", show=False),
        Binding("down,j", "screen.move(1)", "Field below", show=False),
    ]

    def __init__(self, field_name: str, options: Sequence[tuple[str, str]], value: str):
        self._values, self._offered = _values(options, value), list(options)
        super().__init__(_labelled(options, value), value=value, allow_blank=False, compact=True)
        self.field_name = field_name

    def offer(self, options: Sequence[tuple[str, str]], value: str) -> None:
        """Others to choose from, with this value."""
        if (list(options), value) == (self._offered, self.value):
            return  # a list that is open stays as it is
        self._offered = list(options)
        with self.prevent(Select.Changed):
            self.set_options(_labelled(options, value))
            self.value = value
            self.mutate_reactive(ChoiceField.value)  # type: ignore[misc]  # the same value may be called otherwise now
        self._values = _values(options, value)

    def action_turn(self, by: int) -> None:
        at = self._values.index(str(self.value))
        self.value = self._values[(at + by) % len(self._values)]


def _values(options: Sequence[tuple[str, str]], chosen: str) -> list[str]:
    """Those of the options; what was chosen elsewhere, and is none of them, too: the check says what is wrong."""
    return list(dict.fromkeys([*(value for _, value in options), chosen]))


def _labelled(options: Sequence[tuple[str, str]], chosen: str) -> list[tuple[Text, str]]:
    labels = {value: label for label, value in options}
    return [(Text(display(labels.get(value, value))), value) for value in _values(options, chosen)]


class TextField(Entry):
    """A field of text."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "screen.move(-1)", "Field above", show=False),
        Binding("down", "screen.move(1)", "Field below", show=False),
        Binding("enter", "screen.move(1)", "Field below", show=False),
    ]

    def __init__(self, field_name: str, value: str, placeholder: str = ""):
        super().__init__(value, placeholder=placeholder, compact=True, select_on_focus=False)
        self.field_name = field_name
        self.cursor_blink = False


class FormRow(Resilient, Horizontal):
    """A label, a field and what there is to say about it."""

    def __init__(self, field_name: str, label: str, widget: "ChoiceField | TextField"):
        super().__init__(id=field_id(field_name))
        self.field_name = field_name
        self._label, self.entry = label, widget
        self._before = Static(Text(display(label, 15)), classes="label")
        self._after = Static(classes="note")

    def compose(self) -> ComposeResult:
        yield self._before
        yield self.entry
        yield self._after

    def note(self, text: str) -> None:
        self._after.update(Text(display(text, 200), no_wrap=True, overflow="ellipsis"))

    def mark(self, wrong: bool) -> None:
        """Say with a sign, not only with a colour, that this is the field that is wrong."""
        if wrong != self.has_class("wrong"):
            self.set_class(wrong, "wrong")
            sign = "!" if wrong else ""
            self._before.update(Text(display(f"{sign}{self._label}", 15)))


def field_id(field_name: str) -> str:
    return "field-" + "".join(c if c.isascii() and (c.isalnum() or c == "_") else "-" for c in field_name)
