"""ConvNet: blocks of 3×3 convolution, norm, activation and 2×2 pooling, then one linear layer.

The field's standard network (Gidaris and Komodakis, CVPR 2018; Zhao et al., ICLR 2021). What most papers call
«instance norm» is a GroupNorm with as many groups as channels: affine, and the same in training and testing.

Where the released codes differ: they pad the first convolution by 3 whenever the image has one channel, meant
to make 28×28 into 32×32, which breaks other sizes. Here the size decides, so published parameter counts hold
and grey images of any size work. In DataDAM's code the name `ConvNet` means BatchNorm; here `convnet` is
always instance norm and `convnet-bn` BatchNorm.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, cast

import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn

from dambench import config
from dambench.errors import BadInput
from dambench.problem import Network, Stage

PARTS = {
    "depth": "d",
    "width": "w",
    "norm": {"in": "instance", "bn": "batch", "ln": "layer", "gn": "group", "nn": "none"},
    "activation": {"relu": "relu", "sigmoid": "sigmoid", "leakyrelu": "leakyrelu", "swish": "swish"},
    "pooling": {"ap": "average", "mp": "max", "np": "none"},
}


class Options(config.Options, frozen=True):
    depth: Annotated[int, Meta(ge=1, le=8, description="blocks")] | None = None
    """None: halve the image until it is 4 to 7 pixels small."""
    width: Annotated[int, Meta(ge=1, le=4096, description="channels of every convolution")] = 128
    norm: Annotated[
        Literal["instance", "batch", "layer", "group", "none"], Meta(description="after each convolution")
    ] = "instance"
    activation: Annotated[
        Literal["relu", "sigmoid", "leakyrelu", "swish"], Meta(description="after each norm; leakyrelu has slope 0.01")
    ] = "relu"
    pooling: Annotated[Literal["average", "max", "none"], Meta(description="2×2, after each activation")] = "average"


def _padding(size: tuple[int, int]) -> int:
    # 28 + 2 * 3 - 2 = 32: MNIST becomes as large as CIFAR, and halves three times to 4.
    return 3 if size == (28, 28) else 1


def fit(options: Options, size: tuple[int, int]) -> Options:
    """The options with the depth that suits images of that (height, width).

    Raises:
        BadInput: so many halvings leave nothing of the image.
    """
    smallest = min(size) + 2 * _padding(size) - 2
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


def build(channels: int, size: tuple[int, int], classes: int, options: Options) -> "ConvNet":
    return ConvNet(channels, size, classes, fit(options, size))


class ConvNet(Network):
    """The network; `depth` must be given."""

    def __init__(self, channels: int, size: tuple[int, int], classes: int, options: Options):
        super().__init__()
        width, depth = options.width, options.depth or 1
        self.levels = depth + 1
        padding = _padding(size)
        self.blocks = nn.ModuleList()
        for index in range(depth):
            size = (size[0] + 2 * padding - 2, size[1] + 2 * padding - 2)
            self.blocks.append(
                nn.Sequential(
                    nn.Conv2d(channels if index == 0 else width, width, 3, padding=padding),
                    _norm(options.norm, width, size),
                    _activation(options.activation),
                )
            )
            padding = 1
            if options.pooling != "none":
                size = (size[0] // 2, size[1] // 2)
        self.pool = {"average": AveragePool(), "max": nn.MaxPool2d(2), "none": nn.Identity()}[options.pooling]
        self.classifier = nn.Linear(width * size[0] * size[1], classes)

    @property
    def rectified(self) -> bool:
        return all(isinstance(stage.activation, nn.ReLU) for stage in self.stages)

    @property
    def stages(self) -> Sequence[Stage]:
        return [Stage._make([*cast(nn.Sequential, block), self.pool]) for block in self.blocks]

    def look(self, images: Tensor) -> Iterator[Tensor]:
        for block in self.blocks:
            maps = block(images)
            yield maps
            images = self.pool(maps)
            del maps
        yield images


class AveragePool(nn.Module):
    """The mean of each 2×2 pixels; a last odd row or column is left out.

    On a CPU by other means than torch's own pooling, which takes 4 to 10 times as long and was a fifth of a network's
    forward pass: rows are added and then columns, or, where gradients are wanted and for bfloat16, two rows at once are
    multiplied by a matrix of quarters.
    """

    def forward(self, images: Tensor) -> Tensor:
        if images.device.type != "cpu" or torch.compiler.is_compiling():
            return F.avg_pool2d(images, 2)
        batch, channels, height, width = images.shape
        if height % 2 or width % 2:
            images = images[..., : height // 2 * 2, : width // 2 * 2]
        if images.dtype == torch.bfloat16 or images.requires_grad:
            quarters = torch.eye(width // 2, dtype=images.dtype).repeat_interleave(2, 0).repeat(2, 1) / 4
            return (images.reshape(-1, len(quarters)) @ quarters).view(batch, channels, height // 2, width // 2)
        rows = images[:, :, ::2] + images[:, :, 1::2]
        return (rows[..., ::2] + rows[..., 1::2]).mul_(0.25)


def _norm(name: str, width: int, size: tuple[int, int]) -> nn.Module:
    match name:
        case "instance":
            return nn.GroupNorm(width, width)
        case "batch":
            return nn.BatchNorm2d(width)
        case "layer":
            return nn.LayerNorm([width, *size])
        case "group":
            if width % 4:
                raise BadInput(f"A convnet with group norm has 4 groups: width {width} is not a multiple of 4.")
            return nn.GroupNorm(4, width)
        case _:
            return nn.Identity()


def _activation(name: str) -> nn.Module:
    match name:
        case "relu":
            return nn.ReLU(inplace=True)
        case "sigmoid":
            return nn.Sigmoid()
        case "leakyrelu":
            return nn.LeakyReLU(0.01)
        case _:
            return nn.SiLU()
