"""Comparison: the tables that Compare shows, what there is to say of a cell, and the curves of runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.text import Text

from dambench.core.sanitize import counted, display
from dambench.core.units import duration, size
from dambench.report import quantities, standing, wording
from dambench.report.labels import place_of
from dambench.report.quantities import TableView
from dambench.report.sections import published, selection
from dambench.runner import processes
from dambench.store import filters, history
from dambench.store.baselines import NO_COMMAND
from dambench.store.cells import Cell, CellKey
from dambench.store.costs import MethodCost
from dambench.store.history import Line
from dambench.store.leaderboard import AXES, Leaderboard, Table, leaderboard, rivals
from dambench.store.metrics import ACCURACY, MetricRow, metrics
from dambench.store.runs import Store
from dambench.store.statistics import difference
from dambench.tui import hints
from dambench.tui.models import chart

MOST_CURVES = 8
"""Runs over each other: more cannot be told apart."""

CHOICES = [*((axis,) for axis in AXES), *combinations(AXES, 2)]
"""Axes that rows or columns may stand for."""

Series = dict[str, Line]


class CompareQuery(NamedTuple):
    """The axes, the marked runs, and which runs are meant at all."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    marked: tuple[str, ...]
    metric: str = ""
    """EVALUATOR.METRIC; empty: accuracy."""
    only: str = ""
    """A filter; empty: all."""


@dataclass(frozen=True)
class Comparison:
    """The tables of the database for a choice of axes, and the curves of marked runs."""

    query: CompareQuery
    metrics: list[MetricRow]
    board: Leaderboard
    states: dict[str, int]
    """Number of runs by state."""
    gone: tuple[str, ...] = ()
    """Marked runs that are not in the database any more."""
    losses: Series = field(default_factory=dict)
    """By marked run and name of the loss."""
    accuracies: Series = field(default_factory=dict)
    """In percent."""


@dataclass(frozen=True)
class Contents:
    """All texts of a table."""

    corner: list[str]
    """Above the names of the rows: a text per line of the head."""
    heads: list[list[str]]
    """By column, the same number of lines each."""
    names: list[str]
    cells: list[list[str]]
    """By row and column; empty: nothing is there."""
    stars: set[tuple[int, int]] = field(default_factory=set)
    """Row and column of cells that stand out."""
    below: list[tuple[str, list[str]]] = field(default_factory=list)
    """Lines that the keys do not go to."""
    heat: dict[tuple[int, int], int] = field(default_factory=dict)
    """From 1, the worst of a column, to HEATS, where that is asked for."""


def find(
    store: Store,
    rows: Sequence[str],
    columns: Sequence[str],
    marked: Sequence[str],
    metric: str = "",
    only: str = "",
    *,
    board: Leaderboard | None = None,
) -> Comparison:
    """Everything that is shown.

    Args:
        board: the tables, where they are as they were; None: they are computed.
        metric: EVALUATOR.METRIC; of one that this database does not describe, and of none, accuracy is shown.
        only: a filter of runs.
    """
    described = metrics(store)
    shown = next((row for row in described if row.full_name == metric), ACCURACY)
    losses: Series = {}
    accuracies: Series = {}
    gone = tuple(run for run in marked if store.number_of(run) is None)
    drawn = [run for run in marked if run not in gone][-MOST_CURVES:]
    for run in drawn:
        name = f"{store.run(run).method} {run}"
        lines = history.losses(store, run)
        # Of several runs the loss that is minimised, which comes first; of one, its parts too.
        losses |= {f"{name} {loss}": line for loss, line in list(lines.items())[: 1 if len(drawn) > 1 else None]}
        for network, line in history.accuracies(store, run).items():
            accuracies[f"{name} {network}"] = [(at, 100 * value) for at, value in line]
    if board is None:
        meant = filters.read(only, to_compare=True)
        board = leaderboard(store, rows, columns, metric=shown, only=meant.where(processes.states(store)))
        board.only = meant.text.strip()
    return Comparison(
        query=CompareQuery(tuple(rows), tuple(columns), tuple(marked), metric, only),
        metrics=described,
        gone=gone,
        board=board,
        states=store.count_by_state(),
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


def to_choose(metrics: Sequence[MetricRow]) -> list[MetricRow]:
    """The metrics that cells may show, in the order in which they are read; those of classes, of which there may be a
    thousand, last. The ends of intervals stand with their figures, and mean nothing as means."""
    names = {metric.full_name for metric in metrics}
    ends = {f"{name}_{end}" for name in names for end in ("low", "high")}
    return sorted(
        (one for one in metrics if one.full_name not in ends), key=lambda one: (one.is_of_class, place_of(one))
    )


def signs(table: Table, shows: Sequence[str]) -> list[str]:
    """Sentences on the signs of a table that shows these."""
    if quantities.METRIC not in shows:
        return quantities.meanings(shows, brief=True)
    return [f"{wording.capitalised(wording.BRIEF)}.", *quantities.meanings(shows, brief=True), *_signs(table)]


def _signs(table: Table) -> list[str]:
    return wording.signs([table], bold="*", brief=True)


def axes_label(axes: Sequence[str]) -> str:
    names = {"ipc": "IPC", "network": "trained network"}
    return " × ".join(names.get(axis, axis) for axis in axes)


HEATS = 8
"""Degrees of how good a mean is in its column."""


def contents(view: TableView, shows: Sequence[str] = (quantities.METRIC,), *, heat: bool = False) -> Contents:
    """A table of the report as a grid: the same texts, the parts of a column's name below each other."""
    lines = quantities.lines(view, shows)
    heads = quantities.head(view, shows)
    height = max(map(len, heads), default=1)
    texts = [[cell_text(entry) for entry in entries] for _, entries in lines]
    count = len(view.table.rows)
    return Contents(
        corner=[*([""] * (height - 1)), axes_label(view.rows)],
        heads=[[*([""] * (height - len(head))), *head] for head in heads],
        names=[name for name, _ in lines[:count]],
        cells=texts[:count],
        stars={(row, column) for row, (_, e) in enumerate(lines[:count]) for column, x in enumerate(e) if x.bold},
        below=[(name, [entry.number for entry in entries]) for name, entries in lines[count:]],
        heat=_heat(view, shows) if heat else {},
    )


def _heat(view: TableView, shows: Sequence[str]) -> dict[tuple[int, int], int]:
    """How good the means of each column are among each other, by their place in the grid: that of the mean itself or,
    where it is not shown, of the first thing that is."""
    table, found = view.table, {}
    of = shows.index(quantities.METRIC) if quantities.METRIC in shows else 0
    sign = -1 if table.metric.better == "lower" else 1
    for number, column in enumerate(table.columns):
        means = {
            at: sign * cell.mean
            for at, row in enumerate(table.rows)
            if (cell := table.cells.get((row, column))) is not None and math.isfinite(cell.mean)
        }
        low, high = min(means.values(), default=0.0), max(means.values(), default=0.0)
        for at, mean in means.items() if high > low else ():
            found[at, number * len(shows) + of] = 1 + round((HEATS - 1) * (mean - low) / (high - low))
    return found


def cell_text(entry: wording.TableEntry) -> str:
    """`92.6 ± 1.1 (5)`; empty: nothing is there."""
    if entry.n:
        return f"{entry.number} ({entry.n})"
    return "" if entry.number == wording.MISSING else entry.number


def runs(cell: Cell) -> list[str]:
    """Those whose networks a cell counts, the newest first."""
    return list(dict.fromkeys(score.run for score in cell.scores))


def scores(cell: Cell, run: str = "") -> str:
    """In percent, of one run or of all."""
    values = zip(cell.scores, cell.values, strict=True)
    return " ".join(wording.figure(cell.metric, value) for score, value in values if run in ("", score.run))


def scores_by_set(cell: Cell) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Each set in words, its run, and each network on it in words with its own run, in the order of seeds."""
    found = []
    for sha256, some in sorted(cell.by_set.items(), key=lambda item: min((one.seed, one.run) for one in item[1])):
        of_set = Cell(tuple(some), cell.metric)
        mean = wording.figure(cell.metric, sum(of_set.values) / len(some))
        seeds = ", ".join(map(str, sorted({one.seed for one in some})))
        networks = [
            (
                f"{display(one.network, 60)} #{one.repeat}  {wording.figure(cell.metric, value)}  run {one.run}",
                one.run,
            )
            for one, value in zip(of_set.scores, of_set.values, strict=True)
        ]
        label = f"seed {seeds}  set {sha256[:12]}  {mean}  {counted(len(some), 'network')}"
        found.append((label, some[0].run, networks))
    return found


def about(
    board: Leaderboard,
    table: Table,
    rows: Sequence[str],
    columns: Sequence[str],
    here: CellKey,
    described: Sequence[MetricRow] = (),
) -> list[str]:
    """Sentences on a cell; the first is its name.

    Args:
        described: the metrics that there are.
    """
    name = " · ".join(filter(None, (wording.name(rows, here[0]), wording.name(columns, here[1]))))
    cell = table.cells.get(here)
    if cell is None:
        return [name, "Not run yet."]
    entry = wording.entry(cell)
    lines = [f"{name}   {entry.number}   n = {wording.networks(cell)}"]
    which = runs(cell)
    lines.append("   ".join(f"{run}: {scores(cell, run)}" for run in which[:6]) + ("   …" if len(which) > 6 else ""))
    lines.append("; ".join(filter(None, (wording.spread(cell), _resampled(cell), wording.claim(cell)))))
    lines += _further(cell, described)
    against = []
    others = {place: other for place, other in rivals(table, rows, columns, here).items() if place != here}
    random = [other for other in others.values() if other.scores[0].base_method == "random"]
    for other in random[:1]:
        against.append(f"random {_effect(cell, other)}")
    competing = [o for o in others.values() if o.scores[0].base_method not in ("whole", "random")]
    if competing:
        best = (min if cell.metric.better == "lower" else max)(competing, key=lambda other: other.mean)
        against.append(f"best other, {display(best.scores[0].method)}, {_effect(cell, best)}")
    whole = [other for other in others.values() if other.scores[0].base_method == "whole"]
    for other in whole[:1]:
        against.append(f"whole {_effect(cell, other)}")
    lines += [f"against {'; '.join(against)}"] if against else []
    lines += [text for text in [selection.line(board, cell), published.line(board, cell)] if text]
    lines += _between(board, cell)
    lines += _cost(board, cell)
    recipe = cell.scores[0].recipe
    if recipe:
        lines.append(f"settings: {display(recipe, 300)}")
    return lines + _missing(board, cell)


def _further(cell: Cell, all_metrics: Sequence[MetricRow]) -> list[str]:
    """The other metrics that another evaluator than of accuracy has measured of the same networks."""
    if cell.metric.evaluator == ACCURACY.evaluator:
        return []
    names = {name for score in cell.scores for name in score.values} - {cell.metric.name}
    further = [one for one in to_choose(all_metrics) if one.evaluator == cell.metric.evaluator and one.name in names]
    shown = [f"{wording.metric_label(one)} {wording.entry(cell.of(one)).number}" for one in further]
    return [f"{display(cell.metric.evaluator, 60)}: {', '.join(shown)}"] if shown else []


def _between(board: Leaderboard, cell: Cell) -> list[str]:
    """Where a result is between random and whole."""
    found = board.baselines.standing(cell)
    if found is None:
        return []
    relative, gap, size = (
        f"{entry.number} ({entry.n})" if entry.n else entry.number for entry in standing.entries(found)
    )
    return [f"{relative} % of whole; {gap} % of the gap between random and whole; as random images of IPC {size}"]


def _missing(board: Leaderboard, cell: Cell) -> list[str]:
    """What a result lacks to be read, each with the command that makes it."""
    return [
        f"missing: {display(one.what)}: {display(one.command or NO_COMMAND, 400)}"
        for one in board.baselines.missing_of(cell)
    ]


def _effect(cell: Cell, other: Cell) -> str:
    """The difference in words; p is of this comparison alone."""
    gap = difference(cell.sample, other.sample)
    if gap.reason and gap.reason in wording.claim(cell):
        gap = replace(gap, reason="no test")  # the reason stands with the cell's own number
    return wording.effect(cell.metric, gap, correction="uncorrected")


def _resampled(cell: Cell) -> str:
    """The hierarchical bootstrap's interval, where there are sets enough for one."""
    if cell.bootstrap is None:
        return ""
    low, high = (wording.figure(cell.metric, value) for value in cell.bootstrap)
    return f"bootstrap over sets and networks {low} to {high}"


def _distilled(seconds: float, cost: MethodCost) -> str:
    experts = f"{duration(cost.experts_seconds)} for its experts, " if cost.experts_seconds else ""
    return f"took {experts}{duration(seconds)} to distil ({size(cost.distil_peak_bytes)} peak), "


def _cost(board: Leaderboard, cell: Cell) -> list[str]:
    return [
        ("only evaluated here, " if cost.distil_seconds is None else _distilled(cost.distil_seconds, cost))
        + f"{duration(cost.evaluate_seconds)} per network, on {display(cost.device)}"
        for cost in board.costs_of(cell)
    ][:2]


def nothing(result: Comparison) -> str:
    """Why there is no table."""
    if not result.states:
        return (
            "Nothing to compare: no runs yet.\n\n"
            f"{hints.hint('everywhere.new', 'n'):<3} asks for one (dm on digits takes seconds, no download)\n"
            f"or  {wording.FIRST}"
        )
    counts = ", ".join(f"{count} {state}" for state, count in sorted(result.states.items()))
    if result.board.finished:
        return f"Nothing to compare: no finished run has a score ({counts})."
    return f"Nothing to compare: no run has finished yet ({counts}).\n\nOnly finished runs are in tables."


def curves(series: Series, width: int, height: int, log: bool, ascii_: bool) -> Text:
    """Lines over each other, and a legend with the last values."""
    if not series:
        return Text(
            f"The marked runs have none: {hints.hint('compare.losses-or-accuracy', 'm')} shows losses, or accuracy."
        )
    drawn = [
        chart.Series(name, np.array([at for at, _ in line]), np.array([value for _, value in line]))
        for name, line in series.items()
    ]
    legend = chart.legend(drawn, chart.ChartLook(log))
    legend.no_wrap = False
    above = legend.wrap(Console(width=width), width)
    lines = chart.lines(drawn, width, max(3, height - len(above)), log=log, ascii=ascii_, unit="iterations")
    return Text("\n").join([*above, *lines])
