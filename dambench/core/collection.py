"""Python's search for cycles of objects nobody uses, which looks at all objects again and again as many are made."""

import gc
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
