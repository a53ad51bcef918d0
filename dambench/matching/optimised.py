"""What a method learns, first of all the images, and the SGD that moves it: v ← momentum · v + gradient, x −= lr · v.

A step whose loss or gradient is not finite is left out, by tensors alone: the host waits for nothing. How many were is
among the losses, as `skipped`, and many in a row end the run.
"""

from typing import Literal

import torch
from torch import Tensor

from dambench.core.events import SKIPPED
from dambench.training.problem import Problem, State, compose

# What plug-ins may import: see docs/plugins.md.
__all__ = ["Learned", "LearnedImages"]

Start = Literal["real", "noise", "mix"]
"""Random real images, N(0, 1), or mosaics composed of real images."""

MOST_SKIPPED = 10
"""Steps in a row that are left out before the losses say so, which ends the run."""


class Learned:
    """A tensor under SGD with momentum.

    Args:
        tensor: where it starts from; its own.
    """

    def __init__(self, tensor: Tensor, lr: float, momentum: float):
        self.tensor: Tensor = tensor.requires_grad_()
        self.gradient = torch.zeros_like(tensor, requires_grad=False)
        """The method's to fill."""
        self.velocity = torch.zeros_like(self.gradient)
        self.lr, self.momentum = lr, momentum

    @torch.no_grad()
    def move(self, allowed: Tensor) -> None:
        """Go down the gradient where that is `allowed`, a scalar bool. Always the same tensors are changed."""
        velocity = (self.velocity * self.momentum).add_(self.gradient)
        self.velocity.copy_(torch.where(allowed, velocity, self.velocity))
        self.tensor.copy_(torch.where(allowed, self.tensor.sub(self.velocity, alpha=self.lr), self.tensor))


class LearnedImages(Learned):
    """Synthetic images under SGD with momentum, and whatever is learned beside them.

    They are never clamped to the range of real images, as in all released codes of this family.

    Args:
        init: start from random real images, from N(0, 1), from mosaics of real images, or from these (classes * ipc, C,
            H, W), normalised.
        resume: what `state` gave, to go on from there.
        factor: of the mosaics that the images are; 1: they are none.
    """

    def __init__(
        self,
        problem: Problem,
        init: Start | Tensor,
        lr: float,
        momentum: float,
        resume: State | None,
        factor: int = 1,
    ):
        if isinstance(init, Tensor):
            images = init
        else:
            pixels = problem.random_subset()
            if init == "mix":
                count = problem.ipc * factor**2
                indices = problem.real.draw(count, problem.generator("subset")).flatten().to(pixels.device)
                images = compose(problem.real.preprocessing.apply(problem.real.images[indices]), factor)
            elif init == "real":
                images = problem.real.preprocessing.apply(pixels)
            else:
                images = torch.randn(pixels.shape, generator=problem.generator("noise"), device=pixels.device)
        super().__init__(images, lr, momentum)
        self.factor = factor
        self.beside: dict[str, Learned] = {}
        """What else is learned, by name: a step moves all of it, or nothing."""
        self.iteration = 0
        """Iterations of the method so far."""
        self.skipped, self._in_a_row = (torch.zeros((), dtype=torch.int64, device=images.device) for _ in range(2))
        self._last: Tensor | None = None
        """The losses of the last step that was taken."""
        if resume is not None:
            self.iteration = resume["iteration"]
            self.tensor.data.copy_(resume["images"])
            self.velocity.copy_(resume["velocity"])
            self.skipped.copy_(resume["skipped"])
            self._in_a_row.copy_(resume["in_a_row"])
            self._last = resume["losses"].to(images.device)

    def shown(self) -> Tensor:
        """The images where their gradient is to be taken, a leaf (N, C, H, W)."""
        return self.tensor

    def learn(self, name: str, learned: Learned, resume: State | None) -> None:
        """Learn this beside the images; where there is a state to go on from, from what that says of it."""
        self.beside[name] = learned
        if resume is not None:
            learned.tensor.data.copy_(resume[name])
            learned.velocity.copy_(resume[f"velocity of {name}"])

    @torch.no_grad()
    def descend(self, losses: dict[str, Tensor], within: Tensor | None = None) -> dict[str, Tensor]:
        """Go down the gradient. Always the same tensors are changed, so a graph of the GPU can do it.

        Args:
            within: whether the step is to be taken, a scalar bool; one that is not is no sign of anything wrong.

        Returns:
            The losses to be logged, and `skipped`. Of a step that was left out they are those of the last that was
            taken, until it is the tenth in a row: then none is finite.
        """
        values = torch.stack(list(losses.values()))
        if self._last is None:
            self._last = torch.full_like(values, torch.nan)
        everything: list[Learned] = [self, *self.beside.values()]
        finite = torch.stack([values.isfinite().all(), *(one.gradient.isfinite().all() for one in everything)]).all()
        for one in everything:
            one.move(finite if within is None else finite & within)
        self.skipped.add_(~finite)
        self._in_a_row.add_(1).mul_(~finite)
        self._last.copy_(torch.where(finite, values, self._last))
        lost = values.masked_fill(values.isfinite(), torch.nan)
        logged = torch.where(self._in_a_row < MOST_SKIPPED, self._last, lost)
        return dict(zip(losses, logged, strict=True)) | {SKIPPED: self.skipped.clone()}

    def state(self) -> State:
        """Copies of all that `resume` needs."""
        return {
            "iteration": self.iteration,
            "images": self.tensor.detach().clone(),
            "velocity": self.velocity.clone(),
            "skipped": self.skipped.clone(),
            "in_a_row": self._in_a_row.clone(),
            "losses": torch.zeros(0) if self._last is None else self._last.clone(),
            **{name: one.tensor.detach().clone() for name, one in self.beside.items()},
            **{f"velocity of {name}": one.velocity.clone() for name, one in self.beside.items()},
        }
