"""The runs that each cell of a report is made of, and how their scores spread: an appendix."""

from collections.abc import Iterator, Sequence

from dambench.core.sanitize import display
from dambench.report import names, wording
from dambench.report.parts import Part, Records, Section
from dambench.store.cells import Cell, CellKey, Key
from dambench.store.leaderboard import AXES, Leaderboard


def parts(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> list[Part]:
    """A sentence for each cell."""
    notes = []
    for table in board.tables:
        fixed = ", ".join(display(names.shown(axis, value)) for axis, value in table.fixed.items() if value)
        for place, cell in _cells(table.cells, table.rows, table.columns):
            name = " · ".join(filter(None, (wording.name(rows, place[0]), wording.name(columns, place[1]), fixed)))
            runs = (f"{run} (seed {seed})" for run, seed in runs_of(cell).items())
            notes.append(f"{name}: {', '.join(runs)}; {wording.spread(cell)}.")
    text = "And the standard deviations between its sets and of the networks within a set."
    return [Part("Runs of each cell", notes=notes, text=text)] if notes else []


def records(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> Records:
    """One for each cell and run."""
    lines = []
    for table in board.tables:
        for (row, column), cell in _cells(table.cells, table.rows, table.columns):
            place = table.fixed | dict(zip((*rows, *columns), (*row, *column), strict=True))
            for run, seed in runs_of(cell).items():
                sets = sorted({score.set_sha256 for score in cell.scores if score.run == run})
                networks = sum(score.run == run for score in cell.scores)
                lines.append([*(place[axis] for axis in AXES), run, seed, " ".join(sets), networks])
    return Records([*AXES, "run", "seed", "set_sha256", "networks"], lines)


def runs_of(cell: Cell) -> dict[str, int]:
    """The runs whose scores a cell counts, by id, with their seeds, in the order of these."""
    return dict(sorted({score.run: score.seed for score in cell.scores}.items(), key=lambda item: (item[1], item[0])))


def _cells(cells: dict[CellKey, Cell], rows: Sequence[Key], columns: Sequence[Key]) -> Iterator[tuple[CellKey, Cell]]:
    for row in rows:
        for column in columns:
            if (row, column) in cells:
                yield (row, column), cells[row, column]


SECTION = Section("the runs of each cell, with their seeds", parts, records)
