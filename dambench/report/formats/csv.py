"""One section of the leaderboard as CSV, to be read by pandas or a spreadsheet. The same runs give the same bytes."""

import csv
import io
from collections.abc import Sequence

from dambench.core.sanitize import display
from dambench.report.sections import SECTIONS
from dambench.store.leaderboard import Leaderboard

SUFFIXES = (".csv",)
SINGLE = True

_FORMULA = tuple("=+-@\t\r＝＋－＠")  # the wide ones are taken for formulas too, where people write in wide letters


def render(board: Leaderboard, rows: Sequence[str], columns: Sequence[str], short: bool = False) -> str:
    """One section, of accuracy unless another is asked for: a line for each of its records.

    Fractions, their intervals and standard deviations stay fractions, unrounded; what is not known is empty. Each
    line says by which filter the runs were chosen; empty: all are there.
    """
    (name,) = board.sections or ("accuracy",)
    names, lines = SECTIONS[name].records(board, rows, columns)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows(
        [_value(value) for value in line] for line in [[*names, "filter"], *([*line, board.only] for line in lines)]
    )
    return file.getvalue()


def _value(value: str | float | bool | None) -> str | float:
    return "" if value is None else text(value) if isinstance(value, str) else value


def text(name: str) -> str:
    """`display`; what a spreadsheet would calculate is marked as text by an apostrophe."""
    shown = display(name)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown
