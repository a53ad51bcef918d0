"""Run actions: stop a run, kill it, resume it, edit it. Each asks first whether that may be."""

import shlex
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import ClassVar

from textual.binding import Binding

from dambench.core.errors import BadInput
from dambench.core.sanitize import display
from dambench.runner import processes
from dambench.store.records import LONGEST, EditConflict
from dambench.store.rows import ListedRun, RunRow
from dambench.store.runs import Store
from dambench.tui import clock, hints
from dambench.tui.console import Undo
from dambench.tui.main_screen import MainScreen
from dambench.tui.models import request
from dambench.tui.widgets.pick import Ask
from dambench.tui.widgets.sure import Sure


@contextmanager
def changing(screen: MainScreen, rows: Sequence[RunRow]) -> Iterator[Store]:
    """The database, to change these runs.

    Raises:
        BadInput: it is not the one that is shown, or one of them is not in it any more; its id may be another one's.
    """
    with screen.console_app.database(write=True) as store:
        store.refresh()
        for row in rows:
            if (now := store.with_uid(row.uid)) is None or now.id != row.id:
                raise BadInput(f"{row.id} is not in the database any more: nothing was done.")
        yield store


def ask_to_stop(screen: MainScreen, row: RunRow) -> None:
    """Ask a run to stop at the end of its iteration, by a signal or, on another host, in the database."""
    app, run = screen.console_app, row.id
    if app.refuses() or _has_ended(screen, row):
        return

    def stop() -> str:
        if processes.is_here(row):
            _send(row, signal.SIGTERM)
            return f"{run} was asked to stop: it does so at the end of an iteration."
        with changing(screen, [row]) as store:
            # The attempt, not 1: whoever resumes it is not meant.
            store.edit(run, "stop_asked", row.attempt)
        return f"{run} was asked to stop: {display(row.host)} notices within {processes.BEAT_SECONDS:.0f} s."

    text = f"Stop the run {run}? It writes a checkpoint first, and can be resumed."
    _confirm(screen, Sure("Stop", text, "stop it"), stop)


def kill(screen: MainScreen, row: RunRow) -> None:
    """End a run at once, after its id was typed: it goes back to its last checkpoint."""
    app, run = screen.console_app, row.id
    if app.refuses() or _has_ended(screen, row):
        return
    if not processes.is_here(row):
        app.say(f"{run} is on {row.host}: only there can it be killed.", "warning")
        return

    def kill() -> str:
        _send(row, signal.SIGKILL)
        return f"{run} was killed. {resume_key(screen)} resumes it from its last checkpoint."

    def typed(text: str | None) -> None:
        if text is None:
            return
        if text.strip() == run:
            in_background(screen, kill)
        else:
            app.say(f"Not killed: {text!r} is not {run!r}.", "warning")

    screen.app.push_screen(Ask(f"Kill {run}", "", f"Type {run} to kill it at once. esc: do not."), typed)


def resume(screen: MainScreen, row: RunRow) -> None:
    """Have a run go on from its last checkpoint, in a process of its own."""
    app, run = screen.console_app, row.id
    if app.refuses():
        return
    state = processes.state(row)
    if state in processes.ALIVE or state == "finished":
        app.say(f"{run} is {state}: there is nothing to resume.", "warning")
        return
    if row.diverged_at is not None:
        where = f"diverged at iteration {row.diverged_at}, and would again"
        again = hints.hint("runs.run-again", "R")
        app.say(f"{run} {where}: {again} in Runs runs it anew, with other settings.", "warning")
        return

    def resume() -> str:
        app.check_file()
        words = ["resume", run, "--db", str(app.path.absolute()), "--headless"]
        _start(words, f"{run} could not be resumed (exit code {{}}).")
        return f"{run} goes on."

    app.say(f"{run} is about to go on …")
    in_background(screen, resume)


def evaluate_again(screen: MainScreen, row: RunRow) -> None:
    """Evaluate the set of a run that made none once more: what the form cannot ask for."""
    app, run = screen.console_app, row.id
    maker = screen.read_now(lambda store: store.maker(run))
    if maker is None:
        app.say(f"{run} only evaluates a set, and the run that made it is not here.", "warning")
        return
    arguments, differs = request.evaluation(row, maker)

    def start() -> str:
        app.check_file()
        begun = _start([*arguments, "--db", str(app.path.absolute())], "It ended with {} before it began.")
        return f"{begun} evaluates {maker}'s set."

    text = f"{run} only evaluates {maker}'s set. {differs or 'The same again'}:\n\n"
    text += shlex.join(["dambench", *arguments])
    _confirm(screen, Sure("Evaluate again", text, "start it"), start)


def tag(screen: MainScreen, rows: Sequence[RunRow]) -> None:
    """Ask for tags, and add them to runs or take them away."""

    def typed(text: str | None) -> None:
        words = [word for word in (text or "").split() if word.strip("-")]

        def edit() -> str:
            with changing(screen, rows) as store:
                for row in rows:
                    for word in words:
                        store.edit(row.id, "untag" if word.startswith("-") else "tag", word.removeprefix("-"))
            return ""

        if words:
            in_background(screen, edit)

    about = "Words; with a - in front they are taken away."
    screen.app.push_screen(Ask(f"Tag {_which(rows)}", "", about), typed)


def note(screen: MainScreen, row: RunRow) -> None:
    """Ask for a note to a run."""
    _ask_note(screen, row, display(row.note, LONGEST), row.note)


def _ask_note(screen: MainScreen, row: RunRow, text: str, was: str, about: str = "") -> None:
    """Have a note written.

    Args:
        text: to begin with.
        was: the note that is replaced. If it is another one by then, both are shown, and it is asked again.
    """

    def typed(text: str | None) -> None:
        def edit() -> str:
            try:
                with changing(screen, [row]) as store:
                    store.edit(row.id, "note", text or "", was=was)
            except EditConflict as other:
                theirs = display(other.now, 400) or "nothing"
                about = f"Somebody has written meanwhile:\n{theirs}\nenter replaces it by this; esc leaves it:"
                screen.app.call_from_thread(_ask_note, screen, row, text or "", other.now, about)
            return ""

        if text is not None and text != was:
            in_background(screen, edit)

    screen.app.push_screen(Ask(f"Note to {row.id}", text, about), typed)


def delete(screen: MainScreen, rows: Sequence[RunRow]) -> None:
    """Put runs into the trash."""
    if alive := _alive(rows):
        screen.console_app.say(
            f"Nothing was deleted: {alive} goes on. {hints.hint('runs.stop', 'x')} stops a run.", "warning"
        )
        return

    def edit() -> str:
        with changing(screen, rows) as store:
            if alive := _alive([store.run(row.id) for row in rows]):  # it was resumed meanwhile
                raise BadInput(f"Nothing was deleted: {alive} goes on. {hints.hint('runs.stop', 'x')} stops a run.")
            stamp = clock.now().isoformat(timespec="milliseconds")
            for row in rows:
                store.edit(row.id, "deleted_at", stamp)
        screen.console_app.deleted(lambda: _restore(screen, rows, stamp))
        key = hints.hint("everywhere.undo", "u")
        until = f"{key} takes it out until the console is closed, `dambench restore` any time"
        return f"In the trash: {_which(rows)}. {until}."

    text = f"Put {_which(rows)} into the trash? Tables and the report leave it out; its files stay."
    _confirm(screen, Sure("Delete", text, "into the trash"), edit)


def _restore(screen: MainScreen, rows: Sequence[RunRow], stamp: str) -> str:
    """Take runs out of the trash again.

    Args:
        stamp: when they were put there, by which it is known that nobody else did so since.

    Raises:
        BadInput: none of them is there as it was put there.
    """
    with changing(screen, rows) as store:
        meant = [row for row in rows if store.run(row.id).deleted_at == stamp]
        for row in meant:
            store.edit(row.id, "deleted_at", "")
    if not meant:
        raise BadInput(f"Nothing was brought back: {_which(rows)} was restored, or deleted anew, meanwhile.")
    return f"Out of the trash again: {_which(meant)}."


def undo_last(screen: MainScreen, undoable: list[Undo]) -> None:
    """Take back the last deletion that was not taken back yet; where that fails, it can be tried again."""
    if not undoable:
        screen.console_app.say(
            "Nothing was deleted since the console was opened; `dambench restore` brings back what lies in the trash."
        )
        return
    last = undoable[-1]

    def work() -> str:
        done = last()
        undoable.remove(last)
        return done

    in_background(screen, work)


def _confirm(screen: MainScreen, question: Sure, work: Callable[[], str]) -> None:
    screen.app.push_screen(question, lambda yes: in_background(screen, work) if yes else None)


def _start(arguments: Sequence[str], otherwise: str) -> str:
    """Start a process of a run; returns the run's id.

    Args:
        otherwise: the sentence where it ends, with that code, before it has said anything.

    Raises:
        BadInput: it did not begin.
    """
    lines: list[str] = []
    run, code = processes.start(arguments, lines.append)
    if not run:
        raise BadInput(lines[-1] if lines else otherwise.format(code))
    return run


def in_background(screen: MainScreen, work: Callable[[], str]) -> None:
    """Work in a thread that nobody waits for, not even who quits; say what came of it, and look again."""
    app = screen.console_app

    def done(note_text: str, severity: str) -> None:
        if note_text:
            app.say(note_text, severity)
        screen.changed()
        if screen.app.screen is screen:
            screen.ask()

    def go() -> None:
        try:
            note_text, severity = work(), "information"
        except Exception as error:  # whatever it is, the console goes on
            note_text, severity = str(error), "error"
        with suppress(Exception):  # the console may have gone
            screen.app.call_from_thread(done, note_text, severity)

    threading.Thread(target=go, name="doing", daemon=True).start()


class RunActionsScreen(MainScreen):
    """A main screen with a run in front, and what can be done to that."""

    # One of the two is on the line of keys: Stop of a run that goes on, Resume of one that can.
    STOP: ClassVar[Binding] = Binding("x", "stop", "Stop")
    KILL: ClassVar[Binding] = Binding(
        "X", "kill", "Kill", show=False, tooltip="Kill it: it goes back to its last checkpoint"
    )
    RESUME: ClassVar[Binding] = Binding("r", "resume", "Resume", tooltip="Resume it from its last checkpoint")

    def selected_run(self) -> RunRow | None:
        """The whole row of that run, as it stands now; None: there is none, and that was said."""
        raise NotImplementedError

    def front_state(self) -> str:
        """The state of that run; empty: there is none."""
        raise NotImplementedError

    def front_row(self) -> RunRow | ListedRun | None:
        """What is known of that run already; None: nothing."""
        raise NotImplementedError

    def idle_actions(self) -> set[str]:
        state, row = self.front_state(), self.front_row()
        alive = state in processes.ALIVE
        idle = set() if alive else {"stop", "kill"}
        if alive or state in ("", "finished") or (row is not None and row.diverged_at is not None):
            idle.add("resume")
        if row is not None and not processes.is_here(row):
            idle.add("kill")
        return idle | (set() if state else {"copy"})

    def action_stop(self) -> None:
        self._with_row(ask_to_stop)

    def action_kill(self) -> None:
        self._with_row(kill)

    def action_resume(self) -> None:
        self._with_row(resume)

    def _with_row(self, deed: Callable[[MainScreen, RunRow], None]) -> None:
        if not self.console_app.refuses() and (row := self.selected_run()) is not None:
            deed(self, row)


def _send(row: RunRow, number: signal.Signals) -> None:
    """Signal the process that was meant.

    Raises:
        BadInput: it has ended since.
    """
    if not processes.send(row, number):
        raise BadInput(f"{row.id} was not signalled: its process {row.pid} has ended meanwhile.")


def _has_ended(screen: MainScreen, row: RunRow) -> bool:
    """There is no process to stop: a note says so."""
    state = processes.state(row)
    if state not in processes.ALIVE:
        lost = f"there is no process to stop. {resume_key(screen)} resumes it"
        nothing = lost if state == "lost" else "there is nothing to stop"
        screen.console_app.say(f"{row.id} is {state}: {nothing}.", "warning")
    return state not in processes.ALIVE


def resume_key(screen: MainScreen) -> str:
    """The key that resumes a run in this screen."""
    keys = {"Run": hints.hint("run.resume", "r"), "Live": hints.hint("live.resume", "r")}
    return keys.get(screen.NAME, hints.hint("runs.resume", "r"))


def _alive(rows: Sequence[RunRow]) -> str:
    """The runs that go on."""
    return ", ".join(row.id for row in rows if processes.state(row) in processes.ALIVE)


def _which(rows: Sequence[RunRow]) -> str:
    """`ab2cde`, or `3 runs`."""
    return str(rows[0].id) if len(rows) == 1 else f"{len(rows)} runs"
