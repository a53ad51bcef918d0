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
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from msgspec import structs

from dambench.store.cells import Cell, Score
from dambench.store.final_scores import FinalScore, FinalScores
from dambench.store.metrics import ACCURACY, MetricRow
from dambench.store.row_names import EvaluatedRun
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


class Evaluations(NamedTuple):
    """What a finished run was asked for, and its scores, if none is of a set on its way."""

    one_set: bool
    first: str
    due: int
    protocol_sha256: str
    scores: Sequence[FinalScore] | None
    """By trained networks; None: they are in the tables."""


def known_evaluations(entries: Sequence[EvaluatedRun], found: Mapping[int, FinalScores]) -> dict[str, Evaluations]:
    """Those of the runs that have sets to select from, and of those that make one set only, by id."""
    known: dict[str, Evaluations] = {}
    for run, mates in entries:
        of_run = found[run.number]
        if of_run.made or not (mates.one_set or mates.on_the_way):
            continue
        are_all = of_run.trained == sum(map(len, of_run.scores.values()))
        scores = of_run.scores.get(ACCURACY.evaluator, ()) if are_all else None
        known[run.id] = Evaluations(mates.one_set, mates.first, mates.due, run.protocol_sha256, scores)
    return known


def selections(
    store: Store, runs: Collection[str], metric: MetricRow = ACCURACY, known: Mapping[str, Evaluations] | None = None
) -> dict[str, RunSelection]:
    """What the rules select of those runs that have sets to select from, and of those that make one set only.

    Args:
        known: of all of these runs, as `known_evaluations` has it; None: it is read.
    """
    if metric.evaluator != ACCURACY.evaluator:
        return {}
    if known is None:
        known = _read(store, runs)
    elif metric.name.startswith("class_"):  # of which there are no copies
        known = {run: one._replace(scores=None) for run, one in known.items()}
    found: dict[str, RunSelection] = {}
    for run in runs:
        if run in known:
            found[run] = RunSelection(known[run].one_set, known[run].first, {})
    shown = {"accuracy", OBJECTIVE, metric.name}
    for run, selection in found.items():
        for score in known[run].scores or ():
            if score.protocol_sha256 == known[run].protocol_sha256:
                for name in shown & score.finite.keys():
                    at = score.subject, score.iteration, score.repeat
                    _add(selection, known[run].due, metric, at, name, score.finite[name], is_final=True)
    rest = [run for run in found if known[run].scores is None]
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
        json.dumps(rest),
    ):
        at = row["subject"], row["iteration"], row["repeat"]
        due = known[row["id"]].due
        _add(found[row["id"]], due, metric, at, row["metric"], row["value"], is_final=bool(row["final"]))
    return {run: selection for run, selection in found.items() if selection.courses}


def _read(store: Store, runs: Collection[str]) -> dict[str, Evaluations]:
    rows = store.query(
        """
        select id, coalesce(json_extract(config, '$.method.options.iterations'), 0) as iterations,
            json_extract(config, '$.evaluate_on[0]') as first, protocol_sha256,
            coalesce(json_extract(config, '$.eval_repeats'), 1) as due
        from runs where state = 'finished' and id in (select value from json_each(?))
            and coalesce(json_extract(config, '$.where.made'), '') = ''
            and (iterations = 0 or coalesce(json_extract(config, '$.evaluate_every'), 0) > 0)
        """,
        json.dumps(list(runs)),
    )
    return {
        row["id"]: Evaluations(not row["iterations"], row["first"], row["due"], row["protocol_sha256"], None)
        for row in rows
    }


def _add(
    selection: RunSelection,
    due: int,
    metric: MetricRow,
    at: tuple[str, int, int],
    name: str,
    value: float,
    *,
    is_final: bool,
) -> None:
    """Add a value of a network.

    Args:
        at: the network, the iteration and the repeat.
    """
    subject, iteration, repeat = at
    courses = selection.courses
    assert isinstance(courses, dict)
    if (course := courses.get(subject)) is None:
        course = courses[subject] = Course(due)
    if is_final:
        course.final = iteration
    if name == "accuracy":
        course.accuracy.setdefault(iteration, {})[repeat] = value
    if name == OBJECTIVE:
        course.validation.setdefault(iteration, {})[repeat] = value
    if name == metric.name:
        course.shown.setdefault(iteration, {})[repeat] = value


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
