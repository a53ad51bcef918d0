"""AlexNet, for small images: five convolutions, three of them followed by max-pooling, and one linear layer.

After Krizhevsky et al., NeurIPS 2012, as the field's evaluation pools have it (Zhao et al., ICLR 2021): it has no norm
(`alexnet-bn`: BatchNorm after each convolution), and no dropout. 28×28 is padded to 32×32.
"""

from typing import Annotated

from msgspec import Meta

from dambench.core import config
from dambench.networks._layers import NORMS, BlockSpec, Chain, Norm, check_halvings, margin

PARTS = {"norm": NORMS}


class Options(config.Options, frozen=True):
    norm: Annotated[Norm, Meta(description="after each convolution")] = "none"


def fit(options: Options, size: tuple[int, int]) -> Options:
    check_halvings("an alexnet", size, 3)
    return options


def build(channels: int, size: tuple[int, int], classes: int, options: Options) -> Chain:
    blocks = [
        BlockSpec(128, "max", kernel=5, padding=2 + margin(size)),
        BlockSpec(192, "max", kernel=5, padding=2),
        BlockSpec(256, "none"),
        BlockSpec(192, "none"),
        BlockSpec(192, "max"),
    ]
    return Chain(blocks, channels, size, classes, options.norm)
