"""--ascii and --no-color, in one place for all screens and for Textual's own widgets: what is drawn goes through here.

With NO_COLOR alone Textual sends greys, and in the themes of the terminal's own colours black on black.
"""

import unicodedata
from functools import lru_cache

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter

SIGNS = str.maketrans(
    {
        "×": "x",
        "·": "|",
        "–": "-",
        "—": "-",
        "…": "~",
        "±": "~",
        "→": ">",
        "←": "<",
        "↑": "^",
        "↓": "v",
        "▲": "^",
        "▼": "v",
        "▶": ">",
        "⏎": "<",
        "█": "#",
        "░": ".",
        "▌": ">",
        "•": "*",
        "■": "#",
        "λ": "l",
        "°": "'",
        "†": "^",
        "¶": "&",
        "‡": "=",
    }
)


def spelled(text: str) -> str:
    """Signs that are two in ASCII: to be put in before anything is measured. `n > 3` is not what `n ≥ 3` says."""
    for sign, signs in (("±", "+-"), ("≥", ">="), ("≤", "<="), ("≠", "!="), ("→", "->")):
        text = text.replace(sign, signs)
    return text


@lru_cache(4096)
def plain(text: str) -> str:
    """The text in as many cells: signs become the nearest ones, lines `-`, `|` and `+`, letters lose their accents."""
    if text.isascii():
        return text
    text = text.replace("± ", "+-").translate(SIGNS)  # `~` would say "about"
    return text if text.isascii() else "".join(map(_plain, text))


def _plain(character: str) -> str:
    if character.isascii():
        return character
    code = ord(character)
    if 0x2500 <= code < 0x2580:  # box drawing
        name = unicodedata.name(character)
        across, down = "HORIZONTAL" in name, "VERTICAL" in name
        return "-" if across and not down else "|" if down and not across else "+"
    if 0x2580 <= code < 0x25A0:  # parts of blocks: bars of a scrollbar and the like
        return "#"
    letter = unicodedata.normalize("NFKD", character)[0]
    cells = cell_len(character)
    return letter if letter.isascii() and cells == 1 else "?" * cells


class AsciiFilter(LineFilter):
    """A filter of what Textual draws: ASCII only."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [Segment(plain(text), style, control) for text, style, control in segments]


class ColourFilter(LineFilter):
    """A filter of what Textual draws: the terminal's own two colours; bold, dim, underlined and reversed stay."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [Segment(text, style and _colourless(style), control) for text, style, control in segments]


@lru_cache(4096)
def _colourless(style: Style) -> Style:
    return Style(
        bold=style.bold,
        dim=style.dim,
        italic=style.italic,
        underline=style.underline,
        reverse=style.reverse,
        strike=style.strike,
        meta=style.meta,
    )
