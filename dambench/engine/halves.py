"""Sets made anew from random halves of the training images: the runs that make them, and what they made."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec
import torch

from dambench import datasets
from dambench.core import registry
from dambench.core.config import Choice, HeldOut
from dambench.core.errors import BadInput
from dambench.core.protocol import HoldOut
from dambench.core.sanitize import display
from dambench.engine.job import Job, starting_images
from dambench.engine.sets import load_set
from dambench.evaluators import Context, Half, Halves
from dambench.training.problem import derived_seed

SEEDS = 2**31
"""Seeds of halves are below it."""


MadeOfHalves = Callable[[], Sequence[str]]
"""Gives the SHA-256 of the sets that were made anew, in the order of `half_jobs`; empty: it is not there."""


def made_of_none() -> Sequence[str]:
    """Know of no sets that were made from halves."""
    return ()


def with_halves(job: Job, context: Context, made: MadeOfHalves) -> Context:
    """Give an evaluator that needs them the sets that were made anew from halves."""
    if not job.evaluator.halves(job.evaluator_options):
        return context
    return replace(context, not_anew=not_anew(job), halves=lambda: open_halves(job, made()))


def not_anew(job: Job) -> str:
    """The reason why the set of a run cannot be made anew from half of the images, as a clause; empty: it can."""
    config, smallest = job.config, min(job.card.train_counts)
    if not job.method.USES_TRAINING_SET:
        return "it was imported, and how it was made is not known"
    if getattr(job.options, "experts_from", ""):
        return "its experts were trained elsewhere, and may have seen all training images"
    left = smallest - smallest // 2
    if smallest < 2 or (config.ipc or 0) > left:
        class_name = display(job.card.classes[job.card.train_counts.index(smallest)], 60)
        return (
            f"{config.method.name} takes {config.ipc or 1} images per class, and half of class {class_name!r} of "
            f"{job.card.label} are {left if smallest > 1 else 0}"
        )
    return ""


def half_jobs(job: Job) -> list[Job]:
    """The runs that make the set of a run anew, each from another half of the training images, under its own seed.

    A half is drawn as validation images are: as many of each class are left out. Both it and the run's seed come from
    the seed of the run whose set it is, so that sets of several seeds are attacked by different ones. Each trains one
    network on its set, as a run does.

    Args:
        job: the evaluation.

    Returns:
        As many as the evaluator needs; none, if it cannot be made anew.
    """
    count = 0 if not_anew(job) else job.evaluator.halves(job.evaluator_options)
    evaluator = registry.load("evaluators", "accuracy")
    made: list[Job] = []
    for number in range(count):
        seed = derived_seed(job.config.seed, "half", number) % SEEDS
        config = msgspec.structs.replace(
            job.config,
            seed=seed,
            held_out=_half(job, seed),
            evaluate_on=job.config.evaluate_on[:1],
            eval_repeats=1,
            evaluator=Choice(evaluator.name),
            evaluator_version=evaluator.VERSION,
            plugins=tuple(plugin for plugin in job.config.plugins if plugin.kind != "evaluators"),
            execution=msgspec.structs.replace(job.config.execution, stack=1, made="", made_after=0),
        )
        made.append(
            replace(
                job,
                config=config,
                evaluator=evaluator,
                evaluator_options=evaluator.Options(),
                policy=replace(job.policy, stack=1),
                notes=[],
            )
        )
    return made


def _half(job: Job, seed: int) -> HeldOut:
    return datasets.hold_out(job.card, HoldOut(images=sum(job.card.train_counts), share=0.5, seed=seed))


def open_halves(job: Job, sets: Sequence[str]) -> Halves:
    """Open the sets that were made from halves, and all training images.

    Args:
        sets: their SHA-256, of those that there are, in the order of `half_jobs`; empty: it was not made.

    Raises:
        BadInput: some are missing.
    """
    jobs, config = half_jobs(job), job.config
    real = datasets.open_parts(job.card, job.policy.device, config.preprocessing).train
    if missing := len(jobs) - sum(map(bool, sets)):
        raise BadInput(
            f"{missing} of the {len(jobs)} sets are missing that were to be made anew from halves of the training "
            f"images: `dambench evaluate ID --evaluator {job.evaluator.name}` makes them first."
        )
    halves: list[Half] = []
    for half_job, sha256 in zip(jobs, sets, strict=True):
        held_out = half_job.config.held_out
        assert held_out is not None
        kept, _ = datasets.split_places(job.card, held_out)
        parts = datasets.open_parts(job.card, job.policy.device, config.preprocessing, held_out)
        inside = torch.zeros(len(real.images), dtype=torch.bool)
        inside[kept] = True
        synthetic = load_set(sha256, half_job, parts.train)
        start = starting_images(half_job, parts.train)
        places = None if start is None else kept.to(start.device)[start]
        halves.append(Half(synthetic, f"{sha256} {held_out.sha256}", inside.to(job.policy.device), places))
    return Halves(real, tuple(halves))
