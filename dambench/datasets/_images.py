"""Image files as a person sees them, read in threads.

What a file holds and what a person sees differ: pixels of 16 bits may use 8 of them, ink may lie in alpha alone, and an
orientation tag may turn the image. All images are looked at once before any is used (`survey`), because what is white
is decided for a dataset and not for an image. What is passed over, or is changed on the way, is counted in a note.
"""

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from dambench.core import units
from dambench.core.errors import BadInput
from dambench.core.sanitize import display
from dambench.datasets import Pixels, free_bytes
from dambench.datasets._folders import SUFFIXES, Item, Tally, suffix

AT_ONCE = 64
"""Images that one task of a thread reads."""
DEPTHS = (8, 10, 12, 14, 16)
"""Bits per pixel that cameras and scanners have."""
TOP = 65535
"""White, where nothing else is known of pixels of 16 bits."""
GREY = {"1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F"}

# Of tags that are damaged Pillow warns on stderr: the image can be seen all the same.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
# A few kilobytes can claim to be an image of gigabytes. Pillow refuses from 179 million pixels on, and from half of
# that it warns: here both are errors.
warnings.simplefilter("error", Image.DecompressionBombWarning)
UNREADABLE = Exception
"""What Pillow raises for files that are damaged or hostile: a dozen kinds, IndexError and struct.error among them."""


@cache
def formats() -> list[str]:
    """Pillow's names of those that are read: none that it would run another program for, as for EPS."""
    Image.init()
    safe = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
    return [name for name in safe if name in Image.OPEN]


@dataclass(frozen=True)
class View:
    """How files of one dataset become pixels of 8 bits."""

    upright: bool = False
    """Whether orientation tags are followed. Benchmarks are as their codes read them, which do not."""
    background: str = "white"
    """What transparent images are laid on."""
    white: int = TOP
    """In pixels of more than 8 bits."""
    unit: bool = False
    """Whether pixels that may be fractions are: from 0 to 1."""


@dataclass(frozen=True)
class Survey:
    """What the images of a dataset are like."""

    parts: list[list[Item]]
    """The items that are images."""
    sizes: Counter[tuple[int, int]]
    """(width, height) of images as they are seen, and how many have it."""
    grey: bool
    """Whether all are."""
    view: View


class ImageFacts(NamedTuple):
    """At one image."""

    size: tuple[int, int]
    grey: bool
    largest: float | None
    """The largest of its pixels, where these may have more than 8 bits."""
    fractions: bool
    """Whether its pixels may be such: 32-bit floats."""
    whole: bool
    """Whether they are whole numbers for all that."""
    remarks: list[str]


def survey(
    parts: Sequence[Sequence[Item]], tally: Tally, upright: bool, background: str = "white", bits: int | None = None
) -> Survey:
    """Look at every file once, in threads.

    Args:
        tally: hears of what is passed over and what is changed.
        bits: how many of deeper pixels are used; None: the fewest of `DEPTHS` that hold the largest of all images.

    Raises:
        BadInput: a file that should be an image is none, or nobody knows what is white.
    """
    items = [item for part in parts for item in part]
    paths = [path for _, path in items]
    inspected = dict(zip(paths, _each(lambda path: _inspect(path, upright), paths), strict=True))
    others = [path for path, facts in inspected.items() if facts is None]
    kinds = Counter(suffix(path) or "without a suffix" for path in others)
    if others:
        which = display(", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5)))
        tally.files[f"Passed over, since dambench can read no image from it ({which})"] = others
    images = {path: facts for path, facts in inspected.items() if facts is not None}
    for path, facts in images.items():
        for remark in facts.remarks:
            tally.add(remark.format(background=background), path)
    return Survey(
        parts=[[item for item in part if item[1] in images] for part in parts],
        sizes=Counter(facts.size for facts in images.values()),
        grey=all(facts.grey for facts in images.values()),
        view=View(upright, background, *_white(images, tally, bits)),
    )


def _white(images: dict[str, ImageFacts], tally: Tally, bits: int | None) -> tuple[int, bool]:
    """What is white in pixels of more than 8 bits, and whether those that may be fractions are."""
    deep = {path: facts for path, facts in images.items() if facts.largest is not None}
    floats = {path: facts for path, facts in deep.items() if facts.fractions}
    largest = {path: facts.largest or 0 for path, facts in deep.items()}
    unit = bool(floats) and max(largest[path] for path in floats) <= 1
    if unit:
        tally.files["Fractions from 0 to 1, of which 1 is taken for white"] = list(floats)
    for path, facts in floats.items():
        if not unit and not facts.whole:
            raise BadInput(f"{path!r} has fractions up to {largest[path]:g}: 1 as white, or whole numbers are needed.")
    whole = [path for path in deep if not (unit and path in floats)]
    most = int(max((largest[path] for path in whole), default=0))
    if bits is not None:
        if not whole:
            tally.files[f"dataset.bits={bits} has no effect, no image has more than 8"] = list(images)
        if most >= 2**bits:
            path = max(whole, key=lambda path: largest[path])
            raise BadInput(f"dataset.bits = {bits} is too few: {path!r} has a pixel of {most}.", field="dataset.bits")
        return 2**bits - 1, unit
    fewest = next(depth for depth in DEPTHS if most < 2**depth)
    if whole and fewest < DEPTHS[-1]:
        tally.files[
            f"Of more than 8 bits per pixel, with values up to {most}, so that {2**fewest - 1} is taken for white, the "
            f"most that {fewest} bits hold (--set dataset.bits=16 if {TOP} is)"
        ] = whole
    return (2**fewest - 1 if whole else TOP), unit


T = TypeVar("T")
R = TypeVar("R")


def _each(do: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """What becomes of each, in threads."""

    def several(start: int) -> list[R]:
        return [do(item) for item in items[start : start + AT_ONCE]]

    with ThreadPoolExecutor() as pool:
        for done in pool.map(several, range(0, len(items), AT_ONCE)):
            yield from done


def read(items: Sequence[Item], shape: tuple[int, int, int], pixels: Callable[[str], Pixels]) -> Pixels:
    """All images, in threads, into one array.

    Args:
        shape: (C, H, W) of every image.
        pixels: reads one.

    Returns:
        (N, C, H, W).
    """
    if (size := len(items) * prod(shape)) > free_bytes():
        each = " × ".join(map(str, shape))
        raise BadInput(
            f"{len(items)} images of {each} take {units.size(size)}, more memory than is free: make them smaller."
        )
    images = np.empty((len(items), *shape), np.uint8)

    def fill(numbered: tuple[int, Item]) -> None:
        images[numbered[0]] = pixels(numbered[1][1])

    for _ in _each(fill, list(enumerate(items))):
        pass
    return images


ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by its orientation tag. Pillow's `exif_transpose` also writes the other tags anew, and
fails where one of them is damaged, as in many a photograph."""
LYING = {*TURNS.values()} - {TURNS[2], TURNS[3], TURNS[4]}
PHOTOMETRIC = 262
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
SRGB = (b"sRGB", "sRGB".encode("utf-16-be"))

TURNED = "Turned upright, as an orientation tag says"
NOT_TURNED = "Left as stored, as the field's codes do, though an orientation tag says that it lies"
LAID = "Transparent in places, and laid on {background} (--set dataset.background=white or black)"
FIRST = "Of several pictures in a file the first was taken"
COLOURS = "A colour profile or gamma other than sRGB's was not applied"


def _inspect(path: str, upright: bool) -> ImageFacts | None:
    """At one file; None: it is no image, and nothing says that it should be."""
    try:
        with Image.open(path, formats=formats()) as image:
            return _seen(image, path, upright)
    except UNREADABLE as error:
        if isinstance(error, UnidentifiedImageError) and suffix(path) not in SUFFIXES:
            return None
        raise BadInput(f"{path!r} is not an image that can be read: {display(str(error))}.") from None


def _seen(image: Image.Image, path: str, upright: bool) -> ImageFacts:
    remarks = []
    if image.format != "MPO" and getattr(image, "is_animated", False):  # MPO: what a camera keeps beside the image
        remarks.append(FIRST)
    size, values, key = image.size, _deep(image, path), image.info.get("transparency")
    if (turn := _turn(image)) is not None:
        remarks.append(TURNED if upright or image.format == "TIFF" else NOT_TURNED)
        if upright and image.format != "TIFF" and turn in LYING:
            size = size[1], size[0]
    if values is None:
        through = image.has_transparency_data and _alpha(image).getextrema()[0] != 255
    else:
        alpha = values[..., -1] if values.shape[-1] in (2, 4) else None
        through = bool(key is not None and _is(values, key).any() if alpha is None else (alpha != alpha.max()).any())
    if through:
        remarks.append(LAID)
    profile, gamma = image.info.get("icc_profile"), image.info.get("gamma")
    if (profile and not any(name in profile for name in SRGB)) or (
        gamma and not profile and "srgb" not in image.info and abs(gamma * 2.2 - 1) > 0.05
    ):
        remarks.append(COLOURS)
    return ImageFacts(
        size=size,
        grey=image.mode in GREY or (values is not None and values.shape[-1] == 2),
        largest=None if values is None else float(_colours(values).max()),
        fractions=image.mode.startswith("F"),
        whole=values is None or bool((values == np.rint(values)).all()),
        remarks=remarks,
    )


def decoded(path: str, channels: int = 3, view: View = View()) -> Image.Image:
    """Grey for 1 channel, RGB for 3.

    Raises:
        BadInput: it is damaged, or nobody knows what its pixels would be in 8 bits.
    """
    try:
        with Image.open(path, formats=formats()) as image:
            return _plain(image, channels, view, path)
    except UNREADABLE as error:
        raise BadInput(f"{path!r} is damaged or cannot be used: {display(str(error))}.") from None


def plain(image: Image.Image, channels: int) -> Image.Image:
    """Grey for 1 channel, RGB for 3, 8 bits per pixel, of an image that was opened and not decoded.

    Raises:
        ValueError: more than 16 bits, fractions, or 16 bits of which fewer seem to be used: of an image alone nobody
            knows what is white.
    """
    deep = image.mode.startswith(("I", "F")) or ";16" in _rawmode(image)
    byte = _plain(image, channels, View(upright=True), "")
    if deep and np.asarray(byte).max() < 2 ** (DEPTHS[-2] - 8):
        raise ValueError("it seems to use fewer than its 16 bits: save it with 8")
    return byte


def planes(image: Image.Image) -> Pixels:
    """(C, H, W)."""
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else np.moveaxis(array, 2, 0)


def scaled(values: NDArray[Any], white: int) -> Pixels:
    """Whole numbers from 0 to `white` in 8 bits.

    Raises:
        ValueError: one is larger.
    """
    if values.max() > white:
        raise ValueError(f"it has a pixel of {values.max()}, and {white} is white")
    return (values.astype(np.uint32) * 255 // white).astype(np.uint8)


def _plain(image: Image.Image, channels: int, view: View, path: str) -> Image.Image:
    byte = _byte(image, view, path)
    turn = _turn(image) if view.upright and image.format != "TIFF" else None  # Pillow itself turns TIFF
    if turn is not None:
        byte = byte.transpose(turn)
    if byte.has_transparency_data and (alpha := _alpha(byte)).getextrema()[0] != 255:
        ground = Image.new("RGB", byte.size, view.background)
        ground.paste(byte.convert("RGB"), mask=alpha)
        byte = ground
    return byte.convert("L" if channels == 1 else "RGB")


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What makes it upright."""
    if image.format == "PNG":
        image.load()  # its tags may come last
    try:
        return TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # tags are of any quality: the image can be seen all the same
        return None


def _alpha(image: Image.Image) -> Image.Image:
    return image.convert("RGBA").getchannel("A")


def _byte(image: Image.Image, view: View, path: str) -> Image.Image:
    """8 bits per pixel: Pillow itself clips grey of 16, and keeps the upper 8 of colours."""
    key = image.info.get("transparency")
    if not image.mode.startswith(("I", "F")) and view.white == TOP and key is None:
        return image
    values = _deep(image, path)
    if values is None:
        return image
    colours = _colours(values)
    if image.mode.startswith("F") and view.unit:
        if values.max() > 1:
            raise ValueError(f"it has a pixel of {values.max()}, and 1 is white")
        pixels = np.rint(values * 255).astype(np.uint8)
    elif (values != np.rint(values)).any():
        raise ValueError(f"it has {values.dtype} pixels; 8 or 16 bits are needed")
    else:
        pixels = scaled(colours, view.white)
    if image.mode.startswith(("I", "F")) and getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0:
        pixels = 255 - pixels  # 0 is white, which Pillow heeds in 8 bits only
    bands = [pixels[..., band] for band in range(pixels.shape[-1])]
    if values.shape[-1] > len(bands):
        alpha = values[..., -1]
        bands.append(scaled(alpha, view.white if alpha.max() <= view.white else TOP))
    elif key is not None:
        bands.append(np.where(_is(values, key), 0, 255).astype(np.uint8))
    mode = image.mode if image.mode == "CMYK" else MODES[len(bands)]
    return Image.merge(mode, [Image.fromarray(band) for band in bands])


def _deep(image: Image.Image, path: str) -> NDArray[Any] | None:
    """(H, W, C) pixels of more than 8 bits, of an image that was not decoded before; None: it has none.

    Raises:
        ValueError: more than 16 bits, less than 0 or no numbers: nobody knows what would be white.
    """
    if image.mode.startswith(("I", "F")):
        image.load()  # numpy would not tell of all that goes wrong
        grey: NDArray[Any] = np.asarray(image)[..., None]
        if not (grey.min() >= 0 and grey.max() <= TOP):  # so that it is said of NaN too
            span = f"from {grey.min():g} to {grey.max():g}"
            raise ValueError(f"it has {grey.dtype} pixels {span}; 8 or 16 bits are needed")
        return grey
    # Pillow takes the upper 8 bits of each colour. Told that bytes are the other way round, it takes the lower 8.
    name, _, order = _rawmode(image).partition(";16")
    if not order:
        return None
    if name == "LA":
        both = _read_as(path, "RGBA")
        return both[..., 0::2] << 8 | both[..., 1::2]
    image.load()
    upper = np.asarray(image).astype(np.uint16)
    if name in ("RGB", "RGBA"):
        swapped = "B" if order == "L" or (order == "N" and sys.byteorder == "little") else "L"
        return upper << 8 | _read_as(path, f"{name};16{swapped}")
    if upper.max() < 2 ** (DEPTHS[-2] - 8):
        raise ValueError("it uses fewer than its 16 bits per colour, of which only 8 can be read: save it as PNG")
    return None


def _rawmode(image: Image.Image) -> str:
    """How its pixels are stored, as Pillow calls it; empty once they are decoded."""
    for *_, how in getattr(image, "tile", []):
        return str(how if isinstance(how, str) else how[0]) if how else ""
    return ""


def _read_as(path: str, rawmode: str) -> NDArray[np.uint16]:
    """Pixels decoded as if they were stored that way."""
    with Image.open(path, formats=formats()) as image:
        tiles: list[Any] = getattr(image, "tile", [])
        for position, tile in enumerate(tiles):
            *where, how = tile
            other = rawmode if isinstance(how, str) else (rawmode, *how[1:])
            tiles[position] = tile._replace(args=other) if hasattr(tile, "_replace") else (*where, other)  # Pillow < 11
        image.load()
        return np.asarray(image).astype(np.uint16)


def _colours(values: NDArray[Any]) -> NDArray[Any]:
    """Without alpha."""
    return values[..., : 1 if values.shape[-1] < 3 else 3]


def _is(values: NDArray[Any], key: Any) -> NDArray[np.bool_]:
    """(H, W) where pixels have the colour that stands for none."""
    mask: NDArray[np.bool_] = (_colours(values) == key).all(-1)
    return mask
