"""Final, validation-selected and test-selected, side by side, of runs whose sets were evaluated on the way."""

from collections.abc import Iterator, Sequence
from typing import Any

from dambench.core.sanitize import display
from dambench.report import wording
from dambench.report.parts import Part, Records, Section, finite
from dambench.report.sections.runs import runs_of
from dambench.report.wording import MISSING, TableEntry
from dambench.store.cells import Cell
from dambench.store.leaderboard import AXES, Leaderboard
from dambench.store.selection import RULES, Rule, selected

TEXT = (
    "final: of the last iteration. validation-selected: of the iteration with the best mean validation accuracy, by "
    "run; cross-fitted: the same, each network on the set that the others chose, so that no network is tested that "
    "chose. test-selected: of the iteration with the best mean test accuracy, as in the papers: it is too high by "
    f"construction. {MISSING}: the set may have been made of the validation images, or was evaluated at its end only."
)


def parts(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> list[Part]:
    """One table with a line for each cell, if any run has sets to select from."""
    lines = [
        (
            wording.name(("method", "dataset", "ipc"), (score.method, score.dataset, score.ipc)),
            [
                TableEntry(display(score.network)),
                TableEntry(display(score.protocol)),
                *(TableEntry(MISSING) if one is None else wording.entry(one) for one in by_rule.values()),
            ],
        )
        for cell, by_rule in _cells(board)
        for score in cell.scores[:1]
    ]
    if not lines:
        return []
    return [
        Part(
            title=f"Selection: {wording.metric_label(board.metric)}",
            head=["method", "trained network", "protocol", *RULES],
            lines=lines,
            text=TEXT,
        )
    ]


def records(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> Records:
    """One for each cell and rule."""
    head = [*AXES, "selection", board.metric.name, "low", "high", "sets", "networks", "iterations", "runs"]
    lines: list[list[Any]] = []
    for cell, by_rule in _cells(board):
        for rule, one in by_rule.items():
            place = [getattr(cell.scores[0], axis) for axis in AXES]
            if one is None:
                lines.append([*place, rule, *[None] * 5, "", " ".join(runs_of(cell))])
                continue
            figures = [finite(one.mean), *(one.interval or (None, None)), one.sets, one.networks]
            lines.append([*place, rule, *figures, _iterations(board, one, rule), " ".join(runs_of(one))])
    return Records(head, lines)


def _cells(board: Leaderboard) -> Iterator[tuple[Cell, dict[Rule, Cell | None]]]:
    """The cells of tables in which some run has sets to select from, each by the rules."""
    seen = set()
    for table in board.tables:
        cells = [
            table.cells[row, column] for row in table.rows for column in table.columns if (row, column) in table.cells
        ]
        if not any(_has_course(board, cell) for cell in cells):
            continue
        for cell in cells:
            key = tuple(map(id, cell.scores))  # the whole set stands in the column of each IPC
            if key in seen:
                continue
            seen.add(key)
            yield cell, {rule: selected(cell, rule, board.selections) for rule in RULES}


def _has_course(board: Leaderboard, cell: Cell) -> bool:
    return any(score.run in board.selections and not board.selections[score.run].one_set for score in cell.scores)


def _iterations(board: Leaderboard, cell: Cell, rule: Rule) -> str:
    """The iterations that were selected, of each run, as `50 100/150`."""
    network = cell.scores[0].network
    return " ".join(
        "/".join(map(str, board.selections[run].iterations(network, rule)))
        for run in runs_of(cell)
        if run in board.selections
    )


def line(board: Leaderboard, cell: Cell) -> str:
    """The sentence beside one cell; empty: there is nothing to select from."""
    if not _has_course(board, cell):
        return ""
    figures = {rule: selected(cell, rule, board.selections) for rule in RULES}
    return " · ".join(
        f"{rule} {MISSING if one is None else wording.figure(board.metric, one.mean)}" for rule, one in figures.items()
    )


SECTION = Section("final, validation-selected and test-selected accuracies side by side", parts, records)
