"""Matching by class means: what a network sees of the real and of the synthetic images of a class, on average.

DM and DataDAM are of this kind. They differ in what they look at (`Term`): the embedding, or the attention maps of
each layer and the embedding. The loss is

    Σ_terms weight · Σ_classes ‖mean_{x real} v(x) − mean_{s synthetic} v(s)‖²

with v the vector that a term makes of what the network sees of one image.

A class's mean is a sum over its images, so the real images go through the network a few at a time where that is
faster or all would not fit, and the gradient is taken for some classes after the other: the loss is a sum over
classes. With BatchNorm the maps of an image depend on all others. Its statistics are of the mixed batch of all
classes, as in the released codes; where the network is a chain of stages they are had stage by stage, a few images
at a time, otherwise all images go through at once.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn

from dambench.core import config
from dambench.core.errors import NotEnoughMemory
from dambench.core.events import SKIPPED
from dambench.matching.optimised import LearnedImages
from dambench.matching.real_batch import RealBatch, RealBatchLoop, even_part, exact, real_batch, too_little
from dambench.training.augmentation import augment_by
from dambench.training.cuda_graph import GraphRecorder
from dambench.training.policy import Policy
from dambench.training.problem import Network, Notice, Problem, Stage, State, Step

# What plug-ins may import: see docs/plugins.md.
__all__ = ["Options", "Term", "match_means", "squared_distance"]


def mean_matching_loss(network: Network, terms: Sequence["Term"], real: Tensor, synthetic: Tensor) -> Tensor:
    """Compute the loss in its plain form: all images at once. What follows is the same, and its gradient, for little
    memory, in less time, and in graphs that a GPU replays.

    Args:
        real: (classes, n, C, H, W), synthetic: (classes, ipc, C, H, W); augmented, each class alike.
    """
    loss = synthetic.new_zeros(())
    maps_real, maps_synthetic = (network.feature_maps(images.flatten(0, 1)) for images in (real, synthetic))
    for term in terms:
        mean_real = term.vectors(maps_real[term.level]).unflatten(0, real.shape[:2]).mean(1)
        mean_synthetic = term.vectors(maps_synthetic[term.level]).unflatten(0, synthetic.shape[:2]).mean(1)
        loss = loss + term.weight * term.distance(mean_real, mean_synthetic)
    return loss


class Options(config.Options, frozen=True):
    """The settings of a method that matches class means and has no others."""

    iterations: Annotated[int, Meta(ge=1, le=10**9, description="updates of the synthetic images")] = 20_000
    lr_images: Annotated[float, Meta(gt=0, description="step size for the images")] = 1.0
    momentum_images: Annotated[float, Meta(ge=0, lt=1, description="momentum of the images' SGD")] = 0.5
    batch_real: Annotated[int, Meta(ge=1, le=10**6, description="real images per class and iteration")] = 256
    init: Annotated[Literal["real", "noise"], Meta(description="start from random real images or from N(0, 1)")] = (
        "real"
    )
    augmentation: Annotated[
        Literal["dsa", "none"], Meta(description="the same draw for a class's real and synthetic images")
    ] = "dsa"


def squared_distance(real: Tensor, synthetic: Tensor) -> Tensor:
    """Σ_classes ‖real − synthetic‖², of the mean vectors (classes, D) of some classes: a scalar."""
    return (real - synthetic).square().sum()


@dataclass(frozen=True)
class Term:
    """A part of the loss: what is compared, at which level of the network, and what it weighs."""

    name: str
    """As it is logged; terms of one name are added up."""
    level: int
    """Index into `Network.feature_maps`."""
    vectors: Callable[[Tensor], Tensor]
    """What the network sees of n images there, (n, …) → one vector each, (n, D)."""
    weight: float = 1.0
    distance: Callable[[Tensor, Tensor], Tensor] = squared_distance
    """Between the real and the synthetic mean vectors of some classes, (c, D) each → a scalar, summed over classes:
    the loss of all classes is that of some and of the others."""


def match_means(
    problem: Problem, options: Options, terms: Callable[[Network], list[Term]], resume: State | None
) -> Iterator[Step | Notice]:
    """Distil by class means: a whole `distill` for a method that has its own terms.

    Args:
        terms: what is compared, of the problem's network.
    """
    images = LearnedImages(problem, options.init, options.lr_images, options.momentum_images, resume)
    yield from Matching(problem, images, terms, options.batch_real, options.augmentation).steps(options.iterations)


class Matching(RealBatchLoop):
    """Moves synthetic images so that their class means approach the real ones, one iteration after the other.

    Args:
        terms: what is compared, of the problem's network.
        count: real images per class and iteration.
        recorder: stands in for CUDA's, in tests.
    """

    def __init__(
        self,
        problem: Problem,
        images: LearnedImages,
        terms: Callable[[Network], list[Term]],
        count: int,
        augmentation: Literal["dsa", "none"],
        recorder: Callable[[torch.device], GraphRecorder] | None = None,
    ):
        super().__init__(problem, images, count, augmentation, recorder)
        network = problem.new_network(images.iteration + 1)
        self.means = ClassMeans(network, terms(network), problem.policy)
        self.names = (*self.means.names, SKIPPED)
        self._augment_by = problem.policy.compile(augment_by)

    def _prepare(self) -> Iterator[Notice]:
        yield from super()._prepare()
        if self.problem.policy.compiled:
            yield from self._compile()

    def step(self) -> Generator[Notice, None, dict[str, Tensor]]:
        """Take the next iteration, with a network of its own: one alone would be all that the images fit.

        Returns:
            By name what the terms give, weighted, `matching`, their sum, and `skipped`, the steps that were left out.
        """
        began = time.perf_counter()
        iteration = self.images.iteration + 1
        self.problem.new_network(iteration)
        losses = yield from self._move(iteration)
        self.images.iteration = iteration
        if self.problem.device.type == "cpu":
            spent = self.means.seconds
            self.parts = spent | {"sampling + update": time.perf_counter() - began - sum(spent.values())}
        return losses

    def _descend(self, batch: RealBatch) -> dict[str, Tensor]:
        losses = self.means.pull(batch, self.images.tensor, self.images.gradient)
        return self.images.descend(losses)

    def _compile(self) -> Iterator[Notice]:
        """Compile for all shapes that will come; where that fails, go on without, from the first iteration on."""
        first = self.images.iteration + 1
        try:
            batch = real_batch(self.problem, self.count, self.augmentation, first)
            if self._graphed:
                tables = [table.to(self.problem.device) for table in self._tables(batch)]
                batch = self._on_device(batch.indices, *tables)
            self.means.pull(batch, self.images.tensor, self.images.gradient)
        except torch.OutOfMemoryError:
            return  # iterations deal with it
        except Exception as error:  # whatever a compiler that is half installed may raise
            message = str(error).strip().partition("\n")[0]
            reason = f"compiling failed: {type(error).__name__}: {message[:200]}"
            yield from self.problem.adapt(first, reason, "compiled", False)
            self.means, self._augment_by = self.means.under(self.problem.policy), augment_by

    def _less(self, reason: str) -> tuple[str, int]:
        """Halve what goes through the network at once."""
        policy, means = self.problem.policy, self.means
        most = self.count * self.problem.real.classes
        if means.phase == "synthetic":
            what, least = "synthetic_chunk", self.problem.ipc
            now = max(least, min(policy.synthetic_chunk, len(self.images.tensor)) // least * least)
            fixed = means.network.uses_batch_statistics
        else:
            what, now, least = "real_chunk", min(policy.real_chunk, most), 1
            fixed = means.network.uses_batch_statistics and not means.network.stages
        if fixed or now <= least:
            raise NotEnoughMemory(too_little(means.phase, now, fixed, reason, policy))
        return what, max(least, -(-now // 2))

    def _follow_policy(self) -> None:
        self.means = self.means.under(self.problem.policy)


class ClassMeans:
    """The mean vectors of each class for a network and some terms, and how to approach them.

    Args:
        network: in train mode, its weights frozen; they may change from call to call, in place.
    """

    def __init__(self, network: Network, terms: Sequence[Term], policy: Policy):
        self.network, self.terms, self.policy = network, terms, policy
        self.phase = "real"
        """Which images were being looked at last: `real` or `synthetic`."""
        self.seconds: dict[str, float] = {}
        """What the last `pull` took for each, on a CPU."""
        self.names = list(dict.fromkeys(["matching", *(term.name for term in terms)]))
        """Names of the losses."""
        # The real branch may have a precision of its own: the same network, its weights rounded.
        rounded = policy.real_dtype != torch.float32
        self._real_network = deepcopy(network).to(policy.real_dtype) if rounded else network
        self._real_dtype = next(self._real_network.parameters()).dtype
        self._sums = policy.compile(self._class_sums)
        self._part = policy.compile(self._losses)
        self._stages = [
            _Staged(stage, stage.norm, level, terms, policy)
            for level, stage in enumerate(self._real_network.stages)
            if isinstance(stage.norm, nn.BatchNorm2d)
        ]

    def under(self, policy: Policy) -> "ClassMeans":
        """The same under another policy."""
        return ClassMeans(self.network, self.terms, policy)

    def pull(self, batch: RealBatch, synthetic: Tensor, gradient: Tensor) -> dict[str, Tensor]:
        """The matching loss, and its gradient with respect to the synthetic images.

        Args:
            synthetic: (classes * ipc, C, H, W), sorted by class, a leaf. It is augmented as the real batch is.
            gradient: the same shape; overwritten.
        """
        classes = len(batch.indices)
        began = time.perf_counter()
        self.phase = "real"
        targets = self.of_real(batch)
        self.seconds = {"real images": time.perf_counter() - began}
        self.phase = "synthetic"
        ipc = len(synthetic) // classes
        most = classes if self.network.uses_batch_statistics else max(1, self.policy.synthetic_chunk // ipc)

        def descend(some: slice) -> Tensor:
            images = synthetic.detach().unflatten(0, (classes, ipc))[some].requires_grad_()
            parts = torch.stack(self._part(batch.augmented(images, some), [target[some] for target in targets]))
            (slope,) = torch.autograd.grad(parts.sum(), images)
            gradient.unflatten(0, (classes, ipc))[some] = slope
            return parts.detach()

        with torch.enable_grad():
            values = torch.stack(self.policy.each(descend, _slices(classes, most))).sum(0)
        self.seconds["synthetic images"] = time.perf_counter() - began - self.seconds["real images"]
        of_names = {term.name: synthetic.new_zeros(()) for term in self.terms}
        for term, part in zip(self.terms, values, strict=True):
            of_names[term.name] = of_names[term.name] + part
        return {name: of_names.get(name, values.sum()) for name in self.names}

    @torch.no_grad()
    def of_real(self, batch: RealBatch) -> list[Tensor]:
        """The mean vector of each class, for each term: (classes, D) each."""
        if self._real_network is not self.network:
            torch._foreach_copy_(list(self._real_network.parameters()), list(self.network.parameters()))
        classes, count = batch.indices.shape
        chunk = self.policy.real_chunk
        if self.network.uses_batch_statistics and chunk < classes * count and self._stages:
            return self._by_stages(batch)
        whole = self.network.uses_batch_statistics or chunk >= classes * count
        together, part = (classes, count) if whole else (max(1, chunk // count), even_part(count, chunk))
        pieces = [(of, some) for of in _slices(classes, together) for some in _slices(count, part)]
        sums = self.policy.each(lambda piece: self._sums(batch.images(*piece)), pieces)
        means = []
        for position in range(len(self.terms)):
            # In the order of the images, so that the last bits do not depend on which was done first.
            totals: dict[int, Tensor] = {}
            for (of, _), piece_sums in zip(pieces, sums, strict=True):
                before = totals.get(of.start)
                totals[of.start] = piece_sums[position] if before is None else before + piece_sums[position]
            means.append(torch.cat(list(totals.values())) / count)
        return means

    def _by_stages(self, batch: RealBatch) -> list[Tensor]:
        """What batch norm makes of all real images, a few of them at a time."""
        classes, count = batch.indices.shape
        images = torch.cat([batch.images(of).flatten(0, 1) for of in _slices(classes, 1)])
        of_class = torch.arange(classes, device=images.device).repeat_interleave(count)
        part = even_part(len(images), self.policy.real_chunk)
        parts, labels = list(images.to(self._real_dtype).split(part)), of_class.split(part)
        del images
        sums: list[Tensor | None] = [None] * len(self.terms)
        for staged in self._stages:
            for position, total in staged.advance(parts, labels, classes):
                sums[position] = total
        for position, term in enumerate(self.terms):
            if term.level == len(self._stages):
                sums_of_parts = [_class_sums(term.vectors(p), of, classes) for p, of in zip(parts, labels, strict=True)]
                sums[position] = torch.stack(sums_of_parts).sum(0)
        return [total / count for total in sums if total is not None]

    def _class_sums(self, images: Tensor) -> list[Tensor]:
        """(c, n, C, H, W) → the sum of each class's vectors, for each term: (c, D)."""
        of_terms = self._vectors(self._real_network, images.flatten(0, 1).to(self._real_dtype))
        return [exact(vectors).unflatten(0, images.shape[:2]).sum(1) for vectors in of_terms]

    def _losses(self, images: Tensor, targets: list[Tensor]) -> list[Tensor]:
        """What each term gives for these synthetic images (c, ipc, C, H, W), weighted."""
        of_terms = self._vectors(self.network, images.flatten(0, 1))
        means = [vectors.unflatten(0, images.shape[:2]).mean(1) for vectors in of_terms]
        return [
            term.weight * term.distance(target, mean)
            for term, target, mean in zip(self.terms, targets, means, strict=True)
        ]

    def _vectors(self, network: Network, images: Tensor) -> list[Tensor]:
        """The vectors of each term; no map is kept longer than it is needed."""
        by_position: dict[int, Tensor] = {}
        for level, maps in enumerate(network.iter_feature_maps(images)):
            for position, term in enumerate(self.terms):
                if term.level == level:
                    by_position[position] = term.vectors(maps)
        return [by_position[position] for position in range(len(self.terms))]


class _Staged:
    """One stage of a network with BatchNorm, for images that come in parts: first their statistics, then their maps."""

    def __init__(self, stage: Stage, norm: nn.BatchNorm2d, level: int, terms: Sequence[Term], policy: Policy):
        self.stage, self.norm = stage, norm
        self.terms = [(position, term) for position, term in enumerate(terms) if term.level == level]
        self._measure = policy.compile(self._measured)
        self._finish = policy.compile(self._finished)

    def advance(self, parts: list[Tensor], labels: Sequence[Tensor], classes: int) -> list[tuple[int, Tensor]]:
        """Replace the parts, what the stage before saw, by what this one sees of them.

        Returns:
            The position of each term at this level, and the sum of each class's vectors, (classes, D).
        """
        # A map that is larger than what it is made of is made again: that takes less than to keep all of them.
        kept = self.stage.convolution.out_channels <= self.stage.convolution.in_channels

        statistics = []
        for index, part in enumerate(parts):
            maps, *moments = self._measure(part)
            statistics.append(moments)
            if kept:
                parts[index] = maps
        # All images are of one size, so the moments of all are the means of theirs. (Their difference is one of large
        # numbers where a channel hardly varies.)
        first, second = (torch.cat(rows).double().mean(0) for rows in zip(*statistics, strict=True))
        dtype = statistics[0][0].dtype
        mean, variance = first.to(dtype), (second - first.square()).clamp_min(0).to(dtype)
        sums: list[Tensor] = []
        for index, (part, of) in enumerate(zip(parts, labels, strict=True)):
            maps = part if kept else self.stage.convolution(part)
            parts[index], *vectors = self._finish(maps, mean, variance)
            more = [_class_sums(maps, of, classes) for maps in vectors]
            sums = [a + b for a, b in zip(sums, more, strict=True)] if sums else more
        return [(position, total) for (position, _), total in zip(self.terms, sums, strict=True)]

    def _measured(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the convolution sees of n images, and the mean and mean square of each map, (n, channels)."""
        maps = self.stage.convolution(images)
        flat = exact(maps).flatten(2)
        # Not torch.var_mean, which takes 9 times as long on a CPU.
        return maps, flat.mean(2), torch.linalg.vecdot(flat, flat) / flat.shape[2]

    def _finished(self, convolved: Tensor, mean: Tensor, variance: Tensor) -> list[Tensor]:
        """The maps, pooled for the next stage, and the vectors of each term."""
        norm = self.norm
        maps = F.batch_norm(convolved, mean, variance, exact(norm.weight), exact(norm.bias), eps=norm.eps)
        maps = self.stage.activation(maps)
        return [self.stage.pool(maps), *(term.vectors(maps) for _, term in self.terms)]


def _class_sums(vectors: Tensor, of_class: Tensor, classes: int) -> Tensor:
    """(n, D) vectors of images of these classes → their sum for each class, (classes, D)."""
    rows = exact(vectors)
    return rows.new_zeros(classes, rows.shape[1]).index_add_(0, of_class, rows)


def _slices(count: int, most: int) -> list[slice]:
    return [slice(first, min(first + most, count)) for first in range(0, count, most)]
