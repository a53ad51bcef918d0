"""MLP: layers of 128 neurons with ReLU between the pixels and the classes.

The perceptron of the field's evaluation pools (Zhao et al., ICLR 2021). The released codes have two hidden layers; the
text of PAD's paper says one. Theirs know images of 28×28 and 32×32 only, this one takes any.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated

from msgspec import Meta
from torch import Tensor, nn

from dambench.core import config
from dambench.training.problem import Network

PARTS = {"depth": "d", "width": "w"}


class Options(config.Options, frozen=True):
    depth: Annotated[int, Meta(ge=1, le=64, description="hidden layers")] = 2
    width: Annotated[int, Meta(ge=1, le=2**16, description="neurons of each")] = 128


def build(channels: int, size: tuple[int, int], classes: int, options: Options) -> "Mlp":
    return Mlp(channels * size[0] * size[1], classes, options)


class Mlp(Network):
    """The network. There is nothing to see in it but what the classifier reads."""

    num_levels = 1

    def __init__(self, pixels: int, classes: int, options: Options):
        super().__init__()
        widths = [pixels] + [options.width] * options.depth
        layers = [nn.Sequential(nn.Linear(a, b), nn.ReLU(inplace=True)) for a, b in pairwise(widths)]
        self.hidden = nn.Sequential(*layers)
        self.classifier = nn.Linear(options.width, classes)

    def iter_feature_maps(self, images: Tensor) -> Iterator[Tensor]:
        yield self.hidden(images.flatten(1))
