from dambench.store.power import seeds_needed
from dambench.store.statistics import Sample, difference


def _sample(*means: float, seeds: bool = True) -> Sample:
    return Sample(tuple((value,) for value in means), seeds=tuple(range(len(means))) if seeds else ())


def _needed(a: Sample, b: Sample) -> int | None:
    return seeds_needed(difference(a, b), a, b)


def test_as_many_seeds_are_named_as_tables_of_power_have() -> None:
    """Cohen, "Statistical Power Analysis", 5 %, power 80 %: for d 0.8 and 0.5 26 and 64 of each, or 15 and 34 pairs."""
    zero = _sample(0, 0, 0)
    for effect, paired, independent in ((0.8, 15, 26), (0.5, 34, 64)):
        # Three differences of standard deviation 1 and that mean.
        assert _needed(_sample(effect - 1, effect, effect + 1), zero) == paired
        # Two groups of standard deviation 1.
        a, b = _sample(effect - 1, effect, effect + 1, seeds=False), _sample(-1, 0, 1, seeds=False)
        assert _needed(a, b) == independent


def test_no_number_is_named_where_there_is_none() -> None:
    assert _needed(_sample(0.01, 1.01, -0.99), _sample(0, 0, 0)) is None  # many hundred
    assert _needed(_sample(1), _sample(0)) is None
    networks = Sample(((0.1, 0.3, 0.2),), unit="network")
    assert _needed(networks, _sample(0.2, 0.3, 0.4)) is None
