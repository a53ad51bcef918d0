"""The document that `dambench report` writes: the request for it, and the leaderboard that answers it."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from dambench.core.errors import BadInput
from dambench.report import quantities
from dambench.report.arrangement import Arrangement, arranged
from dambench.report.sections import SECTIONS
from dambench.runner import processes
from dambench.store import filters, grouping
from dambench.store.leaderboard import Leaderboard, leaderboard
from dambench.store.measured import measured
from dambench.store.metrics import ACCURACY, find_metric
from dambench.store.runs import Store


@dataclass(frozen=True)
class DocumentQuery:
    """The runs, the tables and the parts that a report is to have."""

    rows: tuple[str, ...] = ("method",)
    columns: tuple[str, ...] = ("dataset", "ipc")
    metric: str = "accuracy"
    sections: tuple[str, ...] = ()
    """None: the usual ones."""
    short: bool = False
    """The tables of accuracy alone."""
    filter: str = ""
    format: str = "markdown"
    shows: tuple[str, ...] = (quantities.METRIC,)
    """What cells show."""
    hide: tuple[str, ...] = ()
    """Rows and columns that are left out, by their names."""
    first: tuple[str, ...] = ()
    """Rows and columns that come before the others."""
    order: str = ""
    """The order of rows, as an Arrangement has it."""
    group: tuple[str, ...] = ()
    """Keys by which runs are grouped; empty: the usual ones, where there is such a section."""

    @property
    def arrangement(self) -> Arrangement:
        return Arrangement(self.hide, self.first, self.order)

    def words(self, output: str = "", db: Path | None = None) -> list[str]:
        """The words of the command that writes this document.

        Args:
            output: the file; empty: it is printed.
            db: the database, where it is not the one that the command takes by itself.
        """
        usual = DocumentQuery()
        words = ["report"]
        for flag, value, default in (
            ("--rows", ",".join(self.rows), ",".join(usual.rows)),
            ("--columns", ",".join(self.columns), ",".join(usual.columns)),
            ("--format", self.format, usual.format),
            ("--metric", self.metric, usual.metric),
            ("--sections", ",".join(self.sections), ""),
            ("--show", ",".join(self.shows), ",".join(usual.shows)),
            *(("--hide", name, "") for name in self.hide),
            *(("--first", name, "") for name in self.first),
            ("--order", self.order, ""),
            ("--group", ",".join(self.group), ""),
            ("--filter", self.filter.strip(), ""),
            ("--output", output, ""),
            ("--db", "" if db is None else str(db), ""),
        ):
            # A value that begins with a dash would be taken for an option.
            words += [] if value == default else [f"{flag}={value}"] if value.startswith("-") else [flag, value]
        return words + (["--short"] if self.short else [])

    def command(self, output: str = "", db: Path | None = None) -> str:
        """A line for a shell that writes this document."""
        return shlex.join(["dambench", *self.words(output, db)])


def read_board(store: Store, query: DocumentQuery) -> Leaderboard:
    """Read the leaderboard that a document is made of.

    Raises:
        BadInput: the filter is none, or means no finished run; no run has the metric.
    """
    only = filters.read(query.filter, to_compare=True)
    shown, condition = find_metric(store, query.metric), only.where(processes.states(store))
    board = leaderboard(store, query.rows, query.columns, metric=shown, only=condition)
    board.only, board.sections = only.text.strip(), query.sections
    if "measured" in (query.sections or SECTIONS) and not query.short:
        board.measured = measured(store, condition)
    by = query.group or (grouping.USUAL if "groups" in query.sections else ())
    if by:
        runs = list(dict.fromkeys(score.run for score in board.scores))
        board.groups = grouping.group(board, by, grouping.values(store, runs))
    if board.only and not board.finished:
        raise BadInput(f"No finished run is meant by the filter {board.only!r}: `dambench runs` lists all.")
    if shown != ACCURACY and not board.tables:
        raise BadInput(f"No finished run has the metric {shown.full_name}: `dambench evaluate` measures one.")
    return board


def arrange(board: Leaderboard, query: DocumentQuery) -> Leaderboard:
    """The board as its document shows it: what cells say, which rows and columns, in which order.

    Raises:
        BadInput: a row or a column is none of its own, or nothing is left.
    """
    shown = arranged(board, query.rows, query.columns, query.arrangement, strict=True)
    return replace(shown, shows=query.shows)
