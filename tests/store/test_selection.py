"""Which iteration is reported by which rule: hand-computed cases, and what selection does to an expectation."""

from collections.abc import Mapping, Sequence
from random import Random

import msgspec
import pytest

from dambench.core.config import HeldOut, RunConfig
from dambench.core.events import AnyEvent, Finished, Measured, Real
from dambench.core.protocol import PRESETS, HoldOut
from dambench.report.sections import selection as section
from dambench.store import listing
from dambench.store.leaderboard import Leaderboard, leaderboard
from dambench.store.runs import Store
from dambench.store.selection import RULES, Course, RunSelection, best, by_rule, selected, selections
from dambench.store.statistics import mean
from tests import ledger

HELD = HeldOut(rule=HoldOut(), of_each_class=26, sha256="a" * 64)

COURSE = {
    10: [(0.50, 0.60), (0.60, 0.70)],
    20: [(0.56, 0.80), (0.58, 0.50)],
    30: [(0.54, 0.55), (0.56, 0.75)],
}
"""By iteration, (test, validation) of each network. Means: test 0.55, 0.57, 0.55; validation 0.65, 0.65, 0.65."""


def _add(
    store: Store,
    course: Mapping[int, Sequence[tuple[float, float | None]]],
    *,
    method: str = "dm",
    seed: int = 0,
    every: int = 10,
    held_out: HeldOut | None = HELD,
) -> str:
    iterations = max(course) if method == "dm" else 0
    base = ledger.config(method, protocol=PRESETS["fair-quick"], seed=seed)
    run: RunConfig = msgspec.structs.replace(
        base,
        method=msgspec.structs.replace(base.method, options={"iterations": iterations} if iterations else {}),
        held_out=held_out,
        eval_repeats=len(course[max(course)]),
        evaluate_every=every,
    )
    run_id = store.create(run, ledger.CARD)
    events: list[AnyEvent] = [event for event in ledger.words(run) if not isinstance(event, Measured | Finished)]
    for iteration, networks in course.items():
        for repeat, (test, validation) in enumerate(networks):
            values: dict[str, Real] = {"accuracy": test, "balanced_accuracy": test, "loss": 0.5, "train_accuracy": 1.0}
            events.append(
                Measured(
                    evaluator="accuracy",
                    subject=run.evaluate_on[0],
                    repeat=repeat,
                    iteration=iteration,
                    final=iteration == max(course),
                    set_sha256=f"{seed:032d}{iteration:032d}",
                    protocol_sha256=run.protocol.sha256,
                    seconds=1.0,
                    peak_memory_bytes=10**6,
                    values=values if validation is None else values | {"validation_accuracy": validation},
                )
            )
    events.append(Finished(set_sha256=f"{seed:032d}{max(course):032d}", costs=ledger.costs()))
    for _ in store.record(run_id, iter(events)):
        pass
    return run_id


def _means(board: Leaderboard, row: str) -> dict[str, float | None]:
    cell = board.tables[0].cells[(row,), ("digits", 1)]
    cells = {rule: selected(cell, rule, board.selections) for rule in RULES}
    return {rule: None if one is None else one.mean for rule, one in cells.items()}


def test_validation_chooses_one_iteration_the_earliest_of_equal_ones_and_the_test_set_its_own(store: Store) -> None:
    run = _add(store, COURSE)
    rows = {row["selection"]: row for row in by_rule(store, run)}
    assert {rule: rows[rule]["iterations"] for rule in RULES} == {
        "final": [30],
        "validation-selected": [10],
        "cross-fitted": [20, 30],
        "test-selected": [20],
    }
    assert rows["final"]["accuracy"] == pytest.approx(0.55)
    assert rows["validation-selected"]["accuracy"] == pytest.approx((0.50 + 0.60) / 2)
    assert rows["validation-selected"]["validation_accuracy"] == pytest.approx(0.65)
    # Network 0 is tested where network 1 is best on validation: 30 (0.75); network 1 where network 0 is: 20 (0.80).
    assert rows["cross-fitted"]["accuracy"] == pytest.approx((0.54 + 0.58) / 2)
    assert rows["test-selected"]["accuracy"] == pytest.approx(0.57)


def test_cross_fitted_is_each_network_on_the_set_that_the_others_chose(store: Store) -> None:
    course = {10: [(0.1, 0.9), (0.2, 0.1)], 20: [(0.3, 0.2), (0.4, 0.8)], 30: [(0.5, 0.3), (0.6, 0.3)]}
    run = _add(store, course)
    rows = {row["selection"]: row for row in by_rule(store, run)}
    # Network 0 goes where network 1 has 0.8: 20, where it has 0.3; network 1 where network 0 has 0.9: 10, and has 0.2.
    assert rows["cross-fitted"]["accuracy"] == pytest.approx((0.3 + 0.2) / 2)
    assert rows["cross-fitted"]["iterations"] == [10, 20]
    assert rows["validation-selected"]["iterations"] == [10]
    assert rows["validation-selected"]["accuracy"] == pytest.approx((0.1 + 0.2) / 2)


def test_with_one_network_nobody_else_can_choose(store: Store) -> None:
    run = _add(store, {10: [(0.5, 0.7)], 20: [(0.6, 0.6)]})
    rows = {row["selection"]: row for row in by_rule(store, run)}
    assert rows["validation-selected"]["accuracy"] == 0.5
    assert (rows["cross-fitted"]["accuracy"], rows["cross-fitted"]["iterations"]) == (None, [])


def test_selection_is_by_run_and_its_figures_are_over_sets_as_those_of_the_final_ones(store: Store) -> None:
    _add(store, {10: [(0.7, 0.9)], 20: [(0.5, 0.8)]}, seed=0)
    _add(store, {10: [(0.4, 0.1)], 20: [(0.6, 0.2)]}, seed=1)
    board = leaderboard(store)
    means = _means(board, "dm")
    assert means["final"] == pytest.approx(0.55)
    assert means["validation-selected"] == pytest.approx((0.7 + 0.6) / 2)
    assert means["test-selected"] == pytest.approx((0.7 + 0.6) / 2)
    assert means["cross-fitted"] is None
    cell = selected(board.tables[0].cells[("dm",), ("digits", 1)], "validation-selected", board.selections)
    assert cell is not None
    assert (cell.sets, cell.networks) == (2, 2)


def test_a_set_made_of_everything_has_no_validation_selected_figure(store: Store) -> None:
    unvalidated = {iteration: [(test, None) for test, _ in networks] for iteration, networks in COURSE.items()}
    _add(store, unvalidated, held_out=None)
    board = leaderboard(store)
    means = _means(board, "dm (held out none)")
    assert means["validation-selected"] is means["cross-fitted"] is None
    assert means["test-selected"] == pytest.approx(0.57)
    (part,) = section.parts(board, ("method",), ("dataset", "ipc"))
    assert [entry.number for entry in part.lines[0][1]][2:5] == ["55.0 ± –", "–", "–"]


def test_where_nothing_was_evaluated_on_the_way_only_final_exists(store: Store) -> None:
    run = _add(store, {30: [(0.5, 0.6)]}, every=0)
    board = leaderboard(store)
    means = _means(board, "dm")
    assert means == {"final": 0.5, "validation-selected": None, "cross-fitted": None, "test-selected": None}
    assert by_rule(store, run) == []
    assert section.parts(board, ("method",), ("dataset", "ipc")) == []


def test_a_method_that_makes_one_set_has_it_under_every_rule(store: Store) -> None:
    _add(store, {0: [(0.4, 0.45), (0.5, 0.55)]}, method="random", every=0)
    _add(store, COURSE)
    board = leaderboard(store)
    assert set(_means(board, "random").values()) == {0.45}
    records = section.records(board, ("method",), ("dataset", "ipc")).dicts()
    assert [(line["method"], line["selection"], line["iterations"]) for line in records] == [
        ("random", "final", "0"),
        ("random", "validation-selected", "0"),
        ("random", "cross-fitted", "0"),
        ("random", "test-selected", "0"),
        ("dm", "final", "30"),
        ("dm", "validation-selected", "10"),
        ("dm", "cross-fitted", "20/30"),
        ("dm", "test-selected", "20"),
    ]


def test_the_list_of_runs_has_the_accuracy_that_validation_chose_beside_the_last(store: Store) -> None:
    _add(store, COURSE)
    _add(store, {0: [(0.5, 0.6), (0.6, 0.7)]}, method="random")
    numbers = [row["number"] for row in store.query("select number from runs order by number")]
    chosen, one_set = (listing.page(store, numbers)[number] for number in numbers)
    assert chosen.accuracy is not None
    assert chosen.validated is not None
    assert chosen.accuracy.std == pytest.approx(0.02 / 2**0.5)  # of iteration 30
    assert chosen.validated.std == pytest.approx(0.10 / 2**0.5)  # of iteration 10
    assert one_set.validated is None


def test_an_iteration_of_which_a_network_is_missing_does_not_compete() -> None:
    assert best({10: {0: 0.9}, 20: {0: 0.5, 1: 0.5}}, due=2) == 20
    assert best({10: {0: 0.9, 1: float("nan")}, 20: {0: 0.5, 1: 0.5}}, due=2) == 20
    assert best({}, due=1) is None


def test_other_architectures_are_tested_on_the_set_that_the_first_network_chose() -> None:
    first = Course(2, 20, {10: {0: 0.5, 1: 0.5}, 20: {0: 0.4, 1: 0.4}}, {10: {0: 0.9, 1: 0.9}, 20: {0: 0.1, 1: 0.1}})
    other = Course(2, 20, {10: {0: 0.1, 1: 0.1}, 20: {0: 0.3, 1: 0.3}}, {10: {0: 0.1, 1: 0.1}, 20: {0: 0.9, 1: 0.9}})
    first.shown, other.shown = first.accuracy, other.accuracy
    selection = RunSelection(False, "a", {"a": first, "b": other})
    assert selection.iterations("b", "validation-selected") == [10]
    assert selection.iterations("b", "cross-fitted") == [10]
    assert selection.iterations("b", "test-selected") == [20]


def test_selecting_by_noise_lifts_all_figures_but_final_and_cross_fitted() -> None:
    """Ten sets that are equally good, at 0: what is above 0 is selection. Networks differ by 1 on test and validation
    alike, and each image sample adds 0.5."""
    random, sums, tables = Random(5), dict.fromkeys(RULES, 0.0), 500
    for _ in range(tables):
        course = Course(5, 9)
        for iteration in range(10):
            networks = [random.gauss(0, 1) for _ in range(5)]
            course.accuracy[iteration] = {r: own + random.gauss(0, 0.5) for r, own in enumerate(networks)}
            course.validation[iteration] = {r: own + random.gauss(0, 0.5) for r, own in enumerate(networks)}
        course.shown = course.accuracy
        selection = RunSelection(False, "a", {"a": course})
        for rule in RULES:
            values = selection.values("a", rule)
            assert values is not None
            sums[rule] += mean(list(values.values())) / tables
    # Mean of the largest of ten: 1.539 standard deviations, of means of five: 1.118 / √5 = 0.5.
    assert sums["test-selected"] == pytest.approx(1.539 * 0.5, abs=0.06)
    assert sums["validation-selected"] == pytest.approx(1.539 * 0.5 * 1 / 1.25, abs=0.06)
    assert sums["final"] == pytest.approx(0, abs=0.06)
    assert sums["cross-fitted"] == pytest.approx(0, abs=0.06)


def test_what_other_evaluators_measure_is_not_selected(store: Store) -> None:
    run = _add(store, COURSE)
    other = msgspec.structs.replace(leaderboard(store).metric, evaluator="distance")
    assert selections(store, [run], other) == {}
