"""Synthetic sets as files that other programs read. What `imports` reads comes back to the bit.

| format        | what is written                                                                                  |
|---------------|--------------------------------------------------------------------------------------------------|
| `safetensors` | the set as dambench keeps it: the same bytes                                                      |
| `pt`          | the dict of the code of DC, DSA and DM: `data` is a list of one pair (images, labels), and         |
|               | `accs_all_exps` has the accuracies measured on it by network; beside them `lr`, where it has one   |
| `triple`      | a folder as MTT, DATM and PAD write it: `images_best.pt`, `labels_best.pt`, `lr_best.pt`           |
| `npz`         | arrays `images`, `labels` and, where it has one, `lr`                                             |
| `folder`      | CLASS/0000.png …, a file per image                                                                |
| `png`         | one picture: a row per class                                                                      |

Images are written as they are: float32 as networks see them, or uint8 pixels. Images of the last two are 8-bit pixels;
their values are the same where the set has such, and rounded and clamped where it has floats.

`pt`, `triple` and `npz` carry the header of the set as a text (`HEADER`), by which `imports` knows what the values
mean, so that it needs no flags; other programs pass over it.
"""

import io
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dambench.core import files
from dambench.core.errors import BadInput, named
from dambench.core.sanitize import display
from dambench.engine.set_files import HEADER, HEADER_FILE
from dambench.training.problem import SyntheticSet

TRIPLE = ("images_best.pt", "labels_best.pt", "lr_best.pt")
SUFFIXES = {"safetensors": ".safetensors", "pt": ".pt", "triple": "", "npz": ".npz", "folder": "", "png": ".png"}
"""By format, the suffix of its file; empty: it is a folder."""
FORMATS = tuple(SUFFIXES)
GAP = 2
"""Pixels between two images of a picture."""
MOST_PIXELS = 200_000_000
"""Largest picture that is written: more than any journal prints."""
LONGEST_CLASS = 100
"""Characters that the name of a folder may have."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    path: Path
    files: int
    notes: tuple[str, ...]
    """What the format cannot hold, in sentences."""


def header(synthetic: SyntheticSet) -> str:
    """What a set's file says of its tensors, as JSON: classes, preprocessing, learning rate."""
    content = synthetic.to_bytes()
    length = int.from_bytes(content[:8], "little")
    return str(json.loads(content[8 : 8 + length])["__metadata__"]["dambench"])


def format_of(format: str | None, output: Path | None) -> str:
    """The format that was asked for, else that of the file's suffix, else safetensors.

    Raises:
        BadInput: it is unknown, or the suffix says another.
    """
    by_suffix = {suffix: name for name, suffix in SUFFIXES.items() if suffix}
    if format is None:
        if output is not None:
            files.check_suffix(output, by_suffix, "a set")
            if not output.suffix:
                raise BadInput(f"{str(output)!r} has no suffix: say --format {' or '.join(FORMATS)}.")
        return "safetensors" if output is None else by_suffix[output.suffix.lower()]
    chosen = named("format", format, FORMATS)
    if output is not None and SUFFIXES[chosen]:
        files.check_suffix(output, [SUFFIXES[chosen]], f"a set in {chosen}")
    if output is not None and not SUFFIXES[chosen] and output.suffix.lower() in by_suffix:
        raise BadInput(f"{display(output.name, 60)!r} is the name of a file: the format {chosen} is a folder.")
    return chosen


def write(
    synthetic: SyntheticSet,
    target: Path,
    format: str,
    *,
    overwrite: bool = False,
    accuracies: Mapping[str, Sequence[float]] | None = None,
    images: int | None = None,
) -> Exported:
    """Write a set, whole or not at all.

    Args:
        format: of FORMATS.
        accuracies: measured on it, by network: what `pt` has beside it.
        images: of each class in a picture, at the most; None: all.

    Raises:
        BadInput: there is such a file, and it is not to be overwritten; it cannot be written; the format cannot hold
            such images.
    """
    target = Path(os.path.realpath(target))  # a link stays a link
    members, notes = _CONTENTS[format](synthetic, accuracies or {}, images)
    files.check_folder(target, "The set")
    with files.writing("The set", target.parent):
        if SUFFIXES[format]:
            _write_file(target, members[""], overwrite)
        else:
            _write_folder(target, members, overwrite)
    return Exported(target, len(members), tuple(notes))


_Contents = tuple[dict[str, bytes], list[str]]
"""Files by their names in a folder, or one without a name; and notes."""


def _safetensors(synthetic: SyntheticSet, accuracies: Mapping[str, Sequence[float]], images: int | None) -> _Contents:
    return {"": synthetic.to_bytes()}, []


def _pt(synthetic: SyntheticSet, accuracies: Mapping[str, Sequence[float]], images: int | None) -> _Contents:
    saved: dict[str, object] = {
        "data": [[_own(synthetic.images), _own(synthetic.labels)]],
        "accs_all_exps": {network: [float(value) for value in values] for network, values in accuracies.items()},
        HEADER: header(synthetic),
    }
    if synthetic.lr is not None:
        saved["lr"] = float(synthetic.lr)
    return {"": _saved(saved)}, []


def _triple(synthetic: SyntheticSet, accuracies: Mapping[str, Sequence[float]], images: int | None) -> _Contents:
    contents = [_own(synthetic.images), _own(synthetic.labels)]
    if synthetic.lr is not None:
        lr = torch.tensor(float(synthetic.lr), dtype=torch.float32)
        contents.append(lr if lr.item() == float(synthetic.lr) else torch.tensor(float(synthetic.lr)).double())
    members = {name: _saved(content) for name, content in zip(TRIPLE, contents, strict=False)}
    return members | {HEADER_FILE: header(synthetic).encode()}, []


def _npz(synthetic: SyntheticSet, accuracies: Mapping[str, Sequence[float]], images: int | None) -> _Contents:
    arrays: dict[str, NDArray[np.generic]] = {
        "images": _own(synthetic.images).numpy(),
        "labels": _own(synthetic.labels).numpy(),
        HEADER: np.array(header(synthetic)),
    }
    if synthetic.lr is not None:
        arrays["lr"] = np.array(float(synthetic.lr))
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return {"": file.getvalue()}, []


def _folder(synthetic: SyntheticSet, accuracies: Mapping[str, Sequence[float]], images: int | None) -> _Contents:
    pixels, notes = pixels_of(synthetic)
    names = folder_names(synthetic.classes)
    labels = synthetic.hard_labels.tolist()
    width = max(4, len(str(len(labels) - 1)))
    members = {
        f"{names[label]}/{position:0{width}}.png": _png(_plane(image))
        for position, (image, label) in enumerate(zip(pixels, labels, strict=True))
    }
    return members, notes + _not_in_pictures(synthetic)


def _picture(synthetic: SyntheticSet, accuracies: Mapping[str, Sequence[float]], images: int | None) -> _Contents:
    sheet, notes = picture(synthetic, images)
    return {"": _png(sheet)}, notes + _not_in_pictures(synthetic)


_CONTENTS: dict[str, Callable[[SyntheticSet, Mapping[str, Sequence[float]], int | None], _Contents]] = {
    "safetensors": _safetensors,
    "pt": _pt,
    "triple": _triple,
    "npz": _npz,
    "folder": _folder,
    "png": _picture,
}


def picture(synthetic: SyntheticSet, images: int | None = None) -> tuple[NDArray[np.uint8], list[str]]:
    """The set as one picture, (H, W) or (H, W, 3), a row per class, white between images; and notes on its values.

    Args:
        images: of each class, at the most; None: all.

    Raises:
        BadInput: it would be larger than MOST_PIXELS, or the images are neither grey nor of three colours.
    """
    labels = synthetic.hard_labels
    rows = [torch.nonzero(labels == label).flatten()[:images] for label in range(len(synthetic.classes))]
    most = max(len(row) for row in rows)
    channels, height, width = synthetic.images.shape[1:]
    high, wide = len(rows) * (height + GAP) - GAP, most * (width + GAP) - GAP
    if high * wide > MOST_PIXELS:
        raise BadInput(
            f"A picture of {len(rows)} classes with {most} images each would have {wide}×{high} pixels: "
            "choose how many of each with --images."
        )
    shown = torch.cat(rows)
    pixels, notes = pixels_of(synthetic, shown)
    sheet = torch.full((channels, high, wide), 255, dtype=torch.uint8)
    places = [(r, c) for r, row in enumerate(rows) for c in range(len(row))]
    for (row, column), image in zip(places, pixels, strict=True):
        top, left = row * (height + GAP), column * (width + GAP)
        sheet[:, top : top + height, left : left + width] = image
    if len(shown) < len(labels):
        notes.insert(0, f"it shows {len(shown)} of the set's {len(labels)} images.")
    return _plane(sheet), notes


def pixels_of(synthetic: SyntheticSet, some: Tensor | None = None) -> tuple[Tensor, list[str]]:
    """The set's images as (N, C, H, W) uint8 pixels, and in sentences how far they differ from its values.

    Args:
        some: indices; None: all.

    Raises:
        BadInput: they are neither grey nor of three colours.
    """
    images = synthetic.images.detach().cpu()
    images = images if some is None else images[some.cpu()]
    if images.shape[1] not in (1, 3):
        raise BadInput(f"Its images have {images.shape[1]} channels: files of images have 1 or 3.")
    if images.dtype == torch.uint8:
        return images, []
    pixels = synthetic.preprocessing.invert(images)
    again = synthetic.preprocessing.apply(pixels)
    # By half a step a value is rounded; what is further off lay outside of what a pixel can be.
    black, white = pixels == 0, pixels == 255
    exact = torch.equal(again, images)
    if exact:
        return pixels, []
    clamped = float((black | white).float().mean())
    furthest = float((again - images).abs().max())
    return pixels, [
        "its values are floats and were rounded to pixels of 8 bits, those below black or above white clamped: "
        f"{100 * clamped:.1f} % of the pixels are black or white at the end, and the furthest value moved by "
        f"{furthest:.3g} (as networks see it)."
    ]


def folder_names(classes: Sequence[str]) -> list[str]:
    """The folder of each class: its name where all of them can be names of folders, else its number."""
    if len({name.casefold() for name in classes}) == len(classes) and all(map(_is_safe, classes)):
        return list(classes)
    word = "class"
    while any(name.startswith(word) for name in classes):
        word += "_"
    return [f"{word}{number:04}" for number in range(len(classes))]


def _is_safe(name: str) -> bool:
    return (
        0 < len(name.encode(errors="replace")) <= LONGEST_CLASS
        and name == display(name, LONGEST_CLASS)
        and not re.search(r'[/\\:*?"<>|]', name)
        and name == name.strip(" .")
        and not name.startswith(("-", "~"))
    )


def _not_in_pictures(synthetic: SyntheticSet) -> list[str]:
    notes = []
    if synthetic.lr is not None:
        notes.append("pictures cannot hold its learning rate, which is not there.")
    if synthetic.labels.dim() == 2:
        notes.append("pictures cannot hold its soft labels: each image is where the largest of its label is.")
    return notes


def _own(tensor: Tensor) -> Tensor:
    """The numbers of a tensor alone, on the CPU: a view would be saved with all that it is a view of."""
    return tensor.detach().cpu().contiguous().clone()


def _saved(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def _plane(pixels: Tensor) -> NDArray[np.uint8]:
    """(C, H, W) as Pillow takes it: (H, W) or (H, W, 3)."""
    plane: NDArray[np.uint8] = (pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)).contiguous().numpy()
    return plane


def _png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _write_file(target: Path, content: bytes, overwrite: bool) -> None:
    if target.is_dir() or (target.exists() and not target.is_file()):
        raise BadInput(f"{str(target)!r} is no file, and stays as it is: choose another name.")
    try:
        with files.replacing(target, overwrite=overwrite) as part:
            part.write_bytes(content)
    except FileExistsError:
        raise _is_there(target) from None


def _write_folder(target: Path, members: Mapping[str, bytes], overwrite: bool) -> None:
    """A folder that is there as a whole: made beside, and then renamed. One that is replaced is moved away first."""
    if target.exists():
        if not overwrite:
            raise _is_there(target)
        if not target.is_dir() or (foreign := _foreign(target, members)):
            held = "no folder" if not target.is_dir() else f"a folder with other things in it: {foreign}"
            raise BadInput(f"{str(target)!r} is {held}. It stays as it is: choose another name.")
    with files.staging(target) as place:
        new, old = place / "new", place / "old"
        for name, content in members.items():
            path = new / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for folder in {new, *(path.parent for path in new.rglob("*.*"))}:
            files.sync_folder(folder)
        if target.exists():
            os.rename(target, old)
        try:
            os.rename(new, target)
        except OSError as error:
            if old.exists():
                os.rename(old, target)
            if target.exists():
                raise _is_there(target) from None
            raise error
        shutil.rmtree(old, ignore_errors=True)
    files.sync_folder(target.parent)


def _foreign(target: Path, members: Mapping[str, bytes]) -> str:
    """What is in a folder that no export has written; empty: nothing."""
    in_classes = all("/" in name for name in members)
    ours = re.compile(r"[^/]+/[0-9]{4,}\.png" if in_classes else "|".join(map(re.escape, (*TRIPLE, HEADER_FILE))))
    for path in sorted(target.rglob("*")):
        name = path.relative_to(target).as_posix()
        if path.is_symlink() or (not path.is_dir() and not ours.fullmatch(name)) or (path.is_dir() and "/" in name):
            return display(name, 60)
    return ""


def _is_there(target: Path) -> BadInput:
    return BadInput(f"{str(target)!r} is there already: choose another name, or add --overwrite.")
