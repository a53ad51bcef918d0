"""The items of an evaluation: which there are, which were measured before, and what the others would take."""

import time
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import cast

from msgspec import Struct

from dambench.core.errors import BadInput
from dambench.core.events import Measured, Progressed, Real, Warned
from dambench.core.items import Earlier, Item, Look, measured_nowhere
from dambench.core.sanitize import counted
from dambench.engine.halves import made_of_none, with_halves
from dambench.engine.job import Job, evaluation_context, measured, open_parts
from dambench.engine.sets import load_set
from dambench.evaluators import Context, Finding, Recall, forget

MEASURED_SECONDS = 8.0
"""About how long items are measured for an estimate, all kinds together."""

ITEM_BYTES = 4_000
"""About what the database grows by for an item, its metrics and the signs of life on the way."""


def items_of(job: Job, context: Context) -> list[Item]:
    """List what the job's evaluator will measure.

    Raises:
        BadInput: it cannot be measured of this set; or the evaluator is from outside, and lists no proper items.
    """
    name = job.evaluator.name
    items = list(job.evaluator.items(context, job.evaluator_options))
    if not all(isinstance(item, Item) and item.cost > 0 for item in items):
        raise BadInput(f"The evaluator {name} listed something else than items with a cost above 0.")
    if not items or len({(item.subject, item.repeat) for item in items}) < len(items):
        raise BadInput(f"The evaluator {name} listed {'an item twice' if items else 'no items'}.")
    return items


@dataclass(frozen=True)
class TakenOver:
    """What need not be measured again."""

    events: list[Measured | Warned]
    """What this run has to say of it: what others have measured, and that they did."""
    values: dict[tuple[str, int], Mapping[str, Real]]
    """By subject and repeat, of all that is known."""


def taken_over(items: Sequence[Item], earlier: Sequence[Earlier], own: Collection[tuple[str, int]]) -> TakenOver:
    """Choose what was measured before.

    Args:
        earlier: what counts first, first.
        own: subjects and repeats that the run itself has measured.
    """
    wanted = {(item.subject, item.repeat): not item.summary for item in items}
    found: dict[tuple[str, int], Earlier] = {}
    for one in earlier:
        key = one.event.subject, one.event.repeat
        counts = key in own if not one.run else key not in own and wanted.get(key, False)
        if counts:
            found.setdefault(key, one)
    others = [one for one in found.values() if one.run]
    events: list[Measured | Warned] = [one.event for one in others]
    if others:
        runs = ", ".join(sorted({one.run for one in others}))
        events.append(
            Warned(
                message=f"{len(others)} of {counted(len(items), 'item')} were measured before in the same way, by the "
                f"{'run' if len({one.run for one in others}) == 1 else 'runs'} {runs}, and are taken over (--again "
                "measures all anew)."
            )
        )
    return TakenOver(events, {key: one.event.values for key, one in found.items()})


class EvaluationEstimate(Struct, frozen=True, kw_only=True):
    """What an evaluation would measure, and what that would take."""

    items: int
    known: int
    """How many of them were measured before, and are taken over."""
    seconds: float
    """For those that are left."""
    kinds: dict[str, int]
    """How many of each kind are left."""
    item_seconds: dict[str, float]
    """By kind, the mean over those that are left."""
    peak_memory_bytes: int
    """The allocator's on a GPU, resident memory of the process on a CPU, over what was measured."""
    disk_bytes: int
    notes: list[str] = []
    """Warnings of the evaluator."""


def outlook(
    job: Job,
    set_sha256: str,
    recall: Recall = forget,
    earlier: Look = measured_nowhere,
    *,
    seconds: float = MEASURED_SECONDS,
    past: Mapping[str, float] | None = None,
) -> EvaluationEstimate:
    """Measure one item of each kind that is left, and say what all of them would take. Nothing is kept.

    Args:
        job: an evaluation of a set that there is.
        seconds: about how long is measured; 0: nothing is, and only items and refusals are looked at.
        past: by subject, the seconds that one took in runs of the past: a kind that has some need not be measured.

    Raises:
        BadInput, NotEnoughMemory: as the run would fail.
    """
    assert job.config.execution.made
    job.policy.apply()
    parts = open_parts(job)
    context = evaluation_context(
        job,
        load_set(set_sha256, job, parts.train),
        parts,
        set_sha256=set_sha256,
        iteration=job.config.execution.made_after,
        final=True,
        recall=recall,
        dry_run=True,
    )
    context = with_halves(job, context, made_of_none)
    items = items_of(job, context)
    before = taken_over(items, earlier(set_sha256), ())
    left = [item for item in items if (item.subject, item.repeat) not in before.values]
    kinds: dict[str, list[Item]] = {}
    for item in left:
        kinds.setdefault(item.kind, []).append(item)
    notes: list[str] = []
    job.policy.restart_peak()
    per_kind: dict[str, float] = {}
    for kind, group in kinds.items():
        cost = sum(item.cost for item in group)
        known = [
            (past[item.subject], item.cost) for item in items if past and item.kind == kind and item.subject in past
        ]
        if known:
            per_kind[kind] = sum(each for each, _ in known) / sum(each for _, each in known) * cost
        elif seconds:
            least = min(group, key=lambda item: item.cost)
            limit = seconds / len(kinds)
            per_kind[kind] = _seconds_of(job, context, items, least, limit, notes) / least.cost * cost
    return EvaluationEstimate(
        items=len(items),
        known=len(before.values),
        seconds=sum(per_kind.values()),
        kinds={kind: len(group) for kind, group in kinds.items()},
        item_seconds={kind: whole / len(kinds[kind]) for kind, whole in per_kind.items()},
        peak_memory_bytes=job.policy.peak_bytes(),
        disk_bytes=len(items) * ITEM_BYTES,
        notes=list(dict.fromkeys(notes)),
    )


def _seconds_of(job: Job, context: Context, items: Sequence[Item], item: Item, limit: float, notes: list[str]) -> float:
    """Measure how long an item takes: to its end, or extrapolated from its progress after some seconds."""
    done = {(one.subject, one.repeat) for one in items} - {(item.subject, item.repeat)}
    whole = sum(one.cost for one in items)
    first: tuple[float, int] | None = None
    began = time.perf_counter()
    with closing(cast(Generator[Finding, None, None], measured(job, context, done))) as findings:
        for event in findings:
            if (
                isinstance(event, Warned) and not item.summary
            ):  # of items that are not known a summary says nothing true
                notes.append(event.message)
            if isinstance(event, Measured):
                return time.perf_counter() - began
            if not isinstance(event, Progressed):
                continue
            job.policy.synchronise()
            now = time.perf_counter()
            if first is None:  # what is done once for all items is no measure of them
                first = now, event.done
            elif event.done > first[1] and now - began > limit:
                return (now - first[0]) / (event.done - first[1]) * event.total * item.cost / whole
    return time.perf_counter() - began
