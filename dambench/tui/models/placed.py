"""Placed: where an image stands among the lines of a pane."""

from dataclasses import dataclass

from dambench.core.half_blocks import Pixels


@dataclass(frozen=True)
class Placed:
    """An image at its place in a pane: half blocks are there as well, for a terminal that has no pixels."""

    x: int
    y: int
    columns: int
    rows: int
    image: Pixels
    """(H, W, 3), as large as it is stored."""
