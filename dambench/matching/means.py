"""Matching by class means: what a network sees of the real and of the synthetic images of a class, on average.

DM and DataDAM are of this kind. They differ in what they look at (`Term`): the embedding, or the attention maps of
each layer and the embedding. The loss is

    Σ_terms weight · Σ_classes ‖mean_{x real} v(x) − mean_{s synthetic} v(s)‖²

with v the vector that a term makes of what the network sees of one image.

A class's mean is a sum over its images, so the real images go through the network a few at a time where that is
faster or all would not fit, and the gradient is taken for some classes after the other: the loss is a sum over
classes. A network whose maps depend on the other images of the batch (BatchNorm) sees all classes at once, as in
the released codes, or its statistics would be others.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dambench.augment import Draw, augment, draw, strategy_for
from dambench.precision import Policy
from dambench.problem import Network, Problem, RealSet
from dambench.protocol import DSA


@dataclass(frozen=True)
class Term:
    """A part of the loss: what is compared, at which level of the network, and what it weighs."""

    name: str
    """As it is logged; terms of one name are added up."""
    level: int
    """Of `Network.feature_maps`."""
    vectors: Callable[[Tensor], Tensor]
    """What the network sees of n images there, (n, …) → one vector each, (n, D)."""
    weight: float = 1.0


@dataclass(frozen=True)
class RealBatch:
    """Random real images of every class, augmented; fetched class by class, when they are looked at."""

    real: RealSet
    indices: Tensor
    """(classes, n) int64, on the images' device."""
    drawn: Draw | None = None
    """One draw per class; None: not augmented."""

    def images(self, classes: slice) -> Tensor:
        """Of these classes: (c, n, C, H, W) float32, normalised and augmented."""
        images = self.real.normalisation.apply(self.real.images[self.indices[classes]])
        return images if self.drawn is None else augment(images, self.drawn.of(classes))


def real_batch(problem: Problem, count: int, augmentation: Literal["dsa", "none"], iteration: int) -> RealBatch:
    """`count` random real images of every class, and one augmentation per class, of this iteration."""
    real = problem.real
    if min(real.counts) < count and iteration == 1:
        problem.warn(
            f"The smallest class has {min(real.counts)} images, fewer than the real batch of {count}: "
            "such classes are sampled with replacement."
        )
    indices = real.draw(count, problem.generator("real batch", iteration)).to(real.images.device)
    if augmentation == "none":
        return RealBatch(real, indices)
    strategy = strategy_for(DSA, problem.card.mirrors)
    return RealBatch(real, indices, draw(strategy, real.classes, problem.seeds.generator("augmentation", iteration)))


def pull(
    network: Network, terms: Sequence[Term], batch: RealBatch, synthetic: Tensor, policy: Policy
) -> dict[str, Tensor]:
    """The matching loss; its gradient is added to that of the synthetic images.

    Args:
        network: in train mode, its weights frozen.
        synthetic: (classes * ipc, C, H, W), sorted by class, a leaf. It is augmented as the real batch is.

    Returns:
        By name what the terms give, weighted, and `matching`, their sum: detached scalars.
    """
    classes = len(batch.indices)
    targets = real_means(network, terms, batch, policy.real_chunk)
    ipc = len(synthetic) // classes
    most = classes if network.mixes_images else max(1, policy.synthetic_chunk // ipc)
    losses = {term.name: synthetic.new_zeros(()) for term in terms}
    for some in _slices(classes, most):
        images = synthetic.unflatten(0, (classes, ipc))[some]
        if batch.drawn is not None:
            images = augment(images, batch.drawn.of(some))
        total = synthetic.new_zeros(())
        for position, vectors in _seen(network, terms, images.flatten(0, 1)):
            term, means = terms[position], vectors.unflatten(0, images.shape[:2]).mean(1)
            part = term.weight * (targets[position][some] - means).square().sum()
            losses[term.name] = losses[term.name] + part.detach()
            total = total + part
        torch.autograd.backward(total, inputs=[synthetic])
    if "matching" not in losses:
        losses = {"matching": torch.stack(list(losses.values())).sum(), **losses}
    return losses


@torch.no_grad()
def real_means(network: Network, terms: Sequence[Term], batch: RealBatch, chunk: int) -> list[Tensor]:
    """The mean vector of each class, for each term.

    Args:
        chunk: about how many images go through the network at once, where it lets itself be asked so.

    Returns:
        (classes, D) each.
    """
    classes, count = batch.indices.shape
    whole = network.mixes_images
    together, part = (classes, count) if whole else (max(1, chunk // count), min(chunk, count))
    sums: list[list[Tensor]] = [[] for _ in terms]
    for some in _slices(classes, together):
        images = batch.images(some)
        of_these: list[Tensor | None] = [None] * len(terms)
        for few in images.split(part, dim=1):
            for position, vectors in _seen(network, terms, few.flatten(0, 1)):
                added = vectors.unflatten(0, few.shape[:2]).sum(1)
                before = of_these[position]
                of_these[position] = added if before is None else before + added
        for found, total in zip(sums, of_these, strict=True):
            if total is not None:
                found.append(total)
    return [torch.cat(found) / count for found in sums]


def _seen(network: Network, terms: Sequence[Term], images: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The vectors of each term, with the term's position; no map is kept longer than it is needed."""
    for level, maps in enumerate(network.look(images)):
        for position, term in enumerate(terms):
            if term.level == level:
                yield position, term.vectors(maps)


def _slices(count: int, most: int) -> list[slice]:
    return [slice(first, min(first + most, count)) for first in range(0, count, most)]
