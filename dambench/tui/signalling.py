"""What a person can do to a run from here: ask it to stop, kill it, have it go on. Each asks whether that may be."""

import signal
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from dambench import launch
from dambench.store.runs import Store
from dambench.tui.place import Place

if TYPE_CHECKING:
    from dambench.tui.app import DambenchApp


def ask_to_stop(place: Place, run: str) -> None:
    """Ask a run to stop at the end of its iteration, by a signal or, on another host, in the database."""
    app = place.console_app
    if app.refuses():
        return
    row = place.read_now(lambda store: store.run(run))
    now = launch.state(row)
    if now not in ("waiting", "running", "silent"):
        app.say(f"The run {run} is {now}: there is nothing to stop.", "warning")
    elif launch.is_here(row):
        launch.send(row, signal.SIGTERM)
        app.say(f"Asked {run}: it stops at the end of its iteration and writes a checkpoint.")
    else:

        def edit() -> None:
            with closing(Store.open(app.path, write=True)) as store:
                store.edit(run, "stop_asked", 1)

        in_background(place, edit, f"Asked: {row['host']} notices within {launch.BEAT_SECONDS:.0f} s.")


def kill(place: Place, run: str) -> None:
    """End a run at once, after its id was typed: it goes back to its last checkpoint."""
    app = place.console_app
    if app.refuses():
        return
    row = place.read_now(lambda store: store.run(run))
    now = launch.state(row)
    if now not in ("waiting", "running", "silent"):
        app.say(f"The run {run} is {now}: there is nothing to kill.", "warning")
    elif not launch.is_here(row):
        app.say(f"The run {run} is on {row['host']}: only there can it be killed.", "warning")
    else:

        def typed(text: str | None) -> None:
            if text == run:
                launch.send(row, signal.SIGKILL)
                app.say(f"Killed {run}: `r` goes on from its last checkpoint.")
            elif text is not None:
                app.say("That was another id: nothing was killed.", "warning")

        app.push_screen(Typed(f"Kill {run}?", "Type its id and press enter. esc: do not."), typed)


def resume(place: Place, run: str) -> None:
    """Have a run go on from its last checkpoint, in a process of its own."""
    app = place.console_app
    if app.refuses():
        return
    row = place.read_now(lambda store: store.run(run))
    now = launch.state(row)
    if now not in ("stopped", "failed", "lost"):
        app.say(f"The run {run} is {now}: there is nothing to go on with.", "warning")
        return
    said: list[str] = []

    def start() -> None:
        begun, _ = launch.start(["resume", run, "--headless", "--db", str(app.path)], said.append)
        if not begun:
            raise RuntimeError(said[-1] if said else "it ended without a word")

    app.say(f"{run} goes on in a moment.")
    in_background(place, start, "")


def in_background(place: Place, deed: Callable[[], None], done: str) -> None:
    """Do something that may take long in a thread, and say how it went."""
    app: DambenchApp = place.console_app

    def work() -> None:
        try:
            deed()
        except Exception as error:  # whatever is wrong, the person is told
            app.call_from_thread(app.say, str(error), "error")
        else:
            if done:
                app.call_from_thread(app.say, done)

    app.run_worker(work, thread=True, exit_on_error=False)


class Typed(ModalScreen[str | None]):
    """Asks for a word, so that no single key does what cannot be undone."""

    DEFAULT_CSS = """
    Typed { align: center middle; }
    Typed Vertical { width: 60; height: auto; border: round $error; padding: 1 2; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Back")]

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self._title, self._text = title, text

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = self._title
            yield Static(Text(self._text))
            yield Input()

    def on_input_submitted(self, submitted: Input.Submitted) -> None:
        self.dismiss(submitted.value.strip())

    def action_leave(self) -> None:
        self.dismiss(None)
