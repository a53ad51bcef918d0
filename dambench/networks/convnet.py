"""ConvNet: blocks of 3×3 convolution, norm, activation and 2×2 pooling, then one linear layer.

The field's standard network (Gidaris and Komodakis, CVPR 2018; Zhao et al., ICLR 2021). What most papers call
«instance norm» is a GroupNorm with as many groups as channels: affine, and the same in training and testing.

Where the released codes differ: they pad the first convolution by 3 whenever the image has one channel, meant
to make 28×28 into 32×32, which breaks other sizes. Here the size decides, so published parameter counts hold
and grey images of any size work. In DataDAM's code the name `ConvNet` means BatchNorm; here `convnet` is
always instance norm and `convnet-bn` BatchNorm.
"""

from typing import Annotated, Literal

from msgspec import Meta

from dambench.core import config
from dambench.core.errors import BadInput
from dambench.networks._layers import NORMS, BlockSpec, Chain, Norm, margin

PARTS = {
    "depth": "d",
    "width": "w",
    "norm": NORMS,
    "activation": {"relu": "relu", "sigmoid": "sigmoid", "leakyrelu": "leakyrelu", "swish": "swish"},
    "pooling": {"ap": "average", "mp": "max", "np": "none"},
}


class Options(config.Options, frozen=True):
    depth: Annotated[int, Meta(ge=1, le=8, description="blocks")] | None = None
    """None: halve the image until it is 4 to 7 pixels small."""
    width: Annotated[int, Meta(ge=1, le=4096, description="channels of every convolution")] = 128
    norm: Annotated[Norm, Meta(description="after each convolution")] = "instance"
    activation: Annotated[
        Literal["relu", "sigmoid", "leakyrelu", "swish"], Meta(description="after each norm; leakyrelu has slope 0.01")
    ] = "relu"
    pooling: Annotated[Literal["average", "max", "none"], Meta(description="2×2, after each activation")] = "average"


def fit(options: Options, size: tuple[int, int]) -> Options:
    """The options with the depth that suits images of that (height, width).

    Raises:
        BadInput: so many halvings leave nothing of the image.
    """
    smallest = min(size) + 2 * margin(size)
    deepest = smallest.bit_length() - 1
    depth = options.depth or min(8, max(1, deepest - 2))
    if depth > deepest and options.pooling != "none":
        height, width = size
        most = f"at most depth {deepest}" if deepest > 0 else "use pooling np, or larger images"
        raise BadInput(f"A convnet of depth {depth} halves {height}×{width} images to nothing: {most}.")
    return Options(
        depth=depth,
        width=options.width,
        norm=options.norm,
        activation=options.activation,
        pooling=options.pooling,
    )


def build(channels: int, size: tuple[int, int], classes: int, options: Options) -> Chain:
    first = BlockSpec(options.width, options.pooling, padding=1 + margin(size))
    others = [BlockSpec(options.width, options.pooling)] * ((options.depth or 1) - 1)
    return Chain([first, *others], channels, size, classes, options.norm, options.activation)
