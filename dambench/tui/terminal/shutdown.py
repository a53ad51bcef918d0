"""Shutdown: when the console is asked to from outside, or has no terminal any more."""

import asyncio
import os
import select
import signal
import sys
import threading
from collections.abc import Callable


def on_sigterm(leave: Callable[[], None]) -> None:
    """On SIGTERM, leave in good order: the terminal gets its modes back. Called in the loop that does so.

    Whoever asks twice need not wait for a terminal that stalls.
    """
    loop = asyncio.get_running_loop()

    def handle(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        loop.call_soon_threadsafe(leave)

    signal.signal(signal.SIGTERM, handle)


def on_hang_up() -> None:
    """End at once when the terminal has gone.

    SIGHUP does so, too, where it comes and is not ignored. Without it the loop would wait for ever for what it has
    drawn to be taken: its writer has ended.
    """
    assert sys.__stdin__ is not None
    terminal = select.poll()
    terminal.register(sys.__stdin__.fileno(), 0)

    def wait() -> None:
        if any(event & select.POLLHUP for _, event in terminal.poll()):
            os._exit(128 + signal.SIGHUP)

    threading.Thread(target=wait, name="terminal", daemon=True).start()
