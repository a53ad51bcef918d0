"""Experts on disk: networks trained on real images, all their weights on the way, and what they say of the images.

Whatever was trained in one way has a folder of its own, DAMBENCH_HOME/experts/KEY, named by all that the weights
depend on:

    NAME-SHA256.safetensors     `network`, `scores`, or the expert `0000`, `0001`, …; its header says what it is
    NAME-SHA256.intact          how that file looked when it was last found intact
    .used                       locked by all who use them, and alone by who deletes them
    .trained                    locked by who trains more of them

Locks are the kernel's, and end with their process. (On a disk that has none everybody goes ahead: two who train the
same write the same, or other last bits of it, of which the first found is used.)
"""

import errno
import fcntl
import json
import os
import shutil
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from dambench.core import files, reading
from dambench.core.errors import BadInput

MOST_EXPERT_HEADER = 100_000_000
"""Bytes, as the format says."""


class About(Struct, frozen=True, kw_only=True):
    """What the file of an expert says of it."""

    what: str
    """`trajectories`, `network` or `scores`."""
    dataset: str
    """As tables call it."""
    network: str
    """Its name; empty: it has none."""
    how: dict[str, Any]
    """How it was trained, what is not as usual."""
    epochs: int
    number: int = 0


class Pool(Struct, frozen=True, kw_only=True):
    """All that was trained in one way."""

    key: str
    about: About
    """What its first file says of itself."""
    count: int
    size_bytes: int
    used_at: float
    """When last, seconds since 1970."""


def folder(key: str) -> Path:
    return files.experts_folder() / key


def find(key: str, name: str) -> Iterator[Path]:
    """Files of that name, intact or not: there may be several, of other last bits."""
    yield from sorted(folder(key).glob(f"{name}-*.safetensors"))


def is_intact(path: Path) -> bool:
    """Whether a file still is what was written.

    Raises:
        OSError: it cannot be read.
    """
    return files.is_intact(path, path.stem.partition("-")[2])


def keep(key: str, name: str, content: bytes) -> Path:
    """Write a file.

    Raises:
        BadInput: it cannot be written.
    """
    path = folder(key) / f"{name}-{files.digest(content)}.safetensors"
    with files.writing("What was trained on the real images", path.parent, files.HOME_HINT):
        files.write_whole(path, content)
    return path


def remove(path: Path) -> None:
    """Remove a file that is damaged. If it cannot be, it stays."""
    for part in (path, path.with_suffix(".intact")):
        with suppress(OSError):
            part.unlink()


class Lock:
    """Held until it is released, or nobody has it any more."""

    def __init__(self, handle: int) -> None:
        self.release = weakref.finalize(self, os.close, handle)


def use(key: str) -> Lock:
    """A lock on what nobody deletes meanwhile.

    Raises:
        BadInput: the folder cannot be made.
    """
    with files.writing("What is trained on the real images", folder(key), files.HOME_HINT):
        folder(key).mkdir(parents=True, exist_ok=True)
        with suppress(OSError):  # they may be somebody else's
            os.utime(folder(key))
        lock = take_lock(folder(key) / ".used", fcntl.LOCK_SH)
    assert lock is not None
    return lock


def claim(key: str) -> Lock | None:
    """A lock that only one process has, for training; None: another one has it."""
    with files.writing("What is trained on the real images", folder(key), files.HOME_HINT):
        return take_lock(folder(key) / ".trained", fcntl.LOCK_EX | fcntl.LOCK_NB)


def take_lock(path: Path, how: int) -> Lock | None:
    """Lock a file as `fcntl.flock` does; None: another process, or this one, holds it in a way that excludes it.

    Raises:
        OSError: the file cannot be made.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    lock = Lock(handle)
    try:
        fcntl.flock(handle, how)
    except BlockingIOError:
        lock.release()
        return None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            lock.release()
            raise
    return lock


def listed() -> list[Pool]:
    """All that there is, last used first."""
    pools = []
    for place in files.experts_folder().glob("*"):
        kept = sorted(place.glob("*-*.safetensors")) if place.is_dir() else []
        about = next((about for path in kept if (about := _about(path))), None)
        if about is not None:
            size, used = sum(path.stat().st_size for path in kept), place.stat().st_mtime
            pools.append(Pool(key=place.name, about=about, count=len(kept), size_bytes=size, used_at=used))
    return sorted(pools, key=lambda pool: -pool.used_at)


def _about(path: Path) -> About | None:
    """What a file says of itself, without its tensors; None: it is damaged."""
    with (
        suppress(OSError, ValueError, KeyError, TypeError, RecursionError, msgspec.MsgspecError),
        reading.opened(path) as file,
    ):
        length = int.from_bytes(file.read(8), "little")
        if length <= MOST_EXPERT_HEADER:
            return msgspec.json.decode(json.loads(file.read(length))["__metadata__"]["dambench"], type=About)
    return None


def chosen(beginning: str) -> Pool:
    """The one whose key begins so.

    Raises:
        BadInput: there is none, or more than one.
    """
    pools = [pool for pool in listed() if beginning and pool.key.startswith(beginning)]
    if len(pools) != 1:
        how_many = "No experts have" if not pools else f"{len(pools)} kinds of experts have"
        raise BadInput(f"{how_many} a key that begins with {beginning!r}: `dambench experts list` shows the keys.")
    return pools[0]


def delete(pool: Pool) -> None:
    """Remove for good.

    Raises:
        BadInput: a run uses them, or they cannot be removed.
    """
    place = folder(pool.key)
    with files.writing("The experts' folder", place):
        lock = take_lock(place / ".used", fcntl.LOCK_EX | fcntl.LOCK_NB)
        if lock is None:
            raise BadInput(f"The experts {pool.key[:12]} are used by a run that goes on: stop it first.")
        shutil.rmtree(place)
        lock.release()
