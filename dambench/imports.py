"""Synthetic sets from elsewhere: read without running anything in them, checked against a dataset, kept by content.

| format        | what is read                                                                                    |
|---------------|-------------------------------------------------------------------------------------------------|
| `safetensors` | a set of dambench, or any file with images and labels                                            |
| `npz`         | arrays `images` and `labels`; no pickles                                                         |
| `pt`          | what `torch.save` wrote: a dict of tensors, the pair (images, labels), or as the code of DC, DSA |
|               | and DM writes it, `data`: a list of such pairs, of which the last counts                         |
| `png`         | a folder or a .zip of CLASS/*.png; CLASS is a name or a number                                   |

Images are (N, C, H, W): uint8 pixels, or floats that are normalised with the dataset's mean and standard deviation as
this field's codes save them. With `pixels` = unit they are in [0, 1] and are normalised here. Labels are whole numbers
(N,), or logits (N, classes) of soft labels. All else that a published set needs to be trained on as it was meant to be
(the network's norm, the augmentation, the epochs) is not in such files: the network and the protocol say it.
"""

import io
import os
import re
import stat
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import torch
from PIL import Image
from torch import Tensor

from dambench import files
from dambench.datasets import _archive, _images
from dambench.display import display
from dambench.errors import BadInput, unknown
from dambench.events import DataCard
from dambench.problem import MOST_HEADER, Normalisation, SyntheticSet

SUFFIXES = {".safetensors": "safetensors", ".npz": "npz", ".pt": "pt", ".pth": "pt", ".zip": "png"}
PIXELS = ("normalised", "unit")
IMAGES = ("images", "data", "x", "x_train")
LABELS = ("labels", "targets", "y", "y_train")
MOST_BYTES = 4_000_000_000
"""Of any file, and of what it unpacks to."""


class Found(NamedTuple):
    """What a file holds, before it is checked."""

    images: Any
    labels: Any
    lr: Any = None


def read(path: Path, card: DataCard, kind: str = "auto", pixels: str | None = None) -> SyntheticSet:
    """A set for that dataset.

    Args:
        kind: a format, or auto: by the suffix.
        pixels: what floats mean; None: normalised.

    Raises:
        BadInput: it is not such a file, is too large, or does not fit the dataset. Nothing was written or run.
    """
    if pixels is not None and pixels not in PIXELS:
        raise unknown("kind of pixels", pixels, PIXELS)
    if kind != "auto" and kind not in READERS:
        raise unknown("format", kind, ["auto", *READERS])
    most = _most_bytes(card)
    _look(path, most)
    chosen = ("png" if path.is_dir() else SUFFIXES.get(path.suffix.lower(), "")) if kind == "auto" else kind
    if not chosen:
        raise BadInput(f"{str(path)!r}: its suffix names no format; say --format {' or '.join(READERS)}.")
    if path.is_dir() and chosen != "png":
        raise BadInput(f"{str(path)!r} is a folder: the format {chosen} needs a file.")
    try:
        found = READERS[chosen](path, card, most)
    except BadInput:
        raise
    except Exception as error:  # the libraries have dozens of kinds for files that are damaged or hostile
        raise BadInput(f"{str(path)!r} is not a whole {chosen} file of images and labels: {_reason(error)}.") from None
    if isinstance(found, SyntheticSet):
        if pixels is not None:
            raise BadInput(f"{str(path)!r} is a set of dambench, which says itself what its pixels are: no --pixels.")
        found.ipc_on(card)
        return found
    try:
        return _set(found, card, pixels)
    except BadInput as error:
        raise BadInput(f"{str(path)!r} cannot be used: {error}") from None


def keep(synthetic: SyntheticSet) -> str:
    """Write a set to its place under DAMBENCH_HOME, if it is not there. Returns its SHA-256."""
    content = synthetic.to_bytes()
    sha256 = files.digest(content)
    path = files.set_path(sha256)
    with files.writing("The set", path.parent, files.HOME_HINT):
        if not path.exists():
            files.write_whole(path, content)
    return sha256


def looks_plain(synthetic: SyntheticSet) -> bool:
    """Whether floats that should be normalised look like plain pixels: all in [0, 1]."""
    images = synthetic.images
    return images.is_floating_point() and bool((images.min() >= 0) & (images.max() <= 1))


def _most_bytes(card: DataCard) -> int:
    """A set has at most as many images as the dataset: in the widest type, with logits, and a little for names."""
    each = 8 * (card.channels * card.height * card.width + len(card.classes))
    return min(MOST_BYTES, sum(card.train_counts) * each + 1_000_000)


def _look(path: Path, most: int) -> None:
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
    """Without torch's advice to load it unsafely."""
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    if named and "eights" in str(error):
        return f"it holds {display(named[1], 80)}, which is neither a tensor nor a number and could run code"
    if "eights" in str(error):
        return "it holds what is neither a tensor nor a number"
    return display((str(error) or type(error).__name__).partition("\n")[0].rstrip(".!"), 200)


# Readers. Each gives what it found without looking at it closely, having read no more than `most` bytes.


def _safetensors(path: Path, card: DataCard, most: int) -> Found | SyntheticSet:
    with path.open("rb") as file:
        if int.from_bytes(file.read(8), "little") > MOST_HEADER:
            raise BadInput(
                f"{str(path)!r} is not a safetensors file, or its header is larger than {MOST_HEADER} bytes."
            )
    with safetensors.safe_open(path, "pt") as tensors:
        if "dambench" in (tensors.metadata() or {}):
            return SyntheticSet.read(path)
        names = set(tensors.keys())
        return _pick({name: tensors.get_tensor(name) for name in (*IMAGES, *LABELS, "lr") if name in names}, names)


def _npz(path: Path, card: DataCard, most: int) -> Found:
    arrays, names = _archive.arrays(path, (*IMAGES, *LABELS, "lr"), most)
    return _pick({name: _tensor(array) for name, array in arrays.items()}, names)


def _tensor(array: _archive.Array) -> Tensor:
    if array.dtype.kind not in "uif":
        raise BadInput(f"An array of {display(str(array.dtype), 40)} was found where numbers are needed.")
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder("=")))


class _Kind:
    """Stands in for NumPy's dtype."""

    def __init__(self, *said: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


def _number(*said: object) -> None:
    """Stands in for NumPy's scalars: the code of DC saves its accuracies beside the images, and they are not needed."""


_STAND_INS: list[Any] = [
    (_number, "numpy.core.multiarray.scalar"),
    (_number, "numpy._core.multiarray.scalar"),
    (_Kind, "numpy.dtype"),
]


def _pt(path: Path, card: DataCard, most: int) -> Found:
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            raise BadInput(f"{str(path)!r} is not what torch.save writes (since torch 1.6): load it and save it again.")
    with _archive.opened(path, most):
        pass
    with warnings.catch_warnings(), torch.serialization.safe_globals(_STAND_INS):
        warnings.simplefilter("ignore")
        # First without memory: a tensor can claim to be any size, by strides of 0.
        _within(torch.load(path, map_location="meta", weights_only=True), most)
        saved = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(saved, Mapping) and isinstance(saved.get("data"), list) and saved["data"]:
        saved = saved["data"][-1]
    if isinstance(saved, list | tuple) and len(saved) == 2:
        return Found(*saved)
    if isinstance(saved, Mapping):
        return _pick(saved, [name for name in saved if isinstance(name, str)])
    raise BadInput(f"{str(path)!r} is neither a dict of tensors nor the pair (images, labels).")


def _within(saved: Any, most: int) -> None:
    """See that no tensor is larger than a set can be. Each thing is looked at once, however often it is referred to."""
    waiting, seen = [saved], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Mapping | list | tuple):
            waiting += value.values() if isinstance(value, Mapping) else value
        elif isinstance(value, Tensor) and value.numel() * value.element_size() > most:
            raise BadInput(f"A tensor of shape {tuple(value.shape)} was found: that is more than a set can have.")


def _pick(named: Mapping[str, Any], names: Any) -> Found:
    images, labels = (next((name for name in known if name in named), None) for known in (IMAGES, LABELS))
    if images is None or labels is None:
        held = display(", ".join(sorted(names)) or "nothing", 200)
        raise BadInput(f"It has {held}: images (or {', '.join(IMAGES[1:])}) and labels are needed.")
    return Found(named[images], named[labels], named.get("lr"))


def _png(path: Path, card: DataCard, most: int) -> Found:
    if path.is_dir():
        return _pictures(path, _in_folder(path), card)
    with _archive.opened(path, most) as (archive, members):
        there = {n: i for n, i in members.items() if _is_picture(n) and not n.startswith("__MACOSX/")}
        parts = {name: name.split("/") for name in there}
        deep = {len(part) for part in parts.values()} == {3} and len({part[0] for part in parts.values()}) == 1
        if any(len(part) != 2 + deep for part in parts.values()):
            raise BadInput(f"{str(path)!r} has images that do not lie in CLASS/*.png.")
        items = [(part[-2], part[-1], partial(_archive.read, archive, there[name])) for name, part in parts.items()]
        return _pictures(path, items, card)


_Picture = tuple[str, str, Callable[[], bytes]]
"""A class, a name in it, and what reads the file."""


def _is_picture(name: str) -> bool:
    return name.lower().endswith(".png") and not name.rpartition("/")[2].startswith(".")


def _in_folder(root: Path) -> list[_Picture]:
    found: list[_Picture] = []
    for folder in _listed(root):
        if folder.is_dir(follow_symlinks=False):
            for entry in _listed(Path(folder.path)):
                if _is_picture(entry.name):
                    if not entry.is_file(follow_symlinks=False):
                        raise BadInput(f"{entry.path!r} is not a file.")
                    found.append((folder.name, entry.name, Path(entry.path).read_bytes))
    return found


def _listed(folder: Path) -> "list[os.DirEntry[str]]":
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if not entry.name.startswith(".")]
    for entry in found:
        if entry.is_symlink():
            raise BadInput(f"{entry.path!r} is a link: copy what it leads to instead.")
    return found


def _pictures(path: Path, items: Sequence[_Picture], card: DataCard) -> Found:
    """Decoded only where the header says the size of the dataset's images."""
    if not 0 < len(items) <= sum(card.train_counts):
        raise BadInput(
            f"{str(path)!r} has {len(items)} images in CLASS/*.png: 1 to {sum(card.train_counts)} are needed for "
            f"{card.label}."
        )
    if card.channels not in (1, 3):
        raise BadInput(f"The images of {card.label} have {card.channels} channels: PNG files have 1 or 3.")
    classes = _classes({label for label, _, _ in items}, card)
    images = np.empty((len(items), card.channels, card.height, card.width), np.uint8)
    labels = np.empty(len(items), np.int64)
    for position, (label, name, content) in enumerate(sorted(items, key=lambda item: (classes[item[0]], item[1]))):
        what = f"The image {display(f'{label}/{name}', 80)!r}"
        try:
            with Image.open(io.BytesIO(content()), formats=["PNG"]) as image:
                if image.size != (card.width, card.height):
                    size = "×".join(map(str, image.size))
                    raise BadInput(f"{what} is {size}; those of {card.label} are {card.width}×{card.height}.")
                images[position] = _images.planes(_images.plain(image, card.channels))
        except _images.UNREADABLE as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput(f"{what} is not a PNG file that can be read: {display(str(error))}.") from None
        labels[position] = classes[label]
    return Found(torch.from_numpy(images), torch.from_numpy(labels))


def _classes(folders: set[str], card: DataCard) -> dict[str, int]:
    """The label of each folder: its place among the names of the classes, or its number."""
    positions = {name: position for position, name in enumerate(card.classes)}
    if folders <= set(positions):
        return {folder: positions[folder] for folder in folders}
    numbers = {folder: int(folder) for folder in folders if re.fullmatch("[0-9]{1,6}", folder)}
    if len(numbers) == len(folders) and max(numbers.values()) < len(card.classes):
        return numbers
    odd = min(folders - set(positions) - set(numbers), default=min(folders - set(positions)))
    raise BadInput(
        f"The folder {display(odd, 60)!r} is no class of {card.label}: {display(', '.join(card.classes), 100)}, or all "
        f"numbers from 0 to {len(card.classes) - 1}."
    )


READERS: dict[str, Callable[[Path, DataCard, int], Found | SyntheticSet]] = {
    "safetensors": _safetensors,
    "npz": _npz,
    "pt": _pt,
    "png": _png,
}


# Checks.


def _set(found: Found, card: DataCard, pixels: str | None) -> SyntheticSet:
    """What was found as a set for that dataset, sorted by class."""
    normalisation = Normalisation(tuple(card.mean), tuple(card.std))
    labels = _labels(_plain(found.labels, "labels"), card)
    images = _floats(_plain(found.images, "images"), card, pixels, normalisation)
    if len(images) != len(labels):
        raise BadInput(f"{len(images)} images have {len(labels)} labels.")
    order = (labels if labels.dim() == 1 else labels.argmax(1)).argsort(stable=True)
    synthetic = SyntheticSet(images[order], labels[order], normalisation, tuple(card.classes), _lr(found.lr))
    synthetic.ipc_on(card)
    return synthetic


def _plain(tensor: Any, what: str) -> Tensor:
    if type(tensor) is not Tensor or tensor.layout != torch.strided or tensor.is_quantized:
        raise BadInput(f"The {what} are {type(tensor).__name__}, not a plain tensor.")
    return tensor.detach().contiguous()


def _floats(images: Tensor, card: DataCard, pixels: str | None, normalisation: Normalisation) -> Tensor:
    """(N, C, H, W) uint8 as they are, or float32 as networks see them."""
    wanted = (card.channels, card.height, card.width)
    if images.dim() != 4 or tuple(images.shape[1:]) != wanted or not 0 < len(images) <= sum(card.train_counts):
        raise BadInput(
            f"the images have shape {tuple(images.shape)}; (N, {', '.join(map(str, wanted))}) with N from 1 to "
            f"{sum(card.train_counts)} is needed for {card.label}."
        )
    if images.dtype == torch.uint8:
        if pixels is not None:
            raise BadInput("its images are uint8, which are pixels in any case: leave --pixels out.")
        return images
    if images.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise BadInput(f"its images are {_dtype(images)}: uint8 or floats are needed.")
    images = images.float()
    if not bool(images.isfinite().all()):
        raise BadInput("not all values of its images are finite.")
    if pixels != "unit":
        return images
    low, high = images.min().item(), images.max().item()
    if low < 0 or high > 1:
        raise BadInput(f"--pixels unit is for values from 0 to 1, the images have {low:.4g} to {high:.4g}.")
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (normalisation.mean, normalisation.std))
    return (images - mean) / std


def _labels(labels: Tensor, card: DataCard) -> Tensor:
    """(N,) int64, or (N, classes) float32 logits."""
    classes = len(card.classes)
    if labels.dim() == 1 and labels.dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
        labels = labels.long()
        if not bool(((labels >= 0) & (labels < classes)).all()):
            low, high = labels.min().item(), labels.max().item()
            raise BadInput(f"its labels go from {low} to {high}, those of {card.label} from 0 to {classes - 1}.")
        return labels
    if labels.dim() == 2 and labels.shape[1] == classes and labels.is_floating_point():
        labels = labels.float()
        if not bool(labels.isfinite().all()):
            raise BadInput("not all values of its labels are finite.")
        if bool((labels >= 0).all() & ((labels.sum(1) - 1).abs() < 1e-3).all()):
            raise BadInput("its soft labels are probabilities: give logits, such as their logarithm.")
        return labels
    raise BadInput(
        f"its labels are {_dtype(labels)} of shape {tuple(labels.shape)}: whole numbers (N,), or logits (N, {classes})."
    )


def _lr(lr: Any) -> float | None:
    """The learning rate that was distilled with the images."""
    if lr is None:
        return None
    number = lr.item() if isinstance(lr, Tensor) and lr.numel() == 1 else lr
    if not isinstance(number, int | float) or not isfinite(number) or not 0 < number < 1000:
        raise BadInput("its lr is not a positive number.")
    return float(number)


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
