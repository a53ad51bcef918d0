"""Python's search for cycles of objects nobody uses, which looks at all objects again and again as many are made."""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """Search for none while this goes on: what makes tens of thousands of objects that stay is a fifth faster."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@contextmanager
def importing() -> Iterator[None]:
    """Search for none while this goes on, nor ever again in what there is then: modules stay until the end."""
    with paused():
        yield
        gc.freeze()


def left_at_exit() -> None:
    """Search for none as the process ends, which frees all there is: a fifth of what a short command takes.

    Not where torch was imported: libraries that come with it complain of what is left.
    """
    atexit.register(_leave)


def _leave() -> None:
    if "torch" not in sys.modules:
        gc.disable()
        gc.freeze()  # the last searches, which Python makes itself, then have nothing to look at
