"""CutMix and mixup: images of a batch mixed with others of it, and their labels in the same shares.

CutMix (Yun et al., ICCV 2019): a box of another image of the batch goes over each, the same box for all; its share of
the area is 1 − λ, λ ~ Beta(α, α), before it is cut at the border. Mixup (Zhang et al., ICLR 2018): λ times an image
plus 1 − λ times another. Both are drawn for each batch, after it was augmented.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Mixing = Literal["none", "cutmix", "mixup"]


@dataclass(frozen=True)
class Mix:
    """The partner of each image of a batch, and how much of it comes in."""

    partners: Tensor
    """(B,) int64, on the CPU."""
    numbers: Tensor
    """(5,) float32, on the CPU: first row, row after the last, first column, column after the last of the box; the
    share of an image's own label."""


def beta(alpha: float, generator: torch.Generator) -> float:
    """A number from Beta(α, α), by Jöhnk's method: from uniform ones, which a generator of ours can give."""
    while True:
        first, second = torch.rand(2, dtype=torch.float64, generator=generator).tolist()
        powers = first ** (1 / alpha), second ** (1 / alpha)
        if 0 < sum(powers) <= 1:
            return float(powers[0] / sum(powers))


def draw_mix(
    kind: Mixing, probability: float, alpha: float, batch: int, size: tuple[int, int], generator: torch.Generator
) -> Mix:
    """Draw for a batch of images of that height and width. With 1 − `probability` nothing of others comes in."""
    height, width = size
    mixes = torch.rand((), generator=generator).item() < probability
    share = beta(alpha, generator)
    partners = torch.randperm(batch, generator=generator)
    centre = [int(torch.randint(side, (), generator=generator)) for side in (height, width)]
    if not mixes:
        return Mix(partners, torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0]))
    if kind == "mixup":
        return Mix(partners, torch.tensor([0.0, 0.0, 0.0, 0.0, share]))
    box: list[int] = []
    for middle, side in zip(centre, size, strict=True):
        half = int(side * (1 - share) ** 0.5) // 2
        box += [max(0, middle - half), min(side, middle + half)]
    area = (box[1] - box[0]) * (box[3] - box[2])
    return Mix(partners, torch.tensor([*box, 1 - area / (height * width)], dtype=torch.float32))


def mix(kind: Mixing, images: Tensor, labels: Tensor, partners: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Mix batches as drawn for each: the same work whatever was drawn, so that a CUDA graph can hold it.

    Args:
        images: (n, B, C, H, W); labels: (n, B, classes), probabilities.
        partners: (n, B) int64; numbers: (n, 5); see `Mix`.
    """
    rows = torch.arange(len(images), device=images.device).unsqueeze(1)
    others, labels_of_others = images[rows, partners], labels[rows, partners]
    top, bottom, left, right, share = numbers.to(images.dtype).view(-1, 5, 1, 1, 1, 1).unbind(1)
    if kind == "mixup":
        mixed = images * share + others * (1 - share)
    else:
        down = torch.arange(images.shape[-2], device=images.device).view(-1, 1)
        across = torch.arange(images.shape[-1], device=images.device)
        mixed = torch.where((down >= top) & (down < bottom) & (across >= left) & (across < right), others, images)
    share = share.view(-1, 1, 1)
    return mixed, labels * share + labels_of_others * (1 - share)
