"""DM: distribution matching of mean features.

Zhao and Bilen, "Dataset Condensation with Distribution Matching", WACV 2023.

Each iteration draws a random network, one augmentation per class, and a batch of real images per class, and
moves the synthetic images so that the class means of the network's embeddings agree. No network is trained.

The released code has two forms: a loop over classes, and for BatchNorm networks one forward pass of all classes
together, so that the statistics come from the mixed batch. Here all classes always go together: for networks
without batch statistics the two are the same. The released code says 20,000 iterations and takes one more after
its last evaluation; here it is 20,000. Its README drops `flip` for digits by hand; here the dataset says whether a
mirror image keeps its class.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import torch
from msgspec import Meta
from torch import Tensor

from dambench import config
from dambench.augment import Draw, augment, draw, strategy_for
from dambench.config import Recipe
from dambench.matching.features import mean_feature_distance
from dambench.problem import Network, Problem, State, Step
from dambench.protocol import DSA

PAPER = "https://arxiv.org/abs/2110.04181"
MATCHES_ON_NETWORK = True


class Options(config.Options, frozen=True):
    iterations: Annotated[int, Meta(ge=1, le=10**9, description="updates of the synthetic images")] = 20_000
    lr_images: Annotated[float, Meta(gt=0, description="step size for the images")] = 1.0
    momentum_images: Annotated[float, Meta(ge=0, lt=1, description="momentum of the images' SGD")] = 0.5
    batch_real: Annotated[int, Meta(ge=1, le=10**6, description="real images per class and iteration")] = 256
    init: Annotated[Literal["real", "noise"], Meta(description="start from random real images or from N(0, 1)")] = (
        "real"
    )
    augmentation: Annotated[
        Literal["dsa", "none"], Meta(description="the same draw for a class's real and synthetic images")
    ] = "dsa"


RECIPES = (
    Recipe(
        datasets=("digits",),
        options={"iterations": 200, "batch_real": 64},
        source="ours: digits has 130 images per class and a 2-block network, and is done in seconds",
    ),
    Recipe(
        datasets=("cifar10",),
        ipc=(100, None),
        options={"lr_images": 10.0},
        source="DM, released code's README: lr 10 for 100 and more images per class",
    ),
    Recipe(source="DM, released code: 20,000 iterations, lr 1, 256 real images per class"),
)


def loss_of(network: Network, real: Tensor, synthetic: Tensor, drawn: Draw | None) -> Tensor:
    """The matching loss: Σ_c ‖mean ψ(A(real_c)) − mean ψ(A(synthetic_c))‖², ψ the network's embedding.

    Args:
        real: (classes, n, C, H, W), synthetic: (classes, m, C, H, W), both normalised.
        drawn: the augmentation A, one draw per class; None: none.
    """
    if drawn is not None:
        real, synthetic = augment(real, drawn), augment(synthetic, drawn)
    with torch.no_grad():
        real_features = network.embed(real.flatten(0, 1)).unflatten(0, real.shape[:2])
    synthetic_features = network.embed(synthetic.flatten(0, 1)).unflatten(0, synthetic.shape[:2])
    return mean_feature_distance(real_features, synthetic_features)


def distill(problem: Problem, options: Options, resume: State | None = None) -> Iterator[Step]:
    """Pull the mean embedding of each synthetic class towards the real one."""
    real = problem.real
    if min(real.counts) < options.batch_real:
        problem.warn(
            f"The smallest class has {min(real.counts)} images, fewer than the real batch of {options.batch_real}: "
            "such classes are sampled with replacement."
        )
    pixels = problem.random_subset()
    if options.init == "real":
        images = real.normalisation.apply(pixels)
    else:
        images = torch.randn(pixels.shape, generator=problem.generator("noise"), device=pixels.device)
    images = images.requires_grad_()
    optimizer = torch.optim.SGD([images], lr=options.lr_images, momentum=options.momentum_images)
    done = 0
    if resume is not None:
        done = resume["iteration"]
        images.data.copy_(resume["images"])
        if resume["momentum"] is not None:
            optimizer.state[images]["momentum_buffer"] = resume["momentum"].to(images.device)
    strategy = strategy_for(DSA, problem.card.mirrors)

    def state() -> dict[str, Any]:
        momentum = optimizer.state[images].get("momentum_buffer")  # none where momentum is 0
        momentum = None if momentum is None else momentum.clone()
        return {"iteration": iteration, "images": images.detach().clone(), "momentum": momentum}

    for iteration in range(done + 1, options.iterations + 1):
        # A fresh random network each time: matching one network's features would fit that network only.
        network = problem.new_network(iteration)
        batch = real.sample(options.batch_real, problem.generator("real batch", iteration))
        drawn = None
        if options.augmentation == "dsa":
            drawn = draw(strategy, real.classes, problem.seeds.generator("augmentation", iteration))
        loss = loss_of(network, batch, images.unflatten(0, (real.classes, problem.ipc)), drawn)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield Step(iteration, problem.synthetic_set(images.detach()), {"matching": loss.detach()}, state)
