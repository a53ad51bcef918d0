"""Random subset: IPC random real images per class.

The floor that every method must clear under the same protocol. (On CIFAR-10 at IPC 50 the literature prints 43.4
and 50.6 for it, under two protocols: it is to be run, never quoted.)
"""

from collections.abc import Iterator

from dambench.core import config
from dambench.training.problem import Problem, State, Step

MATCHES_ON_NETWORK = False


class Options(config.Options, frozen=True):
    """None."""


def distill(problem: Problem, options: Options, resume: State | None = None) -> Iterator[Step]:
    """Choose once, without replacement; the run's seed decides."""
    yield Step(0, problem.synthetic_set(problem.random_subset()))
