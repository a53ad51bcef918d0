"""The leaderboard as LaTeX: a booktabs tabular for each table, to be \\input. The same runs give the same bytes."""

from collections.abc import Sequence

from dambench.core.sanitize import display
from dambench.report import fitting, sections, wording
from dambench.report.fitting import Piece
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
    r"""The sections that are asked for, and how the numbers came about. Its first line names the packages it needs.

    Args:
        short: the tables of accuracy, and what their signs say.
    """
    if not board.finished:
        return f"% {wording.NOTHING} {wording.FIRST}\n"
    made = sections.parts(board, rows, columns, short=short)
    parts = [written for part in made for written in _part(part)]
    notes = wording.signs(board.tables, bold="Bold") if short else wording.reading(board)
    if notes:
        parts.append(_items(notes))
    body = "\n\n".join(parts)
    needed = {"array": "\\arraybackslash", "booktabs": "\\toprule", "longtable": "\\begin{longtable}"}
    packages = ",".join(package for package, sign in needed.items() if sign in body) or "booktabs"
    return f"% {latex(wording.made(board))} Needs \\usepackage{{{packages}}}.\n\n{{\\sloppy\n{body}\n\n}}\n"


def _part(part: Part) -> list[str]:
    written = [latex(part.text)] if part.text else []
    commands = [
        f"{{\\raggedright {latex(about)}: \\texttt{{{latex(command)}}}\\par}}" for about, command in part.commands
    ]
    if not part.head:
        title = f"\\paragraph{{{latex(part.title)}.}}"
        return [" ".join([title, *written]), *([_items(part.notes)] if part.notes else []), *commands]
    return [*written, *_tables(part), *commands]


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


def _tables(part: Part) -> list[str]:
    """The table of a part: one float, whose pieces stand under each other, or what goes on over several pages."""
    rows = [[(name, False), *((_plain(entry), entry.bold) for entry in entries)] for name, entries in part.lines]
    found = fitting.pieces(part.head, rows)
    lines = [[latex(text) for text in part.head]]
    lines += [[latex(name), *map(cell, entries)] for name, entries in part.lines]
    notes = [f"  \\par{{\\footnotesize {latex(note)}}}" for note in part.notes]
    caption = (part.caption or part.title).removesuffix(".")
    label = f"\\label{{{part.label}}}" if part.label else ""
    if sum(piece.lines for piece in found) <= LONG:
        tabulars = [line for piece in found for line in _tabular(piece, lines, "tabular", "")]
        named = [f"  \\caption{{{latex(caption)}.}}", *([f"  {label}"] if label else [])]
        return ["\n".join([r"\begin{table}", r"  \centering", *named, *tabulars, *notes, r"\end{table}"])]
    tables = []
    for number, piece in enumerate(found, 1):
        which = f" ({number} of {len(found)})" if len(found) > 1 else ""
        captioned = f"\\caption{{{latex(caption + which)}.}}{label if number == 1 else ''} \\\\"
        tables.append("\n".join(_tabular(piece, lines, "longtable", captioned)))
    return ["\n".join([*tables, *notes])]


def _tabular(piece: Piece, lines: Sequence[Sequence[str]], kind: str, caption: str) -> list[str]:
    """The lines of one piece, of which the first is the head."""
    columns = "".join(map(_column, piece.columns, piece.words, piece.widths))
    cells = [[line[place] for place in piece.columns] for line in lines]
    if piece.numbered:
        columns = f"r{columns}"
        cells = [[str(number or r"\#"), *line] for number, line in enumerate(cells)]
    head, *body = [f"    {' & '.join(line)} \\\\" for line in cells]
    rows = [r"    \toprule", head, r"    \midrule", *([r"    \endhead"] if caption else []), *body, r"    \bottomrule"]
    named = [f"    {caption}"] if caption else []
    smaller = [f"  {{\\{piece.print}\\setlength{{\\tabcolsep}}{{{fitting.NARROW_GAP / 2:g}em}}"] if piece.print else []
    closed = [r"  \par}"] if piece.print else []
    return [*smaller, f"  \\begin{{{kind}}}{{{columns}}}", *named, *rows, f"  \\end{{{kind}}}", *closed]


def _column(place: int, words: bool, wide: float | None) -> str:
    """How a column is set: words to the left, figures to the right, lines in it broken if it has a width."""
    left = words or place == 0
    if wide is None:
        return "l" if left else "r"
    ragged = r"\raggedright" if left else r"\raggedleft"
    return f">{{{ragged}\\arraybackslash}}p{{{wide:.2f}em}}"


def _plain(entry: TableEntry) -> str:
    return f"{entry.number} ({entry.n})" if entry.n else entry.number
