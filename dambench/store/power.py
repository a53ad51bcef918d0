"""How many seeds it would take to tell two methods apart."""

from bisect import bisect_left
from collections.abc import Callable
from math import sqrt

from dambench.store import student
from dambench.store.statistics import ENOUGH, Difference, Sample, std, t_quantile

POWER = 0.8
"""How often a difference that is there is to be told."""

MOST_SEEDS = 100
"""More than that is no advice."""


def seeds_needed(gap: Difference, a: Sample, b: Sample) -> int | None:
    """The seeds of each method with which a t-test would tell them apart 4 times in 5.

    As if the difference and the spreads that were measured were the true ones, which they are not: an order of
    magnitude. Paired, the test has n − 1 degrees of freedom and noncentrality |d| √n / s; between means it has
    2 (n − 1) and |d| √(n / (sₐ² + s_b²)).

    Returns:
        None: more than 100, nothing to reckon it by, or something is not counted in seeds.
    """
    if gap.interval is None or gap.mean == 0 or "network" in (a.unit, b.unit):
        return None
    if gap.design == "paired":
        pairs = len(gap.seeds)
        spread = gap.interval.half / t_quantile(pairs - 1) * sqrt(pairs)
        return _least(lambda n: n - 1, lambda n: abs(gap.mean) * sqrt(n) / spread)
    both = sqrt(sum((std(sample.values) or 0.0) ** 2 for sample in (a, b)))
    return _least(lambda n: 2 * (n - 1), lambda n: abs(gap.mean) * sqrt(n) / both)


def _least(freedom: Callable[[int], int], shift: Callable[[int], float]) -> int | None:
    def told(n: int) -> bool:
        return student.power(freedom(n), shift(n), t_quantile(freedom(n))) >= POWER

    numbers = range(ENOUGH, MOST_SEEDS + 1)  # more seeds never tell less
    place = bisect_left(numbers, True, key=told)
    return numbers[place] if place < len(numbers) else None
