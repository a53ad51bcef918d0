"""Jump: a letter on everything that the keys can go to; the letter goes there."""

from collections.abc import Callable, Iterable, Sequence
from string import ascii_lowercase, ascii_uppercase
from typing import Any, NamedTuple, Protocol, runtime_checkable

from textual.app import ComposeResult
from textual.content import Content
from textual.events import Key
from textual.geometry import Offset
from textual.screen import ModalScreen, Screen
from textual.widget import Widget
from textual.widgets import Input, Select, Static

from dambench.tui.resilient import Resilient

LETTERS = ascii_lowercase + ascii_uppercase


class Target(NamedTuple):
    """A place that the keys can go to."""

    at: Offset
    """Where it is on the screen."""
    go: Callable[[], object]


@runtime_checkable
class HasTargets(Protocol):
    """A screen, or a widget with the keys, that has more places than itself."""

    def jump_targets(self) -> Iterable[Target]:
        """The places on the screen now."""


def targets(screen: Screen[Any], most: int | None = len(LETTERS)) -> list[Target]:
    """All that the keys can go to on a screen, from top to bottom, as far as there are letters.

    Args:
        most: as many at most; None: all.
    """
    found = list(screen.jump_targets()) if isinstance(screen, HasTargets) else []
    own = bool(found)
    for widget in screen.focus_chain:
        area = screen.find_widget(widget).visible_region
        if area and isinstance(widget, HasTargets):
            found += [
                Target(at, _both(screen, widget, go)) for at, go in widget.jump_targets() if area.contains_point(at)
            ]
        elif area and not own:
            # Beside what is typed, not on it.
            left = 2 * isinstance(widget, Input | Select) if not widget.styles.border_left[0] else 0
            found.append(Target(Offset(max(0, area.x - left), area.y), _focusing(screen, widget)))
    return sorted(found, key=lambda one: (one.at.y, one.at.x))[:most]


def _focusing(screen: Screen[Any], widget: Widget) -> Callable[[], object]:
    return lambda: screen.set_focus(widget)


def _both(screen: Screen[Any], widget: Widget, go: Callable[[], object]) -> Callable[[], object]:
    def both() -> None:
        screen.set_focus(widget)
        go()

    return both


class Jump(Resilient, ModalScreen[Target | None]):
    """Letters over the screen in front; any other key takes them away."""

    def __init__(self, found: Sequence[Target]) -> None:
        super().__init__()
        self._found = dict(zip(LETTERS, found, strict=False))

    def compose(self) -> ComposeResult:
        for letter, target in self._found.items():
            sign = Static(Content(letter))
            sign.styles.offset = target.at
            yield sign

    def on_key(self, event: Key) -> None:
        event.stop()
        self.dismiss(self._found.get(event.character or ""))
