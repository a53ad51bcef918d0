"""An SQLite file of ours: made, opened, brought up to date. What is not ours is refused, and stays as it is.

SQLite 3.7.0 to 3.51.2 can lose or damage data where two connections write or fold in the log at the same time (its
WAL-reset race). So whoever writes holds a lock on a file beside the database, for each transaction; those who read
cannot fold in the log.
"""

import fcntl
import os
import secrets
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count, takewhile
from pathlib import Path
from urllib.parse import quote

from sqlite_utils import Database

from dambench import files, reading
from dambench.errors import BadInput, NotKept
from dambench.store.schema import APPLICATION_ID, VERSION, migrations

WAIT_SECONDS = 30.0
"""For another writer to be done. SQLite's waiting is not fair, so it must be long."""

TRY_EVERY = 0.002
"""Seconds between two tries to get the lock: a transaction takes about as long."""

MOST_HANDLES = 100
"""Files whose headers were read that stay open; no process has connections to nearly as many databases."""

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
        if beside.exists() and not beside.is_file():
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


def connect(path: Path, mode: str) -> Database:
    """A plain connection, nothing looked at.

    Args:
        mode: of the URI: `mode=ro`, `mode=rw`.
    """
    connection = sqlite3.connect(
        f"file://{quote(os.path.abspath(path))}?{mode}", uri=True, timeout=WAIT_SECONDS, isolation_level=None
    )
    return _prepared(connection)


def _prepared(connection: sqlite3.Connection) -> Database:
    connection.row_factory = sqlite3.Row
    for pragma in ("foreign_keys = on", "synchronous = full", "mmap_size = 0", "trusted_schema = off"):
        connection.execute(f"pragma {pragma}")
    return Database(connection)


def _open(path: Path, mode: str) -> Database:
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
    """Of its schema."""
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


def open_as_it_is(path: Path) -> Database:
    """Connect to look at it, of whatever schema it is."""
    try:
        return _open(path, "mode=ro")
    except sqlite3.OperationalError:
        # In a folder that may not be written SQLite cannot make the files it shares with writers. Where there is
        # no log, nobody writes, and it can do without.
        if path.with_name(f"{path.name}-wal").exists():
            raise
        return _open(path, "mode=ro&immutable=1")


def open_to_write(path: Path) -> Database:
    """Connect; make the file if it is not there, and bring it up to date.

    Of several processes that do so at once one does the work and the others find it done.
    """
    check(path)
    if path.exists():
        db = _open(path, "mode=rw")
        if version(db) == VERSION and str(db.conn.execute("pragma journal_mode").fetchone()[0]) == "wal":
            return db
        db.close()
    with locked(path):
        if not path.exists():
            _create(path)
        db = _open(path, "mode=rw")
        try:
            db.conn.execute("pragma journal_mode = wal")
            if (old := version(db)) < VERSION:
                _back_up(db, path, old)
                _migrate(db)
        except BaseException:
            db.close()
            raise
    return db


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the only process that writes to this database.

    Raises:
        NotKept: another one has been writing for 30 seconds.
    """
    lock = path.with_name(f"{path.name}-lock")
    # Whoever may write the database may lock it.
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        until = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise NotKept(
                        f"Another process has been writing to the database {str(path)!r} for {WAIT_SECONDS:.0f} s "
                        "and does not come to an end: `fuser` tells which."
                    ) from None
                # Not all at the same moments.
                time.sleep(TRY_EVERY * (0.5 + secrets.randbelow(1000) / 1000))
        yield
    finally:
        os.close(handle)


@contextmanager
def transaction(db: Database, path: Path) -> Iterator[None]:
    """An immediate one: a transaction that reads first and then writes can fail at once, whatever the timeout.

    Raises:
        NotKept: it could not be committed; the database is as it was before.
    """
    try:
        with locked(path):
            db.conn.execute("begin immediate")
            try:
                yield
                db.conn.execute("commit")
            except BaseException:
                if db.conn.in_transaction:
                    db.conn.execute("rollback")
                raise
    except sqlite3.Error as error:
        raise NotKept(f"The database {str(path)!r} could not be written: {error}.") from error
    except OSError as error:
        raise NotKept(f"The database {str(path)!r} could not be locked: {error.strerror}.") from error


def close(db: Database, path: Path, *, wrote: bool) -> None:
    """The last connection of a writer folds in the log: that too is writing."""
    if not wrote:
        db.close()
        return
    # A log that is left is folded in by the next one.
    with suppress(NotKept, OSError), locked(path):
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


def copy_whole(db: Database, target: Path, *, overwrite: bool = False) -> None:
    """A copy as one file, in rollback-journal mode, while others write; it is never seen half made.

    Raises:
        FileExistsError: the target is there and is not to be overwritten.
        OSError, sqlite3.Error: it cannot be written.
    """
    handle, name = tempfile.mkstemp(dir=target.absolute().parent, prefix=f".{target.name}.", suffix=".new")
    os.close(handle)
    try:
        Path(name).unlink()
        db.conn.execute("vacuum into ?", [name])
        with open(name, "rb") as file:
            os.fsync(file.fileno())
        if overwrite:
            os.replace(name, target)
        else:
            os.link(name, target)
    finally:
        Path(name).unlink(missing_ok=True)
    files.sync_folder(target.absolute().parent)


def _migrate(db: Database) -> None:
    db.conn.execute("begin immediate")
    try:
        migrations.apply(db)
        db.conn.execute(f"pragma user_version = {VERSION}")
        db.conn.execute("commit")
    except BaseException:
        if db.conn.in_transaction:
            db.conn.execute("rollback")
        raise


def _create(path: Path) -> None:
    """A new database, made under another name and then linked to its own: it is never seen half made."""
    handle, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.", suffix=".new")
    os.close(handle)
    try:
        db = connect(Path(name), "mode=rw")
        db.conn.execute(f"pragma application_id = {APPLICATION_ID}")
        _migrate(db)
        db.close()
        os.chmod(name, 0o644)
        with suppress(FileExistsError):  # another process was faster: its file is as good
            os.link(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
