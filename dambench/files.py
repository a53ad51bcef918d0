"""Where big files live: prepared data and synthetic sets. Facts are rows of runs.db; tensors are files.

Everything lies under DAMBENCH_HOME:

    data/NAME-KEY.safetensors and .json     prepared datasets and what is known of them
    sets/SHA256.safetensors                 synthetic sets, named by their content

A file appears under its name only when it is whole and on disk.
"""

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dambench.errors import BadInput


def home() -> Path:
    """DAMBENCH_HOME, else `dambench` in the user's data folder."""
    if chosen := os.environ.get("DAMBENCH_HOME"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "dambench"


def data_folder() -> Path:
    return home() / "data"


def set_path(sha256: str) -> Path:
    return home() / "sets" / f"{sha256}.safetensors"


def find_set(sha256: str) -> Path | None:
    """The file of a set, if it is on this machine: a synthetic set, or a prepared dataset (the whole set)."""
    path = set_path(sha256)
    if path.is_file():
        return path
    for card in data_folder().glob("*.json"):
        if f'"{sha256}"' in card.read_text(errors="replace") and card.with_suffix(".safetensors").is_file():
            return card.with_suffix(".safetensors")
    return None


def sha256(path: Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal: the name of a file with this content."""
    return hashlib.sha256(content).hexdigest()


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that it is there whole or not at all, even after a power cut.

    A temporary file in the same folder, fsync, rename, fsync of the folder. What a killed process may leave
    behind is a temporary file (its name begins with a dot), which nothing reads.

    Raises:
        OSError: the disk is full, or the folder cannot be written; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def writing(what: str, where: Path) -> Iterator[None]:
    """Turns an OSError of the block into a sentence.

    Raises:
        BadInput: what could not be written, where, and why.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            why = "the disk is full. Free some space, or choose another folder with DAMBENCH_HOME"
        else:
            why = error.strerror or str(error)
        raise BadInput(f"{what} cannot be written in {str(where)!r}: {why}.") from error
