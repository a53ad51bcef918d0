import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from dambench import datasets, networks
from dambench.cli.app import run_cli
from dambench.core import expert_files, files, side_by_side, units
from dambench.core.config import Choice
from dambench.core.errors import BadInput
from dambench.core.events import Progressed, Warned
from dambench.engine import experts_import
from dambench.matching import experts
from dambench.matching.experts import (
    Curriculum,
    ExpertTraining,
    Schedule,
    Trajectories,
    difficulty,
    expert,
    expert_protocol,
    features_of_each_class,
    scores,
    trajectories,
)
from dambench.testing import data_card, tiny_problem
from dambench.training.problem import Network, Normalisation, PhaseStarted, Problem, Seeds
from dambench.training.threads import can_fork
from dambench.training.train import Gsam, predict, train, train_together
from tests.lab import end_of, messages, noise

T = TypeVar("T")

BRIEF = ExpertTraining(epochs=2, batch=8)


def finished(problem: Problem, epochs: int = 2) -> Network:
    """The network, whatever was said on the way."""
    return end_of(expert(problem, expert_protocol(epochs)))


def weights(network: Network) -> Tensor:
    return torch.cat([tensor.detach().flatten().double() for tensor in network.state_dict().values()])


def kept() -> list[Path]:
    return sorted(files.experts_folder().glob("*/*.safetensors"))


def paths(found: Trajectories) -> Tensor:
    """All weights: (experts, epochs + 1, L)."""
    return torch.stack([torch.stack([found.weights(n, e) for e in range(found.epochs + 1)]) for n in range(len(found))])


@pytest.mark.parametrize("network", ["convnet-d1-w8", "convnet-d1-w8-bn"])
def test_a_kept_network_is_the_one_that_was_trained_and_is_not_trained_again(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = tiny_problem(network=network)
    first = finished(problem)
    twin = problem.build_network()
    list(train(twin, problem.whole_set(), expert_protocol(2), problem.seeds.child("expert"), mirrors=True))
    assert torch.equal(weights(first), weights(twin))
    assert len(kept()) == 1
    monkeypatch.setattr(experts, "train", None)
    again = finished(tiny_problem(network=network))
    assert torch.equal(weights(again), weights(first))
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_what_the_weights_depend_on_has_a_file_of_its_own() -> None:
    other_card = data_card()
    changed = type(other_card)(
        **{f: getattr(other_card, f) for f in other_card.__struct_fields__} | {"sha256": "1" * 64}
    )
    for problem, epochs in (
        (tiny_problem(), 1),
        (tiny_problem(), 2),
        (tiny_problem(seed=1), 1),
        (tiny_problem(card=changed), 1),
        (tiny_problem(network="convnet-d1-w12"), 1),
        (tiny_problem(network="convnet-d1-w8-mp"), 1),
    ):
        before = len(kept())
        finished(problem, epochs)
        assert len(kept()) == before + 1
    finished(tiny_problem(ipc=1), 1)
    assert len(kept()) == before + 1, "how many images are chosen does not matter to it"


def test_a_damaged_file_is_made_again() -> None:
    first = finished(tiny_problem())
    (path,) = kept()
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert torch.equal(weights(finished(tiny_problem())), weights(first))
    assert path.read_bytes() == whole


def spoiled(train: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """The same training, after which the networks' weights are no numbers."""

    def training(trained: Any, *given: Any, **more: Any) -> Iterator[Any]:
        yield from train(trained, *given, **more)
        for network in [trained] if isinstance(trained, Network) else trained:
            network.classifier.weight.data.fill_(torch.nan)

    return training


def test_experts_whose_weights_are_no_numbers_are_refused_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experts, "train_together", spoiled(train_together))
    with pytest.raises(BadInput, match="diverged: its weights are no numbers"):
        end_of(trajectories(tiny_problem(), BRIEF, 2))
    assert not kept()


def test_images_are_not_chosen_by_a_kept_network_whose_weights_are_no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(experts, "train", spoiled(train))
        with pytest.raises(BadInput, match="nothing can be chosen or matched by it") as fresh:
            finished(tiny_problem())
        assert "experts delete" not in str(fresh.value)
        assert not kept()
        patched.setattr(experts, "_check_finite", lambda trained, forget="": None)
        finished(tiny_problem())
    (path,) = kept()
    with pytest.raises(BadInput, match=rf"`dambench experts delete {path.parent.name}` forgets it"):
        finished(tiny_problem())


def test_training_says_how_far_it_is() -> None:
    events = [event for event in expert(tiny_problem(), expert_protocol(3)) if isinstance(event, Progressed)]
    assert [(event.done, event.total) for event in events] == [(1, 3), (2, 3), (3, 3)]


def test_features_are_what_the_classifier_reads_of_each_image_class_by_class() -> None:
    problem = tiny_problem(card=data_card((5, 300, 7)))
    network = finished(problem)
    found = list(features_of_each_class(problem, network))
    assert [len(features) for features in found] == [5, 300, 7]
    logits = network.classifier(torch.cat(found))
    torch.testing.assert_close(logits, predict(network, problem.whole_set(), 64))


def test_an_expert_knows_its_images_better_than_chance() -> None:
    card = data_card((20, 20, 20))
    problem = tiny_problem(card=card)
    # Random pixels, all of them brighter in each class.
    shades = torch.tensor([0, 60, 120], dtype=torch.uint8).repeat_interleave(20).view(-1, 1, 1, 1)
    problem.real.images.div_(3, rounding_mode="floor").add_(shades)
    problem.build_network = lambda: networks.build("convnet-d1-w8-nn", card)
    right = predict(finished(problem, 40), problem.whole_set(), 64).argmax(1) == problem.real.labels
    assert right.float().mean() > 0.8


# Trajectories.


def test_a_trajectory_is_the_weights_after_each_epoch() -> None:
    problem = tiny_problem()
    found = end_of(trajectories(problem, BRIEF, 2))
    assert (len(found), found.epochs) == (2, 2)
    for number in range(2):
        for epochs in range(3):
            twin = problem.build_network()
            own = Seeds(0).child("expert", number)
            if epochs:
                how = msgspec.structs.replace(BRIEF, epochs=epochs).protocol
                list(train(twin, problem.whole_set(), how, own, mirrors=True))
            else:
                twin.reset(own.generator("weights"))
            assert torch.equal(found.weights(number, epochs).double(), weights(twin))
            for name, parameter in found.named(found.weights(number, epochs)).items():
                assert torch.equal(parameter, twin.get_parameter(name))
    assert found.parameters == tuple((name, parameter.shape) for name, parameter in twin.named_parameters())


def test_weights_lie_in_the_order_of_the_layers() -> None:
    card = data_card((1,) * 10, channels=3, size=(32, 32))
    network = networks.build("convnet-d3-w128", card)
    found = Trajectories("", [torch.zeros(1, 320_010)], network, torch.device("cpu"))
    sizes = [shape.numel() for _, shape in found.parameters]
    assert sizes == [3456, 128, 128, 128, 147456, 128, 128, 128, 147456, 128, 128, 128, 20480, 10]
    # Where PAD's mask cuts: a quarter lies inside the second convolution, at 52 %.
    assert (80_002 - sum(sizes[:4])) / 147_584 == pytest.approx(0.52, abs=0.005)


@pytest.mark.parametrize("gsam", [None, Gsam()])
def test_experts_trained_side_by_side_are_those_trained_alone(gsam: Gsam | None) -> None:
    how = msgspec.structs.replace(BRIEF, gsam=gsam, momentum=0.5, weight_decay=0.01)
    alone = paths(end_of(trajectories(tiny_problem(), how, 3)))
    for path in kept():
        path.unlink()
    stacked = tiny_problem()
    stacked.policy = replace(stacked.policy, stack=2)
    # Only sums are rounded otherwise.
    torch.testing.assert_close(paths(end_of(trajectories(stacked, how, 3))), alone, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(not can_fork(), reason="experts are trained one after another here")
def test_experts_with_a_process_each_are_to_the_bit_those_trained_alone() -> None:
    alone = paths(end_of(trajectories(tiny_problem(), BRIEF, 4)))
    difficult = end_of(scores(tiny_problem(), Schedule(scored_by=4, scored_after=2)))
    for path in kept():
        path.unlink()
    beside = tiny_problem()
    beside.policy = replace(beside.policy, cores=3)
    steps = trajectories(beside, BRIEF, 4)
    while not kept():
        next(steps)
    steps.close()  # whichever was ready stays
    assert not side_by_side.pids()
    assert torch.equal(paths(end_of(trajectories(beside, BRIEF, 4))), alone)
    assert torch.equal(end_of(scores(beside, Schedule(scored_by=4, scored_after=2))), difficult)


def test_what_is_kept_is_not_trained_again_and_more_are_added_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    two = paths(end_of(trajectories(tiny_problem(), BRIEF, 2)))
    before = {path: path.read_bytes() for path in kept()}
    # The seed of the run is not theirs.
    three = paths(end_of(trajectories(tiny_problem(seed=5, ipc=1), BRIEF, 3)))
    assert torch.equal(three[:2], two)
    assert not torch.equal(three[2], two[0])
    assert {path: path.read_bytes() for path in kept() if path in before} == before
    monkeypatch.setattr(experts, "train_together", None)
    assert torch.equal(paths(end_of(trajectories(tiny_problem(), BRIEF, 3))), three)


def test_a_training_that_is_broken_off_goes_on_after_the_last_expert() -> None:
    expected = paths(end_of(trajectories(tiny_problem(), BRIEF, 3)))
    for path in kept():
        path.unlink()
    steps = trajectories(tiny_problem(), BRIEF, 3)
    while len(kept()) < 2:
        next(steps)
    steps.close()
    events = [event for event in trajectories(tiny_problem(), BRIEF, 3) if isinstance(event, Progressed)]
    assert {event.note for event in events} == {"looking at those that are kept", "expert 1/1"}
    assert torch.equal(paths(end_of(trajectories(tiny_problem(), BRIEF, 3))), expected)


@pytest.mark.parametrize("damage", [lambda whole: whole[:-5], lambda whole: whole[:-1] + bytes([whole[-1] ^ 1])])
def test_a_damaged_expert_is_trained_again_and_the_reader_is_told(damage: Callable[[bytes], bytes]) -> None:
    expected = paths(end_of(trajectories(tiny_problem(), BRIEF, 2)))
    path = kept()[1]
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    notices: list[Any] = []
    assert torch.equal(paths(end_of(trajectories(tiny_problem(), BRIEF, 2), notices)), expected)
    assert path.read_bytes() == whole
    assert "0001-" in messages(notices)[0]
    assert "damaged" in messages(notices)[0]


def test_whatever_the_weights_depend_on_makes_other_experts() -> None:
    part = replace(tiny_problem().real, images=tiny_problem().real.images[1:], counts=(4, 6, 7))
    held_out = tiny_problem()
    held_out.real = part
    other_part = tiny_problem()
    other_part.real = replace(part, images=torch.cat([tiny_problem().real.images[:4], part.images[4:]]))
    other_card = msgspec.structs.replace(data_card(), sha256="1" * 64)
    other_norm = tiny_problem()
    other_norm.real = replace(other_norm.real, preprocessing=Normalisation((0.4,), (0.5,)))
    cases = [
        *(
            (tiny_problem(), how)
            for how in (BRIEF, ExpertTraining(epochs=1, batch=8), ExpertTraining(epochs=2, batch=7))
        ),
        *((tiny_problem(), msgspec.structs.replace(BRIEF, **{name: 0.02})) for name in ("lr", "momentum")),
        (tiny_problem(), msgspec.structs.replace(BRIEF, weight_decay=0.02)),
        (tiny_problem(), msgspec.structs.replace(BRIEF, augmented=False)),
        (tiny_problem(), msgspec.structs.replace(BRIEF, seed=1)),
        (tiny_problem(), msgspec.structs.replace(BRIEF, gsam=Gsam())),
        (tiny_problem(), msgspec.structs.replace(BRIEF, gsam=Gsam(rho=0.1))),
        (tiny_problem(card=other_card), BRIEF),
        (tiny_problem(network="convnet-d1-w12"), BRIEF),
        (held_out, BRIEF),
        (other_part, BRIEF),
        (other_norm, BRIEF),
    ]
    for number, (problem, how) in enumerate(cases):
        end_of(trajectories(problem, how, 1))
        assert len(kept()) == number + 1


def test_running_statistics_are_no_part_of_a_trajectory() -> None:
    with pytest.raises(BadInput, match="running statistics"):
        end_of(trajectories(tiny_problem(network="convnet-d1-w8-bn"), BRIEF, 1))


def test_a_disk_without_room_is_refused_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "room", lambda path: 1000)
    with pytest.raises(BadInput, match=r"2 experts of convnet-d1-w8 on made-up take .* 1 kB are free"):
        end_of(trajectories(tiny_problem(), BRIEF, 2))
    assert not kept()


def test_their_time_is_a_phase_of_its_own_and_disk_use_is_announced_and_then_told() -> None:
    notices = list(trajectories(tiny_problem(), BRIEF, 2))
    events = [event for event in notices if isinstance(event, Progressed)]
    said = [
        event.phase if isinstance(event, PhaseStarted) else event.message
        for event in notices
        if isinstance(event, PhaseStarted | Warned)
    ]
    assert said[0] == "experts"
    assert "2 experts of convnet-d1-w8 on made-up are trained, for 2 epochs" in said[1]
    size = sum(path.stat().st_size for path in kept())
    assert said[2].startswith(f"2 experts of convnet-d1-w8 on made-up are kept: {units.size(size)}, ")
    assert said[3:] == ["distil"]
    # 18 images in batches of 8.
    steps = [(event.done, event.total) for event in events]
    assert steps == [(done, 12) for done in range(1, 13)]
    assert {event.phase for event in events} == {"experts"}


def test_only_one_process_trains_and_the_other_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    end_of(trajectories(tiny_problem(), BRIEF, 1))
    (pool,) = expert_files.listed()
    monkeypatch.setattr(experts, "POOL_SECONDS", 0.0)
    claim = expert_files.claim(pool.key)
    assert claim is not None
    steps = trajectories(tiny_problem(), BRIEF, 2)
    waiting = [event for event in (next(steps) for _ in range(5)) if isinstance(event, Progressed)]
    assert waiting[-1].note == "another process trains them"
    claim.release()
    assert len(end_of(steps)) == 2


def test_fewer_are_trained_at_once_where_the_memory_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    stacks = list[int]()
    real = train_together

    def crowded(stack: list[Network], *given: Any, **more: Any) -> Iterator[tuple[int, int]]:
        stacks.append(len(stack))
        if len(stack) > 2:
            raise torch.OutOfMemoryError("too little")
        return real(stack, *given, **more)

    monkeypatch.setattr(experts, "train_together", crowded)
    problem, notices = tiny_problem(), list[Any]()
    problem.policy = replace(problem.policy, stack=4)
    assert len(end_of(trajectories(problem, BRIEF, 5), notices)) == 5
    warnings = messages(notices)
    assert stacks == [4, 2, 2, 1]
    assert warnings[1].endswith("2 are trained at once.")


# GSAM.


def test_gsam_is_what_its_six_steps_say() -> None:
    problem, how = (
        tiny_problem(),
        ExpertTraining(epochs=2, batch=18, augmented=False, lr=0.1, gsam=Gsam(rho=0.5, alpha=0.7)),
    )
    (found,) = paths(end_of(trajectories(problem, how, 1)))
    network = problem.build_network().double()
    data = problem.whole_set()
    images, labels = data.inputs(torch.arange(18)).double(), data.labels
    flat = found[0].double()

    def gradient(at: Tensor) -> Tensor:
        torch.nn.utils.vector_to_parameters(at, network.parameters())
        network.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        return torch.cat([parameter.grad.flatten() for parameter in network.parameters() if parameter.grad is not None])

    for epoch in range(2):
        first = gradient(flat)
        moved = flat + 0.5 * flat.abs() ** 2 * first / (flat.abs() * first).norm()
        second = gradient(moved)
        direction = second / second.norm()
        orthogonal = first - (first @ direction) * direction
        flat = flat - 0.1 * (second - 0.7 * orthogonal)
        torch.testing.assert_close(found[epoch + 1].double(), flat, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(found[1].double(), found[0].double() - 0.1 * gradient(found[0].double()), atol=1e-4)


# PAD's schedule.


PAD = {0: (0, 3750), 10: (0, 4375), 20: (0, 5000), 40: (0, 5000)}
PAD |= {41: (500, 5000), 60: (500, 5000), 61: (1000, 5000), 99: (1000, 5000)}


@pytest.mark.parametrize(("epoch", "kept"), PAD.items())
def test_a_class_of_cifar10_is_seen_as_pad_says(epoch: int, kept: tuple[int, int]) -> None:
    assert Schedule().kept(5000, epoch) == kept


def test_classes_of_any_size_are_seen_and_never_none_of_one() -> None:
    schedule = Schedule(initial=0.29, growth=0, removals=((3, 1.0),))
    assert schedule.kept(100, 0) == (0, 100)
    assert Schedule(initial=0.29, growth=10).kept(100, 0) == (0, 29)
    assert [schedule.kept(count, 4) for count in (1, 2, 500)] == [(0, 1), (1, 2), (499, 500)]
    assert Schedule(initial=0.01).kept(1, 0) == (0, 1)


def test_the_easiest_of_each_class_come_first_and_leave_first() -> None:
    counts = (4, 1, 7)
    difficulty = noise(12).float()
    schedule = Schedule(initial=0.5, growth=2, removals=((3, 0.25), (4, 0.5)))
    curriculum = Curriculum(schedule, difficulty, counts)
    for epoch in range(6):
        share = min(1.0, 0.5 + 0.5 * epoch / 2)
        dropped = {4: 0.25, 5: 0.5}.get(epoch, 0.0)
        expected = []
        for first, count in ((0, 4), (4, 1), (5, 7)):
            ordered = sorted(range(first, first + count), key=lambda image: float(difficulty[image]))
            expected += ordered[int(dropped * count) : max(1, int(share * count))]
        assert curriculum.indices(epoch).tolist() == expected


def test_experts_see_what_their_schedule_shows_them() -> None:
    problem = tiny_problem()
    schedule = Schedule(initial=0.5, growth=2, removals=((2, 0.5),), scored_by=2, scored_after=1)
    how = ExpertTraining(epochs=4, batch=4, augmented=False, schedule=schedule)
    (found,) = paths(end_of(trajectories(problem, how, 1)))
    values = end_of(scores(tiny_problem(seed=3), schedule))
    twin, own = problem.build_network(), Seeds(0).child("expert", 0)
    twin.reset(own.generator("weights"))
    optimizer = torch.optim.SGD(twin.parameters(), 0.01)
    data = problem.whole_set()
    for epoch in range(4):
        shown = Curriculum(schedule, values, problem.real.counts).indices(epoch)
        assert len(shown) == {0: 8, 1: 12, 2: 18, 3: 10}[epoch]
        order = torch.randperm(len(shown), generator=own.generator("order", epoch))
        for chosen in shown[order].split(4):
            optimizer.zero_grad()
            F.cross_entropy(twin(data.inputs(chosen)), data.labels[chosen]).backward()
            optimizer.step()
        torch.testing.assert_close(found[epoch + 1].double(), weights(twin), rtol=1e-5, atol=1e-7)


def test_difficulty_is_what_its_definitions_say_image_by_image() -> None:
    problem = tiny_problem()
    network, data = finished(problem).requires_grad_(), problem.whole_set()
    found = difficulty(network, data, batch=5)
    for image in range(18):
        logits = network(data.inputs(torch.tensor([image])))
        loss = F.cross_entropy(logits, data.labels[image : image + 1])
        last = torch.autograd.grad(loss, list(network.classifier.parameters()))
        literal = {
            "el2n": (logits.softmax(1)[0] - F.one_hot(data.labels[image], 3)).norm(),
            "grand": torch.cat([gradient.flatten() for gradient in last]).norm(),
            "loss": loss,
        }
        for name, value in literal.items():
            torch.testing.assert_close({**found}[name][image], value.detach(), rtol=1e-4, atol=1e-6)  # type: ignore[index]


@pytest.mark.parametrize("score", ["el2n", "grand", "loss"])
def test_scores_are_the_mean_of_several_networks_and_kept(score: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    how = Schedule(score=score, scored_by=3, scored_after=2)
    problem = tiny_problem()
    found = end_of(scores(problem, how))
    protocol = msgspec.structs.replace(BRIEF, momentum=0.9, weight_decay=5e-4, batch=256, augmented=False).protocol
    each = []
    for number in range(3):
        twin = problem.build_network()
        list(train(twin, problem.whole_set(), protocol, Seeds(0).child("score", number), mirrors=True))
        each.append({**difficulty(twin, problem.whole_set(), 64)}[score])
    torch.testing.assert_close(found, torch.stack(each).mean(0))
    monkeypatch.setattr(experts, "train_together", None)
    assert torch.equal(end_of(scores(tiny_problem(seed=1), how)), found)


# On the command line.

TRAIN = ["experts", "train", "--dataset", "digits", "--network", "convnet-d1-w4", "--device", "cpu", "--epochs", "1"]


def listed(capsys: pytest.CaptureFixture[str]) -> Any:
    capsys.readouterr()
    assert run_cli(["experts", "list", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_experts_are_trained_listed_and_deleted(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli([*TRAIN, "--count", "2"]) == 0
    said = capsys.readouterr()
    assert Path(said.out.strip()).is_dir()
    assert "2 experts of convnet-d1-w4 on digits are trained, for 1 epochs: " in said.err
    gsam = ["--optimiser", "gsam", "--schedule", "loss", "--set", "schedule.scored_by=1", "--set", "gsam.rho=0.1"]
    assert run_cli([*TRAIN, "--count", "1", *gsam, "--set", "schedule.scored_after=1", "--set", "batch=500"]) == 0
    found = listed(capsys)
    assert sorted((pool["about"]["what"], pool["count"]) for pool in found) == [
        ("scores", 1),
        ("trajectories", 1),
        ("trajectories", 2),
    ]
    sharp = next(pool for pool in found if pool["about"]["how"].get("gsam"))
    assert sharp["about"]["how"]["gsam"]["rho"] == 0.1
    assert sharp["about"]["how"]["batch"] == 500
    assert sharp["about"]["how"]["schedule"]["score"] == "loss"
    assert sum(pool["size_bytes"] for pool in found) == sum(path.stat().st_size for path in kept())
    assert run_cli(["experts", "list"]) == 0
    shown = capsys.readouterr()
    assert "2 × 1 epochs  digits   convnet-d1-w4  sgd, lr 0.01, seed 0" in shown.out
    assert "gsam, lr 0.01, loss schedule, seed 0" in shown.out
    assert run_cli(["experts", "delete", sharp["key"][:10], "--yes"]) == 0
    assert sharp["key"] not in {pool["key"] for pool in listed(capsys)}
    assert run_cli(["experts", "delete", "--all"]) == 2, "nobody is there to be asked"
    assert len(kept()) == 3
    assert run_cli(["experts", "delete", "--all", "--yes"]) == 0
    assert listed(capsys) == []
    assert not kept()


def test_experts_that_somebody_uses_are_not_deleted(capsys: pytest.CaptureFixture[str]) -> None:
    found = end_of(trajectories(tiny_problem(), BRIEF, 1))
    assert run_cli(["experts", "delete", found.key, "--yes"]) == 2
    assert "are used by a run that goes on" in capsys.readouterr().err
    assert len(kept()) == 1
    del found
    assert run_cli(["experts", "delete", "--all", "--yes"]) == 0
    assert not kept()


def test_a_training_that_is_interrupted_goes_on_where_it_was(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = expert_files.keep

    def then_interrupted(*given: Any) -> Path:
        path = real(*given)
        signal.raise_signal(signal.SIGINT)
        return path

    monkeypatch.setattr(expert_files, "keep", then_interrupted)
    assert run_cli([*TRAIN, "--count", "2"]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert len(kept()) == 1
    monkeypatch.setattr(expert_files, "keep", real)
    assert run_cli([*TRAIN, "--count", "2"]) == 0
    assert "1 experts of" in capsys.readouterr().err
    assert len(kept()) == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--network", "convnet-bn"], "running statistics"),
        (["--optimiser", "sam"], "No optimiser is called 'sam'. Did you mean"),
        (["--schedule", "easy"], "No schedule is called 'easy'"),
        (["--preprocessing", "pca"], "No preprocessing is called 'pca'"),
        (["--epochs", "0"], "epochs = 0 is not allowed"),
        (["--seed", "-1"], "seed = -1 is not allowed"),
        (["--set", "lr=0"], "lr = 0 is not allowed"),
        (["--set", "sam.rho=1"], "is not of the form"),
        (["--set", "gsam.rho=1"], "--set gsam.… is for --optimiser gsam, which"),
        (["--set", "schedule.growth=1"], "--set schedule.… is for --schedule"),
        (["--device", "cuda:99"], "is not there"),
    ],
)
def test_what_cannot_be_trained_is_said_in_a_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    others = [word for pair in zip(TRAIN[2::2], TRAIN[3::2], strict=True) if pair[0] not in words for word in pair]
    assert run_cli([*TRAIN[:2], *others, *words]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("dambench: ")
    assert sentence in said
    assert not kept()


def test_files_that_no_expert_is_in_are_passed_over() -> None:
    end_of(trajectories(tiny_problem(), BRIEF, 1))
    place = files.experts_folder()
    (place / ("0" * 64 + ".safetensors")).write_bytes(b"of an older version")
    (place / "empty").mkdir()
    (place / "wrong").mkdir()
    (place / "wrong" / "0000-1.safetensors").write_bytes(b"\xff" * 100)
    assert [pool.about.number for pool in expert_files.listed()] == [0]


# Imported.


def _buffer(path: Path, found: list[Tensor], name: str = "convnet-d1-w4") -> Path:
    """As MTT's code saves trajectories (epochs + 1, L): a list of them, of epochs, of parameters."""
    card = datasets.prepare(Choice("digits"), None)
    shapes = [parameter.shape for parameter in networks.build(name, card).parameters()]
    sizes = [shape.numel() for shape in shapes]
    saved = [
        [[part.view(shape).clone() for part, shape in zip(row.split(sizes), shapes, strict=True)] for row in weights]
        for weights in found
    ]
    torch.save(saved, path)
    return path


def _line(*words: str, **settings: Any) -> list[str]:
    """A short run of MTT with these settings."""
    quick = {"iterations": 2, "experts": 1, "epochs": 1, "max_start": 1, "expert_epochs": 1, "steps": 2} | settings
    line = ["run", "--headless", "--method", "mtt", "--dataset", "digits", "--device", "cpu", "--eval-repeats", "1"]
    line += [word for name, value in quick.items() for word in ("--set", f"method.{name}={value}")]
    return [*line, "--json", *words, *([] if "--network" in words else ["--network", "convnet-d1-w4"])]


def test_imported_experts_are_followed_as_those_that_were_trained_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli([*TRAIN, "--count", "2"]) == 0
    weights = [safetensors.torch.load_file(path)["weights"] for path in sorted(kept())]
    capsys.readouterr()
    assert run_cli(_line()) == 0
    here = json.loads(capsys.readouterr().out)
    first = _buffer(tmp_path / "replay_buffer_0.pt", weights[:1])
    command = ["experts", "import", "--dataset", "digits", "--network", "convnet-d1-w4", "--json"]
    assert run_cli([*command, str(first)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["experts"], said["epochs"], said["preprocessing"]) == (1, 1, "mean/std")
    assert run_cli(_line(experts_from=said["key"][:8])) == 0
    there = json.loads(capsys.readouterr().out)
    assert there["synthetic_sha256"] == here["synthetic_sha256"]
    assert said["command"].endswith(
        f"--set method.experts_from={said['key'][:12]} --set method.experts=1 --set method.epochs=1"
    )
    # Both files, in any order, are one kind of experts.
    second = _buffer(tmp_path / "replay_buffer_1.pt", weights[1:])
    keys = set()
    for paths in ([first, second], [second, first]):
        assert run_cli([*command, *map(str, paths)]) == 0
        both = json.loads(capsys.readouterr().out)
        assert both["experts"] == 2
        keys.add(both["key"])
    assert len(keys) == 1
    assert {pool["about"]["how"].get("preprocessing", "ours") for pool in listed(capsys)} == {"ours", "mean/std"}
    asked: list[tuple[list[str], dict[str, int], str]] = [
        ([], {"experts": 2}, "have 1 experts, the run was asked for 2: say --set method.experts=1"),
        ([], {"epochs": 2}, "have 1 epochs, the run was asked for 2"),
        (["--network", "convnet-d1-w8"], {}, "are of the network convnet-d1-w4"),
        (["--preprocessing", "zca"], {}, "was made with mean/std: leave it out"),
    ]
    for words, settings, sentence in asked:
        assert run_cli(_line(*words, experts_from=said["key"], **settings)) == 2
        assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("saved", "sentence"),
    [
        ({"weights": torch.zeros(3)}, "it is no list of experts"),
        ([[[torch.zeros(3)]]], "its expert 0 is no list of epochs, two at least"),
        ([[[torch.zeros(3)]] * 2], "expert 0, epoch 0 has 1 parameters, the network 6"),
        ("others", "say the right --network"),
        ("nan", "not all weights of expert 0, epoch 1 are finite"),
        (b"a text", "is not what torch.save writes"),
        ("endless", "its experts claim more numbers than it has room for"),
        ("twice", "of the 2 experts are there twice"),
    ],
)
def test_a_file_of_other_experts_is_refused_before_anything_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], saved: Any, sentence: str
) -> None:
    card = datasets.prepare(Choice("digits"), None)
    length = sum(parameter.numel() for parameter in networks.build("convnet-d1-w4", card).parameters())
    path = tmp_path / "replay_buffer_0.pt"
    weights = torch.arange(2.0 * length).view(2, length)
    if saved == "others":
        wide = sum(parameter.numel() for parameter in networks.build("convnet-d1-w8", card).parameters())
        _buffer(path, [torch.zeros(2, wide)], "convnet-d1-w8")
    elif saved == "nan":
        weights[1, 5] = torch.nan
        _buffer(path, [weights])
    elif saved == "twice":
        _buffer(path, [weights, weights])
    elif saved == "endless":
        network = networks.build("convnet-d1-w4", card)
        torch.save([[[parameter.detach() for parameter in network.parameters()]] * 10_000], path)
    elif isinstance(saved, bytes):
        path.write_bytes(saved)
    else:
        torch.save(saved, path)
    assert run_cli(["experts", "import", str(path), "--dataset", "digits", "--network", "convnet-d1-w4"]) == 2
    assert sentence in capsys.readouterr().err
    assert not kept()


@pytest.mark.parametrize("said", ["mean/std", "zca"])
def test_experts_that_see_better_another_way_are_remarked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    shares = {said: 0.25, "zca" if said == "mean/std" else "mean/std": 0.75}
    monkeypatch.setattr(experts_import, "_share", lambda network, card, preprocessing: shares[preprocessing])
    card = datasets.prepare(Choice("digits"), None)
    length = sum(parameter.numel() for parameter in networks.build("convnet-d1-w4", card).parameters())
    path = _buffer(tmp_path / "replay_buffer_0.pt", [torch.zeros(2, length)])
    command = ["experts", "import", str(path), "--dataset", "digits", "--network", "convnet-d1-w4"]
    assert run_cli([*command, "--preprocessing", said]) == 0
    other = "zca" if said == "mean/std" else "mean/std"
    told = " ".join(capsys.readouterr().err.split())
    assert f"recognises 25.0 % of real images with {said}, and 75.0 % with {other}" in told
    shares[said] = 0.8
    assert run_cli([*command, "--preprocessing", said]) == 0
    assert "note:" not in capsys.readouterr().err
