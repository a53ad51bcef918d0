"""K-Means: the real images nearest to the centres of each class's clusters, by a trained network's features.

Lloyd's algorithm from k-means++ (scikit-learn), IPC clusters per class. A baseline of ours: it has no row in the
field's tables, and with more than one image per class it covers a class where herding follows its mean.
"""

import warnings
from collections.abc import Iterator
from functools import partial
from typing import Annotated

import torch
from msgspec import Meta
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from torch import Tensor

from dambench import config
from dambench.config import Recipe
from dambench.events import Progressed
from dambench.matching.selection import coreset
from dambench.problem import Problem, State, Step, derived_seed

PAPER = ""
MATCHES_ON_NETWORK = True


class Options(config.Options, frozen=True):
    epochs: Annotated[
        int, Meta(ge=1, le=10**6, description="passes over the real images of the network whose features are used")
    ] = 20


RECIPES = (
    Recipe(source="ours: 20 epochs on the real images, as for herding and K-Center"),
    Recipe(
        name="brief",
        datasets=("mnist", "fashionmnist"),
        options={"epochs": 1},
        network="convnet-d3-w64",
        source="ours, meant for a minute on two idle CPU cores (timed on busy ones: 7): one epoch, width 64 (128)",
    ),
)


def representatives(features: Tensor, count: int, seed: int) -> Tensor:
    """The image nearest to each of `count` cluster centres, of those not yet taken: (n, D) → (count,) indices.

    Args:
        seed: of the first centres, in [0, 2^32).
    """
    rows = features.cpu()
    # One thread: several add up their parts in the order in which they are done, so that the last bits would vary.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # equal images: there are fewer clusters than were asked for
        found = KMeans(count, n_init=1, random_state=seed).fit(rows.numpy())
    distances = torch.cdist(torch.from_numpy(found.cluster_centers_).to(rows), rows)
    chosen: list[int] = []
    for of_centre in distances:
        of_centre[chosen] = torch.inf
        chosen.append(int(of_centre.argmin()))
    return torch.tensor(chosen)


def distill(problem: Problem, options: Options, resume: State | None = None) -> Iterator[Step | Progressed]:
    """Choose once, class by class."""

    def choose(label: int) -> partial[Tensor]:
        return partial(representatives, seed=derived_seed(problem.seeds.seed, "k-means", label) % 2**32)

    yield from coreset(problem, options.epochs, choose)
