"""The promises of all evaluators."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from dambench.core.config import read
from dambench.core.contracts import Evaluator
from dambench.core.events import Measured
from dambench.core.protocol import PRESETS, Budget
from dambench.evaluators import Context
from dambench.testing.problems import global_generator_untouched, global_seed, striped_set, tiny_problem
from dambench.testing.promises import broken_promises, hold, own_home, refuse

ONE_BY_ONE = 8
"""As many items as are each left out once, when it is tried what an evaluator does that goes on."""


def check_evaluator(name: str) -> None:
    """Check that an evaluator keeps every promise.

    Raises:
        AssertionError: it does not; a sentence for each promise.
    """
    with own_home():
        refuse(broken_promises("evaluators", name, EVALUATOR_PROMISES, lambda plugin: plugin))


def quick_options(evaluator: Evaluator) -> Any:
    return read(evaluator.Options, evaluator.QUICK, f"QUICK of {evaluator.name}")


def tiny_context(evaluator: Evaluator) -> Context:
    """A tiny set, and two networks to be trained on it, twice each."""
    problem = tiny_problem(ipc=3)
    problem = replace(problem, real=striped_set(problem.card))
    quick = msgspec.structs.replace(PRESETS["quick"], synthetic=Budget(epochs=8), whole=Budget(epochs=1), lr=0.1)
    return Context(
        evaluator=evaluator.name,
        synthetic=problem.synthetic_set(problem.random_subset()),
        set_sha256="0" * 64,
        iteration=4,
        final=True,
        test=striped_set(problem.card, seed=1),
        validation=striped_set(problem.card, seed=2),
        card=problem.card,
        networks=("convnet-d1-w8", "mlp-d1-w8"),
        repeats=2,
        protocol=quick,
        seeds=problem.seeds,
        policy=problem.policy,
        train=problem.real,
        made_seconds=2.0,
        start=problem.subset_places().flatten(),
    )


def measured(
    evaluator: Evaluator, before: Mapping[tuple[str, int], Measured] | None = None
) -> dict[tuple[str, int], Measured]:
    """What an evaluator measures of a tiny set, by subject and repeat.

    Args:
        before: what was measured already.
    """
    known = {key: finding.values for key, finding in (before or {}).items()}
    context = replace(tiny_context(evaluator), known=known)
    findings: dict[tuple[str, int], Measured] = {}
    for event in evaluator.evaluate(context, quick_options(evaluator), known.keys()):
        if isinstance(event, Measured):
            twice = (event.subject, event.repeat) in findings
            hold(not twice, f"It measures repeat {event.repeat} of {event.subject!r} twice.")
            findings[event.subject, event.repeat] = event
    return findings


def its_metrics_are_explained(evaluator: Evaluator) -> None:
    hold(len(evaluator.headline) > 5, "Its module has no docstring, whose first line says what is measured.")
    for name, metric in evaluator.metrics(tiny_problem().card, quick_options(evaluator)).items():
        hold(len(metric.description) > 5, f"Its metric {name!r} has no description.")


def it_measures_the_metrics_that_it_names(evaluator: Evaluator) -> None:
    findings = measured(evaluator)
    hold(findings, "It yields nothing that it has Measured.")
    names = set(evaluator.metrics(tiny_problem().card, quick_options(evaluator)))
    values = {name for finding in findings.values() for name in finding.values}
    hold(values <= names, f"It measures {sorted(values)}, and its METRICS are {sorted(names)}.")
    never = set(evaluator.METRICS) - values
    hold(not never, f"It never measures {sorted(never)}, which its METRICS name.")
    for finding in findings.values():
        hold(finding.evaluator == evaluator.name, "It measures under another name: pass on `context.evaluator`.")
        of_set = (finding.set_sha256, finding.iteration, finding.final) == ("0" * 64, 4, True)
        hold(of_set, "What it measures is of another set, iteration or stage than its context.")


def it_lists_the_items_that_it_measures(evaluator: Evaluator) -> None:
    items = evaluator.items(tiny_context(evaluator), quick_options(evaluator))
    listed = [(item.subject, item.repeat) for item in items]
    found = [*measured(evaluator)]
    hold(listed == found, f"Its items are {listed}, and it measures {found}.")
    hold(all(item.cost > 0 for item in items), "An item costs nothing: what is left could not be told from it.")


def the_same_set_has_the_same_values(evaluator: Evaluator) -> None:
    if not evaluator.REPEATABLE:
        return
    values = []
    for unrelated in (11, 12):
        with global_seed(unrelated):
            values.append({key: finding.values for key, finding in measured(evaluator).items()})
    hold(values[0] == values[1], "Two measurements of one set differ: take generators from `context.seeds`.")


def what_is_measured_already_is_left_out_and_changes_nothing(evaluator: Evaluator) -> None:
    everything = measured(evaluator)
    keys = [*everything]
    some = keys if len(keys) <= ONE_BY_ONE else [keys[0], keys[len(keys) // 2], keys[-1]]
    for done in [*([key] for key in some), keys[::2]]:
        rest = measured(evaluator, {key: everything[key] for key in done})
        again = sorted(rest.keys() & set(done))
        hold(not again, f"It measures {again and again[0]} again, which `resume` says is measured already.")
        hold(rest.keys() == everything.keys() - set(done), f"Without {done} it does not measure all the others.")
        same = not evaluator.REPEATABLE or all(rest[key].values == everything[key].values for key in rest)
        hold(same, f"Where {done} were measured before, the others have other values.")


def measuring_leaves_torch_s_global_generator_alone(evaluator: Evaluator) -> None:
    with global_generator_untouched():
        measured(evaluator)


EVALUATOR_PROMISES: tuple[Callable[[Evaluator], None], ...] = (
    its_metrics_are_explained,
    it_measures_the_metrics_that_it_names,
    it_lists_the_items_that_it_measures,
    the_same_set_has_the_same_values,
    what_is_measured_already_is_left_out_and_changes_nothing,
    measuring_leaves_torch_s_global_generator_alone,
)
