"""A journal: the truth of a database whose disk is a network disk, as files that are only ever appended to.

SQLite's files cannot be shared there. So the database itself is never written, and beside it is a folder:

    runs.db.d/UID.N.jsonl           what the N-th process of a run said, and nobody else writes there
    runs.db.d/edits-TOKEN.jsonl     what one process changed about runs
    runs.db.d/queue-TOKEN.jsonl     what one process queued at once, or changed about what is queued
    runs.db.d/taken-UID.N.jsonl     which worker has taken a queued run for the N-th time

A line is whole or not yet there. Each host makes an index of them, which is an ordinary database, on a disk of its own.
"""

import errno
import os
import re
import secrets
import stat
import tempfile
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from dambench.core import files, reading
from dambench.core.errors import BadInput, Gone, NotKept
from dambench.core.filesystem import disk_of
from dambench.store import database
from dambench.store.version import VERSION

_WORDS = re.compile(r"([0-9a-f]{32})\.([1-9][0-9]{0,5})\.jsonl")
_EDITS = re.compile(r"edits-[0-9a-f]{32}\.jsonl")
_QUEUE = re.compile(r"queue-[0-9a-f]{32}\.jsonl")
_TAKEN = re.compile(r"taken-[0-9a-f]{32}\.[1-9][0-9]{0,5}\.jsonl")

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class FileState(NamedTuple):
    """The size and the time of a file when it was looked at."""

    size: int
    changed_ns: int


class AlreadyBegun(NotKept):
    """Another process was faster: the file is its own."""


def folder(path: Path) -> Path:
    """The journal of a database."""
    return path.parent / f"{path.name}.d"


def attempt_file_name(uid: str, attempt: int) -> str:
    return f"{uid}.{attempt}.jsonl"


def parse_attempt_file_name(name: str) -> tuple[str, int] | None:
    """The run and the attempt whose words a file holds; None: it holds no words."""
    match = _WORDS.fullmatch(name)
    return (match[1], int(match[2])) if match else None


def is_edits_file(name: str) -> bool:
    return bool(_EDITS.fullmatch(name))


def queue_file_name() -> str:
    """The name of a new file about the queue."""
    return f"queue-{secrets.token_hex(16)}.jsonl"


def taken_file_name(uid: str, attempt: int) -> str:
    return f"taken-{uid}.{attempt}.jsonl"


def is_taken_file(name: str) -> bool:
    return bool(_TAKEN.fullmatch(name))


def is_about_the_queue(name: str) -> bool:
    return bool(_QUEUE.fullmatch(name)) or is_taken_file(name)


def network_disk_reason(path: Path) -> str | None:
    """The reason why the truth of this database is a journal; None: it is an ordinary database.

    Raises:
        BadInput: DAMBENCH_DISK is neither of what it can be.
    """
    chosen = os.environ.get("DAMBENCH_DISK", "")
    if chosen not in ("", "local", "network"):
        raise BadInput(f"DAMBENCH_DISK is {chosen!r}: it can be local, network, or not set (then it is looked up).")
    if chosen:
        return "DAMBENCH_DISK=network" if chosen == "network" else None
    disk = disk_of(path.absolute().parent)
    if disk.why:
        return f"{disk}: {disk.why}"
    # On the file server itself the same disk is a local one.
    return f"{str(folder(path))!r} is there" if folder(path).is_dir() else None


def check(path: Path) -> None:
    """See to it that a run could be recorded, and change nothing but make the index's folder.

    Raises:
        BadInput: the folder cannot be written, what lies under the database's name is not ours, or there is no local
            disk for the index.
    """
    place = folder(path).absolute()
    existing = place if place.exists() else place.parent
    if not existing.is_dir():
        raise BadInput(f"The database {str(path)!r} cannot be made: there is no folder {str(existing)!r}.")
    if not os.access(existing, os.W_OK):
        raise BadInput(f"The database {str(path)!r} cannot be made: {str(existing)!r} may not be written.")
    if path.exists():
        database.identify(path)
    index_path(path)


def index_path(path: Path) -> Path:
    """The file of this host's index of the journal: a file of the user's cache, or where that is on a network disk too,
    of the system's folder for temporary files, or of its memory.

    Raises:
        BadInput: none of these is on a local disk.
    """
    # Two containers may have different disks at one place: the folder's number tells them apart.
    identity = [os.path.realpath(path)]
    with suppress(OSError):
        identity.append(str(folder(path).stat().st_ino))
    identifier = blake2b("\n".join(identity).encode(errors="surrogateescape"), digest_size=16).hexdigest()
    name = f"{identifier}.{VERSION}.db"
    cache = files.user_folder("cache") / "index"
    own = f"dambench-{os.getuid()}"
    for place in (cache, Path(tempfile.gettempdir()) / own, Path("/dev/shm") / own):
        if place.is_absolute() and not disk_of(place).why and _is_ours(place):
            return place / name
    raise BadInput(
        f"The database {str(path)!r} is on a network disk, and no local one was found for its index: "
        "choose a folder with XDG_CACHE_HOME."
    )


def _is_ours(place: Path) -> bool:
    """Tell whether the folder, which is made if need be, is the user's alone: others too may write where it lies."""
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = place.lstat()
    except OSError:
        return False
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        return False
    if status.st_mode & 0o077:
        with suppress(OSError):
            place.chmod(0o700)
    return os.access(place, os.W_OK)


class Journal:
    """The files beside one database."""

    def __init__(self, path: Path):
        self.path = path
        self.folder = folder(path)
        self.edits = f"edits-{secrets.token_hex(16)}.jsonl"
        """This process's own, once it is made."""
        self.queue = queue_file_name()
        """The same, for what it changes about the queue."""
        self._open: dict[str, int] = {}
        self._inode = self._inode_now()

    def _inode_now(self) -> int:
        """The number of the folder; 0: there is none."""
        with suppress(FileNotFoundError):
            return self.folder.stat().st_ino
        return 0

    def check_there(self) -> None:
        """See that the folder is still the one that was there at first.

        Raises:
            Gone: it is not, now and for ever.
        """
        now = self._inode_now()
        if self._inode not in (0, now):
            became = "another folder has been put in its place" if now else "it was removed or renamed"
            raise Gone(f"The journal {str(self.folder)!r} is not there any more: {became}.", readable=True)
        self._inode = now

    def close(self) -> None:
        for handle in self._open.values():
            os.close(handle)
        self._open.clear()

    def look(self, names: set[str] | None = None) -> dict[str, FileState]:
        """Look at the files of these names, or at all."""
        states = {}
        with suppress(FileNotFoundError):
            for name in names if names is not None else os.listdir(self.folder):
                if parse_attempt_file_name(name) or is_edits_file(name) or is_about_the_queue(name):
                    with suppress(FileNotFoundError):
                        now = os.stat(self.folder / name)
                        states[name] = FileState(now.st_size, now.st_mtime_ns)
        return states

    def base(self) -> str:
        """The looks of the database itself, which is only read; empty: there is none."""
        parts = []
        for path in (self.path, self.path.with_name(f"{self.path.name}-wal")):
            with suppress(FileNotFoundError):
                now = path.stat()
                parts.append(f"{now.st_size} {now.st_mtime_ns}")
        return ", ".join(parts) if self.path.exists() else ""

    def read(self, name: str, offset: int = 0) -> tuple[list[bytes], int]:
        """The whole lines of a file from there on, and where they end. The last one may not be whole yet."""
        with reading.opened(self.folder / name) as file:
            file.seek(offset)
            content = file.read()
        content = content[: content.rfind(b"\n") + 1]
        return content.split(b"\n")[:-1], offset + len(content)

    def first(self, name: str) -> bytes:
        """The first line of a file; empty: it is not whole yet."""
        with reading.opened(self.folder / name) as file:
            line = file.readline()
        return line[:-1] if line.endswith(b"\n") else b""

    def begin(self, name: str, content: bytes) -> None:
        """Make a file with these lines, as the only one who may ever write to it.

        Raises:
            AlreadyBegun: it is there already.
            OSError: it cannot be written.
        """
        new = not self.folder.exists()
        self.folder.mkdir(exist_ok=True)
        target = self.folder / name
        handle, part = tempfile.mkstemp(dir=self.folder, prefix=".", suffix=".part")
        try:
            os.fchmod(handle, 0o666 & ~files.umask())
            _write(handle, content)
            _link(part, target, content)
        finally:
            os.close(handle)
            Path(part).unlink(missing_ok=True)
        files.sync_folder(self.folder)
        if new:
            files.sync_folder(self.folder.absolute().parent)

    def append(self, name: str, content: bytes) -> None:
        """Add whole lines to a file that was begun; they are on disk before this returns.

        Raises:
            OSError: they could not be written, and are not there.
            Gone: the file was removed, renamed or replaced.
        """
        if name not in self._open:
            self._open[name] = os.open(self.folder / name, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        handle = self._open[name]
        size = os.fstat(handle).st_size
        torn = size and os.pread(handle, 1, size - 1) != b"\n"
        _write(handle, b"\n" * bool(torn) + content)
        with suppress(FileNotFoundError):
            if (self.folder / name).stat().st_ino == os.fstat(handle).st_ino:
                return
        self.check_there()
        raise Gone(f"The journal {str(self.folder / name)!r} is not there any more.", readable=True)

    def touch(self, name: str) -> None:
        """A sign of life: the time when the file was last changed is now."""
        os.utime(self.folder / name)


def _write(handle: int, content: bytes) -> None:
    """At the end of a file: all of it, or nothing."""
    size = os.fstat(handle).st_size
    try:
        os.lseek(handle, 0, os.SEEK_END)
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    except OSError:
        with suppress(OSError):
            os.ftruncate(handle, size)
        raise


def _link(part: str, target: Path, content: bytes) -> None:
    """Give a file its name, which nobody else may have given another: with all its lines, at once."""
    try:
        os.link(part, target)
    except FileExistsError:
        # Where the server's answer was lost, the question was asked again: then it is there already, and ours.
        if not os.path.samefile(part, target):
            raise AlreadyBegun(f"Another process has made {str(target)!r}.") from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        try:
            handle = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            raise AlreadyBegun(f"Another process has made {str(target)!r}.") from None
        try:
            _write(handle, content)
        finally:
            os.close(handle)
