"""Means, spreads and Welch's test, as tables of results use them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Protocol

SIGNIFICANCE = 0.05

ENOUGH = 3
"""Scores below which no difference is called one."""


@dataclass(frozen=True)
class Estimate:
    """A mean and how sure it is."""

    mean: float
    std: float | None
    n: int


class Sample(Protocol):
    """Numbers, by their mean, sample standard deviation and count."""

    @property
    def mean(self) -> float: ...
    @property
    def std(self) -> float | None: ...
    @property
    def n(self) -> int: ...


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def std(values: Sequence[float]) -> float | None:
    """Sample standard deviation (n − 1); None for fewer than two values."""
    if len(values) < 2:
        return None
    return sqrt(sum((value - mean(values)) ** 2 for value in values) / (len(values) - 1))


def estimate(values: Sequence[float]) -> Estimate:
    return Estimate(mean(values), std(values), len(values))


def half_interval(sample: Sample) -> float | None:
    """Half of the 95 % confidence interval of the mean (Student's t); None for a single value."""
    if sample.std is None:
        return None
    from scipy.special import stdtrit  # as in `welch`

    return float(stdtrit(sample.n - 1, 0.975)) * sample.std / sqrt(sample.n)


def welch(a: Sample, b: Sample) -> float:
    """Two-sided p-value of Welch's t-test for equal means. Both have at least two values."""
    from scipy.special import stdtr  # takes longer to import than all that `dambench runs` needs

    spread_a, spread_b = (a.std or 0.0) ** 2 / a.n, (b.std or 0.0) ** 2 / b.n
    if spread_a + spread_b == 0:
        return 1.0 if a.mean == b.mean else 0.0
    t = abs(a.mean - b.mean) / sqrt(spread_a + spread_b)
    freedom = (spread_a + spread_b) ** 2 / (spread_a**2 / (a.n - 1) + spread_b**2 / (b.n - 1))
    return float(2 * stdtr(freedom, -t))
