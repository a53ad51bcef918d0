"""Coverage of every interval that is printed: 10,000 simulated tables each, with the variances of the ledger.

Random sets on MNIST at IPC 1 differ by 5.6 points, the networks on one of them by 1.3 (standard deviations).
"""

from collections.abc import Iterable

import numpy as np
import pytest
from msgspec.structs import replace

from dambench.store.baselines import CURVE, random_size, read_curve
from dambench.store.cells import Cell, Score
from dambench.store.statistics import (
    Interval,
    Sample,
    bootstrap_interval,
    difference,
    ratio_interval,
    t_interval,
    variance_components,
)
from dambench.store.transfer import cross_architecture

TABLES = 10_000
BETWEEN, WITHIN = 5.6, 1.3
RANDOM, METHOD, WHOLE = 56.6, 88.1, 98.9

LAYOUTS = {
    "3 sets": (3,) * 3,
    "3 sets, unbalanced": (1, 3, 5),
    "5 sets": (3,) * 5,
    "5 sets, unbalanced": (1, 2, 3, 4, 5),
    "10 sets": (3,) * 10,
    "10 sets, unbalanced": (1, 1, 2, 3, 3, 4, 5, 5, 5, 5),
}
"""The number of networks on each set."""

every_layout = pytest.mark.parametrize("layout", LAYOUTS)
pytestmark = pytest.mark.slow


class Simulation:
    """Draws of tables, always the same ones."""

    def __init__(self, layout: str):
        self.layout, self.sizes = layout, LAYOUTS[layout]
        self._generator = np.random.default_rng([2026, list(LAYOUTS).index(layout)])
        self._shared = self._generator.normal(size=(TABLES, len(self.sizes)))

    def samples(self, centre: float, *, shared: float = 0.0, reverse: bool = False) -> list[Sample]:
        """Tables of one method.

        Args:
            shared: the correlation of its sets with those that other methods make under the same seeds.
            reverse: the last seed has as many networks as the first has else.
        """
        sizes = self.sizes[::-1] if reverse else self.sizes
        own = self._generator.normal(size=self._shared.shape)
        sets = centre + BETWEEN * (shared**0.5 * self._shared + (1 - shared) ** 0.5 * own)
        networks = np.repeat(sets, sizes, axis=1) + self._generator.normal(0, WITHIN, (TABLES, sum(sizes)))
        ends = np.cumsum(sizes)
        parts = [(int(end) - size, int(end)) for end, size in zip(ends, sizes, strict=True)]
        seeds = tuple(range(len(sizes)))
        return [Sample(tuple(tuple(row[a:b]) for a, b in parts), seeds=seeds) for row in networks.tolist()]

    def networks(self, centre: float, count: int) -> list[Sample]:
        """Tables of one set, of which the networks are the unit."""
        drawn = self._generator.normal(centre, WITHIN, (TABLES, count))
        return [Sample((tuple(row),), "network") for row in drawn.tolist()]

    def check(self, intervals: Iterable[Interval | None], truth: float, what: str) -> float:
        """Hold the coverage to its bounds; an interval that is not printed covers nothing and misses nothing."""
        printed = [interval for interval in intervals if interval is not None]
        assert len(printed) > 0.99 * TABLES
        share = float(np.mean([low <= truth <= high for low, high in printed]))
        print(f"{what}, {self.layout}: {100 * share:.1f} %")
        assert 0.93 <= share <= (0.97 if "unbalanced" not in self.layout else 1), what
        return share


@every_layout
def test_student_s_interval_of_a_cell(layout: str) -> None:
    simulation = Simulation(layout)
    samples = simulation.samples(RANDOM)
    simulation.check((sample.interval for sample in samples), RANDOM, "Student's t of set means")
    pooled = [t_interval([value for networks in sample.sets for value in networks]) for sample in samples]
    old = float(np.mean([one is not None and one.low <= RANDOM <= one.high for one in pooled]))
    print(f"all networks taken as independent, {layout}: {100 * old:.1f} %")
    assert old < 0.8, "what the interval of pooled networks covers: the test can tell it"


@pytest.mark.parametrize("count", [3, 5, 9])
def test_student_s_interval_of_one_set_s_networks(count: int) -> None:
    simulation = Simulation("3 sets")
    simulation.check((one.interval for one in simulation.networks(WHOLE, count)), WHOLE, f"{count} networks")


@pytest.mark.parametrize("layout", [name for name, sizes in LAYOUTS.items() if len(sizes) >= 10])
def test_the_hierarchical_bootstrap_of_a_cell(layout: str) -> None:
    simulation = Simulation(layout)
    intervals = (bootstrap_interval(sample.sets) for sample in simulation.samples(RANDOM))
    simulation.check(intervals, RANDOM, "hierarchical bootstrap")


@every_layout
def test_a_difference_within_seeds(layout: str) -> None:
    simulation = Simulation(layout)
    pairs = zip(simulation.samples(METHOD, shared=0.5), simulation.samples(RANDOM, shared=0.5), strict=True)
    found = [difference(a, b) for a, b in pairs]
    assert {one.design for one in found} == {"paired"}
    simulation.check((one.interval for one in found), METHOD - RANDOM, "paired t")


@every_layout
def test_a_difference_between_sets_of_other_seeds(layout: str) -> None:
    simulation = Simulation(layout)
    others = [Sample(sample.sets) for sample in simulation.samples(RANDOM, reverse=True)]
    found = [difference(a, b) for a, b in zip(simulation.samples(METHOD), others, strict=True)]
    assert {one.design for one in found} == {"Welch"}
    simulation.check((one.interval for one in found), METHOD - RANDOM, "Welch, sets")


@every_layout
@pytest.mark.parametrize("count", [3, 5])
def test_a_difference_between_sets_and_networks(layout: str, count: int) -> None:
    simulation = Simulation(layout)
    pairs = zip(simulation.samples(METHOD), simulation.networks(WHOLE, count), strict=True)
    found = (difference(a, b).interval for a, b in pairs)
    simulation.check(found, METHOD - WHOLE, f"Welch, sets and {count} networks")


@every_layout
def test_ratios(layout: str) -> None:
    simulation = Simulation(layout)
    arms = (simulation.samples(METHOD), simulation.samples(RANDOM, reverse=True), simulation.networks(WHOLE, 3))
    relative = (ratio_interval([a, whole], (1, 0), (0, 1)) for a, _, whole in zip(*arms, strict=True))
    simulation.check(relative, METHOD / WHOLE, "Fieller, relative accuracy")
    gap = (ratio_interval(part, (1, -1, 0), (0, -1, 1)) for part in zip(*arms, strict=True))
    simulation.check(gap, (METHOD - RANDOM) / (WHOLE - RANDOM), "Fieller, recovered gap")


@pytest.mark.parametrize("sets", [3, 5])
@pytest.mark.parametrize("height", [85.0, 92.4, 97.0])
def test_the_equivalent_random_size(sets: int, height: float) -> None:
    """It covers more than it says: each of seven means has a t of its own, whose tails are long."""
    centres, spreads = (67.6, 78.8, 90.3, 94.8, 95.4, 98.3), (6.8, 3.9, 1.9, 0.9, 0.8, 0.3)  # digits
    generator = np.random.default_rng(sets)
    truth = read_curve(CURVE, centres, height)

    def sample(centre: float, spread: float) -> Sample:
        means = generator.normal(centre, spread, sets)
        return Sample(tuple(tuple(generator.normal(one, 1.0, 3).tolist()) for one in means))

    tables = 1000
    hits = 0
    for _ in range(tables):
        curve = {ipc: sample(*one) for ipc, one in zip(CURVE, zip(centres, spreads, strict=True), strict=True)}
        found = random_size(sample(height, 1.0), curve)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= truth <= found.high
    print(f"random size at {height}, {sets} sets: {100 * hits / tables:.1f} %")
    assert 0.94 <= hits / tables <= 1


@pytest.mark.parametrize("sets", [3, 5])
def test_the_mean_over_unseen_networks(sets: int) -> None:
    """Sets differ in the same way on all networks, by some more on one than on another."""
    networks, heights = ("a", "b", "c"), {"a": 90.0, "b": 80.0, "c": 70.0}
    generator = np.random.default_rng(sets)
    example = Score("dm", "d", 1, "a", "p", {}, "dm", "[]", "", "", "", "")
    tables, hits = 2000, 0
    for _ in range(tables):
        shared = generator.normal(0, BETWEEN, sets)
        cells = {}
        for network, height in heights.items():
            means = height + shared + generator.normal(0, BETWEEN / 3, sets)
            scores = [
                replace(example, network=network, seed=n, repeat=k, set_sha256=str(n), values={"accuracy": value})
                for n, one in enumerate(means)
                for k, value in enumerate(generator.normal(one, WITHIN, 3).tolist())
            ]
            cells[network] = Cell(tuple(scores))
        found = cross_architecture({("dm",): cells}, networks).rows[("dm",)].interval
        assert found is not None
        hits += found.low <= 80.0 <= found.high
    print(f"mean over unseen networks, {sets} sets: {100 * hits / tables:.1f} %")
    assert 0.93 <= hits / tables <= 0.97


@every_layout
def test_variance_components_are_unbiased(layout: str) -> None:
    found = [variance_components(sample.sets) for sample in Simulation(layout).samples(RANDOM)]
    between, within = (np.mean([getattr(one, name) for one in found]) for name in ("between", "within"))
    assert between == pytest.approx(BETWEEN**2, rel=0.05)  # those cut off at 0 are few
    assert within == pytest.approx(WITHIN**2, rel=0.02)


@every_layout
def test_variance_components_are_statsmodels(layout: str) -> None:
    """Of balanced layouts REML is the analysis of variance where that is not below 0; of others both are near."""
    mixed = pytest.importorskip("statsmodels.regression.mixed_linear_model")
    for sample in Simulation(layout).samples(RANDOM)[:20]:
        found = variance_components(sample.sets)
        if not found.between or found.within is None:
            continue
        values = np.array([value for networks in sample.sets for value in networks])
        groups = np.repeat(np.arange(len(sample.sets)), [len(networks) for networks in sample.sets])
        fitted = mixed.MixedLM(values, np.ones_like(values), groups).fit(reml=True)
        tolerance = 0.02 if "unbalanced" not in layout else 0.5
        assert found.between == pytest.approx(float(fitted.cov_re[0, 0]), rel=tolerance)
        assert found.within == pytest.approx(float(fitted.scale), rel=tolerance)
