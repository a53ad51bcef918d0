"""What all figures share: size, fonts, signs that need no colour, and how they become files.

Names come from anywhere: they are drawn as text, never as mathtext, and what the font has no sign for is shown as such.
"""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from dambench.core.errors import BadInput
from dambench.core.sanitize import display

SUFFIXES = (".pdf", ".svg", ".png")
INSTALL = 'pip install "dambench[figures]"'
COLUMN, PAGE = 3.25, 6.75
"""Widths in inches: of a column of a two-column paper, and of both."""
ASPECT, TALLEST = 0.72, 2.6
"""Height of a panel by its width, and at the most in inches, where no height is given."""
DPI = 300
LEAST_INCHES, MOST_INCHES = 1.0, 40.0
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7A5C00")
"""Told apart with the common kinds of colour blindness (Wong, "Points of view: Color blindness", Nature Methods 2011; a
brown of ours in place of the yellow, which is not seen on white)."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "p")
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++++", "oooo", "----", "||||", "****")
MOST_LINES = len(COLOURS) * len(DASHES) - 8
"""Lines, or kinds of bars, that can still be told apart."""
LONGEST_NAME = 60


@dataclass(frozen=True)
class Look:
    """The looks of a figure.

    Attributes:
        width, height: in inches; None: as the panels need it.
        panels: side by side; None: as fit.
        font: a TrueType font that matplotlib knows.
        points: size of the text.
    """

    width: float = PAGE
    height: float | None = None
    panels: int | None = None
    font: str = "DejaVu Sans"
    points: float = 8.0


class Drawn(NamedTuple):
    """A figure, and what is to be said about it."""

    figure: Any
    """A figure of matplotlib."""
    title: str
    """What it shows, as the title of a table."""
    caption: str
    """Sentences for below it."""
    notes: tuple[str, ...] = ()
    """What it leaves out."""


class Sign(NamedTuple):
    """What one line or one kind of bar is known by, also without colours."""

    colour: str
    marker: str
    dashes: Any
    hatch: str


def sign(number: int) -> Sign:
    """The sign of the n-th of up to MOST_LINES."""
    return Sign(
        COLOURS[number % len(COLOURS)],
        MARKERS[number % len(MARKERS)],
        DASHES[number // len(COLOURS) % len(DASHES)],
        HATCHES[number % len(HATCHES)],
    )


def check_number(number: int, what: str) -> None:
    """See that so many can be told apart.

    Raises:
        BadInput: they cannot.
    """
    if number > MOST_LINES:
        raise BadInput(f"{number} {what} cannot be told apart in one figure, {MOST_LINES} can: choose with --filter.")


def read_size(text: str) -> tuple[float, float | None]:
    """Width and height in inches of `column`, `page`, `3.25` or `3.25x2`.

    Raises:
        BadInput: it is no size.
    """
    named = {"column": COLUMN, "page": PAGE}
    if text.lower() in named:
        return named[text.lower()], None
    match = re.fullmatch(r"([0-9]{1,2}(?:\.[0-9]{1,3})?)(?:x([0-9]{1,2}(?:\.[0-9]{1,3})?))?", text)
    sides = [float(part) for part in match.groups() if part] if match else []
    if not sides or not all(LEAST_INCHES <= side <= MOST_INCHES for side in sides):
        raise BadInput(
            f"--size {display(text, 40)!r} is no size: column ({COLUMN} inches wide), page ({PAGE}), or inches such as "
            f"3.25 or 3.25x2, each from {LEAST_INCHES:g} to {MOST_INCHES:g}."
        )
    return sides[0], sides[1] if len(sides) > 1 else None


@contextmanager
def drawing(look: Look) -> Iterator[None]:
    """Draw with our settings, whatever the user's own are.

    Raises:
        BadInput: matplotlib is not installed, or does not know the font.
    """
    try:
        import matplotlib
    except ImportError:
        raise BadInput(f"Figures need matplotlib, which is not installed: {INSTALL}") from None
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "text.parse_math": False,
                "text.usetex": False,
                "axes.formatter.use_mathtext": False,
                "font.family": [look.font],
                "font.size": look.points,
                "axes.titlesize": look.points,
                "axes.labelsize": look.points,
                "xtick.labelsize": look.points - 1,
                "ytick.labelsize": look.points - 1,
                "legend.fontsize": look.points - 1,
                "legend.frameon": False,
                "axes.linewidth": 0.6,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.grid": True,
                "axes.grid.axis": "y",
                "axes.axisbelow": True,
                "grid.color": "#e2e2e2",
                "grid.linewidth": 0.5,
                "lines.linewidth": 1.1,
                "lines.markersize": 3.8,
                "hatch.linewidth": 0.5,
                "pdf.fonttype": 42,
                "ps.fonttype": 42,
                "svg.fonttype": "path",
                "svg.hashsalt": "dambench",
                "savefig.dpi": DPI,
            }
        )
        signs_of(look.font)
        yield


@cache
def signs_of(font: str) -> frozenset[int]:
    """The characters that a font has.

    Raises:
        BadInput: matplotlib knows no such font, or it cannot be embedded as TrueType.
    """
    from matplotlib.font_manager import FontProperties, findfont, get_font

    try:
        path = findfont(FontProperties(family=font), fallback_to_default=False)
    except ValueError:
        raise BadInput(f"--font {display(font, 60)!r} is no font that matplotlib finds on this machine.") from None
    if Path(path).suffix.lower() != ".ttf":
        raise BadInput(f"--font {display(font, 60)!r} is no TrueType font, which journals ask for: {Path(path).name}.")
    return frozenset(get_font(path).get_charmap())


def printable(text: str, look: Look, most: int = LONGEST_NAME) -> str:
    """A name as it can be drawn: one line, with a sign in place of each that the font lacks."""
    has = signs_of(look.font)
    drawn = "".join(letter if ord(letter) in has else "\N{REPLACEMENT CHARACTER}" for letter in display(text, most))
    return f" {drawn}" if drawn.startswith("_") else drawn  # legends leave out what begins so


def panels(number: int, look: Look) -> tuple[Any, list[Any]]:
    """A figure with so many panels, in rows."""
    from matplotlib.figure import Figure

    across = min(number, look.panels or max(1, round(look.width / 2.2)))
    down = -(-number // across)
    height = look.height or min(MOST_INCHES, min(ASPECT * look.width / across, TALLEST) * down + 0.5)
    figure = Figure(figsize=(look.width, height), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False)
    axes = [axes for row in grid for axes in row]
    for empty in axes[number:]:
        empty.set_axis_off()
    return figure, axes[:number]


def legend(figure: Any, handles: Sequence[Any], labels: Sequence[str], look: Look) -> None:
    """A legend below all panels, in as many columns as fit."""
    if not handles:
        return
    letters = max(map(len, labels))
    each = 0.45 + letters * look.points * 0.6 / 72
    columns = max(1, min(len(labels), int(look.width / each)))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=2.4, columnspacing=1.2)


def content(drawn: Drawn, suffix: str) -> bytes:
    """The figure as a file of one of SUFFIXES. No date is in it.

    Raises:
        BadInput: it is too small for what is in it.
    """
    file = io.BytesIO()
    metadata: dict[str, dict[str, Any]] = {
        ".pdf": {"Creator": "dambench", "CreationDate": None},
        ".svg": {"Creator": "dambench", "Date": None},
        ".png": {"Software": None},
    }
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        drawn.figure.savefig(file, format=suffix.removeprefix("."), metadata=metadata[suffix])
    if any("collapsed to zero" in str(remark.message) for remark in remarks):
        shown = sum(axes.axison for axes in drawn.figure.axes)
        raise BadInput(f"The figure has no room for its {shown} panels: choose a larger --size, or fewer runs.")
    for remark in remarks:
        warnings.warn_explicit(remark.message, remark.category, remark.filename, remark.lineno)
    return file.getvalue()
