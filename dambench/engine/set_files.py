"""The files that `imports` reads: what is in them by role, before it is looked at closely.

Nothing in a file is run, and no more of it is read than a set of the dataset can have.
"""

import io
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import torch
from PIL import Image
from torch import Tensor

from dambench.core import reading
from dambench.core.errors import BadInput
from dambench.core.events import DataCard
from dambench.core.sanitize import counted, display
from dambench.datasets import _archive, _folders, _images, _saved
from dambench.training.problem import MOST_SET_HEADER, SyntheticSet

SUFFIXES = {".safetensors": "safetensors", ".npz": "npz", ".pt": "pt", ".pth": "pt", ".zip": "images"}
IMAGES = ("images", "image", "images_syn", "image_syn", "syn_images", "imgs", "data", "x", "x_train")
LABELS = ("labels", "label", "labels_syn", "label_syn", "syn_labels", "targets", "y", "y_train")
RATES = ("lr", "syn_lr", "lr_syn")
TRIPLES = (("images", "labels", "lr"), ("image_syn", "label_syn", "syn_lr"), ("image", "label", "lr"), ("X", "y", "lr"))
"""Words in the names of files that belong together: images, labels and the step size."""
HEADER = "dambench"
"""The name of what an exported set says of itself, its header as text, in a file of another format."""
HEADER_FILE = f"{HEADER}.json"
"""The file of that text, beside a file for each tensor."""
ACCURACIES = "accs_all_exps"
"""The name of the accuracies that the code of DC, DSA and DM, and our export, keep beside the sets."""
LARGEST_SET = 4_000_000_000
"""Largest size of any file, and of what it unpacks to."""


class RawSet(NamedTuple):
    """The contents of a file, before they are checked."""

    images: Any
    labels: Any
    lr: Any = None
    header: Any = ""
    """The header of a set of dambench that was exported to this format, a text; empty: it is from elsewhere."""


@dataclass
class SetFile:
    """The contents of a file, as a reader gives them."""

    sets: Sequence[RawSet | SyntheticSet]
    """One, or several of the same kind: a file may have some that were made alike with other seeds."""
    notes: list[str] = field(default_factory=list)
    """On what was not used, and what a reader should know."""
    accuracies: Any = None
    """What it claims for its sets: by network a list for all of them, in their order. Not checked."""


def read_file(path: Path, card: DataCard, kind: str) -> SetFile:
    """Let the reader of a format read a file or folder.

    Args:
        kind: of READERS, or auto.
    """
    most = _most_bytes(card)
    _check_size(path, most)
    if kind == "auto":
        kind = ("pt" if _torch_files(path) else "images") if path.is_dir() else SUFFIXES.get(path.suffix.lower(), "")
    if not kind:
        raise BadInput(f"{str(path)!r}: its suffix names no format; say --format {' or '.join(READERS)}.")
    if path.is_dir() and kind not in ("images", "pt"):
        raise BadInput(f"{str(path)!r} is a folder: the format {kind} needs a file.")
    try:
        return READERS[kind](path, card, most)
    except BadInput as error:
        text = str(error)
        names_it = text.startswith(repr(str(path))[:-1])
        raise BadInput(text if names_it else f"{str(path)!r} cannot be used: {text}") from None
    except Exception as error:  # the libraries have dozens of kinds for files that are damaged or hostile
        raise BadInput(f"{str(path)!r} is not a whole {kind} file of images and labels: {_reason(error)}.") from None


def _most_bytes(card: DataCard) -> int:
    """Largest file of a set: as many images as the dataset, in the widest type, with logits, and a little for names."""
    each = 8 * (card.channels * card.height * card.width + len(card.classes))
    return min(LARGEST_SET, sum(card.train_counts) * each + 1_000_000)


def _check_size(path: Path, most: int) -> None:
    """See that it is a folder, or a file of sensible size, without opening it: opening a pipe would wait for ever."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise BadInput(f"{str(path)!r} cannot be read: {getattr(error, 'strerror', error)}.") from None
    if stat.S_ISDIR(status.st_mode):
        return
    if not stat.S_ISREG(status.st_mode):
        raise BadInput(f"{str(path)!r} is neither a file nor a folder.")
    if not 0 < status.st_size <= most:
        raise BadInput(
            f"{str(path)!r} has {status.st_size} bytes: a set for this dataset has some, and {most} at the most."
        )


def _reason(error: Exception) -> str:
    return display((str(error) or type(error).__name__).partition("\n")[0].rstrip(".!"), 200)


# Readers. Each gives what it found without looking at it closely, having read no more than `most` bytes.


def _safetensors(path: Path, card: DataCard, most: int) -> SetFile:
    with path.open("rb") as file:
        if int.from_bytes(file.read(8), "little") > MOST_SET_HEADER:
            raise BadInput(
                f"{str(path)!r} is not a safetensors file, or its header is larger than {MOST_SET_HEADER} bytes."
            )
    with safetensors.safe_open(path, "pt") as tensors:
        names = list(tensors.keys())
        if "dambench" in (tensors.metadata() or {}):
            return SetFile([SyntheticSet.read(path)], _unused(names))
        raw = RawSet(*(None if name is None else tensors.get_tensor(name) for name in _roles(names)))
        return SetFile([raw], _unused(names))


def _npz(path: Path, card: DataCard, most: int) -> SetFile:
    _, names = _archive.arrays(path, (), most)
    roles = _roles(names)
    arrays, _ = _archive.arrays(path, [HEADER, *(name for name in roles if name is not None)], most)
    about = arrays.pop(HEADER, None)
    header = str(about[()]) if about is not None and about.dtype.kind == "U" and about.shape == () else ""
    raw = RawSet(*(None if name is None else _tensor(arrays[name]) for name in roles))
    return SetFile([raw._replace(header=header)], _unused([name for name in names if name != HEADER or not header]))


def _tensor(array: _archive.Array) -> Tensor:
    if array.dtype.kind not in "uifb":
        raise BadInput(f"An array of {display(str(array.dtype), 40)} was found where numbers are needed.")
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder("=")))


def _roles(names: Iterable[str]) -> tuple[str, str, str | None]:
    """The names, of these, of images, labels and the learning rate."""
    there = {name.lower(): name for name in sorted(names, reverse=True)}
    images, labels, lr = (
        next((there[name] for name in usual if name in there), None) for usual in (IMAGES, LABELS, RATES)
    )
    if images is None or labels is None:
        held = display(", ".join(sorted(names)) or "nothing", 200)
        raise BadInput(f"It has {held}: images (or {', '.join(IMAGES[1:])}) and labels are needed.")
    return images, labels, lr


def _unused(names: Iterable[str]) -> list[str]:
    """A note on the tensors of a file that were not taken."""
    left = sorted(set(names) - set(_roles(names)))
    return [f"not used: {display(', '.join(left), 200)}."] if left else []


def _pt(path: Path, card: DataCard, most: int) -> SetFile:
    notes: list[str] = []
    if path.is_dir():
        path, notes = _pair_in(path)
    with _saved.opened(path, most) as saved:
        if not isinstance(saved, _saved.Stored | int | float):
            file = _structured(path, saved, most)
            return SetFile(file.sets, notes + file.notes, file.accuracies)
    beside = _beside(path)
    if beside is None:
        raise BadInput(f"{str(path)!r} is neither a dict of tensors nor the pair (images, labels).")
    missing = [part.name for part in beside[:2] if not part.is_file()]
    if missing:
        looks = "; MTT's images_zca_… are for looking at, the set is images_…" if "zca" in path.stem.lower() else ""
        raise BadInput(f"{str(path)!r} has one tensor, and {missing[0]!r} is not beside it{looks}.")
    values = []
    for part in beside[: 2 + beside[2].is_file()]:
        _check_size(part, most)
        with _saved.opened(part, most) as saved:
            values.append(_value(saved, most))
    about = path.with_name(HEADER_FILE)
    header = reading.content(about, MOST_SET_HEADER).decode() if about.is_file() else ""
    return SetFile([RawSet(*values)._replace(header=header)], notes)


def _structured(path: Path, saved: Any, most: int) -> SetFile:
    """Read lists and dicts."""
    unused: list[str] = []
    about: Any = None
    claimed = saved.get(ACCURACIES) if isinstance(saved, Mapping) else None
    if isinstance(saved, Mapping):
        data, about = saved.get("data"), saved.get(HEADER)
        if isinstance(data, list | tuple):
            unused = [str(name) for name, value in saved.items() if name != "data" and _has_tensor(value)]
            saved = data
        else:
            named = {name: value for name, value in saved.items() if isinstance(name, str)}
            raw = RawSet(*(None if name is None else _value(named[name], most) for name in _roles(named)))
            return SetFile(
                [raw],
                _unused([*_roles(named)[:2], *(n for n, value in named.items() if _has_tensor(value))]),
                claimed,
            )
    notes = [f"not used: {display(', '.join(sorted(unused)), 200)}."] if unused else []
    pairs = isinstance(saved, list | tuple) and all(isinstance(part, list | tuple) and len(part) == 2 for part in saved)
    if pairs and saved:
        if sum(part.size for pair in saved for part in pair if isinstance(part, _saved.Stored)) > most:
            raise BadInput(f"{counted(len(saved), 'set')} were found, which are larger than the dataset.")
        raws = [RawSet(*(_value(part, most) for part in pair)) for pair in saved]
        if isinstance(about, str) and len(raws) == 1:
            raws = [raws[0]._replace(header=about)]
        return SetFile(raws, notes, claimed)
    if isinstance(saved, list | tuple) and len(saved) == 2:
        return SetFile([RawSet(*(_value(part, most) for part in saved))], notes)
    raise BadInput(f"{str(path)!r} is neither a dict of tensors nor the pair (images, labels).")


def _value(saved: Any, most: int) -> Any:
    if not isinstance(saved, _saved.Stored):
        return saved
    if saved.size > most:
        raise BadInput(f"A tensor of shape {saved.shape} was found: that is more than a set can have.")
    return saved.read()


def _has_tensor(saved: Any) -> bool:
    """Look for a tensor in nested lists and dicts, in each once, however often it is referred to."""
    waiting, visited = [saved], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, _saved.Stored):
            return True
        if id(value) not in visited and isinstance(value, Mapping | list | tuple):
            visited.add(id(value))
            waiting += value.values() if isinstance(value, Mapping) else value
    return False


def _torch_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if SUFFIXES.get(path.suffix.lower()) == "pt" and path.is_file())


def _pair_in(folder: Path) -> tuple[Path, list[str]]:
    """The images of a folder that has labels beside them, and a note on others."""
    wholes = {
        beside[0] for path in _torch_files(folder) if (beside := _beside(path)) and all(map(Path.is_file, beside[:2]))
    }
    best = [path for path in wholes if "best" in path.stem.lower()]
    chosen = wholes if len(wholes) == 1 else best
    if len(chosen) != 1:
        held = display(", ".join(sorted(path.name for path in wholes or _torch_files(folder))) or "nothing", 200)
        fault = "has several sets" if wholes else "has no pair such as images_best.pt and labels_best.pt"
        raise BadInput(f"{str(folder)!r} {fault}: {held}. Give one of its files.")
    images = chosen.pop()
    beside = _beside(images)
    others = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    left = sorted(others - {path.name for path in beside or ()} - {HEADER_FILE})
    return images, [f"not used: {display(', '.join(left), 200)}."] if left else []


def _beside(path: Path) -> tuple[Path, Path, Path] | None:
    """The files of images, labels and learning rate that belong to one of them, there or not; None: to none."""
    triples = []
    for words in TRIPLES:
        for word in words:
            parts = re.split(f"(?<![A-Za-z]){word}(?![A-Za-z])", path.stem, maxsplit=1)
            if len(parts) == 2:
                images, labels, lr = (path.with_name(f"{other.join(parts)}{path.suffix}") for other in words)
                triples.append((images, labels, lr))
    whole = [paths for paths in triples if paths[0].is_file() and paths[1].is_file()]
    return next(iter(whole or triples), None)


def _images_of(path: Path, card: DataCard, most: int) -> SetFile:
    """Files of images in folders of classes."""
    if path.is_dir():
        return _sorted_out(
            path, {name: partial(reading.content, Path(entry)) for name, entry in _in_folder(path)}, card
        )
    with _archive.opened(path, most) as (archive, members):
        return _sorted_out(path, {name: partial(_archive.read, archive, info) for name, info in members.items()}, card)


def _in_folder(root: Path, above: str = "") -> Iterable[tuple[str, str]]:
    """The files of a folder and its folders: their names from the root on, and their paths."""
    with os.scandir(root) as entries:
        visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in visible:
        name = f"{above}{entry.name}"
        if entry.is_symlink():
            raise BadInput(f"{entry.path!r} is a link: copy what it leads to instead.")
        if entry.is_dir():
            if name.count("/") >= _archive.MOST_DEEP:
                raise BadInput(f"{entry.path!r} lies deeper than any set needs.")
            yield from _in_folder(Path(entry.path), f"{name}/")
        elif not entry.is_file():
            raise BadInput(f"{entry.path!r} is not a file.")
        else:
            yield name, entry.path


def _sorted_out(path: Path, there: Mapping[str, Callable[[], bytes]], card: DataCard) -> SetFile:
    """The images among files by name, with their classes."""
    hidden = {name for name in there if name.startswith("__MACOSX/") or name.rpartition("/")[2].startswith(".")}
    pictures = {name for name in there if os.path.splitext(name)[1].lower() in _folders.SUFFIXES} - hidden
    parts = [name.split("/") for name in pictures]
    deep = {len(part) for part in parts} == {3} and len({part[0] for part in parts}) == 1
    if any(len(part) != 2 + deep for part in parts):
        raise BadInput(f"{str(path)!r} has images that do not lie in CLASS/*.png.")
    others = sorted(set(there) - hidden - pictures)
    notes = []
    if others:
        notes = [f"{counted(len(others), 'file')} not used, as no images: {display(', '.join(others), 100)}."]
    items = [(part[-2], part[-1], there["/".join(part)]) for part in parts]
    return SetFile([_pictures(path, items, card)], notes)


_Picture = tuple[str, str, Callable[[], bytes]]
"""A class, a name in it, and what reads the file."""


def _pictures(path: Path, items: Sequence[_Picture], card: DataCard) -> RawSet:
    """Decode images, only where the header says the size of the dataset's images."""
    if not 0 < len(items) <= sum(card.train_counts):
        raise BadInput(
            f"{str(path)!r} has {len(items)} images in CLASS/*.png: 1 to {sum(card.train_counts)} are needed for "
            f"{card.label}."
        )
    if card.channels not in (1, 3):
        raise BadInput(f"The images of {card.label} have {card.channels} channels: files of images have 1 or 3.")
    classes = _classes({label for label, _, _ in items}, card)
    images = np.empty((len(items), card.channels, card.height, card.width), np.uint8)
    labels = np.empty(len(items), np.int64)
    for position, (label, name, content) in enumerate(sorted(items, key=lambda item: (classes[item[0]], item[1]))):
        which = f"The image {display(f'{label}/{name}', 80)!r}"
        try:
            with Image.open(io.BytesIO(content()), formats=FORMATS) as image:
                if (pictures := getattr(image, "n_frames", 1)) > 1:
                    raise BadInput(f"{which} has {pictures} pictures: one is needed.")
                if image.size != (card.width, card.height):
                    size = "×".join(map(str, image.size))
                    raise BadInput(f"{which} is {size}; those of {card.label} are {card.width}×{card.height}.")
                images[position] = _images.planes(_images.plain(image, card.channels))
        except _images.UNREADABLE as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput(f"{which} is no image that can be read: {display(str(error))}.") from None
        labels[position] = classes[label]
    return RawSet(torch.from_numpy(images), torch.from_numpy(labels))


def _classes(folders: set[str], card: DataCard) -> dict[str, int]:
    """The label of each folder: its place among the names of the classes, or its number."""
    positions = {name: position for position, name in enumerate(card.classes)}
    if folders <= set(positions):
        return {folder: positions[folder] for folder in folders}
    numbers = {
        folder: int(match[2]) for folder in folders if (match := re.fullmatch("([A-Za-z_-]*)([0-9]{1,6})", folder))
    }
    words = {folder.rstrip("0123456789") for folder in numbers}
    if len(numbers) == len(folders) and len(words) == 1 and max(numbers.values()) < len(card.classes):
        return numbers
    odd = min(folders - set(positions) - set(numbers), default=min(folders - set(positions)))
    raise BadInput(
        f"The folder {display(odd, 60)!r} is no class of {card.label}: {display(', '.join(card.classes), 100)}, or all "
        f"numbers from 0 to {len(card.classes) - 1}, after the same word if any."
    )


READERS: dict[str, Callable[[Path, DataCard, int], SetFile]] = {
    "safetensors": _safetensors,
    "npz": _npz,
    "pt": _pt,
    "images": _images_of,
}
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""Formats of images, as Pillow calls them."""
