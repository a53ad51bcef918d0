"""Compare: the tables that `report` prints, live, with the runs behind each number."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar, NamedTuple

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.events import Resize
from textual.screen import ModalScreen
from textual.widgets import Static

from dambench.core import files
from dambench.core.errors import BadInput
from dambench.core.sanitize import display, markdown
from dambench.report import format_of, render, wording, write
from dambench.report.formats.markdown import grid
from dambench.report.verdict import notes as notes_below
from dambench.store.cells import Cell, CellKey
from dambench.store.leaderboard import Table
from dambench.store.runs import Store
from dambench.tui import hints
from dambench.tui.feed import Question
from dambench.tui.main_screen import LOW, MainScreen
from dambench.tui.models import comparison
from dambench.tui.models.comparison import (
    CHOICES,
    MOST_CURVES,
    CompareQuery,
    Comparison,
    about,
    axes_label,
    cell_text,
    choose,
    contents,
    curves,
    is_metric,
    nothing,
    runs,
    scores,
    signs,
)
from dambench.tui.queue_actions import queue_what_is_missing
from dambench.tui.resilient import Resilient
from dambench.tui.terminal.ascii_filter import plain, spelled
from dambench.tui.widgets.grid import Grid
from dambench.tui.widgets.lines import cut
from dambench.tui.widgets.pick import Ask, Pick

MOST_NOTES = 3
"""Lines of what there is to say of a table, besides its signs."""

AROUND, LEAST_GRID, LEAST_DETAILS = 2, 4, 7
"""Lines above and below all of it; that the table needs; that the cell needs, if it is there."""


class _Last(NamedTuple):
    """The last result, and what there was in the database then."""

    store: Store
    version: object
    written: tuple[object, int]
    """How often something was written that tables depend on, in which connection."""
    result: Comparison


class CompareScreen(MainScreen):
    """Tables of mean ± standard deviation, with the runs behind each number."""

    NAME: ClassVar[str] = "Compare"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "runs", "Runs", key_display="enter", tooltip="Open the runs of this cell"),
        Binding("space", "mark", "Mark", tooltip="Mark the runs of this cell"),
        Binding("c", "curves", "Curves", tooltip="The curves of marked runs, large"),
        Binding("v", "axes('rows')", "Axes", key_display="v V", tooltip="What rows, and columns, stand for"),
        Binding("V", "axes('columns')", "What columns stand for", show=False),
        Binding("p", "table(1)", "Next table", show=False, tooltip="The next table: another protocol, say"),
        Binding("P", "table(-1)", "Table before", show=False),
        Binding("s", "shows", "Values", show=False, tooltip="What cells show: spread, loss, seconds, memory"),
        Binding("m", "curve", "Losses or accuracy", show=False),
        Binding("L", "logarithm", "Logarithm of losses", show=False),
        Binding("escape", "unmark", "Unmark all", show=False),
        Binding("e", "export", "Export", tooltip="Write a report"),
        Binding(
            "Q", "fill", "Fill", show=False, tooltip="Queue what the tables lack: baselines, and seeds others have"
        ),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.rows: tuple[str, ...] = ("method",)
        self.columns: tuple[str, ...] = ("dataset", "ipc")
        self.measure = "accuracy"
        """One of wording.MEASURES, or `EVALUATOR.METRIC`: what cells show."""
        self.result: Comparison | None = None
        self.at = 0
        """The table that is shown."""
        self.marked: list[str] = []
        """Runs whose curves are drawn."""
        self.shows_losses = True
        self.logarithmic = True
        self._drawn: Comparison | None = None
        self._last: _Last | None = None
        """Only the feed's thread uses it."""

    def content(self) -> ComposeResult:
        yield Static(id="heading")
        yield Static(id="empty")
        yield Grid(ascii_=self.console_app.options.ascii, id="grid")
        with Horizontal(id="details"):
            with VerticalScroll(can_focus=False):
                yield Static(id="cell")
            yield Static(id="curves")
        yield Static(id="notes")

    def on_mount(self) -> None:
        kept = self.console_app.settings.get("compare", {})
        rows, columns = (tuple(kept.get(name, ())) for name in ("rows", "columns"))
        if rows in CHOICES and columns in CHOICES and not set(rows) & set(columns):
            self.rows, self.columns = rows, columns
        measure = str(kept.get("measure", ""))
        if measure in wording.MEASURES or "." in measure:
            self.measure = measure
        self.query_one(Grid).focus()

    def question(self) -> Question:
        return partial(self._find, query=self._query())

    def _query(self) -> CompareQuery:
        return CompareQuery(self.rows, self.columns, tuple(self.marked), self.measure if "." in self.measure else "")

    def _find(self, store: Store, query: CompareQuery) -> Comparison:
        # What was written by others, and by this store itself, which takes in what is on a network disk.
        version, last = store.version(), self._last
        if last is not None and last.store is store and last.version == version and last.result.query == query:
            return last.result
        # Many runs are much to add up each second, when nothing was written that the tables can depend on.
        written = store.db, store.revision()
        asked = query._replace(marked=())
        is_same = last is not None and last.written == written and last.result.query._replace(marked=()) == asked
        result = comparison.find(store, *query, board=last.result.board if last is not None and is_same else None)
        if last is not None and result == last.result:
            result = last.result  # which is drawn already
        self._last = _Last(store, version, written, result)
        return result

    def forget(self) -> None:
        super().forget()
        self.result = self._drawn = None
        self._blank("")

    def show(self, result: Comparison | None) -> bool:
        if result is None:
            self.result = self._drawn = None
            name = display(str(self.console_app.path))
            self._blank(
                f"Nothing to compare: there is no database {name!r}.\n\n"
                f"{hints.hint('everywhere.new', 'n'):<3} asks for a run, and makes it"
            )
            return True
        if result.query != self._query():
            return False  # something else was asked for since
        if result is self._drawn:
            return True
        self.result = self._drawn = result
        if result.gone:
            self.marked = [run for run in self.marked if run not in result.gone]
            self.console_app.say(f"Marked, but not in the database any more: {', '.join(result.gone)}.", "warning")
        self.at = min(self.at, max(0, len(result.board.tables) - 1))
        self._draw()
        return True

    def compare(self, run_ids: Sequence[str]) -> None:
        """Mark these runs."""
        self.marked = list(run_ids)
        if self.is_current:  # otherwise it is drawn once it is
            self._draw()
            self.ask()

    # What is shown.

    @property
    def table(self) -> Table | None:
        tables = self.result.board.tables if self.result else []
        return tables[self.at] if tables else None

    @property
    def here(self) -> CellKey | None:
        """Row and column of the cell that the keys are on."""
        grid, table = self.query_one(Grid), self.table
        if table is None or grid.row >= len(table.rows) or grid.column >= len(table.columns):
            return None
        return table.rows[grid.row], table.columns[grid.column]

    @property
    def cell(self) -> Cell | None:
        return self.table.cells.get(self.here) if self.table and self.here else None

    def _draw(self) -> None:
        if self.result is None:
            return
        table = self.table
        if table is None:
            self._blank(nothing(self.result))
            return
        self.query_one("#empty").display = False
        self.query_one("#grid").display = True
        if self.focused is None:  # it was hidden, and the keys would go nowhere
            self.call_after_refresh(self.set_focus, self.query_one(Grid))
        heading = self._heading()
        notes = self.query_one("#notes", Static)
        marks = {
            (row, column)
            for row, r in enumerate(table.rows)
            for column, c in enumerate(table.columns)
            if (cell := table.cells.get((r, c))) and set(runs(cell)) & set(self.marked)
        }
        grid = self.query_one(Grid)
        rows, columns = self.result.query[:2]
        grid.show(contents(self.result.board, table, rows, columns, self.measure), marks)
        legend = self._wrapped(" ".join(signs(table, self.measure)))
        sentences = [display(note, 300) for note in notes_below(self.result.board, table, rows, columns)]
        if self.result.board.left_out:
            sentences.append(f"Left out: {self.result.board.left_out} unfinished.")
        rest = self._wrapped(" ".join(sentences))
        # The signs of what is seen are explained whatever else there is no room for.
        room = self.size.height - AROUND - self.query_one("#trouble").outer_size.height - heading - len(legend)
        most = 1 if self.size.height < LOW else MOST_NOTES
        result = cut(
            rest,
            self.size.width - 2,
            max(1, min(most, room - LEAST_GRID)),
            f"… {hints.hint('everywhere.copy', 'y')} copies all",
        )
        room -= len(result)
        details = room >= LEAST_GRID + LEAST_DETAILS
        self.query_one("#details").display = details
        grid.styles.max_height = max(LEAST_GRID, room - (LEAST_DETAILS if details else 0))
        notes.update(Text("\n").join([*legend, *result]))
        self._cell()
        self._curves()

    def _blank(self, text: str) -> None:
        """Say why there is no table."""
        empty = self.query_one("#empty", Static)
        empty.update(Text(text))
        empty.display = True
        for name in ("#grid", "#details"):
            self.query_one(name).display = False
        self.query_one("#notes", Static).update("")
        self._heading()

    def _wrapped(self, text: str) -> list[Text]:
        text = plain(spelled(text)) if self.console_app.options.ascii else text
        return list(Text(text).wrap(self.app.console, max(20, self.size.width - 2))) if text else []

    def _heading(self) -> int:
        """Say what the table is; returns on how many lines."""
        text = Text()
        tables = self.result.board.tables if self.result else []
        if self.table is not None:
            title = wording.title(self.table)
            if self.measure in ("loss", "seconds", "peak"):
                title = title.replace("Accuracy in %", wording.MEASURES[self.measure].partition(",")[0].capitalize(), 1)
            text.append(title, "bold")
            text.append("\n")
        text.append(f"rows: {axes_label(self.rows)}   columns: {axes_label(self.columns)}")
        if len(tables) > 1:
            text.append(f"   table {self.at + 1} of {len(tables)}")
        if self.marked:
            text.append(f"   {len(self.marked)} run{'s' if len(self.marked) > 1 else ''} marked")
        lines = text.wrap(self.app.console, max(20, self.size.width - 2))
        self.query_one("#heading", Static).update(Text("\n").join(lines))
        return len(lines)

    def _cell(self) -> None:
        if self.result is None or self.table is None or self.here is None:
            return
        text = Text()
        rows, columns = self.result.query[:2]
        for index, line in enumerate(
            about(self.result.board, self.table, rows, columns, self.here, self.result.metrics)
        ):
            style = "bold" if index == 0 else ""
            text.append((spelled(line) if self.console_app.options.ascii else line) + "\n", style)
        text.rstrip()
        self.query_one("#cell", Static).update(text)

    def _curves(self) -> None:
        if isinstance(self.app.screen, Curves):
            self.app.screen.draw()
        pane = self.query_one("#curves", Static)
        if not pane.display or self.result is None:
            return
        width, height = max(20, pane.size.width), max(5, pane.size.height)
        pane.update(self.drawn_curves(width, height))

    def drawn_curves(self, width: int, height: int) -> Text:
        """The curves of the marked runs."""
        if self.result is None or not self.marked:
            return Text(
                f"{hints.hint('compare.mark', 'space')} marks a cell: "
                "the curves of its runs are drawn here, over each other."
            )
        series = self.result.losses if self.shows_losses else self.result.accuracies
        name = "loss" if self.shows_losses else "test accuracy in %"
        axis = ", logarithmic" if self.logarithmic and self.shows_losses else ""
        text = Text().append(f"{name} over iterations{axis}", "bold")
        text.append(f"   m: {'accuracy' if self.shows_losses else 'losses'}")
        text.append(f"  L: {'linear' if self.logarithmic else 'logarithmic'}\n" if self.shows_losses else "\n")
        return text.append_text(
            curves(series, width, height - 1, self.logarithmic and self.shows_losses, self.console_app.options.ascii)
        )

    def on_grid_cell_highlighted(self) -> None:
        self._cell()

    def on_resize(self, event: Resize) -> None:
        self.call_after_refresh(self._draw)

    # Keys.

    async def action_axes(self, which: str) -> None:
        """Choose what rows, or columns, stand for."""
        now = self.rows if which == "rows" else self.columns

        def chosen(choice: str | None) -> None:
            if choice is not None:
                self._take(which, tuple(choice.split(",")))

        options = [(axes_label(choice), ",".join(choice)) for choice in CHOICES]
        self.app.push_screen(Pick(f"What {which} stand for", options, ",".join(now)), chosen)

    def _take(self, which: str, axes: tuple[str, ...]) -> None:
        self.rows, self.columns = choose(self.rows, self.columns, which, axes)
        self._keep()
        self.at = 0
        self.ask()

    def _keep(self) -> None:
        kept = {"rows": list(self.rows), "columns": list(self.columns), "measure": self.measure}
        self.console_app.settings.set("compare", kept)

    def action_shows(self) -> None:
        """Choose what cells show."""

        def chosen(choice: str | None) -> None:
            if choice is not None:
                self.measure = choice
                self._keep()
                self._draw()
                self.ask()

        ascii_ = self.console_app.options.ascii
        choices = wording.MEASURES | {
            metric.full_name: f"{wording.metric_label(metric)}: {metric.description}"
            for metric in (self.result.metrics if self.result else ())
            if metric.full_name not in ("accuracy.accuracy", "accuracy.loss")
        }
        options = [(spelled(about) if ascii_ else about, name) for name, about in choices.items()]
        self.app.push_screen(Pick("What cells show", options, self.measure), chosen)

    def action_table(self, by: int) -> None:
        """Another table: of another protocol, or whatever is neither on rows nor on columns."""
        tables = self.result.board.tables if self.result else []
        if len(tables) < 2:
            self.console_app.say("There is one table only: what could differ is on its rows or columns.")
            return
        self.at = (self.at + by) % len(tables)
        self._draw()

    def action_runs(self) -> None:
        """Open the runs of this cell."""
        cell = self.cell
        if cell is None:
            self.console_app.say(
                f"Nothing was run for this cell yet: {hints.hint('everywhere.new', 'n')} asks for a new run."
            )
            return
        which = runs(cell)
        if len(which) == 1:
            self.console_app.open_run(which[0])
            return

        def chosen(run: str | None) -> None:
            if run is not None:
                self.console_app.open_run(run)

        options = [(f"{run}  {scores(cell, run)}", run) for run in which]
        self.app.push_screen(Pick(f"{len(which)} runs of this cell", options), chosen)

    def action_mark(self) -> None:
        """Mark the runs of this cell, to see their curves."""
        cell = self.cell
        if cell is None:
            self.console_app.say("There is no run to mark in this cell.")
            return
        which = runs(cell)
        if set(which) <= set(self.marked):
            self.marked = [run for run in self.marked if run not in which]
        else:
            self.marked += [run for run in which if run not in self.marked]
            if len(self.marked) > MOST_CURVES:
                self.console_app.say(f"More than {MOST_CURVES} runs are marked: the last {MOST_CURVES} are drawn.")
        self._draw()
        self.ask()

    def action_unmark(self) -> None:
        """Mark nothing."""
        self.compare([])

    def action_curve(self) -> None:
        """Losses, or accuracy."""
        self.shows_losses = not self.shows_losses
        self._curves()

    def action_logarithm(self) -> None:
        """Losses on a logarithmic axis, or not."""
        self.logarithmic = not self.logarithmic
        self._curves()

    def action_curves(self) -> None:
        """The curves of marked runs, large."""
        if not self.marked:
            self.console_app.say(f"Nothing is marked: {hints.hint('compare.mark', 'space')} marks the runs of a cell.")
            return
        self.app.push_screen(Curves(self))

    def to_copy(self) -> str:
        if self.result is None or self.table is None:
            return ""
        board, table, (rows, columns) = self.result.board, self.table, self.result.query[:2]
        if is_metric(self.measure):
            return render("markdown", replace(board, tables=[table]), rows, columns, short=True)
        lines = wording.lines(table, rows, lambda cell: wording.measure(board, cell, self.measure))
        head = [axes_label(rows), *(wording.name(columns, column) for column in table.columns)]
        cells = [[name, *(cell_text(entry) or wording.MISSING for entry in entries)] for name, entries in lines]
        return f"{grid([list(map(markdown, line)) for line in [head, *cells]])}\n\n{wording.MEASURES[self.measure]}\n"

    def action_fill(self) -> None:
        """Queue what the tables lack, once that was said."""
        queue_what_is_missing(self, self.rows, self.columns)

    def action_export(self) -> None:
        """Write the report, as `dambench report` does."""
        if self.result is None or self.console_app.refuses():
            return
        board, (rows, columns) = self.result.board, self.result.query[:2]

        def chosen(choice: str | None) -> None:
            if not choice:
                return
            try:
                path = files.user_path(choice)
                write(path, render(format_of(None, path, short=False), board, rows, columns))
            except (BadInput, OSError) as error:
                self.console_app.say(str(error), "error")
                return
            self.console_app.say(f"Written: {path.absolute()}")

        about = "All tables, as these rows and columns. The suffix decides:\n.md .tex .csv .html .json"
        self.app.push_screen(Ask("Write a report", str(Path("report.md")), about), chosen)


class Curves(Resilient, ModalScreen[None]):
    """The curves of marked runs, as large as the terminal."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,c,q", "dismiss", "Back"),
        Binding("m", "other('curve')", "Losses or accuracy"),
        Binding("L", "other('logarithm')", "Logarithm of losses"),
    ]

    def __init__(self, place: CompareScreen):
        super().__init__()
        self._place = place

    def compose(self) -> ComposeResult:
        yield Static(id="large")

    def on_resize(self, event: Resize) -> None:
        self.draw()

    def draw(self) -> None:
        """Draw what the place has found."""
        width, height = self.app.size
        text = self._place.drawn_curves(width - 2, height - 1)
        self.query_one("#large", Static).update(text)

    def action_other(self, name: str) -> None:
        getattr(self._place, f"action_{name}")()
