"""Nearest real neighbours of synthetic images, and whether the images that they started from are still recognisable.

Two spaces: pixels, by the root of the mean squared difference of values from 0 to 1; and features, by 1 − cosine, of an
untrained network. (One that was trained has seen some of the real images and not others, which would make members look
alike, or held-out images, whatever the set kept of them.)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dambench.training.problem import Network, Preprocessing, RealSet, SyntheticSet

Space = Callable[[Tensor], Tensor]
"""Images as bytes, (n, C, H, W), or as a network sees them → (n, numbers) float32 whose Euclidean distance counts."""


@dataclass(frozen=True)
class Spaces:
    """Both spaces in which images are compared, for one set."""

    preprocessing: Preprocessing
    network: Network
    """Untrained, in evaluation mode."""

    def pixels(self, images: Tensor) -> Tensor:
        """The square of the distance of two rows is the mean squared difference of pixels from 0 to 1."""
        shown = images if images.dtype == torch.uint8 else self.preprocessing.invert(images)
        rows = shown.flatten(1).float() / 255
        return rows / math.sqrt(rows.shape[1])

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """The square of the distance of two rows, which have a length of √½, is 1 − cosine."""
        seen = self.preprocessing.apply(images) if images.dtype == torch.uint8 else images
        return F.normalize(self.network.embed(seen)) / 2**0.5


def distances(space: Space, synthetic: Tensor, real: Tensor, batch: int, *, squared: bool) -> Tensor:
    """The distance of each synthetic image from each real one: (M, N) float32.

    Args:
        squared: whether the square is meant: 1 − cosine.
    """
    mine = torch.cat([space(some) for some in synthetic.split(batch)])
    parts = [torch.cdist(mine, space(some)) for some in real.split(batch)]
    whole = torch.cat(parts, 1)
    return whole.square() if squared else whole


def nearest(space: Space, synthetic: Tensor, real: Tensor, batch: int, *, squared: bool) -> tuple[Tensor, Tensor]:
    """The distance and the place of the real image nearest to each synthetic one, both (M,); a part at a time."""
    best: tuple[Tensor, Tensor] | None = None
    for first in range(0, len(real), 8 * batch):
        found = distances(space, synthetic, real[first : first + 8 * batch], batch, squared=squared).min(1)
        place = found.indices + first
        if best is None:
            best = found.values, place
        else:
            nearer = found.values < best[0]
            best = torch.where(nearer, found.values, best[0]), torch.where(nearer, place, best[1])
    assert best is not None
    return best


def copies(synthetic: SyntheticSet, real: RealSet, batch: int, spaces: Spaces) -> Tensor:
    """The places of the real images that synthetic ones are to the bit: (M,) int64, −1 where there is none."""
    if synthetic.images.dtype != torch.uint8:
        return torch.full((len(synthetic.images),), -1, device=synthetic.images.device)
    _, places = nearest(spaces.pixels, synthetic.images, real.images, batch, squared=False)
    same = (synthetic.images == real.images[places]).flatten(1).all(1)
    return torch.where(same, places, -1)


@dataclass(frozen=True)
class Recognised:
    """Which synthetic images still show the one that they started from."""

    which: Tensor
    """(M,) bool."""
    false: float
    """The share of held-out images that would be taken for it, measured on other ones than set the threshold."""
    threshold: float
    """The largest distance at which an image is recognised, as a share of the usual one: see `recognised`."""


def recognised(to_start: Tensor, to_others: Sequence[Tensor], rate: float) -> Recognised | None:
    """Decide which synthetic images still show the real image that they started from.

    An image's usual distance is the median of those from held-out images of its class, for a synthetic image is nearer
    to all of them the smoother it is. The threshold is a share of it: that which `rate` of the held-out images with an
    even place fall below. How many of those with an odd place do is measured.

    Args:
        to_start: (M,), of each synthetic image from the real one that it started from.
        to_others: M tensors, of each synthetic image from held-out images of its class.

    Returns:
        None: there are too few held-out images, four of a class at the least.
    """
    if not to_others or min(len(some) for some in to_others) < 4:
        return None
    usual = torch.stack([some[::2].median() for some in to_others]).clamp_min(1e-12)
    setting = torch.cat([some[::2] / scale for some, scale in zip(to_others, usual, strict=True)])
    testing = torch.cat([some[1::2] / scale for some, scale in zip(to_others, usual, strict=True)])
    allowed = int(rate * len(setting))
    threshold = setting.sort().values[allowed]
    return Recognised(to_start / usual < threshold, float((testing < threshold).float().mean()), float(threshold))
