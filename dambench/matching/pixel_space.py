"""Steps of images whose pixels are in [0, 1], taken on what networks see of them: (p − μ) / σ for each channel.

IDC and those after it learn pixels p, clamp them to [0, 1], and normalise them before a network; here sets are kept
normalised, x = (p − μ) / σ. The same steps are then

* SGD with momentum: a step size of lr / σ² (dL/dp = dL/dx / σ, and x moves by dp / σ);
* AdamW: a step size of lr / σ and an ε of ε · σ (its step does not depend on the size of gradients, but for ε), and
  weight decay pulls x towards −μ/σ, which is black, not towards 0, which is the mean colour;
* a clamp to [−μ/σ, (1 − μ)/σ].

They also take a step of the optimiser for each class, one after the other, with a loss of that class alone: the images
of the others have a gradient of 0, and still move by their momentum, and with AdamW are decayed. So a class's gradient
is taken where its images have drifted to since the last one. `PixelImages` does that for all classes at once, where the
loss is a sum over classes of what depends on the images of each alone: first each class drifts as many steps as classes
come before it, then the gradients of all are taken, then each drifts as many steps as come after.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dambench.core.errors import BadInput
from dambench.matching.optimised import LearnedImages, Start
from dambench.training.problem import Normalisation, Preprocessing, Problem, State, constant

BETAS = (0.9, 0.999)
EPSILON = 1e-8
MOST = torch.finfo(torch.float64).max
"""The lowest loss before there was one: infinity is no number that a checkpoint would take."""
PLATEAU_THRESHOLD = 1e-4
"""Share by which a loss must be below the best for it to count as lower, as torch's ReduceLROnPlateau has it."""


@dataclass(frozen=True)
class PixelSpace:
    """Plain pixels, and what they are for a network: tensors (C, 1, 1), float32."""

    mean: Tensor
    std: Tensor
    bounded: bool = True
    """Whether pixels end at black and white."""

    @classmethod
    def of(cls, preprocessing: Preprocessing, device: torch.device) -> "PixelSpace":
        """The space of images that were normalised so.

        Raises:
            BadInput: they were whitened, and have no range that each pixel is in by itself.
        """
        if not isinstance(preprocessing, Normalisation):
            raise BadInput(
                "This method learns pixels from black to white, and whitened ones have no such range: it takes "
                "--preprocessing mean/std.",
                field="preprocessing",
            )
        mean, std = (constant(v, torch.float32, device) for v in (preprocessing.mean, preprocessing.std))
        return cls(mean.view(-1, 1, 1), std.view(-1, 1, 1))

    @classmethod
    def as_seen(cls, channels: int, device: torch.device) -> "PixelSpace":
        """The space of those who learn what networks see: steps are taken as they stand, and nothing is clamped."""
        mean, std = (torch.full((channels, 1, 1), value, device=device) for value in (0.0, 1.0))
        return cls(mean, std, bounded=False)

    @property
    def black(self) -> Tensor:
        return -self.mean / self.std

    @property
    def white(self) -> Tensor:
        return (1 - self.mean) / self.std

    def sgd_step(self, lr: float) -> Tensor:
        """The step size for each channel that SGD with this one on plain pixels has."""
        return lr / self.std.square()

    def adam_step(self, lr: float) -> Tensor:
        """The step size for each channel that Adam with this one on plain pixels has."""
        return lr / self.std

    def adam_epsilon(self, epsilon: float = EPSILON) -> Tensor:
        return epsilon * self.std

    def clamp(self, images: Tensor) -> Tensor:
        if not self.bounded:
            return images
        return torch.maximum(torch.minimum(images, self.white), self.black)


@dataclass(frozen=True)
class PixelSteps:
    """The optimiser of images, with the numbers of a paper that works on pixels in [0, 1]."""

    lr: float
    momentum: float = 0.5
    optimiser: Literal["sgd", "adamw"] = "sgd"
    """AdamW has β 0.9 and 0.999, and no use for `momentum`."""
    weight_decay: float = 0.0
    """AdamW's."""
    for_each_class: bool = True
    """Whether it takes a step for each class, one after the other; else one for all."""
    patience: int = 0
    """After more iterations than this without a lower loss the step size is halved; 0: never."""


class PixelImages(LearnedImages):
    """Images in the range of pixels under SGD or AdamW, as those who learn plain pixels have it.

    They are clamped at the end of each iteration: as at the beginning of the next, and nobody is given others.

    Args:
        start: `mix` composes each mosaic of reals; or images (N, C, H, W), normalised.
        factor: of the mosaics that the images are.
        space: in which steps are taken; None: that of plain pixels.
    """

    def __init__(
        self,
        problem: Problem,
        start: Start | Tensor,
        steps: PixelSteps,
        resume: State | None,
        factor: int = 1,
        space: PixelSpace | None = None,
    ):
        self._steps = steps
        self._space = space or PixelSpace.of(problem.real.preprocessing, problem.device)
        super().__init__(problem, start, steps.lr, steps.momentum, resume, factor)
        with torch.no_grad():
            self.tensor.copy_(self._space.clamp(self.tensor))
        self._classes = problem.real.classes if steps.for_each_class else 1
        self._square = torch.zeros_like(self.velocity)
        self._count, self._scale, self._best, self._waited = (
            torch.tensor(value, dtype=torch.float64, device=problem.device) for value in (0.0, 1.0, MOST, 0.0)
        )
        """Steps of the optimiser so far; what the plateaus have left of the step size; the lowest loss so far; and the
        iterations since."""
        self._before = tuple(torch.zeros_like(self.velocity) for _ in range(3))
        """Images and moments where the gradient was taken."""
        self._loss = torch.zeros((), dtype=torch.float64, device=problem.device)
        if resume is not None:
            for name, tensor in self._more().items():
                tensor.copy_(resume[name])

    def _more(self) -> dict[str, Tensor]:
        """What there is to remember beside images and momentum, by how they move."""
        adam = {"square": self._square, "count": self._count} if self._steps.optimiser == "adamw" else {}
        plateau = {"scale": self._scale, "best": self._best, "waited": self._waited} if self._steps.patience else {}
        return adam | plateau

    @torch.no_grad()
    def shown(self) -> Tensor:
        """The images where each class's gradient is to be taken, a leaf (N, C, H, W)."""
        now = self.tensor.detach().clone(), self.velocity.clone(), self._square.clone()
        number = self._number_of_class()
        for step in range(self._classes - 1):
            now = self._moved(now, None, self._count + step + 1, number > step)
        for kept, value in zip(self._before, now, strict=True):
            kept.copy_(value)
        return self._before[0].detach()

    @torch.no_grad()
    def move(self, allowed: Tensor) -> None:
        """Take the step of each class where that is `allowed`, a scalar bool."""
        number = self._number_of_class()
        now = self._moved(
            self._before, self.gradient, self._count + number + 1, torch.ones_like(number, dtype=torch.bool)
        )
        for step in range(self._classes - 1):
            now = self._moved(now, None, self._count + number + step + 2, number + step < self._classes - 1)
        images = self._space.clamp(now[0])
        for tensor, value in zip((self.tensor, self.velocity, self._square), (images, *now[1:]), strict=True):
            tensor.copy_(torch.where(allowed, value, tensor))
        self._count.add_(self._classes * allowed)
        if self._steps.patience:
            self._look_for_a_plateau(allowed)

    def descend(self, losses: dict[str, Tensor], within: Tensor | None = None) -> dict[str, Tensor]:
        self._loss.copy_(losses["matching"])
        return super().descend(losses, within)

    def state(self) -> State:
        return super().state() | {name: tensor.clone() for name, tensor in self._more().items()}

    def _number_of_class(self) -> Tensor:
        """The place of each image's class among the steps of an iteration, (N, 1, 1, 1)."""
        each = len(self.tensor) // self._classes
        return torch.arange(len(self.tensor), device=self.tensor.device).view(-1, 1, 1, 1) // each

    def _moved(
        self, now: tuple[Tensor, ...], gradient: Tensor | None, count: Tensor, some: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Images and moments after a step of the optimiser, where `some` says so, (N, 1, 1, 1).

        Args:
            gradient: None: it is 0.
            count: the number of the step, from 1 on; a scalar, or one for each image.
        """
        images, first, second = now
        scale = self._scale.to(images.dtype)
        if self._steps.optimiser == "sgd":
            velocity = first * self._steps.momentum
            if gradient is not None:
                velocity = velocity + gradient
            after, square = images - self._space.sgd_step(self._steps.lr) * scale * velocity, second
        else:
            step = self._space.adam_step(self._steps.lr) * scale
            slope = torch.zeros_like(images) if gradient is None else gradient
            velocity = first * BETAS[0] + slope * (1 - BETAS[0])
            square = second * BETAS[1] + slope.square() * (1 - BETAS[1])
            corrected, root = ((1 - beta**count).to(images.dtype) for beta in BETAS)
            decayed = images - self._steps.lr * scale * self._steps.weight_decay * (images - self._space.black)
            divisor = (square / root).sqrt() + self._space.adam_epsilon()
            after = decayed - step * (velocity / corrected) / divisor
        moved = zip((after, velocity, square), now, strict=True)
        new, moment, power = (torch.where(some, value, before) for value, before in moved)
        return new, moment, power

    def _look_for_a_plateau(self, allowed: Tensor) -> None:
        lower = self._loss < self._best * (1 - PLATEAU_THRESHOLD)
        self._best.copy_(torch.where(allowed & lower, self._loss, self._best))
        waited = torch.where(lower, torch.zeros_like(self._waited), self._waited + 1)
        over = waited > self._steps.patience
        self._scale.copy_(torch.where(allowed & over, self._scale / 2, self._scale))
        self._waited.copy_(torch.where(allowed, torch.where(over, torch.zeros_like(waited), waited), self._waited))
