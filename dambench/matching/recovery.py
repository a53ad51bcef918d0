"""Recovery of images from a trained network: what it recognises, and what its BatchNorms are used to.

SRe2L is of this kind (DeepInversion, Yin et al., CVPR 2020, for small sets). With x a batch of images, one of each
class, as they are shown, and the mean and variance of each channel that a BatchNorm l of the network is given of them,

    CE(x) + weight · Σ_l w_l (‖var_l(x) − σ²_l‖₂ + ‖mean_l(x) − μ_l‖₂)

with μ and σ² its running statistics and w_l 10 for the first of them, 1 for the others. The norms are not squared, and
the variance is the biased one. Batches have nothing to do with each other; here all of them take their steps side by
side, where the released code finishes one after the other.

A batch is shown cut, resized, mirrored and rolled, alike for all of its images. All of this moves rows and columns, so
a view is two rows and two columns for each of what is shown, and how much of the second comes in.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from math import cos, exp, log, pi
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dambench.core.errors import NotEnoughMemory
from dambench.core.events import SKIPPED
from dambench.matching.loop import MatchingLoop
from dambench.matching.optimised import LearnedImages
from dambench.matching.pixel_space import PixelSpace
from dambench.matching.real_batch import too_little
from dambench.training.cuda_graph import GraphRecorder
from dambench.training.problem import Network, Notice, Problem, State, SyntheticSet, Teacher

BETAS = (0.5, 0.9)
EPSILON = 1e-8
"""Adam's."""
RATIOS = (3 / 4, 4 / 3)
"""Width by height of a crop, of a square image."""
TRIES = 10
"""Boxes that are drawn until one is within the image; then it is the whole image."""


@dataclass(frozen=True)
class Views:
    """How batches are shown."""

    least_area: float = 1.0
    """Smallest share of the area that a crop has; 1: there are none."""
    jitter: int = 4
    """Pixels that images are rolled by, down and to the right, at most."""
    both_ways: bool = False
    """Whether they are rolled up and to the left, too."""
    mirrored: bool = False
    """Whether every other batch is mirrored."""

    def draw(self, size: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw one for images of that height and width.

        Returns:
            Rows, then columns: those that are taken, (2, H + W) int64, and the share of the second, (H + W,) float32.
        """
        boxes = self._box(size, generator) if self.least_area < 1 else [(0, side) for side in size]
        taken, shares = zip(*(_taps(*box, side) for box, side in zip(boxes, size, strict=True)), strict=True)
        if self.mirrored and torch.rand((), generator=generator).item() < 0.5:
            taken, shares = (taken[0], taken[1].flip(1)), (shares[0], shares[1].flip(0))
        least = -self.jitter if self.both_ways else 0
        by = torch.randint(least, self.jitter + 1, (2,), generator=generator).tolist()
        taken = tuple(of.roll(shift, 1) for of, shift in zip(taken, by, strict=True))
        shares = tuple(of.roll(shift, 0) for of, shift in zip(shares, by, strict=True))
        return torch.cat(taken, 1), torch.cat(shares)

    def _box(self, size: tuple[int, int], generator: torch.Generator) -> list[tuple[int, int]]:
        """A random box: first row and rows, first column and columns."""
        height, width = size
        for _ in range(TRIES):
            area, ratio, down, across = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
            area = height * width * (self.least_area + (1 - self.least_area) * area)
            ratio = exp(log(RATIOS[0]) + ratio * (log(RATIOS[1]) - log(RATIOS[0])))
            rows, columns = round((area / ratio) ** 0.5), round((area * ratio) ** 0.5)
            if 0 < rows <= height and 0 < columns <= width:
                return [(int(down * (height - rows + 1)), rows), (int(across * (width - columns + 1)), columns)]
        return [(0, height), (0, width)]


def _taps(first: int, count: int, size: int) -> tuple[Tensor, Tensor]:
    """What bilinear resizing of `count` lines from the first on takes for each of `size`: (2, size), (size,)."""
    places = ((torch.arange(size, dtype=torch.float64) + 0.5) * count / size - 0.5).clamp_min(0)
    low = places.floor().long()
    return first + torch.stack([low, (low + 1).clamp_max(count - 1)]), (places - low).float()


def view(images: Tensor, taken: Tensor, shares: Tensor) -> Tensor:
    """Show images (n, C, H, W) as `Views.draw` says, differentiably."""
    height = images.shape[2]
    rows, columns, down, across = taken[:, :height], taken[:, height:], shares[:height, None], shares[height:]
    images = images[:, :, rows[0]] * (1 - down) + images[:, :, rows[1]] * down
    return images[:, :, :, columns[0]] * (1 - across) + images[:, :, :, columns[1]] * across


class BatchStatistics:
    """How far what a network is given is from what its BatchNorms are used to.

    Args:
        network: in evaluation mode.
        first: weight of its first BatchNorm.
    """

    def __init__(self, network: Network, first: float):
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        self._weights = {norm: first if index == 0 else 1.0 for index, norm in enumerate(norms)}
        self._noted: list[Tensor] = []
        for norm in norms:
            norm.register_forward_pre_hook(self._note)

    def __call__(self) -> Tensor:
        """Add up the distances of the last batch that went through the network: a scalar."""
        noted, self._noted = self._noted, []
        return torch.stack(noted).sum() if noted else torch.zeros(())

    def _note(self, norm: nn.Module, given: tuple[Any, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        maps = given[0]
        mean = maps.mean((0, 2, 3))
        variance = (maps - mean.view(-1, 1, 1)).square().mean((0, 2, 3))
        apart = torch.linalg.vector_norm(norm.running_var - variance) + torch.linalg.vector_norm(
            norm.running_mean - mean
        )
        self._noted.append(self._weights[norm] * apart)


class RecoveredImages(LearnedImages):
    """Images in the range of pixels under Adam, whose step size falls by a cosine. (It is of what networks see.)

    Args:
        iterations: after which the step size is 0.
    """

    def __init__(
        self, problem: Problem, init: Literal["noise", "real"], lr: float, iterations: int, resume: State | None
    ):
        self._space = PixelSpace.of(problem.real.preprocessing, problem.device)
        super().__init__(problem, init, lr, BETAS[0], resume)
        self.iterations = iterations
        self.square = torch.zeros_like(self.velocity)
        self.count = torch.zeros((), dtype=torch.float64, device=problem.device)
        self.rate = torch.zeros((), dtype=torch.float64, device=problem.device)
        """Step size of this iteration."""
        if resume is not None:
            self.square.copy_(resume["square"])
            self.count.copy_(resume["count"])

    def rate_of(self, iteration: int) -> float:
        """The step size of the iteration 1, 2, …"""
        return self.lr * 0.5 * (1 + cos(pi * (iteration - 1) / self.iterations))

    @torch.no_grad()
    def move(self, allowed: Tensor) -> None:
        """Take a step of Adam where that is `allowed`, a scalar bool, and clamp."""
        count = self.count + 1
        velocity = self.velocity * BETAS[0] + self.gradient * (1 - BETAS[0])
        square = self.square * BETAS[1] + self.gradient.square() * (1 - BETAS[1])
        first, second = ((1 - beta**count).to(square.dtype) for beta in BETAS)
        step = self.rate.to(square.dtype) * (velocity / first) / ((square / second).sqrt() + EPSILON)
        images = self._space.clamp(self.tensor - step)
        moved = ((self.tensor, images), (self.velocity, velocity), (self.square, square), (self.count, count))
        for tensor, new in moved:
            tensor.copy_(torch.where(allowed, new, tensor))

    def state(self) -> State:
        return super().state() | {"square": self.square.clone(), "count": self.count.clone()}


class Recovery(MatchingLoop):
    """Moves images to where a trained network recognises them, and its BatchNorms find what they are used to.

    Args:
        network: with BatchNorm, trained, in evaluation mode, its weights frozen.
        teacher: what sets are to call it.
        batch: images that have statistics together, of a class each, at most.
        weight: of the statistics.
        first: weight of those of the first BatchNorm among them.
        recorder: stands in for CUDA's, in tests.
    """

    names = ("matching", "cross-entropy", "statistics", SKIPPED)

    def __init__(
        self,
        problem: Problem,
        images: RecoveredImages,
        network: Network,
        teacher: Teacher,
        *,
        views: Views,
        batch: int,
        weight: float,
        first: float,
        recorder: Callable[[torch.device], GraphRecorder] | None = None,
    ):
        super().__init__(problem, images, self._graph, recorder)
        self.recovered, self.network, self.teacher = images, network, teacher
        self.views, self.weight = views, weight
        self.statistics = BatchStatistics(network, first)
        classes = torch.arange(problem.real.classes, device=problem.device)
        self.batches = [
            (some * problem.ipc + place, some) for place in range(problem.ipc) for some in classes.split(batch)
        ]
        """The places of the images of each batch, and their classes."""

    @property
    def synthetic(self) -> SyntheticSet:
        return replace(super().synthetic, teacher=self.teacher)

    def step(self) -> Generator[Notice, None, dict[str, Tensor]]:
        images = self.recovered
        iteration = images.iteration + 1
        size = images.tensor.shape[2], images.tensor.shape[3]
        generator = self.problem.seeds.generator("views", iteration)
        taken, shares = zip(*(self.views.draw(size, generator) for _ in self.batches), strict=True)
        rate = torch.tensor(images.rate_of(iteration), dtype=torch.float64)

        def attempt() -> Generator[Notice, None, dict[str, Tensor]]:
            yield from ()
            values = self._replayed(torch.stack(taken), torch.stack(shares), rate)
            return dict(zip(self.names, values, strict=True))

        losses = yield from self._until_it_fits(attempt)
        images.iteration = iteration
        return losses

    def _graph(self, taken: Tensor, shares: Tensor, rate: Tensor) -> Sequence[Tensor]:
        images = self.recovered
        images.rate.copy_(rate)
        of_batches = []
        for number, (places, labels) in enumerate(self.batches):
            with torch.enable_grad():
                some = images.tensor.detach()[places].requires_grad_()
                recognised = F.cross_entropy(self.network(view(some, taken[number], shares[number])), labels)
                apart = self.weight * self.statistics()
                (slope,) = torch.autograd.grad(recognised + apart, some)
            images.gradient[places] = slope
            of_batches.append(torch.stack([recognised + apart, recognised, apart]).detach())
        means = torch.stack(of_batches).mean(0)
        return list(images.descend(dict(zip(self.names, means, strict=False))).values())

    def _less(self, reason: str) -> tuple[str, int]:
        raise NotEnoughMemory(too_little("synthetic", len(self.batches[0][0]), True, reason, self.problem.policy))

    def _follow_policy(self) -> None:
        """Nothing depends on it."""
