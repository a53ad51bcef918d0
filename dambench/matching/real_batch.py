"""Batches of real images of every class, and the loop of what compares synthetic images with them."""

import re
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from dambench.core.events import Warned
from dambench.core.protocol import DSA
from dambench.core.units import size
from dambench.matching.loop import MatchingLoop
from dambench.matching.optimised import LearnedImages
from dambench.training.augmentation import (
    Draw,
    augment,
    augment_by,
    draw,
    draw_passes,
    parameters,
    passes,
    strategy_for,
)
from dambench.training.cuda_graph import GraphRecorder
from dambench.training.policy import Policy
from dambench.training.problem import Notice, Problem, RealSet, decode
from dambench.training.ranks import Ranks

# What plug-ins may import: see docs/plugins.md.
__all__ = ["RealBatch", "real_batch"]

EVERY = slice(None)

Augmentation = Literal["dsa", "none", "color+crop+cutout"]
"""One of DSA's operations for each class, none, or these three one after the other (IDC and those after it)."""
IDC_MATCHING = ("color", "crop", "cutout")


@dataclass(frozen=True)
class RealBatch:
    """Random real images of every class, augmented; fetched class by class, when they are looked at."""

    real: RealSet
    indices: Tensor
    """(classes, n) int64, on the images' device."""
    drawn: Draw | None = None
    """One draw per class; None: not augmented, or as `table` says."""
    table: Tensor | None = None
    """The same draw as numbers on the device: see `augment_by`."""
    augment_by: Callable[[Tensor, Tensor], Tensor] = augment_by
    subset: Tensor | None = None
    """(classes, m) int64: of each class's decoded synthetic images those that are looked at; None: all."""
    first: int = 0
    """The class of the first row."""

    def of(self, classes: slice) -> "RealBatch":
        """Keep some classes of a batch of all."""
        return replace(
            self,
            indices=self.indices[classes],
            drawn=None if self.drawn is None else self.drawn.of(classes),
            table=None if self.table is None else self.table[classes],
            subset=None if self.subset is None else self.subset[classes],
            first=classes.start,
        )

    def synthetic(self, images: Tensor, classes: slice, factor: int) -> Tensor:
        """Decode synthetic images (c, ipc, C, H, W) of these classes, choose those to look at, and augment them.

        Returns:
            (c, m, C, H, W).
        """
        decoded = decode(images, factor)
        if self.subset is not None:
            rows = torch.arange(len(decoded), device=decoded.device).unsqueeze(1)
            decoded = decoded[rows, self.subset[classes]]
        return self.augmented(decoded, classes)

    def images(self, classes: slice, some: slice = EVERY) -> Tensor:
        """Fetch some images of each of these classes: (c, n, C, H, W) float32, normalised and augmented."""
        return self.augmented(self.real.preprocessing.apply(self.real.images[self.indices[classes, some]]), classes)

    def augmented(self, images: Tensor, classes: slice) -> Tensor:
        """Augment images (c, n, C, H, W) of these classes, each class alike."""
        if self.table is not None:
            return self.augment_by(images, self.table[classes])
        return images if self.drawn is None else augment(images, self.drawn.of(classes))


def real_batch(problem: Problem, count: int, augmentation: Augmentation, iteration: int) -> RealBatch:
    """`count` random real images of every class, and one augmentation per class, of this iteration."""
    real = problem.real
    indices = real.draw(count, problem.generator("real batch", iteration)).to(real.images.device)
    if augmentation == "none":
        return RealBatch(real, indices)
    if augmentation == "color+crop+cutout":
        generator = problem.seeds.generator("augmentation", iteration)
        return RealBatch(real, indices, draw_passes(passes(IDC_MATCHING), real.classes, generator))
    strategy = strategy_for(DSA, problem.card.mirrors)
    return RealBatch(real, indices, draw(strategy, real.classes, problem.seeds.generator("augmentation", iteration)))


class RealBatchLoop(MatchingLoop):
    """What moves synthetic images by comparing them with a batch of real ones of every class.

    Args:
        count: real images per class and step.
        recorder: stands in for CUDA's, in tests.
    """

    names: tuple[str, ...]
    """Names of the losses of a step."""

    def __init__(
        self,
        problem: Problem,
        images: LearnedImages,
        count: int,
        augmentation: Augmentation,
        recorder: Callable[[torch.device], GraphRecorder] | None,
    ):
        super().__init__(problem, images, self._graph, recorder)
        self.count, self.augmentation = count, augmentation
        self.most_synthetic = 0
        """Synthetic images of a class that are looked at in a step, decoded, chosen at random; 0: all."""
        self._augment_by = augment_by

    def _prepare(self) -> Iterator[Notice]:
        smallest = min(self.problem.real.counts)
        if smallest < self.count:
            yield Warned(
                message=f"The smallest class has {smallest} images, fewer than the real batch of {self.count}: such "
                "classes are sampled with replacement."
            )

    @abstractmethod
    def _pull(self, batch: RealBatch, images: Tensor, gradient: Tensor) -> dict[str, Tensor]:
        """Give the losses of synthetic images (classes * ipc, C, H, W), and put their gradient there."""

    def _descend(self, batch: RealBatch) -> dict[str, Tensor]:
        """Move the images by the batch, and give the losses."""
        return self.images.descend(self._pull(batch, self.images.shown(), self.images.gradient))

    def _move(self, number: int) -> Generator[Notice, None, dict[str, Tensor]]:
        """Take the step of that number: a real batch and an augmentation of its own, as often as it takes to fit."""
        batch = self._batch(number)
        if self.problem.ranks is not None:
            return (yield from self._move_together(self.problem.ranks, batch))
        return (yield from self._until_it_fits(lambda: self._try(batch)))

    def _move_together(self, ranks: Ranks, batch: RealBatch) -> Generator[Notice, None, dict[str, Tensor]]:
        """Take a step with other ranks: this one looks at its own classes. Nothing is changed until all have."""
        if self.problem.device.type != "cpu":
            more = [*([] if batch.subset is None else [batch.subset]), *self._tables(batch)]
            batch = self._on_device(batch.indices, *(tensor.to(self.problem.device) for tensor in more))
        classes = self.problem.real.classes
        own, shown = ranks.own(classes), self.images.shown()
        rows = slice(own.start * self.problem.ipc, own.stop * self.problem.ipc)

        def attempt() -> Generator[Notice, None, dict[str, Tensor]]:
            yield from ()
            return self._pull(batch.of(own), shown[rows], self.images.gradient[rows])

        losses = yield from self._until_it_fits(attempt)
        ranks.complete(self.images.gradient, classes)
        values = ranks.total(torch.stack(list(losses.values())))
        self._exchange(ranks)
        return self.images.descend(dict(zip(losses, values, strict=True)))

    def _exchange(self, ranks: Ranks) -> None:
        """Give the others what else there is to remember of this rank's classes, and take theirs."""

    def _batch(self, number: int) -> RealBatch:
        """Draw all that is random in a step."""
        batch = real_batch(self.problem, self.count, self.augmentation, number)
        there = self.problem.ipc * self.images.factor**2
        if not 0 < self.most_synthetic < there:
            return batch
        generator = self.problem.seeds.generator("synthetic batch", number)
        keys = torch.rand(self.problem.real.classes, there, generator=generator)
        return replace(batch, subset=keys.topk(self.most_synthetic, dim=1).indices.to(batch.indices.device))

    def _try(self, batch: RealBatch) -> Generator[Notice, None, dict[str, Tensor]]:
        yield from ()
        if not self._graphed:
            return self._descend(batch)
        subset = [] if batch.subset is None else [batch.subset]
        return dict(zip(self.names, self._replayed(batch.indices, *subset, *self._tables(batch)), strict=True))

    def _tables(self, batch: RealBatch) -> list[Tensor]:
        """Give the batch's augmentation as numbers, if there is one."""
        return [] if batch.drawn is None else [parameters(batch.drawn, *self.problem.real.images.shape[-2:])]

    def _on_device(self, indices: Tensor, *more: Tensor) -> RealBatch:
        """Make the batch of a graph's inputs: a subset, which holds whole numbers, and a table, where there are any."""
        subset = next((tensor for tensor in more if not tensor.is_floating_point()), None)
        table = next((tensor for tensor in more if tensor.is_floating_point()), None)
        return RealBatch(self.problem.real, indices, table=table, augment_by=self._augment_by, subset=subset)

    def _graph(self, *inputs: Tensor) -> list[Tensor]:
        return list(self._descend(self._on_device(*inputs)).values())


def too_little(phase: str, images: int, fixed: bool, reason: str, policy: Policy) -> str:
    """What to say where so many images are the fewest that can go through the network at once, and are too many.

    Args:
        phase: `real` or `synthetic`.
        fixed: whether BatchNorm needs them all at once.
        reason: what torch said.
    """
    request = re.search(r"Tried to allocate ([\d.]+) (\w+)", reason)
    unit = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}.get(request[2], 0) if request else 0
    needed = f"at least {size(policy.used_bytes() + float(request[1]) * unit)}" if request and unit else "more memory"
    why = "BatchNorm needs them all at once" if fixed else "they are the fewest that can go through at once"
    return (
        f"{images} {phase} images do not fit the GPU's memory, and {why}: this run needs {needed}. "
        "Take a smaller real batch, a lower IPC, or a network without BatchNorm."
    )


def exact(tensor: Tensor) -> Tensor:
    """To add up many: sums of bfloat16 lose what is added late."""
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


def even_part(count: int, most: int) -> int:
    """The size of the parts, at most so large, that `count` is cut into: as few as possible, as even as they can be."""
    return -(-count // -(-count // most))
