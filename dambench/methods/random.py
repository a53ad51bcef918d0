"""Random subset: IPC random real images per class.

The floor that every method must clear under the same protocol. (On CIFAR-10 at IPC 50 the literature prints 43.4
and 50.6 for it, under two protocols: it is to be run, never quoted.)

With a factor f above 1 each image is a mosaic of f² random real images of its class, reduced: what a mosaic alone is
worth, without anything learned.
"""

from collections.abc import Iterator

from dambench.core import config
from dambench.training.problem import Problem, State, Step

MATCHES_ON_NETWORK = False


class Options(config.Options, frozen=True):
    factor: config.Factor = 1


def distill(problem: Problem, options: Options, resume: State | None = None) -> Iterator[Step]:
    """Choose once, without replacement; the run's seed decides."""
    factor = getattr(options, "factor", 1)  # a method from outside may bring options of its own
    yield Step(0, problem.synthetic_set(problem.random_subset(factor), factor=factor))
