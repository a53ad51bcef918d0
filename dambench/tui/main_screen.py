"""Main screen: a screen that shows what the database holds. The base of all of them."""

import time
from typing import Any, ClassVar, cast

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Footer, Static

from dambench.core.sanitize import display
from dambench.core.units import duration
from dambench.tui.console import Console
from dambench.tui.feed import QueryResult, Question
from dambench.tui.resilient import Resilient

LOW = 22
"""Lines below which what is beside the main thing gives way."""


OLD = 5.0
"""Seconds after which it is said how old that is which is shown."""


class MainScreen(Resilient, Screen[None]):
    """A screen with the line of all places above, its own content, and key hints below.

    A subclass says what it wants to know (`question`, asked again and again while the place is in front, in the feed's
    thread), shows what was found (`show`), and can forget all it knows (`anew`).
    """

    NAME: ClassVar[str]
    """How the line of places calls it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("f5", "refresh", "Refresh", show=False)]

    heard = False
    """Whether the database has answered yet."""
    behind = False
    """Whether the last answer was not drawn."""
    fault = ""
    """Of the place, which was told before."""
    _as_of = 0.0
    """When what is shown was so."""
    _since = 0.0
    """When this came to the front."""
    _trouble = ""
    _told = ""
    """What the line of troubles says."""

    @property
    def console_app(self) -> Console:
        return cast(Console, self.app)

    def compose(self) -> ComposeResult:
        yield Static(id="places")
        yield from self.content()
        yield Static(id="trouble")
        yield Footer(show_command_palette=False)

    def content(self) -> ComposeResult:
        """The widgets between the line of places and the key hints."""
        raise NotImplementedError

    def question(self) -> Question:
        """What to ask the database now."""
        raise NotImplementedError

    def show(self, found: Any) -> bool:
        """Draw what was found, only what has changed. Returns whether it was: otherwise it is asked for again soon.

        Args:
            found: None: there is no database.
        """
        raise NotImplementedError

    def anew(self) -> None:
        """Forget what was found: it is of another file now, or something is wrong with it."""
        self.heard, self.behind = False, True
        self._since, self._as_of = time.monotonic(), 0.0

    def on_screen_resume(self) -> None:
        self.query_one("#places", Static).update(self.console_app.screens_line(self.NAME))
        self._since, self.fault = time.monotonic(), ""
        self.ask()

    def ask(self) -> None:
        """Have the place in front asked again, at once: the question has changed."""
        self.console_app.ask()

    def action_refresh(self) -> None:
        self.fault = ""
        self.ask()

    def changed(self) -> None:
        """Something was done to a run from here: what was read before does not hold."""

    def hear(self, told: QueryResult) -> None:
        """What the feed found for this place."""
        if not self.query("#trouble"):
            self.behind = True
            return  # the console is being closed
        self.heard, self._trouble = True, told.trouble
        if not told.trouble:
            self.behind = not self.show(told.found)
            if not self.behind:
                self._as_of = told.at
        self.say_age()

    def say_age(self) -> None:
        """Say what is wrong, and how old that is which is shown, unless it is as good as new."""
        now, parts = time.monotonic(), [display(self._trouble, 300)] if self._trouble else []
        if self.fault:
            parts.append(f"This place failed again ({display(self.fault, 100)}): console.log tells more.")
        if now - max(self._since, self._as_of) > OLD:
            age = duration(int(now - (self._as_of or self._since)))
            parts.append(f"What is shown is {age} old." if self._as_of else f"The database has not answered for {age}.")
        told = "  ".join(parts)
        if told != self._told and self.query("#trouble"):
            self._told = told
            trouble = self.query_one("#trouble", Static)
            trouble.update(Text(told))
            trouble.display = bool(told)

    def read_now(self, question: Question) -> Any:
        """Ask a small question here and wait: for what a key was pressed for.

        Raises:
            BadInput: the database is not there, or is not the one that is shown.
        """
        with self.console_app.database() as store:
            return question(store)
