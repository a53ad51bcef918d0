"""Random images in the shapes of known datasets: speed does not depend on what they show."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from dambench.core.events import DataCard
from dambench.training.problem import Normalisation, RealSet

MEAN, STD = 0.5, 0.29
"""Of uniformly random pixels in [0, 1]."""


@dataclass(frozen=True)
class Shape:
    """What is like the dataset of that name."""

    name: str
    channels: int
    size: int
    """Pixels of a side."""
    per_class: int
    """Training images of a class."""
    mirrors: bool
    """Whether a mirror image belongs to the same class."""
    classes: int = 10
    tests: int = 10_000


MNIST = Shape("MNIST", 1, 28, 6_000, mirrors=False)
CIFAR10 = Shape("CIFAR-10", 3, 32, 5_000, mirrors=True)
TINY = Shape("tiny", 1, 28, 12, mirrors=False, classes=3, tests=40)
"""To see that all works."""


@cache
def pixels(shape: Shape, tests: bool = False) -> Tensor:
    """(N, C, H, W) uint8, sorted by class: the training images, or the test images."""
    return _random(shape, tests)


@cache
def floats(shape: Shape, device: str, tests: bool = False) -> Tensor:
    """The same, normalised: (N, C, H, W) float32, on the device."""
    return _random(shape, tests).float().div_(255).sub_(MEAN).div_(STD).to(device)


def _random(shape: Shape, tests: bool) -> Tensor:
    count = shape.tests if tests else shape.classes * shape.per_class
    generator = torch.Generator().manual_seed(1 if tests else 0)
    return torch.randint(256, (count, shape.channels, shape.size, shape.size), dtype=torch.uint8, generator=generator)


def labels(classes: int, count: int) -> Tensor:
    """(count,) int64, sorted, of each class about as many."""
    return torch.arange(count) * classes // count


# As dambench has them.


def card(shape: Shape) -> DataCard:
    return DataCard(
        name=shape.name,
        label=shape.name,
        train_counts=[shape.per_class] * shape.classes,
        test_counts=labels(shape.classes, shape.tests).bincount().tolist(),
        classes=[str(number) for number in range(shape.classes)],
        channels=shape.channels,
        height=shape.size,
        width=shape.size,
        mean=[MEAN] * shape.channels,
        std=[STD] * shape.channels,
        mirrors=shape.mirrors,
        source="random",
        sha256="0" * 64,
        size_bytes=0,
    )


def normalisation(shape: Shape) -> Normalisation:
    return Normalisation((MEAN,) * shape.channels, (STD,) * shape.channels)


def real_set(shape: Shape, device: str) -> RealSet:
    return RealSet(pixels(shape).to(device), (shape.per_class,) * shape.classes, normalisation(shape))
