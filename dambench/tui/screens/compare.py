"""Compare: the tables that `report` prints, live, with the runs behind each number."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.events import Resize
from textual.widgets import Static

from dambench.core import files
from dambench.core.errors import BadInput
from dambench.core.sanitize import display
from dambench.report import format_of, quantities, render, wording, write
from dambench.report.arrangement import Arrangement, arranged, names_in
from dambench.report.document import DocumentQuery
from dambench.report.quantities import TableView
from dambench.report.verdict import notes as notes_below
from dambench.store import filters, grouping
from dambench.store.cells import Cell, CellKey
from dambench.store.leaderboard import Leaderboard, Table
from dambench.store.metrics import ACCURACY
from dambench.store.runs import Store
from dambench.tui import hints
from dambench.tui.arrange_actions import CHOOSE_KEYS, ask_for_axes, ask_for_names
from dambench.tui.feed import Question
from dambench.tui.main_screen import LOW, MainScreen
from dambench.tui.models import comparison
from dambench.tui.models.arranging import names_of
from dambench.tui.models.compare_choices import FORMATS, CompareChoices, read
from dambench.tui.models.comparison import (
    HEATS,
    MOST_CURVES,
    CompareQuery,
    Comparison,
    about,
    axes_label,
    contents,
    curves,
    nothing,
    runs,
    signs,
    to_choose,
)
from dambench.tui.queue_actions import queue_what_is_missing
from dambench.tui.screens.compare_boxes import CellTree, Curves, Intervals, RunsTree, TableBox
from dambench.tui.terminal.ascii_filter import plain, spelled
from dambench.tui.widgets.grid import Grid
from dambench.tui.widgets.lines import cut
from dambench.tui.widgets.pick import Ask, Pick
from dambench.tui.widgets.sure import Several

MOST_NOTES = 3
"""Lines of what there is to say of a table, besides its signs."""

AROUND, LEAST_ROWS, LEAST_DETAILS = 2, 4, 5
"""Lines above and below all of it; rows that are seen of the table; lines of the cell, if it is there."""


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
        Binding("enter", "runs", "Open", key_display="enter", tooltip="Open this cell: its sets, networks and runs"),
        Binding("space", "mark", "Mark", tooltip="Mark the runs of this cell"),
        Binding("c", "curves", "Curves", show=False, tooltip="The curves of marked runs, large"),
        Binding("v", "axes('rows')", "Axes", key_display="v V", tooltip="What rows, and columns, stand for"),
        Binding("V", "axes('columns')", "What columns stand for", show=False),
        Binding("p", "table(1)", "Next table", show=False, tooltip="The next table: another protocol, say"),
        Binding("P", "table(-1)", "Table before", show=False),
        Binding("slash", "filter", "Filter", key_display="/", tooltip="Which runs are compared"),
        Binding("s", "shows", "Values", tooltip="What cells show: mean, rank, published, gap, energy, …"),
        Binding("M", "metric", "Metric", show=False, tooltip="Which metric the tables are of"),
        Binding("o", "order", "Order", show=False, tooltip="Rows by this column, the best first; again: as they come"),
        *CHOOSE_KEYS,
        Binding("H", "heat", "Heat", show=False, tooltip="How good each mean is in its column, as colour and bar"),
        Binding("i", "intervals", "Intervals", show=False, tooltip="This column's means, intervals and sets by seed"),
        Binding("T", "tree", "Tree", show=False, tooltip="All runs in groups, with the mean of each"),
        Binding("Y", "copy_as", "Copy as", show=False, tooltip="Copy the table as markdown, LaTeX or CSV"),
        Binding("m", "curve", "Losses or accuracy", show=False),
        Binding("L", "logarithm", "Logarithm of losses", show=False),
        Binding("escape", "unmark", "Unmark all", show=False),
        Binding("e", "export", "Export", show=False, tooltip="Write a report"),
        Binding(
            "Q", "fill", "Fill", show=False, tooltip="Queue what the tables lack: baselines, and seeds others have"
        ),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.choices = CompareChoices()
        self.result: Comparison | None = None
        self.at = 0
        """The table that is shown."""
        self.marked: list[str] = []
        """Runs whose curves are drawn."""
        self.shows_losses = True
        self.logarithmic = True
        self._drawn: Comparison | None = None
        self._arranged: tuple[Leaderboard, Arrangement, Leaderboard] | None = None
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
        self.choices = read(self.console_app.settings.get("compare", {}))
        self.query_one(Grid).focus()

    def question(self) -> Question:
        return partial(self._find, query=self._query())

    def _query(self) -> CompareQuery:
        now = self.choices
        return CompareQuery(now.rows, now.columns, tuple(self.marked), now.metric, now.only)

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

    def _outdate(self) -> None:
        """Boxes that are open show what was."""
        for box in self.app.screen_stack:
            if isinstance(box, TableBox):
                box.say_outdated()

    def forget(self) -> None:
        super().forget()
        self._outdate()
        self.result = self._drawn = None
        self._blank("")

    def show(self, result: Comparison | None) -> bool:
        if result is None:
            self._outdate()
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
        if self._drawn is not None and self._drawn.board is not result.board:
            self._outdate()
        self.result = self._drawn = result
        if result.gone:
            self.marked = [run for run in self.marked if run not in result.gone]
            self.console_app.say(f"Marked, but not in the database any more: {', '.join(result.gone)}.", "warning")
        self.at = min(self.at, max(0, len(self.tables) - 1))
        self._draw()
        return True

    def compare(self, run_ids: Sequence[str]) -> None:
        """Mark these runs; of several, compare no others."""
        self.marked = list(run_ids)
        if len(self.marked) > 1:
            only = f"id={'|'.join(self.marked)}"
            try:
                filters.read(only, to_compare=True)
            except BadInput:
                self.console_app.say(
                    f"{len(self.marked)} runs are too many to be compared alone: tag them, and filter by their tag.",
                    "warning",
                )
            else:
                self.at = 0
                self.choices = self.choices._replace(only=only)
        if self.is_current:  # otherwise it is drawn once it is
            self._draw()
            self.ask()

    # What is shown.

    @property
    def board(self) -> Leaderboard | None:
        """What was found, with rows and columns as they were chosen."""
        if self.result is None:
            return None
        found, wanted = self.result.board, self.choices.arrangement
        if self._arranged is None or self._arranged[0] is not found or self._arranged[1] != wanted:
            self._arranged = found, wanted, arranged(found, *self.result.query[:2], wanted)
        return self._arranged[2]

    @property
    def tables(self) -> list[Table]:
        return [] if self.board is None else self.board.tables

    @property
    def table(self) -> Table | None:
        return self.tables[min(self.at, len(self.tables) - 1)] if self.tables else None

    @property
    def view(self) -> TableView | None:
        """The table that is shown, for its cells."""
        if self.board is None or self.table is None or self.result is None:
            return None
        return TableView(self.board, self.table, *self.result.query[:2])

    @property
    def document(self) -> DocumentQuery:
        """The document that has the same tables."""
        found = self.result
        tables = found.board.tables if found is not None else []
        axes = found.query[:2] if found is not None else ((), ())
        return self.choices.document({name for table in tables for name in names_in(table, *axes)})

    @property
    def here(self) -> CellKey | None:
        """Row and column of the cell that the keys are on."""
        grid, table = self.query_one(Grid), self.table
        column = grid.column // len(self.choices.shows)
        if table is None or grid.row >= len(table.rows) or column >= len(table.columns):
            return None
        return table.rows[grid.row], table.columns[column]

    @property
    def cell(self) -> Cell | None:
        return self.table.cells.get(self.here) if self.table and self.here else None

    def _cell_name(self, place: CellKey) -> str:
        """What a cell stands for."""
        rows, columns = self.choices.rows, self.choices.columns
        return " · ".join(filter(None, (wording.name(rows, place[0]), wording.name(columns, place[1]))))

    def _draw(self) -> None:
        if self.result is None:
            return
        table, view = self.table, self.view
        if table is None or view is None:
            hidden = f"All rows, or all columns, are hidden: {hints.hint('compare.rows', 'R')} shows them again."
            self._blank(hidden if self.result.board.tables else nothing(self.result))
            return
        self.query_one("#empty").display = False
        self.query_one("#grid").display = True
        if self.focused is None:  # it was hidden, and the keys would go nowhere
            self.call_after_refresh(self.set_focus, self.query_one(Grid))
        heading = self._heading()
        notes = self.query_one("#notes", Static)
        shows = self.choices.shows
        marked = set(self.marked)
        marks = {
            (row, column * len(shows))
            for row, r in enumerate(table.rows)
            for column, c in enumerate(table.columns)
            if marked and (cell := table.cells.get((r, c))) and not marked.isdisjoint(runs(cell))
        }
        grid = self.query_one(Grid)
        rows, columns = self.result.query[:2]
        try:
            shown = contents(view, shows, heat=self.choices.heat)
            grid.show(shown, marks)
            sources = quantities.sources(view, shows)
        except BadInput as error:  # a file of published figures of the user's
            self.choices = self.choices._replace(shows=(quantities.METRIC,))
            self.console_app.say(str(error), "error")
            self._draw()
            return
        heat = [f"Bars: how good a mean is in its column, of {HEATS} degrees."] if self.choices.heat else []
        legend = self._wrapped(" ".join([*signs(table, shows), *heat]))
        sentences = [*sources, *(display(note, 300) for note in notes_below(view.board, table, rows, columns))]
        if self.result.board.left_out:
            sentences.append(f"Left out: {self.result.board.left_out} unfinished.")
        rest = self._wrapped(" ".join(sentences))
        # The signs of what is seen are explained whatever else there is no room for.
        room = self.size.height - AROUND - self.query_one("#trouble").outer_size.height - heading - len(legend)
        most = 1 if self.size.height < LOW else MOST_NOTES
        least = len(shown.corner) + 1 + min(len(table.rows), LEAST_ROWS)
        result = cut(
            rest,
            self.size.width - 2,
            max(1, min(most, room - least)),
            f"… {hints.hint('everywhere.copy', 'y')} copies all",
        )
        room -= len(result)
        details = room >= least + LEAST_DETAILS
        self.query_one("#details").display = details
        grid.styles.max_height = max(len(shown.corner) + 2, room - (LEAST_DETAILS if details else 0))
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
        now = self.choices
        if self.table is not None:
            text.append(quantities.title(self.table, now.shows), "bold")
            text.append("\n")
        text.append(f"rows: {axes_label(now.rows)}   columns: {axes_label(now.columns)}")
        if len(self.tables) > 1:
            text.append(f"   table {self.at + 1} of {len(self.tables)}")
        order = now.order.partition(":")[2] or now.order
        names = list(names_in(self.table, now.rows, now.columns)) if self.table is not None else []
        if order and (order in names or order == now.order):
            text.append(f"   by {display(order, 60)}")
        if now.hide:
            text.append(f"   {len(now.hide)} hidden")
        if now.only:
            text.append(f"   only {display(now.only, 60)}")
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
        keys = hints.hint("compare.losses-or-accuracy", "m"), hints.hint("compare.logarithm-of-losses", "L")
        text.append(f"   {keys[0]}: {'accuracy' if self.shows_losses else 'losses'}")
        text.append(f"  {keys[1]}: {'linear' if self.logarithmic else 'logarithmic'}\n" if self.shows_losses else "\n")
        return text.append_text(
            curves(series, width, height - 1, self.logarithmic and self.shows_losses, self.console_app.options.ascii)
        )

    def on_grid_cell_highlighted(self) -> None:
        self._cell()

    def on_resize(self, event: Resize) -> None:
        self.call_after_refresh(self._draw)

    def idle_actions(self) -> set[str]:
        table = self.table
        idle = set() if self.marked else {"curves", "curve", "logarithm"}
        idle |= set() if self.shows_losses else {"logarithm"}
        idle |= set() if self.marked or self.choices.only else {"unmark"}
        idle |= set() if len(self.tables) > 1 else {"table(1)", "table(-1)"}
        if self.result is None or not self.result.board.tables:
            idle |= {"choose('rows')", "choose('columns')"}
        if self.result is None or not self.result.board.scores:
            idle.add("tree")
        if table is None:
            idle |= {"order", "heat", "intervals", "copy_as", "copy", "export"}
        if self.result is None:
            idle.add("fill")
        return idle if self.cell is not None else idle | {"runs", "mark"}

    # Keys.

    def action_axes(self, which: str) -> None:
        """Choose what rows, or columns, stand for."""

        def change(**choices: Any) -> None:
            self.at = 0
            self._choose(**choices)

        ask_for_axes(self, self.choices.rows, self.choices.columns, which, change)

    def _choose(self, **choices: Any) -> None:
        """Take up a choice, keep it and show what it makes."""
        before, self.choices = self.choices, self.choices._replace(**choices)
        self.console_app.settings.set("compare", self.choices.kept())
        same = self._query() == (self.result.query if self.result else None)
        if same and before != self.choices:
            self._draw()
        self.ask()

    def action_shows(self) -> None:
        """Choose what cells show."""
        ascii_, now = self.console_app.options.ascii, self.choices.shows
        names = [*now, *(name for name in quantities.QUANTITIES if name not in now)]
        texts = {name: f"{name:<11} {quantities.QUANTITIES[name].about}" for name in names}
        options = [(spelled(text) if ascii_ else text, name, name in now) for name, text in texts.items()]

        def chosen(shows: list[str] | None) -> None:
            if shows is not None:
                self._choose(shows=tuple(shows) or (quantities.METRIC,))

        self.app.push_screen(Several("What cells show", options, movable=True), chosen)

    def action_metric(self) -> None:
        """Choose the metric of the tables."""

        def chosen(choice: str | None) -> None:
            if choice is not None:
                self._choose(metric="" if choice == ACCURACY.full_name else choice)

        metrics = to_choose(self.result.metrics if self.result else [])
        options = [
            (f"{wording.metric_label(metric)}: {metric.description}", metric.full_name) for metric in metrics
        ] or [(wording.metric_label(ACCURACY), ACCURACY.full_name)]
        ascii_ = self.console_app.options.ascii
        options = [(spelled(text) if ascii_ else text, name) for text, name in options]
        self.app.push_screen(Pick("What is compared", options, self.choices.metric or ACCURACY.full_name), chosen)

    def action_filter(self, text: str | None = None, fault: str = "") -> None:
        """Choose which runs are compared."""

        def chosen(typed: str | None) -> None:
            if typed is None:
                return
            try:
                filters.read(typed, to_compare=True)
            except BadInput as error:
                self.action_filter(typed, str(error))
                return
            self.at = 0
            self._choose(only=typed.strip())

        about = fault or "Which runs are compared: method:dm|random ipc<=10 -tag:old\nNothing: all that have finished."
        self.app.push_screen(Ask("Only such runs", self.choices.only if text is None else text, about), chosen)

    def action_order(self) -> None:
        """Order rows by the column that the keys are on; again: as they come."""
        if self.here is None:
            return
        order = f"best:{wording.name(self.choices.columns, self.here[1])}"
        self._choose(order="" if self.choices.order == order else order)

    def action_choose(self, which: str) -> None:
        """Choose which rows, or columns, are shown, and in which order."""
        found, arrangement = self.result, self.choices.arrangement
        names = [] if found is None else names_of(found.board, *found.query[:2], arrangement, which)
        ask_for_names(self, which, names, arrangement, self._choose)

    def action_heat(self) -> None:
        """How good each mean is in its column, or not."""
        self._choose(heat=not self.choices.heat)

    def action_intervals(self) -> None:
        """The means of this column with their intervals and sets."""
        if self.view is None or self.here is None:
            self.console_app.say("There is no column to look at.")
            return
        self.app.push_screen(Intervals(self.view, self.here[1], ascii_=self.console_app.options.ascii))

    def action_tree(self) -> None:
        """All runs in groups."""
        if self.result is None or not self.result.board.scores:
            self.console_app.say("There are no runs with scores to group.")
            return
        board = self.result.board
        known = self.read_now(lambda store: grouping.values(store, list({score.run for score in board.scores})))

        def chosen(run: str | None) -> None:
            if run is not None:
                self.console_app.open_run(run)

        def keep(keys: tuple[str, ...]) -> None:
            self._choose(group=keys)

        self.app.push_screen(RunsTree(board, known, self.choices.group, keep), chosen)

    def action_table(self, by: int) -> None:
        """Another table: of another protocol, or whatever is neither on rows nor on columns."""
        if len(self.tables) < 2:
            self.console_app.say("There is one table only: what could differ is on its rows or columns.")
            return
        self.at = (self.at + by) % len(self.tables)
        self._draw()

    def action_runs(self) -> None:
        """Open this cell: its sets, networks and runs."""
        cell = self.cell
        if cell is None or self.here is None:
            self.console_app.say(
                f"Nothing was run for this cell yet: {hints.hint('everywhere.new', 'n')} asks for a new run."
            )
            return

        def chosen(run: str | None) -> None:
            if run is not None:
                self.console_app.open_run(run)

        self.app.push_screen(CellTree(self._cell_name(self.here), cell), chosen)

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
        """Mark nothing; then compare all runs."""
        if self.marked:
            self.compare([])
        elif self.choices.only:
            self._choose(only="")

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
        self.app.push_screen(Curves(self.drawn_curves, self.action_curve, self.action_logarithm))

    def to_copy(self) -> str:
        if self.result is None or self.table is None or self.board is None:
            return ""
        format, (rows, columns) = self.choices.format, self.result.query[:2]
        board = replace(self.board, tables=[self.table], shows=self.choices.shows, sections=("accuracy",))
        return render(format, board, rows, columns, short=format != "csv")

    def action_copy_as(self) -> None:
        """Choose what tables are copied as, and copy this one."""

        def chosen(format: str | None) -> None:
            if format is not None:
                self._choose(format=format)
                self.call_later(self.run_action, "app.copy")

        options = [(f"{name:<9} {about}", name) for name, about in FORMATS.items()]
        self.app.push_screen(Pick("Copy the table as", options, self.choices.format), chosen)

    def action_fill(self) -> None:
        """Queue what the tables lack, once that was said."""
        queue_what_is_missing(self, self.choices.rows, self.choices.columns, self.choices.only)

    def action_export(self) -> None:
        """Write the report, as `dambench report` does."""
        if self.result is None or self.board is None or self.console_app.refuses():
            return
        board, (rows, columns) = replace(self.board, shows=self.choices.shows), self.result.query[:2]

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

        about = (
            "All tables, as these rows and columns. The suffix decides:\n.md .tex .csv .html .json\n"
            f"The tables alone: {self.document.command()}"
        )
        self.app.push_screen(Ask("Write a report", str(Path("report.md")), about), chosen)
