"""Image matrix: the images of a set by class and index with one of them chosen, and that one large beside others."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.cells import cell_len, set_cell_size
from rich.text import Text

from dambench.core.half_blocks import Pixels, half_blocks, scaled
from dambench.core.sanitize import display
from dambench.tui.models.live_panes import wrapped
from dambench.tui.models.placed import Placed
from dambench.tui.models.sheet import SIDES, Sheet

NAMED = 10
"""Columns for the name of a class at most."""

LARGEST = 64
"""Columns of an image that is shown large."""


@dataclass(frozen=True)
class Large:
    """An image to be shown large."""

    title: str
    image: Pixels | None
    """(H, W, 3); None: there is none, and `why` says so."""
    why: str = ""


def chosen(sheet: Sheet | None, at: tuple[int, int]) -> Pixels | None:
    """The image of that class and index, if the picture has it."""
    if sheet is None or at[0] >= sheet.images.shape[0] or at[1] >= sheet.images.shape[1]:
        return None
    image: Pixels = sheet.images[at]
    return image


def matrix(
    sheet: Sheet,
    at: tuple[int, int],
    width: int,
    height: int,
    *,
    colour: bool,
    ascii: bool,
    placed: list[Placed] | None = None,
) -> list[Text]:
    """A row of images for each class; the chosen one is in brackets. Where not all fit, those around it are shown.

    Args:
        placed: gets each image with its place.
    """
    classes, each, tall, wide = sheet.images.shape[:4]
    names = [display(sheet.classes[row], 60) if row < len(sheet.classes) else str(row) for row in range(classes)]
    named = min(NAMED, max(map(cell_len, names)))
    sides = [side for side in SIDES if side <= 2 * wide]
    fits = [
        side for side in sides if _across(width, named, side) >= each and _down(height, side, tall, wide) >= classes
    ]
    side = max(fits, default=max((side for side in sides if side <= 8), default=sides[-1]))
    high = max(2, round(side * tall / wide / 2) * 2)
    across, down = max(1, _across(width, named, side)), max(1, _down(height, side, tall, wide))
    first, left = (_window(chosen_, room, of) for chosen_, room, of in ((at[0], down, classes), (at[1], across, each)))
    begin, end = ("[", "]") if ascii or not colour else ("▐", "▌")
    lines: list[Text] = []
    for row in range(first, min(classes, first + down)):
        pictures = [
            half_blocks(scaled(sheet.images[row, column], high, side) & np.uint8(0xF8), colour=colour)
            for column in range(left, min(each, left + across))
        ]
        if placed is not None:
            placed += [
                Placed(named + 1 + offset * (side + 1), len(lines), side, high // 2, sheet.images[row, left + offset])
                for offset in range(len(pictures))
            ]
        for part in range(high // 2):
            name = set_cell_size(names[row], named) if not part else " " * named
            line = Text(no_wrap=True).append(name, "bold" if row == at[0] else "")
            for offset, picture in enumerate(pictures):
                here = (row, left + offset) == at
                before = (row, left + offset - 1) == at and offset > 0
                line.append(begin if here else end if before else " ", "bold" if here or before else "")
                line.append_text(picture[part])
            if (row, left + len(pictures) - 1) == at:
                line.append(end, "bold")
            lines.append(line)
    return lines


def _across(width: int, named: int, side: int) -> int:
    return (width - named - 1) // (side + 1)


def _down(height: int, side: int, tall: int, wide: int) -> int:
    return height // (max(2, round(side * tall / wide / 2) * 2) // 2)


def _window(at: int, room: int, of: int) -> int:
    """The first of so many that are shown, so that one of them is in sight."""
    return max(0, min(at - room // 2, of - room))


def large(
    images: Sequence[Large], width: int, height: int, *, colour: bool, placed: list[Placed] | None = None
) -> list[Text]:
    """Images side by side and below each other, as large as they fit, each below its title.

    Args:
        placed: gets each image with its place.
    """
    shown = [one for one in images if one.image is not None]
    if not shown or width < 8 or height < 4:
        return _reasons([one for one in images if one.image is None and one.why], max(8, width))[: max(0, height)]
    _, tall, wide = max((one.image.size, *one.image.shape[:2]) for one in shown if one.image is not None)
    whys = [one for one in images if one.image is None and one.why]
    said = len(_reasons(whys, width))
    best, columns = 0, 1
    for across in range(1, len(shown) + 1):
        down = -(-len(shown) // across)
        by_width = (width - across + 1) // across
        by_height = int(((height - said) // down - 1) * 2 * wide / tall)
        side = min(LARGEST, by_width, by_height)
        if side > best:
            best, columns = side, across
    side = max((one for one in (*SIDES, LARGEST, wide, 2 * wide) if one <= best), default=max(2, best))
    high = max(2, round(side * tall / wide / 2) * 2)
    lines: list[Text] = []
    for first in range(0, len(shown), columns):
        some = shown[first : first + columns]
        head = Text(no_wrap=True)
        for one in some:
            head.append(set_cell_size(one.title, side) + " ", "bold")
        lines.append(head)
        pictures = [
            half_blocks(scaled(one.image, high, side) & np.uint8(0xF8), colour=colour)
            for one in some
            if one.image is not None
        ]
        if placed is not None:
            placed += [
                Placed(offset * (side + 1), len(lines), side, high // 2, one.image)
                for offset, one in enumerate(some)
                if one.image is not None
            ]
        for part in range(high // 2):
            line = Text(no_wrap=True)
            for picture in pictures:
                line.append_text(picture[part]).append(" ")
            lines.append(line)
    return [*lines, *_reasons(whys, width)]


def _reasons(images: Sequence[Large], width: int) -> list[Text]:
    return [line for one in images for line in wrapped(f"{one.title}: {one.why}", width)]


def scrubber(pictures: Sequence[int], picture: int | None, width: int, *, ascii: bool) -> Text:
    """Where the picture that is shown is among all that there are, over iterations."""
    if picture is None or not pictures:
        return Text("no picture yet", no_wrap=True)
    number = pictures.index(picture) + 1 if picture in pictures else 0
    right = f" iteration {picture}  ({number} of {len(pictures)})"
    room = max(4, width - len(right) - 2)
    first, last = pictures[0], pictures[-1]
    rail, stop, here = ("-", "+", "#") if ascii else ("─", "┼", "●")
    signs = [rail] * room
    for one in pictures:
        signs[int((one - first) / max(1, last - first) * (room - 1))] = stop
    signs[int((picture - first) / max(1, last - first) * (room - 1))] = here
    return Text(no_wrap=True).append("".join(signs)).append(right, "bold")
