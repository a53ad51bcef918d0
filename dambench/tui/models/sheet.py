"""Sheet: the images of a synthetic set, class by class, with their names, drawn in half blocks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.cells import cell_len, set_cell_size
from rich.text import Text

from dambench.core.half_blocks import Pixels, half_blocks, in_part, scaled, tiles
from dambench.core.sanitize import display
from dambench.tui.models.placed import Placed

SIDES = (96, 64, 48, 32, 24, 16, 12, 8, 6)
"""Pixels that an image may be wide: two to a line, one to a column."""


@dataclass(frozen=True)
class Sheet:
    """A preview, taken apart."""

    images: Pixels
    """(classes, images of each, H, W, 3), without their black lines."""
    classes: tuple[str, ...]
    """The names of the set's; there may be more than are in the picture."""
    count: int
    """Images that the set has: there may be more than are in the picture."""
    even: bool = True
    """As many of each class."""

    @classmethod
    def read(
        cls, png: bytes, height: int, width: int, classes: Sequence[str], count: int, *, even: bool = True
    ) -> "Sheet":
        """Take a preview apart.

        Args:
            height, width: of the set's images.
            count: of them; a preview has ten of each class at most.

        Raises:
            ValueError: it is no such preview.
        """
        return cls(tiles(png, height, width)[:, :, :-1, :-1], tuple(classes), count, even)


@dataclass(frozen=True)
class Layout:
    """The arrangement of a sheet in a pane."""

    side: int
    """Columns of one image."""
    high: int
    """Its rows of pixels: even."""
    each: int
    """Images of a class that are shown."""
    across: int
    """Classes side by side."""
    classes: int
    """Classes for which there is room."""


def layout(sheet: Sheet, width: int, height: int) -> Layout | None:
    """As large as all classes fit with one image each, then as many images of each as fit; None: nothing does.

    Where not all classes fit even when they are small, as many as do.
    """
    classes, count, tall, wide = sheet.images.shape[:4]

    def fits(side: int, each: int) -> Layout:
        high = max(2, round(side * tall / wide / 2) * 2)
        across = max(0, (width + 1) // (each * side + 1))
        return Layout(side, high, each, across, min(classes, across * (height // (high // 2 + 1))))

    # Small images are made larger by whole numbers only.
    sides = [side for side in SIDES if side <= wide or side % wide == 0]
    if wide <= SIDES[0] and wide not in sides:
        sides = sorted([*sides, wide], reverse=True)
    layouts = [fits(side, 1) for side in sides if side <= width]
    whole = [one for one in layouts if one.classes == classes]
    if not whole:
        most = max(layouts, key=lambda one: (one.classes, one.side), default=None)
        return most if most and most.classes else None
    best = whole[0]
    for each in range(count, 1, -1):
        more = fits(best.side, each)
        if more.classes == classes:
            return more
    return best


def draw(
    sheet: Sheet, width: int, height: int, *, colour: bool = True, placed: list[Placed] | None = None
) -> tuple[list[Text], str]:
    """A sheet on so many columns and lines.

    Args:
        placed: gets each image with its place.

    Returns:
        The lines, and in words what is not shown; empty: all is.
    """
    place = layout(sheet, width, height)
    if place is None:
        return [Text("no room for images here"[:width])], ""
    lines: list[Text] = []
    of_class = place.each * place.side
    for first in range(0, place.classes, place.across):
        some = range(first, min(first + place.across, place.classes))
        strip = np.zeros((place.high, len(some) * (of_class + 1) - 1, 3), dtype=np.uint8)
        for position, index in enumerate(some):
            for number in range(place.each):
                left = position * (of_class + 1) + number * place.side
                image = scaled(sheet.images[index, number], place.high, place.side)
                strip[:, left : left + place.side] = image
                if placed is not None:
                    pixels = sheet.images[index, number]
                    placed.append(Placed(left, len(lines), place.side, place.high // 2, pixels))
        # 32 shades of each colour look the same here, and a set that hardly changed is hardly sent again.
        lines += half_blocks(strip & np.uint8(0xF8), colour=colour)
        names = Text(no_wrap=True)
        for index in some:
            name = display(sheet.classes[index] if index < len(sheet.classes) else str(index), 60)
            short = name if cell_len(name) <= of_class else set_cell_size(name, of_class - 1) + "…"
            names.append(set_cell_size(short, of_class) + " ", "bold")
        lines.append(names)
    of_classes = max(len(sheet.images), len(sheet.classes))
    return lines, in_part(place.classes, place.each, of_classes, sheet.count, even=sheet.even)
