"""Compare: the tables that `report` prints, live, with the runs behind each number."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from rich.console import Console
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
from dambench.core.units import duration, size
from dambench.report import FORMATS, format_of, wording, write
from dambench.report.to_markdown import grid
from dambench.store import history
from dambench.store.history import Line
from dambench.store.leaderboard import AXES, ENOUGH, Cell, Cost, Leaderboard, Table, leaderboard, rivals, welch
from dambench.store.leaderboard import Place as Where
from dambench.store.runs import Store
from dambench.tui.feed import Question
from dambench.tui.main_screen import LOW, MainScreen
from dambench.tui.resilient import Resilient
from dambench.tui.terminal.ascii_filter import plain, spelled
from dambench.tui.widgets import chart
from dambench.tui.widgets.grid import Contents, Grid
from dambench.tui.widgets.lines import cut
from dambench.tui.widgets.pick import Ask, Pick

MOST_CURVES = 8
"""Runs over each other: more cannot be told apart."""

MOST_NOTES = 3
"""Lines of what there is to say of a table, besides its signs."""

AROUND, LEAST_GRID, LEAST_DETAILS = 2, 4, 7
"""Lines above and below all of it; that the table needs; that the cell needs, if it is there."""

CHOICES = [*((axis,) for axis in AXES), *combinations(AXES, 2)]
"""What rows or columns may stand for."""

Series = dict[str, Line]


class CompareQuery(NamedTuple):
    """What is asked for."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    marked: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """What the database holds, for a choice of axes."""

    wanted: CompareQuery
    board: Leaderboard
    states: dict[str, int]
    """How many runs are in each state."""
    gone: tuple[str, ...] = ()
    """Marked runs that are not in the database any more."""
    losses: Series = field(default_factory=dict)
    """By marked run and name of the loss."""
    accuracies: Series = field(default_factory=dict)
    """In percent."""


class CompareScreen(MainScreen):
    """Tables of mean ± standard deviation, with the runs behind each number."""

    NAME: ClassVar[str] = "Compare"

    DEFAULT_CSS = """
    CompareScreen #heading { height: auto; padding: 0 1; }
    CompareScreen #empty { height: 1fr; padding: 1 2; display: none; }
    CompareScreen Grid { height: auto; }
    CompareScreen #details { height: 1fr; border-top: solid $primary; }
    CompareScreen #cell { width: 1fr; padding: 0 1; }
    CompareScreen #curves { width: 1fr; height: 100%; padding: 0 1; display: none; }
    CompareScreen #notes { height: auto; padding: 0 1; color: $text-muted; }
    CompareScreen.-wide #curves { display: block; border-left: solid $primary; }
    """

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
    ]

    def __init__(self) -> None:
        super().__init__()
        self.rows: tuple[str, ...] = ("method",)
        self.columns: tuple[str, ...] = ("dataset", "ipc")
        self.measure = "accuracy"
        """Of wording.MEASURES: what cells show."""
        self.found: Comparison | None = None
        self.at = 0
        """The table that is shown."""
        self.marked: list[str] = []
        """Runs whose curves are drawn."""
        self.shows_losses = True
        self.logarithmic = True
        self._drawn: Comparison | None = None
        self._last: tuple[Store, object, Comparison] | None = None
        """What was found last, of which store as of which version. The feed's thread knows it alone."""

    def content(self) -> ComposeResult:
        yield Static(id="heading")
        yield Static(id="empty")
        yield Grid(ascii_=self.console_app.look.ascii, id="grid")
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
        if kept.get("measure") in wording.MEASURES:
            self.measure = kept["measure"]
        self.query_one(Grid).focus()

    def question(self) -> Question:
        return partial(self._find, wanted=self._wanted())

    def _wanted(self) -> CompareQuery:
        return CompareQuery(self.rows, self.columns, tuple(self.marked))

    def _find(self, store: Store, wanted: CompareQuery) -> Comparison:
        # What was written by others, and by this store itself, which takes in what is on a network disk.
        version = store.query("pragma data_version")[0]["data_version"], store.db.conn.total_changes
        last = self._last
        # Many runs are much to add up each second, when nothing was written.
        if last is None or last[0] is not store or last[1] != version or last[2].wanted != wanted:
            self._last = last = store, version, find(store, *wanted)
        return last[2]

    def anew(self) -> None:
        super().anew()
        self.found = self._drawn = None
        self._blank("")

    def show(self, found: Comparison | None) -> bool:
        if found is None:
            self.found = self._drawn = None
            name = display(str(self.console_app.path))
            self._blank(f"Nothing to compare: there is no database {name!r}.\n\nn   asks for a run, and makes it")
            return True
        if found.wanted != self._wanted():
            return False  # something else was asked for since
        if found is self._drawn:
            return True
        self.found = self._drawn = found
        if found.gone:
            self.marked = [run for run in self.marked if run not in found.gone]
            self.console_app.say(f"Marked, but not in the database any more: {', '.join(found.gone)}.", "warning")
        self.at = min(self.at, max(0, len(found.board.tables) - 1))
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
        tables = self.found.board.tables if self.found else []
        return tables[self.at] if tables else None

    @property
    def here(self) -> Where | None:
        """Row and column of the cell that the keys are on."""
        grid, table = self.query_one(Grid), self.table
        if table is None or grid.row >= len(table.rows) or grid.column >= len(table.columns):
            return None
        return table.rows[grid.row], table.columns[grid.column]

    @property
    def cell(self) -> Cell | None:
        return self.table.cells.get(self.here) if self.table and self.here else None

    def _draw(self) -> None:
        if self.found is None:
            return
        table = self.table
        if table is None:
            self._blank(nothing(self.found))
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
        rows, columns, _ = self.found.wanted
        grid.show(contents(self.found.board, table, rows, columns, self.measure), marks)
        legend = self._wrapped(" ".join(signs(table, self.measure)))
        said = [display(note, 300) for note in table.notes]
        if self.found.board.left_out:
            said.append(f"Left out: {self.found.board.left_out} unfinished.")
        rest = self._wrapped(" ".join(said))
        # The signs of what is seen are explained whatever else there is no room for.
        room = self.size.height - AROUND - self.query_one("#trouble").outer_size.height - heading - len(legend)
        most = 1 if self.size.height < LOW else MOST_NOTES
        found = cut(rest, self.size.width - 2, max(1, min(most, room - LEAST_GRID)), "… y copies all")
        room -= len(found)
        details = room >= LEAST_GRID + LEAST_DETAILS
        self.query_one("#details").display = details
        grid.styles.max_height = max(LEAST_GRID, room - (LEAST_DETAILS if details else 0))
        notes.update(Text("\n").join([*legend, *found]))
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
        text = plain(spelled(text)) if self.console_app.look.ascii else text
        return list(Text(text).wrap(self.app.console, max(20, self.size.width - 2))) if text else []

    def _heading(self) -> int:
        """Say what the table is; returns on how many lines."""
        text = Text()
        tables = self.found.board.tables if self.found else []
        if self.table is not None:
            title = wording.title(self.table)
            if self.measure not in ("accuracy", "interval"):
                title = title.replace("Accuracy in %", wording.MEASURES[self.measure].partition(",")[0].capitalize(), 1)
            text.append(title, "bold")
            text.append("\n")
        text.append(f"rows: {_said(self.rows)}   columns: {_said(self.columns)}")
        if len(tables) > 1:
            text.append(f"   table {self.at + 1} of {len(tables)}")
        if self.marked:
            text.append(f"   {len(self.marked)} run{'s' if len(self.marked) > 1 else ''} marked")
        lines = text.wrap(self.app.console, max(20, self.size.width - 2))
        self.query_one("#heading", Static).update(Text("\n").join(lines))
        return len(lines)

    def _cell(self) -> None:
        if self.found is None or self.table is None or self.here is None:
            return
        text = Text()
        rows, columns, _ = self.found.wanted
        for index, line in enumerate(about(self.found.board, self.table, rows, columns, self.here)):
            style = "bold" if index == 0 else ""
            text.append((spelled(line) if self.console_app.look.ascii else line) + "\n", style)
        text.rstrip()
        self.query_one("#cell", Static).update(text)

    def _curves(self) -> None:
        if isinstance(self.app.screen, Curves):
            self.app.screen.draw()
        pane = self.query_one("#curves", Static)
        if not pane.display or self.found is None:
            return
        width, height = max(20, pane.size.width), max(5, pane.size.height)
        pane.update(self.drawn_curves(width, height))

    def drawn_curves(self, width: int, height: int) -> Text:
        """The curves of the marked runs."""
        if self.found is None or not self.marked:
            return Text("space marks a cell: the curves of its runs are drawn here, over each other.")
        series = self.found.losses if self.shows_losses else self.found.accuracies
        what = "loss" if self.shows_losses else "test accuracy in %"
        axis = ", logarithmic" if self.logarithmic and self.shows_losses else ""
        text = Text().append(f"{what} over iterations{axis}", "bold")
        text.append(f"   m: {'accuracy' if self.shows_losses else 'losses'}")
        text.append(f"  L: {'linear' if self.logarithmic else 'logarithmic'}\n" if self.shows_losses else "\n")
        return text.append_text(
            curves(series, width, height - 1, self.logarithmic and self.shows_losses, self.console_app.look.ascii)
        )

    def on_grid_cell_highlighted(self) -> None:
        self._cell()

    def on_resize(self, event: Resize) -> None:
        self.call_after_refresh(self._draw)

    # Keys.

    async def action_axes(self, which: str) -> None:
        """Choose what rows, or columns, stand for."""
        now = self.rows if which == "rows" else self.columns

        def chosen(said: str | None) -> None:
            if said is not None:
                self._take(which, tuple(said.split(",")))

        options = [(_said(choice), ",".join(choice)) for choice in CHOICES]
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

        def chosen(said: str | None) -> None:
            if said is not None:
                self.measure = said
                self._keep()
                self._draw()

        ascii_ = self.console_app.look.ascii
        options = [(spelled(about) if ascii_ else about, what) for what, about in wording.MEASURES.items()]
        self.app.push_screen(Pick("What cells show", options, self.measure), chosen)

    def action_table(self, by: int) -> None:
        """Another table: of another protocol, or whatever is neither on rows nor on columns."""
        tables = self.found.board.tables if self.found else []
        if len(tables) < 2:
            self.console_app.say("There is one table only: what could differ is on its rows or columns.")
            return
        self.at = (self.at + by) % len(tables)
        self._draw()

    def action_runs(self) -> None:
        """Open the runs of this cell."""
        cell = self.cell
        if cell is None:
            self.console_app.say("Nothing was run for this cell yet: n asks for a new run.")
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
            self.console_app.say("Nothing is marked: space marks the runs of a cell.")
            return
        self.app.push_screen(Curves(self))

    def to_copy(self) -> str:
        if self.found is None or self.table is None:
            return ""
        board, table, (rows, columns, _) = self.found.board, self.table, self.found.wanted
        if self.measure == "accuracy":
            return FORMATS["markdown"](replace(board, tables=[table]), rows, columns, short=True)
        lines = wording.lines(table, rows, lambda cell: wording.measure(board, cell, self.measure))
        head = [_said(rows), *(wording.name(columns, column) for column in table.columns)]
        cells = [[name, *(_text(entry) or wording.MISSING for entry in entries)] for name, entries in lines]
        return f"{grid([list(map(markdown, line)) for line in [head, *cells]])}\n\n{wording.MEASURES[self.measure]}\n"

    def action_export(self) -> None:
        """Write the report, as `dambench report` does."""
        if self.found is None or self.console_app.refuses():
            return
        board, (rows, columns, _) = self.found.board, self.found.wanted

        def chosen(said: str | None) -> None:
            if not said:
                return
            try:
                path = files.user_path(said)
                write(path, FORMATS[format_of(None, path, short=False)](board, rows, columns))
            except (BadInput, OSError) as error:
                self.console_app.say(str(error), "error")
                return
            self.console_app.say(f"Written: {path.absolute()}")

        about = "All tables, as these rows and columns. The suffix decides:\n.md .tex .csv .html .json"
        self.app.push_screen(Ask("Write a report", str(Path("report.md")), about), chosen)


class Curves(Resilient, ModalScreen[None]):
    """The curves of marked runs, as large as the terminal."""

    DEFAULT_CSS = "Curves #large { width: 100%; height: 100%; background: $surface; padding: 0 1; }"

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

    def action_other(self, what: str) -> None:
        getattr(self._place, f"action_{what}")()


# What is said, without a screen.


def find(store: Store, rows: Sequence[str], columns: Sequence[str], marked: Sequence[str]) -> Comparison:
    """Everything that is shown."""
    states = store.query("select state, count(*) n from runs where deleted_at = '' group by state")
    losses: Series = {}
    accuracies: Series = {}
    there = {row["id"] for row in store.query("select id from runs")}
    gone = tuple(run for run in marked if run not in there)
    drawn = [run for run in marked if run in there][-MOST_CURVES:]
    for run in drawn:
        name = f"{store.run(run)['method']} {run}"
        lines = history.losses(store, run)
        # Of several runs the loss that is minimised, which comes first; of one, its parts too.
        losses |= {f"{name} {loss}": line for loss, line in list(lines.items())[: 1 if len(drawn) > 1 else None]}
        for network, line in history.accuracies(store, run).items():
            accuracies[f"{name} {network}"] = [(at, None if value is None else 100 * value) for at, value in line]
    return Comparison(
        wanted=CompareQuery(tuple(rows), tuple(columns), tuple(marked)),
        gone=gone,
        board=leaderboard(store, rows, columns),
        states={row["state"]: row["n"] for row in states},
        losses=losses,
        accuracies=accuracies,
    )


def choose(
    rows: tuple[str, ...], columns: tuple[str, ...], which: str, axes: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Rows and columns after one of them was chosen: an axis is on one of them only."""
    old, other = (rows, columns) if which == "rows" else (columns, rows)
    left = tuple(axis for axis in other if axis not in axes)
    left = left or tuple(axis for axis in old if axis not in axes) or next((a,) for a in AXES if a not in axes)
    return (axes, left) if which == "rows" else (left, axes)


def signs(table: Table, measure: str) -> list[str]:
    """What the signs of a table say that shows this."""
    said = [f"{wording.MEASURES[measure].capitalize()}."]
    if measure == "accuracy":
        return said + wording.signs([table], bold="*", brief=True)
    return said


def _said(axes: Sequence[str]) -> str:
    names = {"ipc": "IPC", "network": "trained network"}
    return " × ".join(names.get(axis, axis) for axis in axes)


def contents(
    board: Leaderboard, table: Table, rows: Sequence[str], columns: Sequence[str], measure: str = "accuracy"
) -> Contents:
    """A table of the report as a grid: the same texts, the parts of a column's name below each other."""
    measured = None if measure == "accuracy" else partial(wording.measure, board, what=measure)
    lines = wording.lines(table, rows, measured)
    heads = [[wording.name([axis], (part,)) for axis, part in zip(columns, key, strict=True)] for key in table.columns]
    heads += [["mean"], ["drop"]] if table.transfer and measured is None else []
    texts = [[_text(entry) for entry in entries] for _, entries in lines]
    count = len(table.rows)
    return Contents(
        corner=[*([""] * (len(columns) - 1)), _said(rows)],
        heads=heads,
        names=[name for name, _ in lines[:count]],
        cells=texts[:count],
        stars={(row, column) for row, (_, e) in enumerate(lines[:count]) for column, x in enumerate(e) if x.bold},
        below=[(name, [entry.number for entry in entries]) for name, entries in lines[count:]],
    )


def _text(entry: wording.Entry) -> str:
    """`92.6 ± 1.1 (5)`; empty: nothing is there."""
    if entry.n:
        return f"{entry.number} ({entry.n})"
    return "" if entry.number == wording.MISSING else entry.number


def runs(cell: Cell) -> list[str]:
    """Those whose networks a cell counts, the newest first."""
    return list(dict.fromkeys(score.run for score in cell.scores))


def scores(cell: Cell, run: str = "") -> str:
    """In percent, of one run or of all."""
    return " ".join(f"{100 * score.accuracy:.1f}" for score in cell.scores if run in ("", score.run))


def about(board: Leaderboard, table: Table, rows: Sequence[str], columns: Sequence[str], here: Where) -> list[str]:
    """Sentences on a cell; the first is its name."""
    name = " · ".join(filter(None, (wording.name(rows, here[0]), wording.name(columns, here[1]))))
    cell = table.cells.get(here)
    if cell is None:
        return [name, "Not run yet."]
    entry = wording.entry(cell)
    each = cell.networks_per_set
    made = f"{cell.sets} set{'s' if cell.sets > 1 else ''}"
    of = f"{cell.n} networks of {made}" if each is None else f"{made} × {each} network{'s' if each > 1 else ''}"
    lines = [f"{name}   {entry.number}   n = {cell.n} ({of})"]
    which = runs(cell)
    lines.append("   ".join(f"{run}: {scores(cell, run)}" for run in which[:6]) + ("   …" if len(which) > 6 else ""))
    against = []
    others = {place: other for place, other in rivals(table, rows, columns, here).items() if place != here}
    random = [other for other in others.values() if other.scores[0].base_method == "random"]
    for other in random[:1]:
        against.append(f"random {_gap(cell, other)}")
    competing = [o for o in others.values() if o.scores[0].base_method not in ("whole", "random")]
    if competing:
        best = max(competing, key=lambda other: other.mean)
        against.append(f"best other, {display(best.scores[0].method)}, {_gap(cell, best)}")
    whole = [other for other in others.values() if other.scores[0].base_method == "whole"]
    for other in whole[:1]:
        against.append(f"whole {100 * (cell.mean - other.mean):+.1f}")
    if against:
        lines.append(f"against {'; '.join(against)} (Welch, uncorrected)")
    lines += _cost(board, cell)
    recipe = cell.scores[0].recipe
    if recipe:
        lines.append(f"settings: {display(recipe, 300)}")
    return lines


def _gap(cell: Cell, other: Cell) -> str:
    """The difference in percent, and Welch's p where there are enough scores."""
    text = f"{100 * (cell.mean - other.mean):+.1f}"
    if min(cell.n, other.n) < ENOUGH:
        return f"{text} (no test: too few)"
    p = welch(cell, other)
    return f"{text} (p {'< 0.001' if p < 0.001 else f'{p:.3f}'})"


def _distilled(seconds: float, cost: Cost) -> str:
    experts = f"{duration(cost.experts_seconds)} for its experts, " if cost.experts_seconds else ""
    return f"took {experts}{duration(seconds)} to distil ({size(cost.distil_peak_bytes)} peak), "


def _cost(board: Leaderboard, cell: Cell) -> list[str]:
    return [
        ("only evaluated here, " if cost.distil_seconds is None else _distilled(cost.distil_seconds, cost))
        + f"{duration(cost.evaluate_seconds)} per network, on {display(cost.device)}"
        for cost in board.costs_of(cell)
    ][:2]


def nothing(found: Comparison) -> str:
    """Why there is no table."""
    if not found.states:
        return (
            "Nothing to compare: no runs yet.\n\n"
            "n   asks for one (dm on digits takes seconds, no download)\n"
            f"or  {wording.FIRST}"
        )
    counts = ", ".join(f"{count} {state}" for state, count in sorted(found.states.items()))
    if found.board.finished:
        return f"Nothing to compare: no finished run has a score ({counts})."
    return f"Nothing to compare: no run has finished yet ({counts}).\n\nOnly finished runs are in tables."


def curves(series: Series, width: int, height: int, log: bool, ascii_: bool) -> Text:
    """Lines over each other, and a legend with the last values."""
    if not series:
        return Text("The marked runs have none: m shows losses, or accuracy.")
    drawn = [
        chart.Series(name, np.array([at for at, _ in line]), np.array([np.nan if v is None else v for _, v in line]))
        for name, line in series.items()
    ]
    legend = chart.legend(drawn, log=log)
    legend.no_wrap = False
    above = legend.wrap(Console(width=width), width)
    lines = chart.lines(drawn, width, max(3, height - len(above)), log=log, ascii=ascii_, unit="iterations")
    return Text("\n").join([*above, *lines])
