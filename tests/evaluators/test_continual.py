"""Continual learning: hand-computed forgetting, the classes that may be answered, orders, and going on."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from msgspec import structs

from dambench.core.errors import BadInput, Diverged
from dambench.core.events import Measured, Progressed, Real, Warned
from dambench.core.protocol import PRESETS, Budget
from dambench.evaluators import Context, Finding, continual
from dambench.testing import data_card, real_set, tiny_problem
from dambench.training.problem import SyntheticSet
from tests.lab import noise, synthetic_set

NAME = "convnet-d1-w8"
CARD = data_card((6, 6, 6, 6, 6), test_counts=(3, 3, 3, 3, 3), size=(4, 4))
BRIEF = structs.replace(PRESETS["quick"], synthetic=Budget(epochs=1), whole=Budget(epochs=1), augmentation=())


def context(**changes: Any) -> Context:
    problem = tiny_problem(card=CARD, ipc=2)
    usual: dict[str, Any] = {
        "evaluator": "continual",
        "synthetic": problem.synthetic_set(problem.random_subset()),
        "set_sha256": "f" * 64,
        "iteration": 7,
        "final": True,
        "test": real_set(data_card(CARD.test_counts, size=(4, 4)), seed=1),
        "card": CARD,
        "networks": (NAME,),
        "repeats": 2,
        "protocol": BRIEF,
        "seeds": problem.seeds,
        "policy": problem.policy,
    }
    return Context(**usual | changes)


def measured(
    given: Context, resume: Collection[tuple[str, int]] = (), **options: Any
) -> tuple[dict[tuple[str, int], Mapping[str, Real]], list[Finding]]:
    findings = list(continual.evaluate(given, continual.Options(**options), resume))
    rows = [event for event in findings if isinstance(event, Measured)]
    assert all((row.set_sha256, row.iteration, row.final) == ("f" * 64, 7, given.final) for row in rows)
    return {(row.subject, row.repeat): row.values for row in rows}, findings


def test_forgetting_is_that_computed_by_hand() -> None:
    # Step 1 was best known after step 2 (.9, then .5), step 2 when it came (.7, then .6).
    assert continual.forgetting([[0.8], [0.9, 0.7], [0.5, 0.6, 0.9]]) == pytest.approx((0.4 + 0.1) / 2)
    assert continual.forgetting([[0.4], [0.6, 1.0]]) == pytest.approx(-0.2)  # it was learned later
    # What came last cannot have been forgotten yet.
    assert continual.forgetting([[0.5], [0.5, 0.0]]) == 0


def test_orders_come_from_their_seed_and_have_each_class_once() -> None:
    orders = [continual.class_order(0, order, 3, 10) for order in range(5)]
    assert orders == [continual.class_order(0, order, 3, 10) for order in range(5)]
    assert [[len(group) for group in order] for order in orders] == [[4, 3, 3]] * 5
    assert all(sorted(label for group in order for label in group) == list(range(10)) for order in orders)
    assert len({str(order) for order in orders}) == 5
    assert continual.class_order(1, 0, 3, 10) != orders[0]
    assert continual.class_order(0, 0, 10, 10) != [[label] for label in range(10)]


def test_a_network_answers_with_a_class_that_it_has_seen() -> None:
    logits = torch.tensor([[9.0, 1.0, 2.0, 8.0], [9.0, 3.0, 2.0, 8.0]])
    assert continual.answers(logits, [2, 1]).tolist() == [2, 1]
    assert continual.answers(logits, [3, 0, 1, 2]).tolist() == [0, 0]


def test_the_memory_is_the_images_of_the_classes_seen_and_what_they_say_of_others_is_forgotten() -> None:
    images = noise(6, 1, 4, 4, dtype=torch.float32)
    hard = synthetic_set(images, torch.arange(3).repeat_interleave(2), 3)
    kept = continual.memory(hard, [2, 0])
    assert kept.labels.tolist() == [0, 0, 2, 2]
    assert torch.equal(kept.images, images[[0, 1, 4, 5]])
    assert continual.memory_bytes(kept) == 4 * 16 * 4 + 4 * 8
    soft = replace(hard, labels=torch.tensor([[3.0, 2.0, 1.0]] * 2 + [[1.0, 2.0, 0.0]] * 2 + [[0.0, 1.0, 2.0]] * 2))
    kept = continual.memory(soft, [0, 2])
    assert kept.hard_labels.tolist() == [0, 0, 2, 2]
    assert kept.labels.softmax(1)[0].tolist() == pytest.approx(
        [1 / (1 + 1 / 2.718281828**2), 0, 1 / (1 + 2.718281828**2)]
    )
    assert continual.memory_bytes(kept) == 4 * 16 * 4 + 4 * 2 * 4


def test_each_step_trains_on_its_memory_and_is_tested_on_what_was_seen() -> None:
    rows, findings = measured(context(), orders=2)
    assert len(rows) == 2 * 2 * (5 + 1)
    for repeat in range(4):
        steps = [rows[f"{NAME} step {step}/5", repeat] for step in range(1, 6)]
        assert [row["memory_images"] for row in steps] == [2, 4, 6, 8, 10]
        assert [row["memory_bytes"] for row in steps] == [2 * 16 * k + 2 * 8 * k for k in range(1, 6)]
        assert steps[0]["accuracy_seen"] == 1  # of one class there is one answer
        for step, row in enumerate(steps, 1):
            shares = [float(row[f"accuracy_step_{j}"]) for j in range(1, step + 1)]
            assert row["accuracy_seen"] == pytest.approx(sum(shares) / step)
            assert f"accuracy_step_{step + 1}" not in row
        table = [[float(row[f"accuracy_step_{j}"]) for j in range(1, step + 1)] for step, row in enumerate(steps, 1)]
        seen = [float(row["accuracy_seen"]) for row in steps]
        assert rows[NAME, repeat] == {
            "accuracy_final": seen[-1],
            "accuracy_mean": pytest.approx(sum(seen) / 5),
            "forgetting": pytest.approx(continual.forgetting(table)),
        }
    progress = [event for event in findings if isinstance(event, Progressed)]
    assert all(0 <= event.done <= event.total for event in progress)
    assert [event.done for event in progress] == sorted(event.done for event in progress)
    listed = continual.items(context(), continual.Options(orders=2))
    assert [(item.subject, item.repeat) for item in listed] == list(rows)
    assert progress[0].total == sum(item.cost for item in listed)


def test_more_repeats_leave_those_that_were_measured_what_they_are() -> None:
    few, _ = measured(context(repeats=1), orders=2)
    more, _ = measured(context(repeats=2), orders=2)
    assert few.items() <= more.items()


def test_what_is_known_is_not_measured_again_and_counts_in_what_comes_of_all_steps() -> None:
    rows, _ = measured(context(), orders=2)
    known = {key: row for key, row in rows.items() if key != (f"{NAME} step 3/5", 1) and key != (NAME, 1)}
    rest, _ = measured(context(known=known), set(known), orders=2)
    assert rest == {key: rows[key] for key in rows if key not in known}
    changed = known | {(f"{NAME} step 5/5", 1): {**known[f"{NAME} step 5/5", 1], "accuracy_seen": 0.125}}
    rest, _ = measured(context(known=changed), set(changed), orders=2)
    assert rest[NAME, 1]["accuracy_final"] == 0.125


def test_a_network_that_diverged_is_said_and_a_set_of_which_all_did_has_no_score() -> None:
    given = context()
    absurd = replace(given.synthetic, images=given.synthetic.images.float() * 1e30)
    rows, findings = measured(replace(given, synthetic=absurd, final=False), orders=1)
    assert rows == {}
    said = [event.message for event in findings if isinstance(event, Warned)]
    assert f"{NAME} #0 has no forgetting: it diverged after one of the steps." in said
    with pytest.raises(Diverged, match=r"^In each order of the classes some network diverged"):
        measured(replace(given, synthetic=absurd), orders=1)


def test_all_real_images_are_trained_on_for_the_budget_of_all() -> None:
    problem = tiny_problem(card=CARD)
    whole = continual.memory(problem.whole_set(), [0, 3])
    assert whole.whole
    assert len(whole.images) == 12


@pytest.mark.parametrize(
    ("options", "changes", "sentence"),
    [
        ({"steps": 6}, {}, "The classes of made-up cannot come in 6 steps: it has 5, and each step takes one at least"),
        ({"steps": 1}, {}, "The classes of made-up cannot come in 1 step: it has 5,"),
        (
            {},
            {"protocol": structs.replace(BRIEF, labels="teacher")},
            "trains with the labels of a teacher, who knows classes that are not seen yet: take another --protocol.",
        ),
        ({}, {"card": structs.replace(CARD, test_counts=[3, 3, 0, 3, 3])}, "Class 'class 2' of made-up has no test"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(
    options: dict[str, Any], changes: dict[str, Any], sentence: str
) -> None:
    for ask in (continual.items, continual.evaluate):
        with pytest.raises(BadInput, match=sentence):
            list(ask(context(**changes), continual.Options(**options)))


def test_few_classes_come_in_as_many_steps() -> None:
    card = data_card((4, 4, 4), test_counts=(2, 2, 2), size=(4, 4))
    problem = tiny_problem(card=card)
    synthetic: SyntheticSet = problem.synthetic_set(problem.random_subset())
    given = context(card=card, synthetic=synthetic, test=real_set(data_card(card.test_counts, size=(4, 4))), repeats=1)
    rows, _ = measured(given, orders=1)
    assert [subject for subject, _ in rows] == [f"{NAME} step {step}/3" for step in (1, 2, 3)] + [NAME]
