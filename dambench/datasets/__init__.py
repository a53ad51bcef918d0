"""Real data: one file per dataset. Prepared once into a class-sorted tensor file that loads in a moment.

A dataset's module says what it is (docstring), whether a mirror image keeps its class (`MIRRORS`), which network
suits it (`NETWORK`; empty: `convnet`), where its images come from (`SOURCE`: with a "package", by "download" or from
the user's own "path"), how these are recognised again (`fingerprint`) and how they are read (`load`). What is
downloaded is named in `FILES`; one file that holds all of them may be, in `INSTEAD`.
"""

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import psutil
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from numpy.typing import NDArray

from dambench.core import files, reading, registry
from dambench.core.config import Choice, HeldOut, PreprocessingName, read
from dambench.core.contracts import Dataset
from dambench.core.errors import BadInput
from dambench.core.events import DataCard
from dambench.core.sanitize import counted, display
from dambench.datasets._hold_out import hold_out as hold_out
from dambench.datasets._hold_out import indices
from dambench.training.problem import Normalisation, Preprocessing, RealSet, Whitening

# What plug-ins may import: see docs/plugins.md.
__all__ = ["Raw"]

DARK = 32
"""Images whose brightest pixel is below it are said to be nearly black."""

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]

FORMAT = 1
"""Version of prepared files. Raise it when preparing changes: older files are then made anew."""

MOST_WHITENED = 64 * 64 * 3
"""Pixels times channels of an image that is whitened."""


@dataclass(frozen=True)
class Raw:
    """A dataset as its module reads it."""

    train_images: Pixels
    """(N, C, H, W)."""
    train_labels: Labels
    """(N,) in 0 … classes-1."""
    test_images: Pixels
    test_labels: Labels
    classes: list[str]
    label: str = ""
    """How tables call it; empty: the dataset's name."""
    mirrors: bool = True
    mean: list[float] = field(default_factory=list)
    """Published mean per channel of pixels in [0, 1]; empty: that of the training images."""
    std: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was passed over or changed while it was read."""


def prepare(choice: Choice, data: Path | None, say: Callable[[str], None] = lambda text: None) -> DataCard:
    """Make sure that the dataset lies prepared in DAMBENCH_HOME, and tell what it is.

    Args:
        data: where the raw data are, or are to be downloaded to; None: DAMBENCH_HOME/raw, where that will do.
        say: hears that preparing has begun, which can take a while.

    Raises:
        BadInput: the dataset or an option is unknown, the raw data are missing or damaged, or the disk is full.
    """
    choice = Choice(registry.find("datasets", choice.name), choice.options)
    module = registry.load("datasets", choice.name)
    options = read(module.Options, choice.options, f"dataset {choice.name}", "dataset")
    with _reading(choice.name, data), registry.guarded("datasets", choice.name):
        source = module.fingerprint(options, data)
        if not isinstance(source, str):
            raise TypeError(f"its fingerprint is {type(source).__name__}, not a text")
    identity = json.dumps([FORMAT, choice.name, msgspec.to_builtins(options), source], sort_keys=True)
    stem = f"{choice.name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    card = _intact(files.data_folder() / f"{stem}.json")
    if card is not None:
        return card
    say(f"Preparing {choice.name}: this is done once.{_to_download(module, choice.name, data)}")
    with _reading(choice.name, data), registry.guarded("datasets", choice.name):
        raw: Raw = module.load(options, data)
        _check(raw, choice.name)
        if module.SOURCE == "path":  # the others are what everybody has
            raw.notes.extend(_oddities(raw))
    with files.writing(f"The prepared dataset {choice.name}", files.data_folder(), files.HOME_HINT):
        return _write(raw, choice.name, stem, source)


def _to_download(module: Dataset, name: str, data: Path | None) -> str:
    if module.SOURCE != "download" or not module.FILES:
        return ""
    missing = files.missing_raw(data or files.raw_folder(), module.FILES, module.INSTEAD)
    if not missing:
        return " Its raw files are here."
    if data is not None and not data.is_dir():
        raise BadInput(
            f"--data {str(data)!r} is not a folder: {name} needs one with {missing[0]!r} in it.", field="data"
        )
    some = "Its" if len(missing) == len(module.FILES) else f"{len(missing)} of its"
    return f" {some} {counted(len(module.FILES), 'raw file')} must be downloaded."


def free_bytes() -> int:
    """Memory that can be had now: what claims to need more is refused before anything is reserved."""
    return int(psutil.virtual_memory().available)


def path_of(card: DataCard) -> Path:
    """The tensor file of a prepared dataset."""
    if (path := files.find_set(card.sha256)) is not None:
        return path
    raise BadInput(f"The prepared dataset {card.name} is no longer in {str(files.data_folder())!r}.")


class Parts(NamedTuple):
    """The real images of a run."""

    train: RealSet
    """What a set is made of: all training images, or those that are left where some are held out."""
    test: RealSet
    validation: RealSet | None = None
    """Those that are held out."""


def open_sets(
    card: DataCard, device: torch.device, preprocessing: PreprocessingName = "mean/std"
) -> tuple[RealSet, RealSet]:
    """The training set and the test set on the device, as bytes."""
    return open_parts(card, device, preprocessing)[:2]


def open_parts(
    card: DataCard,
    device: torch.device,
    preprocessing: PreprocessingName = "mean/std",
    held_out: HeldOut | None = None,
) -> Parts:
    """The training set, less the images that are held out, the test set, and those images, on the device, as bytes.

    Of a ZCA all statistics are those of the reduced training set. Mean and standard deviation per channel are the
    dataset's own, published or computed once, in every run.

    Raises:
        BadInput: other images are held out here than were when the run began.
    """
    tensors = safetensors.torch.load_file(path_of(card))
    train, counts = tensors["train_images"], tuple(card.train_counts)
    normalisation: Preprocessing = Normalisation(tuple(card.mean), tuple(card.std))
    if preprocessing == "zca":
        normalisation = whitening(card, held_out=held_out).to(device)
    test = RealSet(tensors["test_images"].to(device), tuple(card.test_counts), normalisation)
    if held_out is None:
        return Parts(RealSet(train.to(device), counts, normalisation), test)
    kept, held = split_places(card, held_out)
    each = held_out.of_each_class
    return Parts(
        RealSet(train[kept].to(device), tuple(count - each for count in counts), normalisation),
        test,
        RealSet(train[held].to(device), (each,) * len(counts), normalisation),
    )


def split_places(card: DataCard, held_out: HeldOut) -> tuple[torch.Tensor, torch.Tensor]:
    """The places of the training images that are kept, and of those that are held out."""
    if hold_out(card, held_out.rule) != held_out:
        raise BadInput(
            f"The run holds other images of {card.label} out than are held out here: it was made by another dambench."
        )
    held = torch.from_numpy(indices(card.train_counts, held_out.rule))
    kept = torch.ones(sum(card.train_counts), dtype=torch.bool)
    kept[held] = False
    return kept.nonzero().squeeze(1), held


def whitening(
    card: DataCard, say: Callable[[str], None] = lambda text: None, held_out: HeldOut | None = None
) -> Whitening:
    """Give the whitening of a prepared dataset's training images. It is fitted once, and kept beside them.

    Args:
        say: hears that fitting has begun, which can take a minute.
        held_out: the images that it is fitted without.

    Raises:
        BadInput: the images have too many pixels, or it cannot be kept.
    """
    pixels = card.channels * card.height * card.width
    if pixels > MOST_WHITENED:
        raise BadInput(
            f"--preprocessing zca mixes all {pixels} numbers of an image of {card.label} with each other, in a matrix "
            f"that is too large: images of at most {MOST_WHITENED} can be whitened. Use mean/std."
        )
    data = card.sha256 if held_out is None else files.digest(f"{card.sha256} {held_out.sha256}".encode())
    for path in files.whitenings(data):
        with suppress(OSError, safetensors.SafetensorError):
            kept = Whitening.read(path)
            if path == files.whitening_path(data, kept.sha256):
                return kept
    say(f"Fitting the whitening of {card.label}: this is done once.")
    images = safetensors.torch.load_file(path_of(card))["train_images"]
    content = Whitening.fit(images if held_out is None else images[split_places(card, held_out)[0]])
    path = files.whitening_path(data, files.digest(content))
    with files.writing("The whitening of the images", path.parent, files.HOME_HINT):
        files.write_whole(path, content)
    return Whitening.read(path)


def prepared() -> list[DataCard]:
    """All prepared datasets whose images are still there, by name."""
    cards = sorted(files.data_folder().glob("*.json"))
    loaded = (_read_card(path) for path in cards if path.with_suffix(".safetensors").is_file())
    return [card for card in loaded if card is not None]


@contextmanager
def _reading(name: str, data: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        place = f" in {str(data)!r}" if data else ""
        which = f": {error.filename!r}" if error.filename and str(error.filename) != str(data) else ""
        raise BadInput(f"The data of {name}{place} cannot be read{which}: {error.strerror or error}.") from error


def _read_card(path: Path) -> DataCard | None:
    try:
        return msgspec.json.decode(reading.content(path), type=DataCard)
    except (OSError, msgspec.DecodeError):
        return None


def _intact(path: Path) -> DataCard | None:
    """The card, if its tensor file is there and is what the card says. Otherwise it is prepared anew."""
    card, tensors = _read_card(path), path.with_suffix(".safetensors")
    if card is None or not tensors.is_file() or tensors.stat().st_size != card.size_bytes:
        return None
    return card if files.is_intact(tensors, card.sha256) else None


def _check(raw: Raw, name: str) -> None:
    for part, images, labels in (
        ("training", raw.train_images, raw.train_labels),
        ("test", raw.test_images, raw.test_labels),
    ):
        if len(images) != len(labels):
            raise BadInput(f"The {part} set of {name} has {len(images)} images but {len(labels)} labels.")
        if not images.size:
            raise BadInput(f"The {part} set of {name} is empty, or its images have no pixels.")
    if raw.train_images.shape[1:] != raw.test_images.shape[1:]:
        shapes = [" × ".join(map(str, images.shape[1:])) for images in (raw.train_images, raw.test_images)]
        raise BadInput(f"The training images of {name} are {shapes[0]} (C × H × W), its test images {shapes[1]}.")
    if len(raw.classes) < 2:
        raise BadInput(f"{name} has {len(raw.classes)} class; at least 2 are needed.")
    counts = [_counts(labels, raw) for labels in (raw.train_labels, raw.test_labels)]
    if min(counts[0]) == 0:
        empty = counts[0].index(0)
        label = raw.classes[empty]
        if not counts[1][empty]:
            raise BadInput(f"Class {display(label)!r} of {name} has no image at all: leave it out, or give it some.")
        near = [other for other in raw.classes if other != label and _alike(other) == _alike(label)]
        hint = f" Is {display(near[0])!r} the same? Give it one name in both parts." if near else ""
        raise BadInput(f"Class {display(label)!r} of {name} has test images but no training image.{hint}")


def _alike(name: str) -> str:
    """What two names share that a person takes for one: Cats and cats, é as one character and as two."""
    return unicodedata.normalize("NFC", name).casefold().strip()


def _oddities(raw: Raw) -> list[str]:
    """What a person would see on looking at the images, and no figure of a run would show."""
    names = [display(name, 60) for name in raw.classes]
    notes = []
    kinds = Counter(map(_alike, raw.classes))
    if twins := [display(name, 60) for name in raw.classes if kinds[_alike(name)] > 1]:
        notes.append(f"Classes of which the names are the same but for case or spaces: {_listed(twins)}.")
    if untested := [name for name, count in zip(names, _counts(raw.test_labels, raw), strict=True) if not count]:
        notes.append(f"Without a test image, so that nothing is known of them: {_listed(untested)}.")
    train, test = (
        [hashlib.sha256(image.tobytes()).digest() for image in images] for images in (raw.train_images, raw.test_images)
    )
    if len(set(train)) == 1:
        return [*notes, "All training images are alike: nothing tells the classes apart."]
    digests: list[set[bytes]] = [set() for _ in names]
    for digest, label in zip(train, raw.train_labels.tolist(), strict=True):
        digests[label].add(digest)
    counts = _counts(raw.train_labels, raw)
    if same := [name for name, kinds, count in zip(names, digests, counts, strict=True) if len(kinds) == 1 < count]:
        notes.append(f"Classes whose training images are all alike: {_listed(same)}.")
    darkest, lightest = raw.train_images.min((2, 3)), raw.train_images.max((2, 3))
    if plain := int((darkest == lightest).all(1).sum()):
        notes.append(f"Training images of one colour all over: {plain} of {len(train)}.")
    if (brightest := int(max(lightest.max(), raw.test_images.max()))) < DARK:
        notes.append(f"The images are nearly black: their brightest pixel is {brightest} of 255.")
    anywhere = set(train)
    copies = [label for digest, label in zip(test, raw.test_labels.tolist(), strict=True) if digest in anywhere]
    same_class = sum(digest in digests[label] for digest, label in zip(test, raw.test_labels.tolist(), strict=True))
    if copies:
        other = f", {len(copies) - same_class} of them in another class than there" if len(copies) > same_class else ""
        notes.append(f"Test images that are copies of training images: {len(copies)} of {len(test)}{other}.")
    return notes


def _counts(labels: Labels, raw: Raw) -> list[int]:
    """Images of each class."""
    counts: list[int] = np.bincount(labels, minlength=len(raw.classes)).tolist()
    return counts


def _listed(names: list[str]) -> str:
    """The first three, and how many more."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + more


def _write(raw: Raw, name: str, stem: str, source: str) -> DataCard:
    tensors, counts = {}, {}
    for part, images, labels in (
        ("train", raw.train_images, raw.train_labels),
        ("test", raw.test_images, raw.test_labels),
    ):
        if (np.diff(labels) < 0).any():
            images = images[np.argsort(labels, kind="stable")]
        tensors[f"{part}_images"] = np.ascontiguousarray(images)
        counts[part] = _counts(labels, raw)
    mean, std = raw.mean, raw.std
    if not mean:
        pixels = raw.train_images.reshape(len(raw.train_images), raw.train_images.shape[1], -1)
        mean = [round(float(pixels[:, c].mean(dtype=np.float64)) / 255, 4) for c in range(pixels.shape[1])]
        # An image of one colour has std 0: it stays as it is.
        std = [round(float(pixels[:, c].std(dtype=np.float64)) / 255, 4) or 1.0 for c in range(pixels.shape[1])]
    # All that a result depends on is in the file, so that its hash is the identity of the data.
    about = {"classes": raw.classes, "counts": counts, "mean": mean, "std": std, "mirrors": raw.mirrors}
    content = safetensors.numpy.save(tensors, {"dambench": json.dumps(about, sort_keys=True)})
    card = DataCard(
        name=name,
        label=display(raw.label or name),
        train_counts=counts["train"],
        test_counts=counts["test"],
        classes=[display(c) for c in raw.classes],
        channels=raw.train_images.shape[1],
        height=raw.train_images.shape[2],
        width=raw.train_images.shape[3],
        mean=mean,
        std=std,
        mirrors=raw.mirrors,
        source=source,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        notes=[display(note, 600) for note in raw.notes],
    )
    # The card last: a tensor file without one is not taken for prepared data.
    files.write_whole(files.data_folder() / f"{stem}.safetensors", content)
    files.write_whole(files.data_folder() / f"{stem}.json", msgspec.json.format(msgspec.json.encode(card)))
    return card
