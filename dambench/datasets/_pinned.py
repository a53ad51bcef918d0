"""Files whose content everybody knows: downloaded where they are missing, verified before anything parses them.

torchvision only downloads. The bytes that were verified are the bytes that are parsed: nothing can come between,
and torchvision's own reader of MNIST would prefer a folder `processed` that old releases made and nobody verifies.
"""

import errno
import hashlib
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

from dambench.core import files
from dambench.core.errors import BadInput
from dambench.core.sanitize import display

TIMEOUT = 15.0
"""Seconds without a byte after which a server is taken for unreachable."""
OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM}
KINDS = {32: ("md5", "MD5"), 64: ("sha256", "SHA-256")}
"""By the number of hexadecimal digits."""

Part = Mapping[str, object]


def place(data: Path | None) -> Path:
    """Give the folder of raw files, in the layout of torchvision's root: `data`, else DAMBENCH_HOME/raw."""
    return files.raw_folder() if data is None else data


def read(name: str, data: Path | None, digests: Mapping[str, str], kind: str, *parts: Part) -> dict[str, bytes]:
    """Read the bytes of each file, by its path.

    Args:
        digests: path below the place → MD5 or SHA-256.
        kind: the class of `torchvision.datasets` that downloads the files, into a folder of the same layout.
        parts: its keyword arguments for each part that is a download of its own; none: `train=False`.

    Raises:
        BadInput: a file is not what it should be, or is missing and cannot be downloaded.
    """
    folder = place(data)
    missing = files.missing_raw(folder, digests)
    for path in missing:
        if (folder / path).exists():
            raise BadInput(f"{str(folder / path)!r} is not a file: {name} needs one of that name.")
    if missing:
        what = f"{missing[0]!r} of {name}, which is not there and has to be downloaded,"
        with files.writing(what, folder, files.HOME_HINT):
            _download(name, folder, digests, missing, kind, parts or ({"train": False},))
    return {path: _verified(name, folder / path, digest) for path, digest in digests.items()}


def _download(
    name: str, folder: Path, digests: Mapping[str, str], missing: list[str], kind: str, parts: Sequence[Part]
) -> None:
    import torchvision.datasets  # takes a second, and is needed once

    folder.mkdir(parents=True, exist_ok=True)
    # What is here under its own name is whole: downloads and archives are elsewhere until they are verified.
    with TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
        try:
            # A progress bar belongs to stderr; torchvision's may go either way.
            with _impatient(), redirect_stdout(sys.stderr):
                for part in parts:
                    getattr(torchvision.datasets, kind)(temporary, download=True, **part)
        except Exception as error:  # urllib, http, ssl, gzip, tarfile and torchvision have a dozen kinds
            if isinstance(error, OSError) and error.errno in OF_THE_DISK:
                raise
            why = display(" ".join(str(getattr(error, "reason", error)).split()), 300)
            raise BadInput(
                f"{name} needs {str(folder / missing[0])!r}, which is not there and could not be downloaded "
                f"({why}): put it there, or say --data DIR with a folder that has {missing[0]!r}."
            ) from error
        for path in missing:
            _verified(name, Path(temporary) / path, digests[path])
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(Path(temporary) / path, folder / path)


def _verified(name: str, path: Path, digest: str) -> bytes:
    content = path.read_bytes()
    kind, called = KINDS[len(digest)]
    actual = hashlib.new(kind, content, usedforsecurity=False).hexdigest()
    if actual != digest:
        raise BadInput(
            f"{str(path)!r} is damaged, or is not the official file of {name}: its {called} is {actual}, not "
            f"{digest}. Delete it to have it downloaded again."
        )
    return content


@contextmanager
def _impatient() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
