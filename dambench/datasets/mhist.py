"""MHIST: 2,175 + 977 images of colorectal polyps, 224×224 colour, of two kinds; by path, for who has registered.

Wei et al., "A Petri dish for histopathology image classification", AIME 2021. Its terms forbid to pass it on: each user
fills in the access form at https://bmirds.github.io/MHIST, accepts the Dataset Research Use Agreement and is sent
`images.zip` and `annotations.csv`. `--data DIR` has `annotations.csv` and, unpacked, `images/`, or has them in a folder
`MHIST`.

Hyperplastic polyps (HP, 0) are benign, sessile serrated adenomas (SSA, 1) are not: HP 0 and SSA 1 here, as in most
codes, the other way round in some. The label is the majority vote of seven pathologists. The classes are not balanced.
"""

import csv
import io
import os
from dataclasses import dataclass
from pathlib import Path

from dambench.core import config, files, reading
from dambench.core.errors import BadInput
from dambench.core.sanitize import display
from dambench.datasets import Pixels, Raw, _folders, _images

MIRRORS = True
NETWORK = "convnet-d7"

SIZE = 224
CLASSES = ["HP", "SSA"]
COUNTS = {"train": 2175, "test": 977}
TABLE = "annotations.csv"
NAME, LABEL, PARTITION = "Image Name", "Majority Vote Label", "Partition"


class Options(config.Options, frozen=True):
    """None."""


@dataclass(frozen=True)
class AnnotatedImage:
    """A row of the table."""

    text: str
    """How an error calls it."""
    label: str
    partition: str
    path: str


def fingerprint(options: Options, data: Path | None) -> str:
    root = _folders.place("mhist", data, "MHIST", TABLE)
    items = [(row.label, row.path) for row in _rows(root)]
    return f"{files.sha256(root / TABLE)} {_folders.fingerprint(items)}"


def load(options: Options, data: Path | None) -> Raw:
    root = _folders.place("mhist", data, "MHIST", TABLE)
    rows = _rows(root)
    texts = {row.path: row.text for row in rows}
    parts = {part: [(row.label, row.path) for row in rows if row.partition == part] for part in COUNTS}
    for part, count in COUNTS.items():
        if len(parts[part]) != count:
            raise BadInput(
                f"{str(root / TABLE)!r} has {len(parts[part])} {part} images, MHIST has {count}: copy it again, "
                "or use --dataset folder for your own selection."
            )

    def pixels(path: str) -> Pixels:
        try:
            image = _images.decoded(path)
        except BadInput as error:
            raise BadInput(f"{texts[path]}: {error}") from None
        if image.size != (SIZE, SIZE):
            width, height = image.size
            raise BadInput(f"{texts[path]}: the image is {width}×{height}, those of MHIST are {SIZE}×{SIZE}.")
        return _images.planes(image)

    return Raw(
        train_images=_images.read(parts["train"], (3, SIZE, SIZE), pixels),
        train_labels=_folders.labels(parts["train"], CLASSES),
        test_images=_images.read(parts["test"], (3, SIZE, SIZE), pixels),
        test_labels=_folders.labels(parts["test"], CLASSES),
        classes=CLASSES,
        mirrors=MIRRORS,
        mean=[0.73943309, 0.65267006, 0.77742641],
        std=[0.19637706, 0.24239548, 0.16935587],
    )


def _rows(root: Path) -> list[AnnotatedImage]:
    """The table, every row checked.

    Raises:
        BadInput: which row is wrong, and why.
    """
    table = root / TABLE
    try:
        with io.TextIOWrapper(reading.opened(table), newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns, cells = reader.fieldnames or [], list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadInput(f"{str(table)!r} is not a table of comma-separated values: {display(str(error))}.") from None
    for column in (NAME, LABEL, PARTITION):
        if column not in columns:
            has = display(", ".join(columns)) or "none"
            raise BadInput(f"{str(table)!r} has no column {column!r}; it has {has}.")
    images = root / "images"
    if not images.is_dir():
        raise BadInput(f"{str(root)!r} has no folder 'images': unpack images.zip there.")
    there = {os.path.basename(path): path for path in _folders.in_folder(images)}
    rows: list[AnnotatedImage] = []
    for number, row in enumerate(cells, 2):
        name, label, partition = (row[column] or "" for column in (NAME, LABEL, PARTITION))
        text = f"Row {number} of {str(table)!r} ({display(name, 60)!r})"
        if label not in CLASSES:
            raise BadInput(f"{text}: the label {display(label, 60)!r} is neither {' nor '.join(CLASSES)}.")
        if partition not in COUNTS:
            raise BadInput(f"{text}: the partition {display(partition, 60)!r} is neither {' nor '.join(COUNTS)}.")
        path = there.pop(name, None)
        if path is None:
            why = (
                "an earlier row has it too"
                if any(name == os.path.basename(row.path) for row in rows)
                else "it is not there"
            )
            raise BadInput(f"{text}: the image cannot be taken from {str(images)!r}: {why}.")
        rows.append(AnnotatedImage(text, label, partition, path))
    return rows
