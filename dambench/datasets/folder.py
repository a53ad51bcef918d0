"""Your own images in class folders: train/CLASS/*.png and test/CLASS/*.png.

`--dataset folder --data flowers/`. Grey or colour; PNG, JPEG, WebP, TIFF, GIF, BMP, PPM, PGM, JPEG 2000 or AVIF; also
in folders inside of a class's folder. Images of different sizes are cropped to a square and resized to
`--set dataset.size=N`. The parts may be called train or training, test or testing, val, valid or validation. Without a
test part the validation part is the test set; without both, `--set dataset.split=0.2` holds out a fifth of each class
of `train/CLASS/*`, or of `CLASS/*`.

Images are used as a person sees them: turned as their orientation tag says, and laid on white where they are
transparent (`--set dataset.background=black`). Where pixels have more than 8 bits, white is the most that 8, 10, 12, 14
or 16 bits hold: the fewest into which the largest pixel of all images fits (`--set dataset.bits=12`). What is passed
over or changed is said with each run.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta
from PIL import Image, ImageOps

from dambench.core import files
from dambench.core.errors import BadInput
from dambench.core.sanitize import display
from dambench.datasets import Pixels, Raw, _folders, _images, _parts

MIRRORS = True
NEEDED = "train/CLASS/* and test/CLASS/*"


class Options(_parts.Options, frozen=True):
    size: Annotated[int, Meta(ge=8, le=1024)] | None = None
    """Side of the square that images are made; None: as they are, if they are all of one size."""
    channels: Annotated[int, Meta(ge=1, le=3)] | None = None
    """1: grey, 3: colour; None: grey if all are."""
    background: Literal["white", "black"] = "white"
    """What transparent images are laid on."""
    bits: Annotated[int, Meta(ge=8, le=16)] | None = None
    """How many bits the pixels of files with more than 8 use; None: the fewest that hold the largest pixel of all."""


def fingerprint(options: Options, data: Path | None) -> str:
    listing = _list_files(options, data)
    passed_over = "\n".join(listing.all_notes())
    items = (item for _, items in listing.parts for item in items)
    return f"{_folders.fingerprint(items)} {files.digest(passed_over.encode())}"


def load(options: Options, data: Path | None) -> Raw:
    listing = _list_files(options, data)
    if options.channels == 2:
        raise BadInput("dataset.channels = 2 is not allowed: 1 is grey, 3 is colour.", field="dataset.channels")
    everything = [items for _, items in listing.parts]
    survey = _images.survey(everything, listing.tally, True, options.background, options.bits)
    for (part, items), images in zip(listing.parts, survey.parts, strict=True):
        lost = {label for label, _ in items} - {label for label, _ in images}
        if lost:
            label = min(lost)
            raise _folders.empty(label, part, sum(other == label for other, _ in items))
    classes = sorted({label for items in survey.parts for label, _ in items})
    if options.size is None and len(survey.sizes) > 1:
        examples = ", ".join(f"{w}×{h}" for w, h in sorted(survey.sizes)[:3])
        raise BadInput(
            f"The images have {len(survey.sizes)} different sizes ({examples}, …): say --set dataset.size=32."
        )
    size = min(survey.sizes) if options.size is None else (options.size, options.size)
    if cropped := sum(count for (w, h), count in survey.sizes.items() if options.size and w != h):
        listing.notes.append(f"Cropped to a square around the centre: {cropped} of {survey.sizes.total()} images.")
    channels = options.channels or (1 if survey.grey else 3)

    def pixels(path: str) -> Pixels:
        image = _images.decoded(path, channels, survey.view)
        if image.size != size:
            image = ImageOps.fit(image, size, Image.Resampling.BILINEAR)
        return _images.planes(image)

    pictures = [_images.read(items, (channels, size[1], size[0]), pixels) for items in survey.parts]
    labels = [_folders.labels(items, classes) for items in survey.parts]
    if len(pictures) == 1:
        pictures, labels, note = _parts.split(pictures[0], labels[0], classes, options)
        listing.notes.append(note)
    assert data is not None
    return Raw(
        train_images=pictures[0],
        train_labels=labels[0],
        test_images=pictures[1],
        test_labels=labels[1],
        classes=classes,
        label=_parts.labelled(data.resolve().name, options),
        mirrors=options.mirrors,
        notes=listing.all_notes(),
    )


@dataclass
class FolderListing:
    """The files of a dataset, before any is opened."""

    tally: _folders.Tally
    parts: list[tuple[Path, list[_folders.Item]]] = field(default_factory=list)
    """The training and the test part; the training part alone where a test set is to be split off."""
    notes: list[str] = field(default_factory=list)

    def all_notes(self) -> list[str]:
        return [*self.notes, *self.tally.notes()]


def _list_files(options: Options, data: Path | None) -> FolderListing:
    if data is None:
        raise BadInput(f"The dataset folder needs a folder: say --data DIR, with {NEEDED} in it.", field="data")
    if not data.is_dir():
        raise BadInput(f"--data {str(data)!r} is not a folder: one with {NEEDED} is needed.", field="data")
    there, others = _named(data)
    test = there.get("test", there.get("valid"))
    if "train" not in there and (options.split is None or test or not others):
        instead = ", or CLASS/* with --set dataset.split=0.2" if others and not test else ""
        raise BadInput(f"{str(data)!r} has no folder 'train': {NEEDED} are needed{instead}.")
    if test is None and options.split is None:
        raise BadInput(
            f"{str(data)!r} has no folder 'test': {NEEDED} are needed, or --set dataset.split=0.2 to hold out a fifth "
            "of each class."
        )
    if test is not None and options.split is not None:
        raise BadInput(
            f"dataset.split makes a test part, but {str(data)!r} has one, {test!r}: leave it out.",
            field="dataset.split",
        )
    listing = FolderListing(_folders.Tally(data))
    if test is not None and "test" not in there:
        listing.notes.append(f"The test set is {test!r}: there is no folder 'test'.")
    unused = [
        *([there["valid"]] if "valid" in there and "test" in there else []),
        *(others if "train" in there else []),
    ]
    if unused:
        names = ", ".join(repr(display(name, 60)) for name in unused)
        listing.notes.append(f"Not used, beside the training and the test part: {names}.")
    root = data.resolve()  # `train` itself may be a link: whoever made the folder knows where it leads
    parts = [data / there["train"] if "train" in there else data, *([] if test is None else [data / test])]
    for part in parts:
        _folders.pass_over(part, listing.tally, all_files=part != data)
        items = _folders.in_class_folders(part, _folders.folders(part, root), listing.tally, root)
        if not items:
            raise BadInput(f"{str(part)!r} has no image in a class folder: {part.name}/CLASS/*.png is needed.")
        listing.parts.append((part, items))
    if data not in parts:
        _folders.pass_over(data, listing.tally, all_files=False)
    return listing


def _named(data: Path) -> tuple[dict[_parts.Part, str], list[str]]:
    """The folders of parts, and the other ones."""
    there: dict[_parts.Part, str] = {}
    others = []
    for name in _folders.folders(data):
        part = _parts.NAMES.get(name.casefold())
        if part is None:
            others.append(name)
        elif part in there:
            raise BadInput(
                f"{str(data)!r} has {there[part]!r} and {name!r}: which of them is the {part} part? Rename the other."
            )
        else:
            there[part] = name
    return there, others
