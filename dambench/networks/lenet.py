"""LeNet: two 5×5 convolutions with max-pooling, then three linear layers.

LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998, with ReLU, as the field's evaluation
pools have it. 28×28 is padded to 32×32. The released codes know images of these sizes only; here the first linear layer
is as wide as the images leave it. PAD's first stride of 2 for 64×64 is not copied.
"""

from collections.abc import Iterator

from torch import Tensor, nn

from dambench.core import config
from dambench.core.errors import BadInput
from dambench.networks._layers import MaxPool, margin
from dambench.training.problem import Network


class Options(config.Options, frozen=True):
    """There is one LeNet."""


def fit(options: Options, size: tuple[int, int]) -> Options:
    """
    Raises:
        BadInput: the second convolution would have no room.
    """
    if min(size) < 16:
        raise BadInput(f"Images of {size[0]}×{size[1]} are too small for a lenet: it needs 16×16 or more.")
    return options


def build(channels: int, size: tuple[int, int], classes: int, options: Options) -> "LeNet":
    return LeNet(channels, size, classes)


class LeNet(Network):
    """The network."""

    num_levels = 3
    nonnegative_features = True

    def __init__(self, channels: int, size: tuple[int, int], classes: int):
        super().__init__()
        first = nn.Conv2d(channels, 6, 5, padding=margin(size))
        self.blocks = nn.ModuleList(
            nn.Sequential(convolution, nn.ReLU(inplace=True)) for convolution in (first, nn.Conv2d(6, 16, 5))
        )
        self.pool = MaxPool()
        height, width = (((side + 2 * margin(size) - 4) // 2 - 4) // 2 for side in size)
        self.hidden = nn.Sequential(
            nn.Linear(16 * height * width, 120),
            nn.ReLU(inplace=True),
            nn.Linear(120, 84),
            nn.ReLU(inplace=True),
        )
        self.classifier = nn.Linear(84, classes)

    def iter_feature_maps(self, images: Tensor) -> Iterator[Tensor]:
        for block in self.blocks:
            maps = block(images)
            yield maps
            images = self.pool(maps)
            del maps
        yield self.hidden(images.flatten(1))
