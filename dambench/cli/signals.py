"""What signals do to a command that trains: the first stops its run cleanly, the second at once."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

REQUEST = "request"
"""The reason to stop of a run that could not be signalled from where its user is."""

LOST = "the loss of its database"

EXIT_CODES = {"SIGHUP": 129, "SIGINT": 130, "SIGTERM": 143, "SIGUSR1": 143, "SIGUSR2": 143, REQUEST: 143, LOST: 1}

STOP_SECONDS = 10.0
"""Seconds after which somebody who asked a run to stop is told why it has not yet."""


class Interrupted(BaseException):
    """A signal that leaves a run no time to end by itself. Its text is the signal's name."""


class Signals:
    """Handlers of signals: each ends the program, but while a run is recorded the first only stops it.

    Args:
        detached: HUP, which comes when the terminal goes, is ignored.
        patient: only the first counts. (A batch system sends several for one reason, TERM to each process of a job
            besides what the job asked for, and kills by itself what takes too long.)
        say: tells who waits why it takes long.
    """

    def __init__(
        self, *, detached: bool = False, patient: bool = False, say: Callable[[str], None] = lambda text: None
    ) -> None:
        self.received = ""
        """The first signal's name; empty: none has come."""
        self._detached, self._patient = detached, patient
        self._say = say
        self._recording = False
        self._count = 0
        self._timer: threading.Timer | None = None

    def __enter__(self) -> "Signals":
        self._before: dict[int, Any] = {}
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            before = signal.getsignal(number)
            if number == signal.SIGHUP and self._detached:
                self._before[number] = signal.signal(number, signal.SIG_IGN)
            elif before is not signal.SIG_IGN or number == signal.SIGTERM:
                # (Whoever started us under nohup, or in the background of a script, wants the others ignored.)
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def kept_for_the_run(self) -> Iterator[None]:
        self._recording = True
        try:
            yield
        finally:
            self._recording = False
            if self._timer is not None:
                self._timer.cancel()

    def ask(self) -> None:
        """Stop the run, as a signal would; may be called by another thread."""
        self.received = self.received or REQUEST

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._patient and self.received:
            return
        self._count += 1
        self.received = self.received or signal.Signals(number).name
        if self._count > 2:
            os._exit(EXIT_CODES[self.received])  # it was asked three times: whatever hangs, hangs
        if self._count == 2 or not self._recording:
            raise Interrupted(self.received)
        self._timer = threading.Timer(STOP_SECONDS, self._explain)
        self._timer.daemon = True
        self._timer.start()

    def _explain(self) -> None:
        self._say(
            f"It stops at the end of an iteration, which takes longer than {STOP_SECONDS:.0f} s here. A second signal "
            "ends it at once; it can then be resumed from its last checkpoint."
        )
