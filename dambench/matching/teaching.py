"""The training of teachers: networks that see all real images, and whose labels those of a set are replaced by.

RDED, SRe2L and random images take theirs from here, so that methods of one network, number of epochs and seed have the
same teacher, and differ in their images alone.
"""

from collections.abc import Generator

from dambench.core.protocol import DSA, Budget, Protocol
from dambench.matching.experts import expert
from dambench.training.problem import Network, Notice, Problem, Teacher
from dambench.training.teachers import UNTRAINED, keep_teacher

# What plug-ins may import: see docs/plugins.md.
__all__ = ["teacher_of", "teaching"]


def teaching(epochs: int) -> Protocol:
    """How teachers are trained: SGD .01/.9/5e-4, × .2 at 2/3 and 5/6, DSA, CutMix half the time."""
    drops = {epoch for epoch in (2 * epochs // 3, 5 * epochs // 6) if epoch}
    budget = Budget(epochs=epochs, drops=tuple(sorted(drops)))
    return Protocol(
        name="teacher",
        synthetic=budget,
        whole=budget,
        batch=128,
        decay=0.2,
        keeps_momentum=True,
        augmentation=DSA,
        mixing="cutmix",
        mixing_probability=0.5,
    )


def teacher_of(problem: Problem, epochs: int) -> Generator[Notice, None, tuple[Network, Teacher]]:
    """The problem's network, trained for so many epochs and kept, and what a set is to call it.

    Returns:
        The network is in evaluation mode, its weights frozen.
    """
    network = yield from expert(problem, teaching(epochs))
    if problem.dry_run:
        return network, Teacher(problem.network, UNTRAINED)
    return network, keep_teacher(network, problem.network, problem.card.classes, problem.real.preprocessing)
