"""The validation images that a protocol holds out of a training set: which ones they are.

The same on every machine and in every version of whatever library: no generator draws them. Each training image has a
number that is the BLAKE2b digest of the rule's seed and its place, and of each class those with the smallest are held
out. So they depend on the dataset and on the rule, and not on the seed of a run: all arms of a comparison share them.
"""

from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from dambench.core import files
from dambench.core.config import HeldOut
from dambench.core.errors import BadInput
from dambench.core.events import DataCard
from dambench.core.protocol import HoldOut

Indices = NDArray[np.int64]


def of_each_class(counts: Sequence[int], rule: HoldOut) -> int:
    """How many images of every class are held out: as many of each, and no more than a share of the smallest class."""
    return min(rule.images // len(counts), int(rule.share * min(counts) + 1e-9))  # 0.29 · 100 is 28.999…


def indices(counts: Sequence[int], rule: HoldOut) -> Indices:
    """The places of the validation images among the training images, which are sorted by class.

    Args:
        counts: images of each class.

    Returns:
        (classes * n,) int64, n of each class, ascending.
    """
    each = of_each_class(counts, rule)
    held = []
    for first, count in zip(accumulate(counts, initial=0), counts, strict=False):
        keys = {place: _key(rule.seed, place) for place in range(first, first + count)}
        held += sorted(sorted(keys, key=keys.__getitem__)[:each])
    return np.array(held, dtype=np.int64)


def _key(seed: int, place: int) -> bytes:
    return blake2b(f"hold-out {seed} {place}".encode(), digest_size=16).digest()


def hold_out(card: DataCard, rule: HoldOut) -> HeldOut:
    """Draw the validation images of a dataset.

    Raises:
        BadInput: the smallest class is too small to hold images out.
    """
    each = of_each_class(card.train_counts, rule)
    if not each:
        smallest = min(card.train_counts)
        name = card.classes[card.train_counts.index(smallest)]
        raise BadInput(
            f"Class {name!r} of {card.label} is too small to hold validation images out: it has {smallest} training "
            f"images, of which at most {rule.share:.0%} may be. Use a protocol that holds none out, such as quick.",
            field="protocol",
        )
    places = indices(card.train_counts, rule)
    return HeldOut(rule=rule, of_each_class=each, sha256=files.digest(places.astype("<i8").tobytes()))
