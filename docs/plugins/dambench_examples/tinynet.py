"""Tinynet: one convolution, averaged over the image."""

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta
from torch import Tensor, nn

from dambench.core import config
from dambench.training.problem import Network

PARTS = {"width": "w"}


class Options(config.Options, frozen=True):
    width: Annotated[int, Meta(ge=1, le=4096, description="maps of the convolution")] = 32


class Tinynet(Network):
    num_levels = 2

    def __init__(self, channels: int, classes: int, width: int):
        super().__init__()
        self.convolution = nn.Conv2d(channels, width, 3, padding=1)
        self.classifier = nn.Linear(width, classes)

    def iter_feature_maps(self, images: Tensor) -> Iterator[Tensor]:
        maps = self.convolution(images).relu()
        yield maps
        yield maps.mean((2, 3))


def build(channels: int, size: tuple[int, int], classes: int, options: Options) -> Tinynet:
    return Tinynet(channels, classes, options.width)
