"""Place: a screen that shows what the database holds. The base of all of them."""

from typing import TYPE_CHECKING, Any, ClassVar, cast

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Footer, Static

from dambench.display import display
from dambench.store.runs import Store
from dambench.tui.feed import Question, Told

if TYPE_CHECKING:
    from dambench.tui.app import DambenchApp

SMALLEST = (60, 16)
"""Columns and lines below which there is only a message."""

LOW = 22
"""Lines below which what is beside the main thing gives way."""


class Place(Screen[None]):
    """A screen with the line of all places above, its own content, and key hints below.

    A subclass says what it wants to know (`question`, asked in the feed's thread) and shows what was found (`show`).
    """

    NAME: ClassVar[str]
    """How the line of places calls it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("f5", "refresh", "Refresh", show=False)]

    heard = False
    """Whether the database has answered yet."""

    @property
    def console_app(self) -> "DambenchApp":
        return cast("DambenchApp", self.app)

    def compose(self) -> ComposeResult:
        yield Static(id="places")
        yield from self.content()
        yield Static(id="trouble")
        yield Footer(show_command_palette=False)

    def content(self) -> ComposeResult:
        """The widgets between the line of places and the key hints."""
        raise NotImplementedError

    def question(self) -> Question | None:
        """What to ask the database, again and again; None: nothing."""
        raise NotImplementedError

    def show(self, found: Any) -> None:
        """Draw what was found; only what has changed."""
        raise NotImplementedError

    def on_screen_resume(self) -> None:
        self.query_one("#places", Static).update(self.console_app.places_line(self.NAME))
        self.ask()

    def ask(self) -> None:
        """Ask again, at once: the question has changed."""
        if (question := self.question()) is not None:
            self.console_app.feed.ask(self, question)

    def action_refresh(self) -> None:
        self.ask()

    def changed(self) -> None:
        """Something was done to a run from here: what was read before does not hold."""

    def hear(self, told: Told) -> None:
        """What the feed found for this place."""
        if not self.query("#trouble"):
            return  # the console is being closed
        trouble = self.query_one("#trouble", Static)
        if told.trouble:
            trouble.update(Text(display(told.trouble, 300)))
        trouble.display = bool(told.trouble)
        self.heard = True
        if not told.trouble:
            self.show(told.found)

    async def _dispatch_message(self, message: Message) -> None:
        try:
            await super()._dispatch_message(message)
        except Exception as error:  # beyond this it would end the loop in which the place hears anything
            self.app._handle_exception(error)

    def read_now(self, question: Question) -> Any:
        """Ask a small question here and wait: for what a key was pressed for."""
        store = Store.open(self.console_app.path)
        try:
            return question(store)
        finally:
            store.close()
