"""RDED: real crops that a trained network recognises best, and its labels for whoever is trained on them.

Sun et al., "On the Diversity and Realism of Distilled Dataset: An Efficient Dataset Distillation Paradigm", CVPR 2024.

Of each class some random real images are cut, each into several random square crops, which are resized. The crop of an
image with the lowest cross-entropy under a network trained on the real images is kept, and of these the best IPC · f²,
which make up mosaics of f × f, as they are. Nothing is learned. Under the protocol `soft` networks are trained with
what that network, the teacher, says of each batch; the set names it and its hash. Under others labels are hard.

With `choose` = random whole random images are taken instead: what the teacher's labels alone are worth.

Where the published method and this differ: images are kept to the byte, not as JPEG; the mean and standard deviation
are the dataset's, not ImageNet's; the teacher is trained here, by DSA and CutMix, where the authors offer theirs. Not
read: where a small crop lies when it is shown to the teacher, surrounded by the mean colour (here in the middle).
Labels for regions, which the paper describes, are in neither.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor

from dambench.core import config
from dambench.core.config import Recipe
from dambench.core.events import Progressed
from dambench.matching.teaching import teacher_of
from dambench.training.problem import Network, Notice, Problem, State, Step, lay_out

PAPER = "https://arxiv.org/abs/2312.03526"
TEACHES = True
REDUCED_PRECISION = False


class Options(config.Options, frozen=True):
    images: Annotated[int, Meta(ge=1, le=10**6, description="real images of each class to choose from, at most")] = 300
    crops: Annotated[int, Meta(ge=1, le=1000, description="crops of each")] = 5
    least_area: Annotated[float, Meta(gt=0, le=1, description="smallest share of an image's area that a crop has")] = (
        0.08
    )
    factor: config.Factor = 1
    choose: Annotated[
        Literal["best", "random"],
        Meta(description="the crops that the teacher recognises best, or random whole images"),
    ] = "best"
    epochs: Annotated[int, Meta(ge=1, le=10**4, description="epochs that the teacher is trained for")] = 60


CODE = "RDED, released code: 5 crops of each of 300 images"

RECIPES = (
    Recipe(
        datasets=("digits",),
        options={"epochs": 20},
        norm="batch",
        source="ours: digits has 130 images per class and a 2-block network, and is done in seconds",
    ),
    Recipe(datasets=("cifar10", "cifar100"), norm="batch", source=f"{CODE}, factor 1 for CIFAR; 60 epochs are ours"),
    Recipe(
        datasets=("mnist", "fashionmnist"),
        norm="batch",
        source=f"{CODE}; it has no setting for these: factor 1 as for CIFAR, 60 epochs are ours",
    ),
    Recipe(options={"factor": 2}, norm="batch", source=f"{CODE}, factor 2; 60 epochs are ours"),
    Recipe(
        name="brief",
        datasets=("mnist", "fashionmnist"),
        options={"epochs": 1},
        network="convnet-d3-w32-bn",
        source="ours, for two CPU cores: a teacher of 1 epoch and width 32 (128)",
    ),
)


def distill(problem: Problem, options: Options, resume: State | None = None) -> Iterator[Step | Notice]:
    """Choose crops once, and name the teacher."""
    network, teacher = yield from teacher_of(problem, options.epochs)
    real = problem.real
    if options.choose == "random":
        pixels = problem.random_subset(options.factor)
    else:
        chosen, before = [], 0
        for label, count in enumerate(real.counts):
            own = real.images[before : before + count]
            chosen.append(best_crops(problem, network, own, label, options))
            before += count
            yield Progressed(phase="distil", done=label + 1, total=real.classes, note="choosing")
        pixels = torch.cat(chosen)
    made = problem.synthetic_set(pixels, factor=options.factor)
    yield Step(0, replace(made, teacher=teacher))


@torch.inference_mode()
def best_crops(problem: Problem, network: Network, images: Tensor, label: int, options: Options) -> Tensor:
    """The mosaics of a class's best crops, (ipc, C, H, W) uint8.

    Where there are fewer images than crops are needed, the next best crops of some are taken too.

    Args:
        images: (n, C, H, W) uint8, all of the class.
    """
    generator = problem.seeds.generator("crops", label)
    some = torch.randperm(len(images), generator=generator)[: options.images].to(images.device)
    crops = _crops(images[some].float(), options, generator)
    flat = crops.flatten(0, 1)
    batch = problem.policy.test_batch(problem.card.height * problem.card.width)
    losses = []
    for part in flat.split(batch):
        shown = problem.real.preprocessing.apply(part)
        rows, columns = (large - small for large, small in zip(images.shape[2:], part.shape[2:], strict=True))
        shown = F.pad(shown, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        labels = torch.full((len(part),), label, device=images.device)
        losses.append(F.cross_entropy(network(shown), labels, reduction="none"))
    of_crops = torch.cat(losses).view(crops.shape[:2])
    # Each image's best crop first, then each one's second, …: of as many as are needed.
    ranks = of_crops.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    needed = problem.ipc * options.factor**2
    by_loss = of_crops.flatten().argsort(stable=True)
    order = by_loss[ranks.flatten()[by_loss].argsort(stable=True)]
    best = flat[order[torch.arange(needed, device=order.device) % len(order)]]
    return lay_out(best, options.factor).round().clamp(0, 255).to(torch.uint8)


def _crops(images: Tensor, options: Options, generator: torch.Generator) -> Tensor:
    """Random crops of each image, of its proportions, resized to a tile: (n, crops, C, H / f, W / f) float32."""
    height, width = images.shape[2:]
    size = height // options.factor, width // options.factor
    drawn = torch.rand(len(images), options.crops, 3, generator=generator).tolist()
    made = []
    for image, boxes in zip(images, drawn, strict=True):
        for area, down, across in boxes:
            share = (options.least_area + (1 - options.least_area) * area) ** 0.5
            rows, columns = (max(1, round(share * side)) for side in (height, width))
            top, left = int(down * (height - rows + 1)), int(across * (width - columns + 1))
            crop = image[None, :, top : top + rows, left : left + columns]
            made.append(F.interpolate(crop, size, mode="bilinear", align_corners=False, antialias=True))
    return torch.stack(made).view(len(images), options.crops, images.shape[1], *size)
