"""Queue: what waits and what is being run, why, by whom and until when; and what can be done with it."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, Literal

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Static

from dambench.core.errors import BadInput
from dambench.core.sanitize import counted, display
from dambench.store.queue import Queue, Queued
from dambench.tui import hints
from dambench.tui.feed import Question
from dambench.tui.main_screen import MainScreen
from dambench.tui.models.columns import plain
from dambench.tui.models.queue_page import (
    QueuePage,
    QueueReader,
    about,
    card_lines,
    grid_lines,
    progress_line,
    worker_lines,
)
from dambench.tui.queue_actions import start_or_drain_worker
from dambench.tui.run_actions import in_background
from dambench.tui.terminal import refresh_rate
from dambench.tui.widgets.lines import Lines
from dambench.tui.widgets.pick import Ask
from dambench.tui.widgets.queue_table import QueueTable
from dambench.tui.widgets.sure import Sure

Change = Callable[[Queue, Sequence[str]], Sequence[Queued]]

NOT_BEGUN = {"waiting", "paused"}
"""States of queued runs that have a place in the order of their turn."""


class QueueScreen(MainScreen):
    """What waits to be run, in the order of its turn."""

    NAME: ClassVar[str] = "Queue"
    AUTO_FOCUS: ClassVar[str | None] = "QueueTable"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open", key_display="enter", show=False, tooltip="Open its run"),
        Binding("space", "mark", "Mark"),
        Binding("a", "add", "Add", show=False, tooltip="Add a run: the form, from where it can be queued"),
        Binding("p", "pause", "Pause", tooltip="Pause it, or the marked ones; let them go on"),
        Binding("J", "move(1)", "Move", key_display="J K", tooltip="Later", id="queue.later"),
        Binding("K", "move(-1)", "Sooner", show=False),
        Binding("R", "retry", "Retry", tooltip="Try it again, with a reason"),
        Binding("w", "worker", "Worker", tooltip="Start a worker on this machine, or let it take nothing more"),
        Binding("D", "drop", "Drop", tooltip="Take it, or the marked ones, out of the queue"),
        Binding("F", "first", "To the front", show=False),
        Binding("escape", "unmark", "Unmark all", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._reader = QueueReader()
        self._page: QueuePage | None = None
        self._key_pressed = False
        self._drawn = 0.0

    def content(self) -> ComposeResult:
        yield Lines(id="progress")
        yield Static(id="empty")
        with Horizontal(id="panes"):
            with Vertical(id="left"):
                yield QueueTable(ascii_only=self.console_app.options.ascii)
                yield Lines(id="about")
            with Vertical(id="right"):
                yield Lines(id="grid")
                yield Lines(id="cards")
                yield Lines(id="workers")

    def on_mount(self) -> None:
        self.set_class(self.console_app.options.ascii, "-ascii")
        for name in ("#grid", "#cards", "#workers", "#about", "#progress"):
            self.query_one(name, Lines).painter = self._paint
        self.set_focus(self.table)

    @property
    def table(self) -> QueueTable:
        return self.query_one(QueueTable)

    def _tag(self) -> str:
        line = self.table.line
        return line.one.tag if line is not None else (self._page.tag if self._page else "")

    def question(self) -> Question:
        return partial(self._reader.read, tag=self._tag())

    def ask(self) -> None:
        self._key_pressed = True
        super().ask()

    def changed(self) -> None:
        self._key_pressed = True

    def forget(self) -> None:
        super().forget()
        self._page, self._key_pressed = None, True
        self.table.marks.clear()
        self.table.fill(())
        for name in ("#grid", "#cards", "#workers", "#about", "#progress"):
            self.query_one(name, Lines).show([])

    def show(self, page: QueuePage | None) -> bool:
        now = time.monotonic()
        every = refresh_rate.NUMBERS * self.console_app.options.refresh
        if not self._key_pressed and (now - self._drawn < every or refresh_rate.backlog(self.app)):
            return False
        self._key_pressed, self._drawn, self._page = False, now, page
        if page is None:
            self._empty(f"There is no database {display(str(self.console_app.path))!r} yet.")
            return True
        if not page.counts:
            self._empty("Nothing is queued.")
        else:
            self.remove_class("-empty")
            if self.focused is None:
                self.call_after_refresh(self.set_focus, self.table)
        self.table.fill(page.lines)
        if page.tag != self._tag():
            self.ask()  # the sweep under the cursor is another one now
        self._paint()
        return True

    def _empty(self, text: str) -> None:
        if not self.console_app.options.readonly:
            text += f"\n\n{hints.hint('queue.add', 'a'):<5} add a run"
            text += f"\n{hints.hint('queue.worker', 'w'):<5} start a worker, which carries out what waits"
            place, key = hints.hint("everywhere.place-1", "1"), hints.hint("runs.queue", "Q")
            text += f"\nor    mark runs in place {place}, press {key} there: the same with other seeds"
        self.query_one("#empty", Static).update(Text(text))
        self.add_class("-empty")

    def _paint(self) -> None:
        page, ascii_only = self._page, self.console_app.options.ascii
        if page is None:
            return

        def draw(name: str, lines: Sequence[str], title: str = "") -> None:
            pane = self.query_one(name, Lines)
            texts: list[Text] = []
            width = max(10, pane.size.width)
            for line in lines:
                text = Text(plain(line) if ascii_only else line)
                texts += [text] if text.cell_len <= width else text.wrap(self.app.console, width)
            pane.show(texts)
            if title:
                pane.entitle(plain(title) if ascii_only else title)

        draw("#progress", [" " + progress_line(page, self.size.width - 2, ascii_only=ascii_only)])
        grid = self.query_one("#grid", Lines).size
        name = page.tag.replace(":", " ", 1) if page.tag else "of no sweep"
        lines = grid_lines(page.grid, grid.width, grid.height, ascii_only=ascii_only)
        self.query_one("#grid", Lines).show([Text(line) for line in lines])
        self.query_one("#grid", Lines).entitle(display(name, 40))
        width = self.query_one("#cards", Lines).size.width
        draw("#cards", card_lines(page, width, ascii_only=ascii_only), "GPUs")
        draw("#workers", worker_lines(page), "Workers")
        line = self.table.line
        draw("#about", [] if line is None else [" " + each for each in about(line)])

    def on_queue_table_highlighted(self) -> None:
        self._paint()
        self.ask()

    # What is done.

    def _meant(self) -> list[Queued]:
        """The marked ones, or the one under the cursor."""
        if marked := self._marked():
            return marked
        line = self.table.line
        if line is None:
            self.console_app.say(f"Nothing is queued: {hints.hint('queue.add', 'a')} adds a run.")
            return []
        return [line.one]

    def idle_actions(self) -> set[str]:
        table, line = self.table, self.table.line
        idle = set() if table.marks else {"unmark"}
        idle |= {"worker"} if self._page is None else set()
        if line is None:
            return idle | {"open", "mark", "pause", "move(1)", "move(-1)", "retry", "drop", "first", "copy"}
        pending = sum(other.one.state in NOT_BEGUN for other in table.lines)
        if line.one.state not in NOT_BEGUN or pending < 2:
            idle |= {"move(1)", "move(-1)"}
        states = {one.state for one in self._marked() or [line.one]}
        idle |= set() if line.run else {"open"}
        idle |= set() if states & {"waiting", "taken"} or states == {"paused"} else {"pause"}
        idle |= set() if states & NOT_BEGUN and pending > 1 else {"first"}
        return idle if "failed" in states else idle | {"retry"}

    def _marked(self) -> list[Queued]:
        return [line.one for line in self.table.lines if line.one.uid in self.table.marks]

    def _change(self, meant: Sequence[Queued], change: Change, done: str, nothing: str) -> None:
        """Change these in the background, and say how many that was."""
        app = self.console_app
        uids = [one.uid for one in meant]

        def work() -> str:
            with app.database(write=True) as store:
                store.refresh()
                changed = change(Queue(store), uids)
            if not changed:
                raise BadInput(nothing)
            return done.format(changed[0].id if len(changed) == 1 else counted(len(changed), "run"))

        in_background(self, work)

    def action_open(self) -> None:
        """Open the run of this one."""
        line = self.table.line
        if line is None:
            return
        if line.run:
            self.console_app.open_run(line.run)
        else:
            self.console_app.say(f"{line.one.id} has not begun yet.")

    def action_mark(self) -> None:
        """Mark it, or not any more."""
        if (line := self.table.line) is not None:
            self.table.marks ^= {line.one.uid}
            self.table.action_step(1)
            self.table.redraw()

    def action_unmark(self) -> None:
        """Mark nothing."""
        self.table.marks.clear()
        self.table.redraw()

    def action_add(self) -> None:
        """Ask for a run to be queued."""
        if not self.console_app.refuses():
            self.console_app.new_run()
            self.console_app.say(
                f"{hints.hint('form.queue', 'ctrl+n')} queues it; {hints.hint('form.start', 'ctrl+r')} starts it now."
            )

    def action_pause(self) -> None:
        """Pause it; what is paused already goes on."""
        if self.console_app.refuses() or not (meant := self._meant()):
            return
        if all(one.state == "paused" for one in meant):
            self._change(meant, Queue.resume, "{} waits for its turn again.", "It is not on hold any more.")
            return
        running = [one for one in meant if one.state == "taken"]
        done, nothing = "{} on hold.", "It neither waits nor runs: there is nothing to pause."
        if not running:
            self._change(meant, lambda queue, uids: queue.pause(uids), done, nothing)
            return
        text = f"{counted(len(running), 'run')} that goes on stops with a checkpoint, and can be gone on with."
        question = Sure("Pause", text, "pause")
        self.app.push_screen(
            question,
            lambda yes: self._change(meant, lambda queue, uids: queue.pause(uids), done, nothing) if yes else None,
        )

    def action_retry(self) -> None:
        """Have what failed tried again, and why."""
        if self.console_app.refuses() or not (meant := self._meant()):
            return
        if not any(one.state == "failed" for one in meant):
            self.console_app.say("Only what failed is tried again.", "warning")
            return
        why = next((one.reason for one in meant if one.state == "failed"), "")

        def typed(reason: str | None) -> None:
            if reason is not None:
                done = "{} waits for another try."
                self._change(meant, lambda queue, uids: queue.retry(uids, reason), done, "It does not stand as failed.")

        about_it = f"It failed: {display(why, 200)}\nWhy should it work now?" if why else "Why should it work now?"
        self.app.push_screen(Ask("Retry", "", about_it), typed)

    def action_drop(self) -> None:
        """Take it out of the queue."""
        if self.console_app.refuses() or not (meant := self._meant()):
            return
        which = meant[0].id if len(meant) == 1 else counted(len(meant), "run")
        running = any(one.state == "taken" for one in meant)

        def drop(queue: Queue, uids: Sequence[str]) -> Sequence[Queued]:
            was = {one.uid: one for one in queue.with_uids(uids)}  # not as the screen knew it: it may be behind
            dropped = queue.drop(uids)
            # What had begun, or had failed, stands otherwise afterwards: `dambench queue retry` is for that.
            if back := [was[one.uid] for one in dropped if was[one.uid].state in ("waiting", "paused")]:
                self.console_app.deleted(lambda: self._bring_back(back))
            return dropped

        text = f"Take {which} out of the queue?" + (" What goes on stops with a checkpoint." if running else "")

        def sure(yes: bool | None) -> None:
            if yes:
                self._change(meant, drop, "{} dropped.", "It is not queued any more.")

        self.app.push_screen(Sure("Drop", text, "drop"), sure)

    def _bring_back(self, dropped: Sequence[Queued]) -> str:
        """Have what was dropped before it had begun wait again, in the place that it had.

        Raises:
            BadInput: none of it is dropped any more.
        """
        with self.console_app.database(write=True) as store:
            store.refresh()
            back = Queue(store).take_back(dropped)
        if not back:
            raise BadInput("Nothing was brought back: it is not dropped any more.")
        return f"In the queue again: {counted(len(back), 'run')}."

    def action_worker(self) -> None:
        """Start a worker on this machine, or let the one that is there take nothing more."""
        if self._page is not None or (not self.console_app.refuses() and self._meant()):
            start_or_drain_worker(self)

    def action_move(self, by: Literal[1, -1]) -> None:
        """Move it by one place, among those of its priority."""
        if self.console_app.refuses() or (line := self.table.line) is None:
            return
        if line.one.state not in NOT_BEGUN:
            self.console_app.say("Only what has not begun can be moved.", "warning")
            return

        def move(queue: Queue, uids: Sequence[str]) -> Sequence[Queued]:
            # As it stands now: another key, or another console, may have moved it since it was drawn.
            waiting = queue.all("state in ('waiting', 'paused')")
            at = next((index for index, one in enumerate(waiting) if one.uid == uids[0]), None)
            if at is None:
                return []
            to = at + (by if by < 0 else 2)
            if to < 0 or to > len(waiting):
                raise BadInput("It is the first already." if by < 0 else "It is the last already.")
            return queue.move(uids, "last" if to == len(waiting) else waiting[to])

        self._change([line.one], move, "", "It has begun meanwhile.")

    def action_first(self) -> None:
        """Move it, or the marked ones, to the front."""
        if not self.console_app.refuses() and (meant := self._meant()):
            done = "{} comes first."
            self._change(meant, lambda queue, uids: queue.move(uids, "first"), done, "It has begun already.")

    def to_copy(self) -> str:
        return "\n".join(
            f"{line.one.id}\t{line.one.state}\t{line.one.what}\t{line.when}\t{line.why}" for line in self.table.lines
        )
