"""Feed: reads runs.db for the screens, in a thread of its own, and tells them what it found.

A read takes a millisecond on a local disk, and minutes on a server that hangs: the keyboard must not wait for it. Each
tick asks the question of the place that is being looked at, once, and posts one message; as long as that has not been
taken in (a terminal that stalls), nothing more is asked.
"""

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from textual.app import App
from textual.message import Message

from dambench.errors import BadInput
from dambench.store.runs import Store

EVERY = 0.25
"""Seconds between two looks at whether anything was written."""

AT_LEAST = 1.0
"""Seconds after which a question is asked again all the same: a process that vanishes writes nothing."""

Question = Callable[[Store], Any]


class Told(Message):
    """What a question came to: `found`, or what is wrong with the database."""

    def __init__(self, asker: object, found: Any, trouble: str = "") -> None:
        super().__init__()
        self.asker, self.found, self.trouble = asker, found, trouble


class Feed:
    """Asks one question at a time, again and again.

    Args:
        path: the database, which may not be there yet.
    """

    def __init__(self, app: App[Any], path: Path):
        self.path = path
        self.answers = 0
        """How often one was taken in."""
        self._app = app
        self._question: tuple[object, Question] | None = None
        self._wake = threading.Event()
        self._over = False
        self._taken_in = threading.Event()
        self._taken_in.set()
        self._thread = threading.Thread(target=self._read, name="feed", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over = True
        self._wake.set()

    def ask(self, asker: object, question: Question) -> None:
        """From now on ask this, and at once."""
        self._question = (asker, question)
        self._wake.set()

    def taken_in(self) -> None:
        """The last answer is on the screen."""
        self.answers += 1
        self._taken_in.set()

    def _read(self) -> None:
        store: Store | None = None
        version, asked = -1, 0.0
        while not self._over:
            woken = self._wake.wait(EVERY)
            self._wake.clear()
            if self._over or self._question is None or not (self._taken_in.is_set() or woken):
                continue
            asker, question = self._question
            try:
                if store is None:
                    store = Store.open(self.path)
                now = int(store.query("pragma data_version")[0]["data_version"])
                if now == version and not woken and time.monotonic() - asked < AT_LEAST:
                    continue
                version, asked = now, time.monotonic()
                told = Told(asker, question(store))
                if store.is_copy:  # what is written to the file will not be in it
                    store.close()
                    store = None
            except (BadInput, sqlite3.Error, OSError) as error:
                if store is not None:
                    store.close()
                    store = None
                told = Told(asker, None, str(error))
            except Exception as error:  # a fault of ours must not end the feed
                told = Told(asker, None, f"{type(error).__name__}: {error}")
            self._taken_in.clear()
            self._app.post_message(told)
        if store is not None:
            store.close()
