"""Pixels: images in the terminal as they are, by kitty's protocol or as sixels, where the terminal says that it can.

Kitty and Ghostty keep an image that was sent once and show it wherever its placeholders stand, which are characters:
whatever lies above them hides them as it hides any text. (kitty's "Terminal graphics protocol", Unicode placeholders.)
Sixels are drawn over half blocks that were drawn before: where something hid them, those are seen until the next time.
"""

import base64
import fcntl
import importlib.util
import io
import os
import re
import select
import struct
import sys
import termios
import time
import tty
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image
from rich.color import Color
from rich.style import Style
from rich.text import Text

from dambench.core.half_blocks import Pixels
from dambench.core.preferences import PixelWish
from dambench.tui.models.placed import Placed

PATIENCE = 1.0
"""Seconds that a terminal has to answer. All of those that are asked do, at once."""

KITTY_QUESTION = "\x1b_Gi=1,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\"
VERSION_QUESTION = "\x1b[>q"
SIZE_QUESTION, KIND_QUESTION = "\x1b[16t", "\x1b[c"
"""How large a character is, and what the terminal can: every terminal answers the second one."""

KIND = re.compile(r"\x1b\[\?([\d;]*)c")
SIZE = re.compile(r"\x1b\[6;(\d+);(\d+)t")
VERSION = re.compile(r"\x1bP>\|(?:kitty\((\d+)\.(\d+)|ghostty )")
PLACEHOLDERS_SINCE = (0, 28)
"""The version of kitty that has placeholders; Ghostty has them since its first."""
KITTY_ANSWER = "\x1b_Gi=1;OK\x1b\\"
SIXEL = "4"
DEFINED = re.compile(r"#(\d+);2;\d+;\d+;\d+")
"""A colour of a sixel image and its number."""

PLACEHOLDER = "\U0010eeee"

KEPT = 512
"""Images that a terminal is asked to keep at most."""

COLOURS = 128
"""Colours of a sixel image."""

PART = 4096
"""Characters of an image in one message, by kitty's protocol."""

_RANGES = """
305 30d-30e 310 312 33d-33f 346 34a-34c 350-352 357 35b 363-36f 483-487 592-595 597-599 59c-5a1 5a8-5a9 5ab-5ac 5af 5c4
610-617 657-65b 65d-65e 6d6-6dc 6df-6e2 6e4 6e7-6e8 6eb-6ec 730 732-733 735-736 73a 73d 73f-741 743 745 747 749-74a
7eb-7f1 7f3 816-819 81b-823 825-827 829-82d 951 953-954 f82-f83 f86-f87 135d-135f 17dd 193a 1a17 1a75-1a7c 1b6b
1b6d-1b73 1cd0-1cd2 1cda-1cdb 1ce0 1dc0-1dc1 1dc3-1dc9 1dcb-1dcc 1dd1-1de6 1dfe 20d0-20d1 20d4-20d7 20db-20dc 20e1 20e7
20e9 20f0 2cef-2cf1 2de0-2dff a66f a67c-a67d a6f0-a6f1 a8e0-a8f1 aab0 aab2-aab3 aab7-aab8 aabe-aabf aac1 fe20-fe26 10a0f
10a38 1d185-1d189 1d1aa-1d1ad 1d242-1d244
"""


def _numbers() -> list[str]:
    """The signs above a placeholder that say its row, and its column: the n-th is the number n."""
    signs = []
    for part in _RANGES.split():
        first, _, last = part.partition("-")
        signs += [chr(code) for code in range(int(first, 16), int(last or first, 16) + 1)]
    return signs


NUMBERS = _numbers()


@dataclass(frozen=True)
class PixelTerminal:
    """A terminal that shows images as they are."""

    kind: Literal["kitty", "sixel"]
    cell: tuple[int, int] = (10, 20)
    """Width and height of a character in pixels."""


def may_ask(wish: PixelWish, environ: Mapping[str, str]) -> tuple[bool, bool]:
    """Whether a terminal may be asked for sixels, and whether by kitty's question, which a few others would print.

    Inside tmux and its like it is not the terminal that would answer; `always` asks there, too.
    """
    names = " ".join(environ.get(name, "") for name in ("TERM", "TERM_PROGRAM")).lower()
    inside = bool({"TMUX", "STY", "ZELLIJ"} & set(environ)) or names.startswith(("screen", "tmux"))
    if wish == "never" or (inside and wish == "auto"):
        return False, False
    kitty = not inside and ("KITTY_WINDOW_ID" in environ or "kitty" in names or "ghostty" in names)
    named = any(
        name in names for name in ("wezterm", "iterm", "foot", "mlterm", "contour", "mintty", "vscode", "sixel")
    )
    set_by = {"WT_SESSION", "XTERM_VERSION", "KONSOLE_VERSION", "WEZTERM_PANE"} & set(environ)
    return wish == "always" or kitty or named or bool(set_by), kitty


def ask(wish: PixelWish) -> PixelTerminal | None:
    """Ask the terminal, before the console has it; None: it shows no images, or nobody may ask it."""
    any_, kitty = may_ask(wish, os.environ)
    if not any_ or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    try:
        answer = _answer((KITTY_QUESTION + VERSION_QUESTION) * kitty + SIZE_QUESTION + KIND_QUESTION)
        size = fcntl.ioctl(sys.stderr.fileno(), termios.TIOCGWINSZ, bytes(8))
    except (OSError, termios.error):
        return None
    lines, columns, wide, high = struct.unpack("HHHH", size)
    return understood(answer, (wide // max(1, columns), high // max(1, lines)))


def understood(answer: str, cell: tuple[int, int] = (0, 0)) -> PixelTerminal | None:
    """What a terminal can by its answer; None: no images.

    Args:
        cell: width and height of a character in pixels, for a terminal that does not say, as xterm; 0: unknown.
    """
    size, kind = SIZE.search(answer), KIND.search(answer)
    cell = (int(size[2]), int(size[1])) if size else cell
    version = VERSION.search(answer)
    if (
        KITTY_ANSWER in answer
        and version
        and (not version[1] or (int(version[1]), int(version[2])) >= PLACEHOLDERS_SINCE)
    ):
        return PixelTerminal("kitty", cell) if min(cell) > 0 else PixelTerminal("kitty")
    sixel = kind is not None and SIXEL in kind[1].split(";")[1:]
    # Without the size of a character a sixel image would end somewhere.
    if sixel and min(cell) > 0 and importlib.util.find_spec("textual_image"):
        return PixelTerminal("sixel", cell)
    return None


def _answer(question: str) -> str:
    """What the terminal says, up to the answer that every terminal gives."""
    terminal = sys.stdin.fileno()
    modes = termios.tcgetattr(terminal)
    answer, end = b"", time.monotonic() + PATIENCE
    try:
        tty.setcbreak(terminal, termios.TCSANOW)
        os.write(sys.stderr.fileno(), question.encode())
        while (left := end - time.monotonic()) > 0 and not KIND.search(answer.decode("latin-1")):
            if select.select([terminal], [], [], left)[0]:
                answer += os.read(terminal, 4096)
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, modes)
    return answer.decode("latin-1")


class KittyImages:
    """The images that the terminal keeps for this console: each is sent once.

    Args:
        cell: width and height of a character in pixels.
        write: to the terminal, in its turn.
    """

    def __init__(self, cell: tuple[int, int], write: Callable[[str], None]):
        self._cell, self._write = cell, write
        self._kept: dict[tuple[bytes, tuple[int, ...], int, int], int] = {}
        # 24 bits, of which this process has a part: another console in the same terminal has another.
        self._next = ((os.getpid() & 0x7FF) + 1) << 12

    def lines(self, placed: Placed) -> tuple[list[Text], int]:
        """The placeholders of an image, line for line, and how many bytes were sent for it."""
        key = (placed.image.tobytes(), placed.image.shape, placed.columns, placed.rows)
        sent = 0
        if key in self._kept:
            number = self._kept[key] = self._kept.pop(key)  # the one that is shown last is dropped last
        else:
            self._next += 1
            number = self._kept[key] = self._next
            sent = self._send(placed, number)
            if len(self._kept) > KEPT:
                self._drop(self._kept.pop(next(iter(self._kept))))
        style = Style(color=Color.from_rgb(number >> 16 & 255, number >> 8 & 255, number & 255))
        return [
            Text("".join(PLACEHOLDER + NUMBERS[row] + NUMBERS[column] for column in range(placed.columns)), style)
            for row in range(placed.rows)
        ], sent

    def _send(self, placed: Placed, number: int) -> int:
        file = io.BytesIO()
        enlarged(placed, self._cell, whole=True).save(file, "PNG", compress_level=6)
        rest = base64.b64encode(file.getvalue()).decode()
        first, sent = f"a=T,U=1,q=2,f=100,i={number},c={placed.columns},r={placed.rows},", 0
        while first or rest:
            part, rest = rest[:PART], rest[PART:]
            message = f"\x1b_G{first}m={int(bool(rest))};{part}\x1b\\"
            self._write(message)
            first, sent = "", sent + len(message)
        return sent

    def _drop(self, number: int) -> None:
        self._write(f"\x1b_Ga=d,d=I,q=2,i={number}\x1b\\")

    def close(self) -> None:
        """Give back what the terminal keeps."""
        with suppress(OSError):
            for number in self._kept.values():
                self._drop(number)
        self._kept.clear()


def fits(placed: Placed) -> bool:
    """Whether its rows and columns have numbers."""
    return 0 < placed.columns <= len(NUMBERS) and 0 < placed.rows <= len(NUMBERS)


def enlarged(placed: Placed, cell: tuple[int, int], *, whole: bool = False) -> Image.Image:
    """The image as large as its place in the terminal, in squares.

    Args:
        cell: width and height of a character in pixels.
        whole: only by whole numbers: the terminal does the rest.
    """
    wide, high = placed.columns * cell[0], placed.rows * cell[1]
    # 32 shades look the same, as half blocks do, and are fewer bytes.
    shades: Pixels = placed.image & np.uint8(0xF8)
    image = Image.fromarray(np.ascontiguousarray(shades))
    if whole:
        times = max(1, round(min(wide / image.width, high / image.height)))
        wide, high = image.width * times, image.height * times
    return image.resize((wide, high), Image.Resampling.NEAREST)


def sixels(placed: Placed, cell: tuple[int, int]) -> str:
    """The image as sixels. Needs textual-image, whose public modules ask the terminal when they are imported."""
    from textual_image._sixel import SixelOptions, image_to_sixels

    drawn = image_to_sixels(enlarged(placed, cell), SixelOptions(colors=COLOURS))
    # A colour that is defined is then the one that is drawn with, but not for xterm: there it is to be selected, too.
    return DEFINED.sub(r"\g<0>#\1", drawn)
