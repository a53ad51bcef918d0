"""Runs under a protocol that holds validation images out: no arm sees them, and every network is tested on them."""

import json
from typing import Any

import msgspec
import pytest
import torch

from dambench import datasets, engine
from dambench.cli.app import run_cli
from dambench.core import files, registry
from dambench.core.config import Choice, Request, SetRef, read
from dambench.core.errors import BadInput
from dambench.core.events import Measured, Snapshot, Warned
from dambench.core.protocol import PRESETS, Budget, HoldOut, Protocol
from dambench.datasets._hold_out import indices
from dambench.engine.job import Job, open_parts, open_problem
from dambench.matching import experts
from dambench.matching.experts import ExpertTraining
from dambench.testing.methods import quick_options
from dambench.training.problem import SyntheticSet
from tests.lab import end_of, messages


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs under each protocol."""

    def few(name: str) -> Protocol:
        return msgspec.structs.replace(PRESETS[name], synthetic=Budget(epochs=2), whole=Budget(epochs=1))

    monkeypatch.setattr("dambench.engine.settle.preset", few)


def _job(name: str = "dm", protocol: str = "fair-quick", **changes: Any) -> Job:
    options = quick_options(registry.load("methods", name))
    settings: dict[str, Any] = {
        "method": {"name": name} | {option: getattr(options, option) for option in options.__struct_fields__},
        "dataset": "digits",
        "ipc": 2,
        "network": "convnet-d1-w4",
        "evaluate_on": ["convnet-d1-w4"],
        "eval_repeats": 2,
        "device": "cpu",
        "protocol": protocol,
    }
    return engine.prepare(read(Request, settings | changes, "the request"))


def _scores(job: Job) -> list[Measured]:
    return [event for event in engine.run(job) if isinstance(event, Measured)]


def test_networks_are_tested_on_validation_images_on_the_way_and_at_the_end_and_else_nothing_changes() -> None:
    scores = _scores(_job(evaluate_every=2, iterations=4))
    assert [(score.iteration, score.final) for score in scores] == [(2, False)] * 2 + [(4, True)] * 2
    for score in scores:
        hits = 260 * float(score.values["validation_accuracy"])
        assert hits == pytest.approx(round(hits))
        assert score.values["accuracy"] != score.values["validation_accuracy"]
    assert not any("validation_accuracy" in score.values for score in _scores(_job(protocol="quick")))


@pytest.mark.parametrize("method", ["random", "herding", "whole"])
def test_every_arm_sees_the_reduced_training_set_only(method: str) -> None:
    job = _job(method)
    parts = open_parts(job)
    (made,) = (event for event in engine.run(job) if isinstance(event, Snapshot))
    everything, _ = datasets.open_sets(job.card, torch.device("cpu"))
    held = {everything.images[place].numpy().tobytes() for place in indices(job.card.train_counts, HoldOut())}
    if method == "whole":
        synthetic = open_problem(job, parts.train).whole_set()
        assert made.shape[0] == len(synthetic.images) == sum(job.card.train_counts) - 260
    else:
        synthetic = SyntheticSet.read(files.set_path(made.sha256))
        assert job.config.held_out is not None
        assert synthetic.held_out == job.config.held_out.sha256
    train = {image.numpy().tobytes() for image in parts.train.images}
    chosen = {image.numpy().tobytes() for image in synthetic.images}
    assert chosen <= train
    assert not chosen & (held - train)


def test_the_hold_out_is_in_the_identity_and_a_run_without_one_keeps_its_hash() -> None:
    fair, quick = _job().config, _job(protocol="quick").config
    assert quick.held_out is None
    assert fair.sha256 != msgspec.structs.replace(fair, held_out=None).sha256
    assert quick.sha256 == msgspec.structs.replace(fair, held_out=None, protocol=quick.protocol).sha256
    assert fair.validates
    assert not quick.validates


def test_all_seeds_share_the_validation_images() -> None:
    assert _job(seed=0).config.held_out == _job(seed=3).config.held_out == _job("random").config.held_out


def test_experts_that_were_trained_on_all_images_are_not_taken() -> None:
    keys = set()
    for job in (_job("mtt"), _job("mtt", protocol="quick")):
        problem = open_problem(job, open_parts(job).train)
        network = problem.build_network()
        keys.add(experts._key(problem, network, "trajectories"))
        problem.real = datasets.open_sets(job.card, torch.device("cpu"))[0]
        keys.add(experts._key(problem, network, "trajectories"))
    assert len(keys) == 2, "the hold-out alone must decide"


def test_imported_experts_are_refused_where_images_are_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    method = registry.load("methods", "mtt")
    monkeypatch.setattr(method, "settle", lambda options, card, ipc: (options, None))
    options = {"name": "mtt", "experts_from": "abc123"}
    with pytest.raises(
        BadInput, match="experts abc123 were trained elsewhere, and may have seen the validation images"
    ):
        _job("mtt", method=options)


def test_a_set_made_of_all_images_has_no_validation_accuracy_under_a_fair_protocol() -> None:
    made = _job(protocol="quick", iterations=2)
    (snapshot,) = (event for event in engine.run(made) if isinstance(event, Snapshot))
    reference = SetRef(snapshot.sha256, 2)
    again = engine.evaluation(made, Request(protocol="fair-quick"), reference, Choice("accuracy"))
    events = list(engine.run(again))
    assert not any("validation_accuracy" in event.values for event in events if isinstance(event, Measured))
    assert any("may be among those the set was made of" in e.message for e in events if isinstance(e, Warned))
    assert again.config.held_out is None


def test_a_set_made_without_them_has_one_also_when_it_is_evaluated_later() -> None:
    made = _job(iterations=2)
    (snapshot,) = (event for event in engine.run(made) if isinstance(event, Snapshot))
    reference = SetRef(snapshot.sha256, 2)
    for protocol, there in (("fair-quick", True), ("quick", False)):
        again = engine.evaluation(made, Request(protocol=protocol), reference, Choice("accuracy"))
        assert again.config.held_out == made.config.held_out
        assert all(("validation_accuracy" in score.values) == there for score in _scores(again))


def test_an_ipc_that_leaves_no_room_for_validation_is_refused() -> None:
    with pytest.raises(BadInput, match=r"--ipc 120 is too many: class .* training images, 26 of which are held out"):
        _job("random", ipc=120)


def test_experts_that_were_trained_beforehand_under_the_protocol_are_those_that_its_runs_take(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["experts", "train", "--dataset", "digits", "--network", "convnet-d1-w4", "--count", "1", "--epochs", "1"]
    assert run_cli([*command, "--device", "cpu", "--protocol", "fair-quick", "--json"]) == 0
    pool = json.loads(capsys.readouterr().out)
    assert pool["about"]["dataset"] == "digits without validation images"
    for protocol, there in (("fair-quick", True), ("quick", False)):
        job = _job("mtt", protocol=protocol)
        problem, notices = open_problem(job, open_parts(job).train), list[Any]()
        found = end_of(experts.trajectories(problem, ExpertTraining(epochs=1), 1), notices)
        assert (found.key == pool["key"]) == there
        assert any("are trained" in text for text in messages(notices)) != there
