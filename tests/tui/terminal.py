"""The real program in a terminal of its own: what it sends is counted, and what it asks is answered."""

import fcntl
import math
import os
import pty
import re
import select
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

CONSOLE = """
import fcntl, os, runpy, termios
if "NO_HANGUP" not in os.environ:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
runpy.run_module("dambench", run_name="__main__", alter_sys=True)
"""
"""The program in a terminal that is its own: so it hears of a new size and, unless NO_HANGUP, of the terminal's end."""

PATIENCE = 20.0
"""Seconds after which something that has not come will not."""

MODE = re.compile(rb"\x1b\[\?(\d+)([hl])")
PLACED = re.compile(r"\x1b\[(\d+);(\d+)H|\x1b\[[0-9;?<>=$]*[A-Za-z]|\x1b\][^\x07]*\x07|([\r\n])|([^\x1b\r\n]+)")
ESCAPE = re.compile(rb"\x1b\[[0-9;?<>=$]*[A-Za-z]")


class Terminal:
    """`dambench` in a terminal of that size."""

    def __init__(self, arguments: list[str], columns: int, lines: int, state: Path, **environ: str) -> None:
        self._arguments, self._size, self._state, self._environ = arguments, (columns, lines), state, environ
        self.answers = ANSWERS
        self.line = math.inf
        """Bytes per second that get through."""
        self.sent = b""
        """All that it sent."""

    def __enter__(self) -> Self:
        self._ours, theirs = pty.openpty()
        self.resize(*self._size)
        self.modes = termios.tcgetattr(theirs)
        """Of the terminal, before anybody has changed them."""
        known = {k: v for k, v in os.environ.items() if k not in ("TMUX", "SSH_CONNECTION", "NO_COLOR")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", CONSOLE, *self._arguments],
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
        self.process.kill()
        self.process.wait()
        self.hang_up()

    def hang_up(self) -> None:
        """Close the terminal."""
        if self._ours >= 0:
            os.close(self._ours)
            self._ours = -1

    def kill(self) -> None:
        self.process.kill()

    def resize(self, columns: int, lines: int) -> None:
        self._size = columns, lines
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def text(self, since: int = 0) -> str:
        """What it sent after so many bytes, without what is not to be read."""
        return ESCAPE.sub(b"", self.sent[since:]).decode(errors="replace")

    def screen(self) -> str:
        """What is on the screen now; every character is taken to be one cell wide."""
        columns, lines = self._size
        cells = [[" "] * columns for _ in range(lines)]
        y = x = 0
        for line, column, end, written in PLACED.findall(self.sent.decode(errors="replace")):
            if line:
                y, x = int(line) - 1, int(column) - 1
            elif end:
                y, x = (y, 0) if end == "\r" else (y + 1, x)
            elif written and y < lines:
                cells[y][x : x + len(written)] = written
                x += len(written)
        return "\n".join("".join(line) for line in cells)

    def wait(self, text: str) -> None:
        """Until it draws this."""
        before = len(self.sent)
        self.read(PATIENCE, lambda sent: text in self.text(before))
        assert text in self.text(before), f"{text!r} has not come; the last was {self.sent[-2000:]!r}"

    def ended(self) -> int:
        """Wait for its end, and take in its last words. Returns its exit code."""
        if self._ours >= 0:
            self.read(PATIENCE, lambda sent: self.process.poll() is not None)
        return self.process.wait(PATIENCE)

    def left_as_it_was(self) -> bool:
        """Whether every mode of the terminal is as before it began."""
        ends = dict(MODE.findall(self.sent))
        usual = {b"7": b"h", b"25": b"h"}  # lines wrap, the cursor is seen
        keyboard = self.sent.count(b"\x1b[<u") - len(re.findall(rb"\x1b\[>\d+u", self.sent))
        same = termios.tcgetattr(self._ours) == self.modes
        return same and keyboard == 0 and all(end == usual.get(number, b"l") for number, end in ends.items())

    def read(self, seconds: float, until: Callable[[bytes], bool] = lambda sent: False) -> int:
        """Take in what it sends, for so long or until something was sent. Returns how many bytes that were."""
        before, end = len(self.sent), time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not until(self.sent[before:]):
            ready, _, _ = select.select([self._ours], [], [], min(left, 0.1))
            if ready:
                try:
                    part = os.read(self._ours, 65536 if self.line == math.inf else 512)
                except OSError:
                    break  # it has gone
                for question, answer in self.answers.items():
                    if question in part:
                        os.write(self._ours, answer)
                self.sent += part
                time.sleep(len(part) / self.line)
        return len(self.sent) - before
