"""Evaluations of a sweep's sets: how each stands, what it takes, and how it comes into the queue."""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from dambench.cli.plans import MOST_LINES, SettledRun, Standing, named, standing_of
from dambench.cli.queueing import evaluation_of
from dambench.cli.store import open_store
from dambench.core.config import SetRef
from dambench.core.errors import BadInput
from dambench.core.sanitize import counted
from dambench.core.sweep_evaluators import SweepEvaluator
from dambench.core.units import duration
from dambench.store import runs as stored
from dambench.store.queue import PENDING, Queue, Queued
from dambench.store.records import QueuedRun
from dambench.store.runs import Store
from dambench.store.statistics import mean

if TYPE_CHECKING:
    from dambench.cli.plans import PlannedRun
    from dambench.engine.job import Job

NOT_MADE = SetRef("", 0)
"""A set that is still to be made, in the job of its evaluation: nothing that is settled depends on which it is."""


@dataclass
class PlannedEvaluation:
    """An evaluation of the set of a sweep's run."""

    of: SettledRun
    evaluator: SweepEvaluator
    job: "Job"
    standing: Standing = "new"
    run: str = ""
    """The run that does it, where there is one already."""
    seconds: float | None = None
    """What it would take, by others of the same evaluator on these data; None: there are none."""

    @property
    def what(self) -> str:
        """It in words: `robustness, method dm, ipc 10, seed 0`."""
        settings = named(self.of.point)
        return f"{self.evaluator.called}{f', {settings}' if settings else ''}, seed {self.of.point.seed}"


def plan(planned: "Sequence[PlannedRun]", path: Path) -> list[PlannedEvaluation]:
    """List what is to be measured of the sets of a sweep, in the order of its runs, evaluator after evaluator.

    Scores that compare a set with all real images are not asked of all real images.

    Raises:
        BadInput: a set cannot be measured so: nothing is begun then.
    """
    found: list[PlannedEvaluation] = []
    jobs: dict[str, Job] = {}
    for one in planned:
        if not isinstance(one, SettledRun):
            continue
        for evaluator in one.point.evaluators:
            key = json.dumps([one.kind, *evaluator.words])
            if key not in jobs:
                jobs[key] = _settled(one, evaluator)
            job = jobs[key].with_seed(one.point.seed)
            if one.job.method.name != "whole" or not job.evaluator.arms(job.config.protocol):
                found.append(PlannedEvaluation(one, evaluator, job))
    if found and stored.exists(path):
        with open_store(path) as store:
            look_up(store, found)
    return found


def _settled(one: SettledRun, evaluator: SweepEvaluator) -> "Job":
    from dambench import engine

    try:
        return engine.evaluation(one.job, evaluator.request, NOT_MADE, evaluator.choice)
    except BadInput as error:
        which = named(one.point)
        of = f" of the run with {which}" if which else ""
        raise BadInput(f"The evaluation by {evaluator.called}{of} cannot be: {error}", field=error.field) from None


def look_up(store: Store, evaluations: Sequence[PlannedEvaluation]) -> None:
    """Find evaluations that are done or begun already, and else what they would take."""
    expected: dict[str, float | None] = {}
    for one in evaluations:
        one.standing, one.run = "new", ""
        made = store.run(one.of.run) if one.of.standing == "done" else None
        if made is not None and made.set_sha256:
            done = store.finished(one.job.config, one.job.card, made.set_sha256)
            if done:
                one.standing, one.run = "done", done
                continue
            rows = store.runs(
                "config_sha256 = ? and dataset_sha256 = ? and state != 'finished' and deleted_at = '' and purpose = '' "
                f"and json_extract(config, '$.where.made') = ? order by {store.by_age(newest_first=True)}",
                *(one.job.config.sha256, one.job.card.sha256, made.set_sha256),
            )
            for row in rows[:1]:
                one.run, one.standing = row.id, standing_of(row)
        key = json.dumps([one.of.kind, *one.evaluator.words])
        if key not in expected:
            expected[key] = _past_seconds(store, one.job)
        one.seconds = expected[key]


def _past_seconds(store: Store, job: "Job") -> float | None:
    """The mean seconds of evaluations by the same evaluator and options of sets of these data and this IPC."""
    config = job.config
    rows = store.query(
        """
        select runs.number, runs.config, total(evaluations.seconds) as seconds from runs
            join evaluations on evaluations.run = runs.number
        where runs.state = 'finished' and runs.deleted_at = '' and runs.dataset_sha256 = ? and runs.ipc is ?
            and runs.protocol_sha256 = ? and evaluations.evaluator = ? and evaluations.final = 1
            and json_extract(runs.config, '$.evaluator.name') = ?
        group by runs.number
        """,
        *(job.card.sha256, config.ipc, config.protocol.sha256, config.evaluator.name, config.evaluator.name),
    )
    options, asked = msgspec.to_builtins(config.evaluator.options), (list(config.evaluate_on), config.eval_repeats)
    seconds = []
    for row in rows:
        theirs = json.loads(row["config"])
        if (
            theirs["evaluator"].get("options", {}) == options
            and (theirs["evaluate_on"], theirs["eval_repeats"]) == asked
        ):
            seconds.append(float(row["seconds"]))
    return mean(seconds) if seconds else None


def sentences(evaluations: Sequence[PlannedEvaluation], planned: "Sequence[PlannedRun]") -> list[str]:
    """What is measured by each evaluator, how much of that is done, and what the rest takes.

    Args:
        planned: all runs of the sweep.
    """
    lines = []
    unknown = Counter(one.called for run in planned if not isinstance(run, SettledRun) for one in run.point.evaluators)
    groups: dict[str, list[PlannedEvaluation]] = {}
    for one in evaluations:
        groups.setdefault(one.evaluator.called, []).append(one)
    for called, group in list(groups.items())[:MOST_LINES]:
        left = [one for one in group if one.standing != "done"]
        known = [one.seconds for one in left if one.seconds is not None]
        standings = Counter(one.standing for one in left if one.standing != "new")
        rest = "".join(f", {number} {standing}" for standing, number in standings.items())
        takes = ""
        if left:
            few = "" if len(known) == len(left) else f" for {len(known)} of {len(left)}"
            takes = f"; by past ones about {duration(sum(known))}{few}" if known else "; – (none is known yet)"
        done = f"{len(group) - len(left)} done already{rest}"
        lines.append(f"Then measured of each set: {called}, {counted(len(group), 'evaluation')}, {done}{takes}.")
    for called, count in list(unknown.items())[:MOST_LINES]:
        lines.append(f"Then measured of each set: {called}; for {counted(count, 'run')} the data are not prepared yet.")
    return lines


def as_json(evaluations: Sequence[PlannedEvaluation]) -> list[dict[str, Any]]:
    """The plan for programs."""
    return [
        {
            "evaluator": one.evaluator.choice.name,
            "options": dict(one.evaluator.choice.options),
            **dict(one.evaluator.given),
            "settings": dict(one.of.point.settings),
            "seed": one.of.point.seed,
            "of": one.of.run or None,
            "standing": one.standing,
            "run": one.run or None,
            "seconds": one.seconds,
        }
        for one in evaluations
    ]


def that_fit(
    evaluations: Sequence[PlannedEvaluation], taken: "Sequence[PlannedRun]", seconds: float, at_once: int
) -> tuple[list[PlannedEvaluation], list[str]]:
    """Choose those that fit what a budget has left after the runs, in their order. What has no estimate does not.

    Args:
        taken: the runs that fit.
        seconds: that are left.

    Returns:
        Those that fit or are done; and a sentence about the others.
    """
    mine = {id(one) for one in taken}
    kept, out, spent = [], 0, 0.0
    for one in evaluations:
        there = one.of.standing == "done" or id(one.of) in mine
        if one.standing == "done":
            kept.append(one)
        elif there and one.seconds is not None and spent + one.seconds / at_once <= seconds:
            spent += one.seconds / at_once
            kept.append(one)
        else:
            out += 1
    left = (
        [f"Left out: {counted(out, 'evaluation')} that do not fit after the runs, or have no estimate."] if out else []
    )
    return kept, left


def queue_evaluations(
    store: Store,
    evaluations: Sequence[PlannedEvaluation],
    queued: Mapping[str, Queued],
    tag: str,
    threads: int,
    standings: Collection[str],
) -> list[str]:
    """Queue the evaluations that are missing, each after the run that makes its set, all or none.

    Args:
        queued: the runs of the sweep that are in the queue, by their key there.
        threads: of one that follows no queued run.
        standings: of those that are made.

    Returns:
        Their uids in the queue.
    """
    queue = Queue(store)
    known = {one.run: one for one in queue.all("command = 'evaluate'")}
    new: list[QueuedRun] = []
    again: dict[str, str] = {}
    for one in evaluations:
        if one.standing not in standings:
            continue
        made = queued.get(f"{one.of.sha256} {one.of.job.card.sha256}")
        source = made if made is not None else store.run(one.of.run) if one.of.standing == "done" else None
        if source is None:
            continue
        words = [*one.evaluator.words, "--tag", tag]
        count = one.of.point.request.threads or (made.threads if made is not None else threads)
        ahead = evaluation_of(queue, source, words, count, tag=tag, seconds=one.seconds, settings=_settings(one))
        row = store.run(one.run) if one.run else None
        if row is not None and one.standing in ("to resume", "failed"):
            over = known.get(row.uid)
            if over is not None and over.state not in PENDING:
                again[over.uid] = row.uid
                continue
            if over is None:
                ahead = msgspec.structs.replace(ahead, uid=row.uid, id=row.id, run=row.uid)
        elif row is not None and row.uid not in known:
            continue  # another process carries it out
        new.append(ahead)
    added = queue.add(new, again)
    return [one.uid for one in (*added.new, *added.there)]


def _settings(one: PlannedEvaluation) -> dict[str, Any]:
    return {axis: value for axis, value in one.of.point.settings.items() if value is not None}
