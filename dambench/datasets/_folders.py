"""Files in class folders: listed, and recognised again without reading them. What is passed over becomes a note."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dambench.core.errors import BadInput
from dambench.core.sanitize import counted, display
from dambench.datasets import Labels

READING = 2
"""Version of how files become pixels. Raise it when that changes: what was prepared before is then made anew."""

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
"""Suffixes of files that must be images. Others are used if they are."""
LITTER = {"thumbs.db", "desktop.ini", "__macosx", "@eadir"}
"""What systems leave in folders, and nobody put there."""
DEEPEST = 30
"""Folders in each other, below a class's."""
HIDDEN = "Passed over as hidden"

Item = tuple[str, str]
"""A class and the path of one of its images. A text: to make 100,000 `Path`s takes a second, on each start."""


@dataclass
class Tally:
    """What befell files, with how many of each: what becomes notes."""

    root: Path
    """The notes name files as seen from here."""
    files: dict[str, list[str]] = field(default_factory=dict)

    def add(self, what: str, path: str) -> None:
        self.files.setdefault(what, []).append(path)

    def notes(self) -> list[str]:
        """A sentence for each."""
        return [f"{what}: {self._files(paths)}." for what, paths in self.files.items()]

    def _files(self, paths: list[str]) -> str:
        example = repr(display(os.path.relpath(paths[0], self.root), 100))
        return example if len(paths) == 1 else f"{len(paths)} files, {example} for one"


def place(name: str, data: Path | None, folder: str, holds: str) -> Path:
    """Where a dataset lies: `data` itself, or `folder` in it, so that one DAMBENCH_DATA serves several datasets.

    Args:
        holds: the file or folder by which it is recognised.

    Raises:
        BadInput: no place was given, or the files are in neither place.
    """
    if data is None:
        raise BadInput(
            f"The dataset {name} needs a folder: say --data DIR, with {holds} or {folder}/{holds} in it.", field="data"
        )
    if not data.is_dir():
        raise BadInput(
            f"--data {str(data)!r} is not a folder: {name} needs one with {holds} or {folder}/{holds} in it.",
            field="data",
        )
    for candidate in (data, data / folder):
        if (candidate / holds).exists():
            return candidate
    raise BadInput(
        f"--data {str(data)!r} does not have {name}: neither {holds} nor {folder}/{holds} is there.", field="data"
    )


def folders(part: Path, inside: Path | None = None) -> list[str]:
    """The names of the class folders of a part, sorted.

    Args:
        inside: where links may lead to; None: anywhere.
    """
    with os.scandir(part) as entries:
        subfolders = [entry for entry in entries if not _hidden(entry.name) and _is_folder(entry)]
    _stay(subfolders, inside)
    return sorted(entry.name for entry in subfolders)


def in_folder(folder: Path, inside: Path | None = None) -> list[str]:
    """The paths of the images of one folder, by their suffix, sorted by name."""
    with os.scandir(folder) as entries:
        images = [entry for entry in entries if not entry.name.startswith(".") and suffix(entry.name) in SUFFIXES]
    _stay(images, inside)
    for entry in images:
        _must_be_file(entry)
    return [os.path.join(folder, name) for name in sorted(entry.name for entry in images)]


def in_class_folders(part: Path, classes: Iterable[str], tally: Tally, inside: Path | None = None) -> list[Item]:
    """All files of these class folders and of the folders in them, class by class.

    Args:
        tally: hears of hidden ones.

    Raises:
        BadInput: a class has none, or there is what can be no image.
    """
    items = []
    for label in classes:
        paths = list(_below(part / label, tally, inside, (os.path.realpath(part / label),)))
        if not paths:
            raise empty(label, part)
        items += [(label, path) for path in paths]
    return items


def pass_over(part: Path, tally: Tally, all_files: bool) -> None:
    """Tell of what lies in a part beside its class folders.

    Args:
        all_files: or those only that look like images.
    """
    with os.scandir(part) as entries:
        entries_by_name = sorted(entries, key=lambda entry: entry.name)
    for entry in entries_by_name:
        if _left(entry.name):
            continue
        if entry.name.startswith("."):
            if all_files or suffix(entry.name) in SUFFIXES:
                tally.add(HIDDEN, entry.path)
        elif (all_files or suffix(entry.name) in SUFFIXES) and not _is_folder(entry):
            tally.add("Passed over, in no class folder", entry.path)


def empty(label: str, part: Path, others: int = 0) -> BadInput:
    """The error for a class folder without an image.

    Args:
        others: files in it that are none.
    """
    what = f" that dambench can read, only {counted(others, 'other file')}" if others else ""
    return BadInput(
        f"The class {display(label)!r} has no image in {str(part)!r}{what}: put some in its folder, or remove it."
    )


def _below(folder: Path | str, tally: Tally, inside: Path | None, above: tuple[str, ...]) -> Iterator[str]:
    """Files, sorted by name, folder by folder.

    Args:
        above: the true paths of the folders that this one is in: a link back to one of them would have no end.
    """
    with os.scandir(folder) as entries:
        everything = sorted(entries, key=lambda entry: entry.name)
    visible = [entry for entry in everything if not _hidden(entry.name)]
    for entry in everything:
        if entry.name.startswith(".") and not _left(entry.name):
            tally.add(HIDDEN, entry.path)
    _stay(visible, inside)
    for entry in visible:
        if not _is_folder(entry):
            _must_be_file(entry)
            yield os.path.join(folder, entry.name)
    for entry in visible:
        if _is_folder(entry):
            if len(above) > DEEPEST:
                raise BadInput(f"{entry.path!r} lies deeper than any image needs.")
            there = os.path.realpath(entry.path)
            if any(other == there or other.startswith(there + os.sep) for other in above):
                raise BadInput(f"{entry.path!r} is a link to a folder that it lies in: remove it.")
            yield from _below(entry.path, tally, inside, (*above, there))


def _hidden(name: str) -> bool:
    return name.startswith(".") or _left(name)


def _left(name: str) -> bool:
    """Whether a system left it there."""
    return name.casefold() in LITTER or name.startswith("._") or name == ".DS_Store"


def suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        raise BadInput(f"{entry.path!r} cannot be followed: {error.strerror}.") from None


def _must_be_file(entry: "os.DirEntry[str]") -> None:
    if not entry.is_file():  # opening a pipe would wait for ever
        what = "is a link that leads nowhere" if entry.is_symlink() else "is not a file"
        raise BadInput(f"{entry.path!r} {what}: only images belong in a class folder.")


def _stay(entries: Iterable["os.DirEntry[str]"], inside: Path | None) -> None:
    for entry in entries:
        if inside is not None and entry.is_symlink() and inside not in Path(os.path.realpath(entry.path)).parents:
            raise BadInput(f"{entry.path!r} is a link out of {str(inside)!r}: copy what it leads to instead.")


def fingerprint(items: Iterable[Item]) -> str:
    """Places, sizes and times: a changed file is noticed without reading any."""
    digest = hashlib.sha256(f"{READING}\n".encode())
    resolved: dict[str, str] = {}
    for label, path in items:
        folder, name = os.path.split(path)
        if folder not in resolved:
            resolved[folder] = os.path.realpath(folder)
        status = os.stat(path)
        # The time of the last change of any kind cannot be set back, as unpacking an archive sets the other.
        state = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        digest.update(os.fsencode(f"{resolved[folder]}\0{name}\0{label}\0{state}\n"))
    return digest.hexdigest()


def labels(items: Iterable[Item], classes: Sequence[str]) -> Labels:
    """(N,) positions in `classes`."""
    positions = {label: position for position, label in enumerate(classes)}
    return np.array([positions[label] for label, _ in items], np.int64)
