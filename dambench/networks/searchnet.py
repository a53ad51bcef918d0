"""SearchNet: one to three convolutions of a width and a kernel of their own, then one linear layer.

The space of the seed project's random search: 6 + 36 + 216 networks. Each convolution is padded to keep its size, and
followed by ReLU and 2×2 max pooling; there is no norm. `searchnet-a16k3-b32k5` has 16 channels of 3×3, then 32 of 5×5.
"""

from typing import Annotated, Literal

from msgspec import Meta

from dambench.core import config
from dambench.networks._layers import BlockSpec, Chain, check_halvings, margin

Layer = Literal["none", "16k3", "16k5", "32k3", "32k5", "64k3", "64k5"]

_LAYERS = ("16k3", "16k5", "32k3", "32k5", "64k3", "64k5")

PARTS = {
    "first": {f"a{layer}": layer for layer in _LAYERS},
    "second": {"b0": "none"} | {f"b{layer}": layer for layer in _LAYERS},
    "third": {"c0": "none"} | {f"c{layer}": layer for layer in _LAYERS},
}


class Options(config.Options, frozen=True):
    first: Annotated[
        Literal["16k3", "16k5", "32k3", "32k5", "64k3", "64k5"],
        Meta(description="channels and kernel of the first convolution"),
    ] = "32k3"
    second: Annotated[Layer, Meta(description="of the second one")] = "none"
    third: Annotated[Layer, Meta(description="of the third one")] = "none"


def fit(options: Options, size: tuple[int, int]) -> Options:
    """The options as they are.

    Raises:
        BadInput: so many halvings leave nothing of the image.
    """
    check_halvings("searchnet", size, sum(layer != "none" for layer in (options.first, options.second, options.third)))
    return options


def build(channels: int, size: tuple[int, int], classes: int, options: Options) -> Chain:
    blocks: list[BlockSpec] = []
    for layer in (options.first, options.second, options.third):
        if layer != "none":
            width, kernel = map(int, layer.split("k"))
            extra = 0 if blocks else margin(size)
            blocks.append(BlockSpec(width, "max", kernel, kernel // 2 + extra))
    return Chain(blocks, channels, size, classes, "none")
