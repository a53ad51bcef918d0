"""Accuracies that a file claims for the synthetic sets in it, kept beside an imported set for whoever measures again.

They lie in the file that marks a set as imported. Whoever made the set measured them, under a protocol that such files
do not state.
"""

import math
from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from dambench.core import files
from dambench.core.sanitize import display

MOST_NETWORKS = 100
MOST_VALUES = 10_000
"""Accuracies of one network."""

Fraction = Annotated[float, Meta(ge=0, le=1)]


class Claims(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The accuracies that a file claims for one set."""

    file: str
    """Its name."""
    accuracies: dict[str, list[Fraction]]
    """By network, in full, or as the file calls it: a fraction for each one that was trained on the set."""

    def text(self) -> str:
        return in_words(self.accuracies)


def in_words(accuracies: Mapping[str, list[float]]) -> str:
    """Accuracies by network: mean, sample standard deviation and number of networks, in percent."""
    return "; ".join(f"{display(network, 60)} {spread(values)}" for network, values in accuracies.items())


def spread(values: list[float]) -> str:
    """`91.82 ± 0.50 % (20)`: mean, sample standard deviation, and the number of networks."""
    middle = sum(values) / len(values)
    if len(values) < 2:
        return f"{100 * middle:.2f} % (1)"
    std = math.sqrt(sum((value - middle) ** 2 for value in values) / (len(values) - 1))
    return f"{100 * middle:.2f} ± {100 * std:.2f} % ({len(values)})"


def keep(sha256: str, claims: Claims | None) -> None:
    """Mark a set as imported, with what its file claims. A file without claims leaves earlier ones as they are."""
    if claims is None or not claims.accuracies:
        if not files.is_imported(sha256):
            files.mark_imported(sha256)
        return
    files.mark_imported(sha256, msgspec.json.encode(claims))


def find(sha256: str) -> Claims | None:
    """The claims for a set; None: it has none, or is not imported here."""
    try:
        return msgspec.json.decode(files.import_mark(sha256), type=Claims) if files.is_imported(sha256) else None
    except (OSError, msgspec.DecodeError):  # without any, the mark is empty
        return None
