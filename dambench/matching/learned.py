"""The images that a method learns, and the SGD that moves them: v ← momentum · v + gradient, images −= lr · v."""

from typing import Literal

import torch
from torch import Tensor

from dambench.problem import Problem, State


class LearnedImages:
    """Synthetic images under SGD with momentum.

    They are never clamped to the range of real images, as in all released codes of this family.

    Args:
        init: start from random real images, or from N(0, 1).
        resume: what `state` gave, to go on from there.
    """

    def __init__(
        self, problem: Problem, init: Literal["real", "noise"], lr: float, momentum: float, resume: State | None
    ):
        pixels = problem.random_subset()
        if init == "real":
            images = problem.real.normalisation.apply(pixels)
        else:
            images = torch.randn(pixels.shape, generator=problem.generator("noise"), device=pixels.device)
        self.tensor: Tensor = images.requires_grad_()
        """(classes * ipc, C, H, W) float32, normalised."""
        self.gradient = torch.zeros_like(images, requires_grad=False)
        """The method's to fill."""
        self.velocity = torch.zeros_like(self.gradient)
        self.lr, self.momentum = lr, momentum
        self.iteration = 0
        """How many steps were taken."""
        if resume is not None:
            self.iteration = resume["iteration"]
            self.tensor.data.copy_(resume["images"])
            self.velocity.copy_(resume["velocity"])

    @torch.no_grad()
    def descend(self) -> None:
        """Go down the gradient. Always the same tensors are changed, so a graph of the GPU can do it."""
        self.velocity.mul_(self.momentum).add_(self.gradient)
        self.tensor.sub_(self.velocity, alpha=self.lr)

    def state(self) -> State:
        """Copies of all that `resume` needs."""
        return {
            "iteration": self.iteration,
            "images": self.tensor.detach().clone(),
            "velocity": self.velocity.clone(),
        }
