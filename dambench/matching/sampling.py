"""The sampling network ψ of NCFM: it makes frequencies of noise, and goes up the loss that the images go down."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dambench.matching.optimised import Learned
from dambench.training.problem import Problem

LAYERS = 3
SLOPE = 0.2
"""Slope of LeakyReLU below 0."""


class SamplingNetwork:
    """Layers of a linear map, BatchNorm in train mode and LeakyReLU, the last with tanh, as wide as frequencies are.

    Args:
        frequencies: (K, D), where they are put; a leaf, whose gradient is taken.
        repeated: how often each is there; of K / `repeated` rows of noise.
    """

    def __init__(self, problem: Problem, frequencies: Tensor, lr: float, momentum: float, repeated: int = 1):
        count, width = frequencies.shape
        like: dict[str, Any] = {"device": frequencies.device, "dtype": frequencies.dtype}
        self.frequencies = frequencies.requires_grad_()
        self.slope = torch.zeros_like(frequencies, requires_grad=False)
        """The loss's gradient by the frequencies, which others put here."""
        self.repeated, self.width = repeated, width
        self.noise = torch.zeros(-(-count // repeated), width, **like)
        """For whoever draws."""
        source, bound = problem.generator("sampling network"), width**-0.5
        parts = []
        for _ in range(LAYERS):
            uniform = torch.rand(width * width + width, generator=source, **like) * 2 * bound - bound
            parts += [uniform, torch.ones(width, **like), torch.zeros(width, **like)]
        self.weights = Learned(torch.cat(parts), lr, momentum)
        """The matrix of each layer, its bias, and BatchNorm's weight and bias, one after the other. Their gradient is
        that of the loss with the other sign."""

    def sample(self) -> Callable[[], None]:
        """Make frequencies of the noise.

        Returns:
            What takes the gradient of the weights, once that of the frequencies is there.
        """
        with torch.enable_grad():
            weights = self.weights.tensor.detach().requires_grad_()
            made = self.made(weights)
        self.frequencies.detach().copy_(made.detach())

        def back() -> None:
            (slope,) = torch.autograd.grad(made, weights, self.slope)
            self.weights.gradient.copy_(-slope)

        return back

    def made(self, weights: Tensor) -> Tensor:
        """The frequencies that weights make of the noise, (K, D)."""
        rows, width = self.noise, self.width
        for index, layer in enumerate(weights.split(width * width + 3 * width)):
            matrix, bias, scale, shift = layer.split([width * width, width, width, width])
            rows = F.linear(rows, matrix.view(width, width), bias)
            rows = F.batch_norm(rows, None, None, scale, shift, training=True)
            rows = rows.tanh() if index == LAYERS - 1 else F.leaky_relu(rows, SLOPE)
        return rows.repeat(self.repeated, 1)[: len(self.frequencies)]
