"""Parts of a report before any format: a title, a table and sentences each, which formats write in their own way."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dambench.report.wording import TableEntry
from dambench.store.leaderboard import Leaderboard


@dataclass(frozen=True)
class Part:
    """One titled piece of a report. Its texts are harmless lines, of which nothing is escaped yet."""

    title: str
    head: Sequence[str] = ()
    lines: Sequence[tuple[str, Sequence[TableEntry]]] = ()
    """A table: the name of each row, and its other cells."""
    notes: Sequence[str] = ()
    """Sentences below the table."""
    commands: Sequence[tuple[str, str]] = ()
    """Below the notes: what a line for a shell does, and the line, which is to be copied as it is."""
    text: str = ""
    """A paragraph above the table."""
    caption: str = ""
    """What is written under the table where tables float; empty: the title."""
    label: str = ""
    """By what a text refers to the table; empty: by nothing."""


class Records(NamedTuple):
    """A section for programs: a value per line and column, unrounded, None where it is not known."""

    columns: list[str]
    lines: list[list[Any]]

    def dicts(self) -> list[dict[str, Any]]:
        """The lines by the names of columns."""
        return [dict(zip(self.columns, line, strict=True)) for line in self.lines]


@dataclass(frozen=True)
class Section:
    """What a report can have: its parts for people, and its records for programs.

    Attributes:
        about: what it holds, in some words.
        parts: from the leaderboard and the axes of its rows and columns; none: there is nothing of the kind.
        records: from the same.
        usual: whether a report has it unless others are asked for.
    """

    about: str
    parts: Callable[[Leaderboard, Sequence[str], Sequence[str]], list[Part]]
    records: Callable[[Leaderboard, Sequence[str], Sequence[str]], Records]
    usual: bool = True


def finite(value: float | None) -> float | None:
    """The value; None in place of what is no number."""
    return value if value is not None and math.isfinite(value) else None
