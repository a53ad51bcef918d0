"""Image files in folders: found, recognised again without reading them, and read in threads."""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path

import numpy as np
from PIL import Image

from dambench.datasets import Labels, Pixels, free_bytes
from dambench.display import display
from dambench.errors import BadInput

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
AT_ONCE = 64
"""Images that one task of a thread reads."""

# A few kilobytes can claim to be an image of gigabytes. Pillow refuses from 179 million pixels on, and from half of
# that it warns: here both are errors.
warnings.simplefilter("error", Image.DecompressionBombWarning)
UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    MemoryError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""What Pillow raises for files that are damaged or hostile."""

Item = tuple[str, str]
"""A class and the path of one of its images. A text: to make 100,000 `Path`s takes a second, on each start."""


def place(name: str, data: Path | None, folder: str, holds: str) -> Path:
    """Where a dataset lies: `data` itself, or `folder` in it, so that one DAMBENCH_DATA serves several datasets.

    Args:
        holds: the file or folder by which it is recognised.

    Raises:
        BadInput: nothing was said, or it is in neither place.
    """
    if data is None:
        raise BadInput(f"The dataset {name} needs a folder: say --data DIR, with {holds} or {folder}/{holds} in it.")
    if not data.is_dir():
        raise BadInput(
            f"--data {str(data)!r} is not a folder: {name} needs one with {holds} or {folder}/{holds} in it."
        )
    for candidate in (data, data / folder):
        if (candidate / holds).exists():
            return candidate
    raise BadInput(f"--data {str(data)!r} does not have {name}: neither {holds} nor {folder}/{holds} is there.")


def folders(part: Path, inside: Path | None = None) -> list[str]:
    """The names of the class folders of a part, sorted.

    Args:
        inside: where links may lead to; None: anywhere.
    """
    with os.scandir(part) as entries:
        found = [entry for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    _stay(found, inside)
    return sorted(entry.name for entry in found)


def in_folder(folder: Path, inside: Path | None = None) -> list[str]:
    """The paths of the images of one folder, sorted by name."""
    with os.scandir(folder) as entries:
        found = [e for e in entries if not e.name.startswith(".") and os.path.splitext(e.name)[1].lower() in SUFFIXES]
    _stay(found, inside)
    for entry in found:
        if not entry.is_file():  # opening a pipe would wait for ever
            raise BadInput(f"{entry.path!r} is not a file: only images belong in a class folder.")
    return [os.path.join(folder, name) for name in sorted(entry.name for entry in found)]


def in_class_folders(part: Path, classes: Iterable[str], inside: Path | None = None) -> list[Item]:
    """The images of these class folders, class by class."""
    return [(label, path) for label in classes for path in in_folder(part / label, inside)]


def _stay(entries: Iterable["os.DirEntry[str]"], inside: Path | None) -> None:
    for entry in entries:
        if inside is not None and entry.is_symlink() and inside not in Path(entry.path).resolve().parents:
            raise BadInput(f"{entry.path!r} is a link out of {str(inside)!r}: copy what it leads to instead.")


def fingerprint(items: Iterable[Item]) -> str:
    """Places, sizes and times: a changed file is noticed without reading any."""
    found = hashlib.sha256()
    resolved: dict[str, str] = {}
    for label, path in items:
        folder, name = os.path.split(path)
        if folder not in resolved:
            resolved[folder] = os.path.realpath(folder)
        status = os.stat(path)
        # The time of the last change of any kind cannot be set back, as unpacking an archive sets the other.
        known = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        found.update(os.fsencode(f"{resolved[folder]}\0{name}\0{label}\0{known}\n"))
    return found.hexdigest()


def labels(items: Iterable[Item], classes: Sequence[str]) -> Labels:
    """(N,) positions in `classes`."""
    positions = {label: position for position, label in enumerate(classes)}
    return np.array([positions[label] for label, _ in items], np.int64)


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
            f"{len(items)} images of {each} take {size / 1e9:.1f} GB, more memory than is free: make them smaller."
        )
    images = np.empty((len(items), *shape), np.uint8)

    def fill(start: int) -> None:
        for position, (_, path) in enumerate(items[start : start + AT_ONCE], start):
            images[position] = pixels(path)

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(fill, range(0, len(items), AT_ONCE)):
            pass
    return images


def header(path: str) -> tuple[tuple[int, int], str]:
    """((width, height), mode), without decoding."""
    try:
        with Image.open(path) as image:
            return image.size, image.mode
    except UNREADABLE as error:
        raise BadInput(f"{path!r} is not an image that can be read: {display(str(error))}.") from None


def decoded(path: str, channels: int = 3) -> Image.Image:
    """Grey for 1 channel, RGB for 3."""
    try:
        with Image.open(path) as image:
            return plain(image, channels)
    except UNREADABLE as error:
        raise BadInput(f"{path!r} is damaged or cannot be used: {display(str(error))}.") from None


def plain(image: Image.Image, channels: int) -> Image.Image:
    """Grey for 1 channel, RGB for 3, 8 bits per pixel."""
    byte = _byte(image) if image.mode.startswith(("I", "F")) else image
    return byte.convert("L" if channels == 1 else "RGB")


def planes(image: Image.Image) -> Pixels:
    """(C, H, W)."""
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else np.moveaxis(array, 2, 0)


def _byte(image: Image.Image) -> Image.Image:
    """16 bits per pixel, scaled to 8: Pillow itself would clip them.

    Raises:
        ValueError: more than 16 bits, or fractions: nobody knows what would be white.
    """
    pixels = np.asarray(image)
    if pixels.dtype.kind == "f" or pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError(f"it has {pixels.dtype} pixels; 8 or 16 bits are needed")
    return Image.fromarray((pixels.astype(np.uint32) // 257).astype(np.uint8))
