"""Statistics of nested scores: networks within sets, and sets within a method.

A method is run under several distillation seeds, each makes a set, and on each set several networks are trained. The
networks of one set share it: they are repeats, not evidence about the method. Its evidence is the set means, one each
seed. Only where no other set could have come, or none is at hand, the networks are the unit, and what is said is about
that set.

All numbers here are plain floats in the metric's own unit; a non-finite one makes every result that needs it None.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations
from math import isfinite, nan, sqrt
from typing import Any, Literal, NamedTuple

from dambench.store import student

SIGNIFICANCE = 0.05
"""Probability with which a test finds a difference where there is none; intervals cover with 1 less this."""

ENOUGH = 3
"""Sets, or networks where those are the unit, below which nothing is claimed."""

ENOUGH_TO_RESAMPLE = 10
"""Sets below which there is no bootstrap: over three it covers about 76 %, and Student's t is right."""

RESAMPLES = 2000
RESAMPLING_SEED = 20_260_716

Unit = Literal["set", "network"]
Design = Literal["paired", "Welch"]


@dataclass(frozen=True)
class Estimate:
    """A mean and how sure it is."""

    mean: float
    std: float | None
    n: int


class Interval(NamedTuple):
    """A 95 % confidence interval."""

    low: float
    high: float

    @property
    def half(self) -> float:
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Sample:
    """The values of one metric by set and network, and which of the two is the unit of evidence."""

    sets: tuple[tuple[float, ...], ...]
    """The values of each set's networks; none is empty."""
    unit: Unit = "set"
    seeds: tuple[int, ...] = ()
    """Those of the sets, where each is its own seed's; empty: there is nothing to pair sets by."""
    repeats: tuple[tuple[int, ...], ...] = ()
    """The numbers of the networks, as `sets`; empty: they count from 0."""

    @cached_property
    def values(self) -> tuple[float, ...]:
        """The independent ones: set means, or the values of all networks."""
        if self.unit == "network":
            return tuple(value for networks in self.sets for value in networks)
        return tuple(mean(networks) for networks in self.sets)

    @cached_property
    def networks(self) -> int:
        return sum(map(len, self.sets))

    @cached_property
    def mean(self) -> float:
        """Mean of the set means, or of the networks where those are the unit. nan: a value is not finite."""
        return mean(self.values)

    @cached_property
    def variance(self) -> float | None:
        """Squared standard error of the mean; None: one unit only, or a value is not finite."""
        spread = std(self.values)
        return None if spread is None or not isfinite(spread) else spread**2 / len(self.values)

    @cached_property
    def interval(self) -> Interval | None:
        return t_interval(self.values)

    @property
    def enough(self) -> bool:
        """Whether there is a claim to make."""
        return len(self.values) >= ENOUGH

    @cached_property
    def by_seed(self) -> dict[int, dict[int, float]]:
        """The values by seed and number of the network, where there is something to pair sets by."""
        return _by_seed(self)

    @cached_property
    def differences(self) -> "dict[int, tuple[Sample, Difference]]":
        """Those from other samples that were asked for: each is in several sections of a report."""
        return {}


@dataclass(frozen=True)
class VarianceComponents:
    """The two variances of y = μ + set + network."""

    between: float | None
    """The variance of sets: of the set means' own, what remains without their networks' share. None: fewer than two
    sets, or no set with two networks to know that share by."""
    within: float | None
    """The variance of networks trained on one set. None: no set has two."""
    truncated: bool = False
    """Whether the estimate between sets was negative, and stands as 0."""

    @property
    def between_std(self) -> float | None:
        return None if self.between is None else sqrt(self.between)

    @property
    def within_std(self) -> float | None:
        return None if self.within is None else sqrt(self.within)


@dataclass(frozen=True)
class Difference:
    """What separates two samples, a − b."""

    mean: float
    """Over the seeds of `seeds`, if there are any, else of the means of both."""
    interval: Interval | None
    p: float | None
    """Two-sided, of the mean difference being 0."""
    design: Design | None
    """How it was tested: by differences within seeds, or between the means; None: not at all."""
    seeds: tuple[int, ...]
    """The shared ones that the difference is over; empty: it is between all of both."""
    sets: tuple[int, int]
    networks: tuple[int, int]
    """As many of a and of b as the difference is over."""
    reason: str = ""
    """Why there is no test; empty: there is one."""


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def std(values: Sequence[float]) -> float | None:
    """Sample standard deviation (n − 1); None for fewer than two values."""
    if len(values) < 2:
        return None
    centre = mean(values)
    return sqrt(sum((value - centre) ** 2 for value in values) / (len(values) - 1))


def estimate(values: Sequence[float]) -> Estimate:
    return Estimate(mean(values), std(values), len(values))


def variance_components(sets: Sequence[Sequence[float]]) -> VarianceComponents:
    """Estimate the variance between sets and within them, by the analysis of variance (method of moments).

    With k sets of nᵢ networks, N in all: within = Σᵢ Σⱼ (yᵢⱼ − ȳᵢ)² / (N − k); between = (MSB − within) / n₀ with
    MSB = Σᵢ nᵢ (ȳᵢ − ȳ)² / (k − 1), ȳ the mean of all networks, and n₀ = (N − Σᵢ nᵢ² / N) / (k − 1), which is n where
    all have n. A negative estimate is cut off at 0 and marked. Searle, Casella and McCulloch, "Variance Components",
    1992, section 3.6.
    """
    sizes = [len(networks) for networks in sets]
    total, count = sum(sizes), len(sets)
    centres = [mean(networks) for networks in sets]
    if total == count or not all(map(isfinite, centres)):
        return VarianceComponents(None, None)
    pairs = zip(sets, centres, strict=True)
    within = sum((value - centre) ** 2 for networks, centre in pairs for value in networks) / (total - count)
    if count < 2:
        return VarianceComponents(None, within)
    grand = sum(size * centre for size, centre in zip(sizes, centres, strict=True)) / total
    squares = sum(size * (centre - grand) ** 2 for size, centre in zip(sizes, centres, strict=True)) / (count - 1)
    usual = (total - sum(size**2 for size in sizes) / total) / (count - 1)
    between = (squares - within) / usual
    return VarianceComponents(max(0.0, between), within, between < 0)


T_QUANTILES = (
    *(12.706204736174694, 4.302652729749462, 3.1824463052837078, 2.7764451051977934, 2.5705818356363146),
    *(2.4469118511449786, 2.364624251592784, 2.306004135204166, 2.262157162798205, 2.228138851986274),
    *(2.200985160091639, 2.1788128296672284, 2.1603686564627913, 2.144786687917804, 2.131449545559776),
    *(2.1199052992212546, 2.1098155778333156, 2.1009220402410382, 2.0930240544083087, 2.085963447265864),
    *(2.0796138447276795, 2.0738730679040254, 2.0686576104190486, 2.0638985616280245, 2.0595385527532972),
    *(2.0555294386428735, 2.0518305164802846, 2.0484071417952454, 2.045229642132703, 2.0422724563012378),
    *(2.039513446396408, 2.0369333434601016, 2.0345152974493383, 2.0322445093177186, 2.030107928250343),
    *(2.0280940009804502, 2.0261924630291093, 2.0243941639119694, 2.022690920036761, 2.021075390306273),
)
"""Those of 97.5 % with 1, 2, … degrees of freedom, to the last bit as `scipy.special.stdtrit` has them."""


@cache
def t_quantile(freedom: float) -> float:
    """The quantile of Student's t that is half an interval, in standard errors."""
    if freedom in range(1, len(T_QUANTILES) + 1):
        return T_QUANTILES[int(freedom) - 1]
    return student.quantile(freedom, 1 - SIGNIFICANCE / 2)


def t_interval(values: Sequence[float]) -> Interval | None:
    """Student's t interval of the mean of independent values; None for fewer than two, or if one is not finite.

    It also covers where the values' variances differ, as those of set means over unequally many networks do: at 5 %
    the t-test never rejects more often than it says (Ibragimov and Müller, "t-Statistic Based Correlation and
    Heterogeneity Robust Inference", 2010).
    """
    spread = std(values)
    if spread is None or not isfinite(spread):
        return None
    half = t_quantile(len(values) - 1) * spread / sqrt(len(values))
    return Interval(mean(values) - half, mean(values) + half)


def bootstrap_interval(sets: Sequence[Sequence[float]]) -> Interval | None:
    """The hierarchical bootstrap's interval of the mean of set means: sets are drawn again, then networks in them.

    Each draw is studentised by the standard error of its own set means (bootstrap-t: Efron and Tibshirani, "An
    Introduction to the Bootstrap", 1993, section 12.5): plain percentiles are too narrow for so few sets. The draws
    are the same each time.

    Returns:
        None: fewer than ten sets, a value is not finite, or values so alike that some draws have no spread.
    """
    import numpy as np

    count = len(sets)
    if count < ENOUGH_TO_RESAMPLE:
        return None
    values = np.concatenate([np.asarray(networks, dtype=np.float64) for networks in sets])
    if not np.isfinite(values).all():
        return None
    centres = np.array([mean(networks) for networks in sets])
    drawn = _resampled_means(values, tuple(len(networks) for networks in sets))
    error = centres.std(ddof=1) / sqrt(count)
    means = drawn.mean(1)
    gaps = drawn - means[:, None]
    errors = np.sqrt(np.einsum("rs,rs->r", gaps, gaps) / (count - 1) / count)
    if errors.min() <= _negligible(values) / sqrt(count):
        return None
    low, high = np.quantile((means - centres.mean()) / errors, [SIGNIFICANCE / 2, 1 - SIGNIFICANCE / 2])
    return Interval(float(centres.mean() - high * error), float(centres.mean() - low * error))


def _resampled_means(values: Any, sizes: tuple[int, ...]) -> Any:
    """(resamples, sets) set means of drawn sets and networks; `values` are of all sets, one after another."""
    import numpy as np

    indices, weights = _resamples(sizes)
    if weights is None:
        return np.einsum("rsn->rs", values[indices]) / sizes[0]
    return np.einsum("rsn,rsn->rs", values[indices], weights)


@cache
def _resamples(sizes: tuple[int, ...]) -> tuple[Any, Any]:
    """Draw sets, then networks in each: indices into all values, and the weights that make means of them.

    Both are (resamples, sets, most networks of a set); weights are 0 where a drawn set has fewer networks, and None
    where all have as many.
    """
    import numpy as np

    generator = np.random.default_rng(RESAMPLING_SEED)
    counts = np.array(sizes)
    chosen = generator.integers(len(sizes), size=(RESAMPLES, len(sizes)))
    each = counts[chosen][..., None]
    inside = (generator.random((RESAMPLES, len(sizes), max(sizes))) * each).astype(np.intp)
    indices = (np.cumsum(counts) - counts)[chosen][..., None] + inside
    weights = np.where(np.arange(max(sizes)) < each, 1.0 / each, 0.0)
    return indices, weights if min(sizes) < max(sizes) else None


def difference(a: Sample, b: Sample) -> Difference:
    """Test whether the means of two samples differ.

    Three seeds or more that both have, of one set each: the paired t-test of one difference per seed, of the means
    over the networks that both have, with (seeds − 1) degrees of freedom. Else Welch's t-test of the independent values
    of each, sets or networks, with `degrees_of_freedom`. Which of the two it is follows from what was run alone.
    Neither is made where one side has fewer than three units, or nothing varies.
    """
    known = a.differences.get(id(b))
    if known is None:
        known = a.differences[id(b)] = b, _difference(a, b)
    return known[1]


def _difference(a: Sample, b: Sample) -> Difference:
    pairs = _pairs(a, b)
    whole = (len(a.sets), len(b.sets)), (a.networks, b.networks)
    reason = next((_too_few(sample) for sample in (a, b) if not sample.enough), "")
    if len(pairs) >= ENOUGH or (pairs and reason):
        seeds = tuple(seed for seed, _, _ in pairs)
        gaps = [mean(mine) - mean(theirs) for _, mine, theirs in pairs]
        numbers = (len(pairs), len(pairs)), (sum(len(p[1]) for p in pairs), sum(len(p[2]) for p in pairs))
        if reason := reason or _untestable(gaps, std(gaps), [v for p in pairs for part in p[1:] for v in part]):
            return Difference(mean(gaps), None, None, None, seeds, *numbers, reason)
        spread, freedom = (std(gaps) or 0.0) / sqrt(len(gaps)), float(len(gaps) - 1)
        interval, p = _t_test(mean(gaps), spread, freedom)
        return Difference(mean(gaps), interval, p, "paired", seeds, *numbers)
    gap = a.mean - b.mean
    if a.variance is not None and b.variance is not None:
        error = sqrt(a.variance + b.variance)
        reason = reason or _untestable([gap], error, [*a.values, *b.values])
    reason = reason or ("" if isfinite(gap) else "a value is not finite")
    if reason or a.variance is None or b.variance is None:
        return Difference(gap, None, None, None, (), *whole, reason)
    freedom = degrees_of_freedom([(a.variance, len(a.values) - 1), (b.variance, len(b.values) - 1)])
    return Difference(gap, *_t_test(gap, sqrt(a.variance + b.variance), freedom), "Welch", (), *whole)


def _t_test(gap: float, error: float, freedom: float) -> tuple[Interval, float]:
    half = t_quantile(freedom) * error
    return Interval(gap - half, gap + half), 2 * student.lower_tail(freedom, -abs(gap) / error)


def degrees_of_freedom(parts: Sequence[tuple[float, float]]) -> float:
    """Degrees of freedom of a sum of estimated variances that are not all 0.

    Satterthwaite's (Σ vᵢ)² / Σ vᵢ² / fᵢ are too many where the part with the fewest dominates, since they are high just
    when its variance came out low: Welch's interval of three networks against thirty then covers 92.3 %. So Σ over
    pairs of vᵢ vⱼ |1 / fᵢ − 1 / fⱼ| is added to the divisor, which is nothing where all have as many. Simulated over
    3 to 30 units on either side and any ratio of variances, the interval then covers 94 to 97 %.

    Args:
        parts: each variance with its degrees of freedom.
    """
    divisor = sum(variance**2 / freedom for variance, freedom in parts)
    divisor += sum(v * w * abs(1 / f - 1 / g) for (v, f), (w, g) in combinations(parts, 2))
    return sum(variance for variance, _ in parts) ** 2 / divisor


def _pairs(a: Sample, b: Sample) -> list[tuple[int, list[float], list[float]]]:
    """The seeds that both have, in order, with the values of the networks that both have there."""
    mine, theirs = a.by_seed, b.by_seed
    pairs = []
    for seed in sorted(mine.keys() & theirs.keys()):
        both = sorted(mine[seed].keys() & theirs[seed].keys())
        if both:
            pairs.append((seed, [mine[seed][k] for k in both], [theirs[seed][k] for k in both]))
    return pairs


def _by_seed(sample: Sample) -> dict[int, dict[int, float]]:
    if sample.unit != "set" or not sample.seeds:
        return {}
    repeats = sample.repeats or [tuple(range(len(networks))) for networks in sample.sets]
    return {
        seed: dict(zip(numbers, networks, strict=True))
        for seed, numbers, networks in zip(sample.seeds, repeats, sample.sets, strict=True)
    }


def _too_few(sample: Sample) -> str:
    """`1 set: no claim about the method`."""
    count = len(sample.values)
    about = "the method" if sample.unit == "set" else "this set"
    return f"{count} {sample.unit}{'s' if count > 1 else ''}: no claim about {about}"


def too_few(sample: Sample) -> str:
    """Why nothing is claimed of a sample: `1 set: no claim about the method`; empty: there is enough."""
    return "" if sample.enough else _too_few(sample)


def _untestable(gaps: Sequence[float], spread: float | None, values: Sequence[float]) -> str:
    if not all(map(isfinite, gaps)) or not all(map(isfinite, values)):
        return "a value is not finite"
    if (spread or 0.0) <= _negligible(values):
        return "nothing varies, so chance cannot be judged"
    return ""


def _negligible(values: Any) -> float:
    """A spread that rounding makes of equal values."""
    return 1e-12 * max(abs(float(value)) for value in values)


def holm(values: Sequence[float]) -> list[float]:
    """The p-values of a family of tests, corrected as Holm does, in the same order.

    The i-th smallest of m is multiplied by m − i + 1, and none may be below the one before; at most 1.
    """
    corrected = [nan] * len(values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        highest = max(highest, min(1.0, values[index] * (len(values) - rank)))
        corrected[index] = highest
    return corrected


def ratio_interval(
    samples: Sequence[Sample], numerator: Sequence[float], denominator: Sequence[float]
) -> Interval | None:
    """Fieller's interval of a ratio of two linear combinations of independent means.

    All ρ for which numerator − ρ · denominator is not told from 0 at 5 %: with N and D the estimates, V their
    variances and C the covariance, (N − ρ D)² ≤ t² (V_N − 2 ρ C + ρ² V_D), with the degrees of freedom of that variance
    at ρ = N / D. Fieller, "Some Problems in Interval Estimation", 1954.

    Args:
        samples: independent ones; no pairs are used.
        numerator, denominator: the weight of each sample's mean. Relative accuracy of a to b is (1, 0) over (0, 1);
            recovered gap of a, with random and whole, (1, −1, 0) over (0, −1, 1).

    Returns:
        None where it is unbounded (the denominator is not told from 0), a sample has fewer than three units (with two
        it would cover 92 %), or a value is not finite.
    """
    if any(sample.variance is None or not sample.enough for sample in samples):
        return None
    weights = list(zip(numerator, denominator, strict=True))
    means = [sample.mean for sample in samples]
    top, bottom = (sum(w * m for w, m in zip(part, means, strict=True)) for part in (numerator, denominator))
    if bottom == 0:
        return None
    known = [(sample.variance or 0.0, len(sample.values) - 1) for sample in samples]
    rho = top / bottom
    parts = [((n - rho * d) ** 2 * v, f) for (n, d), (v, f) in zip(weights, known, strict=True)]
    if sum(variance for variance, _ in parts) == 0:
        return None
    t2 = t_quantile(degrees_of_freedom(parts)) ** 2
    v_top, v_bottom, covariance = (
        sum(one * other * v for (one, other), (v, _) in zip(factors, known, strict=True))
        for factors in (
            [(n, n) for n, _ in weights],
            [(d, d) for _, d in weights],
            [(n, d) for n, d in weights],
        )
    )
    # a ρ² − 2 b ρ + c ≤ 0
    a, b, c = bottom**2 - t2 * v_bottom, top * bottom - t2 * covariance, top**2 - t2 * v_top
    if a <= 0:
        return None
    root = sqrt(max(0.0, b**2 - a * c))
    return Interval((b - root) / a, (b + root) / a)
