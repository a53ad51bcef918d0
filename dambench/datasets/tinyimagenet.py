"""Tiny ImageNet: 100,000 + 10,000 photographs of 200 classes of ImageNet, 64×64 colour; by path.

Le and Yang, CS 231N, Stanford, 2015; for research, by ImageNet's terms. `--data tiny-imagenet-200`, or the folder
that it is in. Its test part has no labels, so the validation part is the test set, as in every paper of the field: with
`val/val_annotations.txt` as it is delivered, or sorted into class folders (`val/CLASS/` or `val/images/CLASS/`).

The images are JPEG: another release of the decoder may round a pixel another way, and the prepared file then has
another checksum.
"""

import os
from pathlib import Path

from dambench.core import config, files
from dambench.core.errors import BadInput
from dambench.core.sanitize import display
from dambench.datasets import Pixels, Raw, _folders, _images

MIRRORS = True

SIZE = 64
COUNTS = {"training": 100_000, "validation": 10_000}


class Options(config.Options, frozen=True):
    """None."""


def fingerprint(options: Options, data: Path | None) -> str:
    root = _folders.place("tinyimagenet", data, "tiny-imagenet-200", "train")
    train, test = _parts(root)
    words = root / "words.txt"
    named = words.read_bytes() if words.is_file() else b""
    return f"{_folders.fingerprint([*train, *test])} {files.digest(named)}"


def load(options: Options, data: Path | None) -> Raw:
    root = _folders.place("tinyimagenet", data, "tiny-imagenet-200", "train")
    train, test = _parts(root)
    for (part, count), items in zip(COUNTS.items(), (train, test), strict=True):
        if len(items) != count:
            raise BadInput(
                f"Tiny ImageNet has {count} {part} images, {str(root)!r} has {len(items)}: unpack the archive again, "
                "or use --dataset folder for your own selection."
            )
    classes = _folders.folders(root / "train")
    return Raw(
        train_images=_images.read(train, (3, SIZE, SIZE), _pixels),
        train_labels=_folders.labels(train, classes),
        test_images=_images.read(test, (3, SIZE, SIZE), _pixels),
        test_labels=_folders.labels(test, classes),
        classes=_names(root, classes),
        mirrors=MIRRORS,
        mean=[0.485, 0.456, 0.406],
        std=[0.229, 0.224, 0.225],
    )


def _parts(root: Path) -> tuple[list[_folders.Item], list[_folders.Item]]:
    """The images of the training and of the validation part, class by class."""
    classes = _folders.folders(root / "train")
    train = [(label, path) for label in classes for path in _in_class(root / "train" / label)]
    return train, _validation(root / "val", classes)


def _validation(part: Path, classes: list[str]) -> list[_folders.Item]:
    for folder in (part / "images", part):
        if any((folder / label).is_dir() for label in classes):
            sorted_out = [label for label in classes if (folder / label).is_dir()]
            return [(label, path) for label in sorted_out for path in _in_class(folder / label)]
    annotations = part / "val_annotations.txt"
    if not annotations.is_file():
        raise BadInput(
            f"{str(part)!r} has neither class folders nor val_annotations.txt: the validation images have no labels."
        )
    there = {os.path.basename(path): path for path in _folders.in_folder(part / "images")}
    items = []
    for number, line in enumerate(annotations.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        name, label = [*line.split("\t"), ""][:2]
        what = f"Line {number} of {str(annotations)!r} ({display(name, 60)!r})"
        if label not in classes:
            raise BadInput(f"{what} has the class {display(label, 60)!r}, for which there is no folder in train.")
        if name not in there:
            raise BadInput(f"{what} names an image that is not in {str(part / 'images')!r}.")
        items.append((label, there.pop(name)))
    return sorted(items)


def _in_class(folder: Path) -> list[str]:
    inner = folder / "images"
    return _folders.in_folder(inner if inner.is_dir() else folder)


def _names(root: Path, classes: list[str]) -> list[str]:
    """The first word for each class, where words.txt has one."""
    words = root / "words.txt"
    if not words.is_file():
        return classes
    lines = (line.partition("\t") for line in words.read_text(encoding="utf-8", errors="replace").splitlines())
    named = {label: text.partition(",")[0].strip() for label, _, text in lines}
    return [named.get(label) or label for label in classes]


def _pixels(path: str) -> Pixels:
    image = _images.decoded(path)
    if image.size != (SIZE, SIZE):
        width, height = image.size
        raise BadInput(f"{path!r} is {width}×{height}: the images of Tiny ImageNet are {SIZE}×{SIZE}.")
    return _images.planes(image)
