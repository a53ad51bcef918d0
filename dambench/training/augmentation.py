"""Differentiable (Siamese) augmentation.

Zhao and Bilen, "Dataset Condensation with Differentiable Siamese Augmentation", ICML 2021. One operation is
drawn from the strategy and applied alone. Two ways to draw:

* Siamese, while distilling: one operation with one set of parameters per class, the same for the class's real
  and synthetic images.
* independent, while training a network: one operation per batch, with parameters of its own for each image.

The released codes re-seed torch's global generator from the wall clock before each operation; here a draw is a
small table of uniform numbers from a generator that is passed in. All operations act on normalised images, so
what leaves the frame becomes the mean colour.

DC's own augmentation, with which its networks are tested on MNIST and with BatchNorm, is here too: `dc-crop`,
`dc-scale` and `dc-rotate`, one of which is drawn for each image. What its crop and rotation bring in from beyond the
frame has the mean colour of the batch. (The released code interpolates by splines when it turns and not at all when it
scales; here both are bilinear. Its noise, of σ 0.001, is left out.)

Two forms of the same. On a CPU each operation is code of its own (`OPERATIONS`), and the images of a group go through
the one that was drawn: warps that keep rows and columns apart (crop, flip, scale) are products with two small
matrices, exact where no interpolation is needed, and rotation interpolates on a grid. On a GPU all images go through
one sequence (`augment_by`: recolour, warp, blank) with numbers from a table (`parameters`) that change nothing where
the operation was not drawn: nothing on the host depends on what was drawn, so a CUDA graph can hold it.
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

DC_CROP = 4
"""Pixels, whatever the image's size."""
DC_SCALE = 0.2
DC_ROTATION = 45.0 / 180 * pi

FILLED = ("dc-crop", "dc-rotate")
"""Operations that bring in the mean colour of the batch."""

MATRIX_ELEMENTS = 2**25
"""Elements of the matrices with which deterministic warps are computed at once: 256 MiB."""

_UNIFORMS = 3
"""Random numbers that the hungriest operation (color) takes."""


@dataclass(frozen=True)
class Draw:
    """The operation on each group of images, and its parameters."""

    strategy: tuple[str, ...]
    choice: Tensor
    """(G,) int64 on the CPU: an index into the strategy."""
    uniforms: Tensor
    """(G, 3) float32 in [0, 1), on the CPU."""
    then: "Draw | None" = None
    """What is done after it, to the same groups; None: nothing."""

    def of(self, groups: slice) -> "Draw":
        """The draw of some groups."""
        return Draw(
            self.strategy,
            self.choice[groups],
            self.uniforms[groups],
            None if self.then is None else self.then.of(groups),
        )


def joined(draws: Sequence[Draw]) -> Draw:
    """The draws of several batches, from the same strategies, as one of all their groups."""
    later = [one.then for one in draws if one.then is not None]
    return Draw(
        draws[0].strategy,
        torch.cat([one.choice for one in draws]),
        torch.cat([one.uniforms for one in draws]),
        joined(later) if later else None,
    )


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


def passes(strategy: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The operations of a strategy as IDC and those after it apply them, one pass after the other: flip and color if
    they are there, then one of crop, scale and rotate, then cutout.
    """
    warps = tuple(operation for operation in strategy if operation not in ("flip", "color", "cutout"))
    alone = {operation: (operation,) for operation in strategy}
    ordered = [alone.get("flip", ()), alone.get("color", ()), warps, alone.get("cutout", ())]
    return tuple(one for one in ordered if one)


def draw_passes(
    strategies: Sequence[tuple[str, ...]], groups: int, generator: torch.Generator, *, one_operation: bool = False
) -> Draw:
    """`draw` from each of these strategies, to be applied one after the other."""
    draws = [draw(strategy, groups, generator, one_operation=one_operation) for strategy in strategies]
    chain = draws[-1]
    for one in reversed(draws[:-1]):
        chain = Draw(one.strategy, one.choice, one.uniforms, chain)
    return chain


def augment(images: Tensor, drawn: Draw, colour: Tensor | None = None) -> Tensor:
    """Apply each group's operation to all images of the group, and then what comes after it.

    Args:
        images: (G, n, C, H, W), normalised.
        colour: (G, 1, C, 1, 1), which the operations of `FILLED` bring in from beyond the frame; None: 0.

    Returns:
        The same shape; differentiable in `images`.
    """
    if images.device.type != "cpu":
        table = parameters(drawn, images.shape[-2], images.shape[-1])
        return augment_by(images, table.to(images.device, non_blocking=True), colour)
    if drawn.then is not None:
        return augment(augment(images, Draw(drawn.strategy, drawn.choice, drawn.uniforms), colour), drawn.then, colour)
    if colour is not None:
        filled = torch.tensor([operation in FILLED for operation in drawn.strategy])[drawn.choice]
        colour = colour * filled.view(-1, 1, 1, 1, 1)
        return augment(images - colour, drawn) + colour
    parts, order = [], []
    for index, operation in enumerate(drawn.strategy):
        groups = (drawn.choice == index).nonzero().squeeze(1)
        if len(groups) == len(drawn.choice):
            return OPERATIONS[operation](images, drawn.uniforms)
        if len(groups):
            parts.append(OPERATIONS[operation](images[groups], drawn.uniforms[groups]))
            order.append(groups)
    return torch.cat(parts)[torch.cat(order).argsort()]


NEUTRAL = (0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
"""A row of the table that changes nothing."""


def parameters(drawn: Draw, height: int, width: int) -> Tensor:
    """A draw as a table of numbers by which `augment_by` changes images of that size.

    Returns:
        (G, 13) float32 on the CPU, or (G, 14) where the strategy has operations of `FILLED`; (G, passes, 13) of a draw
        with what comes after it. What is added to
        brightness; the factors of saturation and of contrast; a 2×3 map from where a pixel is to where it is read,
        ((across, down, 1) → across, … → down), in pixels from the image's centre; the first row and the row after the
        last, the first column and the column after the last of the hole; how much of the batch's colour comes in from
        beyond the frame.
    """
    if drawn.then is not None:
        later = parameters(drawn.then, height, width)
        first_pass = parameters(Draw(drawn.strategy, drawn.choice, drawn.uniforms), height, width).unsqueeze(1)
        return torch.cat([first_pass, later if later.dim() == 3 else later.unsqueeze(1)], 1)
    table = list(torch.tensor(NEUTRAL).expand(len(drawn.choice), -1).unbind(1))
    first, second, _ = uniforms = drawn.uniforms.unbind(1)
    for index, operation in enumerate(drawn.strategy):
        groups = drawn.choice == index
        if not groups.any():
            continue
        match operation:
            case "color":
                columns = dict(enumerate(_colours(*uniforms)))
            case "crop":
                columns = {5: _shift(width, second), 8: _shift(height, first)}
            case "dc-crop":
                columns = {5: _dc_shift(second), 8: _dc_shift(first)}
            case "cutout":
                top, left = _hole(height, first), _hole(width, second)
                columns = {9: top, 10: top + _share(height, CUTOUT), 11: left, 12: left + _share(width, CUTOUT)}
            case "flip":
                columns = {3: torch.where(_mirrored(first), -1.0, 1.0)}
            case "scale":
                columns = {3: _factor(first), 7: _factor(second)}
            case "dc-scale":
                columns = {3: _dc_factor(first), 7: _dc_factor(second)}
            case "rotate" | "dc-rotate":
                cos, sin = _turn(first, ROTATION if operation == "rotate" else DC_ROTATION)
                # It turns the unit square, as affine_grid does: an oblong image is sheared a little.
                columns = {3: cos, 4: sin * (width / height), 6: -sin * (height / width), 7: cos}
        for column, values in columns.items():
            table[column] = torch.where(groups, values, table[column])
    if any(operation in FILLED for operation in drawn.strategy):
        table.append(torch.tensor([operation in FILLED for operation in drawn.strategy])[drawn.choice].float())
    return torch.stack(table, 1)


def augment_by(images: Tensor, table: Tensor, colour: Tensor | None = None) -> Tensor:
    """Change the images of each group as its row of the table says: the same work whatever was drawn.

    Args:
        images: (G, n, C, H, W), normalised.
        table: (G, 13 or 14) or (G, passes, 13) float32, on the images' device; see `parameters`.
        colour: as for `augment`.

    Returns:
        The same shape; differentiable in `images`.
    """
    if table.dim() == 3:
        for one in table.unbind(1):
            images = augment_by(images, one, colour)
        return images
    height, width = images.shape[-2:]
    numbers = table.unsqueeze(2).unbind(1)
    recoloured = _recolour(images, *(column.view(-1, 1, 1, 1, 1) for column in numbers[:3]))
    if len(numbers) == len(NEUTRAL):
        colour = None
    if colour is not None:
        colour = (colour * numbers[13].view(-1, 1, 1, 1, 1)).to(images.dtype)
        recoloured = recoloured - colour
    centre = (width - 1) / 2, (height - 1) / 2
    across, down = _positions(width, table) - centre[0], _positions(height, table).unsqueeze(1) - centre[1]
    # By elementwise operations: affine_grid's is a matrix product, which a GPU may round to TF32. And within a frame
    # whose sides are powers of two, by which whole positions are divided exactly: what is not moved stays as it is.
    frame = _power_of_two(width), _power_of_two(height)
    grid = [
        ((a.unsqueeze(2) * across + b.unsqueeze(2) * down + c.unsqueeze(2) + middle) * 2 + 1) / side - 1
        for (a, b, c), middle, side in zip((numbers[3:6], numbers[6:9]), centre, frame, strict=True)
    ]
    framed = F.pad(recoloured, (0, frame[0] - width, 0, frame[1] - height))
    sampled = _sample(framed, torch.stack(grid, 3))
    if colour is not None:
        sampled = sampled + colour
    return _blank(sampled, (numbers[9], numbers[11]), (numbers[10], numbers[12]))


def color(images: Tensor, uniforms: Tensor) -> Tensor:
    """Brightness, then saturation, then contrast."""
    return _recolour(images, *_colours(*(u.view(-1, 1, 1, 1, 1) for u in uniforms.unbind(1))))


def crop(images: Tensor, uniforms: Tensor) -> Tensor:
    """Shift by up to an eighth of the image in each direction, whole pixels."""
    height, width = images.shape[-2:]
    return _move(images, _shift(height, uniforms[:, :1]), _shift(width, uniforms[:, 1:2]))


def dc_crop(images: Tensor, uniforms: Tensor) -> Tensor:
    """Shift by up to 4 pixels towards the end of each axis, and by up to 3 towards its beginning."""
    return _move(images, _dc_shift(uniforms[:, :1]), _dc_shift(uniforms[:, 1:2]))


def cutout(images: Tensor, uniforms: Tensor) -> Tensor:
    """Blank a square of half the image's side; it may hang over the border."""
    height, width = images.shape[-2:]
    top, left = _hole(height, uniforms[:, :1]), _hole(width, uniforms[:, 1:2])
    return _blank(images, (top, left), (top + _share(height, CUTOUT), left + _share(width, CUTOUT)))


def flip(images: Tensor, uniforms: Tensor) -> Tensor:
    """Mirror left and right, every second time."""
    return torch.where(_mirrored(uniforms[:, 0]).view(-1, 1, 1, 1, 1), images.flip(-1), images)


def scale(images: Tensor, uniforms: Tensor) -> Tensor:
    """Stretch or shrink height and width, each by its own factor from U(1/1.2, 1.2)."""
    return _stretch(images, _factor(uniforms))


def dc_scale(images: Tensor, uniforms: Tensor) -> Tensor:
    """Make width and height larger or smaller, each by its own factor from U(0.8, 1.2)."""
    return _stretch(images, _dc_factor(uniforms))


def rotate(images: Tensor, uniforms: Tensor) -> Tensor:
    """Turn by an angle from U(-15°, 15°) about the centre, bilinear."""
    return _rotate(images, *_turn(uniforms[:, 0], ROTATION))


def dc_rotate(images: Tensor, uniforms: Tensor) -> Tensor:
    """Turn by an angle from U(-45°, 45°) about the centre, bilinear."""
    return _rotate(images, *_turn(uniforms[:, 0], DC_ROTATION))


def _move(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    return _warp(images, _positions(height, rows) + rows, _positions(width, rows) + columns)


def _stretch(images: Tensor, factors: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    return _warp(images, _about_centre(height, factors[:, 1:2]), _about_centre(width, factors[:, :1]))


def _rotate(images: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    zero = torch.zeros_like(cos)
    theta = torch.stack([torch.stack([cos, sin, zero], 1), torch.stack([-sin, cos, zero], 1)], 1)
    return _sample(images, F.affine_grid(theta, [len(images), 1, *images.shape[-2:]], align_corners=False))


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "color": color,
    "crop": crop,
    "cutout": cutout,
    "flip": flip,
    "scale": scale,
    "rotate": rotate,
    "dc-crop": dc_crop,
    "dc-scale": dc_scale,
    "dc-rotate": dc_rotate,
}
"""By name: (G, n, C, H, W) images and (G, 3) uniforms → images."""


# What is drawn, from uniform numbers of any shape.


def _colours(brightness: Tensor, saturation: Tensor, contrast: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return (brightness - 0.5) * BRIGHTNESS, saturation * SATURATION, contrast + CONTRAST


def _shift(size: int, uniform: Tensor) -> Tensor:
    return _whole(uniform, -_share(size, CROP), _share(size, CROP))


def _dc_shift(uniform: Tensor) -> Tensor:
    # The released code draws one of 2 · 4 places, so that the last one is never taken.
    return _whole(uniform, -DC_CROP, DC_CROP - 1)


def _dc_factor(uniform: Tensor) -> Tensor:
    """The factor by which positions move away from the centre: the inverse of the size's."""
    return 1 / (1 + (uniform * 2 - 1) * DC_SCALE)


def _hole(size: int, uniform: Tensor) -> Tensor:
    """Its first row or column."""
    side = _share(size, CUTOUT)
    return _whole(uniform, 0, size - side % 2) - side // 2


def _mirrored(uniform: Tensor) -> Tensor:
    return uniform < 0.5


def _factor(uniform: Tensor) -> Tensor:
    return uniform * (SCALE - 1 / SCALE) + 1 / SCALE


def _turn(uniform: Tensor, most: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine."""
    angle = (uniform - 0.5) * 2 * most
    return angle.cos(), angle.sin()


def _share(size: int, ratio: float) -> int:
    return int(size * ratio + 0.5)


def _power_of_two(size: int) -> int:
    """The smallest that is not less."""
    return 1 << (size - 1).bit_length()


def _whole(uniform: Tensor, low: int, high: int) -> Tensor:
    """Uniform numbers → whole numbers in [low, high]."""
    return ((uniform * (high - low + 1)).floor() + low).clamp_max(high)


# What is done with it.


def _recolour(images: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    images = images + brightness
    grey = images.mean(2, keepdim=True)
    images = (images - grey) * saturation + grey
    mean = images.mean((2, 3, 4), keepdim=True)
    return (images - mean) * contrast + mean


def _blank(images: Tensor, first: tuple[Tensor, Tensor], end: tuple[Tensor, Tensor]) -> Tensor:
    """Zero between the first row and column and the end ones, each (G, 1)."""
    positions = [_positions(size, images) for size in images.shape[-2:]]
    rows, columns = ((p >= a) & (p < b) for p, a, b in zip(positions, first, end, strict=True))
    hole = rows.unsqueeze(2) & columns.unsqueeze(1)
    return images * ~hole[:, None, None]


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


def _sample(images: Tensor, grid: Tensor) -> Tensor:
    """Read the images of each group where its grid says, bilinear; beyond the border all is zero.

    Args:
        grid: (G, height, width, 2), as grid_sample wants it.

    Returns:
        (G, n, C, height, width).
    """
    # The backward of grid_sample has no deterministic form on CUDA.
    if images.is_cuda and images.requires_grad and torch.are_deterministic_algorithms_enabled():
        few = max(1, MATRIX_ELEMENTS // (grid[0].numel() * images[0, 0, 0].numel()))
        parts = zip(images.split(few), grid.split(few), strict=True)
        return torch.cat([_sample_by_matrix(part, here) for part, here in parts])
    # One grid per group: its images and channels are the channels of one image.
    sampled = F.grid_sample(images.flatten(1, 2), grid.to(images.dtype), align_corners=False)
    return sampled.view(*images.shape[:3], *grid.shape[1:3])


def _sample_by_matrix(images: Tensor, grid: Tensor) -> Tensor:
    """Compute grid_sample as a product with a (height * width, H * W) matrix per group. For small images only.

    In float64: a GPU may round the factors of a float32 product to TF32, forward and, later, backward.
    """
    height, width = images.shape[-2:]
    column = ((grid[..., 0].double() + 1) * width - 1) / 2
    row = ((grid[..., 1].double() + 1) * height - 1) / 2
    by_row = (1 - (row.flatten(1).unsqueeze(2) - _positions(height, images)).abs()).clamp_min(0)
    by_column = (1 - (column.flatten(1).unsqueeze(2) - _positions(width, images)).abs()).clamp_min(0)
    matrix = (by_row.unsqueeze(3) * by_column.unsqueeze(2)).flatten(2)
    sampled = images.double().flatten(3).flatten(1, 2) @ matrix.mT
    return sampled.view(*images.shape[:3], *grid.shape[1:3]).to(images.dtype)
