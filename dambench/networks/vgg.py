"""VGG: 8 to 16 convolutions of 3×3 with norm and ReLU, five max-poolings, and one linear layer.

Simonyan and Zisserman, ICLR 2015, as the field's evaluation pools have it (Zhao et al., ICLR 2021): the classifier is
one layer, there is no dropout, and the norm is instance norm unless the name says another (`vgg11-bn`). 28×28 is padded
to 32×32. The linear layer is as wide as the images leave it; PAD's stronger last pooling for 64×64 is not copied.
"""

from typing import Annotated, Literal

from msgspec import Meta

from dambench.core import config
from dambench.networks._layers import NORMS, BlockSpec, Chain, Norm, check_halvings, margin

PARTS = {"depth": "", "norm": NORMS}

# How many convolutions of each width there are before the next pooling.
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)


class Options(config.Options, frozen=True):
    depth: Annotated[Literal[11, 13, 16, 19], Meta(description="layers, counted as the paper does")] = 11
    norm: Annotated[Norm, Meta(description="after each convolution")] = "instance"


def fit(options: Options, size: tuple[int, int]) -> Options:
    check_halvings(f"a vgg{options.depth}", size, 5)
    return options


def build(channels: int, size: tuple[int, int], classes: int, options: Options) -> Chain:
    blocks: list[BlockSpec] = []
    for width, count in zip(WIDTHS, CONVOLUTIONS[options.depth], strict=True):
        blocks += [BlockSpec(width, "none")] * (count - 1) + [BlockSpec(width, "max")]
    blocks[0] = blocks[0]._replace(padding=1 + margin(size))
    return Chain(blocks, channels, size, classes, options.norm)
