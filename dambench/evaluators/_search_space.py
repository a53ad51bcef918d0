"""Spaces of networks to be ranked: the 720 ConvNets of DC, parts and stratified samples of them, and a random search.

The 720 are all combinations of width 32, 64, 128, 256; depth 1 to 4; sigmoid, ReLU, leaky ReLU; no norm, batch, layer,
instance, group norm; no, max, average pooling (DC, ICLR 2021; used by DSA, DM, FTD and DataDAM). Which of them can be
built depends on the size of the images: pooling may leave no pixel. Those are members, too.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from dambench.training.problem import derived_seed

WIDTHS = (32, 64, 128, 256)
DEPTHS = (1, 2, 3, 4)
ACTIVATIONS = ("sigmoid", "relu", "leakyrelu")
NORMS = {"none": "nn", "batch": "bn", "layer": "ln", "instance": "in", "group": "gn"}
POOLINGS = {"none": "np", "max": "mp", "average": "ap"}


class Architecture(NamedTuple):
    """A member of the 720."""

    width: int
    depth: int
    activation: str
    norm: str
    pooling: str

    @property
    def name(self) -> str:
        """The network's name in full, what is the family's default left out: `convnet-d3-w128-bn-sigmoid-mp`."""
        parts = [f"convnet-d{self.depth}-w{self.width}"]
        if self.norm != "instance":
            parts.append(NORMS[self.norm])
        if self.activation != "relu":
            parts.append(self.activation)
        if self.pooling != "average":
            parts.append(POOLINGS[self.pooling])
        return "-".join(parts)


def convnets(max_width: int = WIDTHS[-1]) -> list[Architecture]:
    """The ConvNets up to a width, 180 for each width."""
    widths = [width for width in WIDTHS if width <= max_width]
    return [Architecture(*values) for values in itertools.product(widths, DEPTHS, ACTIVATIONS, NORMS, POOLINGS)]


def stratified(members: Sequence[Architecture], count: int, seed: int) -> list[Architecture]:
    """A random sample in which each value of an axis is about as frequent as any other, and so is each pair of values.

    One after the other: the next is one whose values, then whose pairs of values, are least frequent among those before
    it, for as many as there are of them; among equals the seed decides. So the first n of a larger sample are the
    sample of n, and what was trained for the small one is a part of the large one.

    Args:
        count: at most; all members where they are no more.
    """
    if count >= len(members):
        return list(members)
    sizes = [len(set(axis)) for axis in zip(*members, strict=True)]
    pairs = list(itertools.combinations(range(len(sizes)), 2))
    left = sorted(range(len(members)), key=lambda index: derived_seed(seed, "stratified", index))
    values: Counter[tuple[int, object]] = Counter()
    together: Counter[tuple[int, int, object, object]] = Counter()

    def crowding(index: int) -> tuple[int, int]:
        member = members[index]
        alone = sum(values[axis, value] * sizes[axis] for axis, value in enumerate(member))
        return alone, sum(together[a, b, member[a], member[b]] * sizes[a] * sizes[b] for a, b in pairs)

    sample: list[Architecture] = []
    for _ in range(count):
        index = min(left, key=crowding)
        left.remove(index)
        member = members[index]
        sample.append(member)
        values.update(enumerate(member))
        together.update((a, b, member[a], member[b]) for a, b in pairs)
    return sample


def random_search(count: int, seed: int) -> list[str]:
    """Networks of the seed project's random search: 258, drawn without replacement.

    1 to 3 convolutions, each of width 16, 32 or 64 and kernel 3 or 5, with ReLU and max pooling, without norm.
    """
    layers = [f"{width}k{kernel}" for width in (16, 32, 64) for kernel in (3, 5)]
    members = [
        "-".join(["searchnet", *(f"{place}{layer}" for place, layer in zip("abc", chosen, strict=False))])
        for depth in (1, 2, 3)
        for chosen in itertools.product(layers, repeat=depth)
    ]
    order = sorted(range(len(members)), key=lambda index: derived_seed(seed, "random search", index))
    return [members[index] for index in order[:count]]
