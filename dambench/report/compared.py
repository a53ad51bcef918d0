"""Rows or runs held against each other: which are meant, how far they are apart, and what can be said of it."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from dambench.core.errors import BadInput, folded
from dambench.core.sanitize import counted, display
from dambench.report import wording
from dambench.report.verdict import coarse
from dambench.store.cells import Cell, Score
from dambench.store.leaderboard import ComparableScores
from dambench.store.metrics import MetricRow
from dambench.store.power import MOST_SEEDS, seeds_needed
from dambench.store.runs import Store
from dambench.store.statistics import ENOUGH, SIGNIFICANCE, Difference, Sample, difference, holm

Condition = tuple[str, Sequence[Any]]
"""On `runs`, in SQL, with its parameters."""


class Side(NamedTuple):
    """What is compared: a row wherever it was measured, or one run."""

    name: str
    """As it was asked for."""
    scores: list[Score]
    kind: Literal["row", "filter", "run"] = "row"


class CommonPlace(NamedTuple):
    """What all that is compared has in common."""

    dataset: str
    ipc: int | None
    network: str
    protocol: str
    tested: tuple[str, ...]

    @property
    def title(self) -> str:
        ipc = "" if self.ipc is None else f" IPC {self.ipc}"
        tested = "".join(f", {how}" for how in self.tested)
        return display(f"{self.dataset}{ipc}, protocol {self.protocol}, trained network {self.network}{tested}", 400)


@dataclass(frozen=True)
class Contestant:
    """A side at a place."""

    name: str
    cell: Cell
    is_run: bool
    """Then its set is meant, not the method."""

    @property
    def sample(self) -> Sample:
        """The values; the networks of a run are the unit, since it is about one set."""
        sample = self.cell.sample
        return replace(sample, unit="network", seeds=()) if self.is_run else sample


@dataclass(frozen=True)
class PairComparison:
    """One side minus another one."""

    a: Contestant
    b: Contestant
    gap: Difference
    p: float | None
    """Corrected over all comparisons at the place, if there are several."""
    corrected: bool

    @property
    def told(self) -> bool:
        return self.p is not None and self.p < SIGNIFICANCE

    @cached_property
    def needed(self) -> int | None:
        """As many seeds of each would tell them apart, if the difference is what it seems; None: not known."""
        return None if self.told else seeds_needed(self.gap, self.a.sample, self.b.sample)


class PlaceComparison(NamedTuple):
    """All comparisons at a place."""

    place: CommonPlace
    contestants: list[Contestant]
    comparisons: list[PairComparison]
    test_images: int


def find(
    store: Store, texts: Sequence[str], metric: MetricRow, only: Condition, where: Callable[[str], Condition]
) -> tuple[ComparableScores, list[Side]]:
    """All scores, and what each text means: a row by its name, runs by a filter, or a run by its id.

    Args:
        only: a condition that all runs meet, but for one that is meant by its id.
        where: the condition of a filter.

    Raises:
        BadInput: a text means nothing, or nothing that has scores; or two mean the same.
    """
    whole = ComparableScores(store, metric, only)
    sides = [_side(store, text.strip(), whole, only, where) for text in texts]
    names = [side.name for side in sides]
    if again := next((name for name in names if names.count(name) > 1), ""):
        raise BadInput(f"{display(again, 80)!r} is there twice: name two rows, runs or filters that differ.")
    return whole, sides


def _side(store: Store, text: str, whole: ComparableScores, only: Condition, where: Callable[[str], Condition]) -> Side:
    chosen = [label for label, base in whole.rows.items() if folded(text) in (folded(label), folded(base))]
    if chosen and (named := [score for score in whole.scores if score.method in chosen]):
        return Side(text, named)
    if re.search("[:=<>|*]", text):
        condition = where(text)
        both = f"{only[0]} and {condition[0]}", (*only[1], *condition[1])
        scores = ComparableScores(store, whole.metric, both, whole).scores
        if not scores:
            raise BadInput(f"The filter {display(text, 80)!r} means no finished run with {whole.metric.full_name}.")
        return Side(text, scores, "filter")
    if not text or not any(run.startswith(text) for run in store.ids()):
        rows = ", ".join(sorted({score.method for score in whole.scores})) or "none yet"
        raise BadInput(
            f"{display(text, 80)!r} is neither a row nor a run, and no filter such as 'method:dm ipc:10'. "
            f"Rows: {display(rows, 400)}."
        )
    run = store.run(text)
    scores = ComparableScores(store, whole.metric, ("runs.id = ?", [run.id]), whole).scores
    if not scores:
        fault = f"is {run.state}" if run.state != "finished" else f"has no {whole.metric.full_name}"
        raise BadInput(f"The run {run.id} {fault}: only finished runs with scores are compared.")
    return Side(f"{scores[0].method}, run {run.id}", scores, "run")


def matches(whole: ComparableScores, sides: Sequence[Side], *, best: bool = False) -> list[PlaceComparison]:
    """All comparisons, place by place: of the first side at each place with every other one.

    Args:
        best: of the side with the best mean there, instead of the first.

    Raises:
        BadInput: no place has two of the sides, a side means several rows at one, or two sides share a run.
    """
    by_place: dict[CommonPlace, dict[str, list[Score]]] = {}
    place_of = attrgetter(*CommonPlace._fields)
    for side in sides:
        by_key: dict[Any, list[Score]] = {}  # hashing a CommonPlace for each of thousands takes longer
        for score in side.scores:
            by_key.setdefault(place_of(score), []).append(score)
        for key, of_place in by_key.items():
            by_place.setdefault(CommonPlace(*key), {}).setdefault(side.name, []).extend(of_place)
    for place in [place for place in by_place if place.ipc is None]:
        sized = [other for other in by_place if other.ipc is not None and other._replace(ipc=None) == place]
        for name, scores in by_place[place].items():  # the whole set stands at each IPC
            for other in sized:
                by_place[other].setdefault(name, []).extend(scores)
    found = []
    for place in sorted(by_place, key=lambda place: (place.dataset, place.ipc is None, place.ipc or 0, *place[2:])):
        here = by_place[place]
        if len(here) < 2:
            continue
        contestants = [_contestant(side, here[side.name], place, whole.metric) for side in sides if side.name in here]
        names = [one.name for one in contestants]
        if again := next((name for name in names if names.count(name) > 1), ""):
            raise BadInput(f"{display(again, 80)!r} is meant twice, at {place.title}: name rows that differ.")
        _check_apart(contestants, place)
        images = whole.test_images.get(place.dataset, 0)
        found.append(PlaceComparison(place, contestants, _compare(contestants, best), images))
    if not found:
        where = "; ".join(f"{display(side.name, 80)}: {_places(side)}" for side in sides)
        raise BadInput(
            "These have no dataset, IPC, protocol and trained network in common, so there is nothing to compare. "
            f"{where}."
        )
    return found


def _check_apart(contestants: Sequence[Contestant], place: CommonPlace) -> None:
    """Refuse two sides with a run in common: the tests take both as independent, or as other sets of one seed."""
    for a, b in combinations(contestants, 2):
        if both := sorted({score.run for score in a.cell.scores} & {score.run for score in b.cell.scores}):
            raise BadInput(
                f"{display(a.name, 80)!r} and {display(b.name, 80)!r} share {counted(len(both), 'run')} of "
                f"{place.title} ({display(', '.join(both), 80)}): name two that have none in common."
            )


def _contestant(side: Side, scores: Sequence[Score], place: CommonPlace, metric: MetricRow) -> Contestant:
    """The side at a place. A name means the row that is called so, or the only one there of that method."""
    rows = sorted({score.method for score in scores})
    named = [row for row in rows if side.kind == "row" and folded(row) == folded(side.name)] or rows
    if len(named) > 1:
        raise BadInput(
            f"{display(side.name, 80)!r} means {len(named)} rows of {place.title}: {display(', '.join(named), 400)}. "
            "Name one."
        )
    cell = Cell(tuple(score for score in scores if score.method == named[0]), metric)
    return Contestant(named[0] if side.kind == "row" else side.name, cell, side.kind == "run")


def _places(side: Side) -> str:
    keys = {(s.dataset, "" if s.ipc is None else f" IPC {s.ipc}", s.protocol, s.network) for s in side.scores}
    places = [f"{dataset}{ipc}, {protocol}, {network}" for dataset, ipc, protocol, network in sorted(keys)]
    return display("; ".join([*places[:4], *([f"{len(places) - 4} more"] if len(places) > 4 else [])]), 400)


def _compare(contestants: Sequence[Contestant], best: bool) -> list[PairComparison]:
    """Compare the first, or the best, with all others."""
    first = contestants[0]
    finite = [one for one in contestants if math.isfinite(one.cell.mean)]
    if best and finite:
        lower = first.cell.metric.better == "lower"
        first = (min if lower else max)(finite, key=lambda one: one.cell.mean)
    others = [one for one in contestants if one is not first]
    gaps = [difference(first.sample, other.sample) for other in others]
    corrected = iter(holm([gap.p for gap in gaps if gap.p is not None]))
    ps = [None if gap.p is None else next(corrected) for gap in gaps]
    return [PairComparison(first, other, gap, p, len(gaps) > 1) for other, gap, p in zip(others, gaps, ps, strict=True)]


def sentence(one: PairComparison) -> str:
    """A comparison in one plain sentence."""
    metric, gap = one.a.cell.metric, one.gap
    a, b = display(one.a.name, 80), display(one.b.name, 80)
    if not math.isfinite(gap.mean):
        return f"{a} against {b}: no number, because {gap.reason or 'a value is not finite'}."
    points = f" {_unit(metric)}".rstrip()
    amount = f"{wording.figure(metric, abs(gap.mean))}{points} {'above' if gap.mean > 0 else 'below'}"
    if gap.mean == 0:
        amount = "equal to"
    if gap.interval is None or one.p is None:
        over = f" over {'seed' if len(gap.seeds) == 1 else 'seeds'} {spans(gap.seeds)}" if gap.seeds else ""
        return f"No claim: the mean of {a} is {amount} that of {b}{over}, but {_why(one)}."
    low, high = (wording.figure(metric, value, sign="+") for value in gap.interval)
    design = (
        f"paired over {counted(len(gap.seeds), 'seed')}" if gap.design == "paired" else f"Welch's test, {_units(one)}"
    )
    how = f"95 % interval {low} to {high}, {design}, p {wording.p_value(one.p)}{' by Holm' if one.corrected else ''}"
    about = " This is about these sets, not the methods." if one.a.is_run or one.b.is_run else ""
    if one.told:
        return f"{a} is {amount} {b} ({how}).{about}"
    return f"{a} and {b} cannot be told apart: {wording.figure(metric, gap.mean, sign='+')}{points} ({how}).{about}"


def _unit(metric: MetricRow) -> str:
    return {"fraction": "points", "seconds": "s", "bytes": "GB"}.get(metric.unit, "")


def _units(one: PairComparison) -> str:
    """`3 sets against 5 networks`."""
    return " against ".join(counted(len(side.sample.values), side.sample.unit) for side in (one.a, one.b))


def _why(one: PairComparison) -> str:
    """What a test lacks, with the sides that lack it."""
    lacking = [
        f"{display(side.name, 80)} has {counted(len(side.sample.values), side.sample.unit)}"
        for side in (one.a, one.b)
        if not side.sample.enough
    ]
    return f"{' and '.join(lacking)}, and a claim takes {ENOUGH}" if lacking else one.gap.reason


def missing_seeds(match: PlaceComparison) -> dict[str, tuple[int, ...]]:
    """The seeds to run next, by the side that lacks them: as many as a claim takes, or as would tell sides apart.

    Those that another side has come first, since the test then pairs them. A side has none that is one set by nature:
    a run, an import, the whole set.
    """
    wanted: dict[str, int] = {}
    for one in match.comparisons:
        if one.told:
            continue
        target = ENOUGH if one.gap.p is None else one.needed
        for side in (one.a, one.b):
            if (
                target is not None
                and not side.is_run
                and side.sample.unit == "set"
                and side.cell.scores[0].base_method != "imported"
            ):
                wanted[side.name] = max(wanted.get(side.name, 0), target)
    every = sorted({score.seed for side in match.contestants for score in side.cell.scores})
    found = {}
    for side in match.contestants:
        own = {score.seed for score in side.cell.scores}
        short = wanted.get(side.name, 0) - side.cell.sets
        if short > 0:
            candidates = [*every, *(seed for seed in range(len(own) + short + len(every)) if seed not in every)]
            found[side.name] = tuple(sorted([seed for seed in candidates if seed not in own][:short]))
    return found


def spans(seeds: Sequence[int]) -> str:
    """`0-4,7`, as `--seeds` takes them."""
    parts: list[list[int]] = []
    for seed in sorted(seeds):
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def advice(match: PlaceComparison, command: Callable[[Contestant, tuple[int, ...]], str]) -> Iterator[str]:
    """Sentences on what to run next, and on how coarse the test set is.

    Args:
        command: that runs these seeds of a side.
    """
    for one in match.comparisons:
        if one.told or one.gap.p is None:
            continue
        names = f"{display(one.a.name, 80)} from {display(one.b.name, 80)}"
        if one.needed is not None:
            yield (
                f"To tell {names} would take about {counted(one.needed, 'seed')} of each, if the difference is what it "
                "seems (power 80 %)."
            )
        elif one.a.sample.unit == one.b.sample.unit == "set":
            yield f"To tell {names} would take more than {MOST_SEEDS} seeds, if the difference is what it seems."
    missing = missing_seeds(match)
    for side in match.contestants:
        seeds = missing.get(side.name)
        if seeds:
            yield f"{counted(len(seeds), 'more seed')} of {display(side.name, 80)}: {command(side, seeds)}"
    if match.contestants[0].cell.metric.full_name == "accuracy.accuracy" and (text := coarse(match.test_images)):
        yield text
