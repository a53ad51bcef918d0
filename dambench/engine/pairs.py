"""Synthetic images beside the real ones nearest to them, to be looked at."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dambench.core.config import SetRef
from dambench.core.errors import BadInput
from dambench.engine.exports import pixels_of
from dambench.engine.job import Job, evaluation_context, open_parts
from dambench.engine.sets import load_set
from dambench.evaluators.privacy import neighbours


@dataclass(frozen=True)
class Pairs:
    """The images of a set, and a real one beside each."""

    columns: dict[str, NDArray[np.uint8]]
    """By what they are, (classes, images of each, H, W, C); the set itself is first."""


def pairs(job: Job, made: SetRef) -> Pairs:
    """Look for the real images nearest to those of a set, as the evaluator privacy does.

    Args:
        job: a finished run, as `reopen` gives it.
        made: its set.

    Raises:
        BadInput: it is all real images, or its classes have not as many images each.
    """
    job.policy.apply()
    parts = open_parts(job)
    synthetic = load_set(made.sha256, job, parts.train)
    if synthetic.whole:
        raise BadInput("The set is all real images, each its own neighbour: choose a run of another method.")
    context = evaluation_context(
        job, synthetic, parts, set_sha256=made.sha256, iteration=made.iteration, final=True, dry_run=True
    )
    found = neighbours(context)
    labels = synthetic.decoded().hard_labels.cpu()
    shown = pixels_of(synthetic.decoded())[0]
    places = [torch.nonzero(labels == label).squeeze(1) for label in range(len(synthetic.classes))]
    if len({len(of_class) for of_class in places}) > 1 or not len(places[0]):
        raise BadInput("The set has not as many images of each class, so that they cannot be shown class by class.")

    def rows(images: Tensor) -> NDArray[np.uint8]:
        return torch.stack([images.cpu()[of_class] for of_class in places]).permute(0, 1, 3, 4, 2).numpy()

    return Pairs({"synthetic": rows(shown)} | {name: rows(images) for name, images in found.items()})
