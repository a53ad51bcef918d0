"""The choice of settings by validation accuracy."""

import pytest

from dambench.store.tuning import Trial, best, lead


def _trial(*accuracies: float | None, point: int = 0) -> Trial:
    runs = {seed: f"run{seed}" for seed in range(len(accuracies))}
    return Trial("dm", {"x": point}, runs, {seed: value for seed, value in enumerate(accuracies) if value is not None})


def test_the_highest_mean_over_the_seeds_is_chosen_and_of_equal_ones_the_first() -> None:
    trials = [_trial(0.5, 0.7), _trial(0.6, 0.8, point=1), _trial(0.7, 0.7, point=2)]
    assert best(trials) is trials[1]
    assert best([]) is None


def test_a_trial_that_diverged_with_a_seed_is_not_chosen() -> None:
    trials = [_trial(0.9, None), _trial(0.5, 0.5, point=1)]
    assert best(trials) is trials[1]
    assert trials[0].accuracy is None
    assert best(trials[:1]) is None


def test_the_lead_is_paired_by_seed_with_the_interval_of_student() -> None:
    """Differences 0.01, 0.02, 0.03: mean 0.02, standard deviation 0.01, t(2) at 97.5 % 4.3027."""
    trials = [_trial(0.50, 0.60, 0.70), _trial(0.51, 0.62, 0.73, point=1)]
    found = lead(trials, trials[1])
    assert found is not None
    assert found.over is trials[0]
    assert found.points == pytest.approx(0.02)
    assert found.half == pytest.approx(4.302653 * 0.01 / 3**0.5, rel=1e-6)
    assert not found.clear
    assert lead(trials[:1], trials[0]) is None


def test_one_seed_tells_nothing_apart() -> None:
    trials = [_trial(0.5), _trial(0.9, point=1)]
    found = lead(trials, trials[1])
    assert found is not None
    assert found.half is None
    assert not found.clear
