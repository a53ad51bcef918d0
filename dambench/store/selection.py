"""Which set of a run is reported: the last, the one that validation chose, or, as in papers, that the test set chose.

A run with `--evaluate-every` trains networks on several sets, those of some iterations and its result. Three figures
come of them:

* final: of the result. Nothing was chosen.
* validation-selected: of the iteration with the highest mean validation accuracy (the earliest of equal ones), on the
  first network that the run is evaluated on. One set is chosen per run, for all networks.
* test-selected: of the iteration with the highest mean test accuracy, for each network by itself, as released code does
  that keeps the best. It is too high: the maximum of noisy values is above the value of the maximum.

Validation-selected is a little too high as well where the networks that chose are those that are tested: a network that
happens to be good is so on both. Cross-fitted is not: each network is tested on the set that the other ones chose. It
takes two networks.

A method without iterations makes one set, which every rule selects. Within one training no epoch is selected.
"""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from msgspec import structs

from dambench.store.cells import Cell, Score
from dambench.store.metrics import ACCURACY, MetricRow
from dambench.store.runs import Store
from dambench.store.statistics import mean
from dambench.store.tuning import OBJECTIVE

Rule = Literal["final", "validation-selected", "cross-fitted", "test-selected"]
RULES: tuple[Rule, ...] = ("final", "validation-selected", "cross-fitted", "test-selected")

ROUNDED = 12
"""Decimals of means that are compared: what differs by less differs by how sums are rounded."""

Values = dict[int, dict[int, float]]
"""By iteration and repeat."""


@dataclass
class Course:
    """What was measured of one network on the sets of a run, by iteration."""

    due: int
    """Networks that each set should have."""
    final: int = 0
    """The iteration of the result."""
    accuracy: Values = field(default_factory=dict)
    validation: Values = field(default_factory=dict)
    shown: Values = field(default_factory=dict)
    """The metric that is shown, which may be accuracy."""


def best(values: Values, due: int, but: int | None = None) -> int | None:
    """The iteration with the highest mean; the earliest of equal ones; None: there is none.

    Iterations of which a network is missing or has diverged do not compete.

    Args:
        but: a repeat whose value does not count.
    """
    means = {
        iteration: round(mean([value for repeat, value in of_each.items() if repeat != but]), ROUNDED)
        for iteration, of_each in sorted(values.items())
        if len(of_each) >= due > (but is not None) and all(map(math.isfinite, of_each.values()))
    }
    return max(means, key=means.__getitem__, default=None)


@dataclass(frozen=True)
class RunSelection:
    """Which iteration each rule selects, of one run."""

    one_set: bool
    """Whether its method makes one set only."""
    first: str
    """The network that chooses."""
    courses: Mapping[str, Course]
    """By network."""

    def iteration(self, network: str, rule: Rule, repeat: int) -> int | None:
        """The iteration whose set a repeat of a network is reported on; None: the rule selects none."""
        own, chooses = self.courses[network], self.courses.get(self.first)
        if rule == "final":
            return own.final
        if rule == "test-selected":
            return best(own.accuracy, own.due)
        if chooses is None or not chooses.validation:
            return None
        by_others = rule == "cross-fitted" and network == self.first
        return best(chooses.validation, chooses.due, repeat if by_others else None)

    def iterations(self, network: str, rule: Rule) -> list[int]:
        """The iterations that a rule selects: several, where the other networks disagree; none: it selects none."""
        repeats = self.courses[network].accuracy.get(self.courses[network].final, {})
        chosen = {self.iteration(network, rule, repeat) for repeat in repeats}
        return [] if None in chosen else sorted(iteration for iteration in chosen if iteration is not None)

    def values(self, network: str, rule: Rule) -> dict[int, float] | None:
        """The metric that is shown, by repeat, of the sets that the rule selects; None: it selects none."""
        course = self.courses[network]
        chosen = {repeat: self.iteration(network, rule, repeat) for repeat in course.shown.get(course.final, {})}
        values = {
            repeat: course.shown[iteration][repeat]
            for repeat, iteration in chosen.items()
            if iteration is not None and repeat in course.shown.get(iteration, {})
        }
        return values if values and len(values) == len(chosen) else None


def selections(store: Store, runs: Collection[str], metric: MetricRow = ACCURACY) -> dict[str, RunSelection]:
    """What the rules select of those runs that have sets to select from, and of those that make one set only."""
    if metric.evaluator != ACCURACY.evaluator:
        return {}
    found: dict[str, RunSelection] = {}
    due: dict[str, int] = {}
    for row in store.query(
        """
        select id, coalesce(json_extract(config, '$.method.options.iterations'), 0) as iterations,
            json_extract(config, '$.evaluate_on[0]') as first,
            coalesce(json_extract(config, '$.eval_repeats'), 1) as due
        from runs where state = 'finished' and id in (select value from json_each(?))
            and coalesce(json_extract(config, '$.where.made'), '') = ''
            and (iterations = 0 or coalesce(json_extract(config, '$.evaluate_every'), 0) > 0)
        """,
        json.dumps(list(runs)),
    ):
        found[row["id"]] = RunSelection(not row["iterations"], row["first"], {})
        due[row["id"]] = row["due"]
    for row in store.query(
        """
        select runs.id, iteration, subject, repeat, final, metric, value
        from runs join evaluations on evaluations.run = runs.number
            join measurements using (run, iteration, evaluator, subject, repeat)
        where evaluator = 'accuracy' and metric in ('accuracy', ?, ?) and value is not null
            and evaluations.protocol_sha256 = runs.protocol_sha256 and runs.id in (select value from json_each(?))
        order by iteration
        """,
        OBJECTIVE,
        metric.name,
        json.dumps(list(found)),
    ):
        _add(found[row["id"]], row, due[row["id"]], metric)
    return {run: selection for run, selection in found.items() if selection.courses}


def _add(selection: RunSelection, row: Mapping[str, Any], due: int, metric: MetricRow) -> None:
    courses = selection.courses
    assert isinstance(courses, dict)
    course = courses.setdefault(row["subject"], Course(due))
    if row["final"]:
        course.final = row["iteration"]
    for name, values in (
        ("accuracy", course.accuracy),
        (OBJECTIVE, course.validation),
        (metric.name, course.shown),
    ):
        if row["metric"] == name:
            values.setdefault(row["iteration"], {})[row["repeat"]] = row["value"]


def selected(cell: Cell, rule: Rule, found: Mapping[str, RunSelection]) -> Cell | None:
    """The cell with the scores that a rule selects; None: there are none of some of its runs."""
    if rule == "final":
        return cell
    scores: list[Score] = []
    for score in cell.scores:
        selection = found.get(score.run)
        if selection is None or score.network not in selection.courses:
            return None
        if selection.one_set:  # there is nothing to choose from, and nobody who has chosen
            if rule != "test-selected" and OBJECTIVE not in score.values:
                return None
            scores.append(score)
            continue
        values = selection.values(score.network, rule)
        if values is None or score.repeat not in values:
            return None
        scores.append(structs.replace(score, values={cell.metric.name: values[score.repeat]}))
    return replace(cell, scores=tuple(scores))


def by_rule(store: Store, run: str) -> list[dict[str, Any]]:
    """What each rule selects of a run, a row for each rule and network; empty: it has no sets to select from.

    Fractions; None: the rule selects none.
    """
    rows: list[dict[str, Any]] = []
    selection = selections(store, [run]).get(run)
    if selection is None or selection.one_set:
        return rows
    for network, course in selection.courses.items():
        for rule in RULES:
            values, chosen = selection.values(network, rule), selection.iterations(network, rule)
            validated = [course.validation[iteration] for iteration in chosen if iteration in course.validation]
            rows.append(
                {
                    "selection": rule,
                    "network": network,
                    "iterations": chosen,
                    "accuracy": mean(list(values.values())) if values else None,
                    "n": len(values or ()),
                    "validation_accuracy": mean(list(validated[0].values())) if len(validated) == 1 else None,
                }
            )
    return rows
