"""The leaderboard as markdown. The same runs give the same bytes."""

from collections.abc import Sequence

from dambench.core.sanitize import markdown
from dambench.report import wording
from dambench.report.wording import TableEntry
from dambench.store.leaderboard import Leaderboard

SUFFIXES = (".md", ".markdown")
SHORT = True

SENTENCE = 2000
"""Characters that a note may have; the names in it are shorter."""


def render(board: Leaderboard, rows: Sequence[str], columns: Sequence[str], short: bool = False) -> str:
    """A report: tables of accuracy, what each method took, and how the numbers came about.

    Args:
        short: the tables of accuracy, and what their signs say.
    """
    if not board.finished:
        return f"{wording.NOTHING}\n\n    {wording.FIRST}\n"
    made = markdown(wording.made(board), SENTENCE)
    parts = [] if short else ["# Dataset distillation benchmark", made]
    for table in board.tables:
        head = [markdown(text) for text in wording.head(table, rows, columns)]
        lines = [[markdown(name), *map(cell, entries)] for name, entries in wording.lines(table, rows)]
        parts += [f"## {markdown(wording.title(table), SENTENCE)}", grid([head, *lines])]
        if table.notes:
            parts.append(_list(table.notes))
    if short:
        parts.append(f"{wording.SHORT}; {made}")
        parts += [_list(notes)] if (notes := wording.signs(board.tables, bold="Bold")) else []
    else:
        parts += [
            "## What it took",
            grid([[markdown(text) for text in line] for line in wording.cost_lines(board.costs)]),
        ]
        parts += ["## How to read this", _list(wording.reading(board))]
    return "\n\n".join(parts) + "\n"


def cell(entry: TableEntry) -> str:
    """`92.6 ± 1.1 (5)`."""
    number = f"**{entry.number}**" if entry.bold else entry.number
    return f"{number} ({entry.n})" if entry.n else number


def grid(lines: list[list[str]]) -> str:
    """A markdown table whose columns line up in a terminal too. The first line is the head."""
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(lines[0]))]
    rule = ["-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    padded = [
        [text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(line, widths, strict=True))]
        for line in [lines[0], rule, *lines[1:]]
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in padded)


def _list(notes: list[str]) -> str:
    return "\n".join(f"- {markdown(note, SENTENCE)}" for note in notes)
