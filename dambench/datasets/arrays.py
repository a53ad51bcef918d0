"""Your own images from one .npz file: x_train, y_train, x_test, y_test.

`--dataset arrays --data flowers.npz`. An array's name says its part and its kind, as in Keras, MedMNIST and others: x,
images or data, and y, labels or targets, of train, test or val (`X_train`, `test_labels`). Without a test part the
validation part is the test set; without both, `--set dataset.split=0.2` holds out a fifth of each class.

Images are (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 channels, of any size: bytes, or whole numbers of more
bits, where white is the most that 8, 10, 12, 14 or 16 bits hold: the fewest into which the largest fits. Or they are
floats from 0 to 1, -1 to 1 or 0 to 255, or of a range that is given: `--set dataset.range=0..16`. Labels are whole
numbers, texts or one-hot; an array `classes` of texts may name the classes.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dambench.core import files
from dambench.core.errors import BadInput
from dambench.core.sanitize import display
from dambench.datasets import Labels, Pixels, Raw, _archive, _images, _parts, free_bytes

MIRRORS = True

Array = np.ndarray[Any, np.dtype[Any]]
IMAGES = {"x", "images", "image", "data"}
LABELS = {"y", "labels", "label", "targets", "target"}
CLASSES = {"classes", "class_names", "label_names"}
AT_ONCE = 1000
"""Images that are scaled at a time."""
BRIGHT = 128
"""Floats from 0 to 255 reach this: of any that end between 1 and this nobody knows the range."""
SYMMETRIC = 0.9
"""Floats from -1 to 1 reach this on both sides: others may be normalised."""


class Options(_parts.Options, frozen=True):
    range: str | None = None
    """Range of the pixels, black..white: 0..1, -1..1 or 0..16; None: decided by the images, or refused."""


def fingerprint(options: Options, data: Path | None) -> str:
    path = _path(data)
    try:
        return f"{files.sha256(path)} {display(path.stem)}"
    except OSError as error:
        raise BadInput(f"The arrays {str(path)!r} cannot be read: {error.strerror}.") from None


def load(options: Options, data: Path | None) -> Raw:
    path = _path(data)
    option = _range_option(options.range)
    try:
        named = _named(_archive.names(path, free_bytes()), path)
        parts = _chosen(named, options, path)
        used = [name for part in parts for name in (part.images, part.labels)]
        arrays, _ = _archive.arrays(path, [*used, named.classes], free_bytes())
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"{str(path)!r} is not a whole .npz file of plain arrays: {display(str(error))}.") from None
    sources = [(part.images, _planes(arrays[part.images], part.images)) for part in parts]
    limits, notes = _range_of(sources, option)
    images = [_scaled(array, limits) for _, array in sources]
    labels, classes = _labels([(part.labels, arrays[part.labels]) for part in parts], arrays.get(named.classes), path)
    for part, pixels, positions in zip(parts, images, labels, strict=True):
        if len(pixels) != len(positions):
            raise BadInput(f"{part.images} has {len(pixels)} images but {len(positions)} labels, in {part.labels}.")
    if len(parts) == 1:
        images, labels, note = _parts.split(images[0], labels[0], classes, options)
        notes.append(note)
    elif parts[1].images not in named.parts.get("test", _NONE):
        notes.append(f"The test set is {parts[1].images}: there is no test part.")
    unused = [name for name in named.all if name not in (*used, named.classes)]
    if unused:
        notes.append(f"Arrays that were not used: {display(', '.join(unused))}.")
    return Raw(
        train_images=images[0],
        train_labels=labels[0],
        test_images=images[1],
        test_labels=labels[1],
        classes=classes,
        label=_parts.labelled(path.stem, options),
        mirrors=options.mirrors,
        notes=notes,
    )


def _path(data: Path | None) -> Path:
    if data is None:
        raise BadInput("The dataset arrays needs a file: say --data FILE.npz.", field="data")
    if not data.is_file():
        raise BadInput(f"--data {str(data)!r} is not a file: the dataset arrays needs an .npz file.", field="data")
    return data


# Which arrays.


class _Part(NamedTuple):
    """The names of its arrays; empty: not there."""

    images: str = ""
    labels: str = ""


_NONE = _Part()


class _Named(NamedTuple):
    """The arrays of a file, by what their names say."""

    parts: dict[_parts.Part | None, _Part]
    """None: of no part."""
    classes: str
    """Empty: not there."""
    all: list[str]


def _named(names: list[str], path: Path) -> _Named:
    parts: dict[_parts.Part | None, _Part] = {}
    classes = ""
    for name in names:
        words = _words(name)
        if "_".join(words) in CLASSES:
            classes = name
            continue
        part = next((_parts.NAMES[word] for word in words if word in _parts.NAMES), None)
        rest = [word for word in words if word not in _parts.NAMES]
        if len(rest) != 1 or len(words) > 2 or rest[0] not in IMAGES | LABELS:
            continue
        before = parts.get(part, _NONE)
        other = before.images if rest[0] in IMAGES else before.labels
        if other:
            raise BadInput(f"{str(path)!r} has {display(other)!r} and {display(name)!r}: which of them? Leave one out.")
        parts[part] = before._replace(**{"images" if rest[0] in IMAGES else "labels": name})
    return _Named(parts, classes, names)


def _words(name: str) -> list[str]:
    """x_train, X_train, trainX and xtrain → x, train in some order."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    apart = re.sub(rf"^([xy])(?={'|'.join(_parts.NAMES)})", r"\1_", apart)
    return [word for word in re.split(r"[^a-z0-9]+", apart) if word]


def _chosen(named: _Named, options: Options, path: Path) -> list[_Part]:
    """The training and the test part, or the one that is to be split."""
    order: tuple[_parts.Part | None, ...] = ("train", None, "test", "valid")
    there = [part for part in order if all(named.parts.get(part, _NONE))]
    whole = [part for part in there if part in ("train", None)]
    tested = [part for part in there if part in ("test", "valid")]
    held = display(", ".join(named.all) or "none", 400)
    if not whole or (whole[0] is None and tested):
        train = named.parts.get("train", _NONE)
        raise BadInput(f"{str(path)!r} has no array {'y_train' if train.images else 'x_train'!r}; it has {held}.")
    if tested and options.split is not None:
        raise BadInput(
            f"dataset.split makes a test part, but {str(path)!r} has one: leave it out. It has {held}.",
            field="dataset.split",
        )
    if not tested and options.split is None:
        test = named.parts.get("test", _NONE)
        raise BadInput(
            f"{str(path)!r} has no array {'y_test' if test.images else 'x_test'!r}; it has {held}. "
            "Without a test part, say --set dataset.split=0.2."
        )
    return [named.parts[part] for part in (whole[0], *tested[:1])]


# Pixels.


def _planes(array: Array, name: str) -> Array:
    """(N, C, H, W)."""
    if array.dtype.kind not in "buif":
        raise BadInput(f"{name} is {array.dtype}: numbers are needed.")
    if array.ndim == 3:
        return array[:, None]
    if array.ndim == 4 and array.shape[3] in (1, 3):
        return np.moveaxis(array, 3, 1)
    if array.ndim == 4 and array.shape[1] in (1, 3):
        return array
    raise BadInput(f"{name} has shape {array.shape}: (N, H, W), (N, H, W, C) or (N, C, H, W) with C 1 or 3 is needed.")


class _Range(NamedTuple):
    black: float
    white: float


BYTES = _Range(0, 255)


def _range_option(text: str | None) -> _Range | None:
    """Read `dataset.range`, as `0..16`."""
    if text is None:
        return None
    number = r"(-?\d{1,9}(?:\.\d{1,9})?)"
    match = re.fullmatch(rf"{number}(?:\.\.|-){number}", text.replace(" ", ""))
    if match is None or float(match[1]) >= float(match[2]):
        raise BadInput(
            f"dataset.range = {display(text, 60)!r} is not of the form black..white: 0..1, -1..1, 0..255.",
            field="dataset.range",
        )
    return _Range(float(match[1]), float(match[2]))


def _range_of(sources: Sequence[tuple[str, Array]], option: _Range | None) -> tuple[_Range, list[str]]:
    """Decide what is black and white: as the option says, or as the pixels of all arrays show, with a note of that.

    Raises:
        BadInput: nobody knows them, or pixels lie beyond them.
    """
    names = " and ".join(name for name, _ in sources)
    kinds = {"i" if array.dtype.kind == "u" else array.dtype.kind for _, array in sources}
    if len(kinds) > 1:
        raise BadInput(f"{names} are {' and '.join(str(array.dtype) for _, array in sources)}: one kind is needed.")
    filled = [array for _, array in sources if array.size]
    if not filled or (option is None and all(array.dtype == np.uint8 for array in filled)):
        return BYTES, []
    least, most = min(float(array.min()) for array in filled), max(float(array.max()) for array in filled)
    span = f"{filled[0].dtype} from {least:.6g} to {most:.6g}"
    if not (np.isfinite(least) and np.isfinite(most)):
        raise BadInput(f"{names} have values that are no finite numbers.")
    if option is not None:
        near = 1e-6 * (option.white - option.black)
        if least < option.black - near or most > option.white + near:
            raise BadInput(
                f"dataset.range = {option.black:g}..{option.white:g} is too narrow: {names} have {span}.",
                field="dataset.range",
            )
        return option, []
    usual = _usual_range(kinds.pop(), least, most)
    if usual is None:
        raise BadInput(
            f"{names} have {span}, and nobody knows what is black and white: say --set dataset.range=0..1, =-1..1 or "
            "what it is, or give bytes."
        )
    note = f"{names} have {span}: {usual.black:g} was taken for black, {usual.white:g} for white (--set dataset.range)."
    return usual, [] if most == usual.white == 255 else [note]


def _usual_range(kind: str, least: float, most: float) -> _Range | None:
    """Guess the range of pixels of a kind of dtype from their extremes; None: it could be several, or none."""
    match kind:
        case "b":
            return _Range(0, 1)
        case "i" if least >= 0 and most <= _images.TOP:
            return _Range(0, next(2**bits - 1 for bits in _images.DEPTHS if most < 2**bits))
        case "f" if least >= 0 and most <= 1:
            return _Range(0, 1)
        case "f" if -1 <= least <= -SYMMETRIC and SYMMETRIC <= most <= 1:
            return _Range(-1, 1)
        case "f" if least >= 0 and BRIGHT <= most <= 255:
            return _Range(0, 255)
    return None


def _scaled(array: Array, limits: _Range) -> Pixels:
    """Make bytes of the pixels."""
    if array.dtype == np.uint8 and limits == BYTES:
        return np.ascontiguousarray(array)
    black, white = limits
    whole = array.dtype.kind in "bui" and black == 0 and white in range(_images.TOP + 1)
    pixels = np.empty(array.shape, np.uint8)
    for start in range(0, len(array), AT_ONCE):
        part = array[start : start + AT_ONCE]
        if whole:  # as files of so many bits
            pixels[start : start + AT_ONCE] = _images.scaled(part, int(white))
        else:
            share = (part.astype(np.float64) - black) / (white - black)
            pixels[start : start + AT_ONCE] = np.rint(share.clip(0, 1) * 255)
    return pixels


# Labels.


def _labels(sources: Sequence[tuple[str, Array]], names: Array | None, path: Path) -> tuple[list[Labels], list[str]]:
    """(N,) positions in the classes for each part, and the names of the classes.

    Raises:
        BadInput: they are not one class for each image, or `names` are not those of the classes.
    """
    columns = {array.shape[1] for _, array in sources if array.ndim == 2 and array.shape[1] > 1}
    flat = [_flat(array, name) for name, array in sources]
    if len({array.dtype.kind for array in flat}) > 1:
        raise BadInput(f"{' and '.join(name for name, _ in sources)} are texts and numbers: one kind is needed.")
    values = np.unique(np.concatenate(flat))
    if columns:
        if len(columns) > 1 or (len(values) and not 0 <= values.min() <= values.max() < min(columns)):
            raise BadInput(f"{' and '.join(name for name, _ in sources)} have different numbers of classes.")
        values = np.arange(min(columns))
    if names is not None:
        names = np.char.decode(names, "utf-8", "replace") if names.dtype.kind == "S" else names
        if values.dtype.kind == "U" and names.dtype.kind == "U" and names.ndim == 1 and set(values) <= set(names):
            values = names  # in their order
        elif names.shape != (len(values),):
            raise BadInput(f"In {str(path)!r}, `classes` names {names.size} classes but the labels have {len(values)}.")
    order = np.argsort(values, kind="stable")
    positions = [order[np.searchsorted(values, array, sorter=order)].astype(np.int64) for array in flat]
    return positions, [str(name) for name in (values if names is None else names)]


def _flat(array: Array, name: str) -> Array:
    """(N,) whole numbers or texts."""
    while array.ndim > 1 and array.shape[-1] == 1:
        array = array[..., 0]
    numbers = array.dtype.kind in "buif"
    if array.ndim == 2 and numbers and ((array == 0) | (array == 1)).all():
        if (array.sum(1) != 1).any():
            raise BadInput(f"{name} has several classes for an image, or none, in shape {array.shape}: each needs one.")
        return np.asarray(array.argmax(1))
    if array.ndim == 1 and array.dtype.kind in "SU":
        return np.char.decode(array, "utf-8", "replace") if array.dtype.kind == "S" else array
    if array.ndim == 1 and numbers and (np.abs(array.astype(np.float64)) < 2**53).all():
        whole = array.astype(np.int64)
        if (whole == array).all():
            return whole
    raise BadInput(
        f"{name} is {array.dtype} of shape {array.shape}: whole numbers or texts of shape (N,), or one-hot labels of "
        "shape (N, classes) are needed."
    )
