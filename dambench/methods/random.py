"""Random subset: IPC random real images per class.

The floor that every method must clear under the same protocol. (On CIFAR-10 at IPC 50 the literature prints 43.4
and 50.6 for it, under two protocols: it is to be run, never quoted.)

With a factor f above 1 each image is a mosaic of f² random real images of its class, reduced: what a mosaic alone is
worth, without anything learned.

With `teacher_epochs` above 0 the set names a teacher, trained as RDED's is: under the protocol `soft` networks are
trained with its labels, and what those alone are worth is seen (Qin et al., "A Label is Worth a Thousand Images in
Dataset Distillation", NeurIPS 2024). The images are the same as without.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

from msgspec import Meta

from dambench.core import config
from dambench.matching.teaching import teacher_of
from dambench.training.problem import Notice, Problem, State, Step

MATCHES_ON_NETWORK = False
TEACHES = True
REDUCED_PRECISION = False


class Options(config.Options, frozen=True):
    factor: config.Factor = 1
    teacher_epochs: Annotated[
        int, Meta(ge=0, le=10**4, description="epochs of a teacher that the set is to name; 0: it names none")
    ] = 0


def needs_network(options: Options) -> bool:
    """A teacher is one."""
    return getattr(options, "teacher_epochs", 0) > 0


names_teacher = needs_network


def distill(problem: Problem, options: Options, resume: State | None = None) -> Iterator[Step | Notice]:
    """Choose once, without replacement; the run's seed decides."""
    factor = getattr(options, "factor", 1)  # a method from outside may bring options of its own
    made = problem.synthetic_set(problem.random_subset(factor), factor=factor)
    if needs_network(options):
        _, teacher = yield from teacher_of(problem, options.teacher_epochs)
        made = replace(made, teacher=teacher)
    yield Step(0, made)
