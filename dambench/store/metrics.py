"""Metrics: what evaluators measure, as the database describes it, and a run's value of one."""

import json
import math
from collections.abc import Sequence

from msgspec import Struct

from dambench.core.errors import BadInput, unknown
from dambench.core.natural import natural
from dambench.core.sanitize import display
from dambench.store.runs import Store
from dambench.store.statistics import Estimate, estimate

OF_CLASS = "class_"
"""The beginning of the names of accuracies of one class."""


class MetricRow(Struct, frozen=True):
    """A row of `metrics`."""

    evaluator: str
    name: str
    unit: str
    """`fraction`, which is shown as percent, `seconds`, `bytes`, or empty: a plain number."""
    better: str
    """`higher` or `lower`."""
    description: str

    @property
    def full_name(self) -> str:
        return f"{self.evaluator}.{self.name}"

    @property
    def is_of_class(self) -> bool:
        """Whether it is the accuracy of one class, of which there may be a thousand."""
        return self.evaluator == "accuracy" and self.name.startswith(OF_CLASS)


ACCURACY = MetricRow("accuracy", "accuracy", "fraction", "higher", "Accuracy on the real test set after the last epoch")
"""What is shown unless something else is asked for."""


def metrics(store: Store) -> list[MetricRow]:
    """All that the database describes, those of accuracy first."""
    rows = store.query("select evaluator, name, unit, better, description from metrics order by evaluator, name")
    found = [MetricRow(**row) for row in rows]
    return sorted(found, key=lambda one: (*_first(one), natural(one.name)))


def _first(metric: MetricRow) -> tuple[bool, str, bool, bool]:
    """What comes before a metric's name: accuracy, then by evaluator; classes last."""
    other = metric.evaluator != ACCURACY.evaluator
    return other, metric.evaluator, metric.is_of_class, metric.name != ACCURACY.name


def find_metric(store: Store, name: str) -> MetricRow:
    """The metric of that name, or of that `EVALUATOR.NAME`.

    Raises:
        BadInput: there is none, or several evaluators have one.
    """
    rows = metrics(store)
    matches = [row for row in rows if name in (row.name, row.full_name)]
    if not matches:
        likely = [row.name for row in rows if not row.is_of_class or name.startswith(OF_CLASS)]
        raise unknown("metric", name, likely)
    if len(matches) > 1 and matches[0].evaluator != ACCURACY.evaluator:
        raise BadInput(
            f"Several evaluators measure {display(name, 60)!r}: write {' or '.join(row.full_name for row in matches)}."
        )
    return matches[0]


_LATEST = """
    from evaluations cross join measurements using (run, iteration, evaluator, subject, repeat)
    where evaluations.run = runs.number and evaluations.evaluator = {evaluator} and measurements.metric = {metric}
        and evaluations.subject = json_extract(runs.config, '$.evaluate_on[0]')
        and evaluations.protocol_sha256 = runs.protocol_sha256
        and evaluations.iteration = (select max(iteration) from evaluations as any
            where any.run = runs.number and any.evaluator = {evaluator})
"""
"""What stands for a row of `runs`: the values on its latest set, of the first network it is evaluated on."""

_ALL_THERE = "(runs.state != 'finished' or count(value) >= coalesce(json_extract(runs.config, '$.eval_repeats'), 1))"
"""Whether they are all: of a finished run fewer were left over when others diverged, and stand for nothing."""


def latest_mean(evaluator: str = "'accuracy'", metric: str = "'accuracy'") -> str:
    """A run's mean of a metric, in SQL, for sorting and filtering; null: it has none.

    Args:
        evaluator, metric: in SQL; the evaluator stands there twice, after and before the metric.
    """
    return f"(select iif({_ALL_THERE}, avg(value), null) {_LATEST.format(evaluator=evaluator, metric=metric)})"


def accuracies(store: Store, numbers: Sequence[int]) -> dict[int, Estimate]:
    """The accuracy of the latest set of each run, by its number; nothing of a run without scores."""
    latest = _LATEST.format(evaluator="'accuracy'", metric="'accuracy'")
    rows = store.query(
        f"select runs.number, (select iif({_ALL_THERE}, json_group_array(value), '[]') {latest}) as accuracies "
        "from runs where runs.number in (select value from json_each(?))",
        json.dumps(list(numbers)),
    )
    values = {row["number"]: json.loads(row["accuracies"]) for row in rows}
    return {
        number: estimate([math.nan if value is None else value for value in each])
        for number, each in values.items()
        if each
    }


def course(store: Store, number: int) -> list[tuple[int, Estimate]]:
    """A run's accuracy after each iteration at which it was evaluated, of the first network."""
    values: dict[int, list[float]] = {}
    for row in store.query(
        """
        select iteration, accuracy from scores join runs on runs.number = scores.run
        where runs.number = ? and scores.network = json_extract(runs.config, '$.evaluate_on[0]')
            and scores.protocol_sha256 = runs.protocol_sha256
        order by iteration
        """,
        number,
    ):
        values.setdefault(row["iteration"], []).append(math.nan if row["accuracy"] is None else row["accuracy"])
    return [(iteration, estimate(each)) for iteration, each in values.items()]
