"""Whole set: every real image.

The ceiling, trained under the same protocol for its whole-set budget. It has no IPC.
"""

from collections.abc import Iterator

from dambench.core import config
from dambench.training.problem import Problem, State, Step

MATCHES_ON_NETWORK = False


class Options(config.Options, frozen=True):
    """None."""


def distill(problem: Problem, options: Options, resume: State | None = None) -> Iterator[Step]:
    """Give back what was given."""
    yield Step(0, problem.whole_set())
