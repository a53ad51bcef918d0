"""The leaderboard: scores → cells of mean ± std (n). The only place where numbers are aggregated.

Each cell holds the scores of networks that were trained under one protocol on sets made with the same settings: what
could change the meaning of a number is the same for all of them, and rows whose settings differ have names that do.
Of a seed the newest run counts, as a whole: repeating a command adds no evidence. Nothing with another protocol,
evaluation network or dataset is ever in the same table unless it has a row or a column of its own.
"""

import json
import re
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import sqrt
from statistics import median
from typing import Any

import msgspec

from dambench.core.errors import unknown
from dambench.core.files import digest
from dambench.core.protocol import Protocol
from dambench.core.sanitize import counted
from dambench.store.results import damaged
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

ALL_THERE = "(runs.state != 'finished' or count(*) >= coalesce(json_extract(runs.config, '$.eval_repeats'), 1))"
"""Whether they are all: of a finished run fewer were left over when others diverged, and stand for nothing."""

ACCURACY = f"(select iif({ALL_THERE}, avg(accuracy), null) from {OF_RUN})"
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
    """All that the meaning of the number depends on, besides data, network and protocol, as JSON."""
    recipe: str
    """Where those come from that the row does not name."""
    set_sha256: str
    dataset_sha256: str
    run: str
    source: bool = False
    """Whether the network is the one that the set was matched on, whatever the norm of either."""
    loss: float | None = None
    """On the test set; None: it was not finite."""
    tested: tuple[str, ...] = ()
    """How the test images were seen, where it is not the usual way: only scores of one such way are compared."""
    computed: tuple[tuple[str, str], ...] = ()
    """With what, by name: it changes bits at most, and may differ within a cell."""


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
    experts_seconds: float
    """The most that a run spent on experts, which the others found trained; 0: none needed any."""
    distil_seconds: float | None
    """None: these runs have only evaluated sets of others."""
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
    repeated: list[str]
    """Finished runs whose settings, seed, network and protocol a newer one has: left out too."""
    unscored: list[str]
    """Networks that diverged when they were trained on the set of a finished run: they have no score in any table."""
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
        f"select runs.number, (select iif({ALL_THERE}, json_group_array(accuracy), '[]') from {OF_RUN}) as accuracies "
        "from runs "
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
    finished_ones = f"runs.state = 'finished' and runs.deleted_at = '' and {only[0]}"
    broken = damaged(store.query, finished_ones, only[1], store.by_age())
    entries = _entries(store, broken, only)
    scores, repeated, unscored = _counted(store, entries)
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
        costs=_costs(store, entries),
        protocols=[protocol for protocol in protocols if protocol.label in shown],
        recipes=recipes,
        finished=finished,
        left_out=sum(states.values()),
        diverged=_diverged(store, only),
        damaged=list(broken.values()),
        repeated=repeated,
        unscored=unscored,
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


@dataclass
class _Entry:
    """A finished run as one network has seen its set."""

    row: dict[str, Any]
    """Of `runs`, with what the run was computed with."""
    network: str
    traits: dict[str, Any]
    """What its number depends on besides the method's options, by the names that rows tell it by."""
    options: dict[str, Any]
    dataset: str
    """As tables call it."""
    label: str = ""
    """The name of its row."""

    @cached_property
    def settings(self) -> str:
        """All of it as JSON: scores of which this is the same, of one dataset and IPC, are of one kind."""
        return json.dumps([self.row["method"], self.options, self.traits], sort_keys=True)

    @property
    def place(self) -> tuple[str, int | None]:
        return self.row["dataset_sha256"], self.row["ipc"]

    @property
    def kind(self) -> tuple[str, str, int | None]:
        """What scores have in common that are told by one name."""
        return self.settings, *self.place

    @property
    def tested(self) -> tuple[str, ...]:
        """How the test images were seen, where it is not the usual way."""
        usual = {"preprocessing": "mean/std", "tested in": "fp32"}
        return tuple(f"{name} {self.traits[name]}" for name in usual if self.traits[name] != usual[name])


def _entries(store: Store, but: Container[int], only: tuple[str, Sequence[Any]]) -> list[_Entry]:
    """All finished runs, newest first, by the networks that were trained on their sets."""
    rows = store.query(
        f"""
        select runs.number, id, method, runs.dataset, dataset_sha256, ipc, network, protocol, seed, overrides, recipe,
            config, environments.dambench, environments.torch,
            (select json_group_array(distinct network) from scores where scores.run = runs.number) as networks,
            -- In which precision the set was made that this run only evaluates.
            (select json_extract(maker.config, '$.precision') from artifacts join runs maker
                on maker.number = artifacts.run where artifacts.sha256 = json_extract(runs.config, '$.where.made')
                and coalesce(json_extract(maker.config, '$.where.made'), '') = '' limit 1) as made_in
        from runs left join environments on environments.run = runs.number
        where runs.state = 'finished' and runs.deleted_at = '' and {only[0]}
        order by {store.by_age(newest_first=True)}
        """,
        *only[1],
    )
    rows = [row for row in rows if row["number"] not in but]
    datasets = _labels(rows)
    found = []
    for row in rows:
        row["config"] = config = json.loads(row["config"])
        options = config["method"].get("options", {})
        for network in sorted({*json.loads(row.pop("networks")), *config["evaluate_on"]}):
            traits = _traits(row, config, network)
            found.append(_Entry(row, network, traits, options, datasets[row["dataset_sha256"]]))
    _name_rows(found)
    return found


def _traits(row: dict[str, Any], config: dict[str, Any], network: str) -> dict[str, Any]:
    """Every field of RunConfig that is neither an axis, a setting of the method nor the seed, and changes the meaning
    of a score, not only its last bits."""
    precision = config.get("precision", "fp32")
    on_cpu = config.get("where", {}).get("device", "cpu") == "cpu"
    matched = row["network"]
    return {
        "network": matched,
        "preprocessing": config.get("preprocessing", "mean/std"),
        "precision": (row["made_in"] or precision) if matched else "",
        # bf16 is of the real branch alone: networks are then tested as the device does by default.
        "tested in": precision if precision != "bf16" else "fp32" if on_cpu else "tf32",
        "version": config.get("method_version", 1),
        "code": [
            plugin
            for plugin in config.get("plugins", [])
            if plugin["kind"] != "networks" or any(name.startswith(plugin["name"]) for name in (matched, network))
        ],
    }


def _name_rows(entries: Sequence[_Entry]) -> None:
    """Give each entry, newest first, the name of its row: the method, with what sets it apart.

    That is what differs from its recipe, preprocessing other than the usual one, and where entries would still have
    the same name, what differs between them: precision, version and code wherever they stand, else within a dataset
    and IPC, where the newest keeps the name as it is (a recipe may have changed since the older ones were run).
    """
    newest_of: dict[Any, _Entry] = {}
    for entry in entries:
        newest_of.setdefault(entry.kind, entry)
    names = {kind: _told(entry) for kind, entry in newest_of.items()}

    def same(also: Callable[[_Entry], Any]) -> Iterable[list[_Entry]]:
        groups: dict[Any, list[_Entry]] = {}
        for kind, entry in newest_of.items():
            groups.setdefault((method_label(entry.row["method"], names[kind]), also(entry)), []).append(entry)
        return groups.values()

    for trait, words in (("precision", _precision), ("version", _version), ("code", _code)):
        told = ("precision", "tested in") if trait == "precision" else (trait,)
        for group in same(lambda entry: None):
            if len({str([entry.traits[name] for name in told]) for entry in group}) > 1:
                for entry in group:
                    names[entry.kind] |= words(entry.traits)
    for group in same(lambda entry: entry.place):
        newest = group[0].options | {"network": group[0].traits["network"]}
        for entry in group:
            mine = entry.options | {"network": entry.traits["network"]}
            names[entry.kind] |= {
                name: mine.get(name, "not known") for name in newest | mine if mine.get(name) != newest.get(name)
            }
    for group in same(lambda entry: entry.place):
        alike = len({entry.settings for entry in group}) == 1
        for entry in group:
            label = method_label(entry.row["method"], names[entry.kind])
            entry.label = label if alike else f"{label} #{digest(entry.settings.encode())[:4]}"
    for entry in entries:
        entry.label = newest_of[entry.kind].label


def _told(entry: _Entry) -> dict[str, Any]:
    """What differs from the recipe, and how the images were seen, recipe or not."""
    told: dict[str, Any] = json.loads(entry.row["overrides"])
    told.pop("preprocessing", None)
    zca = entry.traits["preprocessing"]
    return (
        told
        | ({"preprocessing": zca} if zca != "mean/std" else {})
        | ({"precision": "bf16"} if entry.traits["precision"] == "bf16" else {})
    )


def _precision(traits: dict[str, Any]) -> dict[str, str]:
    made, tested = traits["precision"] or traits["tested in"], traits["tested in"]
    return ({"precision": made} if made != "fp32" else {}) | (
        {"tested in": tested} if tested != ("fp32" if made == "bf16" else made) else {}
    )


def _version(traits: dict[str, Any]) -> dict[str, Any]:
    return {"version": traits["version"]}


def _code(traits: dict[str, Any]) -> dict[str, str]:
    return {
        plugin.get("package") or plugin["name"]: f"{plugin.get('version', '')} {plugin['sha256'][:8]}".strip()
        for plugin in traits["code"]
    }


def _counted(store: Store, entries: Sequence[_Entry]) -> tuple[list[Score], list[str], list[str]]:
    """The scores that count, newest run first, then which runs were repeated since, and which networks diverged.

    A run of the same settings and seed as another adds no evidence, on this machine or on another whose last bits
    differ: the newest counts, with all its networks, and none of the others'.
    """
    rows = store.query(
        """
        select scores.*, protocols.name as protocol from scores
            join protocols on protocols.sha256 = scores.protocol_sha256
        where scores.final = 1 and scores.run in (select value from json_each(?))
        order by scores.repeat
        """,
        json.dumps(sorted({entry.row["number"] for entry in entries})),
    )
    scores: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for row in rows:
        scores.setdefault((row["run"], row["network"]), []).append(row)
    counted: list[Score] = []
    left: dict[str, bool] = {}
    unscored = []
    seen = set()
    for entry in entries:
        run = entry.row
        final = scores.get((run["number"], entry.network), [])
        if not final and entry.network not in run["config"]["evaluate_on"]:
            continue
        wanted = run["config"].get("eval_repeats", 1)
        if len(final) < wanted:
            unscored.append(
                f"{entry.network} on the set of {entry.label} on {entry.dataset}{_at(run['ipc'])}, seed {run['seed']} "
                f"({wanted - len(final)} of {wanted})"
            )
            continue
        of = (entry.settings, entry.place, run["seed"], entry.network, final[0]["protocol_sha256"])
        left[run["id"]] = left.get(run["id"], True) and of in seen
        if of in seen:
            continue
        seen.add(of)
        counted += [
            Score(
                method=entry.label,
                dataset=entry.dataset,
                ipc=run["ipc"],
                network=entry.network,
                protocol=f"{row['protocol']}#{row['protocol_sha256'][:4]}",
                accuracy=row["accuracy"],
                base_method=run["method"],
                settings=entry.settings,
                recipe=run["recipe"],
                set_sha256=row["set_sha256"],
                dataset_sha256=run["dataset_sha256"],
                run=run["id"],
                source=_plain(entry.network) == _plain(run["network"]),
                loss=row["loss"],
                tested=entry.tested,
                computed=_computed(run),
            )
            for row in final
        ]
    return counted, [run for run, repeated in left.items() if repeated], unscored


def _at(ipc: int | None) -> str:
    return "" if ipc is None else f" at IPC {ipc}"


def _computed(run: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """With what, as far as it is known: it changes bits at most, or should, and is told where it is mixed."""
    where = run["config"].get("where", {})
    deterministic = "deterministic" if run["config"].get("deterministic") else "any"
    known = {
        "dambench": run["dambench"],
        "torch": run["torch"],
        "kind of device": where.get("device", "cpu").partition(":")[0],
        "kind of operations": deterministic,
    }
    return tuple((name, value) for name, value in known.items() if value)


def _plain(network: str) -> str:
    """A network's full name without its norm."""
    return "-".join(part for part in network.split("-") if part not in NORMS)


def _labels(rows: Iterable[dict[str, Any]]) -> dict[str, str]:
    """How each dataset is called; those of the same name are told apart by as much of their hash as that takes."""
    names = {row["dataset_sha256"]: row["dataset"] for row in rows}
    shas: dict[str, list[str]] = {}
    for sha256, name in names.items():
        shas.setdefault(name, []).append(sha256)
    enough = {
        name: next(length for length in range(4, 65) if len({sha[:length] for sha in twins}) == len(twins))
        for name, twins in shas.items()
    }
    return {sha: f"{name}#{sha[: enough[name]]}" if len(shas[name]) > 1 else name for sha, name in names.items()}


def method_label(method: str, overrides: str | dict[str, Any]) -> str:
    """`dm`, or `dm (iterations 50, lr_images 0.1)` where settings differ from the recipe's.

    Of a hash, its beginning is shown.

    Args:
        overrides: those settings, or their JSON.
    """
    changed = json.loads(overrides) if isinstance(overrides, str) else overrides
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
    cells = {place: Cell(tuple(group)) for place, group in found.items()}
    table = Table(
        title=", ".join(value for value in fixed if value),
        fixed=dict(zip(rest, fixed, strict=True)),
        rows=sorted({row for row, _ in cells}, key=lambda key: _order(rows, key)),
        columns=sorted({column for _, column in cells}, key=lambda key: _order(columns, key)),
        cells=cells,
        majority={},
        notes=_pooled(cells, rows, columns),
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
    """The cells that differ in nothing but the method, by what they share: how they were tested, too."""
    found: dict[Key, dict[Place, Cell]] = {}
    for (row, column), cell in table.cells.items():
        axes = zip((*rows, *columns), (*row, *column), strict=True)
        shared = tuple(_named(axis, value) for axis, value in axes if axis != "method" and value)
        shared += cell.scores[0].tested
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


def _pooled(cells: dict[Place, Cell], rows: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Which cells hold scores that were computed with different things."""
    where: dict[str, list[str]] = {}
    for (row, column), cell in sorted(cells.items()):
        used: dict[str, set[str]] = {}
        for score in cell.scores:
            for name, value in score.computed:
                used.setdefault(name, set()).add(value)
        axes = zip((*rows, *columns), (*row, *column), strict=True)
        place = " ".join(_named(axis, value) for axis, value in axes if value)
        for name, values in used.items():
            if len(values) > 1:
                where.setdefault(f"{name} {' and '.join(sorted(values))}", []).append(place)
    return [f"Scores of {what} are pooled: {', '.join(places)}." for what, places in where.items()]


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


def _costs(store: Store, entries: Sequence[_Entry]) -> list[Cost]:
    rows = store.query(
        """
        select runs.number, runs.protocol, scores.network, device_name, threads, device,
            distil.seconds as distil_seconds, distil.peak_memory_bytes as distil_peak,
            coalesce(experts.seconds, 0) as experts_seconds,
            avg(scores.seconds) as evaluate_seconds, max(scores.peak_memory_bytes) as evaluate_peak
        from runs
            join environments on environments.run = runs.number
            left join costs as distil on distil.run = runs.number and distil.phase = 'distil'
            left join costs as experts on experts.run = runs.number and experts.phase = 'experts'
            join scores on scores.run = runs.number
        where runs.number in (select value from json_each(?))
        group by runs.number, scores.network
        """,
        json.dumps(sorted({entry.row["number"] for entry in entries})),
    )
    by_run = {(row["number"], row["network"]): row for row in rows}
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for entry in reversed(entries):
        row = by_run.get((entry.row["number"], entry.network))
        if row is None:
            continue
        device = (
            row["device_name"]
            if row["device"] != "cpu"
            else f"{row['device_name']}, {counted(row['threads'], 'thread')}"
        )
        key = (entry.label, entry.dataset, entry.row["ipc"], row["network"], row["protocol"], device)
        groups.setdefault(key, []).append(row)
    found = []
    for (method, dataset, ipc, network, protocol, device), group in groups.items():
        made = [row for row in group if row["distil_seconds"] is not None]
        found.append(
            Cost(
                method=method,
                dataset=dataset,
                ipc=ipc,
                network=network,
                protocol=protocol,
                experts_seconds=max(row["experts_seconds"] for row in group),
                distil_seconds=median(row["distil_seconds"] for row in made) if made else None,
                distil_peak_bytes=int(median(row["distil_peak"] for row in made)) if made else 0,
                evaluate_seconds=median(row["evaluate_seconds"] for row in group),
                evaluate_peak_bytes=int(median(row["evaluate_peak"] for row in group)),
                device=device,
                runs=len(group),
            )
        )
    axes = ("method", "dataset", "ipc", "network", "protocol")
    return sorted(
        found,
        key=lambda c: (
            _order(axes, (c.method, c.dataset, "" if c.ipc is None else str(c.ipc), c.network, c.protocol)),
            c.device,
        ),
    )
