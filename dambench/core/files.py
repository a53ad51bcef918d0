"""Where big files live: prepared data and synthetic sets. Facts are rows of runs.db; tensors are files.

Everything lies under DAMBENCH_HOME:

    raw/                                    what was downloaded, as torchvision lays it out
    data/NAME-KEY.safetensors and .json     prepared datasets and what is known of them
    data/NAME-KEY.intact                    how the prepared file looked when it was last found intact
    data/zca-DATA-SHA256.safetensors        whitening fitted on the prepared dataset whose digest begins with DATA
    sets/SHA256.safetensors                 synthetic sets, named by their content
    sets/SHA256.imported                    says that somebody brought this one here, and what its file claims of it
    databases.jsonl                         the databases that were written with this home
    staging/NAME                            the path of a folder elsewhere in which something is being made
    runs/UID/SHA256.safetensors             checkpoints of a run that is not finished
    logs/NAME.log                           what detached runs wrote
    experts/KEY/NAME-SHA256.safetensors     networks trained on real images, named by all that they depend on
    nas/KEY/NETWORK.json                    what networks of a ranking came to, named by all but their architecture

A file appears under its name only when it is whole and on disk.
"""

import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from string import hexdigits
from typing import Literal

from dambench.core import reading
from dambench.core.errors import BadInput
from dambench.core.sanitize import display

PART = ".part"
"""How the name of a file ends that is being written."""

_SHA256 = re.compile("[0-9a-f]{64}")
_UID = re.compile("[0-9a-f]{32}")

LEFT_SECONDS = 60.0
"""For which a temporary file may be somebody's who did not lock it."""

_umask = threading.Lock()

HOME_HINT = ", or choose another folder with DAMBENCH_HOME"

SETTLED = 3_000_000_000
"""Nanoseconds after which a further change of a file shows in its times: the clocks of file systems tick up to 2 s."""

XDG = {
    "data": ("XDG_DATA_HOME", "~/.local/share"),
    "state": ("XDG_STATE_HOME", "~/.local/state"),
    "cache": ("XDG_CACHE_HOME", "~/.cache"),
    "config": ("XDG_CONFIG_HOME", "~/.config"),
}
"""Variables and what they are by default."""


def home() -> Path:
    """DAMBENCH_HOME, else `dambench` in the user's data folder.

    Raises:
        BadInput: it begins with a home that nobody knows, and would become a folder called ~.
    """
    chosen = os.environ.get("DAMBENCH_HOME")
    folder = user_path(chosen) if chosen else user_folder("data")
    if str(folder).startswith("~"):
        raise BadInput(f"Nobody knows which home is meant by {str(folder)!r}: choose a folder with DAMBENCH_HOME.")
    return folder


def user_folder(kind: Literal["data", "state", "cache", "config"]) -> Path:
    """Give the user's folder of that kind by XDG's variables, the same on every system."""
    variable, default = XDG[kind]
    return user_path(os.environ.get(variable) or default) / "dambench"


def user_path(text: str) -> Path:
    """A path as a person writes it: `~` is their home, where there is one.

    Raises:
        BadInput: no file can have such a name.
    """
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise BadInput(f"{display(text)!r} is not a path that can be kept: it must be UTF-8 without NUL characters.")
    return Path(os.path.expanduser(text))


def check_suffix(path: Path, suffixes: Iterable[str], what: str) -> None:
    """See that a file's name does not say something else than what will be in it. It need not have a suffix.

    Args:
        what: will be in it.

    Raises:
        BadInput: its suffix is none of these.
    """
    suffix = path.suffix.lower()
    if suffix and suffix not in suffixes:
        raise BadInput(
            f"{display(path.name, 60)!r} cannot be written: {what} has the suffix {' or '.join(suffixes)}, "
            f"not {display(suffix, 20)}."
        )


def check_folder(path: Path, what: str) -> None:
    """See that the folder is there in which somebody wants a file written.

    Raises:
        BadInput: it is not.
    """
    if not path.absolute().parent.is_dir():
        raise BadInput(f"{what} {str(path)!r} cannot be written: there is no such folder.")


def can_keep_sets() -> None:
    """See to it that a synthetic set can be kept at the end of a run.

    Raises:
        BadInput: it cannot.
    """
    folder = home() / "sets"
    with writing("Synthetic sets", folder, HOME_HINT):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def raw_folder() -> Path:
    """Where raw data are downloaded to, unless somebody says where they are."""
    return home() / "raw"


def missing_raw(folder: Path, names: Iterable[str], instead: str = "") -> list[str]:
    """The raw files of a dataset that are not in a folder.

    Args:
        instead: a file that holds what all of them do.
    """
    if instead and (folder.is_file() or (folder / instead).is_file()):
        return []
    return [name for name in names if not (folder / name).is_file()]


def data_folder() -> Path:
    return home() / "data"


def set_path(sha256: str) -> Path:
    """Where a set is kept.

    Raises:
        BadInput: that is no SHA-256: a database that comes from elsewhere may hold any text in its place.
    """
    if not _SHA256.fullmatch(sha256):
        raise BadInput(f"{display(sha256, 80)!r} is not the SHA-256 of a set: it has 64 digits from 0 to f.")
    return home() / "sets" / f"{sha256}.safetensors"


def sets(beginning: str) -> list[str]:
    """The SHA-256 of the kept sets that begin so, sorted; a whole one is found whether it is kept or not.

    Args:
        beginning: hexadecimal.
    """
    if len(beginning) == 64:
        return [beginning]
    return sorted(path.stem for path in (home() / "sets").glob(f"{beginning}*.safetensors") if len(path.stem) == 64)


def mark_imported(sha256: str, content: bytes = b"") -> None:
    """Note that a set was brought here by somebody: whichever runs are thrown away, it stays.

    Args:
        content: what the note says besides.
    """
    write_whole(set_path(sha256).with_suffix(".imported"), content)


def is_imported(sha256: str) -> bool:
    return set_path(sha256).with_suffix(".imported").exists()


def import_mark(sha256: str) -> bytes:
    """The content of the note that a set was brought here.

    Raises:
        OSError: it cannot be read.
    """
    return reading.content(set_path(sha256).with_suffix(".imported"))


def _databases_path() -> Path:
    return home() / "databases.jsonl"


def databases() -> list[Path]:
    """Those that were written with this home, by their absolute paths, also if they are not there any more."""
    paths: dict[str, None] = {}
    with suppress(OSError):
        for line in reading.content(_databases_path()).splitlines():
            with suppress(ValueError):
                if isinstance(path := json.loads(line), str):
                    paths[path] = None
    return [Path(path) for path in paths]


def note_database(path: Path) -> None:
    """Add one to `databases`. Where that cannot be, nothing is said: it is needed by `dambench db purge` alone."""
    real = Path(os.path.realpath(path))
    with suppress(OSError, BadInput):
        if real in databases():
            return
        home().mkdir(parents=True, exist_ok=True)
        how = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        handle = os.open(_databases_path(), how, 0o666)
        try:
            os.write(handle, json.dumps(str(real)).encode() + b"\n")  # at once: others may do the same
        finally:
            os.close(handle)


def forget_databases(gone: set[Path]) -> None:
    with writing("The list of databases", home()):
        lines = [json.dumps(str(path)) + "\n" for path in databases() if path not in gone]
        write_whole(_databases_path(), "".join(lines).encode())


def run_folder(uid: str) -> Path:
    """Where a run's checkpoints are.

    Raises:
        BadInput: no run is called so.
    """
    if not _UID.fullmatch(uid):
        raise BadInput(f"The run's uid is {display(uid, 80)!r}: no dambench has given it.")
    return home() / "runs" / uid


def log_folder() -> Path:
    return home() / "logs"


def own_log(path: str) -> Path | None:
    """A run's log, where it is one that we wrote: a run that came from elsewhere may name any file."""
    log = Path(path) if path and "\0" not in path else None
    return log if log and log.parent == log_folder() and log.suffix == ".log" and not log.is_symlink() else None


def remove_others(folder: Path, kept: set[str]) -> None:
    """Remove every file of a folder but those, and the folder once it is empty. What cannot be removed stays."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.name not in kept:
                with suppress(OSError):
                    path.unlink()
        if not kept:
            folder.rmdir()


def whitening_path(data_sha256: str, sha256: str) -> Path:
    return data_folder() / f"zca-{data_sha256[:16]}-{sha256}.safetensors"


def whitenings(data_sha256: str) -> list[Path]:
    """Those fitted on a prepared dataset, if there are any."""
    return sorted(data_folder().glob(f"zca-{data_sha256[:16]}-*.safetensors"))


def find_whitening(sha256: str) -> Path | None:
    """Find the whitening of a digest, which may come from a stranger's file."""
    if len(sha256) != 64 or not set(sha256) <= set(hexdigits):
        return None
    return next(data_folder().glob(f"zca-*-{sha256}.safetensors"), None)


def teacher_path(sha256: str) -> Path:
    """The place of a network that labels sets. The digest may come from a stranger's file, and then leads nowhere."""
    return home() / "teachers" / f"{sha256 if _SHA256.fullmatch(sha256) else 'none'}.safetensors"


def experts_folder() -> Path:
    return home() / "experts"


def find_set(sha256: str) -> Path | None:
    """The file of a set, if it is on this machine: a synthetic set, or a prepared dataset (the whole set)."""
    if _SHA256.fullmatch(sha256) and (path := set_path(sha256)).is_file():
        return path
    return prepared().get(sha256)


def prepared() -> dict[str, Path]:
    """The tensor files of the prepared datasets, by the SHA-256 that they should have."""
    by_digest = {}
    for card in data_folder().glob("*.json"):
        tensors = card.with_suffix(".safetensors")
        with suppress(OSError, ValueError, TypeError, KeyError):  # what is no card is passed over
            if tensors.is_file():
                by_digest[str(json.loads(reading.content(card))["sha256"])] = tensors
    return by_digest


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with reading.opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal: the name of a file with this content."""
    return hashlib.sha256(content).hexdigest()


def is_intact(path: Path, expected: str) -> bool:
    """Whether a file has that SHA-256.

    Reading gigabytes for their checksum takes seconds: what a file looked like when it was found intact is kept beside
    it (NAME.intact), and a file that still looks so is not read again.

    Raises:
        OSError: it cannot be read.
    """
    note, looks = path.with_suffix(".intact"), _looks(path)
    content = f"{expected} {looks}".encode()
    with suppress(OSError):
        if reading.content(note) == content:
            return True
    if sha256(path) != expected:
        return False
    # Of two changes within one tick of the clock the second cannot be seen: what is that new is not relied on.
    status = path.stat()
    if _looks(path) == looks and time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > SETTLED:
        with suppress(OSError):  # it can be done without
            write_whole(note, content)
    return True


def _looks(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def room(path: Path) -> int:
    """Bytes that are free on the disk that a path lies on, or would if it were made."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that it is there whole or not at all, even after a power cut.

    Raises:
        OSError: the disk is full, or the folder cannot be written; nothing is left behind. Or something else than a
            file has that name: /dev/null would no longer be what it was.
    """
    if reading.is_no_file(path):
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, part.open("wb") as file:
        file.write(content)


@contextmanager
def replacing(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """A file that takes the place of another, whole, once the block has written it.

    A temporary file in the same folder, fsync, rename, fsync of the folder. What a killed process may leave behind is
    a temporary file (PART), which nothing reads: the next who writes the same file removes it, and `dambench db purge`.

    Args:
        overwrite: else what has come under that name meanwhile stays.

    Yields:
        Its name until then: an empty file.

    Raises:
        FileExistsError: there is one, and it is not to be overwritten.
        OSError: it cannot be written; nothing is left behind.
    """
    folder, prefix = path.absolute().parent, f".{path.name[:40]}."
    for left in folder.glob(f"{glob.escape(prefix)}*{PART}*"):
        if is_left(left):
            left.unlink(missing_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, prefix=prefix, suffix=PART)
    part = Path(name)
    try:
        with suppress(OSError):  # not every disk has locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield part
        os.fchmod(handle, path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~umask())
        os.fsync(handle)
        if overwrite:
            os.replace(part, path)
        else:
            os.link(part, path)
    finally:
        os.close(handle)
        for left in folder.glob(f"{glob.escape(part.name)}*"):  # SQLite has files beside
            left.unlink(missing_ok=True)
    sync_folder(folder)


@contextmanager
def staging(target: Path) -> Iterator[Path]:
    """A folder beside a target, in which that is made; removed in the end.

    It is noted under DAMBENCH_HOME until then, so that `dambench db purge` knows it should the process be killed.
    """
    folder = target.absolute().parent
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{target.name[:40]}.", suffix=PART) as place:
        note = _staging_folder() / Path(place).name
        with suppress(OSError, BadInput):
            write_whole(note, os.fsencode(place))
        try:
            yield Path(place)
        finally:
            with suppress(OSError, BadInput):
                note.unlink()


def staged() -> dict[Path, Path]:
    """By its note, each folder in which something is being made, or was when the process was killed."""
    folders = {}
    for note in _staging_folder().glob("*"):
        with suppress(OSError):
            place = Path(os.fsdecode(reading.content(note)))
            if place.is_absolute() and place.name == note.name:
                folders[note] = place
    return folders


def _staging_folder() -> Path:
    return home() / "staging"


def is_left(part: Path) -> bool:
    """Whether a temporary file was left by a process that was killed: nobody has it locked, or writes to it."""
    with suppress(OSError):
        if time.time() - part.stat().st_mtime < LEFT_SECONDS:
            return False
        handle = os.open(part, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        finally:
            os.close(handle)
    return False


def umask() -> int:
    """What new files are not to be: as the user has it."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    with _umask:  # it can only be read by being set
        mask = os.umask(0o077)
        os.umask(mask)
    return mask


def sync_folder(folder: Path) -> None:
    """See to it that the names in a folder outlive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def writing(what: str, where: Path, instead: str = "") -> Iterator[None]:
    """Turns an OSError of the block into a sentence.

    Args:
        instead: what else can be done when the disk is full.

    Raises:
        BadInput: what could not be written, where, and why.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            why = f"the disk is full. Free some space{instead}"
        else:
            why = error.strerror or str(error)
        raise BadInput(f"{what} cannot be written in {str(where)!r}: {why}.") from error
