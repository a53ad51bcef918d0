"""Matching on networks that were trained on the real images, at any point of their training, in the range of pixels.

DANCE, TGDD, NCFM and DSDM are of this kind. Their networks are those of the expert store (`dambench.matching.experts`),
which keeps the weights after each epoch; between two of them a network is θ = l · θ_before + (1 − l) · θ_after. They
learn plain pixels, step class by class, and show networks what `SyntheticSet.decoded` makes of mosaics.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import Tensor

from dambench.core import config
from dambench.core.config import Seed
from dambench.matching import experts
from dambench.matching.distribution import Judge, Matching, Term
from dambench.matching.experts import ExpertTraining, Trajectories, trajectories
from dambench.matching.optimised import Start
from dambench.matching.pixel_space import PixelImages, PixelSteps
from dambench.matching.real_batch import Augmentation
from dambench.training.problem import Network, Notice, Problem, State


class MosaicOptions(config.Options, frozen=True):
    """The settings of a method that learns plain pixels of mosaics by matching."""

    iterations: Annotated[int, Meta(ge=1, le=10**9, description="updates of the synthetic images")] = 10_000
    lr_images: Annotated[float, Meta(gt=0, description="step size for pixels from 0 to 1")] = 0.1
    momentum_images: Annotated[float, Meta(ge=0, lt=1, description="momentum of the images' SGD")] = 0.5
    batch_real: Annotated[int, Meta(ge=1, le=10**6, description="real images per class and iteration")] = 128
    most_synthetic: Annotated[
        int, Meta(ge=0, le=10**6, description="decoded images of a class that are looked at in an iteration; 0: all")
    ] = 200
    factor: config.Factor = 2
    init: Annotated[
        Start, Meta(description="start from random real images, from N(0, 1), or from mosaics of real images")
    ] = "mix"
    augmentation: Annotated[Augmentation, Meta(description="the same draw for a class's real and synthetic images")] = (
        "color+crop+cutout"
    )
    stepping: Annotated[
        Literal["for each class", "for all"],
        Meta(description="whether the optimiser takes a step for each class, as the released codes do, or one for all"),
    ] = "for each class"


class PretrainedOptions(MosaicOptions, frozen=True):
    """The settings of a method that matches on trained networks."""

    experts: Annotated[int, Meta(ge=1, le=1000, description="networks trained on the real images, shared by runs")] = 5
    epochs: Annotated[int, Meta(ge=1, le=10**4, description="epochs that they are trained for")] = 60
    batch_expert: Annotated[int, Meta(ge=1, le=10**6, description="batch that they are trained with")] = 64
    seed_experts: Annotated[Seed, Meta(description="their seed, which is not that of the run")] = 0

    @property
    def training(self) -> ExpertTraining:
        """How the networks are trained: SGD .01/.9/5e-4, × .2 at 2/3 and 5/6, DSA, CutMix half the time."""
        drops = {epoch for epoch in (2 * self.epochs // 3, 5 * self.epochs // 6) if epoch}
        return ExpertTraining(
            epochs=self.epochs,
            momentum=0.9,
            weight_decay=5e-4,
            batch=self.batch_expert,
            drops=tuple(sorted(drops)),
            decay=0.2,
            cutmix=0.5,
            seed=self.seed_experts,
        )


def check(network: Network, options: PretrainedOptions) -> None:
    """
    Raises:
        BadInput: the network has running statistics: between two epochs there are none that are its own.
    """
    experts.check(network)


def pixel_images(problem: Problem, options: MosaicOptions, resume: State | None, **steps: object) -> PixelImages:
    """The images of a method with these settings.

    Args:
        steps: of `PixelSteps`, where they are not SGD's by the options.
    """
    usual = {
        "lr": options.lr_images,
        "momentum": options.momentum_images,
        "for_each_class": options.stepping == "for each class",
    }
    how = PixelSteps(**usual | steps)  # type: ignore[arg-type]
    return PixelImages(problem, options.init, how, resume, options.factor)


@torch.no_grad()
def set_weights(network: Network, flat: Tensor) -> None:
    """Give a network these weights (L,), in place: a graph of the GPU goes on reading where they lie."""
    parameters = list(network.parameters())
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.copy_(part.view_as(parameter))


Point = tuple[int, int, int, float]
"""An expert, two of its epochs, and l, the share of the first."""


def between(pool: Trajectories, point: Point) -> Tensor:
    """The weights of an expert between two epochs, (L,): θ = l · θ_before + (1 − l) · θ_after."""
    expert, before, after, share = point
    if before == after:
        return pool.weights(expert, before)
    return share * pool.weights(expert, before) + (1 - share) * pool.weights(expert, after)


class PretrainedMatching(Matching):
    """Matching on trained networks.

    Args:
        choose: draws where an iteration's network is, and the one under which the images are to be recognised; from a
            generator on the CPU.
        calibration: what that weighs; 0: there is none.
        beside: see `Matching`.
    """

    def __init__(
        self,
        problem: Problem,
        images: PixelImages,
        terms: Callable[[Network], list[Term]],
        options: PretrainedOptions,
        pool: Trajectories,
        choose: Callable[[torch.Generator], tuple[Point, Point]],
        calibration: float = 1.0,
        beside: Sequence[tuple[Tensor, Tensor]] = (),
    ):
        judge = None
        if calibration:
            judge = Judge(problem.build_network().to(problem.device).requires_grad_(False).eval(), calibration)
        how = options.batch_real, options.augmentation
        super().__init__(problem, images, terms, *how, judge=judge, beside=beside)
        self.most_synthetic = options.most_synthetic
        self._pool, self._choose, self._judge = pool, choose, judge

    def _renew(self, iteration: int) -> None:
        network = self.problem.new_network(iteration)
        matched, judging = self._choose(self.problem.seeds.generator("trained network", iteration))
        set_weights(network, between(self._pool, matched))
        if self._judge is not None:
            set_weights(self._judge.network, between(self._pool, judging))


def mean_features(network: Network) -> list[Term]:
    """Σ_c ‖mean f(real_c) − mean f(synthetic_c)‖², f what the classifier reads, summed over its features."""
    return [Term("features", network.num_levels - 1, lambda maps: maps.flatten(1))]


def pool_of(problem: Problem, options: PretrainedOptions) -> Generator[Notice, None, Trajectories]:
    """The trained networks of a method with these settings."""
    ranks = problem.ranks
    if ranks is not None and not ranks.is_first:
        ranks.wait()  # until they are trained and kept
    pool = yield from trajectories(problem, options.training, options.experts)
    if ranks is not None and ranks.is_first:
        ranks.wait()
    return pool


def number(limit: int, generator: torch.Generator) -> int:
    """A whole number from 0 to limit − 1."""
    return int(torch.randint(limit, (), generator=generator))


DIGITS: dict[str, object] = {"iterations": 100, "batch_real": 64, "factor": 1, "experts": 2, "epochs": 5}
"""Seconds on the embedded dataset, whose images of 8 × 8 pixels are better off whole than as mosaics."""
BRIEF: dict[str, object] = {"iterations": 100, "batch_real": 64, "experts": 2, "epochs": 2, "batch_expert": 1024}
"""About a minute on two CPU cores for the networks, which all who match on such share, and less for the images."""
