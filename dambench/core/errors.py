"""What goes wrong because of what was asked, said in one sentence to the person who asked."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import SequenceMatcher, get_close_matches

from dambench.core.sanitize import display

# What plug-ins may import: see docs/plugins.md.
__all__ = ["BadInput", "Diverged", "NotEnoughMemory"]


class BadInput(ValueError):
    """The request cannot be met. The text says what was asked, what is wrong and what would be right.

    Raised before a run begins: the command line prints it and exits with 2, having changed nothing.

    Attributes:
        field: the option of the request that it is about, as `ipc` or `method.lr_images`; empty: none of them alone.
    """

    def __init__(self, text: str, *, field: str = ""):
        super().__init__(text)
        self.field = field


@contextmanager
def about(field: str) -> Iterator[None]:
    """Let what is wrong inside be about this option, unless it says itself which one it is about. Also a decorator."""
    try:
        yield
    except BadInput as error:
        error.field = error.field or field
        raise


class NotEnoughMemory(RuntimeError):
    """The device has too little memory for what was asked, in any way that gives the same result. Ends a run."""


class RankLost(RuntimeError):
    """Another of the processes that share a run has ended, or cannot be reached. Ends the run, which can be resumed."""


class Diverged(ArithmeticError):
    """The loss, an image, or what networks make of the images, is no longer a number. Ends a run.

    Attributes:
        iteration: the first of which this is so.
    """

    def __init__(self, iteration: int, fault: str, hint: str = "A smaller step size may help."):
        super().__init__(f"{fault}: the run diverged. {hint}")
        self.iteration = iteration


class NotKept(RuntimeError):
    """The database could not be written: the disk is full, gone, or held by somebody else. Nothing of it was kept."""


class Held(NotKept):
    """Another process holds the database. That may pass."""


class Gone(NotKept):
    """Under the name of the database is not the file any more that was opened, or not all of its tables.

    Attributes:
        readable: whether what was opened can still be read: it was removed or renamed, not written over or emptied.
    """

    def __init__(self, text: str, *, readable: bool):
        super().__init__(text)
        self.readable = readable


class KeptElsewhere(NotKept):
    """The database could not be written, but what was to be written is in another file, which the text names."""


def described(error: BaseException) -> str:
    """An exception in one line, whatever it holds: `ValueError: no such thing`."""
    try:
        text = display(str(error), 200)
    except Exception:  # of a class from outside
        text = ""
    return f"{type(error).__name__}{f': {text}' if text else ''}".rstrip(".")


def folded(name: str) -> str:
    """A name without what people write differently: case, dashes, underscores and spaces."""
    return re.sub(r"[\s_-]+", "", name).casefold()


def named(kind: str, name: str, choices: Iterable[str]) -> str:
    """The name that is meant: this very one, or the only one that differs as `folded` forgives (`CIFAR-10`).

    Raises:
        BadInput: there is none, or more than one.
    """
    choices = list(choices)
    alike = [other for other in choices if folded(other) == folded(name)]
    if name in choices or len(alike) == 1:
        return name if name in choices else alike[0]
    raise unknown(kind, name, choices)


def _edits(name: str, other: str) -> float:
    """The letters that are put in or taken out between two names."""
    return (len(name) + len(other)) * (1 - SequenceMatcher(None, name, other).ratio())


def unknown(kind: str, name: str, choices: Iterable[str]) -> BadInput:
    """The error for a name that nobody answers to, naming the nearest one and all the others."""
    choices = sorted(choices)
    lower = name.lower()
    longer = [other for other in choices if name and other.startswith(lower)]
    # difflib measures by the length of both: of what is alike enough, the nearest is what takes the fewest edits.
    alike = get_close_matches(lower, choices, n=len(choices) or 1, cutoff=0.4)
    near = longer[:1] or sorted(alike, key=lambda other: _edits(lower, other))[:1]
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return BadInput(f"No {kind} is called {display(name, 60)!r}. {hint}Known: {', '.join(choices) or 'none'}.")
