"""Requests as queued runs, and the queue's work in the foreground."""

import os
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from dambench.cli.executors import Chosen
from dambench.cli.output import say
from dambench.cli.plans import SettledRun, job_of
from dambench.cli.process import Foreground
from dambench.cli.shared_work import experts_first
from dambench.core import config, cores, files
from dambench.core import sweep as grids
from dambench.core.config import Request
from dambench.core.errors import BadInput
from dambench.core.sanitize import counted
from dambench.core.sweep import Point
from dambench.runner import processes
from dambench.runner.executors.devices import named_devices
from dambench.runner.worker import WorkDone, Worker
from dambench.store.queue import PENDING, Added, Queue, Queued
from dambench.store.records import QueuedRun
from dambench.store.rows import RunRow
from dambench.store.runs import Store

if TYPE_CHECKING:
    from dambench.engine.job import Job


def threads_of_one(workers: int | None) -> int:
    """How many threads a run gets that does not say it: as it would have alone, shared among those at once."""
    return max(1, cores.usable() // (workers or 1))


def to_queue(queue: Queue, job: "Job", request: Request, threads: int, **facts: Any) -> QueuedRun:
    """A run that can begin, as it is queued. `facts` are more fields of it."""
    data = request.data or os.environ.get("DAMBENCH_DATA") or None
    if data:  # who begins it may be elsewhere
        request = msgspec.structs.replace(request, data=str(files.user_path(data).absolute()))
    settled, asked = job.config, request.device or "auto"
    return queue.new(
        grids.file_of(request),
        **{
            "method": settled.method.name,
            "dataset": job.card.label,
            "ipc": settled.ipc,
            "network": settled.network,
            "protocol": settled.protocol.label,
            "seed": settled.seed,
            "key": f"{settled.sha256} {job.card.sha256}",
            "threads": request.threads or threads,
            "device": "" if asked.lower() == "auto" else settled.execution.device,
            **facts,
        },
    )


def queue_settled(store: Store, settled: Sequence[SettledRun], tag: str, threads: int, priority: int = 0) -> Added:
    """Queue runs of a plan, all or none: those that have begun already are gone on with.

    Returns:
        What is in the queue now for them.
    """
    queue = Queue(store)
    runs: list[tuple[QueuedRun, Job]] = []
    again: dict[str, str] = {}
    rows = {
        row.id: row for row in store.runs("id in (select value from json_each(?))", _json([one.run for one in settled]))
    }
    known = {one.run: one for one in queue.all()}
    for one in settled:
        row = rows.get(one.run)
        if row is not None and (over := known.get(row.uid)) is not None:
            if over.state not in ("waiting", "taken"):
                diverged = row.diverged_at is not None and row.state == "failed"
                again[over.uid] = secrets.token_hex(16) if diverged else row.uid
                continue
            there = to_queue(queue, one.job, one.point.request, threads, tag=tag)  # its key is in the queue
            runs.append((there, one.job))
            continue
        new = to_queue(
            queue,
            one.job,
            one.point.request,
            threads,
            tag=tag,
            priority=priority,
            settings={axis: value for axis, value in one.point.settings.items() if value is not None},
            seconds=one.seconds,
            peak_memory_bytes=one.peak_bytes or None,
            disk_bytes=one.disk_bytes or None,
        )
        if row is not None and not (row.diverged_at is not None and row.state == "failed"):
            new = msgspec.structs.replace(new, uid=row.uid, id=row.id, run=row.uid)
        runs.append((new, one.job))
    return queue.add(experts_first(queue, runs, tag), again, known=_known_by_now(queue))


def _known_by_now(queue: Queue) -> dict[str, str]:
    """The keys of those that were queued before their data were prepared, as far as these are by now, by uid."""
    jobs: dict[str, Job | None] = {}
    keys = {}
    for one in queue.unknown():
        with suppress(BadInput):  # it cannot be any more: its process will say why
            request = config.read(Request, one.request, f"the queued run {one.id}")
            kind = msgspec.json.encode(msgspec.structs.replace(request, seed=0)).decode()
            if kind not in jobs:
                jobs[kind] = None
                jobs[kind] = job_of(Point({}, request), None)
            if (job := jobs[kind]) is not None:
                keys[one.uid] = f"{job.with_seed(request.seed or 0).config.sha256} {job.card.sha256}"
    return keys


def _json(values: Sequence[str]) -> str:
    return msgspec.json.encode(values).decode()


def carry_out(
    store: Store,
    where: Chosen,
    device: str,
    here: Foreground,
    only: Collection[str] | None = None,
    ended: Callable[..., None] = lambda queued, outcome: None,
    until: float | None = None,
) -> WorkDone:
    """Work on the queue in the foreground, until nothing is left, or a signal comes: then its runs are stopped.

    Args:
        until: when nothing more is begun, by the monotonic clock; None: never.

    Raises:
        BadInput: it cannot be done here, or by this dambench.
    """
    wishes = where.wishes(named_devices(device) if device else ())
    worker = Worker(store, where.executor, wishes, say, lambda: bool(here.signals.received), only, ended, until)
    with here.signals.kept_for_the_run():
        return worker.work()


def in_words(tally: WorkDone) -> str:
    """What a worker has done, in a sentence."""
    failed = f", {len(tally.failed)} failed" if tally.failed else ""
    if tally.hindered:
        waiting = f" {counted(len(tally.left), 'run')} wait." if tally.left else ""
        return f"{counted(len(tally.finished), 'run')} finished{failed}. {tally.hindered}{waiting}"
    left = f"; {counted(len(tally.left), 'run')} need a device that this worker has not" if tally.left else ""
    if tally.blocked:
        left += (
            f"; {counted(len(tally.blocked), 'run')} still waiting for others that failed or were paused or dropped "
            f"({', '.join(tally.blocked[:3])}{', …' if len(tally.blocked) > 3 else ''})"
        )
    return f"{counted(len(tally.finished), 'run')} finished{failed}{left}."


def words_of(given: Mapping[str, Any], evaluator: str, settings: Sequence[str]) -> list[str]:
    """The words after `dambench evaluate ID` that say the same as these options."""
    words = ["--evaluator", evaluator, *(word for pair in settings for word in ("--set", pair))]
    for option in config.options():
        value = given.get(option.name)
        if value is None:
            continue
        values = value if option.repeated else [",".join(value)] if isinstance(value, list) else [str(value)]
        words += [word for one in values for word in (option.flag, one)]
    return words


def evaluated(
    queue: Queue, prefix: str, words: Sequence[str], threads: int | None = None, priority: int = 0
) -> QueuedRun:
    """The evaluation of a run, or of a queued one that is to become a run, as it is queued.

    Raises:
        BadInput: there is no such run, or it has made no set and never will.
    """
    found = queue.all("id = ?", prefix) or queue.all("id >= ? and id < ?", prefix, f"{prefix}\U0010ffff")
    pending = [one for one in found if one.command == "run" and one.state in PENDING]
    if len(pending) == 1:
        (one,) = pending
        return evaluation_of(queue, one, words, threads or one.threads, tag=one.tag, priority=priority)
    row = queue.store.run(prefix)
    if row.state != "finished" or row.deleted_at:
        raise BadInput(f"The run {row.id} is {processes.state(row)}, and not in the queue: it will have no set.")
    return evaluation_of(queue, row, words, threads or 0, priority=priority)


def evaluation_of(queue: Queue, made: Queued | RunRow, words: Sequence[str], threads: int, **facts: Any) -> QueuedRun:
    """The evaluation of a set, as it is queued.

    Args:
        made: the run that has made it, or the queued one that is to make it.
        words: of the command after `dambench evaluate ID`.
        facts: more fields of it.
    """
    of = made.run if isinstance(made, Queued) else made.uid
    about = {name: getattr(made, name) for name in ("method", "dataset", "ipc", "network", "protocol", "seed")}
    evaluator = words[words.index("--evaluator") + 1]
    what = "evaluation" if evaluator == "accuracy" else evaluator
    about |= {"command": "evaluate", "method": f"{what} of {about['method']}"}
    about["key"] = f"evaluate {of} {msgspec.json.encode(list(words)).decode()}"
    if isinstance(made, Queued):
        about |= {"after": [made.uid], "device": made.device}
    return queue.new({"of": of, "words": list(words)}, threads=threads, **about | facts)
