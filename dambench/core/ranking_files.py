"""Trained networks of a ranking on disk: which of the held-out images each one recognises.

Whatever was trained in one way, on the same images, has a folder of its own, DAMBENCH_HOME/nas/KEY, named by all that
its networks depend on but their architecture:

    about.json      what that is, for people
    NETWORK.json    what a network came to; its weights are not kept
    .NETWORK        locked by who trains it

So the networks that were trained on real images are shared by all sets of a dataset, and none is trained twice. Who
was interrupted goes on with the next one.
"""

import fcntl
import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from dambench.core import files, reading
from dambench.core.expert_files import Lock, take_lock

MOST_BYTES = 10_000_000
"""Bytes of the file of a network."""


class TrainedNetwork(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What training a network came to."""

    diverged: bool
    """Whether its outputs are no numbers."""
    images: int
    """How many the held-out part has."""
    hits: str
    """Which of them it recognises: a bit for each, the first one the highest, as hexadecimal digits."""
    seconds: float
    """What training it and looking at those images took: on a CPU the thread's own time, whatever ran beside it."""
    device: str

    def recognised(self) -> list[bool]:
        """Tell of each held-out image whether it is recognised."""
        bits = bin(int(self.hits or "0", 16))[2:].zfill(self.images)
        return [bit == "1" for bit in bits]


def as_hits(recognised: list[bool]) -> str:
    """The bits of held-out images as hexadecimal digits."""
    return f"{int(''.join('1' if hit else '0' for hit in recognised) or '0', 2):x}"


def key_of(about: Mapping[str, object]) -> str:
    """The name of the folder of all that was trained in this way."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]


def folder(key: str) -> Path:
    return files.home() / "nas" / key


def find(key: str, network: str) -> TrainedNetwork | None:
    """What is kept of a network; None: nothing, or it is damaged."""
    path = folder(key) / f"{network}.json"
    with suppress(OSError, msgspec.MsgspecError, ValueError, RecursionError), reading.opened(path) as file:
        content = file.read(MOST_BYTES)
        found = msgspec.json.decode(content, type=TrainedNetwork)
        if found.images > 0 and found.seconds >= 0 and 0 <= int(found.hits or "0", 16) < 1 << found.images:
            return found
    return None


def keep(key: str, network: str, trained: TrainedNetwork, about: Mapping[str, object]) -> None:
    """Write what a network came to, and free its lock.

    Raises:
        BadInput: it cannot be written.
    """
    with files.writing("What a network of a ranking came to", folder(key), files.HOME_HINT):
        if not (folder(key) / "about.json").exists():
            files.write_whole(folder(key) / "about.json", json.dumps(about, sort_keys=True, indent=1).encode())
        files.write_whole(folder(key) / f"{network}.json", msgspec.json.encode(trained))
    # Who waits for the lock has opened it, and will find the network trained; who comes later does not ask for it.
    with suppress(OSError):
        (folder(key) / f".{network}").unlink()


def claim(key: str, network: str) -> Lock | None:
    """A lock that only one has, for training a network; None: another one trains it.

    Raises:
        BadInput: the folder cannot be made.
    """
    with files.writing("What networks of a ranking come to", folder(key), files.HOME_HINT):
        folder(key).mkdir(parents=True, exist_ok=True)
        return take_lock(folder(key) / f".{network}", fcntl.LOCK_EX | fcntl.LOCK_NB)
