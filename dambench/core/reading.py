"""Reading what somebody names: without waiting for it, and no further than is sensible.

To open a named pipe waits until somebody writes to it, to read a terminal until somebody types, and to read `/dev/zero`
for ever.
"""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

MOST_TEXT = 16_000_000
"""Bytes of a text that we wrote ourselves, such as what is known of a dataset."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def opened(path: Path) -> BufferedReader:
    """Open a file to read.

    Raises:
        OSError: it cannot be read, or is no plain file: its `strerror` says so.
    """
    return os.fdopen(handle(path), "rb")


def handle(path: Path) -> int:
    """The same, for whoever sees to the closing.

    Raises:
        OSError: as `opened`.
    """
    _see(os.stat(path), path)  # to open a device can already do something
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _see(os.fstat(handle), path)  # it may have been replaced since
    except BaseException:
        os.close(handle)
        raise
    return handle


def content(path: Path, most: int = MOST_TEXT) -> bytes:
    """All that is in a file.

    Raises:
        OSError: as `opened`; or there are more bytes than `most`.
    """
    with opened(path) as file:
        read = file.read(most + 1) or b""
        if len(read) > most:
            size = max(len(read), os.fstat(file.fileno()).st_size)
            raise OSError(errno.EFBIG, f"it has {size} bytes, and {most} are the most", str(path))
    return read


def is_no_file(path: Path) -> bool:
    """Whether something has that name which is no plain file. Asked once: a file may go between two questions."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _see(status: os.stat_result, path: Path) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise OSError(errno.EINVAL, f"it is {_KINDS.get(kind, 'something else')}, and a file is needed", str(path))
