"""Differentiable (Siamese) augmentation.

Zhao and Bilen, "Dataset Condensation with Differentiable Siamese Augmentation", ICML 2021. One operation is
drawn from the strategy and applied alone. Two ways to draw:

* Siamese, while distilling: one operation with one set of parameters per class, the same for the class's real
  and synthetic images.
* independent, while training a network: one operation per batch, with parameters of its own for each image.

The released codes re-seed torch's global generator from the wall clock before each operation; here a draw is a
small table of uniform numbers from a generator that is passed in. All operations act on normalised images, so
what leaves the frame becomes the mean colour.

The warps that keep rows and columns apart (crop, flip, scale) are products with two small matrices: exact where
no interpolation is needed, and deterministic on every device. Rotation interpolates on a grid.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import pi

import torch
import torch.nn.functional as F
from torch import Tensor

BRIGHTNESS = 1.0
SATURATION = 2.0
CONTRAST = 0.5
CROP = 0.125
CUTOUT = 0.5
SCALE = 1.2
ROTATION = 15.0 / 180 * pi

MATRIX_ELEMENTS = 2**26
"""Of the matrices by which a deterministic rotation is made at once: 256 MiB."""

_UNIFORMS = 3
"""Random numbers that the hungriest operation (color) takes."""


@dataclass(frozen=True)
class Draw:
    """Which operation befalls each group of images, and with which parameters."""

    strategy: tuple[str, ...]
    choice: Tensor
    """(G,) int64 on the CPU: an index into the strategy."""
    uniforms: Tensor
    """(G, 3) float32 in [0, 1), on the CPU."""

    def of(self, groups: slice) -> "Draw":
        """The draw of some groups."""
        return Draw(self.strategy, self.choice[groups], self.uniforms[groups])


def strategy_for(operations: Sequence[str], mirrors: bool) -> tuple[str, ...]:
    """The operations that suit the data: no flip where a mirror image is another class."""
    return tuple(operation for operation in operations if mirrors or operation != "flip")


def draw(strategy: tuple[str, ...], groups: int, generator: torch.Generator, *, one_operation: bool = False) -> Draw:
    """Draw an operation and parameters for each group.

    Args:
        one_operation: the same operation for all groups, each with parameters of its own (the independent way).
        generator: on the CPU.
    """
    choice = torch.randint(len(strategy), (1 if one_operation else groups,), generator=generator)
    return Draw(strategy, choice.expand(groups), torch.rand(groups, _UNIFORMS, generator=generator))


def augment(images: Tensor, drawn: Draw) -> Tensor:
    """Apply each group's operation to all images of the group.

    Args:
        images: (G, n, C, H, W), normalised.

    Returns:
        The same shape; differentiable in `images`.
    """
    uniforms = drawn.uniforms.to(images.device, non_blocking=True)
    parts, order = [], []
    for index, operation in enumerate(drawn.strategy):
        groups = (drawn.choice == index).nonzero().squeeze(1)  # on the CPU: waits for no device
        if len(groups) == len(drawn.choice):
            return OPERATIONS[operation](images, uniforms)
        if len(groups):
            here = groups.to(images.device, non_blocking=True)
            parts.append(OPERATIONS[operation](images[here], uniforms[here]))
            order.append(groups)
    back = torch.cat(order).argsort().to(images.device, non_blocking=True)
    return torch.cat(parts)[back]


def color(images: Tensor, uniforms: Tensor) -> Tensor:
    """Brightness, then saturation, then contrast."""
    brightness, saturation, contrast = (u.view(-1, 1, 1, 1, 1) for u in uniforms.unbind(1))
    images = images + (brightness - 0.5) * BRIGHTNESS
    grey = images.mean(2, keepdim=True)
    images = (images - grey) * (saturation * SATURATION) + grey
    mean = images.mean((2, 3, 4), keepdim=True)
    return (images - mean) * (contrast + CONTRAST) + mean


def crop(images: Tensor, uniforms: Tensor) -> Tensor:
    """Shift by up to an eighth of the image in each direction, whole pixels."""
    height, width = images.shape[-2:]
    rows = _whole(uniforms[:, 0], -_share(height, CROP), _share(height, CROP))
    columns = _whole(uniforms[:, 1], -_share(width, CROP), _share(width, CROP))
    return _warp(images, _positions(height, rows) + rows, _positions(width, rows) + columns)


def cutout(images: Tensor, uniforms: Tensor) -> Tensor:
    """Blank a square of half the image's side; it may hang over the border."""
    masks = []
    for axis, size in enumerate(images.shape[-2:]):
        side = _share(size, CUTOUT)
        offset = _whole(uniforms[:, axis], 0, size - side % 2)
        position = torch.arange(size, device=images.device)
        first = offset - side // 2
        masks.append((position >= first) & (position < first + side))
    hole = masks[0].unsqueeze(2) & masks[1].unsqueeze(1)
    return images * ~hole[:, None, None]


def flip(images: Tensor, uniforms: Tensor) -> Tensor:
    """Mirror left and right, every second time."""
    return torch.where((uniforms[:, 0] < 0.5).view(-1, 1, 1, 1, 1), images.flip(-1), images)


def scale(images: Tensor, uniforms: Tensor) -> Tensor:
    """Stretch or shrink height and width, each by its own factor from U(1/1.2, 1.2)."""
    factors = uniforms * (SCALE - 1 / SCALE) + 1 / SCALE
    height, width = images.shape[-2:]
    return _warp(
        images,
        _about_centre(height, factors[:, 1:2]),
        _about_centre(width, factors[:, :1]),
    )


def rotate(images: Tensor, uniforms: Tensor) -> Tensor:
    """Turn by an angle from U(-15°, 15°) about the centre, bilinear."""
    groups, count, channels, height, width = images.shape
    angle = (uniforms[:, 0] - 0.5) * 2 * ROTATION
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    theta = torch.stack([torch.stack([cos, sin, zero], 1), torch.stack([-sin, cos, zero], 1)], 1)
    grid = F.affine_grid(theta, [groups, 1, height, width], align_corners=False)
    if images.is_cuda and torch.are_deterministic_algorithms_enabled():
        few = max(1, MATRIX_ELEMENTS // (height * width) ** 2)
        parts = zip(images.split(few), grid.split(few), strict=True)
        return torch.cat([_sample_by_matrix(part, here) for part, here in parts])
    # One grid per group: its images and channels are the channels of one image.
    flat = images.reshape(groups, count * channels, height, width)
    return F.grid_sample(flat, grid.to(images.dtype), align_corners=False).view_as(images)


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "color": color,
    "crop": crop,
    "cutout": cutout,
    "flip": flip,
    "scale": scale,
    "rotate": rotate,
}
"""By name: (G, n, C, H, W) images and (G, 3) uniforms → images."""


def _share(size: int, ratio: float) -> int:
    return int(size * ratio + 0.5)


def _whole(uniform: Tensor, low: int, high: int) -> Tensor:
    """(G,) uniform numbers → (G, 1) whole numbers in [low, high]."""
    return ((uniform * (high - low + 1)).floor() + low).clamp_max(high).unsqueeze(1)


def _positions(size: int, like: Tensor) -> Tensor:
    """0, 1, …, size - 1, on the device of `like`."""
    return torch.arange(size, dtype=torch.float32, device=like.device)


def _about_centre(size: int, factors: Tensor) -> Tensor:
    """Pixel centres moved away from the image's centre by a factor: what affine_grid does to one axis.

    Args:
        factors: (G, 1).

    Returns:
        (G, size) positions in pixels.
    """
    centre = (size - 1) / 2
    return (_positions(size, factors) - centre) * factors + centre


def _warp(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Read each output row from a row position of the input, each column from a column position.

    Linear interpolation between pixels; beyond the border all is zero.

    Args:
        rows: (G, H) positions in pixels, which may lie outside; columns: (G, W).
    """
    weights = []
    for positions in (rows, columns):
        distance = (positions.unsqueeze(2) - _positions(positions.shape[1], images)).abs()
        weights.append((1 - distance).clamp_min(0).to(images.dtype))  # (G, out, in)
    # As one product per group and axis: einsum would make a batch of tiny ones.
    groups, count, channels, height, width = images.shape
    across = images.reshape(groups, -1, width) @ weights[1].mT
    down = across.view(groups, count * channels, height, width)
    return (weights[0].unsqueeze(1) @ down).view_as(images)


def _sample_by_matrix(images: Tensor, grid: Tensor) -> Tensor:
    """What grid_sample computes, as a product with a (H*W, H*W) matrix per group.

    The backward of grid_sample has no deterministic form on CUDA; this has one. For small images only.
    """
    height, width = images.shape[-2:]
    column = ((grid[..., 0] + 1) * width - 1) / 2
    row = ((grid[..., 1] + 1) * height - 1) / 2
    by_row = (1 - (row.flatten(1).unsqueeze(2) - _positions(height, images)).abs()).clamp_min(0)
    by_column = (1 - (column.flatten(1).unsqueeze(2) - _positions(width, images)).abs()).clamp_min(0)
    matrix = (by_row.unsqueeze(3) * by_column.unsqueeze(2)).flatten(2).to(images.dtype)
    return (images.flatten(3).flatten(1, 2) @ matrix.mT).view_as(images)
