"""The accuracies that a score is made of: the missing ones are measured first, by runs of their own."""

from typing import TYPE_CHECKING

from dambench.cli.follow_up import record_follow_up
from dambench.cli.process import Foreground
from dambench.core.arms import Arm
from dambench.core.config import Request, SetRef
from dambench.core.errors import BadInput
from dambench.core.sanitize import counted
from dambench.store.recall import recall
from dambench.store.runs import Store

if TYPE_CHECKING:
    from dambench.engine.job import Job


def record_arms(store: Store, job: "Job", made: SetRef, request: Request, here: Foreground) -> int:
    """Measure the arms of an evaluation that are not on record, each as a run that others can use, too.

    Args:
        job: of the evaluation.
        made: the set that is evaluated.

    Returns:
        The exit code of the first that did not finish.

    Raises:
        BadInput: there can be no such arms.
    """
    arms, missing = job.evaluator.arms(job.config.protocol), missing_arms(store, job, made)
    if arms:
        networks = len(job.config.evaluate_on) * job.config.eval_repeats * len(missing)
        todo = ", ".join(f"{arm.of} under {arm.protocol.label}" for arm, _ in missing)
        here.watch.say(
            f"{job.evaluator.name} compares {len(arms)} arms: {len(arms) - len(missing)} are on record"
            + (f"; {counted(networks, 'network')} to train for {todo}." if missing else ".")
        )
    for arm, arm_of in missing:
        what = f"an arm of {job.evaluator.name}: {arm.of} under {arm.protocol.label}"
        recipe = arm_of.recipe.source if arm_of.recipe else ""
        _, code = record_follow_up(store, arm_of, here, what, tags=request.tags or [], recipe=recipe)
        if code:
            return code
    return 0


def missing_arms(store: Store, job: "Job", made: SetRef) -> list[tuple[Arm, "Job"]]:
    """The arms of an evaluation that are not on record, each with the run that measures it.

    Raises:
        BadInput: there can be no such arms.
    """
    from dambench.engine.arms import arm_job

    arms = job.evaluator.arms(job.config.protocol)
    if arms and job.config.ipc is None:
        raise BadInput(
            f"The evaluator {job.evaluator.name} compares a synthetic set with all real images, and these are all of "
            "them."
        )
    jobs = {arm: arm_job(job, arm) for arm in arms}
    known = recall(store, job.config, job.card.sha256)

    def is_on_record(arm: Arm) -> bool:
        arm_of = jobs[arm]
        if arm_of is None:
            return True  # the evaluation measures it itself
        if arm.of == "random":
            return store.finished(arm_of.config, job.card) is not None
        sha256 = made.sha256 if arm.of == "set" else job.card.sha256
        return all(
            known(sha256, arm.protocol.sha256, network, repeat) is not None
            for network in job.config.evaluate_on
            for repeat in range(job.config.eval_repeats)
        )

    missing = {(arm.of, arm.protocol.sha256): arm for arm in reversed(arms) if not is_on_record(arm)}
    return [(arm, found) for arm in reversed(missing.values()) if (found := jobs[arm]) is not None]
