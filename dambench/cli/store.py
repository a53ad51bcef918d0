"""The database of a command."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar
from pathlib import Path

from dambench.cli.output import say
from dambench.core.errors import BadInput, NotKept
from dambench.store import contents, database, journal
from dambench.store import runs as stored
from dambench.store.runs import Store

last_opened: ContextVar[Path | None] = ContextVar("last opened", default=None)
"""The database that this command is about."""


@contextmanager
def open_store(db: Path | None, *, write: bool = False, make: bool = True) -> Iterator[Store]:
    """Open the database of a command, and say what has to be said about it.

    Args:
        make: to write, make it if it is not there; what is changed in one must be there.
    """
    path = db or stored.default_path()
    write = write and (make or stored.exists(path))
    database.voice.set(say)
    last_opened.set(path)
    # Another program may have locked the file. SQLite waits in silence then.
    why = f"waiting for another program that has locked the database {str(path)!r}"
    timer = threading.Timer(database.SPEAK_SECONDS, say, [f"{why}, {database.WAIT_SECONDS:.0f} s at most …"])
    timer.daemon = True
    if not write:
        timer.start()
    try:
        store = Store.open(path, write=write)
    finally:
        timer.cancel()
    with closing(store):
        for note in store.notes:
            say(note)
        yield store


def wrong_contents() -> str:
    """What is in the command's database that no dambench wrote; empty: nothing."""
    path = last_opened.get()
    try:
        if path is not None and stored.exists(path):
            with closing(Store.open(path)) as store:
                fault = next(contents.faults(store), "")
                return f"The database {str(path)!r} is not as a dambench wrote it: {fault}." if fault else ""
    except (BadInput, NotKept, sqlite3.Error) as error:
        return str(error)
    return ""


def on_a_local_disk(path: Path) -> Path:
    """The path of a database that is one file.

    Raises:
        BadInput: it is on a network disk, where the truth is the files of its runs.
    """
    if journal.network_disk_reason(path):
        raise BadInput(
            f"The database {str(path)!r} is on a network disk, where each run has a file of its own: "
            "this command needs a database on a local disk."
        )
    return path
