"""Agreement of two rankings: Kendall's tau-b, Spearman's rho with a bootstrap interval, the worth of the first k.

Scores that are equal share a place: tau-b corrects for ties, and Spearman's ranks are averages. Where one of the
rankings has all its networks in one place, no correlation is defined.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LEVEL = 0.95
MOST_UNDEFINED = 0.05
"""Share of the resamples that may have no correlation before their interval is not shown."""

Numbers = NDArray[np.float64]


class BootstrapInterval(NamedTuple):
    """The two ends of a bootstrap interval."""

    low: float
    high: float


def average_ranks(scores: Sequence[float]) -> Numbers:
    """The places of scores, 1 for the smallest; equal ones share the average of theirs: (n,)."""
    _, groups, sizes = np.unique(np.asarray(scores, dtype=np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    ranks: Numbers = (last - (sizes - 1) / 2)[groups]
    return ranks


def kendall_tau_b(first: Sequence[float], second: Sequence[float]) -> float | None:
    """(C − D) / √((n₀ − n₁)(n₀ − n₂)): pairs in the same order less those in the other (Kendall, 1945).

    n₀ is the number of all pairs, n₁ and n₂ those that are tied in either ranking. None: it is not defined.
    """
    one, other = _signs(first), _signs(second)
    tied_free = math.sqrt(float((one != 0).sum()) * float((other != 0).sum()))
    return float((one * other).sum()) / tied_free if tied_free else None


def _signs(scores: Sequence[float]) -> NDArray[np.int64]:
    """The sign of each pair of scores, which one is larger: (n (n − 1) / 2,) of −1, 0, 1."""
    values = np.asarray(scores, dtype=np.float64)
    upper = np.triu_indices(len(values), 1)
    return np.sign(values[upper[0]] - values[upper[1]]).astype(np.int64)


def spearman_rho(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Pearson's correlation of average ranks. None: it is not defined."""
    rho = _rho(average_ranks(first)[None], average_ranks(second)[None])[0]
    return None if math.isnan(rho) else float(rho)


def spearman_interval(
    first: Sequence[float], second: Sequence[float], seed: int, resamples: int = RESAMPLES, level: float = LEVEL
) -> BootstrapInterval | None:
    """A percentile bootstrap interval of Spearman's rho: networks are drawn anew with replacement.

    Args:
        seed: of the draws, so that the same scores have the same interval.

    Returns:
        None: too many of the resamples have no correlation, as where few networks are many ties; or all have the same,
            as where few networks rank alike: that is no certainty.
    """
    n = len(first)
    drawn = np.random.Generator(np.random.PCG64(seed)).integers(0, n, (resamples, n))
    rhos = _rho(_resampled_ranks(first, drawn), _resampled_ranks(second, drawn))
    defined = rhos[~np.isnan(rhos)]
    if len(defined) < (1 - MOST_UNDEFINED) * resamples:
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return BootstrapInterval(float(low), float(high)) if low < high else None


def _resampled_ranks(scores: Sequence[float], drawn: NDArray[np.int64]) -> Numbers:
    """The average ranks of the networks of each resample: (resamples, n)."""
    values, groups = np.unique(np.asarray(scores, dtype=np.float64), return_inverse=True)
    chosen = groups[drawn]
    resamples, size = len(drawn), len(values)
    offsets = np.arange(resamples)[:, None] * size
    sizes = np.bincount((chosen + offsets).ravel(), minlength=resamples * size).reshape(resamples, size)
    places = np.cumsum(sizes, axis=1) - (sizes - 1) / 2
    ranks: Numbers = np.take_along_axis(places, chosen, axis=1)
    return ranks


def _rho(first: Numbers, second: Numbers) -> Numbers:
    """Pearson's correlation of each two rows; NaN where it is not defined."""
    one, other = (ranks - ranks.mean(1, keepdims=True) for ranks in (first, second))
    below = np.sqrt((one**2).sum(1) * (other**2).sum(1))
    with np.errstate(invalid="ignore", divide="ignore"):
        rhos: Numbers = np.where(below > 0, (one * other).sum(1) / below, np.nan).clip(-1, 1)
    return rhos


def best(scores: Sequence[float], k: int) -> list[int]:
    """The places of the k largest scores, largest first; of equal ones the first, in the order that they stand in."""
    return sorted(range(len(scores)), key=lambda place: -scores[place])[:k]


def precision_at(proxy: Sequence[float], reference: Sequence[float], k: int) -> float:
    """The share of the proxy's first k that are as good in the reference as its k-th best."""
    worst = reference[best(reference, k)[-1]]
    return sum(reference[place] >= worst for place in best(proxy, k)) / k


def regret_at(proxy: Sequence[float], reference: Sequence[float], k: int) -> float:
    """The best score of the reference less the best that it has of the proxy's first k."""
    return max(reference) - max(reference[place] for place in best(proxy, k))
