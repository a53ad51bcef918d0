"""The leaderboard as an HTML page that runs and fetches nothing. The same runs give the same bytes."""

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from html import escape

from dambench.core.sanitize import display
from dambench.report import wording
from dambench.report.wording import TableEntry
from dambench.store.leaderboard import Leaderboard

SUFFIXES = (".html", ".htm")
SHORT = True

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { padding: .25rem .75rem; text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 1px solid; }
small { opacity: .7; }
"""

POLICY = (
    f"default-src 'none'; style-src 'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'"
)
"""Even if something became markup that must not, a browser would fetch and run nothing."""


def render(board: Leaderboard, rows: Sequence[str], columns: Sequence[str], short: bool = False) -> str:
    """A page: tables of accuracy, what each method took, and how the numbers came about.

    Args:
        short: the tables of accuracy, and what their signs say.
    """
    parts = ["<h1>Dataset distillation benchmark</h1>"]
    if not board.finished:
        parts.append(f"<p>{html(wording.NOTHING)}</p>\n<pre>{html(wording.FIRST)}</pre>")
        return _page(parts)
    parts.append(f"<p>{html(wording.made(board))} {html(wording.SHORT)}</p>")
    for table in board.tables:
        head = [html(text) for text in wording.head(table, rows, columns)]
        lines = [[html(name), *map(cell, entries)] for name, entries in wording.lines(table, rows)]
        parts += [f"<h2>{html(wording.title(table))}</h2>", _grid([head, *lines])]
        if table.notes:
            parts.append(_list(table.notes))
    if short:
        parts += [_list(notes)] if (notes := wording.signs(board.tables, bold="Bold")) else []
    else:
        costs = [[html(text) for text in line] for line in wording.cost_lines(board.costs)]
        parts += ["<h2>What it took</h2>", _grid(costs)]
        parts += ["<h2>How to read this</h2>", _list(wording.reading(board))]
    return _page(parts)


def html(text: str) -> str:
    """`display`, with every character that HTML would take for markup escaped."""
    return escape(display(text, 2000))


def cell(entry: TableEntry) -> str:
    number = f"<strong>{html(entry.number)}</strong>" if entry.bold else html(entry.number)
    return f"{number} <small>({html(entry.n)})</small>" if entry.n else number


def _page(parts: list[str]) -> str:
    body = "\n".join(parts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width">
<title>Dataset distillation benchmark</title>
<style>{STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""


def _grid(lines: list[list[str]]) -> str:
    def row(line: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{text}</{tag}>" for text in line) + "</tr>"

    body = "\n".join(row(line, "td") for line in lines[1:])
    return f"<table>\n<thead>{row(lines[0], 'th')}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _list(notes: list[str]) -> str:
    return "<ul>\n" + "\n".join(f"<li>{html(note)}</li>" for note in notes) + "\n</ul>"
