"""Zip archives from strangers: looked through before anything in them is unpacked, and nothing is unpacked to disk.

What an archive says of itself is only believed where it costs nothing: sizes bound how much is read, never how much
is reserved, and no name of a member becomes a path.
"""

import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy

from dambench.core import units
from dambench.core.errors import BadInput
from dambench.core.sanitize import display

Array = np.ndarray[Any, np.dtype[Any]]

MOST_MEMBERS = 200_000
MOST_NAME = 255
MOST_DEEP = 8
MOST_ARRAY_HEADER = 10_000
"""Bytes of the text that describes an array."""


@contextmanager
def opened(path: Path, most_bytes: int) -> Iterator[tuple[ZipFile, dict[str, ZipInfo]]]:
    """The archive and its files by name, all of which may be read.

    Args:
        most_bytes: that all files together may have, unpacked.

    Raises:
        BadInput: it could write outside of a folder, holds links, is locked, or is larger than that.
        zipfile.BadZipFile and others: it is no archive.
    """
    with ZipFile(path) as archive:
        infos = archive.infolist()
        size = sum(info.file_size for info in infos)
        if len(infos) > MOST_MEMBERS:
            raise BadInput(f"{str(path)!r} is refused: it has {len(infos)} files, and {MOST_MEMBERS} are the most.")
        if size > most_bytes:
            raise BadInput(
                f"{str(path)!r} would unpack to {len(infos)} files of {units.size(size)}, "
                f"but {units.size(most_bytes)} are the most that it can need or that there is room for."
            )
        for info in infos:
            if why := _wrong(info):
                raise BadInput(f"{str(path)!r} is refused: its member {display(info.orig_filename, 60)!r} {why}.")
        names = Counter(info.filename.removesuffix("/") for info in infos)
        members = {info.filename: info for info in infos if not info.is_dir()}
        folders = {name[:i] for name in names for i, letter in enumerate(name) if letter == "/"}
        twice = [name for name, count in names.items() if count > 1 or (name in members and name in folders)]
        if twice:
            raise BadInput(f"{str(path)!r} is refused: it has {display(twice[0], 60)!r} twice.")
        yield archive, members


def _wrong(info: ZipInfo) -> str:
    """Why a member is not to be touched; empty: it may be."""
    name = info.orig_filename
    if "\0" in name or "\\" in name or name[1:2] == ":":
        return "has a name with a NUL, a backslash or a drive letter"
    if name.startswith("/") or any(part in ("", ".", "..") for part in name.removesuffix("/").split("/")):
        return "has a name that leads out of its folder"
    if len(name) > MOST_NAME or name.count("/") > MOST_DEEP:
        return "has a longer name than any set needs"
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if info.flag_bits & 1:
        return "is encrypted"
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        return "is packed in another way than zip programs do by default"
    return ""


def read(archive: ZipFile, info: ZipInfo) -> bytes:
    """A member's bytes: as many as its entry says, and their checksum right."""
    with archive.open(info) as file:
        content = file.read(info.file_size + 1)
    if len(content) != info.file_size:
        raise ValueError(f"{info.filename} is cut off")
    return content


def names(path: Path, most_bytes: int) -> list[str]:
    """List all arrays of an .npz file. Raises as `arrays`."""
    with opened(path, most_bytes) as (_, members):
        return [name.removesuffix(".npy") for name in members]


def arrays(path: Path, chosen: Iterable[str], most_bytes: int) -> tuple[dict[str, Array], list[str]]:
    """Arrays of an .npz file, without pickles, and the names of all that it holds.

    Args:
        chosen: those that are read, as far as they are there.

    Raises:
        BadInput: as `opened`.
        Exception: zipfile, zlib and numpy have a dozen kinds for files that are damaged or hostile.
    """
    with opened(path, most_bytes) as (archive, members):
        named = {name.removesuffix(".npy"): info for name, info in members.items()}
        return {name: _array(archive, named[name]) for name in chosen if name in named}, list(named)


def _array(archive: ZipFile, info: ZipInfo) -> Array:
    name = info.filename.removesuffix(".npy")
    with archive.open(info) as file:
        if file.read(len(npy.MAGIC_PREFIX)) != npy.MAGIC_PREFIX:
            raise BadInput(f"In {str(archive.filename)!r}, {display(name)} is not an array.")
        version = tuple(file.read(2))
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{name} has version {version}")
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = header(file, max_header_size=MOST_ARRAY_HEADER)
        if dtype.hasobject:
            raise ValueError(f"{name} holds Python objects, which could run code")
        # Before anything is reserved: what the header claims must be there.
        size = prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or size != info.file_size - file.tell():
            raise ValueError(f"the header of {name} claims {size} bytes")
        content = file.read(size + 1)
    if len(content) != size:
        raise ValueError(f"{name} is cut off")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
