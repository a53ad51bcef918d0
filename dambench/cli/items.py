"""The items of an evaluation: what of them is on record, what the others take, and what is said of it."""

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from dambench.cli.arms import missing_arms
from dambench.cli.halves import estimate_of, missing_halves
from dambench.cli.output import complain, table
from dambench.core import registry
from dambench.core.config import SetRef
from dambench.core.errors import NotEnoughMemory
from dambench.core.items import Earlier, Look, measured_nowhere
from dambench.core.sanitize import counted, display
from dambench.core.units import duration, size
from dambench.store.earlier import Machine, earlier, made_seconds, past_seconds
from dambench.store.recall import recall
from dambench.store.runs import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dambench.engine.items import EvaluationEstimate
    from dambench.engine.job import Job

SHORT_SECONDS = 2.0
"""About how long items are measured before an evaluation begins of whose kind none is on record."""


def look_for(store: Store, job: "Job", run: str, *, again: bool = False) -> Look:
    """Look up what was measured before of the set that a job evaluates.

    Args:
        run: the id of the run that asks; empty: it has not begun.
        again: leave out what other runs have measured.
    """
    if not job.config.evaluates:
        return measured_nowhere
    found = earlier(
        store,
        job.config,
        job.card.sha256,
        run,
        repeatable=job.evaluator.REPEATABLE,
        machine=machine_of(job),
    )

    def look(set_sha256: str) -> "Sequence[Earlier]":
        return [one for one in found(set_sha256) if not (again and one.run)]

    return look


def timed(store: Store, job: "Job") -> "Job":
    """The evaluation of a set, with what making it took, if that was on this machine."""
    if job.evaluator.REPEATABLE:
        return job
    execution = job.config.execution
    took = made_seconds(store, execution.made, machine_of(job))
    known = msgspec.structs.replace(execution, made_seconds=took)
    return replace(job, config=msgspec.structs.replace(job.config, execution=known))


def machine_of(job: "Job") -> Machine:
    from dambench.training.environment import environment

    job.policy.apply()
    here = environment(job.policy, "")
    return here.device_name, here.threads


def outlook_of(
    store: Store, job: "Job", made: SetRef, *, again: bool, seconds: float, past: bool
) -> "EvaluationEstimate":
    """Say what an evaluation would measure, and what that would take.

    Args:
        seconds: about how long items are measured, of kinds of which none is on record.
        past: whether seconds on record count.

    Raises:
        BadInput, NotEnoughMemory: as the evaluation would fail.
    """
    from dambench.engine.items import outlook

    with registry.stdout_to_stderr(), registry.guarded("evaluators", job.evaluator.name):
        return outlook(
            job,
            made.sha256,
            recall(store, job.config, job.card.sha256),
            look_for(store, job, "", again=again),
            seconds=seconds,
            past=past_seconds(store, job.config, job.card.sha256, machine_of(job)) if past else None,
        )


def announced(store: Store, job: "Job", made: SetRef, *, again: bool) -> str:
    """What is said before an evaluation begins: its items, how many are on record, and how long the others take.

    Raises:
        BadInput: it cannot be.
    """
    arms = bool(job.evaluator.arms(job.config.protocol))
    past = not arms and not job.evaluator.SHARES
    seen = outlook_of(store, job, made, again=again, seconds=0 if arms else SHORT_SECONDS, past=past)
    left = seen.items - seen.known
    known = f", {seen.known} of them measured before" if seen.known else ""
    takes = f": about {duration(seen.seconds)}" if left and seen.item_seconds else ""
    return f"{job.evaluator.name} measures {counted(seen.items, 'item')}{known}{takes}"


def print_outlook(store: Store, job: "Job", made: SetRef, *, again: bool, as_json: bool) -> int:
    """Measure an item of each kind, and print what all of them would take; nothing is kept.

    Raises:
        BadInput: it cannot be.
    """
    from dambench.engine.estimate import estimate

    arms = missing_arms(store, job, made)
    try:
        seen = outlook_of(store, job, made, again=again, seconds=0 if arms else 8.0, past=False)
        with registry.stdout_to_stderr():
            each = {arm.name: estimate(arm_job) for arm, arm_job in arms if arm_job is not None}
    except NotEnoughMemory as error:
        return complain(str(error), 1)
    arm_seconds = {name: sum(measured.seconds.values()) for name, measured in each.items()}
    half_seconds = 0.0
    if halves := missing_halves(store, job):
        each["halves"] = estimate_of(halves[0])
        half_seconds = len(halves) * sum(each["halves"].seconds.values())
    total = seen.seconds + sum(arm_seconds.values()) + half_seconds
    peak = max([seen.peak_memory_bytes, *(max(one.peak_memory_bytes.values()) for one in each.values())])
    disk = seen.disk_bytes + sum(one.disk_bytes for one in each.values())
    if as_json:
        more = {
            "arms": arm_seconds,
            "halves_seconds": half_seconds,
            "total_seconds": total,
            "peak_memory_bytes": peak,
            "disk_bytes": disk,
        }
        print(json.dumps({"evaluator": job.evaluator.name} | msgspec.to_builtins(seen) | more))
        return 0
    rows = [["items", str(seen.items), f"{seen.known} measured before, which are taken over" if seen.known else ""]]
    if len(seen.kinds) > 1 or any(seen.kinds):
        rows += [
            [f"  {display(kind or 'others', 60)}", str(count), _each(seen.item_seconds.get(kind))]
            for kind, count in seen.kinds.items()
        ]
    rows += [
        *(
            [f"  arm {name}", duration(seconds), "measured first, by a run of its own"]
            for name, seconds in arm_seconds.items()
        ),
        *(
            [["  sets from halves", duration(half_seconds), f"measured first, by {counted(len(halves), 'run')}"]]
            if halves
            else []
        ),
        ["in all", duration(total), "" if len(seen.kinds) > 1 else _each(next(iter(seen.item_seconds.values()), None))],
        ["peak memory", size(peak), ""],
        ["disk", size(disk), "about what the database grows by"],
        *(["", "", display(note, 400)] for note in seen.notes),
    ]
    table(["", "estimate", "from one measured item of each kind; nothing was kept"], rows)
    return 0


def _each(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.3g} s each"
