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
* the network that chooses frequencies by ascent of the same loss: the paper has it, every setting of the code leaves it
  out. Here there is none: frequencies are drawn.

The code's schedule is wrapped round the images' optimiser twice where the sampling network is on; without it, as here,
once. Not read: that the images under θ_final are the augmented ones. The published figures are the best of several
tests on the way, under `ncfm`; here it is the last epoch.
"""

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor

from dambench.core.config import Recipe
from dambench.matching import pretrained
from dambench.matching.distribution import Term
from dambench.matching.pretrained import BRIEF, DIGITS, Point, PretrainedMatching, number, pixel_images, pool_of
from dambench.matching.real_batch import exact
from dambench.training.problem import Network, Notice, Problem, State, Step

PAPER = "https://arxiv.org/abs/2502.20653"

WEIGHT = 300.0
LEAST = 1e-12
"""The least value of the part of phases, as in the code: a root of 0 has no slope."""
LEAST_SQUARE = 1e-24

SUMS_OVER_CLASSES = True


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
    amplitude: Annotated[float, Meta(ge=0, description="α, the weight of the difference of amplitudes")] = 0.5
    phase: Annotated[float, Meta(ge=0, description="β, the weight of the difference of phases")] = 0.5
    calibration: Annotated[float, Meta(ge=0, description="weight of the cross-entropy under a trained network")] = 1.0


PAPERS = "NCFM: 20,000 iterations, 1,024 real images per class, 1,024 frequencies, AdamW 0.01, 20 networks"

RECIPES = (
    Recipe(
        datasets=("digits",),
        options=DIGITS | {"frequencies": 256},
        source="ours: digits has 130 images per class and a 2-block network, and is done in seconds",
    ),
    Recipe(
        datasets=("cifar100",),
        ipc=(10, 10),
        options={"optimiser": "sgd"},
        source=f"{PAPERS}; SGD with momentum 0.5 for CIFAR-100 at IPC 10",
    ),
    Recipe(source=PAPERS),
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
        "frequencies (1,024), 2 networks of 2 epochs (20 of 60), width 32 (128)",
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


class _NcfmMatching(PretrainedMatching):
    """Draws frequencies for each iteration."""

    frequencies: Tensor

    def _renew(self, iteration: int) -> None:
        super()._renew(iteration)
        self.frequencies.normal_(generator=self.problem.generator("frequencies", iteration))


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
    of = partial(terms, frequencies=frequencies, options=options)
    matching = _NcfmMatching(problem, images, of, options, pool, choose, options.calibration)
    matching.frequencies = frequencies
    yield from matching.steps(options.iterations)
