"""DANCE: mean features of networks between their beginning and their end, and the loss under trained ones.

Zhang et al., "DANCE: Dual-View Distribution Alignment for Dataset Condensation", IJCAI 2024.

Each iteration takes one of several networks that were trained on the real images, and l from U(0, 1). The class means
of the last features are matched at θ = l · θ_initial + (1 − l) · θ_final, and the cross-entropy of the synthetic images
at θ_final is added. Images are mosaics of plain pixels, clamped, and the optimiser takes a step for each class; the
step size grows with IPC.

Where it was read: the released code's loop and settings. Not read, and taken from codes of the same family: DSA and
CutMix in the training of the networks, and their batch of 64. The released code offers 20 networks, and uses 5. The
images under θ_final are the augmented ones. The published figures are the best of several tests on the way, under
`idc-1500`; here it is the last epoch.
"""

from collections.abc import Iterator
from typing import Annotated

import torch
from msgspec import Meta

from dambench.core.config import CHECKED, UNCHECKED, Recipe
from dambench.matching import pretrained
from dambench.matching.pretrained import (
    BRIEF,
    DIGITS,
    Point,
    PretrainedMatching,
    mean_features,
    number,
    pixel_images,
    pool_of,
)
from dambench.training.problem import Notice, Problem, State, Step

PAPER = "https://arxiv.org/abs/2406.01063"
PLAIN_PIXELS = True
SUMS_OVER_CLASSES = True


class Options(pretrained.PretrainedOptions, frozen=True):
    lr_images: Annotated[float, Meta(gt=0, description="step size for pixels from 0 to 1; it is multiplied by IPC")] = (
        0.01
    )
    calibration: Annotated[float, Meta(ge=0, description="weight of the cross-entropy under a trained network")] = 1.0


RECIPES = (
    Recipe(
        datasets=("digits",),
        options=DIGITS,
        source="ours: digits has 130 images per class and a 2-block network, and is done in seconds" + CHECKED,
    ),
    Recipe(
        datasets=("imagenet",),
        options={"lr_images": 0.1},
        source="DANCE, released code: lr 0.1 · IPC for subsets of ImageNet",
    ),
    Recipe(source="DANCE, released code: 10,000 iterations, lr 0.01 · IPC, 128 real images per class, 5 networks"),
    Recipe(
        name="brief",
        datasets=("mnist", "fashionmnist"),
        options=BRIEF,
        network="convnet-d3-w32",
        source="ours, for two CPU cores: 100 iterations (published: 10,000), 2 networks of 2 epochs (5 of 60), width "
        "32 (128), 64 real images per class (128); the step size is the published one" + UNCHECKED,
    ),
)

check = pretrained.check


def distill(problem: Problem, options: Options, resume: State | None = None) -> Iterator[Step | Notice]:
    """Pull mean features together at a random point of a network's training; keep images recognisable at its end."""
    pool = yield from pool_of(problem, options)

    def choose(generator: torch.Generator) -> tuple[Point, Point]:
        expert, share = number(len(pool), generator), torch.rand((), generator=generator).item()
        return (expert, 0, pool.epochs, share), (expert, pool.epochs, pool.epochs, 0.0)

    images = pixel_images(problem, options, resume, lr=options.lr_images * problem.ipc)
    matching = PretrainedMatching(problem, images, mean_features, options, pool, choose, options.calibration)
    yield from matching.steps(options.iterations)
