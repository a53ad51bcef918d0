"""DSDM: means and covariances of features, under trained networks, and the memory of earlier means.

Li et al., "Diversified Semantic Distribution Matching for Dataset Distillation", ACM MM 2024.

Of the last features, D of them, of each class:

    ‖Δμ‖² + (50 / D) ‖ΔΣ‖² + (0.2 / D) ‖μ_synthetic − h‖²

with Σ the covariance (divided by n − 1) and h the moving average (0.99) of the synthetic means; the last part comes in
after 2,000 iterations. Networks are 10 that were trained on the real images for 20 epochs. Images are mosaics of plain
pixels, clamped, and the optimiser takes a step for each class.

Where it was read: the terms, their weights and the settings of the released code. Not read: which of the networks an
iteration has (here one of them at random, at its end), and how they are trained (here as DANCE's).

The distance of covariances is computed from the Gram matrices of a class's images, which is the same: ‖AᵀA − BᵀB‖² =
‖AAᵀ‖² − 2 ‖ABᵀ‖² + ‖BBᵀ‖². So the features of all real images of an iteration are kept, classes · n · D numbers.
"""

from collections.abc import Iterator
from functools import partial
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from dambench.core.config import CHECKED, UNCHECKED, Recipe
from dambench.matching import pretrained
from dambench.matching.distribution import Memory, Term
from dambench.matching.pretrained import BRIEF, DIGITS, Point, PretrainedMatching, number, pixel_images, pool_of
from dambench.training.problem import Network, Notice, Problem, State, Step

SUMS_OVER_CLASSES = True
PLAIN_PIXELS = True


class Options(pretrained.PretrainedOptions, frozen=True):
    lr_images: Annotated[float, Meta(gt=0, description="step size for pixels from 0 to 1")] = 0.1
    batch_real: Annotated[int, Meta(ge=1, le=10**6, description="real images per class and iteration")] = 256
    experts: Annotated[int, Meta(ge=1, le=1000, description="networks trained on the real images, shared by runs")] = 10
    epochs: Annotated[int, Meta(ge=1, le=10**4, description="epochs that they are trained for")] = 20
    covariance: Annotated[float, Meta(ge=0, description="weight of covariances, divided by the features' number")] = (
        50.0
    )
    memory: Annotated[float, Meta(ge=0, description="weight of earlier means, divided by the features' number")] = 0.2
    memory_after: Annotated[int, Meta(ge=0, le=10**9, description="iterations after which they come in")] = 2_000
    memory_decay: Annotated[float, Meta(ge=0, lt=1, description="share of them that stays in an iteration")] = 0.99


RECIPES = (
    Recipe(
        datasets=("digits",),
        options=DIGITS | {"memory_after": 20, "lr_images": 0.01},
        source="ours: digits has 130 images per class and a 2-block network, and is done in seconds; step size "
        "0.01 (published: 0.1)" + CHECKED,
    ),
    Recipe(
        source="DSDM, released code: 10,000 iterations, lr 0.1, 256 real images per class, 10 networks of 20 epochs"
    ),
    Recipe(
        name="brief",
        datasets=("mnist", "fashionmnist"),
        options=BRIEF | {"memory_after": 20, "lr_images": 0.01},
        network="convnet-d3-w32",
        source="ours, for two CPU cores: 100 iterations (published: 10,000), the memory after 20 (2,000), 2 networks "
        "of 2 epochs (10 of 20), width 32 (128), 64 real images per class (256); step size 0.01 as chosen for digits"
        + UNCHECKED,
    ),
)

check = pretrained.check


def covariance_distance(real: Tensor, synthetic: Tensor) -> Tensor:
    """Σ_classes ‖Cov real − Cov synthetic‖² (Frobenius), of vectors (c, n, D) and (c, m, D): a scalar.

    Divided by n − 1; the covariance of a single image is 0.
    """
    a, b = (
        (vectors - vectors.mean(1, keepdim=True)) / max(1, vectors.shape[1] - 1) ** 0.5 for vectors in (real, synthetic)
    )
    distance: Tensor = (a @ a.mT).square().sum() - 2 * (a @ b.mT).square().sum() + (b @ b.mT).square().sum()
    return distance


def terms(network: Network, options: Options, memory: Memory) -> list[Term]:
    """The means and the covariances of what the classifier reads."""
    level, features = network.num_levels - 1, network.classifier.in_features
    return [
        Term("means", level, lambda maps: maps.flatten(1), memory=memory),
        Term(
            "covariances",
            level,
            lambda maps: maps.flatten(1),
            options.covariance / features,
            covariance_distance,
            whole=True,
        ),
    ]


class _DsdmMatching(PretrainedMatching):
    """Keeps the memory, beside the images, in the state."""

    memory: Memory
    weight: float
    after: int

    def _renew(self, iteration: int) -> None:
        super()._renew(iteration)
        self.memory.weight.fill_(self.weight if iteration > self.after else 0.0)

    def state(self) -> State:
        return super().state() | self.memory.state()


def distill(problem: Problem, options: Options, resume: State | None = None) -> Iterator[Step | Notice]:
    """Pull the means and covariances of features together."""
    pool = yield from pool_of(problem, options)

    def choose(generator: torch.Generator) -> tuple[Point, Point]:
        end = (number(len(pool), generator), pool.epochs, pool.epochs, 1.0)
        return end, end

    images = pixel_images(problem, options, resume)
    features = problem.new_network(1).classifier.in_features
    memory = Memory(torch.zeros(problem.real.classes, features, device=problem.device), options.memory_decay)
    if resume is not None:
        memory.go_on(resume)
    of = partial(terms, options=options, memory=memory)
    matching = _DsdmMatching(problem, images, of, options, pool, choose, calibration=0.0)
    matching.memory, matching.weight, matching.after = memory, options.memory / features, options.memory_after
    yield from matching.steps(options.iterations)
