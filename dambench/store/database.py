"""An SQLite file of ours: made, opened, brought up to date. What is not ours is refused, and stays as it is.

SQLite 3.7.0 to 3.51.2 can lose or damage data where two connections write or fold in the log at the same time (its
WAL-reset race). So whoever writes holds a lock on a file beside the database, for each transaction; those who read
cannot fold in the log.

A log belongs to one file. Where a file of that name was replaced (`git checkout`, `cp`, `mv`), SQLite would take the
log of the old one for the new one's. So the lock's file says how the database looked when it was last let go.
"""

import fcntl
import os
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from contextvars import ContextVar
from itertools import count, takewhile
from pathlib import Path
from urllib.parse import quote

from dambench.core import files, reading
from dambench.core.errors import BadInput, Gone, Held, NotKept
from dambench.store.connection import Database
from dambench.store.version import APPLICATION_ID, VERSION

WAIT_SECONDS = 30.0
"""For another writer to be done. SQLite's waiting is not fair, so it must be long."""

SPEAK_SECONDS = 2.0
"""After which whoever waits is told why."""

TRY_EVERY = 0.002
"""Seconds between two tries to get the lock: a transaction takes about as long."""

MOST_HANDLES = 100
"""Files whose headers were read that stay open; no process has connections to nearly as many databases."""

BUSY_MS = 100
"""For which SQLite itself waits for another program's transaction, each time that it is asked."""

voice: ContextVar[Callable[[str], None]] = ContextVar("voice", default=lambda text: None)
"""Hears why one waits; each thread has its own."""

_looked_at: dict[tuple[int, int], int] = {}
"""Their handles, by device and inode, the last one used at the end."""

_looking = threading.Lock()


def check(path: Path) -> None:
    """See to it that a run could be recorded in this file, and change nothing.

    Raises:
        BadInput: it is not a database of dambench, a newer dambench made it, it is damaged, or it (or the folder
            where it would be made) cannot be written.
    """
    try:
        exists = path.exists()
    except OSError as error:
        raise BadInput(f"The database {str(path)!r} cannot be reached: {error.strerror}.") from None
    if not exists:
        if path.is_symlink():
            raise BadInput(f"The database {str(path)!r} cannot be made: it is a link that leads nowhere.")
        folder = path.absolute().parent
        if not folder.is_dir():
            raise BadInput(f"The database {str(path)!r} cannot be made: there is no folder {str(folder)!r}.")
        if not os.access(folder, os.W_OK):
            raise BadInput(f"The database {str(path)!r} cannot be made: {str(folder)!r} may not be written.")
        return
    identify(path)
    # SQLite writes journals beside the file.
    if not (os.access(path, os.W_OK) and os.access(path.absolute().parent, os.W_OK)):
        raise BadInput(f"The database {str(path)!r} may only be read: choose another with --db or DAMBENCH_DB.")


def identify(path: Path) -> int:
    """See that the file is a database of dambench that this dambench knows, without changing or adding a file.

    Returns:
        Its schema, as far as the header of the file tells: its log may hold more.

    Raises:
        BadInput: it is not.
    """
    try:
        header = _header(path)
        size = path.stat().st_size
    except OSError as error:
        raise BadInput(f"The database {str(path)!r} cannot be read: {error.strerror}.") from None
    for ending in ("-wal", "-shm", "-journal"):  # SQLite opens what is there
        beside = path.with_name(f"{path.name}{ending}")
        if reading.is_no_file(beside):
            raise BadInput(f"The database {str(path)!r} cannot be read: {str(beside)!r} is not a file.")
    if not size:
        raise BadInput(f"{str(path)!r} is an empty file, not a database: remove it, or choose another with --db.")
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0") or _field(header, 68) != APPLICATION_ID:
        raise BadInput(f"{str(path)!r} is not a database of dambench: choose another with --db or DAMBENCH_DB.")
    page = int.from_bytes(header[16:18], "big")
    # While the log is folded in, or after a kill in the midst of that, the file's end is still in the log.
    if size < _field(header, 28) * (65536 if page == 1 else page) and not _has_log(path):
        raise BadInput(f"The database {str(path)!r} is damaged: its end is missing.")
    version = _field(header, 60)
    _check_version(path, version)
    return version


def _has_log(path: Path) -> bool:
    with suppress(OSError):
        return path.with_name(f"{path.name}-wal").stat().st_size > 0
    return False


def _header(path: Path) -> bytes:
    """The first 100 bytes.

    Whoever closes a file takes away all POSIX locks that his process has on it, those of SQLite's connections, too;
    another process that closes its connection then thinks it is the last one, and removes the log that is still
    written to. So the handles stay open.
    """
    with _looking:
        status = path.stat()
        handle = _looked_at.pop((status.st_dev, status.st_ino), None)
        if handle is None:
            handle = reading.handle(path)
            status = os.fstat(handle)  # it may have been replaced since
        _looked_at[status.st_dev, status.st_ino] = handle
        if len(_looked_at) > MOST_HANDLES:
            os.close(_looked_at.pop(next(iter(_looked_at))))
        return os.pread(handle, 100, 0)


def _field(header: bytes, offset: int) -> int:
    return int.from_bytes(header[offset : offset + 4], "big")


def _check_version(path: Path, version: int) -> None:
    if version > VERSION:
        raise BadInput(
            f"The database {str(path)!r} has schema {version}, this dambench knows {VERSION}: "
            "a newer dambench made it; update dambench."
        )


class Connection(Database):
    """One that knows which files it has open."""

    file: tuple[int, int] | None = None
    """Device and inode of the database; None: it is none on a disk."""
    log: int = 0
    """Inode of its log; 0: not known yet."""
    gone: Gone | None = None
    """Nothing may be written any more, for this reason."""
    aside: Path | None = None
    """Where its log is now, which would have been taken for another file's."""


def connect(path: Path, mode: str) -> Connection:
    """A plain connection, nothing looked at.

    Args:
        mode: of the URI: `mode=ro`, `mode=rw`.
    """
    connection = sqlite3.connect(
        f"file://{quote(os.path.abspath(path))}?{mode}", uri=True, timeout=WAIT_SECONDS, isolation_level=None
    )
    try:
        db = _prepared(connection)
    except BaseException:
        connection.close()  # or what it knows of the log would be taken for the next one's
        raise
    with suppress(OSError):
        status = path.stat()
        db.file = status.st_dev, status.st_ino
    return db


def _prepared(connection: sqlite3.Connection) -> Connection:
    connection.row_factory = sqlite3.Row
    for pragma in ("foreign_keys = on", "synchronous = full", "mmap_size = 0", "trusted_schema = off"):
        connection.execute(f"pragma {pragma}")
    return Connection(connection)


def _open(path: Path, mode: str) -> Connection:
    """Connect, and see that it is whole: the log may hold more than the file's header told."""
    db = connect(path, mode)
    try:
        _check_version(path, version(db))
        ours = "select count(*) from sqlite_master where name in ('runs', 'events', 'scores')"
        if db.conn.execute(ours).fetchone()[0] != 3:
            raise BadInput(f"The database {str(path)!r} is damaged: its tables are missing.")
    except BaseException:
        db.close()
        raise
    return db


def version(db: Database) -> int:
    """The number of its schema."""
    return int(db.conn.execute("pragma user_version").fetchone()[0])


def open_to_read(path: Path) -> Database:
    """Connect to look at it; nothing is written, not even by SQLite itself.

    A file of an older schema is looked at in memory, brought up to date there.
    """
    db = open_as_it_is(path)
    if version(db) == VERSION:
        return db
    new = _prepared(sqlite3.connect(":memory:", isolation_level=None))
    with closing(db):
        db.conn.backup(new.conn)
    _migrate(new)
    return new


def in_memory() -> Connection:
    """An empty database of today's schema."""
    db = _prepared(sqlite3.connect(":memory:", isolation_level=None))
    _migrate(db)
    return db


def open_as_it_is(path: Path) -> Database:
    """Connect to look at it, of whatever schema it is."""
    if _has_strange_log(path) and not _goes_with_its_log(path):
        return _open(path, "mode=ro&immutable=1")  # as if it had no log
    try:
        return _open(path, "mode=ro")
    except sqlite3.OperationalError as error:
        # In a folder that may not be written, or on a full disk, SQLite cannot make the files it shares with writers.
        # Where the log is empty nobody writes, and it can do without.
        if _has_log(path) or _is(error, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise
        return _open(path, "mode=ro&immutable=1")


def open_to_write(path: Path) -> Connection:
    """Connect; make the file if it is not there, and bring it up to date.

    Of several processes that do so at once one does the work and the others find it done.
    """
    check(path)
    if path.exists():
        if _has_strange_log(path):
            _set_strange_log_aside(path)
        db = _open(path, "mode=rw")
        if version(db) == VERSION and str(db.conn.execute("pragma journal_mode").fetchone()[0]) == "wal":
            return db
        db.close()
    with locked(path) as lock:
        if not path.exists():
            _put_log_aside(path)  # of a file that is not there any more
            _create(path)
        db = _open(path, "mode=rw")
        try:
            db.conn.execute("pragma journal_mode = wal")
            if (old := version(db)) < VERSION:
                _back_up(db, path, old)
                _migrate(db)
            _note_look(path, lock)
        except BaseException:
            db.close()
            raise
    return db


class _Patience:
    """The patience of whoever waits for a database.

    Args:
        seconds: after which it ends; None: WAIT_SECONDS.
    """

    def __init__(self, path: Path, seconds: float | None):
        self._seconds = WAIT_SECONDS if seconds is None else seconds
        self._path, self._began, self._spoke = path, time.monotonic(), False

    def wait(self) -> None:
        """A moment.

        Raises:
            Held: it has been long enough.
        """
        passed = time.monotonic() - self._began
        if passed > self._seconds:
            raise Held(
                f"Another process has been writing to the database {str(self._path)!r} for {passed:.0f} s "
                "and does not come to an end: `fuser` tells which."
            )
        if passed > SPEAK_SECONDS and not self._spoke:
            self._spoke = True
            voice.get()(
                f"waiting for another process that is writing to the database {str(self._path)!r}, "
                f"{self._seconds:.0f} s at most …"
            )
        # Not all at the same moments.
        time.sleep(TRY_EVERY * (0.5 + secrets.randbelow(1000) / 1000))


@contextmanager
def locked(path: Path, patience: float | None = None) -> Iterator[int]:
    """Be the only process that writes to this database.

    Args:
        patience: seconds to wait for another; None: WAIT_SECONDS.

    Yields:
        A handle of the lock's file.

    Raises:
        Held: another one has been writing all the time.
    """
    lock = path.with_name(f"{path.name}-lock")
    # Whoever may write the database may lock it.
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        waiting = _Patience(path, patience)
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waiting.wait()
        yield handle
    finally:
        os.close(handle)


@contextmanager
def transaction(db: Database, path: Path, patience: float | None = None) -> Iterator[None]:
    """An immediate one: a transaction that reads first and then writes can fail at once, whatever the timeout.

    Args:
        patience: seconds to wait for others who write; None: WAIT_SECONDS.

    Raises:
        Held: others wrote all the time.
        Gone: the file is not the one any more that was opened.
        NotKept: it could not be committed. Whichever it is, the database is as it was before.
    """
    try:
        if not path.exists():  # nor shall there be a lock then
            _see_that_it_is_the_same(db, path, None)
        with locked(path, patience) as lock:
            _see_that_it_is_the_same(db, path, lock)
            _begin(db, path, patience)
            try:
                yield
                db.conn.execute("commit")
            except BaseException:
                if db.conn.in_transaction:
                    db.conn.execute("rollback")
                raise
            _note_look(path, lock)
    except sqlite3.Error as error:
        # SQLITE_ERROR: it has no such table, as ours has; somebody has dropped it.
        if _is(error, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
            raise Gone(f"The database {str(path)!r} could not be written: {error}.", readable=False) from error
        raise NotKept(f"The database {str(path)!r} could not be written: {error}.") from error
    except OSError as error:
        raise NotKept(f"The database {str(path)!r} could not be locked: {error.strerror}.") from error


def _is(error: sqlite3.Error, *codes: int) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in codes


def reason(error: sqlite3.Error, path: Path) -> str:
    """The reason why it cannot be used: what SQLite says, or that the disk is full, which SQLite may not know."""
    with suppress(OSError):
        if files.room(path) < 1 << 16:
            return f"{error}; the disk is full"
    return str(error)


def _begin(db: Database, path: Path, patience: float | None) -> None:
    """Other programs do not know our lock."""
    waiting = _Patience(path, patience)
    db.conn.execute(f"pragma busy_timeout = {BUSY_MS}")
    try:
        while True:
            try:
                db.conn.execute("begin immediate")
                break
            except sqlite3.OperationalError as error:
                if not _is(error, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise
                waiting.wait()
    finally:
        db.conn.execute(f"pragma busy_timeout = {WAIT_SECONDS * 1000:.0f}")
    if isinstance(db, Connection) and not db.log:
        db.log = _inode(_log_of(path))


def _see_that_it_is_the_same(db: Database, path: Path, lock: int | None) -> None:
    """See that what lies under the name is what this connection has open, while nobody else writes.

    Raises:
        Gone: it is not, now and for ever. A log that would be taken for another file's is out of the way.
    """
    if isinstance(db, Connection) and db.file is not None:
        db.gone = db.gone or _what_has_become(db, path, lock)
        if db.gone is not None:
            raise db.gone


def _what_has_become(db: Connection, path: Path, lock: int | None) -> Gone | None:
    failed = f"The database {str(path)!r} could not be written:"
    log = _inode(_log_of(path))
    try:
        status = path.stat()
    except FileNotFoundError:
        if log and log == db.log:
            with suppress(OSError):
                db.aside = _put_log_aside(path)
        return Gone(f"{failed} it is not there any more; it was removed or renamed.", readable=True)
    if (status.st_dev, status.st_ino) != db.file:
        if log == db.log:
            db.aside = _put_log_aside(path)
        return Gone(f"{failed} another file has been put in its place.", readable=True)
    if db.log and log != db.log:
        if not log:
            with suppress(sqlite3.Error):  # what is in it, of all runs, still belongs to this file
                db.conn.execute("pragma wal_checkpoint(truncate)")
        return Gone(f"{failed} its log ({_log_of(path).name}) was removed.", readable=True)
    before = _known_look(lock) if lock is not None else b""
    if before and before != _look(path) and not _goes_with_its_log(path):
        db.aside = _put_log_aside(path)
        _move_to_an_inode_of_its_own(path)
        return Gone(f"{failed} it was written over.", readable=False)
    return None


def _move_to_an_inode_of_its_own(path: Path) -> None:
    """Have a file as it is, but as another one: whoever has it open, and would fold a log into it, has the old one."""
    with suppress(OSError), files.replacing(path) as part:
        shutil.copyfile(path, part)


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _inode(path: Path) -> int:
    """0: there is none."""
    with suppress(OSError):
        return path.stat().st_ino
    return 0


def _look(path: Path) -> bytes:
    """The looks of the file itself, which change when a log is folded in."""
    status = path.stat()
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}\n".encode()


def _known_look(lock: int) -> bytes:
    """Its looks when it was last let go; empty: nobody has noted them."""
    return os.pread(lock, 100, 0)


def _note_look(path: Path, lock: int) -> None:
    # Without it nothing is lost, only looked at more closely.
    with suppress(OSError):
        if (look := _look(path)) != _known_look(lock):
            os.ftruncate(lock, 0)
            os.pwrite(lock, look, 0)


def _has_strange_log(path: Path) -> bool:
    """Tell whether there is a log, and the file is not as it was when a dambench last let go of it: the log may be of
    another file."""
    with suppress(OSError):
        if not _has_log(path):
            return False
        handle = os.open(path.with_name(f"{path.name}-lock"), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _known_look(handle) not in (b"", _look(path))
        finally:
            os.close(handle)
    return False


def _goes_with_its_log(path: Path) -> bool:
    """Tell whether a file and the log beside it make a whole, in which there is every run that the file alone has."""
    if not _is_sound(path, "mode=ro"):
        return False
    alone, both = (_uids(path, f"mode=ro{more}") for more in ("&immutable=1", ""))
    return alone <= both


def _uids(path: Path, mode: str) -> set[str]:
    """The uids of all runs; none where they cannot be read."""
    with suppress(sqlite3.Error), closing(connect(path, mode)) as db:
        return {row[0] for row in db.conn.execute("select uid from runs").fetchall()}
    return set()


def _is_sound(path: Path, mode: str) -> bool:
    """Tell whether all pages go together, read anew."""
    with suppress(OSError):
        if not path.stat().st_size:
            return False  # and SQLite would remove the log
    try:
        with closing(connect(path, mode)) as db:
            rows = db.conn.execute("pragma integrity_check(1)").fetchall()
        return [row[0] for row in rows] == ["ok"]
    except sqlite3.Error as error:
        return _is(error, sqlite3.SQLITE_BUSY)


def _set_strange_log_aside(path: Path) -> None:
    with locked(path) as lock:
        if not _has_strange_log(path):
            return
        if not _goes_with_its_log(path) and _is_sound(path, "mode=ro&immutable=1"):
            aside = _put_log_aside(path)
            voice.get()(
                f"The database {str(path)!r} was replaced while it was in use: the log of the one before is now "
                f"{str(aside)!r}."
            )
        _note_look(path, lock)


def _put_log_aside(path: Path) -> Path | None:
    """Have a log no more under the name by which SQLite finds it. Returns its new name; None: there was none."""
    log = _log_of(path)
    if not log.exists():
        return None
    aside = next(name for n in count(1) if not (name := path.with_name(f"{log.name}.before{n}")).exists())
    os.rename(log, aside)
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    return aside


def close(db: Database, path: Path, *, wrote: bool) -> None:
    """The last connection of a writer folds in the log: that too is writing."""
    if not wrote:
        db.close()
        return
    with suppress(NotKept, OSError), locked(path, SPEAK_SECONDS) as lock:
        _see_that_it_is_the_same(db, path, lock)
        with suppress(sqlite3.Error):
            db.close()
        _note_look(path, lock)
        return
    # SQLite asks whether the file was moved, and whether others have it open, before it folds in a log: one that is
    # left is folded in by the next who writes.
    with suppress(sqlite3.Error), closing(connect(path, "mode=ro")) as other:
        other.conn.execute("select 1 from sqlite_master").fetchone()
        db.close()
    with suppress(sqlite3.Error):
        db.close()


def backups(path: Path, schema: int) -> list[Path]:
    """The copies that were made before this schema of a file was left, oldest first."""
    names = (path.with_name(f"{path.name}.schema{schema}{f'-{n}' if n > 1 else ''}") for n in count(1))
    return list(takewhile(Path.exists, names))


def _back_up(db: Database, path: Path, old: int) -> None:
    """A whole copy beside the file, as it was, before its schema changes."""
    there = len(backups(path, old))  # of an older file of this name, or of a change that did not come to its end
    copy_whole(db, path.with_name(f"{path.name}.schema{old}{f'-{there + 1}' if there else ''}"))


def copy_whole(
    db: Database, target: Path, *, overwrite: bool = False, and_then: Callable[[Database], None] | None = None
) -> None:
    """A copy as one file, in rollback-journal mode, while others write; it is never seen half made.

    Args:
        and_then: what is done to the copy before it is there.

    Raises:
        FileExistsError: the target is there and is not to be overwritten.
        OSError, sqlite3.Error: it cannot be written.
    """
    with files.replacing(target, overwrite=overwrite) as part:
        db.conn.execute("vacuum into ?", [str(part)])
        if and_then is not None:
            with closing(connect(part, "mode=rw")) as copy:
                and_then(copy)


def _migrate(db: Database) -> None:
    import sqlite_utils  # which imports numpy, and is of no use but here

    from dambench.store.schema import migrations

    db.conn.execute("begin immediate")
    try:
        migrations.apply(sqlite_utils.Database(db.conn))
        db.conn.execute(f"pragma user_version = {VERSION}")
        db.conn.execute("commit")
    except BaseException:
        if db.conn.in_transaction:
            db.conn.execute("rollback")
        raise


def _create(path: Path) -> None:
    """A new database, made under another name and then linked to its own: it is never seen half made."""
    with (
        suppress(FileExistsError),  # another process was faster: its file is as good
        files.replacing(path, overwrite=False) as part,
        closing(connect(part, "mode=rw")) as db,
    ):
        db.conn.execute(f"pragma application_id = {APPLICATION_ID}")
        _migrate(db)
