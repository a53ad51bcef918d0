"""The real program in a terminal of its own: what it sends is counted, and what it asks is answered."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

ANSWERS = {b"\x1b[c": b"\x1b[?62;22c", b"\x1b[6n": b"\x1b[1;1R", b"\x1b[?2026$p": b"\x1b[?2026;2$y"}
"""What a terminal says to those who ask for its kind, its cursor and whether it can hold a frame back."""


class Terminal:
    """`dambench` in a terminal of that size."""

    def __init__(self, arguments: list[str], columns: int, lines: int, state: Path, **environ: str) -> None:
        self._arguments, self._size, self._state, self._environ = arguments, (columns, lines), state, environ
        self.sent = b""
        """All that it sent."""

    def __enter__(self) -> Self:
        columns, lines = self._size
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        known = {k: v for k, v in os.environ.items() if k not in ("TMUX", "SSH_CONNECTION", "NO_COLOR")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dambench", *self._arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env=known
            | {"TERM": "xterm-256color", "COLORTERM": "truecolor", "XDG_STATE_HOME": str(self._state)}
            | self._environ,
        )
        os.close(theirs)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        os.close(self._ours)

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def read(self, seconds: float, until: Callable[[bytes], bool] = lambda sent: False) -> int:
        """Take in what it sends, for so long or until something was sent. Returns how many bytes that were."""
        before, end = len(self.sent), time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not until(self.sent[before:]):
            ready, _, _ = select.select([self._ours], [], [], min(left, 0.1))
            if ready:
                try:
                    part = os.read(self._ours, 65536)
                except OSError:
                    break  # it has gone
                for question, answer in ANSWERS.items():
                    if question in part:
                        os.write(self._ours, answer)
                self.sent += part
        return len(self.sent) - before
