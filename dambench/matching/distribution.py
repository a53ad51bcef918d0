"""Matching by class means: what a network sees of the real and of the synthetic images of a class, on average.

DM and DataDAM are of this kind. They differ in what they look at (`Term`): the embedding, or the attention maps of
each layer and the embedding. The loss is

    Σ_terms weight · Σ_classes ‖mean_{x real} v(x) − mean_{s synthetic} v(s)‖²

with v the vector that a term makes of what the network sees of one image. A term may have another distance of these
means, such as one of characteristic functions (the means of cosines and sines), or of all vectors of a class (`whole`):
kernel matrices, second moments. Beside it the loss of the synthetic images under a trained network may be a part
(`Judge`).

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
from dambench.matching.real_batch import Augmentation, RealBatch, RealBatchLoop, even_part, exact, too_little
from dambench.training.augmentation import augment_by
from dambench.training.cuda_graph import GraphRecorder
from dambench.training.policy import Policy
from dambench.training.problem import Network, Notice, Problem, Stage, State, Step
from dambench.training.ranks import Ranks

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
    init: Annotated[
        Literal["real", "noise", "mix"],
        Meta(description="start from random real images, from N(0, 1), or from mosaics of real images"),
    ] = "real"
    augmentation: Annotated[
        Literal["dsa", "none"], Meta(description="the same draw for a class's real and synthetic images")
    ] = "dsa"
    factor: config.Factor = 1


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
    whole: bool = False
    """Whether the distance gets the vectors of all images, (c, n, D) and (c, m, D), not their means. Those of the real
    images are then kept: classes · n · D numbers, however few go through the network at once."""
    memory: "Memory | None" = None
    """The means of its synthetic vectors in earlier iterations, to which they are kept near, too."""


class Memory:
    """The mean vectors of the synthetic images of each class over the iterations, h ← decay · h + (1 − decay) · mean.

    Args:
        like: (classes, D), on the device.
        decay: the share that stays.
    """

    def __init__(self, like: Tensor, decay: float):
        self.values, self.decay = torch.zeros_like(like), decay
        self.weight = like.new_zeros(())
        """What Σ_classes ‖h − mean‖² weighs: a tensor, which may change from call to call, in place."""
        self._filled = torch.zeros((), dtype=torch.bool, device=like.device)

    def update(self, means: Tensor) -> None:
        """Take the means of an iteration, unless they are not finite. The first fill it."""
        new = torch.where(self._filled, self.decay * self.values + (1 - self.decay) * means, means)
        allowed = means.isfinite().all()
        self.values.copy_(torch.where(allowed, new, self.values))
        self._filled.logical_or_(allowed)

    def state(self) -> State:
        return {"memory": self.values.clone(), "memory is filled": self._filled.clone()}

    def go_on(self, resume: State) -> None:
        """Be as `state` says."""
        self.values.copy_(resume["memory"])
        self._filled.copy_(resume["memory is filled"])


@dataclass(frozen=True)
class Judge:
    """A trained network under which synthetic images are to be recognised: their cross-entropy is a part of the loss.

    The mean over a class's images, summed over classes, as those have it who step class by class.
    """

    network: Network
    """In evaluation mode, its weights frozen; they may change from call to call, in place."""
    weight: float | Tensor = 1.0
    """A tensor, a scalar on the device, may change from call to call, in place."""
    name: str = "calibration"


def match_means(
    problem: Problem, options: Options, terms: Callable[[Network], list[Term]], resume: State | None
) -> Iterator[Step | Notice]:
    """Distil by class means: a whole `distill` for a method that has its own terms.

    Args:
        terms: what is compared, of the problem's network.
    """
    how = options.lr_images, options.momentum_images
    images = LearnedImages(problem, options.init, *how, resume, getattr(options, "factor", 1))
    yield from Matching(problem, images, terms, options.batch_real, options.augmentation).steps(options.iterations)


class Matching(RealBatchLoop):
    """Moves synthetic images so that their class means approach the real ones, one iteration after the other.

    Args:
        terms: what is compared, of the problem's network.
        count: real images per class and iteration.
        recorder: stands in for CUDA's, in tests.
        judge: a trained network under which the images are to be recognised, too.
        beside: other tensors that distances depend on, leaves, and where their gradients are put.
    """

    def __init__(
        self,
        problem: Problem,
        images: LearnedImages,
        terms: Callable[[Network], list[Term]],
        count: int,
        augmentation: Augmentation,
        recorder: Callable[[torch.device], GraphRecorder] | None = None,
        judge: Judge | None = None,
        beside: Sequence[tuple[Tensor, Tensor]] = (),
    ):
        super().__init__(problem, images, count, augmentation, recorder)
        network = problem.new_network(images.iteration + 1)
        self.means = ClassMeans(network, terms(network), problem.policy, images.factor, judge, beside)
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
        self._renew(iteration)
        losses = yield from self._move(iteration)
        self.images.iteration = iteration
        if self.problem.device.type == "cpu":
            spent = self.means.seconds
            self.parts = spent | {"sampling + update": time.perf_counter() - began - sum(spent.values())}
        return losses

    def _renew(self, iteration: int) -> None:
        """Give the network the weights of this iteration, in place, and whatever else is random in it."""
        self.problem.new_network(iteration)

    def _pull(self, batch: RealBatch, images: Tensor, gradient: Tensor) -> dict[str, Tensor]:
        return self.means.pull(batch, images, gradient)

    def _exchange(self, ranks: Ranks) -> None:
        remembered = []
        for memory, own in self.means.own_means:
            means = torch.zeros_like(memory.values)
            means[ranks.own(len(means))] = own
            ranks.complete(means, len(means))
            remembered.append((memory, means))
        for memory, means in remembered:
            memory.update(means)

    def _compile(self) -> Iterator[Notice]:
        """Compile for all shapes that will come; where that fails, go on without, from the first iteration on."""
        first = self.images.iteration + 1
        try:
            batch = self._batch(first)
            if self._graphed:
                tables = [table.to(self.problem.device) for table in self._tables(batch)]
                batch = self._on_device(batch.indices, *([] if batch.subset is None else [batch.subset]), *tables)
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
            there = self.problem.ipc * self.images.factor**2
            what, least = "synthetic_chunk", min(there, self.most_synthetic or there)
            all_of_them = least * self.problem.real.classes
            now = max(least, min(policy.synthetic_chunk, all_of_them) // least * least)
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
        factor: of the mosaics that the synthetic images are.
        judge: what else says how good they are.
        beside: other tensors that distances depend on, leaves, and where their gradients are put.
    """

    def __init__(
        self,
        network: Network,
        terms: Sequence[Term],
        policy: Policy,
        factor: int = 1,
        judge: Judge | None = None,
        beside: Sequence[tuple[Tensor, Tensor]] = (),
    ):
        self.network, self.terms, self.policy, self.factor, self.judge = network, terms, policy, factor, judge
        self.beside = beside
        self.phase = "real"
        """Which images were being looked at last: `real` or `synthetic`."""
        self.seconds: dict[str, float] = {}
        """What the last `pull` took for each, on a CPU."""
        self.own_means: list[tuple[Memory, Tensor]] = []
        """By what remembers them, the synthetic means of the last `pull`; where it was of all classes, they have been
        taken already."""
        self.names = list(dict.fromkeys(["matching", *(term.name for term in terms), *([judge.name] if judge else [])]))
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
        return ClassMeans(self.network, self.terms, policy, self.factor, self.judge, self.beside)

    def pull(self, batch: RealBatch, synthetic: Tensor, gradient: Tensor) -> dict[str, Tensor]:
        """The matching loss, and its gradient with respect to the synthetic images.

        Args:
            batch: of all classes, or of some that follow each other: then nothing is remembered of their means.
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
        shown = ipc * self.factor**2 if batch.subset is None else batch.subset.shape[1]
        most = classes if self.network.uses_batch_statistics else max(1, self.policy.synthetic_chunk // shown)
        labels = torch.arange(batch.first, batch.first + classes, device=synthetic.device).repeat_interleave(shown)

        memories = [term.memory for term in self.terms if term.memory is not None]
        values_before = [memory.values[batch.first : batch.first + classes] for memory in memories]

        def descend(some: slice) -> tuple[Tensor, list[Tensor], list[Tensor]]:
            images = synthetic.detach().unflatten(0, (classes, ipc))[some].requires_grad_()
            given = batch.synthetic(images, some, self.factor), [target[some] for target in targets]
            before = [remembered[some] for remembered in values_before]
            losses, means = self._part(*given, before, labels[some.start * shown : some.stop * shown])
            parts = torch.stack(losses)
            slope, *slopes = torch.autograd.grad(parts.sum(), [images, *(tensor for tensor, _ in self.beside)])
            gradient.unflatten(0, (classes, ipc))[some] = slope
            return parts.detach(), [mean.detach() for mean in means], slopes

        with torch.enable_grad():
            results = self.policy.each(descend, _slices(classes, most))
        values = torch.stack([parts for parts, _, _ in results]).sum(0)
        for position, (_, put) in enumerate(self.beside):
            put.copy_(torch.stack([slopes[position] for _, _, slopes in results]).sum(0))
        self.own_means = [
            (memory, torch.cat([means[position] for _, means, _ in results]))
            for position, memory in enumerate(memories)
        ]
        for memory, means in self.own_means:
            if classes == len(memory.values):
                memory.update(means)
        self.seconds["synthetic images"] = time.perf_counter() - began - self.seconds["real images"]
        of_names = {term.name: synthetic.new_zeros(()) for term in self.terms}
        for term, part in zip(self.terms, values, strict=False):
            of_names[term.name] = of_names[term.name] + part
        if self.judge is not None:
            of_names[self.judge.name] = values[-1]
        return {name: of_names.get(name, values.sum()) for name in self.names}

    @torch.no_grad()
    def of_real(self, batch: RealBatch) -> list[Tensor]:
        """The mean vector of each class, for each term, (classes, D); of a whole one all vectors, (classes, n, D)."""
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
        for position, term in enumerate(self.terms):
            if term.whole:
                by_class: dict[int, list[Tensor]] = {}
                for (of, _), vectors in zip(pieces, sums, strict=True):
                    by_class.setdefault(of.start, []).append(vectors[position])
                means.append(torch.cat([torch.cat(parts, 1) for parts in by_class.values()]))
                continue
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
                more = [_gathered(term, term.vectors(p), of, classes) for p, of in zip(parts, labels, strict=True)]
                sums[position] = torch.cat(more) if term.whole else torch.stack(more).sum(0)
        kept = [(term, total) for term, total in zip(self.terms, sums, strict=True) if total is not None]
        return [total.unflatten(0, (classes, count)) if term.whole else total / count for term, total in kept]

    def _class_sums(self, images: Tensor) -> list[Tensor]:
        """(c, n, C, H, W) → the sum of each class's vectors, for each term: (c, D). Of a whole term all: (c, n, D)."""
        of_terms = self._vectors(self._real_network, images.flatten(0, 1).to(self._real_dtype))
        by_class = [exact(vectors).unflatten(0, images.shape[:2]) for vectors in of_terms]
        return [v if term.whole else v.sum(1) for term, v in zip(self.terms, by_class, strict=True)]

    def _losses(
        self, images: Tensor, targets: list[Tensor], before: list[Tensor], labels: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """What each term and the judge give for these synthetic images (c, m, C, H, W), weighted, and the means of the
        terms that remember.

        Args:
            before: what those remember, (c, D) each.
        """
        of_terms = self._vectors(self.network, images.flatten(0, 1))
        by_class = [vectors.unflatten(0, images.shape[:2]) for vectors in of_terms]
        losses = [
            term.weight * term.distance(target, vectors if term.whole else vectors.mean(1))
            for term, target, vectors in zip(self.terms, targets, by_class, strict=True)
        ]
        means: list[Tensor] = []
        for position, (term, vectors) in enumerate(zip(self.terms, by_class, strict=True)):
            if term.memory is not None:
                means.append(vectors.mean(1))
                nearness = squared_distance(before[len(means) - 1], means[-1])
                losses[position] = losses[position] + term.memory.weight * nearness
        if self.judge is not None:
            logits = self.judge.network(images.flatten(0, 1))
            total = F.cross_entropy(logits, labels, reduction="sum") / images.shape[1]
            losses.append(self.judge.weight * total)
        return losses, means

    def _vectors(self, network: Network, images: Tensor) -> list[Tensor]:
        """The vectors of each term; no map is kept longer than it is needed."""
        by_position: dict[int, Tensor] = {}
        for level, maps in network.iter_levels(images, {term.level for term in self.terms}):
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
        kept_vectors: list[list[Tensor]] = [[] for _ in self.terms]
        for index, (part, of) in enumerate(zip(parts, labels, strict=True)):
            maps = part if kept else self.stage.convolution(part)
            parts[index], *vectors = self._finish(maps, mean, variance)
            more = [_gathered(term, maps, of, classes) for (_, term), maps in zip(self.terms, vectors, strict=True)]
            for kept_of, one in zip(kept_vectors, more, strict=True):
                kept_of.append(one)
            sums = (
                [a if t.whole else a + b for (_, t), a, b in zip(self.terms, sums, more, strict=True)] if sums else more
            )
        totals = [torch.cat(k) if t.whole else a for (_, t), k, a in zip(self.terms, kept_vectors, sums, strict=True)]
        return [(position, total) for (position, _), total in zip(self.terms, totals, strict=True)]

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


def _gathered(term: Term, vectors: Tensor, of_class: Tensor, classes: int) -> Tensor:
    """The sum of each class's vectors, or for a whole term all of them as they are."""
    return exact(vectors) if term.whole else _class_sums(vectors, of_class, classes)


def _class_sums(vectors: Tensor, of_class: Tensor, classes: int) -> Tensor:
    """(n, D) vectors of images of these classes → their sum for each class, (classes, D)."""
    rows = exact(vectors)
    return rows.new_zeros(classes, rows.shape[1]).index_add_(0, of_class, rows)


def _slices(count: int, most: int) -> list[slice]:
    return [slice(first, min(first + most, count)) for first in range(0, count, most)]
