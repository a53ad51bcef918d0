"""Attention: where in the image, and in which channels, a layer is active.

Sajedi et al., "DataDAM: Efficient Dataset Distillation with Attention Matching", ICCV 2023 (where), and "ATOM:
Attention Mixer for Efficient Dataset Distillation", CVPR 2024 workshops (and in which channels).
"""

from collections.abc import Callable, Iterator
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor

from dambench.core import config
from dambench.core.errors import BadInput
from dambench.core.events import Warned
from dambench.matching.distribution import Matching, Term
from dambench.matching.optimised import LearnedImages
from dambench.training.problem import Network, Notice, Problem, State, Step

# What plug-ins may import: see docs/plugins.md.
__all__ = ["attention"]


class AttentionOptions(config.Options, frozen=True):
    """The settings of a method that matches attention and mean features: as DataDAM's released code has them."""

    iterations: Annotated[int, Meta(ge=1, le=10**9, description="updates of the synthetic images")] = 20_000
    lr_images: Annotated[float, Meta(gt=0, description="step size for the images")] = 1.0
    momentum_images: Annotated[float, Meta(ge=0, lt=1, description="momentum of the images' SGD")] = 0.5
    batch_real: Annotated[int, Meta(ge=1, le=10**6, description="real images per class and iteration")] = 64
    power: Annotated[float, Meta(gt=0, le=16, description="p of the attention map, the sum of |activation|^p")] = 1.0
    attention_weight: Annotated[float, Meta(ge=0, description="of the attention term")] = 100.0
    balance: Annotated[
        float, Meta(ge=0, description="λ: the features' weight as a share of 100; 0.01 is DM's loss with weight 1")
    ] = 0.01
    init: Annotated[Literal["real", "noise"], Meta(description="start from random real images or from N(0, 1)")] = (
        "real"
    )
    augmentation: Annotated[
        Literal["dsa", "none"], Meta(description="the same draw for a class's real and synthetic images")
    ] = "dsa"


def attention(maps: Tensor, power: float = 1.0, nonnegative: bool = False) -> Tensor:
    """The attention map of each image, as a vector of length 1: z = vec(A) / ‖vec(A)‖₂, A = Σ_channels |f|^power.

    Args:
        maps: (n, C, H, W), a layer's activations.
        nonnegative: whether none is negative: |f| need not be made.

    Returns:
        (n, H * W). An image that the layer does not react to at all has the zero vector.
    """
    return _where(_strength(maps, power, nonnegative))


def mixed_attention(
    maps: Tensor, power: float, channel_power: float, channel_weight: float, nonnegative: bool = False
) -> Tensor:
    """The attention map of each image, and beside it the attention of its channels, each of length 1.

    The latter is z = vec(A) / ‖vec(A)‖₂, A = Σ_pixels |f|^channel_power, times √channel_weight: the squared distance of
    two such vectors is that of the maps, and channel_weight times that of the channels.

    Args:
        maps: (n, C, H, W), a layer's activations.

    Returns:
        (n, H * W + C).
    """
    strength = _strength(maps, power, nonnegative)
    of_channels = strength if channel_power == power else _strength(maps, channel_power, nonnegative)
    channels = F.normalize(of_channels.flatten(2).sum(2), dim=1)
    return torch.cat([_where(strength), channel_weight**0.5 * channels], 1)


def _strength(maps: Tensor, power: float, nonnegative: bool) -> Tensor:
    strength = maps if nonnegative else maps.abs()
    return strength if power == 1 else strength.pow(power)


def _where(strength: Tensor) -> Tensor:
    return F.normalize(strength.sum(1).flatten(1), dim=1)


def check_maps(network: Network, what: str) -> None:
    """See that a network has maps.

    Args:
        what: what a method compares, for the sentence.

    Raises:
        BadInput: it has none, and so no attention.
    """
    if network.num_levels < 2:
        raise BadInput(
            f"{what}, and an MLP has no such maps: match on a network with convolutions, such as --network convnet, or "
            "take --method dm."
        )


def attention_terms(network: Network, options: AttentionOptions, vectors: Callable[[Tensor], Tensor]) -> list[Term]:
    """The attention of all activations but the last block's, and the embedding.

    Args:
        vectors: the attention of each image, from a layer's activations.
    """
    blocks = network.num_levels - 1  # the last level is what the classifier reads
    of_layers = [Term("attention", block, vectors, options.attention_weight) for block in range(blocks - 1)]
    return [*of_layers, Term("features", blocks, lambda maps: maps.flatten(1), 100 * options.balance)]


def match_attention(
    problem: Problem, options: AttentionOptions, terms: Callable[[Network], list[Term]], resume: State | None
) -> Iterator[Step | Notice]:
    """Pull the mean attention and the mean embedding of each synthetic class towards the real ones."""
    images = LearnedImages(problem, options.init, options.lr_images, options.momentum_images, resume)
    matching = Matching(problem, images, terms, options.batch_real, options.augmentation)
    if len(matching.means.terms) == 1:
        yield Warned(
            message="A network of one block has no layer but the last, so there is no attention to match: only the "
            "features are matched."
        )
    yield from matching.steps(options.iterations)
