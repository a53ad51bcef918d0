"""Herding: real images whose running mean follows the class mean of a trained network's features.

Welling, "Herding Dynamical Weights to Learn", ICML 2009; per class, as in iCaRL (Rebuffi et al., CVPR 2017).

At step k the image is taken, of those not yet taken, that brings the sum of the k features nearest to k times the
class mean: argmin_f ‖k·m − Σ taken − f‖₂. The papers of this field print a row for it and released no code; this is
the recipe that DC's author gave.
"""

from collections.abc import Iterator
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from dambench import config
from dambench.config import Recipe
from dambench.events import Progressed
from dambench.matching.selection import coreset
from dambench.problem import Problem, State, Step

PAPER = "https://arxiv.org/abs/1611.07725"
MATCHES_ON_NETWORK = True


class Options(config.Options, frozen=True):
    epochs: Annotated[
        int, Meta(ge=1, le=10**6, description="passes over the real images of the network whose features are used")
    ] = 20


RECIPES = (
    Recipe(source="ours: 20 epochs on the real images; the papers do not say how their network was trained"),
    Recipe(
        name="brief",
        datasets=("mnist", "fashionmnist"),
        options={"epochs": 1},
        network="convnet-d3-w64",
        source="ours, meant for a minute on two idle CPU cores (timed on busy ones: 7): one epoch, width 64 (128)",
    ),
)


def herd(features: Tensor, count: int) -> Tensor:
    """The order in which herding takes `count` of n images: (n, D) features → (count,) indices."""
    # About the mean, k·m − Σ taken − f is −(Σ taken + f), and its square ‖f‖² + 2 f·Σ taken and what is the same for
    # all: one product of a matrix and a vector for each image that is taken.
    centred = features - features.mean(0)
    squares = centred.square().sum(1)
    total = torch.zeros_like(centred[0])
    taken = torch.zeros_like(squares, dtype=torch.bool)
    chosen = []
    for _ in range(count):
        distances = (squares + 2 * (centred @ total)).masked_fill(taken, torch.inf)
        nearest = distances.argmin()
        chosen.append(nearest)
        taken[nearest] = True
        total += centred[nearest]
    return torch.stack(chosen)


def distill(problem: Problem, options: Options, resume: State | None = None) -> Iterator[Step | Progressed]:
    """Choose once, class by class."""
    yield from coreset(problem, options.epochs, lambda label: herd)
