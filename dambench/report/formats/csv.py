"""The leaderboard as CSV: a line per row, column and trained network. The same runs give the same bytes."""

import csv
import io
import math
from collections.abc import Sequence

from dambench.core.sanitize import display
from dambench.store.leaderboard import AXES, Leaderboard

SUFFIXES = (".csv",)

_FORMULA = tuple("=+-@\t\r＝＋－＠")  # the wide ones are taken for formulas too, where people write in wide letters


def render(board: Leaderboard, rows: Sequence[str], columns: Sequence[str], short: bool = False) -> str:
    """Fractions and their standard deviations stay fractions, unrounded; what is not known is empty.

    The whole set has no IPC: as in a table, it has a line for each column that it stands in. Each line says by which
    filter the runs were chosen; empty: all are there.
    """
    hashes = {protocol.label: protocol.sha256 for protocol in board.protocols}
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        [*AXES, "protocol_sha256", text(board.metric.name), "std", "n", "sets", "best", "majority", "filter"]
    )
    for table in board.tables:
        for row in table.rows:
            for column in table.columns:
                if (row, column) not in table.cells:
                    continue
                cell = table.cells[row, column]
                place = table.fixed | dict(zip((*rows, *columns), (*row, *column), strict=True))
                writer.writerow(
                    [
                        *(place[axis] if axis == "ipc" else text(str(place[axis])) for axis in AXES),
                        hashes[str(place["protocol"])],
                        cell.mean if math.isfinite(cell.mean) else "",
                        cell.std if cell.std is not None and math.isfinite(cell.std) else "",
                        cell.n,
                        cell.sets,
                        int((row, column) in table.best),
                        table.majority.get(column, ""),
                        text(board.only),
                    ]
                )
    return file.getvalue()


def text(name: str) -> str:
    """`display`; what a spreadsheet would calculate is marked as text by an apostrophe."""
    shown = display(name)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown
