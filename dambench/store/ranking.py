"""Ranking of cells that differ in nothing but the method: which is best, as far as their seeds can tell."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from dambench.core.sanitize import counted
from dambench.store.cells import Cell, CellKey
from dambench.store.statistics import SIGNIFICANCE, Difference, difference, holm


@dataclass(frozen=True)
class Ranking:
    """The best mean, and which of the others are told from it."""

    best: CellKey
    differences: dict[CellKey, Difference]
    """The best minus each of the others that compete."""
    corrected: dict[CellKey, float]
    """Their p-values by Holm's correction over all of these comparisons, where there is a test."""
    level: frozenset[CellKey]
    """The best, and all that are not told from it at 5 %."""


def competes(cell: Cell) -> bool:
    """Whether a cell's number is the method's: then it may be the best.

    The whole set is the ceiling. A method with fewer than three sets has no claim, and an import of one set is one
    draw of a method that may have made others. But a set that no seed changes is all that its method makes of these
    data: with three networks or more its row competes, by their spread, else a weaker method would stand as the best.
    """
    method = cell.scores[0].base_method
    own = cell.unit == "set" or method != "imported"
    return method != "whole" and own and cell.sample.enough and math.isfinite(cell.mean)


def rank(cells: Mapping[CellKey, Cell]) -> Ranking | None:
    """Compare the best mean with each other one; None: fewer than two cells compete.

    A cell that is better than the best mean where both have the same seeds stays level with it.
    """
    competing = {place: cell for place, cell in cells.items() if competes(cell)}
    if len(competing) < 2:
        return None
    lower = next(iter(competing.values())).metric.better == "lower"
    best = (min if lower else max)(competing, key=lambda place: competing[place].mean)
    differences = {
        place: difference(competing[best].sample, cell.sample) for place, cell in competing.items() if place != best
    }
    tested = {place: one.p for place, one in differences.items() if one.p is not None}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    worse = {
        place
        for place, p in corrected.items()
        if p < SIGNIFICANCE and (differences[place].mean < 0 if lower else differences[place].mean > 0)
    }
    return Ranking(best, differences, corrected, frozenset(competing.keys() - worse))


def missing_seeds(places: Mapping[str, Mapping[CellKey, Cell]]) -> list[str]:
    """Sentences on the seeds that some cells of a place lack and others have.

    Args:
        places: the cells of each, by what all of them share, as a reader calls it.
    """
    lacking: dict[tuple[tuple[int, ...], tuple[str, ...]], list[str]] = {}
    for place, cells in places.items():
        seeds = {cell.scores[0].method: cell.seeds for cell in cells.values() if cell.seeds}
        every = sorted(set().union(*seeds.values())) if seeds else []
        methods: dict[tuple[int, ...], list[str]] = {}
        for method, own in sorted(seeds.items()):
            if missing := tuple(seed for seed in every if seed not in own):
                methods.setdefault(missing, []).append(method)
        for missing, names in methods.items():
            lacking.setdefault((missing, tuple(names)), []).append(place)
    return [
        f"{f'{where}: ' if (where := ', '.join(filter(None, among))) else ''}{', '.join(names)} without "
        f"{_seeds(missing)}, which others have: compared on shared seeds (3 or more; else Welch)."
        for (missing, names), among in lacking.items()
    ]


def _seeds(seeds: tuple[int, ...]) -> str:
    """`seed 1`, `seeds 1, 2`; many are counted."""
    if len(seeds) > 6:
        return counted(len(seeds), "seed")
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
