"""Pictures in a terminal: two pixels to a character, one above the other; signs where there are no colours."""

import io
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from rich.color import Color
from rich.style import Style
from rich.text import Text

Pixels = NDArray[np.uint8]
"""(H, W, 3)."""

SIGNS = " .:-=+*#%@"
"""From dark to bright."""

SHOWN_EACH = 10
"""Images of a class that a preview has at most."""

MOST_SHEET_PIXELS = 16_000_000
"""Largest sheet that is drawn. A preview has at most a tenth of that, but a PNG of a few bytes can claim any size."""


def tiles(png: bytes, height: int, width: int) -> Pixels:
    """The images of a preview, (classes, images of each, h, w, 3): each with its black line below and at its right.

    Args:
        height, width: of the set's images; the preview has thinned large ones out.

    Raises:
        ValueError: it is no preview of such images.
    """
    thin = max(1, min(height, width) // 32)
    high, wide = -(-height // thin) + 1, -(-width // thin) + 1
    try:
        with Image.open(io.BytesIO(png)) as sheet:
            if sheet.width * sheet.height > MOST_SHEET_PIXELS:
                raise ValueError(f"a preview of {sheet.width} × {sheet.height} pixels is none of ours")
            pixels = np.asarray(sheet.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"the preview cannot be read: {error}") from None
    rows, columns = pixels.shape[0] // high, pixels.shape[1] // wide
    if not rows or not columns:
        raise ValueError("the preview is smaller than one image")
    whole = pixels[: rows * high, : columns * wide].reshape(rows, high, columns, wide, 3)
    return whole.transpose(0, 2, 1, 3, 4)


def sheet_png(images: Pixels) -> bytes:
    """A preview of such images, as `tiles` takes it apart.

    Args:
        images: (classes, images of each, H, W, 3); large ones are thinned out, and of each class ten are shown.
    """
    thin = max(1, min(images.shape[2:4]) // 32)
    shown = images[:, :SHOWN_EACH, ::thin, ::thin]
    classes, each, height, width, _ = shown.shape
    sheet = np.zeros((classes, height + 1, each, width + 1, 3), dtype=np.uint8)
    sheet[:, :-1, :, :-1] = shown.transpose(0, 2, 1, 3, 4)
    file = io.BytesIO()
    Image.fromarray(sheet.reshape(classes * (height + 1), each * (width + 1), 3)).save(file, "PNG", optimize=True)
    return file.getvalue()


def in_part(classes: int, each: int, of_classes: int, images: int, *, even: bool = True) -> str:
    """How much of a set a picture of so many classes with so many images of each shows; empty: all of it.

    Args:
        of_classes, images: that the set has.
        even: as many of each class.
    """
    parts = []
    if each * of_classes < images:
        per, rest = divmod(images, of_classes)
        parts.append(f"{each} of {per} per class" if even and not rest else f"{each} per class of {images} images")
    if classes < of_classes:
        parts.append(f"{classes} of {of_classes} classes")
    return ", ".join(parts)


def scaled(pixels: Pixels, height: int, width: int) -> Pixels:
    """Made larger in squares, or smaller by the mean."""
    larger = height >= pixels.shape[0] and width >= pixels.shape[1]
    how = Image.Resampling.NEAREST if larger else Image.Resampling.BOX
    return np.asarray(Image.fromarray(pixels).resize((width, height), how))


def half_blocks(pixels: Pixels, *, colour: bool = True) -> list[Text]:
    """A line for every two rows of pixels.

    Args:
        pixels: (H, W, 3); H is even.
        colour: False: in `SIGNS`, which are ASCII.
    """
    upper, lower = pixels[::2], pixels[1::2]
    if not colour:
        bright = upper.sum(2, dtype=np.int64) + lower.sum(2, dtype=np.int64)
        signs = np.array(list(SIGNS))[bright * len(SIGNS) // (6 * 256)]
        return [Text("".join(row)) for row in signs]
    lines = []
    for above, below in zip(upper, lower, strict=True):
        line = Text()
        both = np.concatenate([above, below], axis=1)
        # Characters that look the same are one piece: fewer bytes to the terminal.
        begins = [0, *(np.flatnonzero((both[1:] != both[:-1]).any(1)) + 1).tolist(), len(both)]
        for begin, end in pairwise(begins):
            r, g, b, u, v, w = both[begin].tolist()
            style = Style(color=Color.from_rgb(r, g, b), bgcolor=Color.from_rgb(u, v, w))
            line.append("▀" * (end - begin), style)
        lines.append(line)
    return lines
