"""LRS and ARS: hand-computed figures, and the arms that they are made of."""

from collections.abc import Mapping
from dataclasses import replace
from statistics import mean, stdev
from typing import Any

import pytest
import torch
from msgspec import structs

from dambench.core.errors import BadInput, Diverged
from dambench.core.events import Measured, Warned
from dambench.core.protocol import DSA, PRESETS, Budget, Protocol
from dambench.evaluators import Context, accuracy, ars, lrs
from dambench.evaluators._arms import normalised
from dambench.testing import real_set, tiny_problem

FEW = Budget(epochs=2)
MTT = structs.replace(PRESETS["mtt"], synthetic=FEW, whole=FEW)
DSA_DM = structs.replace(PRESETS["dsa-dm"], synthetic=FEW, whole=FEW)


def lrs_of(real_hard: float, set_hard: float, set_own: float, random_own: float, weight: float = 0.5) -> float:
    arms = {"real_hard": real_hard, "set_hard": set_hard, "set_own": set_own, "random_own": random_own}
    return round(100 * lrs.scores(arms, weight)["lrs"], 1)


def test_the_anchors_of_the_formula_are_those_computed_by_hand() -> None:
    assert round(100 * normalised(0), 1) == 26.9
    assert normalised(-1) == 0
    assert normalised(1) == pytest.approx(1)
    # A set as good as all images, where random ones recognise nothing: HLR 0, IOR 1.
    assert lrs_of(1, 1, 1, 0) == 54.5
    assert lrs_of(1, 1, 1, 0, weight=1) == 100


@pytest.mark.parametrize(("accuracy_of_set", "expected"), [(0.449, 21.7), (0.489, 23.2), (0.521, 24.5)])
def test_published_accuracies_give_the_published_scores(accuracy_of_set: float, expected: float) -> None:
    """DC, DM and DSA on CIFAR-10 at IPC 10, where random images have 31.0 % and all of them 84.8 %."""
    assert lrs_of(0.848, accuracy_of_set, accuracy_of_set, 0.31) == expected


def test_scores_are_of_fractions_so_that_ordinary_sets_differ() -> None:
    """Of percents, α is −20 and the score −15.7 % for whatever set."""
    assert lrs_of(0.848, 0.449, 0.449, 0.31) != lrs_of(0.848, 0.489, 0.489, 0.31)
    assert lrs.scores({"real_hard": 0.8, "set_hard": 0.5, "set_own": 0.6, "random_own": 0.3}, 0.5) == {
        "hlr": pytest.approx(0.3),
        "ior": pytest.approx(0.3),
        "lrs": pytest.approx(normalised(0)),
        **{"real_hard": 0.8, "set_hard": 0.5, "set_own": 0.6, "random_own": 0.3},
    }


def test_ars_is_that_computed_by_hand() -> None:
    arms = {"set_augmented": 0.6, "random_augmented": 0.4, "set_plain": 0.5, "random_plain": 0.4}
    values = ars.scores(arms, 0.5)
    assert values["gain_augmented"] == pytest.approx(0.2)
    assert values["gain_plain"] == pytest.approx(0.1)
    assert values["ars"] == pytest.approx((2.718281828**0.15 - 2.718281828**-1) / (2.718281828 - 2.718281828**-1))
    assert ars.scores(arms, 0.0)["ars"] == pytest.approx(normalised(0.1))


def a_context(protocol: Protocol = DSA_DM, **changes: Any) -> Context:
    problem = tiny_problem(ipc=2)
    return replace(
        Context(
            evaluator="lrs",
            synthetic=problem.synthetic_set(problem.random_subset().float() / 255),
            set_sha256="a" * 64,
            iteration=4,
            final=True,
            test=real_set(problem.card, seed=1),
            card=problem.card,
            networks=("convnet-d1-w8",),
            repeats=2,
            protocol=protocol,
            seeds=problem.seeds,
            policy=problem.policy,
            train=problem.real,
        ),
        **changes,
    )


def measured(context: Context, evaluator: Any = lrs, resume: Any = ()) -> list[Measured]:
    events = evaluator.evaluate(context, evaluator.Options(), resume)
    return [event for event in events if isinstance(event, Measured)]


def accuracies(context: Context) -> list[float]:
    rows = accuracy.evaluate(replace(context, evaluator="accuracy"), accuracy.Options())
    return [float(row.values["accuracy"]) for row in rows if isinstance(row, Measured)]


def column(rows: list[Measured], name: str) -> list[float]:
    return [float(row.values[name]) for row in rows]


@pytest.fixture(autouse=True)
def _brief_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dambench.core.hard_labels.PRESETS", {"mtt": MTT, "dsa-dm": DSA_DM})


def test_arms_are_the_accuracies_that_runs_of_those_sets_have() -> None:
    problem = tiny_problem(ipc=2)
    context = a_context(MTT, synthetic=replace(a_context().synthetic, lr=0.2))
    rows = measured(context)
    assert [row.repeat for row in rows] == [0, 1]
    assert column(rows, "set_own") == accuracies(context)
    assert column(rows, "set_hard") == accuracies(replace(context, protocol=DSA_DM))
    random = replace(context, synthetic=problem.synthetic_set(problem.random_subset()), final=False)
    assert column(rows, "random_own") == accuracies(random)
    assert column(rows, "real_hard") == accuracies(replace(context, synthetic=problem.whole_set(), protocol=DSA_DM))
    for row in rows:
        arms: Mapping[str, float] = {name: float(row.values[name]) for name in ("real_hard", "set_hard")}
        assert row.values["hlr"] == pytest.approx(arms["real_hard"] - arms["set_hard"])
    assert mean(column(rows, "lrs")) > 0
    assert stdev(column(rows, "lrs")) >= 0


def test_a_set_with_hard_labels_and_no_rate_is_trained_once_for_both_of_its_arms() -> None:
    asked: list[tuple[str, str]] = []

    def recall(set_sha256: str, protocol_sha256: str, network: str, repeat: int) -> float | None:
        asked.append((set_sha256, protocol_sha256))
        return {"a": 0.5, "0": 0.9}.get(set_sha256[0], 0.25)

    (first, second) = measured(a_context(recall=recall))
    assert (first.values["set_own"], first.values["set_hard"]) == (0.5, 0.5)
    assert first.values == second.values
    assert first.values["lrs"] == pytest.approx(normalised(0.5 * 0.25 - 0.5 * 0.4))
    assert len(asked) == 2 * 3, "three different pairs of set and protocol"


def test_what_is_on_record_is_not_trained_again_and_the_rest_is() -> None:
    context = a_context()
    full = measured(context)
    trained: list[str] = []

    def recall(set_sha256: str, protocol_sha256: str, network: str, repeat: int) -> float | None:
        if set_sha256 == "a" * 64 and repeat == 0:
            return float(full[0].values["set_own"])
        trained.append(set_sha256)
        return None

    again = measured(replace(context, recall=recall))
    assert [row.values for row in again] == [row.values for row in full]
    assert trained


def test_ars_leaves_out_augmentation_and_nothing_else() -> None:
    protocol = structs.replace(DSA_DM, augmentation=DSA)
    plain = structs.replace(protocol, augmentation=())
    context = replace(a_context(protocol), evaluator="ars")
    rows = measured(context, ars)
    assert column(rows, "set_augmented") == accuracies(context)
    assert column(rows, "set_plain") == accuracies(replace(context, protocol=plain))
    with pytest.raises(BadInput, match="compares with and without augmentation"):
        ars.arms(plain)


def test_a_protocol_without_a_twin_and_the_whole_set_are_refused() -> None:
    with pytest.raises(BadInput, match="hard-label twin of"):
        lrs.arms(structs.replace(MTT, synthetic=Budget(epochs=9)))
    whole = replace(a_context().synthetic, whole=True)
    with pytest.raises(BadInput, match="compares a synthetic set with real images"):
        measured(a_context(synthetic=whole))


def test_a_network_of_which_an_arm_diverged_has_no_score() -> None:
    huge = replace(a_context().synthetic, images=torch.full((6, 1, 8, 8), 1e30))
    events = list(lrs.evaluate(a_context(synthetic=huge, final=False), lrs.Options()))
    assert not [event for event in events if isinstance(event, Measured)]
    messages = [event.message for event in events if isinstance(event, Warned)]
    assert any("has no lrs: it diverged in set_own" in message for message in messages)
    with pytest.raises(Diverged, match="some arm diverged"):
        list(lrs.evaluate(a_context(synthetic=huge), lrs.Options()))
