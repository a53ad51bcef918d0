"""The leaderboard as an HTML page that runs and fetches nothing. The same runs give the same bytes."""

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from html import escape

from dambench.core.sanitize import display
from dambench.report import quantities, sections, wording
from dambench.report.parts import Part
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
    """A page: the sections that are asked for, and how the numbers came about.

    Args:
        short: the tables of accuracy, and what their signs say.
    """
    parts = ["<h1>Dataset distillation benchmark</h1>"]
    if not board.finished:
        parts.append(f"<p>{html(wording.NOTHING)}</p>\n<pre>{html(wording.FIRST)}</pre>")
        return _page(parts)
    parts.append(f"<p>{html(wording.made(board))} {html(quantities.short(board))}</p>")
    for part in sections.parts(board, rows, columns, short=short):
        parts += _part(part)
    if short:
        parts += [_list(notes)] if (notes := wording.signs(board.tables, bold="Bold")) else []
    else:
        parts += ["<h2>How to read this</h2>", _list(wording.reading(board))]
    return _page(parts)


def _part(part: Part) -> list[str]:
    lines = [[html(name), *map(cell, entries)] for name, entries in part.lines]
    written = [f"<h2>{html(part.title)}</h2>"]
    written += [f"<p>{html(part.text)}</p>"] if part.text else []
    written += [_grid([[html(text) for text in part.head], *lines])] if part.head else []
    written += [_list(part.notes)] if part.notes else []
    return written + [f"<p>{html(about)}:</p>\n<pre>{html(command)}</pre>" for about, command in part.commands]


def html(text: str) -> str:
    """`display`, with every character that HTML would take for markup escaped."""
    return escape(display(text, 4000))


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


def _list(notes: Sequence[str]) -> str:
    return "<ul>\n" + "\n".join(f"<li>{html(note)}</li>" for note in notes) + "\n</ul>"
