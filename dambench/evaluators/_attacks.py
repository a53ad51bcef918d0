"""Attacks on trained networks: small changes of images that are to be recognised no more.

Pixels run from 0 to 1 here, whatever a network sees: a budget is a distance between pixels, a change never leaves
[0, 1], and what is done to pixels before the network sees them (mean and standard deviation, or ZCA) is a part of what
is attacked. Attacks are untargeted. An image is broken when any example within its budget, on the way of an attack or
at its end, is not recognised: so more steps and more queries never leave more images.
"""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Logits = Callable[[Tensor], Tensor]
"""Pixels in [0, 1], (n, C, H, W) → (n, classes), differentiable where an attack has gradients."""

Norm = Literal["linf", "l2"]
"""By what a change is measured: its largest pixel, or the root of the sum of squares over all pixels and channels."""


class Ball(NamedTuple):
    """What an attack may do to an image."""

    norm: Norm
    budget: float
    """In pixels of 0…1."""


class Attacked(NamedTuple):
    """What came of an attack."""

    examples: Tensor
    """(n, C, H, W): of a broken image one that breaks it, else the last."""
    broken: Tensor
    """(n,) bool: whether the image is not recognised any more."""


def _by_image(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))


def lengths(changes: Tensor) -> Tensor:
    """The L2 norm of each, (n,)."""
    return changes.flatten(1).square().sum(1).sqrt()


def project(examples: Tensor, pixels: Tensor, ball: Ball) -> Tensor:
    """The nearest examples that are within the budget of the pixels; then those within [0, 1], which are, too."""
    changes = examples - pixels
    if ball.norm == "linf":
        changes = changes.clamp(-ball.budget, ball.budget)
    else:
        changes = changes * _by_image((ball.budget / lengths(changes).clamp_min(1e-12)).clamp(max=1), changes)
    return (pixels + changes).clamp(0, 1)


def gradients(logits: Logits, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of each image's cross-entropy, (n, C, H, W), and which images are not recognised, (n,)."""
    with torch.enable_grad():
        variable = pixels.detach().requires_grad_(True)
        outputs = logits(variable)
        (found,) = torch.autograd.grad(F.cross_entropy(outputs, labels, reduction="sum"), variable)
    return found, outputs.detach().argmax(1) != labels


def uphill(slopes: Tensor, norm: Norm, size: float) -> Tensor:
    """A step of that size in the direction in which the loss grows fastest, by the norm."""
    if norm == "linf":
        return size * slopes.sign()
    return size * slopes / _by_image(lengths(slopes).clamp_min(1e-12), slopes)


def fgsm(logits: Logits, pixels: Tensor, labels: Tensor, ball: Ball) -> Attacked:
    """Take one step of the whole budget (Goodfellow et al., ICLR 2015; by L2 the gradient is made as long)."""
    slopes, _ = gradients(logits, pixels, labels)
    examples = project(pixels + uphill(slopes, ball.norm, ball.budget), pixels, ball)
    return Attacked(examples, wrong(logits, examples, labels))


def pgd(
    logits: Logits, pixels: Tensor, labels: Tensor, ball: Ball, steps: int, size: float, start: Tensor
) -> Iterator[Attacked]:
    """Take steps uphill, each back into the ball (Madry et al., ICLR 2018, section 2.1).

    Args:
        size: of a step, in pixels of 0…1.
        start: (n, C, H, W), within the ball.

    Yields:
        What has come of it after each step.
    """
    examples, broken, kept = start, torch.zeros_like(labels, dtype=torch.bool), start
    for step in range(steps + 1):
        slopes, missed = gradients(logits, examples, labels)
        kept = torch.where(_by_image(broken, kept), kept, examples)
        broken = broken | missed
        if step:
            yield Attacked(kept, broken)
        if step < steps:
            examples = project(examples + uphill(slopes, ball.norm, size), pixels, ball)


def square(
    logits: Logits, pixels: Tensor, labels: Tensor, budget: float, queries: int, generator: torch.Generator
) -> Iterator[Attacked]:
    """Try squares of ± the budget at random, and keep those that lower the margin (L∞).

    Square Attack (Andriushchenko et al., ECCV 2020, algorithms 1 and 2): it begins with vertical stripes; the side of
    a square is √(p · H · W) with p = 0.8 at first, halved at the shares of the queries that the paper's code has. It
    sees outputs, no gradients.

    Args:
        queries: of each image, the stripes counted.

    Yields:
        What has come of it after each query.
    """
    count, channels, height, width = pixels.shape

    def signs(*shape: int) -> Tensor:
        return (torch.randint(0, 2, shape, generator=generator) * 2 - 1).to(pixels)

    best = (pixels + budget * signs(count, channels, 1, width)).clamp(0, 1)
    margins = _margins(logits, best, labels)
    yield Attacked(best, margins < 0)
    for query in range(1, queries):
        side = max(1, min(round((_share(query, queries) * height * width) ** 0.5), height, width))
        tops = torch.randint(0, height - side + 1, (count,), generator=generator).to(pixels.device)
        lefts = torch.randint(0, width - side + 1, (count,), generator=generator).to(pixels.device)
        rows, columns = torch.arange(height, device=pixels.device), torch.arange(width, device=pixels.device)
        inside = ((rows >= tops[:, None]) & (rows < tops[:, None] + side)).view(count, 1, height, 1)
        inside = inside & ((columns >= lefts[:, None]) & (columns < lefts[:, None] + side)).view(count, 1, 1, width)
        squares = pixels + budget * signs(count, channels, 1, 1)
        tried = torch.where(inside & _by_image(margins >= 0, inside), squares, best).clamp(0, 1)
        found = _margins(logits, tried, labels)
        better = found < margins
        best = torch.where(_by_image(better, best), tried, best)
        margins = torch.where(better, found, margins)
        yield Attacked(best, margins < 0)


def _share(query: int, queries: int) -> float:
    """The share of an image that a square covers, p, at a query: the schedule of 10,000 of them, shortened."""
    at = query / queries * 10_000
    return 0.8 * 0.5 ** sum(at > border for border in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000))


def _margins(logits: Logits, pixels: Tensor, labels: Tensor) -> Tensor:
    """The output of the right class less the highest other, (n,); below 0 where another is answered, on a tie, too."""
    with torch.no_grad():
        outputs = logits(pixels)
    own = outputs.gather(1, labels.unsqueeze(1)).squeeze(1)
    others = outputs.scatter(1, labels.unsqueeze(1), -torch.inf).amax(1)
    missed = outputs.argmax(1) != labels
    return torch.where(missed, (own - others).clamp(max=-torch.finfo(own.dtype).tiny), own - others)


def wrong(logits: Logits, pixels: Tensor, labels: Tensor) -> Tensor:
    """Which images are not recognised, (n,)."""
    with torch.no_grad():
        return logits(pixels).argmax(1) != labels
