import math

import pytest
from scipy import special

from dambench.store.student import lower_tail, power, quantile

FREEDOMS = (1.0, 1.3, 2.0, 2.7, 5.0, 9.5, 40.0, 123.0, 199.9, 200.1, 1171.2, 9999.0)


def test_tails_are_those_of_the_closed_forms() -> None:
    """One degree of freedom is Cauchy's distribution; two have a square root."""
    for t in (-50.0, -3.2, -1.0, -0.01, 0.0, 0.4, 2.0):
        assert lower_tail(1, t) == pytest.approx(0.5 + math.atan(t) / math.pi, rel=1e-13, abs=1e-15)
        assert lower_tail(2, t) == pytest.approx(0.5 + t / 2 / math.sqrt(2 + t * t), rel=1e-13, abs=1e-15)


def test_tails_and_quantiles_are_those_of_scipy() -> None:
    for freedom in FREEDOMS:
        for t in (1e-3, 0.1, 0.9, 1.7, 4.0, 12.0, 80.0):
            expected = float(special.stdtr(freedom, -t))
            if expected > 1e-250:
                assert lower_tail(freedom, -t) == pytest.approx(expected, rel=1e-12), (freedom, t)
            assert lower_tail(freedom, t) == pytest.approx(float(special.stdtr(freedom, t)), rel=1e-13)
        for level in (0.51, 0.8, 0.975, 0.995, 0.99999):
            expected = float(special.stdtrit(freedom, level))
            assert quantile(freedom, level) == pytest.approx(expected, rel=1e-11), (freedom, level)


def test_a_gap_that_dwarfs_its_error_has_no_probability() -> None:
    assert lower_tail(3, -1e200) == 0
    assert lower_tail(3, 1e200) == 1


def test_the_power_is_what_the_noncentral_distribution_leaves_outside() -> None:
    for freedom in (2, 4, 9, 38, 198):
        for shift in (0.01, 0.7, 2.0, 3.1, 6.0, 15.0, 45.0):
            bound = quantile(freedom, 0.975)
            inside = float(special.nctdtr(freedom, shift, bound) - special.nctdtr(freedom, shift, -bound))
            expected = 1 - inside if math.isfinite(inside) else 1.0  # scipy gives up far outside
            assert power(freedom, shift, bound) == pytest.approx(expected, abs=1e-11), (freedom, shift)


def test_without_a_shift_the_power_is_what_the_test_finds_by_chance() -> None:
    assert power(7, 0.0, quantile(7, 0.975)) == pytest.approx(0.05, abs=1e-12)
