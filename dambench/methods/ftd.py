"""FTD: trajectory matching on flat trajectories, and the moving average of the images.

Du, Jiang, Tan, Zhou and Li, "Minimizing the Accumulated Trajectory Error to Improve Dataset Distillation", CVPR 2023.

MTT, and besides: experts are trained by GSAM, which leads them to flat minima, and the set is the moving average of the
images over the iterations, h ← decay · h + (1 − decay) · images, from where they begin.

Where it was read: the released code and its commands, which are for CIFAR-10 and CIFAR-100 at IPC 10. Its table of
other settings is an image that was not read: there MTT's stand in, which FTD built upon. The code tests both the images
and their average, and reports the best of all tests; here the set is the average at the end, and `ema_decay` 0 makes it
the images. GSAM's α is recalled (1, where DATM and PAD, which use these experts, have 0.3). Tested as in MTT's code:
`--protocol mtt`, with the step size that was learned.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Literal

from msgspec import Meta
from torch import Tensor

from dambench.core.config import UNCHECKED
from dambench.matching import trajectories as matching
from dambench.matching.experts import Trajectories, trajectories
from dambench.matching.optimised import LearnedImages
from dambench.matching.recipes import FOR_MTT, brief, digits, elsewhere, table
from dambench.matching.trajectories import Minibatch, TrajectoryMatching, check, settle, training
from dambench.training.problem import Notice, Problem, State, Step, SyntheticSet

__all__ = ["PAPER", "RECIPES", "REDUCED_PRECISION", "Options", "check", "distill", "settle"]

PAPER = "https://arxiv.org/abs/2211.11004"
REDUCED_PRECISION = False


class Options(matching.FlatOptions, frozen=True):
    init: Annotated[Literal["real", "noise"], Meta(description="start from random real images or from N(0, 1)")] = (
        "real"
    )
    ema_decay: Annotated[
        float, Meta(ge=0, lt=1, description="share of the moving average that stays; 0: the set is the images")
    ] = 0.9995


COMMANDS = """
dataset       IPC  for      zca  N   M  T⁺  batch  lr_images  lr_lr  lr_student
cifar10       10   2-20     yes  30  2  20  -      100        1e-5   0.001
cifar100      10   2-20     yes  20  2  40  -      1000       1e-5   0.01
"""
MTTS = """
dataset       IPC  for      zca  N   M  T⁺  batch  lr_images  lr_lr  lr_student
cifar10       1    1        yes  50  2  2   -      100        1e-7   0.01
cifar10       50   21-      no   30  2  40  -      1000       1e-5   0.001
cifar100      1    1        yes  20  3  20  -      1000       1e-5   0.01
cifar100      50   21-      yes  80  2  40  125    1000       1e-5   0.01
tinyimagenet  1    1        no   10  2  10  -      10000      1e-4   0.01
tinyimagenet  10   2-20     no   20  2  40  200    10000      1e-4   0.01
tinyimagenet  50   21-      no   20  2  40  300    10000      1e-4   0.01
"""
READ = table(COMMANDS, Options, "FTD, its commands")
NOT_READ = table(MTTS, Options, "the settings of MTT's authors (FTD's were not read)")

RECIPES = (
    digits(UNCHECKED, lr_images=10.0, ema_decay=0.9),
    *READ,
    *NOT_READ,
    *elsewhere((NOT_READ[0], READ[0], NOT_READ[1]), "MTT's or FTD's settings for CIFAR-10 at IPC", ", without its ZCA"),
    brief((1, 1), "50", "30 to 50", FOR_MTT, iterations=200, lr_images=300.0, ema_decay=0.95),
    brief((2, None), "50", "30 to 50", FOR_MTT, iterations=100, lr_images=300.0, ema_decay=0.9),
)


class AveragedMatching(TrajectoryMatching):
    """Trajectory matching whose set is the moving average of its images."""

    def __init__(
        self, problem: Problem, images: LearnedImages, experts: Trajectories, options: Options, resume: State | None
    ):
        super().__init__(problem, images, experts, options, resume=resume)
        self._decay = options.ema_decay
        self.average = images.tensor.detach().clone()
        if resume is not None:
            self.average.copy_(resume["average"])

    @property
    def synthetic(self) -> SyntheticSet:
        return replace(super().synthetic, images=self.average)

    def state(self) -> State:
        return super().state() | {"average": self.average.clone()}

    def _descend(
        self, start: Tensor, target: Tensor, batches: Sequence[Minibatch]
    ) -> Generator[None, None, dict[str, Tensor]]:
        losses = yield from super()._descend(start, target, batches)
        self.average.mul_(self._decay).add_(self.images.tensor.detach(), alpha=1 - self._decay)
        return losses


def distill(problem: Problem, options: Options, resume: State | None = None) -> Iterator[Step | Notice]:
    """Move the images so that steps on them take a student along a flat trajectory; give their average."""
    experts = yield from trajectories(problem, training(options), options.experts, options.experts_from)
    images = LearnedImages(problem, options.init, options.lr_images, options.momentum_images, resume)
    yield from AveragedMatching(problem, images, experts, options, resume).steps(options.iterations)
