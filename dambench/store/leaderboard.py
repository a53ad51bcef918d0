"""The leaderboard: tables of cells, of all that is comparable. The only place where scores are put together.

Each cell holds the scores of networks that were trained under one protocol on sets made with the same settings: what
could change the meaning of a number is the same for all of them, and rows whose settings differ have names that do.
Of a seed the newest run counts, as a whole: repeating a command adds no evidence. Nothing with another protocol,
evaluation network or dataset is ever in the same table unless it has a row or a column of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

from dambench.core import collection
from dambench.core.errors import unknown
from dambench.core.hard_labels import left_out
from dambench.core.protocol import Protocol
from dambench.store.baselines import Baselines, Missing
from dambench.store.cells import Cell, CellKey, Key, Score, order
from dambench.store.costs import MethodCost, costs
from dambench.store.metrics import ACCURACY, MetricRow
from dambench.store.ranking import missing_seeds, rank
from dambench.store.row_names import FinishedRuns, evaluated_runs, finished_runs, method_label
from dambench.store.rows import RunRow
from dambench.store.runs import Store
from dambench.store.scores import counted_scores
from dambench.store.selection import RunSelection, known_evaluations, selections
from dambench.store.set_bytes import SetBytes, set_bytes
from dambench.store.transfer import CrossArchitecture, cross_architecture

if TYPE_CHECKING:
    from dambench.store.grouping import RunGroup
    from dambench.store.measured import MeasuredPlace

AXES = ("method", "dataset", "ipc", "network", "protocol")
"""What rows and columns can stand for. `network` is the one trained on the set."""

BASELINES = ("random", "whole")


@dataclass
class Table:
    """All that is comparable, and what a reader must know of it."""

    title: str
    metric: MetricRow
    fixed: dict[str, str | int | None]
    """The axes that are neither rows nor columns, with the one value that the whole table has."""
    rows: list[Key]
    columns: list[Key]
    cells: dict[CellKey, Cell]
    majority: dict[Key, float]
    """By column: test accuracy of always answering the most frequent class."""
    best: set[CellKey] = field(default_factory=set)
    """The highest mean of each place, and all that are not told apart from it."""
    transfer: list[CrossArchitecture] = field(default_factory=list)
    """Where columns are networks, of the rows that differ in nothing but the method: how they serve unseen networks."""
    strong: dict[Key, Cell] = field(default_factory=dict)
    """By column: networks trained on the whole set by the strong recipe, which is another protocol."""
    notes: list[str] = field(default_factory=list)


@dataclass
class Leaderboard:
    tables: list[Table]
    costs: list[MethodCost]
    protocols: list[Protocol]
    """Those of the scores that are shown."""
    recipes: dict[str, list[str]]
    """Where settings come from → for what: `dm on digits`."""
    finished: int
    left_out: int
    """Runs that did not finish."""
    diverged: list[str]
    """The ones among them whose loss became no number: what they were, and at which iteration."""
    damaged: list[str]
    """Finished runs whose results are not those of their checksum: left out too."""
    repeated: list[str]
    """Finished runs whose settings, seed, network and protocol a newer one has: left out too."""
    unscored: list[str]
    """Networks that diverged when they were trained on the set of a finished run: they have no score in any table."""
    unmeasured: list[str]
    """Finished runs that lack the metric, since it was not measured yet when they were evaluated: left out too."""
    metric: MetricRow = ACCURACY
    selections: Mapping[str, RunSelection] = field(default_factory=dict)
    """What can be selected of the runs that were evaluated on the way, by run."""
    only: str = ""
    """The filter that all these runs have met."""
    set_bytes: dict[str, SetBytes] = field(default_factory=dict)
    """By a set's SHA-256, where it is known, the bytes of all that it needs."""
    sections: tuple[str, ...] = ()
    """Those that a report of it is to have; empty: the usual ones."""
    groups: "Sequence[RunGroup]" = field(default=(), compare=False)
    """The scores in a tree, where one was asked for."""
    shows: tuple[str, ...] = ()
    """What the cells of a report show, by the names of the report; empty: the metric."""
    baselines: Baselines = field(default_factory=Baselines, compare=False)
    """What the results stand beside, and what is missing there."""
    measured: "Sequence[MeasuredPlace]" = field(default=(), compare=False)
    """What evaluators other than of accuracy have measured, where it was looked up."""
    test_images: dict[str, int] = field(default_factory=dict)
    """Their number, by dataset as tables call it."""

    @cached_property
    def scores(self) -> list[Score]:
        """All that the tables hold, each once, in their order."""
        cells = (cell for table in self.tables for cell in table.cells.values())
        return list({id(score): score for cell in cells for score in cell.scores}.values())

    def costs_of(self, cell: Cell) -> list[MethodCost]:
        """The costs of the runs of a cell, by device."""
        one = cell.scores[0]
        key = one.method, one.dataset, one.ipc, one.network, one.protocol
        return [
            cost for cost in self.costs if (cost.method, cost.dataset, cost.ipc, cost.network, cost.protocol) == key
        ]


@collection.paused()
def leaderboard(
    store: Store,
    rows: Sequence[str] = ("method",),
    columns: Sequence[str] = ("dataset", "ipc"),
    *,
    metric: MetricRow = ACCURACY,
    only: tuple[str, Sequence[Any]] = ("1", ()),
) -> Leaderboard:
    """Tables of all finished runs.

    Args:
        rows, columns: of AXES. The axes that are on neither make tables of their own, one per value.
        metric: what they show. Runs that were measured by another evaluator than accuracy are meant by its metrics.
        only: a condition on `runs` and its parameters: the others are left out everywhere.

    Raises:
        BadInput: an axis is unknown.
    """
    for axis in (*rows, *columns):
        if axis not in AXES:
            raise unknown("axis", axis, AXES)
    only = _meant(metric, only)
    finished_ones = finished_runs(store, only)
    entries, found = evaluated_runs(store, finished_ones, metric.evaluator), finished_ones.scores
    scores, repeated, unscored, unmeasured = counted_scores(store, entries, found, metric)
    protocols, sizes, scores = _sized(store, scores, finished_ones)
    rest = [axis for axis in AXES if axis not in (*rows, *columns)]
    states = {
        row["state"]: row["n"]
        for row in store.query(
            f"select state, count(*) n from runs where deleted_at = '' and {only[0]} group by state", *only[1]
        )
    }
    finished = states.pop("finished", 0)
    shown = {score.protocol for score in scores}
    baselines = Baselines(scores, metric, _smallest_classes(store))
    tables = [_table(store, metric, rest, key, group, rows, columns) for key, group in _in_order(scores, rest)]
    for table in tables:
        table.strong = baselines.strong_by_column(table.cells)
    return Leaderboard(
        tables=tables,
        baselines=baselines,
        costs=costs(entries, found, metric),
        protocols=[protocol for protocol in protocols if protocol.label in shown],
        recipes=_recipes(scores),
        finished=finished,
        left_out=sum(states.values()),
        diverged=_diverged(store, only),
        damaged=list(finished_ones.broken.values()),
        repeated=repeated,
        unscored=unscored,
        selections=selections(store, {score.run for score in scores}, metric, known_evaluations(entries, found)),
        unmeasured=unmeasured,
        metric=metric,
        set_bytes=sizes,
        test_images=_test_images(store, {score.dataset: score.dataset_sha256 for score in scores}),
    )


class ComparableScores:
    """What tables of some finished runs would hold, for those who need no table.

    Args:
        metric, only: as of `leaderboard`.
        among: those of more runs, which are then not read again.
    """

    @collection.paused()
    def __init__(
        self,
        store: Store,
        metric: MetricRow,
        only: tuple[str, Sequence[Any]],
        among: "ComparableScores | None" = None,
    ):
        self.store = store
        self.metric = metric
        read = among.finished if among else None
        self.finished: FinishedRuns = finished_runs(store, _meant(metric, only), among=read)
        self.entries = evaluated_runs(store, self.finished, metric.evaluator)

    @cached_property
    @collection.paused()
    def scores(self) -> list[Score]:
        """The newest run's first."""
        counted = counted_scores(self.store, self.entries, self.finished.scores, self.metric)[0]
        return _sized(self.store, counted, self.finished)[2]

    @cached_property
    def rows(self) -> dict[str, str]:
        """The method of each row that there is, or would be if its runs had scores that count."""
        return {mates.label: mates.run.method for _, mates in self.entries}

    @cached_property
    def test_images(self) -> dict[str, int]:
        """As a leaderboard has them."""
        return _test_images(self.store, {mates.dataset: run.dataset_sha256 for run, mates in self.entries})


def _meant(metric: MetricRow, only: tuple[str, Sequence[Any]]) -> tuple[str, Sequence[Any]]:
    """The condition on runs, with what always holds: they were measured by the metric's evaluator, and runs that were
    made to choose settings by count only where they are asked for."""
    if metric.evaluator != ACCURACY.evaluator:
        only = _measured_by(metric, only)
    return only if "runs.purpose" in only[0] else (f"({only[0]}) and runs.purpose = ''", only[1])


def _sized(
    store: Store, scores: list[Score], finished: FinishedRuns
) -> tuple[list[Protocol], dict[str, SetBytes], list[Score]]:
    """All protocols, the bytes of the sets, and the scores with what their sets carry beyond their protocol."""
    protocols = [
        msgspec.json.decode(row["definition"], type=Protocol)
        for row in store.query("select definition from protocols order by name, sha256")
    ]
    datasets = {run.number: run.dataset_sha256 for run in finished.runs}
    sizes = set_bytes(store.query, {score.set_sha256 for score in scores}, datasets)
    return protocols, sizes, _marked(scores, sizes, protocols)


def _marked(scores: list[Score], sizes: dict[str, SetBytes], protocols: Sequence[Protocol]) -> list[Score]:
    """Mark the scores of sets that carry more than their protocol uses."""
    by_label = {protocol.label: protocol for protocol in protocols}
    carries = {sha256: known.carries for sha256, known in sizes.items()}
    left: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = {}
    marked = []
    for score in scores:
        key = score.protocol, carries.get(score.set_sha256, ())
        if key not in left:
            left[key] = tuple(left_out(by_label[key[0]], key[1])) if key[0] in by_label else ()
        marked.append(msgspec.structs.replace(score, left_out=left[key]) if left[key] else score)
    return marked


def _test_images(store: Store, datasets: Mapping[str, str]) -> dict[str, int]:
    """By dataset.

    Args:
        datasets: their SHA-256, by what tables call them.
    """
    images = {row["sha256"]: row["test_images"] for row in store.query("select sha256, test_images from datasets")}
    return {name: images[sha256] for name, sha256 in datasets.items()}


def missing_beside(store: Store, run: RunRow) -> list[Missing]:
    """What the results of a run lack to be read; nothing, if it is a baseline or has none."""
    if run.state != "finished" or run.method in BASELINES:
        return []
    # No table is made of them: what differs from what is not the question.
    only = "runs.dataset_sha256 = ? and runs.purpose = ''", [run.dataset_sha256]
    scores = ComparableScores(store, ACCURACY, only).scores
    baselines = Baselines(scores, ACCURACY, _smallest_classes(store))
    cells = [
        cell
        for _, group in _in_order(scores, ("network", "protocol"))
        for cell in _cells(ACCURACY, group, ("method",), ("dataset", "ipc")).values()
    ]
    own = [cell for cell in cells if any(score.run == run.id for score in cell.scores)]
    return list(dict.fromkeys(one for cell in own for one in baselines.missing_of(cell)))


def _in_order(scores: Sequence[Score], axes: Sequence[str]) -> list[tuple[Key, list[Score]]]:
    """The scores of each table, in the order of tables."""
    return sorted(_by_table(scores, axes).items(), key=lambda item: order(axes, item[0]))


def _smallest_classes(store: Store) -> dict[str, int]:
    """The images of the smallest class of each dataset, as far as known."""
    sql = "select sha256, (select min(value) from json_each(card, '$.train_counts')) as least from datasets"
    return {row["sha256"]: row["least"] for row in store.query(sql) if isinstance(row["least"], int)}


def _measured_by(metric: MetricRow, only: tuple[str, Sequence[Any]]) -> tuple[str, Sequence[Any]]:
    measured = "exists (select 1 from evaluations where evaluations.run = runs.number and evaluations.evaluator = ?)"
    return f"{only[0]} and {measured}", (*only[1], metric.evaluator)


def _by_table(scores: Sequence[Score], axes: Sequence[str]) -> dict[Key, list[Score]]:
    """The scores of each table, by its values on the axes that are neither rows nor columns."""
    groups: dict[Key, list[Score]] = {}
    key_of = _keys(axes)
    same: dict[Key, list[Key]] = {}
    for score in sorted(scores, key=lambda score: score.ipc is None):
        key = key_of(score)
        # The whole set has no IPC: where each IPC has its own table, it is in all of them.
        if key not in same:
            is_whole = score.ipc is None and "ipc" in axes
            same[key] = [k for k in groups if is_whole and _but_ipc(k, axes) == _but_ipc(key, axes)] or [key]
        for k in same[key]:
            groups.setdefault(k, []).append(score)
    return groups


def _recipes(scores: Sequence[Score]) -> dict[str, list[str]]:
    recipes: dict[str, list[str]] = {}
    for row, recipe in sorted({(f"{score.base_method} on {score.dataset}", score.recipe) for score in scores}):
        if recipe:
            recipes.setdefault(recipe, []).append(row)
    return recipes


def _diverged(store: Store, only: tuple[str, Sequence[Any]]) -> list[str]:
    rows = store.query(
        "select method, overrides, dataset, ipc, seed, diverged_at from runs "
        f"where diverged_at is not null and deleted_at = '' and {only[0]} order by {store.by_age(newest_first=True)}",
        *only[1],
    )
    return [
        f"{method_label(row['method'], row['overrides'])} on {row['dataset']} at IPC {row['ipc']}, seed {row['seed']}, "
        f"at iteration {row['diverged_at']}"
        for row in rows
    ]


def _keys(axes: Sequence[str]) -> Callable[[Score], Key]:
    """Read the values of scores on these axes."""
    if len(axes) > 1:
        return attrgetter(*axes)
    return lambda score: tuple(getattr(score, axis) for axis in axes)


def _but_ipc(key: Key, axes: Sequence[str]) -> Key:
    return tuple(value for axis, value in zip(axes, key, strict=True) if axis != "ipc")


def _table(
    store: Store,
    metric: MetricRow,
    rest: Sequence[str],
    fixed: Key,
    scores: list[Score],
    rows: Sequence[str],
    columns: Sequence[str],
) -> Table:
    cells = _cells(metric, scores, rows, columns)
    table = Table(
        title=", ".join(str(value) for value in fixed if value),
        metric=metric,
        fixed=dict(zip(rest, fixed, strict=True)),
        rows=sorted({row for row, _ in cells}, key=lambda key: order(rows, key)),
        columns=sorted({column for _, column in cells}, key=lambda key: order(columns, key)),
        cells=cells,
        majority={},
        notes=_pooled(cells, rows, columns),
    )
    if metric == ACCURACY:
        table.majority = _majority(store, table)
    if tuple(columns) == ("network",) and len(table.columns) > 1:
        _transfer(table, rows)
    if "method" in (*rows, *columns):
        places = {" ".join(shared): cells for shared, cells in sorted(alike(table, rows, columns).items())}
        for cells in places.values():
            if (ranking := rank(cells)) is not None:
                table.best |= ranking.level
        table.notes += missing_seeds(places)
        _missing_baselines(table, rows, columns)
    return table


def _cells(
    metric: MetricRow, scores: Sequence[Score], rows: Sequence[str], columns: Sequence[str]
) -> dict[CellKey, Cell]:
    groups: dict[CellKey, list[Score]] = {}
    spread: list[Score] = []
    row_of, column_of = _keys(rows), _keys(columns)
    has_ipc = "ipc" in (*rows, *columns)
    for score in scores:
        # The whole set has no IPC: it stands in every column of its dataset.
        if score.ipc is None and has_ipc:
            spread.append(score)
        else:
            groups.setdefault((row_of(score), column_of(score)), []).append(score)
    places: dict[CellKey, set[CellKey]] = {}
    for score in spread:
        key = row_of(score), column_of(score)
        if key not in places:
            alike = [cell for cell in groups if _matches(key, cell, rows, columns)]
            places[key] = {(_fill(key[0], r, rows), _fill(key[1], c, columns)) for r, c in alike} or {key}
        for place in places[key]:
            groups.setdefault(place, []).append(score)
    return {key: Cell(tuple(group), metric) for key, group in groups.items()}


def _majority(store: Store, table: Table) -> dict[Key, float]:
    rates = {row["sha256"]: row["majority"] for row in store.query("select sha256, majority from datasets")}
    majority = {}
    for column in table.columns:
        present = {s.dataset_sha256 for (_, c), cell in table.cells.items() if c == column for s in cell.scores}
        if len(present) == 1:
            majority[column] = rates[present.pop()]
    return majority


def _transfer(table: Table, rows: Sequence[str]) -> None:
    """Add how well the sets of each row serve networks that they were not made for."""
    groups: dict[Key, dict[Key, dict[str, Cell]]] = {}
    for (row, column), cell in table.cells.items():
        shared = tuple(value for axis, value in zip(rows, row, strict=True) if axis != "method")
        groups.setdefault(shared, {}).setdefault(row, {})[str(column[0])] = cell
    names = [str(column[0]) for column in table.columns]
    for shared in sorted(groups, key=_as_text):
        networks = [name for name in names if any(name in cells for cells in groups[shared].values())]
        if len(networks) > 1:
            table.transfer.append(cross_architecture(groups[shared], networks))


def alike(table: Table, rows: Sequence[str], columns: Sequence[str]) -> dict[tuple[str, ...], dict[CellKey, Cell]]:
    """The cells that differ in nothing but the method, by what they share: how they were tested, too."""
    groups: dict[tuple[str, ...], dict[CellKey, Cell]] = {}
    for (row, column), cell in table.cells.items():
        axes = zip((*rows, *columns), (*row, *column), strict=True)
        shared = tuple(_named(axis, value) for axis, value in axes if axis != "method" and value)
        shared += cell.scores[0].tested
        groups.setdefault(shared, {})[row, column] = cell
    return groups


def rivals(table: Table, rows: Sequence[str], columns: Sequence[str], place: CellKey) -> dict[CellKey, Cell]:
    """The cells that differ from this one in nothing but the method, itself among them."""
    return next((cells for cells in alike(table, rows, columns).values() if place in cells), {})


def _named(axis: str, value: str | int | None) -> str:
    return f"IPC {value}" if axis == "ipc" else str(value)


def _matches(key: CellKey, place: CellKey, rows: Sequence[str], columns: Sequence[str]) -> bool:
    """Tell whether a place differs from a key in nothing but method and IPC."""
    for axes, mine, theirs in ((rows, key[0], place[0]), (columns, key[1], place[1])):
        for axis, a, b in zip(axes, mine, theirs, strict=True):
            if axis not in ("ipc", "method") and a != b:
                return False
    return True


def _fill(key: Key, place: Key, axes: Sequence[str]) -> Key:
    return tuple(b if axis == "ipc" else a for axis, a, b in zip(axes, key, place, strict=True))


def _pooled(cells: dict[CellKey, Cell], rows: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Name the cells that hold scores which were computed with different things."""
    where: dict[str, list[str]] = {}
    for (row, column), cell in sorted(cells.items(), key=lambda item: [_as_text(part) for part in item[0]]):
        used: dict[str, set[str]] = {}
        for computed in dict.fromkeys(score.computed for score in cell.scores):
            for name, value in computed:
                used.setdefault(name, set()).add(value)
        axes = zip((*rows, *columns), (*row, *column), strict=True)
        place = " ".join(_named(axis, value) for axis, value in axes if value)
        for name, values in used.items():
            if len(values) > 1:
                where.setdefault(f"{name} {' and '.join(sorted(values))}", []).append(place)
    return [f"Scores of {mix} are pooled: {', '.join(places)}." for mix, places in where.items()]


def _as_text(key: Key) -> list[str]:
    return ["" if value is None else str(value) for value in key]


def _missing_baselines(table: Table, rows: Sequence[str], columns: Sequence[str]) -> None:
    """A result without its floor and ceiling cannot be read: say so."""
    for shared, cells in sorted(alike(table, rows, columns).items()):
        present = {cell.scores[0].base_method for cell in cells.values()}
        absent = [name for name in BASELINES if name not in present]
        if absent and present - set(BASELINES):
            where = f"{' '.join(shared)}: " if shared else ""
            metric, names = next(iter(cells.values())).metric, " and ".join(absent)
            if metric.evaluator == ACCURACY.evaluator:
                table.notes.append(f"{where}{names} not run under this protocol yet.")
            else:  # they may have been run, and not measured so, or cannot have it
                table.notes.append(f"{where}no {metric.full_name} of {names} under this protocol.")
