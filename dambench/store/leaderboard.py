"""The leaderboard: scores → cells of mean ± std (n). The only place where numbers are aggregated.

Each cell holds the scores of networks that were trained under one protocol on sets made with the same settings.
The same network trained on the same set counts once, however often it was run: repeating a command adds no
evidence. Nothing with another protocol, evaluation network or dataset is ever in the same table unless it has a
row or a column of its own.
"""

import json
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import sqrt
from statistics import median
from typing import Any

import msgspec

from dambench.display import counted
from dambench.errors import unknown
from dambench.protocol import Protocol
from dambench.store.results import SCORES, damaged
from dambench.store.runs import Store

AXES = ("method", "dataset", "ipc", "network", "protocol")
"""What rows and columns can stand for. `network` is the one trained on the set."""

BASELINES = ("random", "whole")

OF_RUN = """
    scores where scores.run = runs.number and scores.network = json_extract(runs.config, '$.evaluate_on[0]')
        and scores.protocol_sha256 = runs.protocol_sha256
        and scores.iteration = (select max(iteration) from scores where scores.run = runs.number)
"""
"""The scores that stand for a row of `runs`: of its latest set, the first network it is evaluated on."""

ACCURACY = f"(select avg(accuracy) from {OF_RUN})"
"""Their mean, in SQL: for sorting and filtering."""
NORMS = ("in", "bn", "ln", "gn", "nn")
"""As the names of networks spell them."""

SIGNIFICANCE = 0.05
ENOUGH = 3
"""Scores below which no difference is called one."""


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def std(values: Sequence[float]) -> float | None:
    """Sample standard deviation (n − 1); None for fewer than two values."""
    if len(values) < 2:
        return None
    return sqrt(sum((value - mean(values)) ** 2 for value in values) / (len(values) - 1))


@dataclass(frozen=True)
class Score:
    """One network trained on one set."""

    method: str
    """With the settings that differ from its recipe: `dm (iterations 50)`."""
    dataset: str
    ipc: int | None
    network: str
    protocol: str
    accuracy: float
    base_method: str
    settings: str
    """All settings of the method, as JSON."""
    recipe: str
    """Where those come from that the row does not name."""
    set_sha256: str
    dataset_sha256: str
    run: str
    source: bool = False
    """Whether the network is the one that the set was matched on, whatever the norm of either."""
    loss: float | None = None
    """On the test set; None: it was not finite."""


@dataclass(frozen=True)
class Cell:
    """The scores that belong to one row and one column."""

    scores: tuple[Score, ...]

    @property
    def n(self) -> int:
        return len(self.scores)

    @property
    def sets(self) -> int:
        """How many different synthetic sets the networks were trained on."""
        return len(set(self._per_set()))

    @property
    def networks_per_set(self) -> int | None:
        """How many networks were trained on each set; None if not the same number."""
        numbers = {self._per_set().count(sha256) for sha256 in self._per_set()}
        return numbers.pop() if len(numbers) == 1 else None

    def _per_set(self) -> list[str]:
        return [score.set_sha256 for score in self.scores]

    @property
    def mean(self) -> float:
        return mean([score.accuracy for score in self.scores])

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n − 1) over all networks of all sets; None for a single one."""
        return std([score.accuracy for score in self.scores])

    @property
    def interval(self) -> float | None:
        """Half of the 95 % confidence interval of the mean (Student's t), all networks taken as independent.

        None for a single one.
        """
        if self.std is None:
            return None
        from scipy.special import stdtrit  # as in `welch`

        return float(stdtrit(self.n - 1, 0.975)) * self.std / sqrt(self.n)

    @property
    def loss(self) -> float | None:
        """Mean test loss; None: one of them was not finite."""
        losses = [score.loss for score in self.scores if score.loss is not None]
        return mean(losses) if len(losses) == self.n else None


Key = tuple[str, ...]
Place = tuple[Key, Key]
"""A row and a column."""


@dataclass(frozen=True)
class Cost:
    """What a method took for one column, median over its runs."""

    method: str
    dataset: str
    ipc: int | None
    network: str
    protocol: str
    distil_seconds: float
    distil_peak_bytes: int
    evaluate_seconds: float
    """Per network."""
    evaluate_peak_bytes: int
    device: str
    runs: int


@dataclass
class Table:
    """All that is comparable, and what a reader must know of it."""

    title: str
    fixed: dict[str, str]
    """The axes that are neither rows nor columns, with the one value that the whole table has."""
    rows: list[Key]
    columns: list[Key]
    cells: dict[Place, Cell]
    majority: dict[Key, float]
    """By column: test accuracy of always answering the most frequent class."""
    best: set[Place] = field(default_factory=set)
    transfer: dict[Key, tuple[float, float | None]] = field(default_factory=dict)
    """Where columns are networks, by row: the mean accuracy over all of them, and how much higher that on the network
    which was matched on is than the mean of the others. Rows that lack a network have none."""
    notes: list[str] = field(default_factory=list)


@dataclass
class Leaderboard:
    tables: list[Table]
    costs: list[Cost]
    protocols: list[Protocol]
    """Those of the scores that are shown."""
    recipes: dict[str, list[str]]
    """Where settings come from → for what: `dm on digits`."""
    finished: int
    left_out: int
    """Runs that did not finish."""
    diverged: list[str]
    """Of those, the ones whose loss became no number: what they were, and at which iteration."""
    damaged: list[str]
    """Finished runs whose results are not those of their checksum: left out too."""
    only: str = ""
    """The filter that all these runs have met."""

    def costs_of(self, cell: Cell) -> list[Cost]:
        """What the runs of a cell took, by device."""
        one = cell.scores[0]
        key = one.method, one.dataset, one.ipc, one.network, one.protocol
        return [
            cost for cost in self.costs if (cost.method, cost.dataset, cost.ipc, cost.network, cost.protocol) == key
        ]


@dataclass(frozen=True)
class Estimate:
    """A mean and how sure it is."""

    mean: float
    std: float | None
    n: int


def accuracies(store: Store, numbers: Sequence[int]) -> dict[int, Estimate]:
    """By the run's number: the accuracy of its latest set; of a run without scores nothing."""
    found: dict[int, list[float]] = {}
    for row in store.query(
        f"select runs.number, (select json_group_array(accuracy) from {OF_RUN}) as accuracies from runs "
        "where runs.number in (select value from json_each(?))",
        json.dumps(list(numbers)),
    ):
        found[row["number"]] = json.loads(row["accuracies"])
    return {number: Estimate(mean(values), std(values), len(values)) for number, values in found.items() if values}


def course(store: Store, number: int) -> list[tuple[int, Estimate]]:
    """A run's accuracy after each iteration at which it was evaluated, of the first network."""
    found: dict[int, list[float]] = {}
    for row in store.query(
        """
        select iteration, accuracy from scores join runs on runs.number = scores.run
        where runs.number = ? and scores.network = json_extract(runs.config, '$.evaluate_on[0]')
            and scores.protocol_sha256 = runs.protocol_sha256
        order by iteration
        """,
        number,
    ):
        found.setdefault(row["iteration"], []).append(row["accuracy"])
    return [(iteration, Estimate(mean(values), std(values), len(values))) for iteration, values in found.items()]


def leaderboard(
    store: Store,
    rows: Sequence[str] = ("method",),
    columns: Sequence[str] = ("dataset", "ipc"),
    *,
    only: tuple[str, Sequence[Any]] = ("1", ()),
) -> Leaderboard:
    """Tables of all finished runs.

    Args:
        rows, columns: of AXES. The axes that are on neither make tables of their own, one per value.
        only: a condition on `runs` and its parameters: the others are left out everywhere.

    Raises:
        BadInput: an axis is unknown.
    """
    for axis in (*rows, *columns):
        if axis not in AXES:
            raise unknown("axis", axis, AXES)
    broken = damaged(
        store.query(
            f"{SCORES} where state = 'finished' and deleted_at = '' and {only[0]} order by {store.by_age()}", *only[1]
        )
    )
    scores = list(_scores(store, broken, only))
    rest = [axis for axis in AXES if axis not in (*rows, *columns)]
    groups: dict[Key, list[Score]] = {}
    for score in sorted(scores, key=lambda score: score.ipc is None):
        key = _key(score, rest)
        # The whole set has no IPC: where each IPC has its own table, it is in all of them.
        same = [k for k in groups if score.ipc is None and "ipc" in rest and _but_ipc(k, rest) == _but_ipc(key, rest)]
        for k in same or [key]:
            groups.setdefault(k, []).append(score)
    states = {
        row["state"]: row["n"]
        for row in store.query(
            f"select state, count(*) n from runs where deleted_at = '' and {only[0]} group by state", *only[1]
        )
    }
    finished = states.pop("finished", 0)
    recipes: dict[str, list[str]] = {}
    for what, recipe in sorted({(f"{score.base_method} on {score.dataset}", score.recipe) for score in scores}):
        if recipe:
            recipes.setdefault(recipe, []).append(what)
    shown = {score.protocol for score in scores}
    protocols = [
        msgspec.json.decode(row["definition"], type=Protocol)
        for row in store.query("select definition from protocols order by name, sha256")
    ]
    return Leaderboard(
        tables=[
            _table(store, rest, key, group, rows, columns)
            for key, group in sorted(groups.items(), key=lambda item: _order(rest, item[0]))
        ],
        costs=_costs(store, broken, only),
        protocols=[protocol for protocol in protocols if protocol.label in shown],
        recipes=recipes,
        finished=finished,
        left_out=sum(states.values()),
        diverged=_diverged(store, only),
        damaged=list(broken.values()),
    )


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


def _scores(store: Store, but: Container[int], only: tuple[str, Sequence[Any]]) -> Iterator[Score]:
    """Every final score of a finished run, newest run first.

    A run of the same configuration and seed as another adds no evidence, on this machine or on another whose last
    bits differ: the newest counts.
    """
    rows = store.query(
        f"""
        select runs.id, runs.method, runs.dataset, runs.dataset_sha256, runs.ipc, runs.overrides, runs.seed,
            runs.config, runs.recipe, runs.network as matched_on, protocols.name as protocol, scores.*
        from scores join runs on runs.number = scores.run join protocols on protocols.sha256 = scores.protocol_sha256
        where scores.final = 1 and runs.state = 'finished' and runs.deleted_at = '' and {only[0]}
        order by {store.by_age(newest_first=True)}, scores.network, scores.repeat
        """,
        *only[1],
    )
    rows = [row for row in rows if row["run"] not in but]
    labels = _labels(rows)
    seen = set()
    for row in rows:
        method = method_label(row["method"], row["overrides"])
        settings = json.dumps(json.loads(row["config"])["method"], sort_keys=True)
        made = (settings, row["matched_on"], row["dataset_sha256"], row["ipc"], row["seed"])
        identity = (*made, row["network"], row["protocol_sha256"], row["repeat"])
        if identity in seen:
            continue
        seen.add(identity)
        yield Score(
            method=method,
            dataset=labels[row["dataset_sha256"]],
            ipc=row["ipc"],
            network=row["network"],
            protocol=f"{row['protocol']}#{row['protocol_sha256'][:4]}",
            accuracy=row["accuracy"],
            base_method=row["method"],
            settings=settings,
            recipe=row["recipe"],
            set_sha256=row["set_sha256"],
            dataset_sha256=row["dataset_sha256"],
            run=row["id"],
            source=_plain(row["network"]) == _plain(row["matched_on"]),
            loss=row["loss"],
        )


def _plain(network: str) -> str:
    """A network's full name without its norm."""
    return "-".join(part for part in network.split("-") if part not in NORMS)


def _labels(rows: Iterable[dict[str, Any]]) -> dict[str, str]:
    """How each dataset is called; two of the same name are told apart by the start of their hash."""
    names = {row["dataset_sha256"]: row["dataset"] for row in rows}
    twins = {name for name in names.values() if list(names.values()).count(name) > 1}
    return {sha: f"{name}#{sha[:4]}" if name in twins else name for sha, name in names.items()}


def method_label(method: str, overrides: str) -> str:
    """`dm`, or `dm (iterations 50, lr_images 0.1)` where settings differ from the recipe's.

    Of a hash, its beginning is shown.
    """
    changed = json.loads(overrides)
    if not changed:
        return method
    said = ((name, re.sub(r"\b([0-9a-f]{8})[0-9a-f]{56}\b", r"\1", str(value))) for name, value in changed.items())
    return f"{method} ({', '.join(f'{name} {value}' for name, value in sorted(said))})"


def _key(score: Score, axes: Sequence[str]) -> Key:
    return tuple("" if getattr(score, axis) is None else str(getattr(score, axis)) for axis in axes)


def _but_ipc(key: Key, axes: Sequence[str]) -> Key:
    return tuple(value for axis, value in zip(axes, key, strict=True) if axis != "ipc")


def _order(axes: Sequence[str], key: Key) -> tuple[Any, ...]:
    """Random first, whole last, numbers as numbers."""
    parts: list[Any] = []
    for axis, value in zip(axes, key, strict=True):
        base = value.partition(" ")[0]
        rank = {"random": 0, "whole": 2}.get(base, 1) if axis == "method" else 1
        parts.append((rank, int(value) if axis == "ipc" and value else 0, value))
    return tuple(parts)


def _table(
    store: Store,
    rest: Sequence[str],
    fixed: Key,
    scores: list[Score],
    rows: Sequence[str],
    columns: Sequence[str],
) -> Table:
    notes: list[str] = []
    found: dict[Place, list[Score]] = {}
    spread: list[Score] = []
    for score in scores:
        # The whole set has no IPC: it stands in every column of its dataset.
        if score.ipc is None and "ipc" in (*rows, *columns):
            spread.append(score)
        else:
            found.setdefault((_key(score, rows), _key(score, columns)), []).append(score)
    for score in spread:
        key = _key(score, rows), _key(score, columns)
        places = {(r, c) for r, c in found if _matches(key, (r, c), rows, columns)}
        for r, c in {(_fill(key[0], r, rows), _fill(key[1], c, columns)) for r, c in places} or {key}:
            found.setdefault((r, c), []).append(score)
    cells = {place: Cell(tuple(_newest(group, place, notes))) for place, group in found.items()}
    table = Table(
        title=", ".join(value for value in fixed if value),
        fixed=dict(zip(rest, fixed, strict=True)),
        rows=sorted({row for row, _ in cells}, key=lambda key: _order(rows, key)),
        columns=sorted({column for _, column in cells}, key=lambda key: _order(columns, key)),
        cells=cells,
        majority={},
        notes=notes,
    )
    rates = {row["sha256"]: row["majority"] for row in store.query("select sha256, majority from datasets")}
    for column in table.columns:
        present = {s.dataset_sha256 for (_, c), cell in cells.items() if c == column for s in cell.scores}
        if len(present) == 1:
            table.majority[column] = rates[present.pop()]
    if tuple(columns) == ("network",) and len(table.columns) > 1:
        _transfer(table)
    if "method" in (*rows, *columns):
        for rivals in _alike(table, rows, columns).values():
            if (best := _best(rivals)) is not None:
                table.best.add(best)
        _missing_baselines(table, rows, columns)
    return table


def _transfer(table: Table) -> None:
    """How well the sets of each row serve networks that they were not made for."""
    for row in table.rows:
        cells = [table.cells.get((row, column)) for column in table.columns]
        there = [cell for cell in cells if cell is not None]
        if len(there) < len(cells):
            continue
        source = [cell.mean for cell in there if any(score.source for score in cell.scores)]
        others = [cell.mean for cell in there if not any(score.source for score in cell.scores)]
        drop = source[0] - mean(others) if len(source) == 1 and others else None
        table.transfer[row] = mean([cell.mean for cell in there]), drop


def _alike(table: Table, rows: Sequence[str], columns: Sequence[str]) -> dict[Key, dict[Place, Cell]]:
    """The cells that differ in nothing but the method, by what they share."""
    found: dict[Key, dict[Place, Cell]] = {}
    for (row, column), cell in table.cells.items():
        axes = zip((*rows, *columns), (*row, *column), strict=True)
        shared = tuple(_named(axis, value) for axis, value in axes if axis != "method" and value)
        found.setdefault(shared, {})[row, column] = cell
    return found


def rivals(table: Table, rows: Sequence[str], columns: Sequence[str], place: Place) -> dict[Place, Cell]:
    """The cells that differ from this one in nothing but the method, itself among them."""
    return next((cells for cells in _alike(table, rows, columns).values() if place in cells), {})


def _named(axis: str, value: str) -> str:
    return f"IPC {value}" if axis == "ipc" else value


def _matches(key: Place, place: Place, rows: Sequence[str], columns: Sequence[str]) -> bool:
    """Whether a place differs from a key in nothing but method and IPC."""
    for axes, mine, theirs in ((rows, key[0], place[0]), (columns, key[1], place[1])):
        for axis, a, b in zip(axes, mine, theirs, strict=True):
            if axis not in ("ipc", "method") and a != b:
                return False
    return True


def _fill(key: Key, place: Key, axes: Sequence[str]) -> Key:
    return tuple(b if axis == "ipc" else a for axis, a, b in zip(axes, key, place, strict=True))


def _newest(scores: list[Score], place: Place, notes: list[str]) -> list[Score]:
    """Those made with the settings of the newest run: a recipe may have changed since older ones."""
    kept = [score for score in scores if score.settings == scores[0].settings]
    if len(kept) < len(scores):
        where = " ".join(part for key in place for part in key if part)
        notes.append(f"{where}: {len(scores) - len(kept)} older scores with other settings are left out.")
    return kept


def _best(cells: dict[Place, Cell]) -> Place | None:
    """The cell whose mean is highest and differs from each other's beyond chance; none otherwise.

    Welch's t-test against each other cell, Holm's correction over them, at 5 %. The whole set does not compete.
    """
    rivals = {place: cell for place, cell in cells.items() if cell.scores[0].base_method != "whole"}
    if len(rivals) < 2 or any(cell.n < ENOUGH for cell in rivals.values()):
        return None
    best = max(rivals, key=lambda place: rivals[place].mean)
    values = sorted(welch(rivals[best], cell) for place, cell in rivals.items() if place != best)
    held = all(p < SIGNIFICANCE / (len(values) - rank) for rank, p in enumerate(values))
    return best if held else None


def welch(a: Cell, b: Cell) -> float:
    """Two-sided p-value of Welch's t-test for equal means. Both cells have at least two scores."""
    from scipy.special import stdtr  # takes longer to import than all that `dambench runs` needs

    spread_a, spread_b = (a.std or 0.0) ** 2 / a.n, (b.std or 0.0) ** 2 / b.n
    if spread_a + spread_b == 0:
        return 1.0 if a.mean == b.mean else 0.0
    t = abs(a.mean - b.mean) / sqrt(spread_a + spread_b)
    freedom = (spread_a + spread_b) ** 2 / (spread_a**2 / (a.n - 1) + spread_b**2 / (b.n - 1))
    return float(2 * stdtr(freedom, -t))


def _missing_baselines(table: Table, rows: Sequence[str], columns: Sequence[str]) -> None:
    """A result without its floor and ceiling cannot be read: say so."""
    for shared, cells in sorted(_alike(table, rows, columns).items()):
        present = {cell.scores[0].base_method for cell in cells.values()}
        absent = [name for name in BASELINES if name not in present]
        if absent and present - set(BASELINES):
            where = f"{' '.join(shared)}: " if shared else ""
            table.notes.append(f"{where}{' and '.join(absent)} not run under this protocol yet.")


def _costs(store: Store, but: Container[int], only: tuple[str, Sequence[Any]]) -> list[Cost]:
    rows = store.query(
        f"""
        select method, runs.overrides, runs.dataset, runs.dataset_sha256, runs.ipc, runs.protocol, scores.network,
            device_name, threads, device, runs.number,
            distil.seconds as distil_seconds, distil.peak_memory_bytes as distil_peak,
            avg(scores.seconds) as evaluate_seconds, max(scores.peak_memory_bytes) as evaluate_peak
        from runs
            join environments on environments.run = runs.number
            join costs as distil on distil.run = runs.number and distil.phase = 'distil'
            join scores on scores.run = runs.number
        where runs.state = 'finished' and runs.deleted_at = '' and {only[0]}
        group by runs.number, scores.network order by {store.by_age()}
        """,
        *only[1],
    )
    rows = [row for row in rows if row["number"] not in but]
    labels = _labels(rows)
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        device = (
            row["device_name"]
            if row["device"] != "cpu"
            else f"{row['device_name']}, {counted(row['threads'], 'thread')}"
        )
        method = method_label(row["method"], row["overrides"])
        key = (method, labels[row["dataset_sha256"]], row["ipc"], row["network"], row["protocol"], device)
        groups.setdefault(key, []).append(row)
    found = [
        Cost(
            method=method,
            dataset=dataset,
            ipc=ipc,
            network=network,
            protocol=protocol,
            distil_seconds=median(row["distil_seconds"] for row in group),
            distil_peak_bytes=int(median(row["distil_peak"] for row in group)),
            evaluate_seconds=median(row["evaluate_seconds"] for row in group),
            evaluate_peak_bytes=int(median(row["evaluate_peak"] for row in group)),
            device=device,
            runs=len(group),
        )
        for (method, dataset, ipc, network, protocol, device), group in groups.items()
    ]
    axes = ("method", "dataset", "ipc", "network", "protocol")
    return sorted(
        found,
        key=lambda c: (
            _order(axes, (c.method, c.dataset, "" if c.ipc is None else str(c.ipc), c.network, c.protocol)),
            c.device,
        ),
    )
