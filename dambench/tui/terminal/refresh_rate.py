"""Refresh rate: how often the screen may be painted. Bytes are the budget: on a slow line a key waits for them."""

from typing import Any

from textual.app import App

NUMBERS = 0.5
"""Seconds between two repaints of numbers."""

CHARTS = 1.0

PICTURE_CELLS = 100
"""Characters of pictures per second, each of which takes some forty bytes."""

PIXEL_BYTES = 8_000
"""Bytes of images per second, where the terminal shows them as they are."""

UNSEEN = 5.0
"""The same for all, while the terminal is not in front."""


def backlog(app: App[Any]) -> int:
    """Count the writes that wait for the terminal. What is left unpainted is not lost: the next repaint shows it.

    (Textual tells nobody: its driver hands everything to a thread with a queue.)
    """
    queue = getattr(getattr(app._driver, "_writer_thread", None), "_queue", None)
    return 0 if queue is None else int(queue.qsize())
