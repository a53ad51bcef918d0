"""What evaluators other than of accuracy have measured: by place and method, with what is missing beside it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from dambench.core.natural import natural
from dambench.store.cells import Cell, Score, order
from dambench.store.leaderboard import BASELINES, leaderboard
from dambench.store.metrics import ACCURACY, MetricRow, metrics
from dambench.store.runs import Store

MOST_SUBJECTS = 6
"""Subjects of a place that have a table each; of more there is a count."""


USUAL: Mapping[str, Mapping[str, Any]] = {
    "continual": {"steps": 0, "orders": 5, "order_seed": 0},
    "nas": {
        **{"space": "convnets", "max_width": 64, "networks": None, "sample_seed": 0, "top": 10},
        **{"epochs": 0, "reference_epochs": 0, "reference_images": 0, "reference_seed": 0, "baselines": True},
    },
    "privacy": {"halves": 16, "false_positives": 0.01},
    "robustness": {
        **{"linf": [2, 8, 32], "l2": [0.25, 1.0], "steps": 20, "restarts": 1},
        **{"queries": 200, "images": 1000, "transfer_from": ["mlp"]},
    },
    "time": {"reach": [50, 70, 80, 90, 95], "checks": 50, "steps": 20},
}
"""What evaluators are asked for without options: to import them here would import torch."""


@dataclass(frozen=True)
class Unmeasured:
    """Finished runs whose sets an evaluator has not measured, or what there is no such run of."""

    what: str
    """`random`, `whole`."""
    runs: tuple[str, ...]
    """Their ids; empty: there is no such run."""
    words: tuple[str, ...] = ()
    """Flags of `dambench evaluate` by which they are measured as the others were."""


@dataclass
class MeasuredPlace:
    """One dataset, IPC, protocol, subject and options of the evaluator, with its methods."""

    evaluator: str
    dataset: str
    ipc: int | None
    protocol: str
    subject: str
    """As a rule the network."""
    metrics: list[MetricRow]
    cells: dict[str, dict[str, Cell]]
    """By method, in its order, and by the name of a metric."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The evaluator's that are not usual."""
    missing: list[Unmeasured] = field(default_factory=list)

    @property
    def few(self) -> list[str]:
        """The methods of which one set is measured: they make no claim."""
        return [
            name
            for name, cells in self.cells.items()
            if any(not cell.sample.enough and cell.unit == "set" for cell in cells.values())
        ]


def measured(store: Store, only: tuple[str, Sequence[Any]] = ("1", ())) -> list[MeasuredPlace]:
    """Everything that was measured of the sets of finished runs, accuracies left out.

    Args:
        only: a condition on `runs` and its parameters.
    """
    by_evaluator: dict[str, list[MetricRow]] = {}
    used = {
        (row["evaluator"], row["metric"])
        for row in store.query("select distinct evaluator, metric from measurements where evaluator != 'accuracy'")
    }
    for metric in metrics(store):
        if metric.evaluator != ACCURACY.evaluator and (metric.evaluator, metric.name) in used:
            by_evaluator.setdefault(metric.evaluator, []).append(metric)
    places: list[MeasuredPlace] = []
    for described in by_evaluator.values():
        described.sort(key=lambda metric: natural(metric.name))
        found: dict[tuple[str, str, str, int | None, str], MeasuredPlace] = {}
        for some in _together(store, described):
            board = leaderboard(store, ("method",), ("dataset", "ipc"), metric=some[0], only=only)
            _add(found, board.scores, some)
        places += [found[key] for key in sorted(found, key=lambda key: (*key[:3], key[3] or 0, key[4]))]
    for place in places:
        place.missing = _missing(store, place, only)
    return places


def _together(store: Store, described: Sequence[MetricRow]) -> list[list[MetricRow]]:
    """The metrics that the same subjects of the same runs have: one reading of scores serves them."""
    groups: dict[str, list[MetricRow]] = {}
    for metric in described:
        rows = store.query(
            "select distinct run, subject from measurements where evaluator = ? and metric = ? order by run, subject",
            metric.evaluator,
            metric.name,
        )
        groups.setdefault(str([(row["run"], row["subject"]) for row in rows]), []).append(metric)
    return list(groups.values())


def _add(
    found: dict[tuple[str, str, str, int | None, str], MeasuredPlace],
    scores: Iterable[Score],
    some: Sequence[MetricRow],
) -> None:
    """Put scores in their places; the whole set, which has no IPC, is at each."""
    groups: dict[tuple[str, str, str, str], dict[int | None, dict[str, list[Score]]]] = {}
    for score in scores:
        options = _options(some[0].evaluator, score.settings)
        by_ipc = groups.setdefault((score.dataset, score.protocol, score.network, options), {})
        by_ipc.setdefault(score.ipc, {}).setdefault(score.method, []).append(score)
    for (dataset, protocol, subject, options), by_ipc in groups.items():
        whole = by_ipc.pop(None, {})
        for ipc, by_method in by_ipc.items() or [(None, {})]:
            key = (dataset, protocol, subject, ipc, options)
            new = MeasuredPlace(some[0].evaluator, dataset, ipc, protocol, subject, [], {}, json.loads(options))
            place = found.setdefault(key, new)
            place.metrics = sorted({*place.metrics, *some}, key=lambda metric: natural(metric.name))
            both = by_method | whole
            for method in sorted({*place.cells, *both}, key=lambda method: order(("method",), (method,))):
                cells = place.cells.pop(method, {})
                if method in both:
                    cell = Cell(tuple(both[method]), some[0])
                    cells |= {metric.name: cell.of(metric) for metric in some}
                place.cells[method] = cells


@lru_cache(maxsize=1024)
def _options(evaluator: str, settings: str) -> str:
    """The evaluator's options that are not usual, as JSON: what is measured by others is in a place of its own.

    Args:
        settings: of a score.
    """
    given = json.loads(settings)[2].get("evaluator", {})
    usual = USUAL.get(evaluator, {})
    others = {
        name: value
        for name, value in given.items()
        if name != "evaluator version" and (name not in usual or usual[name] != value)
    }
    return json.dumps(others, sort_keys=True)


def _missing(store: Store, place: MeasuredPlace, only: tuple[str, Sequence[Any]]) -> list[Unmeasured]:
    """The baselines that were not measured, and sets of the methods that were, of other seeds."""
    scores = [score for cells in place.cells.values() for cell in cells.values() for score in cell.scores]
    there = {(score.base_method, score.seed) for score in scores}
    methods = {score.base_method for score in scores}
    rows = store.query(
        f"""
        select runs.id, runs.method, runs.seed, runs.config from runs
        where runs.state = 'finished' and runs.deleted_at = '' and runs.purpose = '' and {only[0]}
            and runs.dataset_sha256 = ?
            and runs.protocol_sha256 = (select protocol_sha256 from runs where id = ?)
            and (runs.ipc is ? or runs.method = 'whole')
            and coalesce(json_extract(runs.config, '$.where.made'), '') = ''
        order by runs.method, runs.seed, {store.by_age(newest_first=True)}
        """,
        *only[1],
        scores[0].dataset_sha256,
        scores[0].run,
        place.ipc,
    )
    asked = _asked(store.run(scores[0].run).config)
    lacking: dict[tuple[str, tuple[str, ...]], dict[int, str]] = {}
    for row in rows:
        known = row["method"] in methods and (row["method"], row["seed"]) in there
        if not known and (row["method"] in methods or row["method"] in BASELINES):
            own = _asked(row["config"])
            words = tuple(word for flag, value in asked.items() if own[flag] != value for word in (flag, value))
            lacking.setdefault((row["method"], words), {}).setdefault(row["seed"], row["id"])
    absent = [
        Unmeasured(name, ()) for name in BASELINES if name not in methods and name not in {one for one, _ in lacking}
    ]
    found = [Unmeasured(name, tuple(by_seed.values()), words) for (name, words), by_seed in lacking.items()]
    return [*found, *absent]


def _asked(config: str) -> dict[str, str]:
    """The networks that a run trains on a set, and how many, by the flags that ask for them."""
    found = json.loads(config)
    return {"--evaluate-on": ",".join(found["evaluate_on"]), "--eval-repeats": str(found["eval_repeats"])}
