"""Synthetic sets from elsewhere: read without running anything in them, checked against a dataset, kept by content.

| format        | what is read                                                                                    |
|---------------|-------------------------------------------------------------------------------------------------|
| `safetensors` | a set of dambench, or any file with images and labels                                            |
| `npz`         | arrays `images` and `labels`; no pickles                                                         |
| `pt`          | what `torch.save` wrote: a dict of tensors, the pair (images, labels), `data`, a list of such     |
|               | pairs, as the code of DC, DSA and DM writes it, or one file for each of the two (and for the      |
|               | step size), as MTT, DATM, PAD and DataDAM do: `images_best.pt`, `labels_best.pt`, `lr_best.pt`    |
| `images`      | a folder or a .zip of CLASS/*.png, .jpg, …; CLASS is a name or a number (or `new000`, as SRe2L's) |

Images are (N, C, H, W) or (N, H, W, C): bytes, or floats that are normalised with the dataset's mean and standard
deviation, as this field's codes save them, or whitened (`preprocessing` = zca). With `pixels` they are plain values,
from 0 to 1 (unit), 0 to 255 (bytes) or -1 to 1 (symmetric), and are normalised or whitened here. Labels are whole
numbers of any type, also one-hot, or soft ones: logits or probabilities (N, classes). Whether images are mosaics (IDC,
IDM, DREAM) a file does not say: `factor` does. All else that a published set
needs to be trained on as it was meant to be (the network's norm, the augmentation, the epochs) is not in such files:
the network and the protocol say it.
"""

import hashlib
import io
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import torch
from PIL import Image
from torch import Tensor

from dambench import datasets
from dambench.core import files, reading
from dambench.core.config import PREPROCESSINGS
from dambench.core.errors import BadInput, named
from dambench.core.events import DataCard
from dambench.core.sanitize import counted, display
from dambench.datasets import _archive, _folders, _images, _saved
from dambench.training.problem import (
    MOST_LR,
    MOST_SET_HEADER,
    Normalisation,
    Preprocessing,
    SyntheticSet,
    mosaic_fault,
)

SUFFIXES = {".safetensors": "safetensors", ".npz": "npz", ".pt": "pt", ".pth": "pt", ".zip": "images"}
PIXELS = {"unit": (0.0, 1.0), "bytes": (0.0, 255.0), "symmetric": (-1.0, 1.0)}
"""What plain pixels are, by name: black and white."""
IMAGES = ("images", "image", "images_syn", "image_syn", "syn_images", "imgs", "data", "x", "x_train")
LABELS = ("labels", "label", "labels_syn", "label_syn", "syn_labels", "targets", "y", "y_train")
RATES = ("lr", "syn_lr", "lr_syn")
TRIPLES = (("images", "labels", "lr"), ("image_syn", "label_syn", "syn_lr"), ("image", "label", "lr"), ("X", "y", "lr"))
"""Words in the names of files that belong together: images, labels and the step size."""
LARGEST_SET = 4_000_000_000
"""Largest size of any file, and of what it unpacks to."""
LARGEST_VALUE = 1e6
"""Largest float of an image: what is distilled may leave the range of pixels, and has hundreds at the most."""
SUM = 0.01
"""By how much a row of probabilities may miss 1, in 8 bits."""


class RawSet(NamedTuple):
    """The contents of a file, before they are checked."""

    images: Any
    labels: Any
    lr: Any = None


@dataclass
class _File:
    """The contents of a file, as a reader gives them."""

    sets: Sequence[RawSet | SyntheticSet]
    """One, or several of the same kind: a file may have some that were made alike with other seeds."""
    notes: list[str] = field(default_factory=list)
    """On what was not used, and what a reader should know."""


@dataclass(frozen=True)
class Reading:
    """The sets of a file."""

    sets: tuple[SyntheticSet, ...]
    experiments: tuple[int, ...]
    """Their places in the file, from 0."""
    total: int
    """Sets of the file."""
    ipc: int
    notes: tuple[str, ...]
    """What was left out, changed, or looks wrong."""


def read(
    path: Path,
    card: DataCard,
    kind: str = "auto",
    pixels: str | None = None,
    preprocessing: str | None = None,
    experiment: int | None = None,
    lr: float | None = None,
    say: Callable[[str], None] = lambda text: None,
    factor: int | None = None,
) -> Reading:
    """The sets of a file or folder, for that dataset.

    Args:
        kind: a format, or auto: by the suffix.
        pixels: what floats are, of PIXELS; None: what networks see.
        preprocessing: what was done to the images, or is to be done where they are plain; None: mean/std.
        experiment: of several sets, only this one.
        lr: the learning rate that was distilled with the images, where the file does not say it.
        say: hears what takes long.
        factor: of its images, where they are mosaics, as those of IDC, IDM and DREAM; None: the file says it, or they
            are none.

    Raises:
        BadInput: it is not such a file, is too large, or does not fit the dataset. Nothing was written or run.
    """
    if pixels is not None:
        pixels = named("kind of pixels", pixels, ["normalised", *PIXELS])
    if preprocessing is not None:
        preprocessing = named("preprocessing", preprocessing, PREPROCESSINGS)
    file = _read_file(path, card, named("format", kind, ["auto", *READERS]))
    total = len(file.sets)
    if experiment is not None and not 0 <= experiment < total:
        raise BadInput(f"{str(path)!r} has {counted(total, 'set')}: --experiment is from 0 to {total - 1}.")
    numbers = tuple(range(total)) if experiment is None else (experiment,)
    notes = list(file.notes)
    own = [one for one in file.sets if isinstance(one, SyntheticSet)]
    if own:
        flags: dict[str, object] = {
            "--pixels": pixels,
            "--preprocessing": preprocessing,
            "--lr": lr,
            "--factor": factor,
        }
        if needless := [flag for flag, value in flags.items() if value is not None]:
            raise BadInput(f"{str(path)!r} is a set of dambench, which says this itself: no {needless[0]}.")
        sets = own
    elif (factor or 1) > 1 and preprocessing == "zca":
        raise BadInput("--factor is for mosaics of images, and tiles of whitened images are none: leave it out.")
    elif fault := mosaic_fault(factor or 1, card.height, card.width):
        raise BadInput(f"--factor {factor} cannot be: {fault}.")
    else:
        raw = [one for one in file.sets if isinstance(one, RawSet)]
        try:
            sets = [_checked(raw[n], card, pixels, preprocessing, lr, notes, say) for n in numbers]
            sets = [replace(one, factor=factor or 1) for one in sets]
        except BadInput as error:
            raise BadInput(f"{str(path)!r} cannot be used: {error}") from None
    ipcs = {synthetic.ipc_on(card) for synthetic in sets}
    if len(ipcs) > 1:
        raise BadInput(f"{str(path)!r} has sets of {sorted(ipcs)} images per class: say which, with --experiment N.")
    for synthetic in sets:
        notes += _oddities(synthetic)
    if not own and pixels is None and preprocessing is None:
        notes += _suspicions(sets, card, say)
    return Reading(tuple(sets), numbers, total, ipcs.pop(), tuple(dict.fromkeys(notes)))


def _read_file(path: Path, card: DataCard, kind: str) -> _File:
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


def keep(synthetic: SyntheticSet) -> str:
    """Write a set to its place under DAMBENCH_HOME, if it is not there. Returns its SHA-256."""
    content = synthetic.to_bytes()
    sha256 = files.digest(content)
    path = files.set_path(sha256)
    with files.writing("The set", path.parent, files.HOME_HINT):
        if not path.exists():
            files.write_whole(path, content)
        files.mark_imported(sha256)
    return sha256


def protocol_for(synthetic: SyntheticSet) -> str:
    """The name of the protocol that uses all that a set carries."""
    if synthetic.labels.dim() == 2:
        return "datm-pad"
    return "dsa-dm" if synthetic.lr is None else "mtt"


def _oddities(synthetic: SyntheticSet) -> list[str]:
    """Notes on what a person would see on looking at the images, as datasets have them."""
    images = synthetic.images.flatten(1).contiguous().numpy()
    digests: dict[int, list[bytes]] = {}
    for image, label in zip(images, synthetic.hard_labels.tolist(), strict=True):
        digests.setdefault(label, []).append(hashlib.sha256(image.tobytes()).digest())
    kinds = {label: set(some) for label, some in digests.items()}
    if len(synthetic.classes) > 1 and all(some == kinds[min(kinds)] for some in kinds.values()):
        which = "all images are alike" if len(kinds[min(kinds)]) == 1 else "all classes have the same images"
        return [f"{which}: nothing tells the classes apart."]
    notes = []
    if same := [label for label, some in digests.items() if len(kinds[label]) == 1 < len(some)]:
        names = [synthetic.classes[label] for label in same]
        notes.append(f"classes whose images are all alike: {display(', '.join(names), 200)}.")
    if plain := int((synthetic.images.amin((2, 3)) == synthetic.images.amax((2, 3))).all(1).sum()):
        notes.append(f"images of one colour all over: {plain} of {len(images)}.")
    return notes


def _suspicions(sets: Sequence[SyntheticSet], card: DataCard, say: Callable[[str], None]) -> list[str]:
    """Notes on floats of which nobody has said what they are, and which do not look normalised."""
    images = torch.cat([synthetic.images for synthetic in sets])
    if not images.is_floating_point():
        return []
    low, high = images.min().item(), images.max().item()
    if low >= 0 and high <= 1:
        return [_plain_note("0 to 1", "unit")]
    if low >= 0 and 10 < high <= 255:
        return [_plain_note("0 to 255", "bytes")]
    if images[0].numel() <= datasets.MOST_WHITENED and images.std() < 0.8:
        # Whitened images have a small part of the variance of normalised ones. Taken for these, they lack the range of
        # pixels on both sides; by the way back of the whitening they have it.
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (card.mean, card.std))
        whitening = datasets.whitening(card, say)
        back = images.flatten(1) @ whitening.inverse + whitening.mean
        if 2 * _beyond(back) < _beyond(images * std + mean):
            return [
                "the values look whitened, not normalised: if they were made with ZCA, as by MTT, DATM and PAD, "
                "import it again with --preprocessing zca."
            ]
    if low >= -1 and high <= 1:
        return [_plain_note("-1 to 1", "symmetric")]
    return []


def _plain_note(span: str, pixels: str) -> str:
    return f"all values lie from {span}. If they are plain pixels, import it again with --pixels {pixels}."


def _beyond(pixels: Tensor) -> float:
    """Mean distance of pixels from [0, 1]."""
    return float((pixels - pixels.clamp(0, 1)).abs().mean())


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


def _safetensors(path: Path, card: DataCard, most: int) -> _File:
    with path.open("rb") as file:
        if int.from_bytes(file.read(8), "little") > MOST_SET_HEADER:
            raise BadInput(
                f"{str(path)!r} is not a safetensors file, or its header is larger than {MOST_SET_HEADER} bytes."
            )
    with safetensors.safe_open(path, "pt") as tensors:
        names = list(tensors.keys())
        if "dambench" in (tensors.metadata() or {}):
            return _File([SyntheticSet.read(path)], _unused(names))
        raw = RawSet(*(None if name is None else tensors.get_tensor(name) for name in _roles(names)))
        return _File([raw], _unused(names))


def _npz(path: Path, card: DataCard, most: int) -> _File:
    _, names = _archive.arrays(path, (), most)
    roles = _roles(names)
    arrays, _ = _archive.arrays(path, [name for name in roles if name is not None], most)
    return _File([RawSet(*(None if name is None else _tensor(arrays[name]) for name in roles))], _unused(names))


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


def _pt(path: Path, card: DataCard, most: int) -> _File:
    notes: list[str] = []
    if path.is_dir():
        path, notes = _pair_in(path)
    with _saved.opened(path, most) as saved:
        if not isinstance(saved, _saved.Stored | int | float):
            file = _structured(path, saved, most)
            return _File(file.sets, notes + file.notes)
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
    return _File([RawSet(*values)], notes)


def _structured(path: Path, saved: Any, most: int) -> _File:
    """Read lists and dicts."""
    unused: list[str] = []
    if isinstance(saved, Mapping):
        data = saved.get("data")
        if isinstance(data, list | tuple):
            unused = [str(name) for name, value in saved.items() if name != "data" and _has_tensor(value)]
            saved = data
        else:
            named = {name: value for name, value in saved.items() if isinstance(name, str)}
            raw = RawSet(*(None if name is None else _value(named[name], most) for name in _roles(named)))
            return _File([raw], _unused([*_roles(named)[:2], *(n for n, value in named.items() if _has_tensor(value))]))
    notes = [f"not used: {display(', '.join(sorted(unused)), 200)}."] if unused else []
    pairs = isinstance(saved, list | tuple) and all(isinstance(part, list | tuple) and len(part) == 2 for part in saved)
    if pairs and saved:
        if sum(part.size for pair in saved for part in pair if isinstance(part, _saved.Stored)) > most:
            raise BadInput(f"{counted(len(saved), 'set')} were found, which are larger than the dataset.")
        return _File([RawSet(*(_value(part, most) for part in pair)) for pair in saved], notes)
    if isinstance(saved, list | tuple) and len(saved) == 2:
        return _File([RawSet(*(_value(part, most) for part in saved))], notes)
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
    left = sorted(others - {path.name for path in beside or ()})
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


def _images_of(path: Path, card: DataCard, most: int) -> _File:
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


def _sorted_out(path: Path, there: Mapping[str, Callable[[], bytes]], card: DataCard) -> _File:
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
    return _File([_pictures(path, items, card)], notes)


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


READERS: dict[str, Callable[[Path, DataCard, int], _File]] = {
    "safetensors": _safetensors,
    "npz": _npz,
    "pt": _pt,
    "images": _images_of,
}
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""Formats of images, as Pillow calls them."""


# Checks.


def _checked(
    raw: RawSet,
    card: DataCard,
    pixels: str | None,
    name: str | None,
    lr: float | None,
    notes: list[str],
    say: Callable[[str], None],
) -> SyntheticSet:
    """Make a set for that dataset of it, sorted by class. What had to be changed is noted."""
    images = _shaped(_plain(raw.images, "images"), card, notes)
    labels = _labels(_plain(raw.labels, "labels"), card, notes)
    if len(images) != len(labels):
        raise BadInput(f"{len(images)} images have {len(labels)} labels.")
    preprocessing: Preprocessing = Normalisation(tuple(card.mean), tuple(card.std))
    if name == "zca":
        preprocessing = datasets.whitening(card, say)
    images = _floats(images, pixels, preprocessing)
    order = (labels if labels.dim() == 1 else labels.argmax(1)).argsort(stable=True)
    rate = _lr(raw.lr)
    if rate is not None and lr is not None:
        raise BadInput(f"it says its own learning rate, {rate:g}: leave --lr out.")
    return SyntheticSet(
        images[order], labels[order], preprocessing, tuple(card.classes), _lr(lr) if rate is None else rate
    )


def _plain(tensor: Any, role: str) -> Tensor:
    if type(tensor) is not Tensor or tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
        raise BadInput(f"The {role} are {type(tensor).__name__}, not a plain tensor.")
    return tensor.detach()


def _shaped(images: Tensor, card: DataCard, notes: list[str]) -> Tensor:
    """Bring images to the shape (N, C, H, W)."""
    expected = (card.channels, card.height, card.width)
    shape, last = tuple(images.shape), (card.height, card.width, card.channels)
    if images.dim() == 4 and shape[1:] == last != expected:
        images = images.permute(0, 3, 1, 2)
        notes.append("the images have their channels last, and were turned.")
    elif images.dim() == 3 and card.channels == 1:
        images = images.unsqueeze(1)
    if images.dim() != 4 or tuple(images.shape[1:]) != expected or not 0 < len(images) <= sum(card.train_counts):
        raise BadInput(
            f"the images have shape {shape}; (N, {', '.join(map(str, expected))}) with N from 1 to "
            f"{sum(card.train_counts)} is needed for {card.label}."
        )
    return images.contiguous()


def _floats(images: Tensor, pixels: str | None, preprocessing: Preprocessing) -> Tensor:
    """Bring images to uint8 pixels as they are, or float32 as networks see them."""
    if not images.is_floating_point() and images.dtype != torch.bool:
        least, largest = int(images.min()), int(images.max())
        if images.dtype != torch.uint8 and not (least >= 0 and 1 < largest <= 255):
            raise BadInput(f"its images are {_dtype(images)} from {least} to {largest}: bytes or floats are needed.")
        if pixels is not None:
            raise BadInput(f"its images are {_dtype(images)}, which are pixels in any case: leave --pixels out.")
        return images.to(torch.uint8)
    if images.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise BadInput(f"its images are {_dtype(images)}: bytes or floats are needed.")
    images = images.float()
    if not bool(images.isfinite().all()):
        raise BadInput("not all values of its images are finite.")
    low, high = images.min().item(), images.max().item()
    if pixels is None or pixels == "normalised":
        if max(-low, high) > LARGEST_VALUE:
            raise BadInput(f"its images have values from {low:.4g} to {high:.4g}, which no image has.")
        return images
    black, white = PIXELS[pixels]
    slack = 1e-3 * (white - black)  # what is learned, or was rounded to 8 bits of a float, may miss the end a little
    if low < black - slack or high > white + slack:
        raise BadInput(
            f"--pixels {pixels} is for values from {black:g} to {white:g}, the images have {low:.4g} to {high:.4g}."
        )
    return preprocessing.apply((images - black) * (255 / (white - black)))


def _labels(labels: Tensor, card: DataCard, notes: list[str]) -> Tensor:
    """Bring labels to (N,) int64, or (N, classes) float32 logits."""
    classes = len(card.classes)
    given = f"its labels are {_dtype(labels)} of shape {tuple(labels.shape)}"
    if labels.dim() == 2 and labels.shape[1] == 1:
        labels = labels.squeeze(1)
    if labels.dim() not in (1, 2) or labels.shape[1:] not in ((), (classes,)) or not labels.numel():
        raise BadInput(f"{given}: whole numbers (N,), or logits (N, {classes}).")
    values = labels.double()
    if not bool(values.isfinite().all()):
        raise BadInput("not all values of its labels are finite.")
    low, high = values.min().item(), values.max().item()
    if labels.dim() == 1:
        if not bool((values == values.round()).all()):
            raise BadInput(f"{given}, with fractions: whole numbers (N,), or logits (N, {classes}).")
        if low < 0 or high >= classes:
            raise BadInput(
                f"its labels go from {low:.15g} to {high:.15g}, those of {card.label} from 0 to {classes - 1}."
            )
        return values.long()
    if bool(((values == 0) | (values == 1)).all() & (values.sum(1) == 1).all()):
        return values.argmax(1)
    if not labels.is_floating_point():
        raise BadInput(f"{given}, and not one-hot: whole numbers (N,), or logits (N, {classes}).")
    if low >= 0 and bool(((values.sum(1) - 1).abs() < SUM).all()):
        notes.append("its soft labels are probabilities, which are kept as their logarithms.")
        values = values.clamp_min(torch.finfo(torch.float32).tiny).log()
    elif max(-low, high) > LARGEST_VALUE:
        raise BadInput(f"its logits go from {low:.4g} to {high:.4g}, which none do.")
    return values.float()


def _lr(lr: Any) -> float | None:
    """The learning rate that was distilled with the images."""
    if lr is None:
        return None
    number = lr.item() if isinstance(lr, Tensor) and lr.numel() == 1 else lr
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < MOST_LR:
        raise BadInput("its lr is not a positive number.")
    return float(number)


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
