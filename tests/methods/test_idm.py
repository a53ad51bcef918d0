"""IDM against a slow literal transcription of its loop, and its queue of networks."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from dambench import networks
from dambench.core.errors import BadInput
from dambench.core.events import Progressed, Stepped
from dambench.engine.monitors import stagnation_warning
from dambench.matching.network_queue import NetworkQueue, QueueTraining
from dambench.methods import idm
from dambench.testing import data_card, tiny_problem
from dambench.testing.methods import quick_options, through_a_file, watch
from dambench.training.problem import Problem, decode
from tests.lab import Tape

CARD = data_card((6, 6, 6))
"""As many images of each class as the tests below take: each draw of them has all."""


class LiteralQueue:
    """Networks, their optimisers and meters in lists, as the released code has them."""

    def __init__(self, problem: Problem, most: int):
        self.problem, self.most = problem, most
        self.networks: list[Any] = []
        self.meters: list[list[bool]] = []
        self.numbers: list[int] = []
        self.made = 0
        for _ in range(min(3, most)):
            self.push()

    def push(self) -> None:
        if len(self.networks) == self.most:
            for of_all in (self.networks, self.meters, self.numbers):
                of_all.pop(0)
        self.made += 1
        network = self.problem.build_network()
        network.reset(self.problem.generator("network", self.made))
        network = network.double().train()
        optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        self.networks.append([network, optimiser, 0])
        self.meters.append([])
        self.numbers.append(self.made)

    def train(self, place: int, steps: int, images: Tensor, labels: Tensor, batch: int) -> None:
        network, optimiser, done = self.networks[place]
        for step in range(done, done + steps):
            source = self.problem.generator("queue", self.numbers[place], step)
            some = torch.randperm(len(labels), generator=source)[:batch]
            logits = network(images[some])
            optimiser.zero_grad()
            F.cross_entropy(logits, labels[some]).backward()
            optimiser.step()
            self.meters[place] += (logits.argmax(1) == labels[some]).tolist()
        self.networks[place][2] += steps


@pytest.mark.parametrize("calibrated_by", ["accuracy", "constant"])
def test_its_iterations_are_those_of_its_loop(calibrated_by: str) -> None:
    """In float64, class after class, each with a step of torch's own optimiser."""
    problem = tiny_problem(card=CARD, ipc=2)
    options: Any = quick_options(
        idm,
        **{"iterations": 7, "batch_real": 6, "augmentation": "none", "lr_images": 0.05, "calibration": 0.02},
        **{"queue": 4, "push_every": 2, "accuracy_over": 5, "train_steps": 3, "batch_network": 5},
        calibrated_by=calibrated_by,
    )
    steps = watch(idm, problem, options)
    reals, labels = problem.real.preprocessing.apply(problem.real.images).double(), problem.real.labels
    synthetic = watch(idm, problem, quick_options(idm, iterations=1, lr_images=1e-30))[0].images
    synthetic = synthetic.double().requires_grad_()
    optimiser = torch.optim.SGD([synthetic], lr=0.05, momentum=0.5)
    queue = LiteralQueue(problem, 4)
    seen = []
    for iteration in range(7):
        if iteration == 5:
            queue.meters = [[] for _ in queue.meters]
        if iteration % 2 == 0:
            queue.push()
        source = problem.seeds.generator("queue: matched", iteration + 1)
        place = int(torch.randint(len(queue.networks), (), generator=source))
        network, meter = queue.networks[place][0], queue.meters[place]
        accuracy = 100 * sum(meter) / len(meter) if meter else 0.0
        seen.append(accuracy)
        total = 0.0
        for label in range(3):
            shown = decode(synthetic[2 * label : 2 * label + 2], 2)
            of_real = network.embed(reals[labels == label]).mean(0).detach()
            loss = (of_real - network.embed(shown).mean(0)).square().sum()
            weight = 0.02 * (accuracy if calibrated_by == "accuracy" else 1.0)
            loss = loss + weight * F.cross_entropy(network(shown), torch.full((8,), label))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += float(loss.detach())
        assert steps[iteration].losses["matching"] == pytest.approx(total, rel=1e-5)
        source = problem.seeds.generator("queue: trained", iteration + 1)
        for some in torch.randperm(len(queue.networks), generator=source)[:2].tolist():
            queue.train(some, 3, reals, labels, 5)
    torch.testing.assert_close(steps[-1].images.double(), synthetic.detach(), rtol=1e-4, atol=1e-5)
    assert len(set(seen)) > 3
    assert max(seen) > 20


def trained_queue(problem: Problem, **more: Any) -> NetworkQueue:
    queue = NetworkQueue(problem, QueueTraining(batch=5), 3, **more)
    for steps in (2, 7, 0, 4):
        queue.push()
        queue.train(queue.networks[-1], steps)
    return queue


def test_a_queue_is_made_again_from_numbers_and_steps_alone() -> None:
    queue = trained_queue(tiny_problem())
    state = through_a_file(queue.state())
    assert sum(value.numel() for value in state.values()) == 12
    assert [network.number for network in queue.networks] == [2, 3, 4]
    again = NetworkQueue(tiny_problem(), QueueTraining(batch=5), 3)
    notices = list(again.go_on(state))
    assert all(isinstance(notice, Progressed) and notice.total == 11 for notice in notices)
    for one, other in zip(queue.networks, again.networks, strict=True):
        assert torch.equal(one.weights, other.weights)
        assert torch.equal(one.velocity, other.velocity)
        assert (one.number, one.steps, one.seen, one.correct) == (other.number, other.steps, other.seen, other.correct)
    for both in (queue, again):
        both.push()
        both.train(both.networks[0], 2)
    assert torch.equal(queue.networks[0].weights, again.networks[0].weights)
    assert [network.number for network in again.networks] == [3, 4, 5]


def test_a_step_of_a_queued_network_may_be_replayed() -> None:
    tapes: list[Tape] = []

    def recorder(device: torch.device) -> Tape:
        tapes.append(Tape(device))
        return tapes[-1]

    queue, replayed = trained_queue(tiny_problem()), trained_queue(tiny_problem(), recorder=recorder)
    assert sum(tape.replayed for tape in tapes) > 5
    for one, other in zip(queue.networks, replayed.networks, strict=True):
        assert torch.equal(one.weights, other.weights)
        assert one.correct == other.correct


def test_a_network_is_trained_on_images_as_they_are() -> None:
    problem = tiny_problem()
    queue = NetworkQueue(problem, QueueTraining(batch=10**6, lr=0.1, momentum=0.0, weight_decay=0.0), 3)
    queue.push()
    queue.train(queue.networks[0], 1)
    network = networks.build("convnet-d1-w8", problem.card)
    network.reset(problem.generator("network", 1))
    before = parameters_to_vector(network.parameters()).detach()
    images = problem.real.preprocessing.apply(problem.real.images)
    F.cross_entropy(network(images), problem.real.labels).backward()
    slope = parameters_to_vector(parameter.grad for parameter in network.parameters())  # type: ignore[misc]
    torch.testing.assert_close(queue.networks[0].weights, before - 0.1 * slope)
    right = int((network(images).argmax(1) == problem.real.labels).sum())
    assert (int(queue.networks[0].correct), queue.networks[0].seen) == (right, 18)


def test_a_loss_that_grows_with_the_networks_is_no_sign_of_too_large_a_step() -> None:
    logged = [Stepped(iteration=i, losses={"matching": float(i)}, seconds=0.0) for i in range(1, 101)]
    assert stagnation_warning(logged, idm.Options()) == ""
    assert "has not fallen" in stagnation_warning(logged, idm.Options(calibrated_by="constant"))


def test_images_are_not_clamped() -> None:
    step = watch(idm, tiny_problem(), quick_options(idm, lr_images=500.0))[-1]
    like: Any = tiny_problem().real.preprocessing
    assert step.images.max() > (1 - like.mean[0]) / like.std[0]


def test_steps_that_are_no_numbers_are_left_out() -> None:
    steps = watch(idm, tiny_problem(), quick_options(idm, lr_images=1e37))
    assert steps[-1].losses["skipped"] > 0
    assert all(step.images.isfinite().all() for step in steps)


def test_running_statistics_are_refused() -> None:
    with pytest.raises(BadInput, match="IDM's queue keeps the weights"):
        idm.check(networks.build("convnet-d1-w8-bn", CARD), idm.Options())
