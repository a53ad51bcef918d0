"""NCFM: characteristic functions of features, under networks between their beginning and their end.

Wang et al., "Dataset Distillation with Neural Characteristic Function: A Minmax Perspective", CVPR 2025.

With f an image's last features as a vector of length 1, t_k ~ N(0, I) drawn for each iteration, and φ(t) the mean of
e^{i t·f} over a class's images:

    300 · mean_k √( α (|φ_r| − |φ_s|)² + β · 2 (|φ_r| |φ_s| − Re φ_r φ_s*) )

which for α = β = ½ is (300 / √2) · mean_k |φ_r − φ_s|. The network is at θ = l · θ_initial + (1 − l) · θ_final of one
of 20, and the cross-entropy of the synthetic images at θ_final is added, as in DANCE. Images are mosaics of plain
pixels, clamped, under AdamW with a decay towards black, a step for each class; the step size is halved where the loss
has not fallen for 500 iterations.

Where it was read: the paper and the released code. They differ, and options say which:

* frequencies: the paper has 1,024 (the default), every setting of the code 4,096;
* the sampling network ψ, which makes frequencies of noise and goes up the same loss: the paper has it (`paper`), every
  setting of the code leaves it out, and so does the default;
* ψ has as many rows of noise as there are frequencies (`repeated` 1), where the code's has one for 16 of them.

ψ is three layers of a linear map, BatchNorm and LeakyReLU 0.2 (the last one tanh), as wide as the features. With it
the features of all real images of an iteration are kept, and its weights are in checkpoints. Where this and the code
differ: there ψ takes a step for each class, with noise of its own, here one for all with the sum of their slopes, which
is the same to first order; there the images' schedule is stepped twice where ψ is on, here once; there the
cross-entropy has a step of its own after that of the matching loss, here both have one. Not read: ψ's weight decay
(here none). The published figures are the best of several tests on the way, under `ncfm`; here it is the last epoch.
"""

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor

from dambench.core.config import CHECKED, UNCHECKED, Recipe
from dambench.matching import pretrained
from dambench.matching.distribution import Term
from dambench.matching.pretrained import BRIEF, DIGITS, Point, PretrainedMatching, number, pixel_images, pool_of
from dambench.matching.real_batch import RealBatch, exact
from dambench.matching.sampling import SamplingNetwork
from dambench.training.problem import Network, Notice, Problem, State, Step
from dambench.training.ranks import Ranks

PAPER = "https://arxiv.org/abs/2502.20653"

WEIGHT = 300.0
LEAST = 1e-12
"""The least value of the part of phases, as in the code: a root of 0 has no slope."""
LEAST_SQUARE = 1e-24

SUMS_OVER_CLASSES = True
PLAIN_PIXELS = True


class Options(pretrained.PretrainedOptions, frozen=True):
    iterations: Annotated[int, Meta(ge=1, le=10**9, description="updates of the synthetic images")] = 20_000
    lr_images: Annotated[float, Meta(gt=0, description="step size for pixels from 0 to 1")] = 0.01
    optimiser: Annotated[Literal["adamw", "sgd"], Meta(description="of the images")] = "adamw"
    weight_decay: Annotated[float, Meta(ge=0, description="of AdamW, towards black")] = 5e-4
    patience: Annotated[
        int, Meta(ge=0, le=10**9, description="iterations without a lower loss before the step is halved; 0: never")
    ] = 500
    batch_real: Annotated[int, Meta(ge=1, le=10**6, description="real images per class and iteration")] = 1024
    most_synthetic: Annotated[
        int, Meta(ge=0, le=10**6, description="decoded images of a class that are looked at in an iteration; 0: all")
    ] = 0
    experts: Annotated[int, Meta(ge=1, le=1000, description="networks trained on the real images, shared by runs")] = 20
    frequencies: Annotated[
        int, Meta(ge=1, le=10**5, description="K, at which characteristic functions are compared")
    ] = 1024
    sampled_by: Annotated[
        Literal["normal", "network"],
        Meta(description="where frequencies come from: N(0, I), or the sampling network ψ, which goes up the loss"),
    ] = "normal"
    lr_sampling: Annotated[float, Meta(gt=0, description="step size of ψ")] = 0.001
    momentum_sampling: Annotated[float, Meta(ge=0, lt=1, description="momentum of ψ's SGD")] = 0.5
    repeated: Annotated[int, Meta(ge=1, le=10**5, description="how often each frequency of ψ is there")] = 1
    amplitude: Annotated[float, Meta(ge=0, description="α, the weight of the difference of amplitudes")] = 0.5
    phase: Annotated[float, Meta(ge=0, description="β, the weight of the difference of phases")] = 0.5
    calibration: Annotated[float, Meta(ge=0, description="weight of the cross-entropy under a trained network")] = 1.0


PAPERS = "NCFM: 20,000 iterations, 1,024 real images per class, 1,024 frequencies, AdamW 0.01, 20 networks"

RECIPES = (
    Recipe(
        datasets=("digits",),
        options=DIGITS | {"frequencies": 256},
        source="ours: digits has 130 images per class and a 2-block network, and is done in seconds" + CHECKED,
    ),
    Recipe(
        datasets=("cifar100",),
        ipc=(10, 10),
        options={"optimiser": "sgd"},
        source=f"{PAPERS}; SGD with momentum 0.5 for CIFAR-100 at IPC 10",
    ),
    Recipe(source=PAPERS),
    Recipe(name="paper", options={"sampled_by": "network"}, source=f"{PAPERS}; the sampling network, as in the paper"),
    Recipe(
        name="code",
        options={"frequencies": 4096},
        source=f"{PAPERS}; 4,096 frequencies, as in every setting of the released code",
    ),
    Recipe(
        name="brief",
        datasets=("mnist", "fashionmnist"),
        options=BRIEF | {"frequencies": 256},
        network="convnet-d3-w32",
        source="ours, for two CPU cores: 100 iterations (published: 20,000), 64 real images per class (1,024), 256 "
        "frequencies (1,024), 2 networks of 2 epochs (20 of 60), width 32 (128)" + UNCHECKED,
    ),
)

check = pretrained.check


def waves(maps: Tensor, frequencies: Tensor) -> Tensor:
    """cos and sin of t·f for each image and frequency, (n, …) and (K, D) → (n, 2K)."""
    features = F.normalize(exact(maps).flatten(1))
    angles = features @ frequencies.to(features.dtype).T
    return torch.cat([angles.cos(), angles.sin()], 1)


def distance(real: Tensor, synthetic: Tensor, amplitude: float, phase: float) -> Tensor:
    """Σ_classes mean_k of the distance of characteristic functions, given as (c, 2K), cosines first: a scalar."""
    (a, b), (c, d) = (means.chunk(2, 1) for means in (real, synthetic))
    of_real, of_synthetic = ((x.square() + y.square()).clamp_min(LEAST_SQUARE).sqrt() for x, y in ((a, b), (c, d)))
    phases = (2 * (of_real * of_synthetic - (a * c + b * d))).clamp_min(LEAST)
    return (amplitude * (of_real - of_synthetic).square() + phase * phases).sqrt().mean(1).sum()


def terms(network: Network, frequencies: Tensor, options: Options) -> list[Term]:
    """The characteristic functions of what the classifier reads."""
    between = partial(distance, amplitude=options.amplitude, phase=options.phase)
    vectors = partial(waves, frequencies=frequencies)
    return [Term("frequencies", network.num_levels - 1, vectors, WEIGHT, between)]


def features_in_full(maps: Tensor) -> Tensor:
    """What the classifier reads of each image as a vector of length 1: (n, …) → (n, D)."""
    return F.normalize(exact(maps).flatten(1))


def distance_in_full(real: Tensor, synthetic: Tensor, frequencies: Tensor, amplitude: float, phase: float) -> Tensor:
    """`distance`, of the features of all images (c, n, D) and (c, m, D); differentiable by the frequencies, too."""
    means = []
    for features in (real, synthetic):
        angles = features @ frequencies.to(features.dtype).T
        means.append(torch.cat([angles.cos().mean(1), angles.sin().mean(1)], 1))
    return distance(means[0], means[1], amplitude, phase)


def terms_in_full(network: Network, frequencies: Tensor, options: Options) -> list[Term]:
    """`terms`, which keep the features of all images: the sampling network's gradient needs them."""
    between = partial(distance_in_full, frequencies=frequencies, amplitude=options.amplitude, phase=options.phase)
    return [Term("frequencies", network.num_levels - 1, features_in_full, WEIGHT, between, whole=True)]


class _NcfmMatching(PretrainedMatching):
    """Draws frequencies for each iteration."""

    frequencies: Tensor

    def _renew(self, iteration: int) -> None:
        super()._renew(iteration)
        self.frequencies.normal_(generator=self.problem.generator("frequencies", iteration))


class _AdversarialMatching(PretrainedMatching):
    """Makes frequencies of noise, by a network that goes up the loss while the images go down."""

    sampling: SamplingNetwork

    def _renew(self, iteration: int) -> None:
        super()._renew(iteration)
        self.sampling.noise.normal_(generator=self.problem.generator("frequencies", iteration))

    def _pull(self, batch: RealBatch, images: Tensor, gradient: Tensor) -> dict[str, Tensor]:
        back = self.sampling.sample()
        losses = super()._pull(batch, images, gradient)
        back()
        return losses

    def _exchange(self, ranks: Ranks) -> None:
        super()._exchange(ranks)
        self.sampling.weights.gradient.copy_(ranks.total(self.sampling.weights.gradient))


def distill(problem: Problem, options: Options, resume: State | None = None) -> Iterator[Step | Notice]:
    """Pull characteristic functions of features together."""
    pool = yield from pool_of(problem, options)

    def choose(generator: torch.Generator) -> tuple[Point, Point]:
        expert, share = number(len(pool), generator), torch.rand((), generator=generator).item()
        return (expert, 0, pool.epochs, share), (expert, pool.epochs, pool.epochs, 1.0)

    how = {"optimiser": options.optimiser, "weight_decay": options.weight_decay, "patience": options.patience}
    images = pixel_images(problem, options, resume, **how)
    features = problem.new_network(1).classifier.in_features
    frequencies = torch.zeros(options.frequencies, features, device=problem.device)
    if options.sampled_by == "network":
        how_sampled = options.lr_sampling, options.momentum_sampling, options.repeated
        sampling = SamplingNetwork(problem, frequencies, *how_sampled)
        images.learn("sampling network", sampling.weights, resume)
        of = partial(terms_in_full, frequencies=frequencies, options=options)
        beside = [(frequencies, sampling.slope)]
        adversarial = _AdversarialMatching(
            problem, images, of, options, pool, choose, options.calibration, beside=beside
        )
        adversarial.sampling = sampling
        yield from adversarial.steps(options.iterations)
        return
    of = partial(terms, frequencies=frequencies, options=options)
    matching = _NcfmMatching(problem, images, of, options, pool, choose, options.calibration)
    matching.frequencies = frequencies
    yield from matching.steps(options.iterations)
