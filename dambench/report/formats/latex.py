"""The leaderboard as LaTeX: a booktabs tabular for each table, to be \\input. The same runs give the same bytes."""

from collections.abc import Sequence

from dambench.core.sanitize import display
from dambench.report import sections, wording
from dambench.report.parts import Part
from dambench.report.wording import TableEntry
from dambench.store.leaderboard import Leaderboard

SUFFIXES = (".tex",)
SHORT = True

LONG = 45
"""Rows that one page holds; a table with more is a longtable, which goes on over several."""

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
    "≠": r"$\neq$",
    "≥": r"$\geq$",
    "\N{MINUS SIGN}": "$-$",
    "–": "--",
}


def render(board: Leaderboard, rows: Sequence[str], columns: Sequence[str], short: bool = False) -> str:
    r"""The sections that are asked for, and how the numbers came about. It needs \usepackage{booktabs}.

    Args:
        short: the tables of accuracy, and what their signs say.
    """
    if not board.finished:
        return f"% {wording.NOTHING} {wording.FIRST}\n"
    made = sections.parts(board, rows, columns, short=short)
    packages = "booktabs,longtable" if any(len(part.lines) > LONG for part in made) else "booktabs"
    parts = [f"% {latex(wording.made(board))} Needs \\usepackage{{{packages}}}."]
    for part in made:
        parts += _part(part)
    notes = wording.signs(board.tables, bold="Bold") if short else wording.reading(board)
    if notes:
        parts.append(_items(notes))
    return "\n\n".join(parts) + "\n"


def _part(part: Part) -> list[str]:
    written = [latex(part.text)] if part.text else []
    commands = [f"{latex(about)}: \\texttt{{{latex(command)}}}" for about, command in part.commands]
    if not part.head:
        title = f"\\paragraph{{{latex(part.title)}.}}"
        return [" ".join([title, *written]), *([_items(part.notes)] if part.notes else []), *commands]
    lines = [[latex(name), *map(cell, entries)] for name, entries in part.lines]
    caption = f"{(part.caption or part.title).removesuffix('.')}."
    table = _float(caption, [[latex(text) for text in part.head], *lines], part.notes, part.label)
    return [*written, table, *commands]


def _items(notes: Sequence[str]) -> str:
    items = "\n".join(f"  \\item {latex(note)}" for note in notes)
    return f"\\begin{{itemize}}\n{items}\n\\end{{itemize}}"


def latex(text: str) -> str:
    """`display`, with every character that LaTeX would take for a command escaped, and the hyphens of options apart."""
    parts = display(text, 4000).split("--")
    return "-{}-".join("".join(_ESCAPED.get(character, character) for character in part) for part in parts)


def cell(entry: TableEntry) -> str:
    number = f"\\textbf{{{latex(entry.number)}}}" if entry.bold else latex(entry.number)
    return f"{number} ({latex(entry.n)})" if entry.n else number


def _float(caption: str, lines: list[list[str]], notes: Sequence[str], label: str = "") -> str:
    head, *body = [f"    {' & '.join(line)} \\\\" for line in lines]
    named = [f"\\caption{{{latex(caption)}}}", *([f"\\label{{{label}}}"] if label else [])]
    columns = f"{{l{'r' * (len(lines[0]) - 1)}}}"
    below = [f"  \\par{{\\footnotesize {latex(note)}}}" for note in notes]
    rows = [r"    \toprule", head, r"    \midrule"]
    if len(body) > LONG:
        start = [f"\\begin{{longtable}}{columns}", f"  {' '.join(named)} \\\\"]
        return "\n".join([*start, *rows, r"    \endhead", *body, r"    \bottomrule", r"\end{longtable}", *below])
    start = [r"\begin{table}", r"  \centering", *(f"  {line}" for line in named), f"  \\begin{{tabular}}{columns}"]
    return "\n".join([*start, *rows, *body, r"    \bottomrule", r"  \end{tabular}", *below, r"\end{table}"])
