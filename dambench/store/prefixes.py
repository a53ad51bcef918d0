"""Ids by their beginnings: what a person types of one."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from dambench.core.errors import BadInput
from dambench.core.sanitize import display

CONDITION = "id >= ? and id < ?"
"""SQL that an index answers, of the ids that begin so, with the parameters of `bounds`."""


class HasId(Protocol):
    @property
    def id(self) -> str: ...


R = TypeVar("R", bound=HasId)


def bounds(prefix: str) -> tuple[str, str]:
    """The parameters of `CONDITION`: the last character there is comes after all that an id can hold."""
    return prefix, f"{prefix}\U0010ffff"


def meant(rows: Sequence[R], prefix: str, what: str, lists: str) -> R:
    """The row of that id, or of the only id that begins so.

    Args:
        rows: those whose ids begin so.
        what: what a row is, as `run`.
        lists: the end of the sentence where there is none: which command lists them.

    Raises:
        BadInput: there is none, or more than one.
    """
    exact = [row for row in rows if row.id == prefix]
    if exact or (prefix and len(rows) == 1):
        return (exact or list(rows))[0]
    if not prefix or not rows:
        raise BadInput(f"No {what} has the id {display(prefix)!r}: {lists}.")
    raise BadInput(f"{len(rows)} {what}s have an id that begins with {display(prefix)!r}: type more of it.")
