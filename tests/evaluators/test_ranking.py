"""Agreement of rankings: hand-computed cases, scipy, and literal transcriptions."""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from dambench.evaluators._ranking import (
    average_ranks,
    best,
    kendall_tau_b,
    precision_at,
    regret_at,
    spearman_interval,
    spearman_rho,
)


def scores(seed: int, n: int, values: int) -> list[float]:
    """Random scores of which many are equal."""
    return [float(one) for one in np.random.Generator(np.random.PCG64(seed)).integers(0, values, n) / values]


def literal_tau_b(first: list[float], second: list[float]) -> float:
    concordant = discordant = only_first = only_second = 0
    for i, j in combinations(range(len(first)), 2):
        a, b = first[i] - first[j], second[i] - second[j]
        concordant += a * b > 0
        discordant += a * b < 0
        only_first += a == 0 and b != 0
        only_second += b == 0 and a != 0
    untied = concordant + discordant
    return (concordant - discordant) / math.sqrt((untied + only_first) * (untied + only_second))


def test_equal_scores_share_the_average_of_their_places() -> None:
    assert average_ranks([0.3, 0.1, 0.3, 0.9]).tolist() == [2.5, 1, 2.5, 4]
    assert average_ranks([7, 7, 7]).tolist() == [2, 2, 2]


def test_tau_b_by_hand() -> None:
    assert kendall_tau_b([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)  # 2 pairs agree, 1 does not
    # Pairs: (1,2) tied in the first; (1,3) and (2,3) agree: 2 / √(2 · 3).
    assert kendall_tau_b([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / math.sqrt(6))
    assert kendall_tau_b([1, 2, 3], [3, 2, 1]) == -1


def test_spearman_by_hand() -> None:
    # Without ties 1 − 6 Σd² / (n (n² − 1)) with d = 0, 1, −1, 0.
    assert spearman_rho([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(1 - 6 * 2 / 60)
    # Ranks 1.5, 1.5, 3 and 1, 2, 3: covariance 1.5, squares 1.5 and 2.
    assert spearman_rho([5, 5, 9], [1, 2, 3]) == pytest.approx(1.5 / math.sqrt(3))


def test_a_ranking_of_equals_has_no_correlation() -> None:
    assert kendall_tau_b([1, 1, 1], [1, 2, 3]) is None
    assert spearman_rho([1, 2, 3], [2, 2, 2]) is None
    assert spearman_interval([1, 2, 3], [2, 2, 2], seed=0) is None


@pytest.mark.parametrize("values", [3, 10, 1000])
@pytest.mark.parametrize("n", [2, 7, 60])
def test_both_correlations_are_those_of_scipy_and_of_the_literal_formula(n: int, values: int) -> None:
    for seed in range(5):
        first, second = scores(seed, n, values), scores(seed + 100, n, values)
        if len(set(first)) == 1 or len(set(second)) == 1:
            continue
        tau, rho = kendall_tau_b(first, second), spearman_rho(first, second)
        assert tau == pytest.approx(literal_tau_b(first, second), abs=1e-12)
        assert tau == pytest.approx(stats.kendalltau(first, second).statistic, abs=1e-12)
        assert rho == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-12)


def test_the_interval_is_that_of_resampling_one_by_one() -> None:
    first, second = scores(1, 12, 8), scores(2, 12, 8)
    drawn = np.random.Generator(np.random.PCG64(5)).integers(0, 12, (300, 12))
    rhos = []
    for places in drawn:
        some = [first[place] for place in places], [second[place] for place in places]
        rhos.append(stats.spearmanr(*some).statistic)
    interval = spearman_interval(first, second, seed=5, resamples=300)
    assert interval is not None
    assert interval == pytest.approx(tuple(np.quantile(rhos, [0.025, 0.975])))


def test_the_interval_holds_the_true_correlation_about_as_often_as_it_says() -> None:
    generator = np.random.Generator(np.random.PCG64(0))
    rho = 6 / math.pi * math.asin(0.6 / 2)  # Spearman's of normal pairs with correlation 0.6
    held = 0
    for seed in range(100):
        a, noise = generator.normal(size=(2, 60))
        interval = spearman_interval(a.tolist(), (0.6 * a + 0.8 * noise).tolist(), seed, resamples=400)
        assert interval is not None
        held += interval.low <= rho <= interval.high
    assert 87 <= held <= 99


def test_of_few_networks_that_are_mostly_equal_no_interval_is_given() -> None:
    assert spearman_rho([1, 2, 2], [1, 2, 2]) is not None
    assert spearman_interval([1, 2, 2], [1, 2, 2], seed=0) is None  # 8 of 27 + 1 of 27 resamples are all equal


def test_networks_that_rank_alike_are_no_certainty() -> None:
    assert spearman_rho([1, 2, 3, 4, 5], [2, 3, 4, 5, 6]) == 1
    assert spearman_interval([1, 2, 3, 4, 5], [2, 3, 4, 5, 6], seed=0) is None  # each resample has 1, too


def test_the_worth_of_the_first_k_by_hand() -> None:
    proxy, reference = [0.9, 0.8, 0.7, 0.1, 0.2], [0.5, 0.9, 0.4, 0.8, 0.1]
    assert best(proxy, 3) == [0, 1, 2]
    assert precision_at(proxy, reference, 3) == pytest.approx(2 / 3)  # the reference's are 1, 3, 0
    assert regret_at(proxy, reference, 1) == pytest.approx(0.4)
    assert regret_at(proxy, reference, 2) == 0


def test_of_equal_scores_the_first_is_the_better_and_what_is_as_good_as_the_kth_counts() -> None:
    assert best([0.5, 0.5, 0.5], 2) == [0, 1]
    assert precision_at([0.1, 0.2, 0.9], [0.5, 0.5, 0.5], 1) == 1
