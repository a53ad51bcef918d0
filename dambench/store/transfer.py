"""Cross-architecture results: how sets serve networks that none was matched on, and whether methods keep their order.

The field's figures: the mean and the worst over the unseen networks, and how far they are below the network that was
matched on. All of them are over the same networks for each row, so that none is better for having been tried on easier
ones, and over the same sets.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from dambench.store.cells import Cell, Key
from dambench.store.statistics import Interval, mean, std, t_interval

FEWEST_METHODS = 4
"""Below it an order says nothing: of three methods, one of six orders is the very same by chance."""


@dataclass(frozen=True)
class Transfer:
    """A row over the unseen networks."""

    mean: float
    """Over sets of the mean over networks."""
    interval: Interval | None
    """Student's t over sets; None: one set, or one that no seed changes."""
    std: float | None
    """Over sets, of the mean over networks, n − 1."""
    worst: float
    worst_network: str
    drop: float | None
    """The network matched on minus the mean, of the same sets. None: no network was matched on, or several."""
    source: str
    """The network matched on; empty: none, or several."""
    sets: int
    """Those that were tried on all of these networks."""
    missing_sets: int
    """Sets of the row that were not."""


@dataclass(frozen=True)
class RankCorrelation:
    """How far two networks put methods into the same order; None: too few methods, or all are level."""

    spearman: float | None
    kendall: float | None
    methods: int


@dataclass(frozen=True)
class CrossArchitecture:
    """Rows that differ in nothing but the method, over networks."""

    unseen: tuple[str, ...]
    """The networks of all means: those that no row was matched on, and all rows have that have any such."""
    lacking: dict[str, tuple[Key, ...]]
    """Networks that are left out of them, by which rows lack them."""
    sources: tuple[str, ...]
    """Networks that some row was matched on."""
    rows: dict[Key, Transfer]
    """Rows without a score on any unseen network have none."""
    correlations: dict[tuple[str, str], RankCorrelation]
    """By pairs of networks, in their order. The whole set has no part."""


def cross_architecture(rows: Mapping[Key, Mapping[str, Cell]], networks: Sequence[str]) -> CrossArchitecture:
    """Put rows together over networks.

    Args:
        rows: cells by network.
        networks: their order.
    """
    sources = tuple(n for n in networks if any(_is_source(cells[n]) for cells in rows.values() if n in cells))
    unseen = [network for network in networks if network not in sources]
    trying = {row: cells for row, cells in rows.items() if any(network in cells for network in unseen)}
    shared = tuple(network for network in unseen if all(network in cells for cells in trying.values()))
    lacking = {n: tuple(row for row, cells in trying.items() if n not in cells) for n in unseen if n not in shared}
    found = {row: _transfer(cells, shared, sources) for row, cells in trying.items()} if shared else {}
    return CrossArchitecture(
        unseen=shared,
        lacking=lacking,
        sources=sources,
        rows={row: transfer for row, transfer in found.items() if transfer is not None},
        correlations={(a, b): _correlation(rows.values(), a, b) for a, b in combinations(networks, 2)},
    )


def _is_source(cell: Cell) -> bool:
    return any(score.source for score in cell.scores)


def _transfer(cells: Mapping[str, Cell], unseen: Sequence[str], sources: Sequence[str]) -> Transfer | None:
    means = {network: _set_means(cells[network]) for network in unseen}
    every = {sha256 for by_set in means.values() for sha256 in by_set}
    tried = sorted(sha256 for sha256 in every if all(sha256 in by_set for by_set in means.values()))
    if not tried:
        return None
    over_networks = {sha256: mean([means[network][sha256] for network in unseen]) for sha256 in tried}
    if not all(map(math.isfinite, over_networks.values())):
        return None
    by_network = {network: mean([means[network][sha256] for sha256 in tried]) for network in unseen}
    lower = cells[unseen[0]].metric.better == "lower"
    worst = (max if lower else min)(unseen, key=lambda network: by_network[network])
    own = [network for network in sources if network in cells and _is_source(cells[network])]
    of_source = _set_means(cells[own[0]]) if len(own) == 1 else {}
    both = [sha256 for sha256 in tried if sha256 in of_source]
    values = list(over_networks.values())
    seeds_matter = cells[unseen[0]].unit == "set"
    return Transfer(
        mean=mean(values),
        interval=t_interval(values) if seeds_matter else None,
        std=std(values) if seeds_matter else None,
        worst=by_network[worst],
        worst_network=worst,
        drop=mean([of_source[sha256] - over_networks[sha256] for sha256 in both]) if both else None,
        source=own[0] if len(own) == 1 else "",
        sets=len(tried),
        missing_sets=len(every) - len(tried),
    )


def _set_means(cell: Cell) -> dict[str, float]:
    """The mean over the networks of each set."""
    return {sha256: mean(values) for sha256, values in zip(cell.by_set, cell.sample.sets, strict=True)}


def _correlation(rows: Iterable[Mapping[str, Cell]], a: str, b: str) -> RankCorrelation:
    pairs = [
        (cells[a].mean, cells[b].mean)
        for cells in rows
        if a in cells and b in cells and cells[a].scores[0].base_method != "whole"
    ]
    pairs = [pair for pair in pairs if all(map(math.isfinite, pair))]
    if len(pairs) < FEWEST_METHODS:
        return RankCorrelation(None, None, len(pairs))
    first, second = zip(*pairs, strict=True)
    return RankCorrelation(spearman(first, second), kendall(first, second), len(pairs))


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation: Pearson's of the ranks, of which equal values share the mean one.

    None: all values of one side are equal.
    """
    a, b = _ranks(first), _ranks(second)
    middle = (len(a) + 1) / 2
    over = sum((x - middle) * (y - middle) for x, y in zip(a, b, strict=True))
    under = math.sqrt(sum((x - middle) ** 2 for x in a) * sum((y - middle) ** 2 for y in b))
    return over / under if under else None


def _ranks(values: Sequence[float]) -> list[float]:
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    ]


def kendall(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's tau-b: (concordant − discordant pairs) / √(pairs not tied in one · pairs not tied in the other).

    None: all values of one side are equal. Kendall, "The Treatment of Ties in Ranking Problems", 1945.
    """
    signs = [(_sign(first[i] - first[j]), _sign(second[i] - second[j])) for i, j in combinations(range(len(first)), 2)]
    untied = math.sqrt(sum(x * x for x, _ in signs) * sum(y * y for _, y in signs))
    return sum(x * y for x, y in signs) / untied if untied else None


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
