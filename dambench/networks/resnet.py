"""ResNet, for small images: a 3×3 stem, four stages of residual blocks, the mean of the last maps, one linear layer.

He et al., CVPR 2016, as the field's evaluation pools have it (Zhao et al., ICLR 2021): no pooling after the stem, and
instance norm unless the name says another (`resnet18-bn`). With `-ap` (`resnet18-bn-ap`) stages are halved by average
pooling instead of strides, and the classifier reads the last maps whole.

Where the released codes take the mean of 4×4 pixels, which only fits images of 32×32, here it is that of all: the same
there, and other sizes work. PAD's coarser stems for 64×64 and larger are not copied.

What can be seen are the outputs of the stages: blocks add to what they are given, so the activations within them say
less. (The released code of DataDAM finds no layer to match in a ResNet, and silently matches none.)
"""

from collections.abc import Iterator
from typing import Annotated, Literal

import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn

from dambench.core import config
from dambench.core.errors import BadInput
from dambench.networks._layers import NORMS, AveragePool, Norm, check_halvings, norm
from dambench.training.problem import Network

PARTS = {"depth": "", "norm": NORMS, "halving": {"sc": "stride", "ap": "average"}}

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
WIDTHS = (64, 128, 256, 512)


class Options(config.Options, frozen=True):
    depth: Annotated[Literal[18, 34, 50], Meta(description="layers, counted as the paper does")] = 18
    norm: Annotated[Norm, Meta(description="after each convolution")] = "instance"
    halving: Annotated[
        Literal["stride", "average"], Meta(description="convolutions with stride 2, or average pooling after them")
    ] = "stride"


def fit(options: Options, size: tuple[int, int]) -> Options:
    """
    Raises:
        BadInput: nothing would be left of the images.
    """
    if options.halving == "average":
        check_halvings(f"a resnet{options.depth}-ap", size, 3)
    if options.norm == "instance" and max(size) < (16 if options.halving == "average" else 9):
        raise BadInput(
            f"Images of {size[0]}×{size[1]} are too small for a resnet{options.depth} with instance norm, which makes "
            f"zeros of its last maps, of one pixel: take resnet{options.depth}-bn, or larger images."
        )
    return options


def build(channels: int, size: tuple[int, int], classes: int, options: Options) -> "ResNet":
    return ResNet(channels, size, classes, options)


class ResNet(Network):
    """The network."""

    num_levels = 5
    nonnegative_features = True

    def __init__(self, channels: int, size: tuple[int, int], classes: int, options: Options):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 64, 3, padding=1, bias=False), norm(options.norm, 64, size), nn.ReLU(inplace=True)
        )
        self.parts = nn.ModuleList()
        before = 64
        for width, count in zip(WIDTHS, BLOCKS[options.depth], strict=True):
            part = nn.Sequential()
            for index in range(count):
                block = Residual(before, width, size, index == 0 and width > 64, options)
                part.append(block)
                before, size = block.width, block.size
            self.parts.append(part)
        self.averaged = options.halving == "stride"
        self.classifier = nn.Linear(before if self.averaged else before * size[0] * size[1], classes)

    def iter_feature_maps(self, images: Tensor) -> Iterator[Tensor]:
        images = self.stem(images)
        for part in self.parts:
            images = part(images)
            yield images
        yield images.mean((2, 3)) if self.averaged else images


class Residual(nn.Module):
    """ReLU(path(x) + shortcut(x)); the path has two convolutions, or three from depth 50 on.

    Args:
        before: channels of what it is given.
        size: (height, width) of it.
        halves: whether its maps are half as high and wide.
    """

    def __init__(self, before: int, width: int, size: tuple[int, int], halves: bool, options: Options):
        super().__init__()
        deep = options.depth >= 50
        self.width = 4 * width if deep else width
        self.size = size
        if halves:
            odd = options.halving == "stride"  # of an odd size a stride keeps the larger half
            self.size = ((size[0] + odd) // 2, (size[1] + odd) // 2)
        strided, pooled = halves and options.halving == "stride", halves and options.halving == "average"

        def convolution(before: int, after: int, kernel: int, stride: bool = False) -> nn.Conv2d:
            return nn.Conv2d(before, after, kernel, 2 if stride else 1, padding=kernel // 2, bias=False)

        self.path = nn.Sequential()
        if deep:
            self.path.extend([convolution(before, width, 1), norm(options.norm, width, size), nn.ReLU(inplace=True)])
        between = size if pooled else self.size
        self.path.extend(
            [
                convolution(width if deep else before, width, 3, strided),
                norm(options.norm, width, between),
                nn.ReLU(inplace=True),
                *([AveragePool()] if pooled else []),
                convolution(width, self.width, 1 if deep else 3),
                norm(options.norm, self.width, self.size),
            ]
        )
        self.shortcut = nn.Sequential()
        if halves or before != self.width:
            self.shortcut.extend(
                [
                    convolution(before, self.width, 1, strided),
                    *([AveragePool()] if pooled else []),
                    norm(options.norm, self.width, self.size),
                ]
            )

    def forward(self, images: Tensor) -> Tensor:
        return F.relu_(self.path(images) + self.shortcut(images))
