"""Networks ranked on a set and on real images."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from dambench import networks
from dambench.core import ranking_files
from dambench.core.errors import BadInput
from dambench.core.events import Measured, Real, Warned
from dambench.core.protocol import PRESETS, Budget, HoldOut
from dambench.evaluators import Context, _rankings, nas
from dambench.evaluators._rankings import TrainingCrew, TrainingTask, split, stopped_after, training_arm, with_epochs
from dambench.testing import data_card, real_set, tiny_problem
from dambench.training.problem import Problem, Seeds, SyntheticSet
from dambench.training.train import predict, train

CARD = data_card((40, 40, 40))
PROTOCOL = msgspec.structs.replace(PRESETS["quick"], synthetic=Budget(epochs=1), whole=Budget(epochs=1), batch=32)
SMALL = nas.Options(networks=6, top=3)
SMALLER = nas.Options(networks=6, top=3, baselines=False)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DAMBENCH_HOME", str(tmp_path))
    return tmp_path


def problem(ipc: int = 5, seed: int = 0) -> Problem:
    return tiny_problem(card=CARD, ipc=ipc, seed=seed)


def context(seed: int = 0, ipc: int = 5, **changes: Any) -> Context:
    of = problem(ipc, seed)
    pixels = torch.randint(256, (3 * ipc, 1, 8, 8), generator=Seeds(seed).generator("test"), dtype=torch.uint8)
    usual = Context(
        evaluator="nas",
        synthetic=of.synthetic_set(pixels),
        set_sha256=f"{seed}" * 64,
        iteration=0,
        final=True,
        test=real_set(CARD, seed=1),
        validation=None,
        card=CARD,
        networks=("convnet-d1-w8",),
        repeats=1,
        protocol=PROTOCOL,
        seeds=of.seeds,
        policy=of.policy,
        train=of.real,
    )
    return replace(usual, **changes)


def rows(of: Context, options: nas.Options = SMALL, **known: Any) -> dict[str, dict[str, Real]]:
    return {event.subject: event.values for event in nas.evaluate(of, options, **known) if isinstance(event, Measured)}


def without_seconds(values: dict[str, dict[str, Real]]) -> dict[str, dict[str, Real]]:
    clocks = ("seconds", "speedup")
    return {
        name: {metric: value for metric, value in one.items() if not metric.endswith(clocks)}
        for name, one in values.items()
    }


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each training that begins is given."""
    begun: list[int] = []

    def counting(network: Any, data: SyntheticSet, *args: Any, **more: Any) -> Iterator[tuple[int, int]]:
        begun.append(len(data.images))
        return train(network, data, *args, **more)

    monkeypatch.setattr(_rankings, "train", counting)
    return begun


def test_each_network_is_a_row_and_one_that_cannot_be_built_is_one_with_its_status() -> None:
    found = rows(context())
    assert len(found) == 6 + 4
    assert found["convnet-d4-w64-sigmoid"] == {"status": 4}
    others = [values for name, values in found.items() if name.startswith("convnet") and values["status"] != 4]
    assert len(others) == found["set"]["ranked"] == 5
    arms = ("set", "random", "early", "ceiling", "reference")
    assert all({f"{arm}_{what}" for arm in arms for what in ("accuracy", "seconds")} < set(row) for row in others)


def test_an_accuracy_is_that_of_a_network_trained_by_hand_and_shown_the_held_out_images() -> None:
    of = context()
    parts = split(of, HoldOut())
    name = "convnet-d1-w64-gn-np"
    for arm, data in (
        ("set", of.synthetic),
        ("reference", replace(of.synthetic, images=parts.kept.images, labels=parts.kept.labels, whole=True)),
    ):
        network = networks.build(name, CARD)
        list(train(network, data, PROTOCOL, Seeds(0).child(f"nas {arm}"), mirrors=True))
        held = replace(of.synthetic, images=parts.held.images, labels=parts.held.labels)
        hits = predict(network, held, 1000).argmax(1) == parts.held.labels
        assert rows(of, SMALLER)[name][f"{arm}_accuracy"] == pytest.approx(hits.double().mean().item())


@pytest.mark.slow
def test_the_test_images_are_never_looked_at(home: Path) -> None:
    other = real_set(CARD, seed=9)
    first = rows(context(), SMALLER)
    for folder in sorted((home / "nas").iterdir()):
        folder.rename(home / folder.name)
    assert without_seconds(rows(context(test=other), SMALLER)) == without_seconds(first)


def test_held_out_images_are_those_of_the_protocol_or_else_a_fifth_of_each_class() -> None:
    held = split(context(), HoldOut())
    assert held.kept.counts == (32, 32, 32)
    assert held.held.counts == (8, 8, 8)
    together = torch.cat([held.kept.images, held.held.images]).flatten(1)
    assert len(together.unique(dim=0)) == 120
    own = real_set(CARD, seed=4)
    assert split(context(validation=own), HoldOut()).held is own


def test_held_out_images_that_are_in_the_set_count_in_no_arm() -> None:
    of = context()
    held = split(of, HoldOut()).held
    images = of.synthetic.images.clone()
    images[:3] = held.images[[0, 5, 10]]
    notes = [
        event.message
        for event in nas.evaluate(replace(of, synthetic=replace(of.synthetic, images=images)), SMALLER)
        if isinstance(event, Warned)
    ]
    assert "3 held-out images are in the set, and not counted in any arm." in notes
    found = rows(replace(of, synthetic=replace(of.synthetic, images=images)), SMALLER)
    accuracy = found["convnet-d1-w64-gn-np"]["reference_accuracy"]
    assert isinstance(accuracy, float)
    assert (accuracy * 21) % 1 == pytest.approx(0, abs=1e-9)


def test_the_reference_is_trained_once_for_all_sets_and_the_baselines_for_all_of_a_seed(trainings: list[int]) -> None:
    rows(context(seed=0))
    assert sorted(trainings) == [15] * 10 + [96] * 15
    trainings.clear()
    rows(context(seed=1))  # another set, another draw of random images, the same real ones
    assert trainings == [15] * 10
    trainings.clear()
    rows(context(seed=0))
    assert trainings == []


def test_what_is_measured_does_not_depend_on_what_is_on_record_nor_on_how_many_train_at_once(home: Path) -> None:
    first = rows(context(seed=0))
    shared = rows(context(seed=1))
    for folder in sorted((home / "nas").iterdir()):
        folder.rename(home / folder.name)
    fresh = context(seed=1)
    side_by_side = rows(replace(fresh, policy=replace(fresh.policy, cores=3)))
    assert without_seconds(side_by_side) == without_seconds(shared)
    assert without_seconds(first) != without_seconds(shared)


def test_who_was_interrupted_goes_on_with_what_is_left(trainings: list[int]) -> None:
    whole = rows(context(), SMALLER)
    trainings.clear()
    names = list(whole)
    known = {(name, 0): whole[name] for name in names[:3]}
    rest = rows(context(known=known), SMALLER, resume=known.keys())
    assert list(rest) == names[3:]
    assert rest == {name: whole[name] for name in names[3:]}


def test_a_run_that_is_closed_keeps_each_network_that_was_done_and_leaves_no_thread(home: Path) -> None:
    running = nas.evaluate(context(), SMALL)
    for event in running:
        if isinstance(event, Measured):
            break
    running.close()  # type: ignore[attr-defined]
    kept = list((home / "nas").glob("*/convnet*.json"))
    assert 5 <= len(kept) < 25


def test_a_dry_run_keeps_nothing(home: Path) -> None:
    rows(context(dry_run=True), SMALLER)
    assert not (home / "nas").exists()


def test_items_are_what_is_measured_and_cost_what_is_left() -> None:
    before = nas.items(context(), SMALL)
    found = rows(context())
    assert [item.subject for item in before] == list(found)
    assert {item.kind for item in before} == {"network", "cannot be built", "comparison"}
    after = nas.items(context(), SMALL)
    assert sum(item.cost for item in after) == len(after)
    assert {item.kind for item in after} == {"on record", "cannot be built", "comparison"}


def test_an_estimate_comes_with_what_a_reader_should_know() -> None:
    others = [(item.subject, item.repeat) for item in nas.items(context(), SMALLER)[1:]]
    said = [one for one in nas.evaluate(context(dry_run=True), SMALLER, others) if isinstance(one, Warned)]
    assert any("may have shaped it" in one.message for one in said)


def test_a_damaged_record_is_trained_anew(home: Path, trainings: list[int]) -> None:
    whole = rows(context(), SMALLER)
    trainings.clear()
    paths = sorted((home / "nas").glob("*/convnet-d2-*.json"))[:3]
    paths[0].write_bytes(b"{")
    paths[1].write_bytes(paths[1].read_bytes().replace(b'"images":24', b'"images":1'))
    paths[2].unlink()
    assert without_seconds(rows(context(), SMALLER)) == without_seconds(whole)
    assert len(trainings) == 3


def test_a_network_that_another_process_trains_is_waited_for_and_not_trained_twice(trainings: list[int]) -> None:
    of = context()
    held = split(of, HoldOut()).held
    arm = training_arm("set", of, of.synthetic, PROTOCOL, held, 0)
    crew = TrainingCrew(replace(of.synthetic, images=held.images, labels=held.labels), CARD, of.policy, True, 100)
    name = "convnet-d1-w32"
    lock = ranking_files.claim(arm.key, name)
    assert lock is not None
    assert ranking_files.claim(arm.key, name) is None
    working = crew.work([TrainingTask(name, arm, 1.0)])
    assert next(working) == 0.0
    trained = ranking_files.TrainedNetwork(diverged=False, images=24, hits="f", seconds=1.0, device="cpu")
    ranking_files.keep(arm.key, name, trained, arm.about)
    lock.release()
    assert [event.trained for event in working if not isinstance(event, float)] == [trained]
    assert trainings == []


def test_the_bits_of_recognised_images_come_back() -> None:
    for hits in ([], [True], [False, False, True], [True, *[False] * 9]):
        trained = ranking_files.TrainedNetwork(
            diverged=False, images=len(hits), hits=ranking_files.as_hits(hits), seconds=0, device="cpu"
        )
        assert trained.recognised()[-len(hits) :] == hits or not hits


def test_a_network_that_diverges_is_a_row_and_ranks_last() -> None:
    wild = msgspec.structs.replace(PROTOCOL, lr=1e30)
    found = rows(context(protocol=wild), SMALLER)
    diverged = [row for name, row in found.items() if name.startswith("convnet") and row["status"] == 2]
    assert diverged
    assert all("reference_accuracy" not in row for row in diverged)
    assert all(isinstance(value, int | float) for row in found.values() for value in row.values())


def test_a_comparison_by_hand() -> None:
    built = [(0.9, 0.5), (0.8, 0.9), (0.7, 0.4), (0.1, 0.8), (0.2, 0.1)]
    values: dict[str, dict[str, Real]] = {
        f"net {place}": {
            "status": 0,
            "set_accuracy": a,
            "reference_accuracy": b,
            "set_seconds": 1,
            "reference_seconds": 4,
        }
        for place, (a, b) in enumerate(built)
    }
    values["none"] = {"status": 4}
    found = nas.compared("set", values, top=3)
    assert found["ranked"] == 5
    assert found["k"] == 3
    assert found["seconds"] == 5
    assert found["speedup"] == 4
    assert found["precision_at_k"] == pytest.approx(2 / 3)
    assert found["regret_at_k"] == 0
    assert found["chosen_accuracy"] == 0.5
    assert found["tau_b"] == pytest.approx((6 - 4) / 10)
    assert found["spearman_own_top"] == pytest.approx(0.5)  # 0.9 0.8 0.7 by 0.5 0.9 0.4
    assert found["spearman_reference_top"] == pytest.approx(-0.5)  # 0.8 0.1 0.9 by 0.9 0.8 0.5
    del values["net 0"]["set_accuracy"]  # it diverged: it ranks below all
    assert nas.compared("set", values, top=3)["chosen_accuracy"] == 0.9


def test_real_images_are_stopped_at_the_step_that_has_shown_about_as_many_as_the_set() -> None:
    of = context()
    held = split(of, HoldOut())
    real = replace(of.synthetic, images=held.kept.images, labels=held.kept.labels, whole=True)
    arm = training_arm("ceiling", of, real, with_epochs(PROTOCOL, 0, 10), held.held, 0)
    assert arm.steps == 30  # 96 images in 3 batches of 32, 10 times
    assert arm.images_seen == 960
    early = stopped_after(arm, 96 + 70, "early")
    assert (early.steps, early.images_seen) == (3 + 2, 96 + 64)
    assert stopped_after(arm, 10_000, "early").steps == 30
    assert stopped_after(arm, 1, "early").steps == 1
    assert early.key != arm.key
    network, other = (networks.build("convnet-d1-w32", CARD) for _ in range(2))
    crew = TrainingCrew(replace(real, images=held.held.images, labels=held.held.labels), CARD, of.policy, False, 100)
    list(crew._steps(TrainingTask("convnet-d1-w32", early, 1.0), network))
    for done, _ in train(other, real, arm.protocol, early.seeds, mirrors=True):
        if done == early.steps:
            break
    torch.testing.assert_close(dict(network.named_parameters()), dict(other.named_parameters()), rtol=0, atol=0)


def test_other_epochs_drop_the_rate_after_the_same_share_of_them() -> None:
    changed = with_epochs(PRESETS["dsa-dm"], 100, 20)
    assert (changed.synthetic.epochs, changed.synthetic.drops) == (100, (50,))
    assert (changed.whole.epochs, changed.whole.drops) == (20, (10,))
    assert with_epochs(PRESETS["dsa-dm"], 0, 0) == PRESETS["dsa-dm"]
    assert with_epochs(PRESETS["dsa-dm"], 1, 1).synthetic.drops == ()


@pytest.mark.slow
def test_the_whole_set_is_compared_with_the_reference_alone() -> None:
    of = context()
    whole = replace(of, synthetic=problem().whole_set())
    found = rows(whole, SMALL)
    assert [name for name in found if not name.startswith("convnet")] == ["set", "ceiling"]


@pytest.mark.slow
def test_a_part_of_the_real_images_can_be_the_reference(trainings: list[int]) -> None:
    rows(context(), nas.Options(networks=6, baselines=False, reference_images=30))
    assert sorted(set(trainings)) == [15, 30]


@pytest.mark.parametrize(
    ("of", "options", "reason"),
    [
        ({"ipc": 1}, SMALL, "this one has 3 images in all: it needs 8 or more"),
        ({"validation": real_set(data_card((3, 3, 3)))}, SMALL, "of which there are 9 (of 9) that are not in the set"),
        ({}, nas.Options(networks=3), "needs 5 or more. Ask for more by --set evaluator.networks=36"),
        ({"train": None}, SMALL, "needs the real training images, which are not at hand"),
    ],
)
def test_what_cannot_be_ranked_is_refused_in_a_sentence(of: dict[str, Any], options: nas.Options, reason: str) -> None:
    with pytest.raises(BadInput) as refused:
        nas.items(context(**of), options)
    assert reason in str(refused.value)


@pytest.mark.slow
def test_the_random_search_ranks_networks_of_its_own() -> None:
    found = rows(context(), nas.Options(space="random-search", baselines=False))
    assert sum(name.startswith("searchnet") for name in found) == 5
