"""Main screen: a screen that shows what the database holds. The base of all of them."""

import time
from typing import Any, ClassVar, cast

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Click, MouseScrollDown, MouseScrollUp
from textual.geometry import Offset
from textual.screen import Screen
from textual.widgets import Static

from dambench.core.sanitize import display
from dambench.core.units import duration
from dambench.tui import keys
from dambench.tui.console import Console
from dambench.tui.feed import QueryResult, Question
from dambench.tui.resilient import Resilient
from dambench.tui.widgets.footer import KeysLine
from dambench.tui.widgets.jump import Target, targets
from dambench.tui.widgets.row_list import WHEEL

LOW = 22
"""Lines below which what is beside the main thing gives way."""


OLD = 5.0
"""Seconds after which it is said how old that is which is shown."""


class MainScreen(Resilient, Screen[None]):
    """A screen with the line of all main screens above, its own content, and key hints below.

    A subclass says what it wants to know (`question`, asked again and again while the place is in front, in the feed's
    thread), shows the answer (`show`), and can forget all it knows (`forget`).
    """

    NAME: ClassVar[str]
    """Its name in the line of main screens."""

    BINDINGS: ClassVar[list[BindingType]] = keys.named(
        keys.EVERYWHERE, [Binding("f5", "refresh", "Refresh", show=False)]
    )

    def __init_subclass__(cls, **options: Any) -> None:
        if "BINDINGS" in vars(cls):
            cls.BINDINGS = keys.named(cls.NAME.lower(), cls.BINDINGS)
        super().__init_subclass__(**options)

    answered = False
    """The database has answered."""
    behind = False
    """The last answer was not drawn."""
    fault = ""
    """A fault of this screen that was shown before."""
    _as_of = 0.0
    """When what is shown was so."""
    _since = 0.0
    """When this came to the front."""
    _trouble = ""
    _shown_line = ""
    """The text of the line of troubles."""
    _idle: frozenset[str] | None = None
    """The actions that the line of keys leaves out; None: it was not asked for yet, and left out what it saw."""

    @property
    def console_app(self) -> Console:
        return cast(Console, self.app)

    def compose(self) -> ComposeResult:
        yield Static(id="places")
        yield from self.content()
        yield Static(id="trouble")
        yield KeysLine(show_command_palette=False)

    def content(self) -> ComposeResult:
        """The widgets between the line of places and the key hints."""
        raise NotImplementedError

    def question(self) -> Question:
        """The question that the database is asked now."""
        raise NotImplementedError

    def show(self, answer: Any) -> bool:
        """Draw an answer, only what has changed. Returns whether it was drawn: otherwise it is asked for again soon.

        Args:
            answer: None: there is no database.
        """
        raise NotImplementedError

    def forget(self) -> None:
        """Forget all answers: they are of another file, or something is wrong with them."""
        self.answered, self.behind = False, True
        self._since, self._as_of = time.monotonic(), 0.0

    def on_screen_resume(self) -> None:
        self.query_one("#places", Static).update(self.console_app.screens_line(self.NAME))
        self._since, self.fault = time.monotonic(), ""
        self.ask()

    def ask(self) -> None:
        """Have the place in front asked again, at once: the question has changed."""
        self.console_app.ask()

    # The mouse, where it is wished for.

    def on_click(self, event: Click) -> None:
        """Go to what was clicked: a place of the first line, or what a letter of Jump would go to; twice opens it."""
        at = event.screen_offset
        if at.y == 0:
            if place := self.console_app.place_at(at.x):
                self.console_app.go(place)
            return
        if (target := self.target_at(at)) is not None:
            target.go()
            if event.chain == 2 and (enter := self.active_bindings.get("enter")) is not None:
                self.run_worker(self.app.run_action(enter.binding.action, enter.node))

    def target_at(self, at: Offset) -> Target | None:
        """What is gone to by a click there: the last thing before it on its line."""
        there = (one for one in targets(self, most=None) if one.at.y == at.y and one.at.x <= at.x)
        return max(there, key=lambda one: one.at.x, default=None)

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        self.scroll_lines(WHEEL)

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        self.scroll_lines(-WHEEL)

    def scroll_lines(self, lines: int) -> None:
        """Go on by so many lines of what is read here; a list under the pointer does so by itself."""

    def action_refresh(self) -> None:
        self.fault = ""
        self.ask()

    def idle_actions(self) -> set[str]:
        """Actions that would do nothing, or only say that there is nothing to do, as things stand: no key for them is
        offered, and one that is pressed all the same says why."""
        return set()

    def offer_keys(self) -> None:
        """Have the line of keys drawn anew, if other keys do something now."""
        if self.is_mounted and (idle := frozenset(self.idle_actions())) != self._idle:
            self._idle = idle
            self.refresh_bindings()

    def changed(self) -> None:
        """Something was done to a run from here: what was read before does not hold."""

    def receive(self, result: QueryResult) -> None:
        """Take in an answer of the feed."""
        if not self.query("#trouble"):
            self.behind = True
            return  # the console is being closed
        self.answered, self._trouble = True, result.trouble
        if not result.trouble:
            self.behind = not self.show(result.answer)
            if not self.behind:
                self._as_of = result.at
        self.show_age()

    def show_age(self) -> None:
        """Say what is wrong, and how old that is which is shown, unless it is as good as new."""
        now, parts = time.monotonic(), [display(self._trouble, 300)] if self._trouble else []
        if self.fault:
            parts.append(f"This place failed again ({display(self.fault, 100)}): console.log tells more.")
        if now - max(self._since, self._as_of) > OLD:
            age = duration(int(now - (self._as_of or self._since)))
            parts.append(f"What is shown is {age} old." if self._as_of else f"The database has not answered for {age}.")
        line = "  ".join(parts)
        if line != self._shown_line and self.query("#trouble"):
            self._shown_line = line
            trouble = self.query_one("#trouble", Static)
            trouble.update(Text(line))
            trouble.display = bool(line)

    def read_now(self, question: Question) -> Any:
        """Ask a small question here and wait: for what a key was pressed for.

        Raises:
            BadInput: the database is not there, or is not the one that is shown.
        """
        with self.console_app.database() as store:
            return question(store)
