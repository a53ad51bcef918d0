"""How trajectory matching with soft labels begins, in DATM and PAD: with real images that experts recognise, and with
what they say of them."""

from collections.abc import Callable, Generator
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor

from dambench.core.events import Progressed, Warned
from dambench.matching.experts import Trajectories
from dambench.matching.optimised import LearnedImages
from dambench.matching.trajectories import SoftOptions, Student, TrajectoryMatching
from dambench.training.problem import Notice, Problem, State

RECOGNISED_AT_ONCE = 256
"""Images that an expert is shown at once."""


def soft_matching(
    problem: Problem,
    experts: Trajectories,
    options: SoftOptions,
    resume: State | None,
    weigh: Callable[[Tensor], Tensor] | None = None,
) -> Generator[Notice, None, TrajectoryMatching]:
    """Matching from real images that the experts recognise, with what the experts say of them as soft labels.

    Yields:
        How far it is with finding these.
    """
    student = Student(problem.new_network(0))
    init: Tensor | Literal["real"] = "real"
    if options.init == "correct" and resume is None:
        pixels = yield from correct_images(problem, student, experts)
        init = problem.real.preprocessing.apply(pixels)
    images = LearnedImages(problem, init, options.lr_images, options.momentum_images, resume)
    labels = torch.zeros(len(images.tensor), problem.real.classes, device=problem.device)
    if resume is None:
        labels = yield from soft_labels(problem, student, experts, images.tensor.detach())
    return TrajectoryMatching(problem, images, experts, options, labels=labels, weigh=weigh, resume=resume)


def correct_images(problem: Problem, student: Student, experts: Trajectories) -> Generator[Notice, None, Tensor]:
    """IPC random images of each class that the first expert recognises at its end; where they are too few, the next.

    Returns:
        Pixels, (classes * ipc, C, H, W) uint8.
    """
    real = problem.real
    chosen: list[Tensor] = []
    lacking = 0
    for label, (first, count) in enumerate(zip(accumulate(real.counts, initial=0), real.counts, strict=False)):
        order = torch.randperm(count, generator=problem.seeds.generator("recognised images", label)) + first
        recognised = order[:0]
        for expert in range(len(experts)):
            weights = experts.weights(expert, experts.epochs)
            for some in order.split(RECOGNISED_AT_ONCE):
                logits = predicted(student, weights, real.preprocessing.apply(real.images[some.to(problem.device)]))
                recognised = torch.cat([recognised, some[(logits.argmax(1) == label).cpu()]])[: problem.ipc]
                if len(recognised) == problem.ipc:
                    break
            order = order[~torch.isin(order, recognised)]
            if len(recognised) == problem.ipc:
                break
        lacking += problem.ipc - len(recognised)
        chosen.append(torch.cat([recognised, order[: problem.ipc - len(recognised)]]))
        yield Progressed(phase="distil", done=label + 1, total=real.classes, note="finding images to begin with")
    if lacking:
        yield Warned(
            message=f"No expert recognises enough images: {lacking} of the first synthetic ones are any others."
        )
    return real.images[torch.cat(chosen).to(problem.device)]


def soft_labels(
    problem: Problem, student: Student, experts: Trajectories, images: Tensor
) -> Generator[Notice, None, Tensor]:
    """What those experts that are right about an image say of it at their end, on average: (N, classes) logits.

    Where none is right, it is what all say, with the image's class and the one they take it for exchanged. (The
    released code divides by zero there.)
    """
    labels = problem.labels()
    of_right = torch.zeros(len(images), problem.real.classes, device=problem.device)
    of_all, right = of_right.clone(), of_right[:, :1].clone()
    for expert in range(len(experts)):
        logits = predicted(student, experts.weights(expert, experts.epochs), images)
        hits = (logits.argmax(1) == labels).unsqueeze(1)
        of_right += logits * hits
        of_all += logits
        right += hits
        yield Progressed(phase="distil", done=expert + 1, total=len(experts), note="asking the experts for labels")
    of_all /= len(experts)
    exchanged = of_all.clone()
    own, largest = labels.unsqueeze(1), of_all.argmax(1, keepdim=True)
    exchanged.scatter_(1, largest, of_all.gather(1, own)).scatter_(1, own, of_all.gather(1, largest))
    return torch.where(right > 0, of_right / right.clamp_min(1), exchanged)


@torch.no_grad()
def predicted(student: Student, weights: Tensor, images: Tensor) -> Tensor:
    """(N, classes) logits."""
    return torch.cat([student.logits(weights, some) for some in images.split(RECOGNISED_AT_ONCE)])
