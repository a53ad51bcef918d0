"""Document: the report as the Report place previews it, what is missing or mixed in it, and the lines of its panes."""

import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from rich.cells import cell_len
from rich.text import Text

from dambench.core.errors import BadInput
from dambench.core.sanitize import display
from dambench.report import render, wording
from dambench.report.document import DocumentQuery, arrange, read_board
from dambench.report.sections import SECTIONS, summary, usual
from dambench.store.baselines import NO_COMMAND
from dambench.store.leaderboard import Leaderboard
from dambench.store.metrics import MetricRow, metrics
from dambench.store.runs import Store
from dambench.tui.models.arranging import within

FILTERED_SECONDS = 60.0
"""Seconds after which runs are looked through anew for a filter: one by age changes though nothing is written."""

EASE = 5
"""How many times as long as a report took to make, it is not made again."""


class Remark(NamedTuple):
    """Something that a report lacks or mixes."""

    text: str
    command: str = ""
    """A line for a shell that helps; empty: there is none."""


@dataclass(frozen=True)
class Document:
    """A report as it would be written now."""

    query: DocumentQuery
    """The request for it."""
    meant: DocumentQuery
    """The same, with names alone that there are: its command writes this text."""
    text: str
    remarks: tuple[Remark, ...] = ()
    finished: int = 0
    problem: str = ""
    """Why there is none."""
    metrics: tuple[MetricRow, ...] = ()
    """All that the database describes."""
    board: Leaderboard | None = field(default=None, compare=False)


class DocumentReader:
    """Makes the report in the feed's thread, anew only where something was written that it can depend on."""

    def __init__(self) -> None:
        self._last: Document | None = None
        self._known: object = None
        self._again = 0.0

    def read(self, store: Store, query: DocumentQuery) -> Document:
        """Make the report of a database, or give the last one where it still holds."""
        now, last = time.monotonic(), self._last
        # What a filter means also depends on what changes in runs that go on.
        written = (store.version(), now // FILTERED_SECONDS) if query.filter.strip() else store.revision()
        known = store.db, query, written
        if last is not None and last.query == query and (known == self._known or now < self._again):
            return last
        made = make(store, query)
        self._again = time.monotonic() + EASE * (time.monotonic() - now)
        self._known = known
        if made != last:
            self._last = made
        return self._last or made


def make(store: Store, query: DocumentQuery) -> Document:
    """The report of a database, byte for byte as `dambench report` writes it."""
    board, meant = None, query
    try:
        board = read_board(store, query)
        meant = within(query, board)
        text = render(query.format, arrange(board, meant), query.rows, query.columns, short=query.short)
    except BadInput as error:
        return Document(query, meant, "", problem=str(error), board=board)
    found, described = tuple(remarks(board)), tuple(metrics(store))
    return Document(query, meant, text, found, board.finished, metrics=described, board=board)


def remarks(board: Leaderboard) -> Iterator[Remark]:
    """What is missing beside the results, and what is mixed in them or left out."""
    if not board.scores:
        return
    for one in board.baselines.missing:
        yield Remark(f"missing: {one.what} ({one.where}; {one.there} there)", one.command or NO_COMMAND)
    for sentence in summary.gaps(board):
        yield Remark(sentence)
    for table in board.tables:
        for note in table.notes:
            yield Remark(f"{wording.title(table)}: {note}")
    if len(board.protocols) > 1:
        yield Remark(summary.protocols(board))
    for clause in wording.omissions(board):
        yield Remark(f"{wording.capitalised(clause)}.")


def section_lines(query: DocumentQuery) -> list[Text]:
    """The sections that there are, those of the report marked."""
    chosen = ("accuracy",) if query.short else query.sections or usual()
    return [Text(f"[{'x' if name in chosen else ' '}] {name}", "" if name in chosen else "dim") for name in SECTIONS]


def sections_in_words(query: DocumentQuery) -> str:
    if query.short:
        return "short: the tables of accuracy"
    if not query.sections:
        return "usual sections"
    return "all sections" if query.sections == tuple(SECTIONS) else ", ".join(query.sections)


def remark_lines(found: Document, width: int) -> list[Text]:
    """What is missing or mixed, wrapped."""
    if not found.remarks:
        return [Text("Nothing is missing or mixed.", "dim")] if found.text else []
    lines = []
    for remark in found.remarks:
        whole = textwrap.wrap(display(remark.text, 600), max(10, width - 2)) or [""]
        lines += [Text(f"{'!' if index == 0 else ' '} {line}") for index, line in enumerate(whole)]
    return lines


def preview_lines(found: Document, width: int, across: int = 0) -> list[Text]:
    """A document on so many columns: the sentences of markdown wrapped, whatever else is too long cut off.

    Args:
        across: columns left of what is shown, of lines that are cut off.
    """
    lines: list[Text] = []
    prose = found.query.format == "markdown"
    for line in found.text.splitlines():
        laid_out = not prose or line.startswith(("|", " "))
        style = "bold" if prose and line.startswith("#") else ""
        if cell_len(line) <= width and not (across and laid_out):
            lines.append(Text(line, style, no_wrap=True))
        elif laid_out:
            lines.append(Text(line[across:], style, no_wrap=True, overflow="crop"))
        else:
            hang = "  " if line.startswith("- ") else ""
            lines += [Text(part, style) for part in textwrap.wrap(line, max(10, width), subsequent_indent=hang) or [""]]
    return lines
