"""Items of an evaluation: what is measured as a whole, and is measured anew if it was interrupted."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from dambench.core.events import Measured


class Item(NamedTuple):
    """One subject and repeat, of which there will be one `Measured`."""

    subject: str
    """As a rule the network, in full."""
    repeat: int
    kind: str = ""
    """Items of one kind take as long as each other for the same cost. One of each kind is measured for an estimate."""
    cost: float = 1.0
    """How much of the work it is, in a unit of the evaluator's own that is that of its `Progressed`."""
    summary: bool = False
    """Whether it is made of the other items: of another run, which may have had others, it is not taken over."""


class Earlier(NamedTuple):
    """An item that was measured before."""

    run: str
    """Which run did; empty: the one that asks, before it was interrupted."""
    event: Measured


Look = Callable[[str], Sequence[Earlier]]
"""The SHA-256 of a set → what was measured of it in the same way, what counts first, first."""


def measured_nowhere(set_sha256: str) -> Sequence[Earlier]:
    """Know of nothing that was measured before."""
    return ()
