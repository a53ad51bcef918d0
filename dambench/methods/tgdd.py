"""TGDD: mean features along the training of networks, and the loss a few epochs later.

"Trajectory Guided Dataset Distillation with Balanced Distribution", AAAI 2026.

Each iteration takes a network that was trained on the real images, and one of its epochs, e: the class means of the
last features are matched there, and α times the cross-entropy of the synthetic images at an epoch from e to e + 6 is
added, in the same step.

Where it was read: the two terms, α = 1, e from 0 to 60 and the window of 6. Everything else (images, steps, networks)
is as in DANCE's code; its own values were not read. An epoch after the last is the last.
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

SUMS_OVER_CLASSES = True
PLAIN_PIXELS = True


class Options(pretrained.PretrainedOptions, frozen=True):
    lr_images: Annotated[float, Meta(gt=0, description="step size for pixels from 0 to 1; it is multiplied by IPC")] = (
        0.01
    )
    calibration: Annotated[float, Meta(ge=0, description="α, of the cross-entropy under the network later on")] = 1.0
    window: Annotated[int, Meta(ge=0, le=10**4, description="how many epochs later that network is, at most")] = 6


RECIPES = (
    Recipe(
        datasets=("digits",),
        options=DIGITS | {"window": 1},
        source="ours: digits has 130 images per class and a 2-block network, and is done in seconds" + CHECKED,
    ),
    Recipe(source="TGDD, released code: α 1, epochs 0 to 60, a window of 6; the rest as DANCE, released code"),
    Recipe(
        name="brief",
        datasets=("mnist", "fashionmnist"),
        options=BRIEF | {"window": 1},
        network="convnet-d3-w32",
        source="ours, for two CPU cores: 100 iterations (10,000), 2 networks of 2 epochs and a window of 1 (60, 6), "
        "width 32 (128), 64 real images per class (128)" + UNCHECKED,
    ),
)

check = pretrained.check


def distill(problem: Problem, options: Options, resume: State | None = None) -> Iterator[Step | Notice]:
    """Pull mean features together at a random epoch, and keep images recognisable a little later."""
    pool = yield from pool_of(problem, options)

    def choose(generator: torch.Generator) -> tuple[Point, Point]:
        expert, epoch = number(len(pool), generator), number(pool.epochs + 1, generator)
        later = min(pool.epochs, epoch + number(options.window + 1, generator))
        return (expert, epoch, epoch, 1.0), (expert, later, later, 1.0)

    images = pixel_images(problem, options, resume, lr=options.lr_images * problem.ipc)
    matching = PretrainedMatching(problem, images, mean_features, options, pool, choose, options.calibration)
    yield from matching.steps(options.iterations)
