"""Quantities: what the cells of a table can say, besides the metric that it shows.

Reports and the console make their cells here, so that their numbers agree to the digit.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

from dambench.core.errors import BadInput, named
from dambench.core.sanitize import display
from dambench.core.units import duration, energy, size
from dambench.published.beside import Comparable, beside
from dambench.report import standing, wording
from dambench.report.labels import MISSING, label_of
from dambench.report.wording import TableEntry
from dambench.store.baselines import Ratio, Standing
from dambench.store.cells import Cell, CellKey
from dambench.store.costs import MethodCost
from dambench.store.leaderboard import Leaderboard, Table, alike
from dambench.store.metrics import ACCURACY, MetricRow
from dambench.store.ranking import competes
from dambench.store.statistics import difference

METRIC = "metric"
"""The metric of the table itself: mean ± half of its interval."""

DIFFERS = "≠"
LOSS = MetricRow("accuracy", "loss", "", "lower", "")
MOST_SEEDS = 6
"""Seeds whose means a cell names."""

Value = str | float | int | None
Rivals = Mapping[CellKey, Cell]


@dataclass(frozen=True)
class TableView:
    """A table with its axes, and what several of its cells need."""

    board: Leaderboard
    table: Table
    rows: Sequence[str]
    columns: Sequence[str]

    @cached_property
    def rivals(self) -> Mapping[CellKey, Rivals]:
        """By place, the cells that differ from it in nothing but the method, those that compete, the best first."""
        found: dict[CellKey, Rivals] = {}
        lower = self.table.metric.better == "lower"
        for cells in alike(self.table, self.rows, self.columns).values():
            competing = [place for place, cell in cells.items() if competes(cell)]
            competing.sort(key=lambda place: cells[place].mean * (1 if lower else -1))
            group = {place: cells[place] for place in competing}
            found |= dict.fromkeys(cells, group)
        return found

    @cached_property
    def published(self) -> Mapping[CellKey, Comparable]:
        """By place, the published figure that is the closest.

        Raises:
            BadInput: a file of published figures of the user's has a fault.
        """
        if self.board.metric != ACCURACY:
            return {}
        protocols = {protocol.label: protocol for protocol in self.board.protocols}
        some = ((place, beside(cell, protocols)) for place, cell in self.cells.items())
        return {place: found[0] for place, found in some if found}

    @cached_property
    def sources(self) -> Mapping[str, int]:
        """The number of each source of published figures, in the order of the cells."""
        return {
            source: number
            for number, source in enumerate(dict.fromkeys(one.value.source for one in self.published.values()), 1)
        }

    @cached_property
    def machines(self) -> Mapping[str, str]:
        """By the device of a cost, what a time says of it: where all are one, its threads alone; empty: all alike."""
        devices = {cost.device for place in self.cells if (cost := _cost(self, place)) is not None}
        if len(devices) < 2:
            return {}
        parts = {device: device.rpartition(", ") for device in devices}
        alone = len({name for name, _, _ in parts.values()}) < 2
        return {device: display(threads if alone else device) for device, (_, _, threads) in parts.items()}

    @property
    def cells(self) -> Mapping[CellKey, Cell]:
        """The cells that are shown, line by line."""
        places = ((row, column) for row in self.table.rows for column in self.table.columns)
        return {place: self.table.cells[place] for place in places if place in self.table.cells}


class TableQuantity(NamedTuple):
    """What a cell can say."""

    title: str
    """Above a column; below the name of what it stands for."""
    about: str
    """What its values are, as a clause."""
    entry: Callable[[TableView, CellKey], TableEntry]
    record: Callable[[TableView, CellKey], dict[str, Value]]
    """For programs, unrounded, fractions as such: by the name of a column; always the same names."""
    brief: str = ""
    """As `about`, for a small screen; empty: the same."""


def _interval(view: TableView, place: CellKey) -> TableEntry:
    cell = view.table.cells[place]
    if cell.interval is None:
        return TableEntry(MISSING, wording.networks(cell))
    low, high = (wording.figure(cell.metric, value) for value in cell.interval)
    return TableEntry(f"{low} to {high}" + (wording.ONLY if cell.unit == "network" else ""), wording.networks(cell))


def _interval_record(view: TableView, place: CellKey) -> dict[str, Value]:
    low, high = view.table.cells[place].interval or (None, None)
    return {"interval_low": low, "interval_high": high}


def by_seed(cell: Cell) -> list[tuple[str, float]]:
    """The mean of each set, with the seed that it came of, or its number where no one seed stands for a set."""
    means = [sum(values) / len(values) for values in cell.sample.sets]
    of_sets = [sorted({score.seed for score in scores}) for scores in cell.by_set.values()]
    seeds = cell.seeds or [some[0] for some in of_sets]
    if len(set(seeds)) < len(means) or any(len(some) > 1 for some in of_sets):
        return [(f"set {number}", mean) for number, mean in enumerate(means, 1)]
    return sorted(((str(seed), mean) for seed, mean in zip(seeds, means, strict=True)), key=lambda one: int(one[0]))


def _seeds(view: TableView, place: CellKey) -> TableEntry:
    cell = view.table.cells[place]
    means = [f"{seed}: {wording.figure(cell.metric, mean)}" for seed, mean in by_seed(cell)]
    more = f" and {len(means) - MOST_SEEDS} more" if len(means) > MOST_SEEDS else ""
    return TableEntry(", ".join(means[:MOST_SEEDS]) + more)


def _seeds_record(view: TableView, place: CellKey) -> dict[str, Value]:
    means = by_seed(view.table.cells[place])
    return {"seeds": " ".join(seed for seed, _ in means), "means_by_seed": " ".join(repr(mean) for _, mean in means)}


def _spread(view: TableView, place: CellKey) -> TableEntry:
    cell = view.table.cells[place]
    parts = (cell.spread.between_std, cell.spread.within_std)
    text = "; ".join(MISSING if part is None else wording.figure(cell.metric, part) for part in parts)
    return TableEntry(text, wording.networks(cell))


def _spread_record(view: TableView, place: CellKey) -> dict[str, Value]:
    spread = view.table.cells[place].spread
    return {"between_sets_std": spread.between_std, "within_sets_std": spread.within_std}


def _rank_of(view: TableView, place: CellKey) -> tuple[int, int] | None:
    """The place by the mean among those that compete, and how many do; equal means share the best place."""
    rivals = view.rivals[place]
    if place not in rivals:
        return None
    better = [other for other in rivals.values() if other.mean != rivals[place].mean]
    lower = view.table.metric.better == "lower"
    ahead = [other for other in better if (other.mean < rivals[place].mean) == lower]
    return 1 + len(ahead), len(rivals)


def _rank(view: TableView, place: CellKey) -> TableEntry:
    found = _rank_of(view, place)
    if found is None:
        return TableEntry(MISSING)
    return TableEntry(str(found[0]), f"of {found[1]}", bold=place in view.table.best)


def _rank_record(view: TableView, place: CellKey) -> dict[str, Value]:
    found = _rank_of(view, place)
    return {"rank": None if found is None else found[0], "rank_of": len(view.rivals[place])}


def _difference(view: TableView, place: CellKey) -> TableEntry:
    cell, rivals = view.table.cells[place], view.rivals[place]
    best = next(iter(rivals), None)
    if best is None or cell.scores[0].base_method == "whole":
        return TableEntry(MISSING)
    if best == place:
        return TableEntry("best", bold=place in view.table.best)
    gap = difference(cell.sample, rivals[best].sample)
    if not math.isfinite(gap.mean):
        return TableEntry(MISSING)
    half = MISSING if gap.interval is None else wording.figure(cell.metric, gap.interval.half)
    return TableEntry(f"{wording.figure(cell.metric, gap.mean, sign='+')} ± {half}", bold=place in view.table.best)


def _difference_record(view: TableView, place: CellKey) -> dict[str, Value]:
    cell, rivals = view.table.cells[place], view.rivals[place]
    best = next(iter(rivals), None)
    fields = ("to_best", "to_best_low", "to_best_high", "best_method")
    if best is None or cell.scores[0].base_method == "whole":
        return dict.fromkeys(fields)
    gap = difference(cell.sample, rivals[best].sample)
    ends = (None, None) if best == place else gap.interval or (None, None)
    mean = 0.0 if best == place else gap.mean if math.isfinite(gap.mean) else None
    return dict(zip(fields, (mean, *ends, rivals[best].scores[0].method), strict=True))


def _published(view: TableView, place: CellKey) -> TableEntry:
    found = view.published.get(place)
    if found is None:
        return TableEntry(MISSING)
    recalled = " (recalled)" if found.value.recalled else ""
    return TableEntry(f"{found.value.text}{recalled} [{view.sources[found.value.source]}]")


def _published_record(view: TableView, place: CellKey) -> dict[str, Value]:
    found = view.published.get(place)
    if found is None:
        return {"published": None, "published_source": None}
    return {"published": found.value.value / 100, "published_source": found.value.source}


def _gap(view: TableView, place: CellKey) -> TableEntry:
    found = view.published.get(place)
    if found is None:
        return TableEntry(MISSING)
    return TableEntry(f"{found.gap:+.1f}" + (DIFFERS if found.deviations or found.unstated else ""))


def _gap_record(view: TableView, place: CellKey) -> dict[str, Value]:
    found = view.published.get(place)
    if found is None:
        return {"gap": None, "gap_differs_in": None}
    return {"gap": found.gap / 100, "gap_differs_in": found.differs_in}


def _standing(part: int, view: TableView, place: CellKey) -> TableEntry:
    found = view.board.baselines.standing(view.table.cells[place])
    return TableEntry(MISSING) if found is None else standing.entries(found)[part]


def _ratio_record(name: str, ratio: Callable[[Standing], Ratio], view: TableView, place: CellKey) -> dict[str, Value]:
    found = view.board.baselines.standing(view.table.cells[place])
    if found is None:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    one = ratio(found)
    low, high = one.interval or (None, None)
    return {name: one.value, f"{name}_low": low, f"{name}_high": high}


def _size_record(view: TableView, place: CellKey) -> dict[str, Value]:
    found = view.board.baselines.standing(view.table.cells[place])
    return {"random_ipc": None if found is None else standing.random_size(found.size)}


def _loss(view: TableView, place: CellKey) -> TableEntry:
    cell = view.table.cells[place].of(LOSS)
    return TableEntry(wording.figure(LOSS, cell.mean), wording.networks(cell))


def _loss_record(view: TableView, place: CellKey) -> dict[str, Value]:
    mean = view.table.cells[place].of(LOSS).mean
    return {"loss": mean if math.isfinite(mean) else None}


def _cost(view: TableView, place: CellKey) -> MethodCost | None:
    """What making the sets of a cell cost, on the first of its devices; None: they were only evaluated here."""
    costs = view.board.costs_of(view.table.cells[place])
    return costs[0] if costs and costs[0].distil_seconds is not None else None


def _took(text: Callable[[MethodCost], str], view: TableView, place: CellKey) -> TableEntry:
    cost = _cost(view, place)
    shown = "" if cost is None else text(cost)
    if cost is None or not shown:
        return TableEntry(MISSING)
    machine = view.machines.get(cost.device)
    return TableEntry(shown, f"{cost.runs}, {machine}" if machine else str(cost.runs))


def _joules(cost: MethodCost) -> str:
    shared = " (shared)" if cost.shared else ""
    return "" if cost.distil_joules is None else energy(cost.distil_joules) + shared


def _took_record(names: Sequence[str], view: TableView, place: CellKey) -> dict[str, Value]:
    cost = _cost(view, place)
    return {name: None if cost is None else getattr(cost, name) for name in names}


def _needed(view: TableView, place: CellKey) -> tuple[int, float] | None:
    """Bytes of the largest set of a cell, and its share of the real set; None: not of all sets it is known."""
    cell, sizes = view.table.cells[place], view.board.set_bytes
    known = [sizes[sha256] for sha256 in cell.by_set if sha256 in sizes]
    if len(known) < len(cell.by_set):
        return None
    largest = max(known, key=lambda one: one.total)
    return largest.total, largest.ratio


def _bytes(view: TableView, place: CellKey) -> TableEntry:
    found = _needed(view, place)
    return TableEntry(MISSING) if found is None else TableEntry(size(found[0]), f"{100 * found[1]:.3g} %")


def _bytes_record(view: TableView, place: CellKey) -> dict[str, Value]:
    found = _needed(view, place)
    return {"set_bytes": found and found[0], "share_of_real": found and found[1]}


def _mean(view: TableView, place: CellKey) -> TableEntry:
    return wording.entry(view.table.cells[place], bold=place in view.table.best)


def _nothing_more(view: TableView, place: CellKey) -> dict[str, Value]:
    return {}


QUANTITIES: Mapping[str, TableQuantity] = {
    METRIC: TableQuantity("mean", wording.SHORT, _mean, _nothing_more),
    "interval": TableQuantity("95 % interval", "its ends, over sets (sets × networks)", _interval, _interval_record),
    "seeds": TableQuantity("by seed", "mean of each set, by the seed that it came of", _seeds, _seeds_record),
    "spread": TableQuantity(
        "spread", "standard deviation between sets; within a set (sets × networks)", _spread, _spread_record
    ),
    "rank": TableQuantity(
        "rank", "place by the mean among the methods that compete: whole, and fewer sets than a claim takes, do not",
        _rank, _rank_record, "by the mean, of methods with sets enough for a claim",
    ),
    "difference": TableQuantity(
        "to the best", "less the best of those that compete, over shared seeds where there are enough, ± half of the "
        "95 % interval, uncorrected", _difference, _difference_record, "less the best mean, ± half of 95 % interval",
    ),
    "published": TableQuantity(
        "published", "accuracy in % as the closest paper prints it, ± its standard deviation", _published,
        _published_record,
    ),
    "gap": TableQuantity(
        "gap", f"here minus published, in points; {DIFFERS}: something differs or is not stated, so that it says "
        "nothing of the method", _gap, _gap_record, f"here minus published; {DIFFERS}: not comparable, or not stated",
    ),
    "relative": TableQuantity(
        "of whole", "accuracy in % of that of the whole set (95 % interval)", partial(_standing, 0),
        partial(_ratio_record, "relative_accuracy", lambda found: found.relative),
    ),
    "recovered": TableQuantity(
        "recovered", "% of the gap between random and whole that is recovered (95 % interval)", partial(_standing, 1),
        partial(_ratio_record, "recovered_gap", lambda found: found.recovered),
    ),
    "random-ipc": TableQuantity(
        "random IPC", "random images per class that are as good (95 % interval)", partial(_standing, 2), _size_record
    ),
    "loss": TableQuantity("loss", "mean loss on the test set (sets × networks)", _loss, _loss_record),
    "seconds": TableQuantity(
        "to distil", "time to distil, median (n runs)",
        partial(_took, lambda cost: duration(cost.distil_seconds or 0.0)), partial(_took_record, ["distil_seconds"]),
    ),
    "peak": TableQuantity(
        "peak", "peak memory of distilling, median (n runs)", partial(_took, lambda cost: size(cost.distil_peak_bytes)),
        partial(_took_record, ["distil_peak_bytes"]),
    ),
    "energy": TableQuantity(
        "energy", "energy of the GPU's board while distilling, median (n runs)", partial(_took, _joules),
        partial(_took_record, ["distil_joules"]),
    ),
    "bytes": TableQuantity(
        "bytes", "bytes of the set with all that it needs (share of the real set)", _bytes, _bytes_record
    ),
}  # fmt: skip
"""By name, in the order in which they are offered."""


def read(text: str) -> tuple[str, ...]:
    """Read what cells are to show, as `metric,rank`, in that order; empty: the metric alone.

    Raises:
        BadInput: one is unknown, or there twice.
    """
    chosen = tuple(named("quantity", part.strip(), QUANTITIES) for part in text.split(",") if part.strip())
    if len(set(chosen)) < len(chosen):
        raise BadInput(f"--show {display(text, 60)!r}: each is named once, of {', '.join(QUANTITIES)}.")
    return chosen or (METRIC,)


def shown(board: Leaderboard) -> tuple[str, ...]:
    """What the cells of a board show."""
    return board.shows or (METRIC,)


def short(board: Leaderboard) -> str:
    """What ± is in the cells of a board; empty: they do not show the metric."""
    return wording.SHORT if METRIC in shown(board) else ""


def head(view: TableView, shows: Sequence[str]) -> list[list[str]]:
    """Above each column: what it stands for, a text per axis, and then what it says, where that is not one thing."""
    several = list(shows) != [METRIC]
    heads = [
        [
            *(wording.name([axis], (part,)) for axis, part in zip(view.columns, key, strict=True)),
            *([QUANTITIES[one].title] if several else []),
        ]
        for key in view.table.columns
        for one in shows
    ]
    return heads + ([[name] for name in wording.UNSEEN] if view.table.transfer and METRIC in shows else [])


def lines(view: TableView, shows: Sequence[str]) -> list[tuple[str, list[TableEntry]]]:
    """A name and the entries of each row, one for each column and each of what cells show.

    Below them, where the metric is shown, is what stands below its table.
    """
    table = view.table
    made = []
    usual = wording.lines(table, view.rows)
    for number, (name, entries) in enumerate(usual):
        if number >= len(table.rows) and METRIC not in shows:
            break
        row = table.rows[number] if number < len(table.rows) else None
        line = []
        for column, entry in zip(table.columns, entries, strict=False):
            for one in shows:
                if one == METRIC:
                    line.append(entry)
                elif row is None or (row, column) not in table.cells:
                    line.append(TableEntry(MISSING))
                else:
                    line.append(QUANTITIES[one].entry(view, (row, column)))
        made.append((name, line + (entries[len(table.columns) :] if METRIC in shows else [])))
    return made


def title(table: Table, shows: Sequence[str]) -> str:
    """`Accuracy in %, digits, protocol dc`; where other things are shown, with these in front."""
    whole = wording.title(table)
    if METRIC in shows:
        return whole
    label = label_of(table.metric).in_unit
    said = ", ".join(QUANTITIES[one].title for one in shows)
    return f"{wording.capitalised(said)}{whole.removeprefix(label)}"


def meanings(shows: Sequence[str], *, brief: bool = False) -> list[str]:
    """What the cells say besides the metric, in a sentence each."""
    said = {one: QUANTITIES[one] for one in shows if one != METRIC}
    return [f"{wording.capitalised(one.title)}: {(one.brief if brief else '') or one.about}." for one in said.values()]


def sources(view: TableView, shows: Sequence[str]) -> list[str]:
    """The sources of published figures, where these are shown."""
    if "published" not in shows:
        return []
    return [f"[{number}] {display(source, 400)}." for source, number in view.sources.items()]


def records(view: TableView, place: CellKey, shows: Sequence[str]) -> dict[str, Value]:
    """A cell for programs: what it shows besides the metric."""
    return {name: value for one in shows for name, value in QUANTITIES[one].record(view, place).items()}
