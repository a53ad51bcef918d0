"""K-Means: the real images nearest to the centres of each class's clusters, by a trained network's features.

Lloyd's algorithm from k-means++ (scikit-learn), IPC clusters per class. A baseline of ours: it has no row in the
field's tables, and with more than one image per class it covers a class where herding follows its mean.
"""

import warnings
from collections.abc import Iterator
from functools import partial

import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from torch import Tensor

from dambench.matching import coresets
from dambench.matching.coresets import coreset
from dambench.training.problem import Notice, Problem, State, Step, derived_seed

REDUCED_PRECISION = False


class Options(coresets.Options, frozen=True):
    """Those of all coresets."""


RECIPES = coresets.RECIPES


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
        clusters = KMeans(count, n_init=1, random_state=seed).fit(rows.numpy())
    distances = torch.cdist(torch.from_numpy(clusters.cluster_centers_).to(rows), rows)
    chosen: list[int] = []
    for of_centre in distances:
        of_centre[chosen] = torch.inf
        chosen.append(int(of_centre.argmin()))
    return torch.tensor(chosen)


def distill(problem: Problem, options: Options, resume: State | None = None) -> Iterator[Step | Notice]:
    """Choose once, class by class."""

    def choose(label: int) -> partial[Tensor]:
        return partial(representatives, seed=derived_seed(problem.seeds.seed, "k-means", label) % 2**32)

    yield from coreset(problem, options.epochs, choose)
