"""`dambench sweep`: all runs of a grid, and again only what is missing: a plan, the queue, and work on it."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

from typer import Argument

from dambench.cli import estimates, measuring, plans
from dambench.cli.budget import LEAST, SHARE, Fitting, fit, patience_of, seconds_of
from dambench.cli.executors import DEFAULT, Chosen, executor_options
from dambench.cli.measuring import PlannedEvaluation
from dambench.cli.options import Budget, Db, Devices, DryRun, Hook, Json, OnlyQueue, Retry
from dambench.cli.output import say
from dambench.cli.plans import PlannedRun, SettledRun
from dambench.cli.process import Foreground, foreground
from dambench.cli.queueing import carry_out, in_words, queue_settled, threads_of_one
from dambench.cli.signals import EXIT_CODES
from dambench.cli.store import open_store
from dambench.core import sweep as grids
from dambench.core.sanitize import counted, display
from dambench.core.sweep import Sweep
from dambench.runner import hooks
from dambench.runner.executors.devices import gpus, named_devices, processors
from dambench.store import runs as stored
from dambench.store.queue import Queue, Queued
from dambench.store.runs import Store


@executor_options
def sweep(
    file: Annotated[Path, Argument(metavar="GRID.toml", help="[grid], [run] and [[skip]]: see docs/sweeps.md.")],
    dry_run: DryRun = False,
    queue: OnlyQueue = False,
    retry: Retry = False,
    budget: Budget = None,
    *,
    where: Chosen,
    device: Devices = "",
    hook: Hook = "",
    db: Db = None,
    as_json: Json = False,
) -> int:
    """Make all runs of a grid that are missing: the same command goes on after an interruption."""
    hooks.use(hook)
    grid = grids.read(file)
    path = db or stored.default_path()
    stored.check(path)
    return make(grid, path, Asked(dry_run, queue, retry, where, device, budget), as_json)


class Asked(NamedTuple):
    """What is to be done about a sweep or suite."""

    dry_run: bool
    queue: bool
    retry: bool
    where: Chosen
    device: str
    budget: str | None = None
    """As `8h`; None: everything."""


def make(grid: Sweep, path: Path, asked: Asked, as_json: bool) -> int:
    """Print the plan of a sweep or suite, or queue what is missing of it, or make that.

    Returns:
        The exit code: 0 all are finished, 1 some are not, else that of the signal.
    """
    began, budget = time.monotonic(), 0.0 if asked.budget is None else seconds_of(asked.budget)
    with foreground() as here:
        while True:
            code = _make_once(grid, path, asked, as_json, began, budget, here)
            if code is not None:
                return code
            say("Time is left: what had no estimate is measured now.")
            asked = asked._replace(retry=False)  # what failed once more is not tried again and again


def _make_once(
    grid: Sweep, path: Path, asked: Asked, as_json: bool, began: float, budget: float, here: Foreground
) -> int | None:
    """Make what fits, by what is known or can be measured soon.

    Args:
        began: when, by the monotonic clock.
        budget: seconds since then; 0: as many as it takes.

    Returns:
        The exit code; None: there is more to measure, and time to make it.
    """
    rest = max(0.0, budget - (time.monotonic() - began))
    patience = estimates.PATIENCE if asked.dry_run or not budget else patience_of(rest)
    share = SHARE if budget else 1.0 if asked.dry_run else 0.0
    unfit: list[str] = []
    planned = plans.plan(grid, path, None if asked.dry_run else here.watch.say, share * patience, unfit)
    evaluations = measuring.plan(planned, path)
    fitting = _fitting(planned, path, asked, budget, (1 - share) * patience, began) if budget else None
    limits = fitting.sentences() if fitting else []
    if fitting:
        evaluations, left = measuring.that_fit(evaluations, fitting.taken, fitting.rest, fitting.at_once)
        limits += left
    notes = [f"rule {number} of [[skip]] leaves nothing out" for number in grid.idle_rules]
    notes += [f"left out: {sentence}" for sentence in unfit]
    if as_json and asked.dry_run:
        facts = plans.as_json(grid, planned, notes, limits if fitting else None)
        print(json.dumps(facts | {"evaluations": measuring.as_json(evaluations)}))
        return 0
    for note in notes:
        say(f"note: {note}")
    if asked.dry_run:
        plans.print_plan(grid, planned)
        for line in (*measuring.sentences(evaluations, planned), *limits):
            print(line)
        return 0
    for line in (plans.summary(grid, planned)[0], *measuring.sentences(evaluations, planned), *limits):
        say(line)
    if fitting:
        planned = [*(one for one in planned if one.standing == "done"), *fitting.taken]
    elif any(one.seconds is None for one in planned if one.standing == "new"):
        say("How long this takes is not known: --dry-run tells it, and --budget 8h would make what fits.")
    with open_store(path, write=True) as store:
        uids = _queue(store, grid, planned, evaluations, asked.retry, asked.where)
        if asked.queue:
            say(f"{counted(len(uids), 'run')} queued: `dambench queue work` carries them out.")
            return 0
        until = began + budget if budget else None
        before = _done(planned)
        _work(store, grid, planned, evaluations, uids, asked, here, until)
        has_more = fitting is not None and bool(fitting.unknown) and _done(planned) > before
        if has_more and until and until - time.monotonic() >= LEAST and not here.signals.received:
            return None
        return _sum_up(store, grid, planned, evaluations, uids, here, until, as_json)


def _done(planned: Sequence[PlannedRun]) -> int:
    return sum(one.standing == "done" for one in planned)


def _fitting(
    planned: Sequence[PlannedRun], path: Path, asked: Asked, budget: float, patience: float, began: float
) -> Fitting:
    """What of a plan fits a budget, of which a plan alone spends nothing."""
    workers, local = asked.where.workers, asked.where.executor == DEFAULT
    devices = named_devices(asked.device) if asked.device else tuple(device.name for device in gpus()) if local else ()
    variants = plans.NamedRecipes(planned, path, patience)
    # Without a GPU as many as the processors have room for by the threads of each.
    at_once = workers or len(devices) or max(1, processors() // threads_of_one(None) if local else 1)
    return fit(
        planned,
        _to_make(asked.retry),
        budget,
        at_once,
        variants,
        lambda: 0.0 if asked.dry_run else time.monotonic() - began,
    )


def _to_make(retry: bool) -> tuple[str, ...]:
    """How runs stand that are made."""
    return ("new", "to resume", "running", *(["failed"] if retry else []))


def _queue(
    store: Store,
    grid: Sweep,
    planned: Sequence[PlannedRun],
    evaluations: Sequence[PlannedEvaluation],
    retry: bool,
    where: Chosen,
) -> list[str]:
    """Queue what is missing: runs all or none, then the evaluations of their sets. Returns the uids in the queue."""
    what = [(one.standing, f"{plans.named(one.point)}, seed {one.point.seed}", one.run) for one in planned]
    for standing, which, run in (*what, *((one.standing, one.what, one.run) for one in evaluations)):
        if standing == "failed" and not retry:
            say(f"{which}: run {run} has failed before; --retry tries it again")
    missing = [one for one in planned if isinstance(one, SettledRun) and one.standing in _to_make(retry)]
    # One at a time has all threads, as if it were alone; several share them.
    threads = threads_of_one(where.workers)
    added = queue_settled(store, missing, grid.tag, threads)
    _tag(store, grid, [*(one.run for one in planned if one.run), *(one.run for one in evaluations if one.run)])
    runs = (*added.new, *added.there)
    of_sets = measuring.queue_evaluations(
        store, evaluations, {one.key: one for one in runs}, grid.tag, threads, _to_make(retry)
    )
    return [*(one.uid for one in runs), *of_sets]


def _work(
    store: Store,
    grid: Sweep,
    planned: Sequence[PlannedRun],
    evaluations: Sequence[PlannedEvaluation],
    uids: Sequence[str],
    asked: Asked,
    here: Foreground,
    until: float | None,
) -> None:
    """Work on the sweep's own runs until all are over.

    Args:
        until: when none is begun any more, by the monotonic clock; None: never.
    """
    if uids and (tally := carry_out(store, asked.where, asked.device, here, frozenset(uids), until=until)).hindered:
        say(in_words(tally))
    plans.look_up(store, [one for one in planned if isinstance(one, SettledRun)])
    measuring.look_up(store, evaluations)
    _tag(store, grid, [*(one.run for one in planned if one.run), *(one.run for one in evaluations if one.run)])


def _sum_up(
    store: Store,
    grid: Sweep,
    planned: Sequence[PlannedRun],
    evaluations: Sequence[PlannedEvaluation],
    uids: Sequence[str],
    here: Foreground,
    until: float | None,
    as_json: bool,
) -> int:
    """Say what has come of a sweep.

    Returns:
        The exit code: 0 all are finished, 1 some are not, else that of the signal.
    """
    everything: list[PlannedRun | PlannedEvaluation] = [*planned, *evaluations]
    if here.signals.received:
        begun = [one.run for one in everything if one.standing == "to resume"]
        with_ = f", with run {', '.join(begun[:3])}" if begun else ""
        say(f"Stopped; the same command goes on{with_}.")
        return EXIT_CODES[here.signals.received]
    queue = Queue(store)
    late: list[Queued] = []
    if until is not None and time.monotonic() >= until:
        late = queue.drop([one.uid for one in queue.with_uids(uids) if one.state == "waiting"], "its budget was over")
        if late:
            say(f"The budget was over before {counted(len(late), 'run')} could begin: the same command goes on.")
    finished = [one for one in planned if one.standing == "done"]
    measured = [one for one in evaluations if one.standing == "done"]
    for one in queue.with_uids(uids):
        if one.state in ("failed", "paused", "dropped") and one.uid not in {each.uid for each in late}:
            say(f"{one.called}: {one.state}{f': {display(one.reason, 300)}' if one.reason else ''}")
    more = f" and {counted(len(measured), 'evaluation')}" if evaluations else ""
    say(f"{counted(len(finished), 'run')}{more} finished: dambench report --filter {grid.tag}")
    failed = [one.run for one in everything if one.standing != "done"]
    facts = {"sweep": grid.name, "runs": [one.run for one in planned], "failed": failed}
    facts |= {"evaluations": [one.run for one in evaluations]} if evaluations else {}
    if as_json:
        print(json.dumps(facts))
    hooks.ended("sweep", grid.name, "failed" if failed else "finished", store.path, facts, say)
    return 1 if failed else 0


def _tag(store: Store, grid: Sweep, runs: Sequence[str]) -> None:
    """Let runs that were there before belong to the sweep."""
    have = {row["id"] for row in store.query("select id from runs join tags on run = number where tag = ?", grid.tag)}
    for run in dict.fromkeys(runs):
        if run not in have:
            store.edit(run, "tag", grid.tag)
