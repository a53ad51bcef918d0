"""Feed: reads runs.db for the screens, in a thread of its own, and sends them the answers.

A read takes a millisecond on a local disk, and minutes on a server that hangs: the keyboard must not wait for it. The
console asks, a few times a second, the question of whatever is in front at that moment; each is answered once, with
one message, and forgotten. As long as an answer has not been taken in (a terminal that stalls), nothing more is asked.

Which file lies under the database's name is looked at each time: it may have been removed, replaced or written over.
"""

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from textual.app import App
from textual.message import Message

from dambench.core.errors import BadInput, NotKept
from dambench.runner import processes
from dambench.store import journal
from dambench.store import runs as stored
from dambench.store.runs import Store

EVERY = 0.25
"""Seconds between two looks at whether anything was written."""

AT_LEAST = 1.0
"""Seconds after which a question is asked again all the same: a process that vanishes writes nothing."""

Question = Callable[[Store], Any]

File = tuple[int, int]
"""Device and inode."""


class Files(NamedTuple):
    """The files that a database is kept in, at one moment."""

    main: File
    state: tuple[int, int]
    """Its size, and when it was written, which the folding in of the log changes too."""
    log: File | None


def files_of(path: Path) -> Files | None:
    """Look up the files that a database is kept in now; None: there is no database.

    Raises:
        OSError: it cannot be told.
    """
    try:
        main = path.stat()
    except FileNotFoundError:
        if not stored.exists(path):
            return None
        folder = journal.folder(path).stat()
        return Files((folder.st_dev, folder.st_ino), (0, 0), None)
    log = None
    with suppress(FileNotFoundError):
        status = path.with_name(f"{path.name}-wal").stat()
        log = status.st_dev, status.st_ino
    return Files((main.st_dev, main.st_ino), (main.st_size, main.st_mtime_ns), log)


@dataclass
class QueryResult(Message):
    """The result of a question: an answer, or what is wrong with the database."""

    requester: object
    answer: Any
    trouble: str = ""
    file: File | None = None
    """The one under the database's name; None: there is none."""
    at: float = 0.0
    """When that was so, as `time.monotonic` has it."""
    fault: Exception | None = None
    """What is wrong is wrong here."""
    ended: tuple[tuple[str, str], ...] = ()
    """Id and state of the runs that were going on when the last question was answered, and are not any more."""


class _Query(NamedTuple):
    requester: object
    question: Question | None
    file: File | None
    now: bool


class Feed:
    """Answers one question at a time.

    Args:
        path: the database, which may not be there yet.
    """

    def __init__(self, app: App[Any], path: Path):
        self.path = path
        self.answers = 0
        """Answers that were applied."""
        self._app = app
        self._lock = threading.Lock()
        self._pending: _Query | None = None
        self._answering = False
        self._applied = True
        self._wake = threading.Event()
        self._over = False
        self._store: Store | None = None
        self.files: Files | None = None
        """The open ones; None: none are."""
        self._version: tuple[int, int] | None = None
        self._going: set[str] = set()
        """The runs that went on when it was last asked, by id."""
        self._going_in: File | None = None
        self._last = 0.0
        self._thread = threading.Thread(target=self._read, name="feed", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over = True
        self._wake.set()

    @property
    def free(self) -> bool:
        """All that was asked is answered, and the answer applied."""
        with self._lock:
            return self._pending is None and not self._answering and self._applied

    def ask(self, requester: object, question: Question | None, file: File | None, *, now: bool) -> None:
        """Have this answered, instead of what waits to be.

        Args:
            question: None: only which file is there.
            file: the one to ask. Where another one is there, that is the answer.
            now: answer although nothing was written since the last time.
        """
        with self._lock:
            self._pending = _Query(requester, question, file, now or (self._pending is not None and self._pending.now))
        self._wake.set()

    def mark_applied(self, *, answered: bool = True) -> None:
        """The last answer is on the screen."""
        self.answers += answered
        with self._lock:
            self._applied = True

    def _read(self) -> None:
        while not self._over:
            self._wake.wait()
            self._wake.clear()
            with self._lock:
                query, self._pending = self._pending, None
                self._answering = query is not None
            if self._over or query is None:
                continue
            result = self._answer(query)
            with self._lock:
                self._answering, self._applied = False, result is None
            if result is not None:
                self._app.post_message(result)
        self._close()

    def _answer(self, query: _Query) -> QueryResult | None:
        """An answer; None: nothing is new."""
        at, file = time.monotonic(), query.file
        try:
            there = files_of(self.path)
            file = there.main if there else None
            if there is None or (self._store is not None and there != self.files):
                self._close()
            if there is None:
                return QueryResult(query.requester, None, file=None, at=at)
            store = self._store or self._open(there)
            if file != query.file:
                return QueryResult(query.requester, None, file=file, at=at)
            if at - self._last >= AT_LEAST:
                store.refresh()
            version = store.version()
            if version == self._version and not query.now and at - self._last < AT_LEAST:
                return None
            self._version, self._last = version, at
            ended = self._ended(store, there.main)
            return QueryResult(query.requester, self._ask_store(store, query.question), file=file, at=at, ended=ended)
        except (BadInput, NotKept, sqlite3.Error, OSError) as error:
            self._close()
            return QueryResult(query.requester, None, str(error), file, at)
        except Exception as error:  # a fault of ours must not end the feed
            return QueryResult(query.requester, None, f"{type(error).__name__}: {error}", file, at, error)

    def _ended(self, store: Store, file: File) -> tuple[tuple[str, str], ...]:
        """The runs that have ended since this was asked last of the same file, with their states."""
        before = self._going if file == self._going_in else set()
        self._going = {row.id for row in store.unfinished() if processes.state(row) in processes.ALIVE}
        self._going_in, gone = file, sorted(before - self._going)
        rows = [store.with_id(run) for run in gone]
        return tuple((row.id, processes.state(row)) for row in rows if row is not None and not row.deleted_at)

    def _open(self, there: Files) -> Store:
        """Open what is there now."""
        self._store = store = Store.open(self.path)
        store.version()  # which makes the log, where there was none
        again = files_of(self.path)
        self.files = there._replace(log=again.log if again else None)
        self._version = None
        return store

    def _ask_store(self, store: Store, question: Question | None) -> Any:
        """Ask a question of one moment of the database."""
        if question is None:
            return None
        try:
            with store.moment():
                return question(store)
        finally:
            if store.is_copy:  # what is written to the file will not be in it
                self._close()

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = self.files = None
