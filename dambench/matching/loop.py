"""The loop of a method that learns its images: an iteration after the other, each with as much at once as fits."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from dambench.core.events import Warned
from dambench.matching.optimised import LearnedImages
from dambench.training.cuda_graph import GraphRecorder, Replayed
from dambench.training.policy import until_it_fits
from dambench.training.problem import Notice, Problem, State, Step, SyntheticSet

R = TypeVar("R")


class MatchingLoop(ABC):
    """What moves synthetic images, one iteration after the other.

    Args:
        graph: what a GPU does of an iteration as one graph: a function of tensors alone that changes the set in place.
        recorder: stands in for CUDA's, in tests.
    """

    def __init__(
        self,
        problem: Problem,
        images: LearnedImages,
        graph: Callable[..., Sequence[Tensor]],
        recorder: Callable[[torch.device], GraphRecorder] | None,
    ):
        self.problem, self.images = problem, images
        self.parts: dict[str, float] = {}
        """What the last iteration spent its time on, seconds; empty on a GPU, which the host does not wait for."""
        self._warnings: list[str] = []
        """Still to be yielded."""
        self._graphed = problem.device.type == "cuda" or recorder is not None
        self._replayed = Replayed(graph, problem.device, on_warning=self._warnings.append, recorder=recorder)

    @property
    def synthetic(self) -> SyntheticSet:
        """The set as it is now."""
        return self.problem.synthetic_set(self.images.tensor.detach(), factor=self.images.factor)

    def state(self) -> State:
        """Copies of all that `resume` needs."""
        return self.images.state()

    def steps(self, iterations: int) -> Iterator[Step | Notice]:
        """Take all iterations that are left of so many."""
        yield from self._prepare()
        while self.images.iteration < iterations:
            losses = yield from self.step()
            yield Step(self.images.iteration, self.synthetic, losses, self.state, self.parts)

    @abstractmethod
    def step(self) -> Generator[Notice, None, dict[str, Tensor]]:
        """Take the next iteration.

        Returns:
            The losses by name, detached scalars, valid until the next.

        Raises:
            NotEnoughMemory: the GPU has too little, and fewer images at once would be another loss.
        """

    def _prepare(self) -> Iterator[Notice]:
        """Begin, or go on: what is to be noticed before the first iteration."""
        yield from ()

    @abstractmethod
    def _less(self, reason: str) -> tuple[str, int]:
        """Choose the field of the policy that makes do with less memory, and its value.

        Raises:
            NotEnoughMemory: there is none.
        """

    @abstractmethod
    def _follow_policy(self) -> None:
        """Build anew what depends on the policy."""

    def _until_it_fits(self, attempt: Callable[[], Generator[Notice, None, R]]) -> Generator[Notice, None, R]:
        result = yield from until_it_fits(attempt, self._take_less)
        while self._warnings:
            yield Warned(message=self._warnings.pop(0))
        return result

    def _take_less(self, reason: str) -> Iterator[Notice]:
        what, value = self._less(reason)
        self._replayed.forget()
        yield from self.problem.adapt(self.images.iteration + 1, reason, what, value)
        self._follow_policy()
