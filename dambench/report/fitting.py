"""Widths of tables on paper: what fits as it is, in smaller print, with lines of cells broken, or in several pieces.

Lengths are in em of the table's own print, so that they hold for every size of a document's font. Widths of words are
estimated by those of Computer Modern, a little too wide.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

LINE = 33.0
"""Em of normal print in a line: article has 34.5 at 10 pt, 32.9 at 11 pt and 33.2 at 12 pt."""
PRINTS = {"": 1.0, "small": 0.925, "footnotesize": 0.85}
"""Sizes of print, and their em."""
GAP, NARROW_GAP = 1.2, 0.7
"""Em between two columns: as LaTeX has it, and as a table has it that is set smaller."""
LEAST_TEXT = 7.0
"""Em that a column of words keeps, if it needs as much."""
NUMBER = 1.6
"""Em of the number of a row."""
MOST_KEYS = 0.5
"""The part of a line that the columns take at most that are repeated in each piece."""

_CLASSES = (
    ("ijl.,:;'|!", 0.29),
    ("frtI()[]- ", 0.4),
    ("mwMW%@&—", 0.9),
    ("ABCDEFGHJKLNOPQRSTUVXYZ±×≥+=<>−#†‡§", 0.78),
)
_WIDE = {character: width for characters, width in _CLASSES for character in characters}
_USUAL = 0.53
_BOLD = 1.16


@dataclass(frozen=True)
class Piece:
    """Some columns of a table, which fit beside each other."""

    columns: tuple[int, ...]
    print: str
    """The size of its print: a key of `PRINTS`."""
    widths: tuple[float | None, ...]
    """Em of each column whose cells are broken into lines; None: as wide as its widest cell."""
    words: tuple[bool, ...]
    """Whether each column has words, and not figures."""
    lines: int
    """Lines that its rows take in all, without the head."""
    numbered: bool = False
    """Whether its rows have numbers, by which they are known in the other pieces: their names stand more than once."""


@cache
def width(text: str, bold: bool = False) -> float:
    """Em that a text takes, estimated."""
    return sum(_WIDE.get(character, _USUAL) for character in text) * (_BOLD if bold else 1)


def is_words(cells: Sequence[str]) -> bool:
    """Whether a column has words, and not figures with their units."""
    return any(cell[:1].isalpha() for cell in cells)


def pieces(head: Sequence[str], rows: Sequence[Sequence[tuple[str, bool]]]) -> list[Piece]:
    """The pieces of a table, each of which fits a line; one, if it can.

    Args:
        head: of each column.
        rows: of each cell its text and whether it is bold.
    """
    columns = [_Column.of(name, [row[place] for row in rows]) for place, name in enumerate(head)]
    every = tuple(range(len(columns)))
    for size, gap in (("", GAP), ("small", NARROW_GAP), ("footnotesize", NARROW_GAP)):
        if sum(column.natural for column in columns) + gap * len(columns) <= LINE / PRINTS[size]:
            return [Piece(every, size, (None,) * len(columns), tuple(column.words for column in columns), len(rows))]
    room = LINE / PRINTS["footnotesize"]
    if _least(columns, every) <= room:
        return [_broken(columns, every, room, numbered=False)]
    keys = _keys(columns, room)
    named = [tuple(row[place][0] for place in keys) for row in rows]
    numbered = len(set(named)) < len(named)
    if numbered:
        room -= NUMBER + NARROW_GAP
    found = _packed(columns, keys, room, len(columns))
    even = _packed(columns, keys, room, -(-(len(columns) - len(keys)) // len(found)))
    chosen = even if len(even) == len(found) else found
    return [_broken(columns, places, room, numbered=numbered) for places in chosen]


def _packed(columns: Sequence["_Column"], keys: Sequence[int], room: float, most: int) -> list[list[int]]:
    """The columns of each piece, in order, each with the keys and as many others as fit and as are allowed."""
    found, taken = [], list(keys)
    for place in range(len(keys), len(columns)):
        full = len(taken) - len(keys) >= most or _least(columns, [*taken, place]) > room
        if len(taken) > len(keys) and full:
            found.append(taken)
            taken = list(keys)
        taken.append(place)
    return [*found, taken]


@dataclass(frozen=True)
class _Column:
    natural: float
    least: float
    cells: tuple[float, ...]
    words: bool

    @classmethod
    def of(cls, head: str, cells: Sequence[tuple[str, bool]]) -> "_Column":
        widths = tuple(width(text, bold) for text, bold in cells)
        natural = max(width(head), *widths, 0.0) if widths else width(head)
        longest = max((width(part) for part in _parts(head)), default=0.0)
        words = is_words([text for text, _ in cells])
        if words:
            longest = max([longest, *(width(part, bold) for text, bold in cells for part in _parts(text))])
            return cls(natural, max(longest, min(natural, LEAST_TEXT)), widths, words)
        return cls(natural, max([longest, *widths]), widths, words)


def _parts(text: str) -> list[str]:
    """What no line is broken within: lines end after spaces and hyphens."""
    return re.findall("[^ -]*-|[^ -]+", text)


def _keys(columns: Sequence[_Column], room: float) -> tuple[int, ...]:
    """The first columns, which say what a row is about, and are repeated in each piece."""
    found = [0]
    for place in range(1, len(columns) - 1):
        if not columns[place].words or _least(columns, [*found, place]) > MOST_KEYS * room:
            break
        found.append(place)
    return tuple(found)


def _least(columns: Sequence[_Column], places: Sequence[int]) -> float:
    return sum(columns[place].least + NARROW_GAP for place in places)


def _broken(columns: Sequence[_Column], places: Sequence[int], room: float, *, numbered: bool) -> Piece:
    """A piece in which the widest columns give way to the others."""
    chosen = [columns[place] for place in places]
    spare = room - NARROW_GAP * len(chosen) - sum(column.least for column in chosen)
    need = sum(column.natural - column.least for column in chosen)
    share = 1.0 if need <= max(spare, 0.0) else max(0.0, spare) / need
    widths = [column.least + share * (column.natural - column.least) for column in chosen]
    broken = tuple(None if column.natural - wide < 0.05 else wide for column, wide in zip(chosen, widths, strict=True))
    rows = zip(*(column.cells for column in chosen), strict=True)
    lines = sum(
        max(1 if wide is None else _lines(cell, wide) for cell, wide in zip(row, broken, strict=True)) for row in rows
    )
    words = tuple(column.words for column in chosen)
    return Piece(tuple(places), "footnotesize", broken, words, lines, numbered)


def _lines(natural: float, wide: float) -> int:
    """Lines that a cell takes: a little more than by its width, as words are not broken."""
    return 1 if natural <= wide else int(natural * 1.15 / wide) + 1
