"""`--budget 8h`: which runs of a sweep or suite fit, so that its table is useful at any time.

The order is that of the plan: one seed of everything before the second of anything, baselines first. Where not even one
seed of everything fits, the rows that take longest are made by shorter recipes of their methods, which have a name
(`brief`); nothing else is shortened. What has no estimate is left out, and named.
"""

import heapq
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from dambench.cli.plans import PlannedRun, named
from dambench.core.errors import BadInput
from dambench.core.sanitize import counted, display
from dambench.core.units import duration

UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
MOST_NAMED = 8
"""Rows that a sentence names."""
PART, LEAST, MOST = 0.05, 60.0, 600.0
"""The share of a budget that may be spent on measuring what no past run tells; seconds, at least and at most."""
QUARTER = 0.25
"""The share of a short budget, of which LEAST would leave nothing to work in."""
SHARE = 0.6
"""The part of the measuring that is of the usual recipes; the rest is of shorter ones."""

Variants = Callable[[PlannedRun], Sequence[PlannedRun]]
"""The same run by each shorter recipe that its method has a name for, with what it takes."""


def seconds_of(text: str) -> float:
    """The seconds of a budget: `45m`, `8h`, `1d12h`.

    Raises:
        BadInput: it is none.
    """
    parts = re.findall(r"(\d{1,6}(?:\.\d{1,3})?)\s*(min|[smhd])\s*", text.strip())
    whole = re.fullmatch(r"(?:\d{1,6}(?:\.\d{1,3})?\s*(?:min|[smhd])\s*)+", text.strip())
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    if not whole or not seconds > 0:
        raise BadInput(f"--budget {display(text, 40)!r} is no time: 45m, 8h or 1d12h are.")
    return seconds


def patience_of(budget: float) -> float:
    """Seconds that may be spent on measuring, of a budget that is then worked on."""
    return min(MOST, max(PART * budget, min(LEAST, QUARTER * budget)))


@dataclass
class Fitting:
    """What of a plan fits a budget."""

    budget: float
    """Seconds, those included that are spent already."""
    at_once: int
    taken: list[PlannedRun] = field(default_factory=list)
    """In the plan's order; those by a shorter recipe stand in the place of the others."""
    seconds: float = 0.0
    """Until the last of them is done, by their estimates."""
    shortened: dict[str, tuple[str, float | None, float]] = field(default_factory=dict)
    """By row: the recipe, and the seconds of a run by the usual one and by this."""
    too_long: list[PlannedRun] = field(default_factory=list)
    unknown: list[PlannedRun] = field(default_factory=list)
    unprepared: int = 0
    """Runs of which nothing is told before their data are prepared."""
    spent: float = 0.0
    """Seconds of the budget that the plan, and what was made before it, took."""

    @property
    def rest(self) -> float:
        """Seconds that the runs leave."""
        return self.budget - self.spent - self.seconds

    def sentences(self) -> list[str]:
        """What was taken, shortened and left out, and why."""
        at_once = "" if self.at_once == 1 else f", {self.at_once} at once"
        new = sum(one.standing != "done" for one in self.taken)  # by a shorter recipe some may be there already
        spent = f", {duration(self.spent)} spent already" if self.spent >= 1 else ""
        lines = [
            f"Budget {duration(self.budget)}{spent}{at_once}: {counted(new, 'run')} fit, in about "
            f"{duration(self.seconds)} by their estimates."
        ]
        for row, (recipe, usual, short) in self.shortened.items():
            before = "– (no estimate)" if usual is None else duration(usual)
            lines.append(f"Shortened: {row} by its recipe {recipe}, {duration(short)} for {before} a seed.")
        for runs, why in ((self.too_long, "do not fit"), (self.unknown, "have no estimate, and nothing is guessed")):
            if runs:
                lines.append(f"Left out: {counted(len(runs), 'run')} that {why}: {_rows(runs)}.")
        if self.too_long and not self.taken:
            shortest = min(self.too_long, key=_Schedule(1).length)
            took = duration(_Schedule(1).length(shortest))
            lines.append(f"Nothing can be begun: the shortest takes {took}, {named(shortest.point) or 'it'}.")
        elif self.unknown and not self.taken:
            lines.append(
                "Nothing can be begun: what was run once needs no measuring, and a longer budget has more time for it."
            )
        if self.unprepared:
            lines.append(
                f"Not estimated: {counted(self.unprepared, 'run')} whose data are not prepared. Without --dry-run they "
                "are prepared first, and measured."
            )
        return lines


def _rows(runs: Sequence[PlannedRun]) -> str:
    """Runs in words, those of a row together."""
    seeds: dict[str, list[int]] = {}
    for one in runs:
        seeds.setdefault(named(one.point) or "it", []).append(one.point.seed)
    some = [f"{row} (seed {', '.join(map(str, each[:5]))})" for row, each in list(seeds.items())[:MOST_NAMED]]
    more = f"; and {counted(len(seeds) - MOST_NAMED, 'row')} more" if len(seeds) > MOST_NAMED else ""
    return "; ".join(some) + more


class _Schedule:
    """Runs on slots, each begun as soon as one is free, in their order."""

    def __init__(self, at_once: int):
        self.ends = [0.0] * at_once
        self.works: set[str] = set()

    def end(self, one: PlannedRun) -> float:
        """When a run would be done if it came next. What it shares comes with whoever is first."""
        return self.ends[0] + self.length(one)

    def length(self, one: PlannedRun) -> float:
        work = one.work
        first = (work.seconds or 0.0) if work is not None and work.key not in self.works else 0.0
        return first + (one.seconds or 0.0)

    def add(self, one: PlannedRun) -> None:
        heapq.heapreplace(self.ends, self.end(one))
        if one.work is not None:
            self.works.add(one.work.key)


def _is_known(one: PlannedRun) -> bool:
    return one.seconds is not None and (one.work is None or one.work.seconds is not None)


def _last(runs: Sequence[PlannedRun], at_once: int) -> float:
    """When the last of these is done."""
    schedule = _Schedule(at_once)
    for one in runs:
        schedule.add(one)
    return max(schedule.ends)


def fit(
    planned: Sequence[PlannedRun],
    standings: Collection[str],
    budget: float,
    at_once: int,
    variants: Variants,
    since: Callable[[], float] = lambda: 0.0,
) -> Fitting:
    """Choose the runs that fit.

    Args:
        planned: all runs of a table, in their order.
        standings: of those that are to be made.
        budget: seconds, until the last is done.
        at_once: how many are made at once.
        variants: asked for rows that are too long, only. It may measure.
        since: the seconds of the budget that are spent already, now.
    """
    found = Fitting(budget, at_once, unprepared=sum(one.standing == "data not prepared" for one in planned))
    budget -= since()
    rows: dict[str, list[PlannedRun]] = {}
    begun: set[str] = set()  # rows that have a seed: the next can wait, and is made as that was
    for one in planned:
        row = one.kind or named(one.point)
        if one.standing in standings:
            rows.setdefault(row, []).append(one)
        if one.standing in ("done", "to resume", "running"):
            begun.add(row)
    chosen: dict[str, list[PlannedRun]] = dict(rows)

    def first_seeds(without: Collection[str] = ()) -> list[PlannedRun]:
        left = begun | {*without}
        return [runs[0] for row, runs in chosen.items() if row not in left and _is_known(runs[0])]

    shorter: dict[str, list[PlannedRun]] = {}
    if _last(first_seeds(), at_once) > budget or any(not _is_known(runs[0]) for runs in rows.values()):
        asked = {row: runs for row, runs in rows.items() if row not in begun}
        shorter = {row: short for row, runs in asked.items() if (short := _shorter(runs, variants))}
    found.spent = since()
    budget = found.budget - found.spent
    for row, runs in rows.items():  # those that cannot be made otherwise
        alone = _Schedule(1).length(runs[0])
        if row in shorter and (not _is_known(runs[0]) or alone > budget):
            if _Schedule(1).length(shorter[row][0]) <= budget:
                chosen[row] = shorter[row]
            del shorter[row]
    never = {row for row, runs in chosen.items() if _Schedule(1).length(runs[0]) > budget}
    while shorter and _last(first_seeds(never), at_once) > budget:
        row = max(shorter, key=lambda row: _saved(rows[row], shorter[row]))
        chosen[row] = shorter.pop(row)
    place = {id(one): (row, number) for row, runs in rows.items() for number, one in enumerate(runs)}
    schedule = _Schedule(at_once)
    for usual_run in planned:
        if id(usual_run) not in place:
            continue
        row, number = place[id(usual_run)]
        one = chosen[row][number]
        if not _is_known(one):
            found.unknown.append(one)
        elif schedule.end(one) > budget:
            found.too_long.append(one)
        else:
            schedule.add(one)
            found.taken.append(one)
    taken = {id(one) for one in found.taken}
    for row, runs in chosen.items():
        if runs is not rows[row] and any(id(one) in taken and one.standing != "done" for one in runs):
            usual = rows[row][0].seconds if _is_known(rows[row][0]) else None
            recipe = str(runs[0].point.request.recipe)
            found.shortened[named(rows[row][0].point) or "it"] = recipe, usual, runs[0].seconds or 0.0
    found.seconds = max(schedule.ends)
    return found


def _shorter(runs: Sequence[PlannedRun], variants: Variants) -> list[PlannedRun] | None:
    """The runs of a row by the shortest recipe that has a name, if one is shorter."""
    first = runs[0]
    known = [one for one in variants(first) if _is_known(one) and _is_shorter(one, first)]
    if not known:
        return None
    best = min(known, key=_Schedule(1).length)
    recipe = best.point.request.recipe
    made: list[PlannedRun] = []
    for one in runs:
        same = [each for each in variants(one) if each.point.request.recipe == recipe]
        if not same:
            return None
        made.append(same[0])
    return made


def _saved(usual: Sequence[PlannedRun], short: Sequence[PlannedRun]) -> float:
    return _Schedule(1).length(usual[0]) - _Schedule(1).length(short[0])


def _is_shorter(one: PlannedRun, usual: PlannedRun) -> bool:
    """Whether a run is shorter by what both take, or where that is not known of the usual one, by its iterations."""
    if _is_known(usual):
        return _Schedule(1).length(one) < _Schedule(1).length(usual)
    return 0 < one.iterations < usual.iterations
