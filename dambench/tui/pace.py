"""Pace: how often what goes on by itself is drawn. A line that is slow must not be filled with yesterday's frames."""

from typing import Any

from textual.app import App

NUMBERS = 0.5
"""Seconds between two drawings of numbers that nobody asked for with a key."""


def behind(app: App[Any]) -> bool:
    """Whether the terminal has not taken yet what was drawn: then the next frame can wait."""
    # Not an interface of Textual's: where it has gone, nothing ever waits.
    thread = getattr(app._driver, "_writer_thread", None)
    queue = getattr(thread, "_queue", None)
    return queue is not None and queue.qsize() > 0
