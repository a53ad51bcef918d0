"""Promises, and the sentences for those that a plug-in does not keep."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from dambench.core import registry
from dambench.core.errors import BadInput, described

T = TypeVar("T")


def broken_promises(
    kind: registry.Kind, name: str, promises: Iterable[Callable[[T], None]], trial: Callable[[Any], T]
) -> list[str]:
    """The promises that a plug-in does not keep, a sentence each.

    Raises:
        BadInput: there is no plug-in of that name.
    """
    name = registry.find(kind, name)
    try:
        subject = trial(registry.load(kind, name))
    except BadInput as error:
        return [str(error)]
    sentences: dict[str, None] = {}
    for promise in promises:
        try:
            promise(subject)
        except (AssertionError, BadInput) as error:
            sentences[str(error)] = None
        except Exception as error:  # whatever code from outside may raise
            sentences[f"It failed with {described(error)}."] = None
    return list(sentences)


def refuse(faults: list[str]) -> None:
    if faults:
        raise AssertionError("\n".join(faults))


def hold(condition: object, sentence: str) -> None:
    if not condition:
        raise AssertionError(sentence)


@contextmanager
def own_home() -> Iterator[None]:
    """Keep what is made meanwhile, experts and prepared data, out of the user's DAMBENCH_HOME."""
    before = os.environ.get("DAMBENCH_HOME")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DAMBENCH_HOME"] = folder
        try:
            yield
        finally:
            del os.environ["DAMBENCH_HOME"]
            if before is not None:
                os.environ["DAMBENCH_HOME"] = before
