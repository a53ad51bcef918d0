"""Tables of accuracy, or of whichever metric is shown."""

from collections.abc import Sequence

from dambench.core.sanitize import display
from dambench.report import names, quantities, wording
from dambench.report.parts import Part, Records, Section, finite
from dambench.report.quantities import TableView
from dambench.report.sections.runs import runs_of
from dambench.report.standing import missing_baselines
from dambench.report.verdict import notes
from dambench.store.leaderboard import AXES, Leaderboard


def parts(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> list[Part]:
    """A part for each table."""
    return [_part(TableView(board, table, rows, columns)) for table in board.tables]


def _part(view: TableView) -> Part:
    board, table, shows = view.board, view.table, quantities.shown(view.board)
    title = quantities.title(table, shows)
    short = f"; {wording.SHORT}" if quantities.METRIC in shows else ""
    heads = [" ".join(filter(None, texts)) for texts in quantities.head(view, shows)]
    return Part(
        title=title,
        head=[display(", ".join(map(names.of_axis, view.rows))), *heads],
        lines=quantities.lines(view, shows),
        notes=[
            *quantities.meanings(shows),
            *quantities.sources(view, shows),
            *notes(board, table, view.rows, view.columns),
            *missing_baselines(board, table),
        ],
        caption=f"{title}{short}{wording.selection(board)}",
    )


def records(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> Records:
    """One for each cell. The whole set has no IPC: as in a table, it is in each column that it stands in."""
    hashes = {protocol.label: protocol.sha256 for protocol in board.protocols}
    head = [*AXES, "protocol_sha256", board.metric.name, "low", "high", "sets", "networks", "unit"]
    head += ["std_between_sets", "std_within_set", "best", "majority", "runs"]
    shows, lines = quantities.shown(board), []
    more: list[str] = []
    for table in board.tables:
        view = TableView(board, table, rows, columns)
        for row in table.rows:
            for column in table.columns:
                if (row, column) not in table.cells:
                    continue
                cell = table.cells[row, column]
                place = table.fixed | dict(zip((*rows, *columns), (*row, *column), strict=True))
                also = quantities.records(view, (row, column), shows)
                more = more or list(also)
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
                        *also.values(),
                    ]
                )
    return Records(head + more, lines)


SECTION = Section("a table of accuracy, or of the metric that is shown, for each protocol", parts, records)
