"""What a person can do to a run from here: ask it to stop, kill it, have it go on. Each asks whether that may be."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

from textual.binding import Binding

from dambench.core.errors import BadInput
from dambench.core.sanitize import display
from dambench.runner import processes
from dambench.store.runs import Store
from dambench.tui.main_screen import MainScreen
from dambench.tui.models.columns import ALIVE
from dambench.tui.widgets.pick import Ask
from dambench.tui.widgets.sure import Sure

Row = dict[str, Any]
"""A whole row of a run."""


@contextmanager
def changing(place: MainScreen, rows: Sequence[Row]) -> Iterator[Store]:
    """The database, to change these runs.

    Raises:
        BadInput: it is not the one that is shown, or one of them is not in it any more; its id may be another one's.
    """
    with place.console_app.database(write=True) as store:
        store.refresh()
        for row in rows:
            if not store.query("select 1 from runs where id = ? and uid = ?", row["id"], row["uid"]):
                raise BadInput(f"{row['id']} is not in the database any more: nothing was done.")
        yield store


def ask_to_stop(place: MainScreen, row: Row) -> None:
    """Ask a run to stop at the end of its iteration, by a signal or, on another host, in the database."""
    app, run = place.console_app, row["id"]
    if app.refuses() or _has_ended(place, row):
        return

    def stop() -> str:
        if processes.is_here(row):
            _send(row, signal.SIGTERM)
            return f"{run} was asked to stop: it does so at the end of an iteration."
        with changing(place, [row]) as store:
            # The attempt, not 1: whoever resumes it is not meant.
            store.edit(run, "stop_asked", row["attempt"])
        return f"{run} was asked to stop: {display(row['host'])} notices within {processes.BEAT_SECONDS:.0f} s."

    text = f"Stop the run {run}? It writes a checkpoint first, and can be resumed."
    place.app.push_screen(Sure("Stop", text, "stop it"), lambda yes: do(place, stop) if yes else None)


def kill(place: MainScreen, row: Row) -> None:
    """End a run at once, after its id was typed: it goes back to its last checkpoint."""
    app, run = place.console_app, row["id"]
    if app.refuses() or _has_ended(place, row):
        return
    if not processes.is_here(row):
        app.say(f"{run} is on {row['host']}: only there can it be killed.", "warning")
        return

    def kill() -> str:
        _send(row, signal.SIGKILL)
        return f"{run} was killed. r resumes it from its last checkpoint."

    def typed(text: str | None) -> None:
        if text is None:
            return
        if text.strip() == run:
            do(place, kill)
        else:
            app.say(f"Not killed: {text!r} is not {run!r}.", "warning")

    place.app.push_screen(Ask(f"Kill {run}", "", f"Type {run} to kill it at once. esc: do not."), typed)


def resume(place: MainScreen, row: Row) -> None:
    """Have a run go on from its last checkpoint, in a process of its own."""
    app, run = place.console_app, row["id"]
    if app.refuses():
        return
    state = processes.state(row)
    if state in ALIVE or state == "finished":
        app.say(f"{run} is {state}: there is nothing to resume.", "warning")
        return
    if row["diverged_at"] is not None:
        where = f"diverged at iteration {row['diverged_at']}, and would again"
        app.say(f"{run} {where}: R runs it anew, with other settings.", "warning")
        return

    def resume() -> str:
        app.check_file()
        heard: list[str] = []
        begun, code = processes.start(["resume", run, "--db", str(app.path.absolute()), "--headless"], heard.append)
        if not begun:
            raise BadInput(heard[-1] if heard else f"{run} could not be resumed (exit code {code}).")
        return f"{run} goes on."

    app.say(f"{run} is about to go on …")
    do(place, resume)


def do(place: MainScreen, work: Callable[[], str]) -> None:
    """Work in a thread that nobody waits for, not even who quits; say what came of it, and look again."""
    app = place.console_app

    def done(said: str, severity: str) -> None:
        if said:
            app.say(said, severity)
        place.changed()
        if place.app.screen is place:
            place.ask()

    def go() -> None:
        try:
            said, severity = work(), "information"
        except Exception as error:  # whatever it is, the console goes on
            said, severity = str(error), "error"
        with suppress(Exception):  # the console may have gone
            place.app.call_from_thread(done, said, severity)

    threading.Thread(target=go, name="doing", daemon=True).start()


class RunActionsScreen(MainScreen):
    """A place that has a run in front of it, and what can be done to that."""

    STOP: ClassVar[Binding] = Binding("x", "stop", "Stop")
    KILL: ClassVar[Binding] = Binding(
        "X", "kill", "Kill", show=False, tooltip="Kill it: it goes back to its last checkpoint"
    )
    RESUME: ClassVar[Binding] = Binding(
        "r", "resume", "Resume", show=False, tooltip="Resume it from its last checkpoint"
    )

    def meant(self) -> Row | None:
        """The whole row of that run, as it stands now; None: there is none, and that was said."""
        raise NotImplementedError

    def action_stop(self) -> None:
        self._with_row(ask_to_stop)

    def action_kill(self) -> None:
        self._with_row(kill)

    def action_resume(self) -> None:
        self._with_row(resume)

    def _with_row(self, deed: Callable[[MainScreen, Row], None]) -> None:
        if not self.console_app.refuses() and (row := self.meant()) is not None:
            deed(self, row)


def _send(row: Row, number: signal.Signals) -> None:
    """Signal the process that was meant.

    Raises:
        BadInput: it has ended since.
    """
    if not processes.send(row, number):
        raise BadInput(f"{row['id']} was not signalled: its process {row['pid']} has ended meanwhile.")


def _has_ended(place: MainScreen, row: Row) -> bool:
    """Whether there is no process to stop; says so."""
    state = processes.state(row)
    if state not in ALIVE:
        nothing = "there is no process to stop. r resumes it" if state == "lost" else "there is nothing to stop"
        place.console_app.say(f"{row['id']} is {state}: {nothing}.", "warning")
    return state not in ALIVE
