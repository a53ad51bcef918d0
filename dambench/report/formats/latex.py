"""The leaderboard as LaTeX: a booktabs tabular for each table, to be \\input. The same runs give the same bytes."""

from collections.abc import Sequence

from dambench.core.sanitize import display
from dambench.report import sections, wording
from dambench.report.parts import Part
from dambench.report.wording import TableEntry
from dambench.store.leaderboard import Leaderboard

SUFFIXES = (".tex",)
SHORT = True

_ESCAPED = {
    **{character: "\\" + character for character in "{}$&#%_"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # After the \\ of a line these two would be its arguments.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "–": "--",
}


def render(board: Leaderboard, rows: Sequence[str], columns: Sequence[str], short: bool = False) -> str:
    r"""The sections that are asked for, and how the numbers came about. It needs \usepackage{booktabs}.

    Args:
        short: the tables of accuracy, and what their signs say.
    """
    if not board.finished:
        return f"% {wording.NOTHING} {wording.FIRST}\n"
    parts = [f"% {latex(wording.made(board))} Needs \\usepackage{{booktabs}}."]
    for part in sections.parts(board, rows, columns, short=short):
        parts += _part(part)
    notes = wording.signs(board.tables, bold="Bold") if short else wording.reading(board)
    if notes:
        items = "\n".join(f"  \\item {latex(note)}" for note in notes)
        parts.append(f"\\begin{{itemize}}\n{items}\n\\end{{itemize}}")
    return "\n\n".join(parts) + "\n"


def _part(part: Part) -> list[str]:
    written = [latex(part.text)] if part.text else []
    if not part.head:
        return [*written, *map(latex, part.notes)]
    lines = [[latex(name), *map(cell, entries)] for name, entries in part.lines]
    caption = f"{(part.caption or part.title).removesuffix('.')}."
    return [*written, _float(caption, [[latex(text) for text in part.head], *lines], part.notes, part.label)]


def latex(text: str) -> str:
    """`display`, with every character that LaTeX would take for a command escaped."""
    return "".join(_ESCAPED.get(character, character) for character in display(text, 4000))


def cell(entry: TableEntry) -> str:
    number = f"\\textbf{{{latex(entry.number)}}}" if entry.bold else latex(entry.number)
    return f"{number} ({latex(entry.n)})" if entry.n else number


def _float(caption: str, lines: list[list[str]], notes: Sequence[str], label: str = "") -> str:
    head, *body = [f"    {' & '.join(line)} \\\\" for line in lines]
    written = [
        r"\begin{table}",
        r"  \centering",
        f"  \\caption{{{latex(caption)}}}",
        *([f"  \\label{{{label}}}"] if label else []),
        f"  \\begin{{tabular}}{{l{'r' * (len(lines[0]) - 1)}}}",
        r"    \toprule",
        head,
        r"    \midrule",
        *body,
        r"    \bottomrule",
        r"  \end{tabular}",
        *(f"  \\par{{\\footnotesize {latex(note)}}}" for note in notes),
        r"\end{table}",
    ]
    return "\n".join(written)
