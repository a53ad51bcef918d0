"""ViT: a transformer over patches of the image, one more token for the class.

Dosovitskiy et al., ICLR 2021, of the size that DataDAM's code has for CIFAR: patches of 4×4, 6 blocks, 512 numbers per
token, 8 heads, and a hidden layer as wide as a token. Norms come first in each block; the class token and the position
of each patch are learned, and begin as N(0, 1).

That code drops a tenth of the activations while it trains (dropout). This network drops none: the randomness of such
masks would have to be drawn from the run's seed, and no other network of the field's pools has any.

What can be seen are the patches after each block, as maps of one pixel per patch.
"""

from collections.abc import Iterator
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor, nn

from dambench.core import config
from dambench.core.errors import BadInput
from dambench.training.problem import Network

PARTS = {"patch": "p", "depth": "d", "width": "w", "heads": "h"}

MOST_PATCHES = 16
"""Limit for a row or column, where the name does not say how large patches are."""


class Options(config.Options, frozen=True):
    patch: Annotated[int, Meta(ge=1, le=512, description="pixels of a patch's side")] | None = None
    """None: the smallest from 4 on that the images can be cut into, with 2 to 16 patches in a row."""
    depth: Annotated[int, Meta(ge=1, le=64, description="blocks")] = 6
    width: Annotated[int, Meta(ge=1, le=4096, description="numbers of each token")] = 512
    heads: Annotated[int, Meta(ge=1, le=64, description="heads of each attention")] = 8


def fit(options: Options, size: tuple[int, int]) -> Options:
    """The options with patches that suit images of that (height, width).

    Raises:
        BadInput: the images cannot be cut into such patches, or the tokens not into so many heads.
    """
    height, width = size
    fitting = [side for side in range(1, min(size) + 1) if height % side == 0 and width % side == 0]
    usual = [side for side in fitting if 4 <= side < min(size) and max(size) <= MOST_PATCHES * side]
    patch = options.patch or next(iter(usual), 0)
    if patch not in fitting:
        request = f"patches of {patch}×{patch}" if patch else f"patches of 4×4 or more, 2 to {MOST_PATCHES} in a row"
        raise BadInput(
            f"A vit cannot cut images of {height}×{width} into {request}: vit-pN with N one of "
            f"{', '.join(map(str, fitting))} would fit."
        )
    if options.width % options.heads:
        raise BadInput(f"A vit of width {options.width} cannot share it out evenly among {options.heads} heads.")
    return Options(patch=patch, depth=options.depth, width=options.width, heads=options.heads)


def build(channels: int, size: tuple[int, int], classes: int, options: Options) -> "ViT":
    return ViT(channels, size, classes, options)


class ViT(Network):
    """The network; `patch` must be given."""

    def __init__(self, channels: int, size: tuple[int, int], classes: int, options: Options):
        super().__init__()
        patch, width = options.patch or 1, options.width
        self.num_levels = options.depth + 1
        self.grid = (size[0] // patch, size[1] // patch)
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, 1 + self.grid[0] * self.grid[1], width))
        self.blocks = nn.ModuleList(Block(width, options.heads) for _ in range(options.depth))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, classes)

    def iter_feature_maps(self, images: Tensor) -> Iterator[Tensor]:
        patches = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(images), -1, -1), patches], 1) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
            yield tokens[:, 1:].transpose(1, 2).unflatten(2, self.grid)
        yield self.norm(tokens[:, 0])

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        super().reset(generator)
        for parameter in (self.token, self.positions):
            parameter.normal_(generator=generator)


class Block(nn.Module):
    """tokens + attention(norm(tokens)), and to that + two layers with GELU between, of its norm."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(width), Attention(width, heads))
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(tokens)
        after: Tensor = tokens + self.layers(tokens)
        return after


class Attention(nn.Module):
    """Each token becomes a mean of what all tokens offer, weighted by softmax(q · k / √d) in each head."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.asked = nn.Linear(width, 3 * width, bias=False)  # the name is in the keys of kept experts
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, n, width) → (B, n, width)."""
        queries, keys, values = self.asked(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # Not torch's fused attention, which has no second derivative: gradients are matched, too.
        weights = (queries @ keys.transpose(-2, -1) * self.scale).softmax(-1)
        mixed: Tensor = self.out((weights @ values).transpose(1, 2).flatten(2))
        return mixed
