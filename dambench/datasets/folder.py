"""Your own images in class folders: train/CLASS/*.png and test/CLASS/*.png.

`--dataset folder --data flowers/`. Grey or colour, any format that Pillow reads. Images of different sizes are
cropped to a square and resized to `--set dataset.size=N`. The test part may also be called `val`.
"""

from pathlib import Path
from typing import Annotated

from msgspec import Meta
from PIL import Image, ImageOps

from dambench import config
from dambench.datasets import Pixels, Raw, _images
from dambench.errors import BadInput

MIRRORS = True
NETWORK = ""
SOURCE = "path"

GREY = {"1", "L", "LA", "I", "I;16", "I;16B", "I;16L"}


class Options(config.Options, frozen=True):
    size: Annotated[int, Meta(ge=8, le=1024)] | None = None
    """Side of the square that images are made; None: as they are, if they are all of one size."""
    channels: Annotated[int, Meta(ge=1, le=3)] | None = None
    """1: grey, 3: colour; None: grey if all are."""
    mirrors: bool = MIRRORS
    """Whether a mirror image belongs to the same class; False for digits and letters."""


def fingerprint(options: Options, data: Path | None) -> str:
    return _images.fingerprint(item for part in _parts(data) for item in part)


def load(options: Options, data: Path | None) -> Raw:
    train, test = _parts(data)
    classes = sorted({label for label, _ in [*train, *test]})
    headers = [_images.header(path) for _, path in [*train, *test]]
    sizes = {size for size, _ in headers}
    if options.size is None and len(sizes) > 1:
        examples = ", ".join(f"{w}×{h}" for w, h in sorted(sizes)[:3])
        raise BadInput(f"The images have {len(sizes)} different sizes ({examples}, …): say --set dataset.size=32.")
    size = sizes.pop() if options.size is None else (options.size, options.size)
    if options.channels == 2:
        raise BadInput("dataset.channels = 2 is not allowed: 1 is grey, 3 is colour.")
    channels = options.channels or (1 if all(mode in GREY for _, mode in headers) else 3)

    def pixels(path: str) -> Pixels:
        image = _images.decoded(path, channels)
        if image.size != size:
            image = ImageOps.fit(image, size, Image.Resampling.BILINEAR)
        return _images.planes(image)

    shape = (channels, size[1], size[0])
    assert data is not None
    return Raw(
        train_images=_images.read(train, shape, pixels),
        train_labels=_images.labels(train, classes),
        test_images=_images.read(test, shape, pixels),
        test_labels=_images.labels(test, classes),
        classes=classes,
        label=data.resolve().name,
        mirrors=options.mirrors,
    )


def _parts(data: Path | None) -> tuple[list[_images.Item], list[_images.Item]]:
    """The images of the training and of the test part."""
    if data is None:
        raise BadInput("The dataset folder needs a folder: say --data DIR, with train/CLASS/* and test/CLASS/* in it.")
    if not data.is_dir():
        raise BadInput(f"--data {str(data)!r} is not a folder: one with train/CLASS/* and test/CLASS/* is needed.")
    test = data / "val" if (data / "val").is_dir() and not (data / "test").is_dir() else data / "test"
    for part in (data / "train", test):
        if not part.is_dir():
            raise BadInput(f"{str(data)!r} has no folder {part.name!r}: train/CLASS/* and test/CLASS/* are needed.")
    root = data.resolve()  # `train` itself may be a link: whoever made the folder knows where it leads
    items = [_images.in_class_folders(part, _images.folders(part, root), root) for part in (data / "train", test)]
    for part, found in zip((data / "train", test), items, strict=True):
        if not found:
            raise BadInput(f"{str(part)!r} has no image in a class folder: {part.name}/CLASS/*.png is needed.")
    return items[0], items[1]
