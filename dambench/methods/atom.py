"""ATOM: matching of attention over space and over channels, and of mean features.

Khaki et al., "ATOM: Attention Mixer for Efficient Dataset Distillation", CVPR 2024 workshops.

DataDAM, and besides where in an image a layer is active, in which of its channels:

    100 · Σ_layers but the last Σ_c (‖mean z(real_c) − mean z(synthetic_c)‖² + weight · ‖mean u(real_c) − mean
    u(synthetic_c)‖²)  +  100 · balance · DM's loss

with z the sum of a layer's |activations|^power over channels, and u that of |activations|^channel_power over pixels,
as vectors of length 1. No network is trained.

There is no released code. Read: the abstract and the beginning of the supplement (DSA in distillation and in tests, ZCA
for CIFAR, none for TinyImageNet). The formulas are recalled, and not yet read in the paper: that u is of length 1, its
power (4, as that of z), and that both parts weigh the same. Taken from DataDAM's table of hyper-parameters: the factors
100 and λ, 8,000 iterations, step size, InstanceNorm; from its code 64 real images per class. So what is published for
ATOM cannot be had by a recipe for certain.
"""

from collections.abc import Iterator
from functools import partial
from typing import Annotated

from msgspec import Meta

from dambench.core.config import CHECKED, UNCHECKED, Recipe
from dambench.matching.attention import AttentionOptions, attention_terms, check_maps, match_attention, mixed_attention
from dambench.matching.distribution import Term
from dambench.training.problem import Network, Notice, Problem, State, Step

PAPER = "https://arxiv.org/abs/2405.01373"
SUMS_OVER_CLASSES = True


class Options(AttentionOptions, frozen=True):
    iterations: Annotated[int, Meta(ge=1, le=10**9, description="updates of the synthetic images")] = 8_000
    power: Annotated[float, Meta(gt=0, le=16, description="p of the attention map, the sum of |activation|^p")] = 4.0
    channel_power: Annotated[
        float, Meta(gt=0, le=16, description="p of the attention of channels, the sum of |activation|^p over pixels")
    ] = 4.0
    channel_weight: Annotated[
        float, Meta(ge=0, description="of channels, beside 1 of where in an image; 0: DataDAM's loss")
    ] = 1.0


KNOWN = "ATOM, formulas and powers recalled, not read; λ, lr, iterations and norm as in DataDAM's table"

RECIPES = (
    Recipe(
        datasets=("digits",),
        options={"iterations": 200},
        source="ours: digits has 130 images per class and a 2-block network, and is done in seconds; powers recalled"
        + CHECKED,
    ),
    Recipe(datasets=("imagenet",), options={"balance": 0.02}, source=f"{KNOWN}, with λ 0.02 for high resolution"),
    Recipe(
        datasets=("cifar10", "cifar100"),
        ipc=(51, None),
        options={"lr_images": 10.0},
        preprocessing="zca",
        source=f"{KNOWN}, with lr 10 above IPC 50; ZCA as in ATOM's supplement",
    ),
    Recipe(datasets=("cifar10", "cifar100"), preprocessing="zca", source=f"{KNOWN}; ZCA as in ATOM's supplement"),
    Recipe(ipc=(51, None), options={"lr_images": 10.0}, source=f"{KNOWN}, with lr 10 above IPC 50"),
    Recipe(source=KNOWN),
    Recipe(
        name="brief",
        datasets=("mnist", "fashionmnist"),
        options={"iterations": 200},
        network="convnet-d3-w64",
        source="ours, for two CPU cores: 200 iterations (8,000), width 64 (128), 64 real images per class" + UNCHECKED,
    ),
)


def check(network: Network, options: Options) -> None:
    """
    Raises:
        BadInput: the network has no maps, and so no attention.
    """
    check_maps(network, "ATOM matches where and in which channels a network is active")


def terms(network: Network, options: Options) -> list[Term]:
    """The attention of all activations but the last block's, over space and channels, and the embedding."""
    check(network, options)
    vectors = partial(
        mixed_attention,
        power=options.power,
        channel_power=options.channel_power,
        channel_weight=options.channel_weight,
        nonnegative=network.nonnegative_features,
    )
    return attention_terms(network, options, vectors)


def distill(problem: Problem, options: Options, resume: State | None = None) -> Iterator[Step | Notice]:
    """Pull the mean attention and the mean embedding of each synthetic class towards the real ones."""
    yield from match_attention(problem, options, partial(terms, options=options), resume)
