"""K-Center: real images that leave no other far from all of them, by a trained network's features.

Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR 2018: the greedy
algorithm, per class.

The first centre is the image nearest to the class mean; then that image is added, again and again, which is farthest
from its nearest centre. The papers of this field print two rows for it that differ by 20 points (CIFAR-10, IPC 50:
27.0 and 48.7) and released no code; this is the recipe that DC's author gave.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from dambench.matching import coresets
from dambench.matching.coresets import coreset
from dambench.training.problem import Notice, Problem, State, Step

PAPER = "https://arxiv.org/abs/1708.00489"
REDUCED_PRECISION = False


class Options(coresets.Options, frozen=True):
    """Those of all coresets."""


RECIPES = coresets.RECIPES


def centres(features: Tensor, count: int) -> Tensor:
    """`count` of n images, in the order in which they become centres: (n, D) features → (count,) indices."""
    # About the mean: squares of distances are differences, which are most exact near zero.
    centred = features - features.mean(0)
    squares = centred.square().sum(1)
    chosen = [squares.argmin()]
    nearest = torch.full_like(squares, torch.inf)
    for _ in range(count - 1):
        distances = squares - 2 * (centred @ centred[chosen[-1]]) + squares[chosen[-1]]
        nearest = torch.minimum(nearest, distances)
        nearest[chosen[-1]] = -torch.inf
        chosen.append(nearest.argmax())
    return torch.stack(chosen)


def distill(problem: Problem, options: Options, resume: State | None = None) -> Iterator[Step | Notice]:
    """Choose once, class by class."""
    yield from coreset(problem, options.epochs, lambda label: centres)
