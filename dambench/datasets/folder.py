"""Your own images in class folders: train/CLASS/*.png and test/CLASS/*.png.

`--dataset folder --data flowers/`. Grey or colour, any format that Pillow reads. Images of different sizes are
cropped to a square and resized to `--set dataset.size=N`. The test part may also be called `val`.
"""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import numpy as np
from msgspec import Meta
from PIL import Image, ImageOps

from dambench import config
from dambench.datasets import Labels, Pixels, Raw
from dambench.display import display
from dambench.errors import BadInput

MIRRORS = True
NETWORK = ""

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
GREY = {"1", "L", "LA", "I", "I;16", "I;16B", "I;16L"}


class Options(config.Options, frozen=True):
    size: Annotated[int, Meta(ge=8, le=1024)] | None = None
    """Side of the square that images are made; None: as they are, if they are all of one size."""
    channels: Annotated[int, Meta(ge=1, le=3)] | None = None
    """1: grey, 3: colour; None: grey if all are."""
    mirrors: bool = MIRRORS
    """Whether a mirror image belongs to the same class; False for digits and letters."""


def fingerprint(options: Options, data: Path | None) -> str:
    """Places, sizes and times of all images: a changed file is noticed without reading any."""
    found = hashlib.sha256()
    for part in _parts(data):
        for label, path in _files(part):
            status = path.stat()
            # The time of the last change of any kind cannot be set back, as unpacking an archive sets the other.
            known = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
            found.update(os.fsencode(path.resolve()) + f"\0{label}\0{known}\n".encode(errors="surrogateescape"))
    return found.hexdigest()


def load(options: Options, data: Path | None) -> Raw:
    train, test = (list(_files(part)) for part in _parts(data))
    classes = sorted({label for label, _ in [*train, *test]})
    shapes = [_header(path) for _, path in [*train, *test]]
    sizes = {size for size, _ in shapes}
    if options.size is None and len(sizes) > 1:
        examples = ", ".join(f"{w}×{h}" for w, h in sorted(sizes)[:3])
        raise BadInput(f"The images have {len(sizes)} different sizes ({examples}, …): say --set dataset.size=32.")
    size = sizes.pop() if options.size is None else (options.size, options.size)
    if options.channels == 2:
        raise BadInput("dataset.channels = 2 is not allowed: 1 is grey, 3 is colour.")
    channels = options.channels or (1 if all(mode in GREY for _, mode in shapes) else 3)

    def read(part: list[tuple[str, Path]]) -> tuple[Pixels, Labels]:
        with ThreadPoolExecutor() as pool:
            images = list(pool.map(lambda item: _pixels(item[1], size, channels), part))
        return np.stack(images), np.array([classes.index(label) for label, _ in part])

    train_images, train_labels = read(train)
    test_images, test_labels = read(test)
    assert data is not None
    return Raw(
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        classes=classes,
        label=data.resolve().name,
        mirrors=options.mirrors,
    )


def _parts(data: Path | None) -> tuple[Path, Path]:
    if data is None:
        raise BadInput("The dataset folder needs a folder: say --data DIR, with train/CLASS/* and test/CLASS/* in it.")
    if not data.is_dir():
        raise BadInput(f"--data {str(data)!r} is not a folder: one with train/CLASS/* and test/CLASS/* is needed.")
    test = data / "val" if (data / "val").is_dir() and not (data / "test").is_dir() else data / "test"
    for part in (data / "train", test):
        if not part.is_dir():
            raise BadInput(f"{str(data)!r} has no folder {part.name!r}: train/CLASS/* and test/CLASS/* are needed.")
        if next(_files(part), None) is None:
            raise BadInput(f"{str(part)!r} has no image in a class folder: {part.name}/CLASS/*.png is needed.")
    return data / "train", test


def _files(part: Path) -> Iterator[tuple[str, Path]]:
    """Every image of a part with its class, in a fixed order."""
    for folder in sorted(path for path in part.iterdir() if path.is_dir() and not path.name.startswith(".")):
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
                yield folder.name, path


def _header(path: Path) -> tuple[tuple[int, int], str]:
    """((width, height), mode), without decoding."""
    try:
        with Image.open(path) as image:
            return image.size, image.mode
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInput(f"{str(path)!r} is not an image that can be read: {display(str(error))}.") from None


def _pixels(path: Path, size: tuple[int, int], channels: int) -> Pixels:
    """(C, H, W)."""
    try:
        with Image.open(path) as image:
            plain = (_byte(image) if image.mode.startswith(("I", "F")) else image).convert(
                "L" if channels == 1 else "RGB"
            )
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInput(f"{str(path)!r} is damaged or cannot be used: {display(str(error))}.") from None
    if plain.size != size:
        plain = ImageOps.fit(plain, size, Image.Resampling.BILINEAR)
    array = np.asarray(plain)
    return array[None] if channels == 1 else np.moveaxis(array, 2, 0)


def _byte(image: Image.Image) -> Image.Image:
    """16 bits per pixel, scaled to 8: Pillow itself would clip them.

    Raises:
        ValueError: more than 16 bits, or fractions: nobody knows what would be white.
    """
    pixels = np.asarray(image)
    if pixels.dtype.kind == "f" or pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError(f"it has {pixels.dtype} pixels; 8 or 16 bits are needed")
    return Image.fromarray((pixels.astype(np.uint32) // 257).astype(np.uint8))
