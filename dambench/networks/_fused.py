"""The first stage of a chain on a CPU, a few images at a time while their maps are in the cache; and 2×2 means.

Norm, activation and pooling wait for memory, and torch's convolutions are slow where the images have few channels,
above all backward: at width 128 the first stage was a quarter of a training step, of a fiftieth of its operations. Here
it is one product per image in either direction. With u the patches of an image minus their mean, w a kernel and n the
number of pixels,

    norm(w · u) = γ / σ · w · u + β,   σ² = |w · u|² / n + ε

and all sums over pixels that the gradients need follow from the products of what flows back to the maps with u and
with ones. (Instance norm takes the convolution's bias away: its gradient is 0.)
"""

from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dambench.training.problem import Stage

CACHED_BYTES = 2**21
"""Bytes of the maps of the images that are worked on at once, by each thread. (Measured at widths 32 and 128, one
thread: half of it and twice as much take the same time, twenty times as much twice as long.)"""

MOST_SEEN = 16
"""Most numbers that a pixel of the first convolution sees: those of grey images and 3×3 kernels. (Measured for 27, of
colour images: products and convolution take the same time at width 128, and products longer at 32.)"""


def average(maps: Tensor) -> Tensor:
    """The mean of each 2×2 pixels of maps (…, H, W), both even. Gradients of any order."""
    if not (torch.is_grad_enabled() and maps.requires_grad):
        return _average(maps)
    averaged: Tensor = _Average.apply(maps)
    return averaged


class _Average(torch.autograd.Function):
    # Not in the form that torch.vmap knows: calling it takes a tenth of a millisecond, as long as a small network's
    # pooling.

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        return _average(maps)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        spread: Tensor = _Spread.apply(slope)
        return spread


class _Spread(torch.autograd.Function):
    """A quarter of each pixel of maps (…, H, W) at each of 2×2, (…, 2 H, 2 W): what flows back through `average`."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        quarter = maps * 0.25
        # As complex numbers: the form in which torch puts two numbers beside each other at the memory's speed.
        rows = torch.view_as_real(torch.complex(quarter, quarter)).flatten(-2)
        both: Tensor = torch.cat([rows, rows], -1).unflatten(-1, (2, -1))
        return both.flatten(-3, -2)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        averaged: Tensor = _Average.apply(slope)
        return averaged


def _average(maps: Tensor) -> Tensor:
    rows = maps[..., ::2, :] + maps[..., 1::2, :]
    return (rows[..., ::2] + rows[..., 1::2]).mul_(0.25)


def suits(stage: Stage, images: Tensor) -> bool:
    """Whether `first_stage` can take the place of a stage that ends in the mean of 2×2 pixels, and pays."""
    convolution, norm = stage.convolution, stage.norm
    return (
        images.device.type == "cpu"
        and images.dtype in (torch.float32, torch.float64)
        and not (torch.is_grad_enabled() and images.requires_grad)
        and not torch.compiler.is_compiling()
        and isinstance(norm, nn.GroupNorm)
        and norm.num_groups == norm.num_channels
        and isinstance(stage.activation, nn.ReLU)
        and convolution.weight.dtype == images.dtype
        and convolution.weight[0].numel() <= MOST_SEEN
        and convolution.stride == (1, 1)
        and not any(side % 2 for side in _size(stage, images))
    )


def first_stage(stage: Stage, images: Tensor) -> Tensor:
    """Compute the pooled maps of a stage for which `suits` is true. Gradients of weights alone, and once."""
    convolution, norm = stage.convolution, stage.norm
    size = _size(stage, images)
    parameters = convolution.weight.flatten(1), convolution.bias, norm.weight, norm.bias
    flat: Tensor = _FirstStage.apply(_patches(stage, images), *parameters, norm.eps)
    pooled: Tensor = flat.unflatten(2, (size[0] // 2, size[1] // 2))
    return pooled


def _size(stage: Stage, images: Tensor) -> tuple[int, int]:
    """Height and width of the maps."""
    (kh, kw), (ph, pw) = stage.convolution.kernel_size, _padding(stage)
    return images.shape[-2] + 2 * ph - kh + 1, images.shape[-1] + 2 * pw - kw + 1


def _padding(stage: Stage) -> tuple[int, int]:
    return cast(tuple[int, int], stage.convolution.padding)


def _patches(stage: Stage, images: Tensor) -> Tensor:
    """What each pixel of the convolution sees, those of a window of 2×2 pixels far from each other.

    Returns:
        (B, channels · kh · kw, H · W), the last sorted by (row in the window, column in the window, window).
    """
    height, width = _size(stage, images)
    seen = F.unfold(images, stage.convolution.kernel_size, padding=_padding(stage))
    windows: Tensor = seen.unflatten(2, (height // 2, 2, width // 2, 2)).permute(0, 1, 3, 5, 2, 4)
    return windows.flatten(2)


def _parts(images: int, map_elements: int) -> Iterator[slice]:
    """The images that are worked on at once."""
    each = max(1, CACHED_BYTES // (4 * map_elements)) * torch.get_num_threads()
    return (slice(first, first + each) for first in range(0, images, each))


class _FirstStage(torch.autograd.Function):
    """Convolution, instance norm and ReLU of patches (B, K, H · W), then the mean of 2×2 pixels.

    Args of `apply`: patches; the kernels (C, K), the convolution's bias, the norm's weight and bias, (C,) each; its ε.

    Returns:
        (B, C, H · W / 4).
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)  # type: ignore[untyped-decorator]
    def forward(
        ctx: Any, patches: Tensor, kernels: Tensor, taken_away: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> Tensor:
        (count, _, pixels), channels = patches.shape, len(kernels)
        centred = patches - patches.mean(2, keepdim=True)
        pooled, sigma = patches.new_empty(count, channels, pixels // 4), patches.new_empty(count, channels)
        everywhere, offset = kernels.expand(count, -1, -1), (bias * 0.25).unsqueeze(1)
        for some in _parts(count, channels * pixels):
            maps = torch.bmm(everywhere[some], centred[some])
            sigma[some] = (torch.linalg.vector_norm(maps, dim=2).square_() / pixels).add_(eps).sqrt_()
            maps.mul_((weight * 0.25 / sigma[some]).unsqueeze(2)).add_(offset).relu_()
            first, second, third, fourth = maps.unflatten(2, (4, -1)).unbind(2)
            torch.add(first, second, out=pooled[some]).add_(third).add_(fourth)
        ctx.save_for_backward(centred, kernels, weight, bias, sigma)
        return pooled

    @staticmethod
    @once_differentiable
    @torch.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        centred, kernels, weight, bias, sigma = ctx.saved_tensors
        (count, _, pixels), channels = centred.shape, len(kernels)
        beside_ones = torch.cat([centred, torch.ones_like(centred[:, :1])], 1)
        factor = weight / sigma
        affine = torch.cat([kernels * factor.unsqueeze(2), bias.view(1, -1, 1).expand(count, -1, 1)], 2)
        slope = (slope * 0.25).unsqueeze(2).expand(-1, -1, 4, -1)
        sums = affine.new_empty(affine.mT.shape)
        for some in _parts(count, channels * pixels):
            maps = torch.bmm(affine[some], beside_ones[some]).unflatten(2, (4, -1))
            back = torch.ops.aten.threshold_backward(slope[some], maps, 0).flatten(2)
            torch.bmm(beside_ones[some], back.mT, out=sums[some])
        of_kernels, of_bias = sums[:, :-1].mT, sums[:, -1]
        of_weight = (of_kernels * kernels).sum(2) / sigma
        # What a norm takes away: what is along its own output. (The mean of u is 0.)
        along = factor * of_weight / (pixels * sigma)
        squares = torch.bmm(centred, centred.mT)
        taken = (along.mT @ squares.flatten(1)).unflatten(1, squares.shape[1:]) @ kernels.unsqueeze(2)
        of_kernels = (factor.unsqueeze(2) * of_kernels).sum(0) - taken.squeeze(2)
        return None, of_kernels, torch.zeros_like(bias), of_weight.sum(0), of_bias.sum(0), None
