"""Runs: all runs of the database, a line each; the one under the cursor at a glance; and what can be done with them."""

import json
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.timer import Timer
from textual.widgets import Input, Static

from dambench.core.errors import BadInput
from dambench.core.sanitize import counted, display
from dambench.runner import processes
from dambench.store import filters, listing
from dambench.store.filters import Filter
from dambench.store.rows import ListedRun, RunRow
from dambench.store.runs import Store
from dambench.tui import hints, queue_actions, run_actions
from dambench.tui.feed import Question
from dambench.tui.main_screen import MainScreen
from dambench.tui.models.columns import COLUMNS, SORTED_AS, markdown_table, plain, usual
from dambench.tui.models.runs_page import (
    ABOUT,
    FIRST,
    RunsPage,
    RunsQuery,
    RunsReader,
    course,
    facts,
    title,
    trouble,
    wide_course,
)
from dambench.tui.terminal import refresh_rate
from dambench.tui.widgets.entry import Entry
from dambench.tui.widgets.lines import cut
from dambench.tui.widgets.pick import Ask, Pick
from dambench.tui.widgets.runs_table import RunsTable
from dambench.tui.widgets.sure import Several

RESTING = 1.0
"""Seconds after which the run under the cursor is remembered."""

TYPING = 0.3
"""Seconds without a key after which a filter that is being typed is applied."""

SAVED = {
    "running": "state:running|waiting",
    "lost or failed": "state:lost|failed|silent",
    "this week": "age<7d",
    "finished today": "state:finished age<24h",
}
"""Filters that everybody has."""

UPWARDS = ("method", "dataset", "network", "protocol", "name", "host", "state", "run", "ipc", "seed")
"""Columns that begin with their smallest value."""


class RunsScreen(run_actions.RunActionsScreen):
    """All runs."""

    NAME: ClassVar[str] = "Runs"
    AUTO_FOCUS: ClassVar[str | None] = "RunsTable"
    """Never the filter: keys are keys, also where there is no run yet."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open", key_display="enter"),
        Binding("space", "mark", "Mark"),
        Binding("c", "compare", "Compare", tooltip="Compare it with all; where several are marked, these alone"),
        # First of all: what is typed after it must not reach the table, however fast it comes.
        Binding("slash", "filter", "Filter", key_display="/", priority=True),
        run_actions.RunActionsScreen.STOP,
        Binding("s", "sort", "Sort", show=False, tooltip="Sort by a column; again: the other way round"),
        Binding("C", "columns", "Columns", show=False, tooltip="Choose columns"),
        Binding("F", "filters", "Filters", show=False, tooltip="Saved filters"),
        Binding("R", "again", "Run again", show=False, tooltip="Run it again: the form, filled"),
        Binding("Q", "queue", "Queue", show=False, tooltip="Queue it, or the marked ones, again with other seeds"),
        run_actions.RunActionsScreen.RESUME,
        run_actions.RunActionsScreen.KILL,
        Binding("t", "tag", "Tag", show=False, tooltip="Tag it, or the marked ones"),
        Binding("N", "note", "Note", show=False, tooltip="Write a note to it"),
        Binding("D", "delete", "Delete", show=False, tooltip="Put it, or the marked ones, into the trash"),
        Binding("z", "zoom", "Zoom", show=False, tooltip="The table alone"),
        Binding("escape", "back", "Back", show=False, tooltip="Clear the filter, then the marks"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._reader = RunsReader()
        self._filter = Filter("", [])
        self._page: RunsPage | None = None
        self._key_pressed = False
        """A key was pressed since the last answer: then it is drawn at once."""
        self._drawn = 0.0
        self._typing: Timer | None = None
        self._resting: Timer | None = None
        self._begin = ""
        """The run to begin at; empty once it was found, or not."""

    # What is on the screen.

    def content(self) -> ComposeResult:
        with Horizontal(id="line"):
            yield Static(Text(" / ", "bold"), id="slash")
            entry = Entry(placeholder="all runs", id="filter", compact=True)
            entry.cursor_blink = False
            yield entry
            yield Static(id="counts")
        yield Static(id="wrong")
        yield Static(id="empty")
        yield RunsTable(ascii_only=self.console_app.options.ascii)
        with Horizontal(id="strips"):
            yield Static(id="strip")
            yield Static(id="facts")

    def on_mount(self) -> None:
        settings = self.console_app.settings
        self.table.order = settings.get("runs.order", "age")
        if self.table.order not in listing.ORDERS:
            self.table.order = "age"
        self.table.down = settings.get("runs.down", True)
        self.set_class(settings.get("runs.zoomed", False), "-zoomed")
        self.set_class(self.console_app.options.ascii, "-ascii")
        with suppress(BadInput):
            self._filter = filters.read(settings.get("runs.filter", ""))
        self._begin = settings.get("runs.run", "")
        self._choose_columns()
        self._show_filter()
        self.set_focus(self.table)

    @property
    def table(self) -> RunsTable:
        return self.query_one(RunsTable)

    def on_resize(self) -> None:
        self._choose_columns()
        self.set_class(self.size.height < 20, "-low")

    def _choose_columns(self) -> None:
        chosen = [name for name in self.console_app.settings.get("runs.columns", []) if name in COLUMNS]
        self.table.columns, self.table.chosen = chosen or usual(self.app.size.width), bool(chosen)
        self.table.measure()
        self._head()

    def question(self) -> Question:
        table = self.table
        query = RunsQuery(self._filter, table.order, table.down)
        return partial(self._reader.read, query=query, number=table.number, at=table.at, begin=self._begin)

    def ask(self) -> None:
        self._key_pressed = True
        super().ask()

    def forget(self) -> None:
        super().forget()
        if (row := self.table.row) is not None:
            self._begin = row.id
        self._reader, self._page, self._key_pressed = RunsReader(), None, True
        self.table.clear()
        self._head()
        self._update("#strip", Text())
        self._update("#facts", Text())

    def show(self, page: RunsPage | None) -> bool:
        if page is not None and page.query != RunsQuery(self._filter, self.table.order, self.table.down):
            return False  # another one was asked for since
        now = time.monotonic()
        every = refresh_rate.NUMBERS * self.console_app.options.refresh
        if not self._key_pressed and (now - self._drawn < every or refresh_rate.backlog(self.app)):
            return False
        anew = page is None or self._page is None or page.query != self._page.query
        self._key_pressed, self._drawn, self._page = False, now, page
        if page is None:
            self._empty(f"There is no database {display(str(self.console_app.path))!r} yet.", first=True)
            self._head()
            return True
        self._unmark_gone(page)
        if not page.of:
            self._empty(f"No runs in {display(str(self.console_app.path))!r} yet.", first=True)
        elif not page.numbers:
            self._empty(
                f"No run is meant by the filter {display(self._filter.text)!r}.\n\n"
                f"{hints.hint('runs.back', 'esc'):<5} clear it\n"
                f"{hints.hint('runs.filter', '/'):<5} change it"
            )
        else:
            self._welcome(page)
            self.remove_class("-empty")
            if self.focused is None:  # it was hidden
                self.call_after_refresh(self.set_focus, self.table)
        before = self.table.number
        if anew and before not in page.numbers:
            self.table.numbers, self.table.at = (), 0
        if self._begin and page.here is not None:
            self.table.at, self._begin = page.numbers.index(page.here), ""
        self.table.fill(page.numbers, page.rows)
        self._head()
        self._strip()
        if before is not None and before != self.table.number:
            self.ask()  # the run under the cursor has gone from the list
        return True

    def _welcome(self, page: RunsPage) -> None:
        """Say once where these runs come from, to somebody who has made none of them."""
        if not self.console_app.settings.get("runs.welcomed", False):
            self.console_app.settings.set("runs.welcomed", True)
            here = socket.gethostname()
            if all(row.host != here for row in page.rows.values()):
                self.console_app.say(
                    "These runs were made on another machine: the ledger that comes with dambench, or a colleague's. "
                    f"{hints.hint('everywhere.new', 'n')} begins one of yours, {hints.hint('everywhere.place-3', '3')} "
                    f"compares them, {hints.hint('everywhere.help', '?')} lists the keys."
                )

    def _unmark_gone(self, page: RunsPage) -> None:
        marks = self.table.marks
        if marks:
            there = set(page.numbers)
            for number, uid in list(marks.items()):
                row = page.rows.get(number)
                if number not in there or (row is not None and row.uid != uid):  # another run has its number now
                    del marks[number]

    def _empty(self, text: str, *, first: bool = False) -> None:
        if first:
            new = hints.hint("everywhere.new", "n")
            how = f"{new:<5} start one (handwritten digits, no download, seconds on a CPU)\nor    {FIRST}"
            text = f"{ABOUT}\n{text}\n\n{how}"
        self.query_one("#empty", Static).update(Text(self._signs(text)))
        self.add_class("-empty")

    def _signs(self, text: str) -> str:
        return plain(text) if self.console_app.options.ascii else text

    def _head(self) -> None:
        """The line above the table."""
        page, marks = self._page, len(self.table.marks)
        counts = []
        if page is not None:
            filtered = page.query.filter.text  # of what is in the table: another one may be asked for already
            counts.append(f"{len(page.numbers)} of {page.of}" if filtered else counted(page.of, "run"))
            unfinished = {state: page.stands.count(state) for state in ("running", "waiting", "silent", "lost")}
            counts += [f"{number} {state}" for state, number in unfinished.items() if number]
        counts += [f"{marks} marked"] if marks else []
        counts += [f"no room for {counted(self.table.left_out, 'column')}"] if self.table.left_out else []
        self._update("#counts", Text("  ".join(counts)), layout=True)

    def _update(self, selector: str, text: Text, *, layout: bool = False) -> None:
        """Draw a text that has changed."""
        widget = self.query_one(selector, Static)
        if text != getattr(widget, "last", None):
            widget.last = text  # type: ignore[attr-defined]
            widget.update(text, layout=layout)

    def _fitted(self, selector: str, lines: Sequence[str], indent: str = "") -> Text:
        """Lines for a widget, wrapped; a sign says so where there are more than it has room for."""
        size = self.query_one(selector, Static).size
        texts = [Text(self._signs(line)) for line in lines]
        if size.height:
            width = max(10, size.width - len(indent))
            texts = [
                piece
                for text in texts
                for piece in ([text] if text.cell_len <= width else text.wrap(self.app.console, width))
            ]
            texts = cut(texts, width, size.height, self._signs("…"))
        return Text("\n").join(Text(indent) + text for text in texts)

    # The run under the cursor.

    def _strip(self) -> None:
        row, page = self.table.row, self._page
        if row is None or page is None:
            return
        wide = self.app.size.width >= 140
        ascii_only = self.console_app.options.ascii
        lines = [title(row, facts=not wide)]
        if wide:
            lines += wide_course(row, page.glance, ascii_only=ascii_only)
        else:
            lines.append(course(row, page.glance, ascii_only=ascii_only))
        if row.stands in ("lost", "silent") or row.error:
            lines.append(trouble(row))
        if not wide:
            lines += facts(row)
        self._update("#strip", self._fitted("#strip", lines, " "))
        self._update("#facts", self._fitted("#facts", facts(row, wide=True)))

    def on_runs_table_run_highlighted(self) -> None:
        if self.table.row is not None and self._page is not None:
            # What is known at once; the rest in a moment.
            self._page = self._page._replace(glance=None)
        if self._resting is not None:
            self._resting.stop()
        self._resting = self.set_timer(RESTING, self._remember)
        self.ask()

    def _remember(self) -> None:
        if (row := self.table.row) is not None:
            self.console_app.settings.set("runs.run", row.id)

    # Which runs, and how.

    @property
    def typing(self) -> bool:
        """A filter is being typed."""
        return self.focused is self.query_one("#filter")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return not (action == "filter" and self.typing)  # then it is a character

    def action_filter(self) -> None:
        # At once: the next key is meant for it already.
        self.set_focus(self.query_one("#filter"))

    def on_input_changed(self, event: Input.Changed) -> None:
        if self._typing is not None:
            self._typing.stop()
        try:
            query = filters.read(event.value)
        except BadInput as error:
            self._say_wrong(str(error))
            return
        self._say_wrong("")
        self._typing = self.set_timer(TYPING, partial(self._apply, query))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        try:
            self._apply(filters.read(event.value))
        except BadInput as error:
            self._say_wrong(str(error))
            return
        self._leave_filter()

    def _apply(self, query: Filter) -> None:
        if query.text != self._filter.text:
            self._filter = query
            self.console_app.settings.set("runs.filter", query.text)
            if not self.typing:
                self._show_filter()
            self._head()
            self.ask()

    def _say_wrong(self, sentence: str) -> None:
        wrong = self.query_one("#wrong", Static)
        wrong.display = bool(sentence)
        wrong.update(Text(self._signs(display(sentence, 300))))

    def _show_filter(self) -> None:
        entry = self.query_one("#filter", Input)
        with entry.prevent(Input.Changed):
            entry.value = display(self._filter.text)

    def _leave_filter(self) -> None:
        if self._typing is not None:
            self._typing.stop()
        self._say_wrong("")
        self._show_filter()
        self.set_focus(self.table)

    def action_back(self) -> None:
        if self.typing:
            self._leave_filter()
        elif self._filter.text:
            self._apply(Filter("", []))
        elif self.table.marks:
            self.table.marks.clear()
            self._marked()

    def action_filters(self) -> None:
        """Saved filters."""
        settings = self.console_app.settings
        own = settings.get("runs.filters", {}, fresh=True)
        filters_by_name = SAVED | {str(name): str(text) for name, text in own.items()}
        options = [(f"{name:<18} {text}", text) for name, text in filters_by_name.items()]
        if self._filter.text and self._filter.text not in filters_by_name.values():
            options.append((f"save {self._filter.text!r} …", "+"))
        if self._filter.text in own.values():
            options.append((f"forget {self._filter.text!r}", "-"))

        def chosen(text: str | None) -> None:
            if text == "+":
                self.app.push_screen(Ask("Save the filter as", ""), save)
            elif text == "-":
                now = settings.get("runs.filters", {}, fresh=True)
                settings.set("runs.filters", {name: kept for name, kept in now.items() if kept != self._filter.text})
            elif text is not None:
                with suppress(BadInput):
                    self._apply(filters.read(text))

        def save(name: str | None) -> None:
            if name and name.strip():
                now = settings.get("runs.filters", {}, fresh=True)
                settings.set("runs.filters", now | {name.strip(): self._filter.text})

        self.app.push_screen(Pick("Filters", options, self._filter.text), chosen)

    def action_sort(self) -> None:
        names = [name for name in COLUMNS if SORTED_AS.get(name, name) in listing.ORDERS and name not in SORTED_AS]
        options = [(f"{COLUMNS[name].title:<13} {COLUMNS[name].meaning}", name) for name in names]
        self.app.push_screen(Pick("Sort by", options, self.table.order), self._sort)

    def _sort(self, name: str | None) -> None:
        if name is None:
            return
        table, settings = self.table, self.console_app.settings
        table.down = not table.down if name == table.order else name not in UPWARDS
        table.order, table.at = name, 0
        settings.set("runs.order", name)
        settings.set("runs.down", table.down)
        table.numbers = ()
        self.ask()

    def action_columns(self) -> None:
        shown = self.table.columns
        # The order in which they are shown stays.
        names = [*shown, *(name for name in COLUMNS if name not in shown)]
        options = [(f"{COLUMNS[name].title:<13} {COLUMNS[name].meaning}", name, name in shown) for name in names]

        def chosen(names_chosen: list[str] | None) -> None:
            if names_chosen is not None:
                # None at all, or the usual ones: then as the width of the terminal has it.
                own = [] if names_chosen == usual(self.app.size.width) else names_chosen
                self.console_app.settings.set("runs.columns", own)
                self._choose_columns()

        self.app.push_screen(Several("Columns", options), chosen)

    def action_zoom(self) -> None:
        self.toggle_class("-zoomed")
        self.console_app.settings.set("runs.zoomed", self.has_class("-zoomed"))

    def action_mark(self) -> None:
        if (row := self.table.row) is not None:
            if self.table.marks.pop(row.number, None) is None:
                self.table.marks[row.number] = row.uid
            self.table.action_step(1)
            self._marked()

    def _marked(self) -> None:
        self.table.redraw()
        self._head()

    def _rows(self, *, marked: bool = True) -> list[RunRow]:
        """Whole rows of what is meant: the marked runs, else the one under the cursor.

        Raises:
            BadInput: the database, or one of them, is not there any more.
        """
        row = self.table.row
        uids = [self.table.marks[number] for number in sorted(self.table.marks)] if marked else []
        uids = uids or ([] if row is None else [row.uid])

        def with_uids(store: Store) -> list[RunRow]:
            return [row for uid in uids if (row := store.with_uid(uid)) is not None]

        rows: list[RunRow] = self.read_now(with_uids)
        if len(rows) < len(uids):
            raise BadInput(f"{len(uids) - len(rows)} of the runs that are meant are not in the database any more.")
        return rows

    def front_state(self) -> str:
        return "" if self.table.row is None else self.table.row.stands

    def front_row(self) -> ListedRun | None:
        return self.table.row

    def idle_actions(self) -> set[str]:
        table, idle = self.table, super().idle_actions()
        if table.row is None and table.number is not None:
            return set(self._idle or ())  # it is being read
        if table.marks:
            return idle - {"copy"}
        if table.row is None:
            idle |= {"open", "mark", "compare", "again", "queue", "tag", "note", "delete"}
        elif table.row.evaluates:
            idle.add("queue")
        if self.front_state() in processes.ALIVE:
            idle.add("delete")
        return idle if self._filter.text or self.typing else idle | {"back"}

    def selected_run(self) -> RunRow | None:
        """The whole row under the cursor, whatever is marked."""
        rows = self._rows(marked=False)
        return rows[0] if rows else None

    def to_copy(self) -> str:
        """The id of the run under the cursor, or the marked runs as a table."""
        row = self.table.row
        if not self.table.marks:
            return "" if row is None else str(row.id)
        marks = [number for number in self.table.numbers if number in self.table.marks]
        rows = self.read_now(lambda store: listing.page(store, marks, self._reader.stands))
        shown = [rows[number] for number in marks if number in rows]
        return markdown_table(self.table.columns, shown)

    # Elsewhere.

    def action_open(self) -> None:
        if (row := self.table.row) is not None:
            self.console_app.open_run(row.id)

    def action_compare(self) -> None:
        if rows := self._rows():
            self.console_app.compare_runs([row.id for row in rows])

    def action_again(self) -> None:
        if self.console_app.refuses() or (row := self.selected_run()) is None:
            return
        if json.loads(row.config).get("where", {}).get("made"):
            run_actions.evaluate_again(self, row)
        else:
            self.console_app.new_run(row)

    # What changes something.

    def changed(self) -> None:
        self._reader.until = 0.0

    def action_tag(self) -> None:
        self._edit(run_actions.tag)

    def action_note(self) -> None:
        self._with_row(run_actions.note)

    def action_delete(self) -> None:
        self._edit(run_actions.delete)

    def action_queue(self) -> None:
        self._edit(queue_actions.queue_again)

    def _edit(self, edit: Callable[[MainScreen, Sequence[RunRow]], None]) -> None:
        """Edit the marked runs, else the one under the cursor."""
        if not self.console_app.refuses() and (rows := self._rows()):
            edit(self, rows)
