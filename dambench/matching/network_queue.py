"""A queue of networks that are trained on the real images a little at a time, beside the images that are learned (IDM).

A network is known by its number, which its first weights are drawn by, and by how many steps it has taken: each step's
batch is drawn by both. So a run that goes on makes each network again from these two numbers, to the bit on the same
machine, and a checkpoint holds no weights: those and the momentum of a hundred ConvNets are some 250 MB.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dambench.core.events import Progressed
from dambench.matching.pretrained import set_weights
from dambench.training.cuda_graph import GraphRecorder, Replayed
from dambench.training.problem import Notice, Problem, State


@dataclass(frozen=True)
class QueueTraining:
    """How the networks of a queue are trained: SGD on random real images, not augmented, whatever their class."""

    batch: int = 256
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4


@dataclass
class QueuedNetwork:
    """A network of a queue."""

    number: int
    """The weights that it began with are those of `Problem.new_network(number)`."""
    steps: int
    """Steps of training so far."""
    weights: Tensor
    velocity: Tensor
    """(L,) each, of its SGD."""
    correct: Tensor
    """Images of its training, before the step on them, that it was right about since that was last forgotten."""
    seen: int = 0
    """How many there were."""


class NetworkQueue:
    """The networks, the oldest first.

    Args:
        most: when there are more, the oldest leaves.
        recorder: stands in for CUDA's, in tests.
    """

    def __init__(
        self,
        problem: Problem,
        how: QueueTraining,
        most: int,
        recorder: Callable[[torch.device], GraphRecorder] | None = None,
    ):
        self.problem, self.how, self.most = problem, how, most
        self.networks: list[QueuedNetwork] = []
        self._labels = problem.real.labels
        self._trainee = problem.build_network().to(problem.device).train()
        self._parameters = list(self._trainee.parameters())
        length = sum(parameter.numel() for parameter in self._parameters)
        self._weights, self._velocity = (torch.zeros(length, device=problem.device) for _ in range(2))
        """Where the network lies that is being trained: a graph of the GPU goes on looking there."""
        self._step = Replayed(self._take, problem.device, recorder=recorder)

    def push(self) -> None:
        """Put a new network at the end."""
        self.networks.append(self._begun(self.networks[-1].number + 1 if self.networks else 1))
        del self.networks[: -self.most]

    def train(self, queued: QueuedNetwork, steps: int) -> None:
        """Take so many steps with a network. Of several ranks the first does, and gives the others the outcome."""
        ranks = self.problem.ranks
        self._weights.copy_(queued.weights)
        self._velocity.copy_(queued.velocity)
        correct = torch.zeros_like(queued.correct)
        for step in range(queued.steps, queued.steps + steps) if ranks is None or ranks.is_first else ():
            (right,) = self._step(self._batch(queued.number, step))
            correct += right
        if ranks is not None:
            ranks.follow_first([self._weights, self._velocity, correct])
        queued.weights.copy_(self._weights)
        queued.velocity.copy_(self._velocity)
        queued.correct += correct
        queued.seen += steps * self._batch_size
        queued.steps += steps

    def forget_accuracy(self) -> None:
        """Begin to count anew how often the networks are right."""
        for queued in self.networks:
            queued.correct.zero_()
            queued.seen = 0

    def state(self) -> State:
        """All that `go_on` needs."""
        correct = [queued.correct for queued in self.networks]
        return {
            "queue": torch.tensor([[queued.number, queued.steps, queued.seen] for queued in self.networks]),
            "correct": torch.stack(correct) if correct else torch.zeros(0),
        }

    def go_on(self, state: State) -> Iterator[Notice]:
        """Be as `state` says: train each network again as far as it was."""
        rows, correct = state["queue"].tolist(), state["correct"].to(self.problem.device)
        self.networks = []
        total, done = sum(steps for _, steps, _ in rows), 0
        for (number, steps, seen), right in zip(rows, correct, strict=True):
            queued = self._begun(number)
            for step in range(steps):
                self.train(queued, 1)
                if step % 10 == 0:
                    yield Progressed(phase="distil", done=done + step, total=total, note="training the queue again")
            done += steps
            queued.correct, queued.seen = right.clone(), seen
            self.networks.append(queued)

    @property
    def _batch_size(self) -> int:
        return min(self.how.batch, len(self._labels))

    def _begun(self, number: int) -> QueuedNetwork:
        """The network of that number as it begins. The problem's network is then it."""
        weights = flat(list(self.problem.new_network(number).parameters()))
        correct = torch.zeros((), dtype=torch.int64, device=weights.device)
        return QueuedNetwork(number, 0, weights, torch.zeros_like(weights), correct)

    def _batch(self, number: int, step: int) -> Tensor:
        """Indices of the real images of a network's step, each once: (batch,) int64."""
        generator = self.problem.generator("queue", number, step)
        order = torch.randperm(len(self._labels), generator=generator, device=generator.device)
        return order[: self._batch_size]

    def _take(self, chosen: Tensor) -> Sequence[Tensor]:
        """Take a step of SGD on these real images; give how many the network was right about."""
        set_weights(self._trainee, self._weights)
        real = self.problem.real
        labels = self._labels[chosen]
        with torch.enable_grad():
            logits = self._trainee(real.preprocessing.apply(real.images[chosen]))
            slopes = torch.autograd.grad(F.cross_entropy(logits, labels), self._parameters)
        slope = flat(slopes) + self.how.weight_decay * self._weights
        self._velocity.mul_(self.how.momentum).add_(slope)
        self._weights.sub_(self._velocity, alpha=self.how.lr)
        return [(logits.detach().argmax(1) == labels).sum()]


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """Lay tensors out one after the other: (L,), a copy."""
    return torch.cat([tensor.detach().flatten() for tensor in tensors])
