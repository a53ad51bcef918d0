"""Tables of accuracy, or of whichever metric is shown."""

from collections.abc import Sequence

from dambench.report import wording
from dambench.report.parts import Part, Records, Section, finite
from dambench.report.sections.runs import runs_of
from dambench.report.standing import missing_baselines
from dambench.report.verdict import notes
from dambench.store.leaderboard import AXES, Leaderboard


def parts(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> list[Part]:
    """A part for each table."""
    return [
        Part(
            title=wording.title(table),
            head=wording.head(table, rows, columns),
            lines=wording.lines(table, rows),
            notes=[*notes(board, table, rows, columns), *missing_baselines(board, table)],
            caption=f"{wording.title(table)}; {wording.SHORT}{wording.selection(board)}",
        )
        for table in board.tables
    ]


def records(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> Records:
    """One for each cell. The whole set has no IPC: as in a table, it is in each column that it stands in."""
    hashes = {protocol.label: protocol.sha256 for protocol in board.protocols}
    head = [*AXES, "protocol_sha256", board.metric.name, "low", "high", "sets", "networks", "unit"]
    head += ["std_between_sets", "std_within_set", "best", "majority", "runs"]
    lines = []
    for table in board.tables:
        for row in table.rows:
            for column in table.columns:
                if (row, column) not in table.cells:
                    continue
                cell = table.cells[row, column]
                place = table.fixed | dict(zip((*rows, *columns), (*row, *column), strict=True))
                lines.append(
                    [
                        *(place[axis] for axis in AXES),
                        hashes[str(place["protocol"])],
                        finite(cell.mean),
                        *(cell.interval or (None, None)),
                        cell.sets,
                        cell.networks,
                        cell.unit,
                        cell.spread.between_std,
                        cell.spread.within_std,
                        int((row, column) in table.best),
                        table.majority.get(column),
                        " ".join(runs_of(cell)),
                    ]
                )
    return Records(head, lines)


SECTION = Section("a table of accuracy, or of the metric that is shown, for each protocol", parts, records)
