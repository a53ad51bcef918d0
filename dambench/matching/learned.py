"""The images that a method learns, and the SGD that moves them."""

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
        self.optimizer = torch.optim.SGD([self.tensor], lr=lr, momentum=momentum)
        self.iteration = 0
        """How many steps were taken."""
        if resume is not None:
            self.iteration = resume["iteration"]
            self.tensor.data.copy_(resume["images"])
            if resume["momentum"] is not None:
                self.optimizer.state[self.tensor]["momentum_buffer"] = resume["momentum"].to(self.tensor.device)

    def step(self) -> None:
        """Go down the gradient that has gathered."""
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.iteration += 1

    def state(self) -> State:
        """Copies of all that `resume` needs."""
        momentum = self.optimizer.state[self.tensor].get("momentum_buffer")  # none where momentum is 0
        momentum = None if momentum is None else momentum.clone()
        return {"iteration": self.iteration, "images": self.tensor.detach().clone(), "momentum": momentum}
