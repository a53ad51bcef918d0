"""The sets that an evaluator needs made anew from random halves of the training images, each by a run of its own."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dambench.cli.follow_up import record_follow_up
from dambench.cli.process import Foreground
from dambench.core.config import Request
from dambench.core.sanitize import counted
from dambench.core.units import duration
from dambench.store.records import Purpose
from dambench.store.runs import Store

if TYPE_CHECKING:
    from dambench.engine.estimate import RunEstimate
    from dambench.engine.job import Job

NO_EVIDENCE: Purpose = "tuning"
"""As runs that choose settings, those of halves are in no table unless they are asked for."""
TAG = "half"


def record_halves(store: Store, job: "Job", request: Request, here: Foreground) -> int:
    """Make the sets that are not there, and say before how long that will take.

    Args:
        job: the evaluation.

    Returns:
        The exit code of the first that did not finish.
    """
    from dambench.engine.halves import half_jobs, not_anew

    if not job.evaluator.halves(job.evaluator_options):
        return 0
    name, missing, every = job.evaluator.name, missing_halves(store, job), len(half_jobs(job))
    if reason := not_anew(job):
        here.watch.say(f"{name}: the set is not made anew from halves of the training images: {reason}.")
    elif not missing:
        here.watch.say(f"{name}: all {every} sets that are made anew from halves of the training images are on record.")
    else:
        seconds = len(missing) * sum(estimate_of(missing[0]).seconds.values())
        here.watch.say(
            f"{name} has the set made anew from {every} random halves of the training images, of which "
            f"{every - len(missing)} are on record; {counted(len(missing), 'run')} to make: about {duration(seconds)}."
        )
    for number, half in enumerate(missing, 1):
        what = f"a set made anew from half of the training images, {number} of {len(missing)}"
        recipe = half.recipe.source if half.recipe else ""
        tags = [*(request.tags or []), TAG]
        _, code = record_follow_up(store, half, here, what, tags=tags, recipe=recipe, purpose=NO_EVIDENCE)
        if code:
            return code
    return 0


def estimate_of(half: "Job") -> "RunEstimate":
    """Measure a few steps of one of the runs: all are alike."""
    from dambench.engine.estimate import estimate

    return estimate(half)


def missing_halves(store: Store, job: "Job") -> "list[Job]":
    """The runs that have not made their sets yet."""
    from dambench.engine.halves import half_jobs

    return [half for half in half_jobs(job) if store.finished(half.config, half.card, purpose=NO_EVIDENCE) is None]


def made_of_halves(store: Store, job: "Job") -> Sequence[str]:
    """Look up the sets that were made: their SHA-256; empty: it is not there."""
    from dambench.engine.halves import half_jobs

    found = [store.finished(half.config, half.card, purpose=NO_EVIDENCE) for half in half_jobs(job)]
    return [(store.run(run).set_sha256 or "") if run else "" for run in found]
