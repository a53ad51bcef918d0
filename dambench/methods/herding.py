"""Herding: real images whose running mean follows the class mean of a trained network's features.

Welling, "Herding Dynamical Weights to Learn", ICML 2009; per class, as in iCaRL (Rebuffi et al., CVPR 2017).

At step k the image is taken, of those not yet taken, that brings the sum of the k features nearest to k times the
class mean: argmin_f ‖k·m − Σ taken − f‖₂. The papers of this field print a row for it and released no code; this is
the recipe that DC's author gave.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from dambench.matching import coresets
from dambench.matching.coresets import coreset
from dambench.training.problem import Notice, Problem, State, Step

PAPER = "https://arxiv.org/abs/1611.07725"
REDUCED_PRECISION = False


class Options(coresets.Options, frozen=True):
    """Those of all coresets."""


RECIPES = coresets.RECIPES


def herd(features: Tensor, count: int) -> Tensor:
    """The order in which herding takes `count` of n images: (n, D) features → (count,) indices."""
    # About the mean, k·m − Σ taken − f is −(Σ taken + f), and its square ‖f‖² + 2 f·Σ taken and what is the same for
    # all: one product of a matrix and a vector for each image that is taken.
    centred = features - features.mean(0)
    squares = centred.square().sum(1)
    total = torch.zeros_like(centred[0])
    used = torch.zeros_like(squares, dtype=torch.bool)
    chosen = []
    for _ in range(count):
        distances = (squares + 2 * (centred @ total)).masked_fill(used, torch.inf)
        nearest = distances.argmin()
        chosen.append(nearest)
        used[nearest] = True
        total += centred[nearest]
    return torch.stack(chosen)


def distill(problem: Problem, options: Options, resume: State | None = None) -> Iterator[Step | Notice]:
    """Choose once, class by class."""
    yield from coreset(problem, options.epochs, lambda label: herd)
