"""Statistics of nested scores, against numbers computed by hand and what scipy has of them."""

import math
from statistics import mean, stdev

import numpy as np
import pytest
from scipy import special, stats

from dambench.store.statistics import (
    T_QUANTILES,
    Sample,
    bootstrap_interval,
    degrees_of_freedom,
    difference,
    holm,
    ratio_interval,
    t_interval,
    t_quantile,
    too_few,
    variance_components,
)

NAN = math.nan


def _sets(*means: float, **fields: object) -> Sample:
    """One network each, under the seeds 0, 1, …"""
    given = {"seeds": tuple(range(len(means))), **fields}
    return Sample(tuple((value,) for value in means), **given)  # type: ignore[arg-type]


def test_variance_components_of_a_balanced_layout_are_those_computed_by_hand() -> None:
    found = variance_components([[1, 3], [5, 7], [6, 8]])
    # Means 2, 6, 7; within (2 + 2 + 2) / 3 = 2; MSB 2 · (9 + 1 + 4) / 2 = 14; between (14 − 2) / 2 = 6.
    assert found.within == pytest.approx(2)
    assert found.between == pytest.approx(6)
    assert found.within_std == pytest.approx(2**0.5)
    assert found.between_std == pytest.approx(6**0.5)
    assert not found.truncated


def test_variance_components_of_an_unbalanced_layout_are_those_computed_by_hand() -> None:
    found = variance_components([[1, 3], [4, 6, 8], [9]])
    # N 6, k 3, means 2, 6, 9, of all 31/6; within (2 + 8) / 3; MSB (2 · (19/6)² + 3 · (5/6)² + (23/6)²) / 2 = 449/24 …
    squares = (2 * (19 / 6) ** 2 + 3 * (5 / 6) ** 2 + (23 / 6) ** 2) / 2
    # … and n₀ = (6 − (4 + 9 + 1) / 6) / 2 = 11/6.
    assert found.within == pytest.approx(10 / 3)
    assert found.between == pytest.approx((squares - 10 / 3) / (11 / 6))


def test_variance_components_hold_scipy_s_ratio_of_mean_squares() -> None:
    sets = [[0.5, 0.62, 0.55], [0.71], [0.44, 0.4], [0.6, 0.61, 0.66, 0.58]]
    found = variance_components(sets)
    usual = (10 - (9 + 1 + 4 + 16) / 10) / 3
    assert found.between is not None
    assert found.within is not None
    assert (usual * found.between + found.within) / found.within == pytest.approx(stats.f_oneway(*sets).statistic)


def test_a_negative_variance_between_sets_is_cut_off_and_marked() -> None:
    found = variance_components([[0, 10], [1, 9], [2, 8]])
    assert (found.between, found.truncated) == (0, True)


@pytest.mark.parametrize(
    ("sets", "between", "within"),
    [
        ([[1.0]], None, None),
        ([[1.0], [2.0], [3.0]], None, None),  # how much networks differ is not known
        ([[1.0, 3.0]], None, 2.0),
        ([[1.0, NAN], [2.0, 3.0]], None, None),
    ],
)
def test_a_variance_that_cannot_be_estimated_is_none(
    sets: list[list[float]], between: float | None, within: float | None
) -> None:
    found = variance_components(sets)
    assert (found.between, found.within) == (between, within)


def test_the_interval_is_student_s_over_the_units() -> None:
    sets = ((1.0, 3.0), (5.0, 7.0), (6.0, 8.0))
    for sample, values in ((Sample(sets), [2, 6, 7]), (Sample(sets, "network"), [1, 3, 5, 7, 6, 8])):
        low, high = stats.t.interval(0.95, len(values) - 1, loc=mean(values), scale=stats.sem(values))
        assert sample.interval == pytest.approx((low, high))
        assert sample.mean == pytest.approx(mean(values))
    # By hand: three sets are ± 4.302653 / √3 = 2.484 standard deviations.
    assert Sample(sets).interval.half == pytest.approx(2.4841 * stdev([2, 6, 7]), rel=1e-4)  # type: ignore[union-attr]


def test_one_unit_or_one_that_is_no_number_has_no_interval() -> None:
    assert t_interval([0.5]) is None
    assert t_interval([0.5, NAN]) is None
    assert Sample(((0.5, 0.6, 0.7),)).interval is None


def test_pairs_of_seeds_are_tested_by_their_differences() -> None:
    a, b = [0.62, 0.55, 0.71, 0.6], [0.58, 0.53, 0.69, 0.55]
    found = difference(_sets(*a), _sets(*b))
    assert found.p == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert found.interval == pytest.approx(tuple(stats.ttest_rel(a, b).confidence_interval(0.95)))
    assert found.mean == pytest.approx(mean(a) - mean(b))
    assert (found.design, found.seeds, found.sets, found.networks) == ("paired", (0, 1, 2, 3), (4, 4), (4, 4))


def test_only_shared_seeds_and_repeats_make_a_pair() -> None:
    a = Sample(((1.0, 2.0, 30.0), (3.0,), (5.0,), (100.0,)), seeds=(0, 1, 2, 9), repeats=((0, 1, 2), (0,), (0,), (0,)))
    b = Sample(((1.0, 1.5), (2.0, 50.0), (4.5,), (-100.0,)), seeds=(0, 1, 2, 7), repeats=((1, 0), (0, 1), (0,), (0,)))
    found = difference(a, b)
    # Seed 0 by the repeats 0 and 1: 1.5 − 1.25; seed 1 by repeat 0: 1; seed 2: 0.5.
    gaps = [0.25, 1.0, 0.5]
    assert found.mean == pytest.approx(mean(gaps))
    assert found.p == pytest.approx(stats.ttest_1samp(gaps, 0).pvalue)
    assert (found.seeds, found.sets, found.networks) == ((0, 1, 2), (3, 3), (4, 4))


def test_where_fewer_than_three_seeds_are_shared_all_set_means_are_tested_by_welch() -> None:
    a, b = _sets(0.5, 0.62, 0.7), _sets(0.55, 0.65, 0.9, seeds=(1, 2, 3))
    found = difference(a, b)
    expected = stats.ttest_ind(a.values, b.values, equal_var=False)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert (found.design, found.seeds, found.sets) == ("Welch", (), (3, 3))


def test_degrees_of_freedom_are_satterthwaite_s_and_fewer_where_counts_differ() -> None:
    # By hand: (2 + 1)² / (4 / 4 + 1 / 4) with as many each; else 9 / (4 / 2 + 1 / 4 + 2 · 1/4), and of three parts …
    assert degrees_of_freedom([(2, 4), (1, 4)]) == pytest.approx(7.2)
    assert degrees_of_freedom([(2, 2), (1, 4)]) == pytest.approx(9 / 2.75)
    # … 16 / (4 / 2 + 1 / 4 + 1 / 4 + 2 · 1/4 + 2 · 1/4 + 0).
    assert degrees_of_freedom([(2, 2), (1, 4), (1, 4)]) == pytest.approx(16 / 3.5)


def test_a_method_is_tested_against_one_set_by_sets_and_networks() -> None:
    method = Sample(((0.5, 0.6), (0.6, 0.7), (0.8, 0.8)), seeds=(0, 1, 2))
    for networks in ((0.9, 0.91, 0.95), (0.9, 0.91, 0.95, 0.94, 0.93)):
        found = difference(method, Sample((networks,), "network"))
        variances = [np.var(part, ddof=1) / len(part) for part in ([0.55, 0.65, 0.8], networks)]
        counts = [2, len(networks) - 1]
        freedom = degrees_of_freedom([(float(v), f) for v, f in zip(variances, counts, strict=True)])
        gap, error = 2 / 3 - mean(networks), sum(variances) ** 0.5
        assert found.mean == pytest.approx(gap)
        assert found.p == pytest.approx(2 * stats.t.sf(abs(gap) / error, freedom))
        assert found.interval == pytest.approx(stats.t.interval(0.95, freedom, gap, error))
        assert (found.design, found.sets, found.networks) == ("Welch", (3, 1), (6, len(networks)))


def test_what_cannot_be_told_has_a_reason_and_no_p() -> None:
    three = _sets(0.5, 0.6, 0.75)
    for other, gap, seeds, reason in (
        (_sets(0.4), 0.1, (0,), "1 set: no claim about the method"),
        (_sets(0.4, 0.5, seeds=(7, 8)), 0.1666667, (), "2 sets: no claim about the method"),
        (Sample(((0.9, 0.8),), "network"), -0.2333333, (), "2 networks: no claim about this set"),
        (_sets(0.4, 0.5, 0.65), 0.1, (0, 1, 2), "nothing varies, so chance cannot be judged"),
    ):
        found = difference(three, other)
        assert found.mean == pytest.approx(gap, rel=1e-5)
        assert (found.p, found.interval, found.design, found.seeds) == (None, None, None, seeds)
        assert found.reason == reason
    for other in (_sets(0.4, NAN, 0.6), _sets(0.4, NAN, 0.6, seeds=())):
        found = difference(three, other)
        assert (found.p, found.reason) == (None, "a value is not finite")
    flat = Sample(((0.5,), (0.5,), (0.5,)))
    assert difference(flat, Sample(((0.6,), (0.6,), (0.6,)))).reason.startswith("nothing varies")
    assert too_few(three) == ""


def test_holm_multiplies_and_never_falls() -> None:
    # By hand: 0.01 · 4, 0.02 · 3 and 0.022 · 2 (raised to the 0.06 before it), 0.6 · 1.
    assert holm([0.6, 0.01, 0.022, 0.02]) == pytest.approx([0.6, 0.04, 0.06, 0.06])
    assert holm([0.7, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_fieller_s_interval_is_the_one_computed_by_hand() -> None:
    a, b = _sets(4.0, 5.0, 6.0), _sets(9.0, 10.0, 11.0)
    found = ratio_interval([a, b], (1, 0), (0, 1))
    # Means 5 and 10, variances of means 1/3 each; ρ = 1/2, variance 1/3 + 1/12 with 25/17 · 2 degrees of freedom.
    t2 = stats.t.ppf(0.975, 2 * (1 + 0.25) ** 2 / (1 + 0.0625)) ** 2
    roots = np.roots([100 - t2 / 3, -2 * 50, 25 - t2 / 3])
    assert found == pytest.approx(tuple(sorted(roots)))


def test_a_ratio_to_what_is_not_told_from_nothing_is_unbounded() -> None:
    assert ratio_interval([_sets(4.0, 5.0, 6.0), _sets(-1.0, 0.5, 1.0)], (1, 0), (0, 1)) is None
    assert ratio_interval([_sets(4.0), _sets(9.0, 10.0, 11.0)], (1, 0), (0, 1)) is None
    assert ratio_interval([_sets(4.0, 5.0, 6.0), _sets(0.0, 0.0, 0.0)], (1, 0), (0, 1)) is None
    assert ratio_interval([_sets(4.0, 5.0), _sets(9.0, 10.0, 11.0)], (1, 0), (0, 1)) is None


def test_the_recovered_gap_is_one_where_a_method_is_as_good_as_the_whole_set() -> None:
    method, random, whole = _sets(0.9, 0.91, 0.89), _sets(0.5, 0.52, 0.48), Sample(((0.9, 0.9, 0.91, 0.89),), "network")
    found = ratio_interval([method, random, whole], (1, -1, 0), (0, -1, 1))
    assert found is not None
    assert found.low < 1 < found.high
    assert found.half < 0.1


def test_the_bootstrap_needs_ten_sets_and_is_the_same_each_time() -> None:
    generator = np.random.default_rng(5)
    sets = [list(map(float, row)) for row in generator.normal(0.6, 0.05, (10, 3))]
    assert bootstrap_interval(sets[:9]) is None
    found = bootstrap_interval(sets)
    assert found is not None
    assert found == bootstrap_interval(sets)
    low, high = stats.t.interval(0.95, 9, loc=np.mean(sets), scale=stats.sem(np.mean(sets, 1)))
    assert found == pytest.approx((low, high), abs=0.3 * (high - low))
    assert bootstrap_interval([*sets[1:], [NAN]]) is None
    assert bootstrap_interval([[0.5, 0.5]] * 10) is None


def test_the_bootstrap_draws_sets_then_networks_within_them() -> None:
    """Of the draws themselves: each set as likely, and its networks only with it, also where sets are unequal."""
    from dambench.store.statistics import _resamples

    sizes = (1, 2, 3, 1, 1, 2, 1, 1, 1, 4)
    owners = np.repeat(np.arange(10), sizes)
    indices, weights = _resamples(sizes)
    assert weights.sum(2) == pytest.approx(np.ones(indices.shape[:2]))
    used = np.where(weights > 0, owners[indices], -1)
    assert all(len({*row} - {-1}) == 1 for row in used.reshape(-1, max(sizes))[:500])
    shares = np.bincount(owners[indices[..., 0]].ravel(), minlength=10) / indices[..., 0].size
    assert shares == pytest.approx(np.full(10, 0.1), abs=0.01)
    of_the_last = np.bincount(indices[..., 0].ravel(), minlength=17)[-4:] / indices[..., 0].size
    assert of_the_last == pytest.approx(np.full(4, 0.025), abs=0.005)


def test_tabled_quantiles_are_those_of_scipy_to_the_last_bit() -> None:
    stdtrit = special.stdtrit
    assert [float(stdtrit(freedom, 0.975)) for freedom in range(1, 41)] == list(T_QUANTILES)
    assert t_quantile(3) == t_quantile(3.0) == T_QUANTILES[2]
    assert t_quantile(41.0) == pytest.approx(float(stdtrit(41, 0.975)), rel=1e-12)
    assert t_quantile(2.5) == pytest.approx(float(stdtrit(2.5, 0.975)), rel=1e-12)
