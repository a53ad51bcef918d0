"""L1: DM, with the absolute instead of the squared differences of class means."""

from collections.abc import Iterator

from torch import Tensor

from dambench.matching.distribution import Options, Term, match_means
from dambench.training.problem import Network, Notice, Problem, State, Step

__all__ = ["Options", "distill"]


def absolute_distance(real: Tensor, synthetic: Tensor) -> Tensor:
    return (real - synthetic).abs().sum()


def terms(network: Network) -> list[Term]:
    return [Term("matching", network.num_levels - 1, lambda maps: maps.flatten(1), distance=absolute_distance)]


def distill(problem: Problem, options: Options, resume: State | None = None) -> Iterator[Step | Notice]:
    return match_means(problem, options, terms, resume)
