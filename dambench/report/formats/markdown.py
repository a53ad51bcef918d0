"""The leaderboard as markdown. The same runs give the same bytes."""

from collections.abc import Sequence

from dambench.core.sanitize import display, markdown
from dambench.report import quantities, sections, wording
from dambench.report.parts import Part
from dambench.report.wording import TableEntry
from dambench.store.leaderboard import Leaderboard

SUFFIXES = (".md", ".markdown")
SHORT = True

SENTENCE = 2000
"""Characters that a note may have; the names in it are shorter."""


def render(board: Leaderboard, rows: Sequence[str], columns: Sequence[str], short: bool = False) -> str:
    """A report: the sections that are asked for, and how the numbers came about.

    Args:
        short: the tables of accuracy, and what their signs say.
    """
    if not board.finished:
        return f"{wording.NOTHING}\n\n    {wording.FIRST}\n"
    made = markdown(wording.made(board), SENTENCE)
    written = [] if short else ["# Dataset distillation benchmark", made]
    for part in sections.parts(board, rows, columns, short=short):
        written += _part(part)
    if short:
        written.append("; ".join(filter(None, [quantities.short(board), made])))
        written += [_list(notes)] if (notes := wording.signs(board.tables, bold="Bold")) else []
    else:
        written += ["## How to read this", _list(wording.reading(board))]
    return "\n\n".join(written) + "\n"


def _part(part: Part) -> list[str]:
    lines = [[markdown(name), *map(cell, entries)] for name, entries in part.lines]
    written = [f"## {markdown(part.title, SENTENCE)}"]
    written += [markdown(part.text, 2 * SENTENCE)] if part.text else []
    written += [grid([[markdown(text) for text in part.head], *lines])] if part.head else []
    written += [_list(part.notes)] if part.notes else []
    for about, command in part.commands:
        written += [f"{markdown(about, SENTENCE)}:", f"    {display(command, SENTENCE)}"]
    return written


def cell(entry: TableEntry) -> str:
    """`92.6 ± 1.1 (5)`."""
    text = markdown(entry.number)
    number = f"**{text}**" if entry.bold else text
    return f"{number} ({markdown(entry.n)})" if entry.n else number


def grid(lines: list[list[str]]) -> str:
    """A markdown table whose columns line up in a terminal too. The first line is the head."""
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(lines[0]))]
    rule = ["-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    padded = [
        [text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(line, widths, strict=True))]
        for line in [lines[0], rule, *lines[1:]]
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in padded)


def _list(notes: Sequence[str]) -> str:
    return "\n".join(f"- {markdown(note, SENTENCE)}" for note in notes)
