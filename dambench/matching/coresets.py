"""Coresets: real images chosen class by class, by what a network that was trained on the real set sees of them.

The network's features are what its classifier reads: the last block's output, pooled and flattened. How long it is
trained for is not published with the tables of these methods.
"""

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from dambench.core import config
from dambench.core.config import UNCHECKED, Recipe
from dambench.core.events import Progressed
from dambench.matching.experts import expert, expert_protocol, features_of_each_class
from dambench.training.problem import Notice, Problem, Step

# What plug-ins may import: see docs/plugins.md.
__all__ = ["RECIPES", "Options", "coreset"]


class Options(config.Options, frozen=True):
    """What coresets have in common."""

    epochs: Annotated[
        int, Meta(ge=1, le=10**6, description="passes over the real images of the network whose features are used")
    ] = 20


RECIPES = (
    Recipe(
        source="ours: 20 epochs on the real images; the papers do not say how their network was trained" + UNCHECKED
    ),
    Recipe(
        name="brief",
        datasets=("mnist", "fashionmnist"),
        options={"epochs": 1},
        network="convnet-d3-w64",
        source="ours, meant for a minute on two idle CPU cores (timed on busy ones: 7): one epoch, width 64 (128)"
        + UNCHECKED,
    ),
)

Choose = Callable[[Tensor, int], Tensor]
"""A class's features (n, D) and a number → so many different indices in 0 … n - 1, (count,) int64."""


def coreset(problem: Problem, epochs: int, choose: Callable[[int], Choose]) -> Iterator[Step | Notice]:
    """The images that are chosen in the feature space of a network trained for so many epochs.

    Args:
        choose: what chooses for a class, of that number.
    """
    network = yield from expert(problem, expert_protocol(epochs))
    offsets = accumulate(problem.real.counts, initial=0)
    chosen = []
    for label, (first, features) in enumerate(zip(offsets, features_of_each_class(problem, network), strict=False)):
        chosen.append(choose(label)(features, problem.ipc).to(problem.real.images.device) + first)
        yield Progressed(phase="distil", done=label + 1, total=problem.real.classes, note="choosing")
    yield Step(0, problem.synthetic_set(problem.real.images[torch.cat(chosen)]))
