"""`dambench queue`: what waits to be run, its order, and the workers that run it."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer
from typer import Argument, Option

from dambench.cli import plans
from dambench.cli.arguments import Commands
from dambench.cli.console import words_after_command
from dambench.cli.executors import Chosen, executor_options
from dambench.cli.options import Db, Devices, EvaluatorSettings, Json, Settings, asked_of, request_options
from dambench.cli.output import say, table
from dambench.cli.plans import SettledRun
from dambench.cli.process import foreground
from dambench.cli.queueing import carry_out, evaluated, in_words, queue_settled, threads_of_one, words_of
from dambench.cli.signals import EXIT_CODES
from dambench.cli.store import open_store
from dambench.core import config, registry
from dambench.core import sweep as grids
from dambench.core.errors import BadInput, named
from dambench.core.sanitize import counted, display
from dambench.core.sweep import Point
from dambench.core.units import duration
from dambench.runner import hooks, own_worker, processes
from dambench.store import runs as stored
from dambench.store.queue import Queue, Queued
from dambench.store.runs import Store

app = Commands(rich_markup_mode=None, help="Runs that wait for their turn, and workers that carry them out.")

MOST_LINES = 40
Ids = Annotated[list[str] | None, Argument(metavar="[ID…]", help="Of queued runs, or their beginnings.")]
All = Annotated[bool, Option("--all", help="All that this could be done to.")]
Reason = Annotated[str, Option("--reason", metavar="TEXT", help="Kept with them, and shown.")]


@app.command("list")
def list_(
    everything: Annotated[bool, Option("--all", help="Also what is finished or dropped, and every line.")] = False,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """What runs, what waits, in the order of its turn, and why; and the workers."""
    with open_store(db) as store:
        queue = Queue(store)
        workers = [(worker, processes.state(worker)) for worker in queue.workers()]
        alive = {worker.uid for worker, state in workers if state in processes.ALIVE}
        found = queue.all("1" if everything else "state not in ('finished', 'dropped')")
        rank = {state: n for n, state in enumerate(("taken", "waiting", "paused", "failed", "finished", "dropped"))}
        found.sort(key=lambda one: rank[one.state])
        counts = queue.counts()
        lines = [(one, _stands(store, queue, one, alive)) for one in (found if everything else found[:MOST_LINES])]
    if as_json:
        print(
            json.dumps(
                {
                    "counts": counts,
                    "workers": [
                        msgspec.to_builtins(worker) | {"state": state, "devices": json.loads(worker.devices)}
                        for worker, state in workers
                    ],
                    "runs": [msgspec.to_builtins(one) for one in found],
                }
            )
        )
        return
    table(
        ["id", "what", "stands", "priority", "expected"],
        [
            [
                display(one.id, 40),
                one.what,
                stands,
                one.priority or "",
                None if one.seconds is None else duration(one.seconds),
            ]
            for one, stands in lines
        ],
    )
    if len(found) > len(lines):
        print(f"… and {len(found) - len(lines)} more: --all.")
    print(", ".join(f"{number} {state}" for state, number in counts.items()) or "The queue is empty.", file=sys.stderr)
    for worker, state in workers:
        asked = {"drain": ", takes nothing more", "stop": ", stops what it runs"}.get(worker.asked, "")
        place = f"process {worker.pid} on {display(worker.host, 60)}"
        print(
            f"worker: {place}, {display(worker.executor, 20)}, {counted(worker.slots, 'run')} at once, {state}{asked}",
            file=sys.stderr,
        )


def _stands(store: Store, queue: Queue, one: Queued, alive: set[str]) -> str:
    """How a queued run stands, and why it does not go on."""
    reason = f": {display(one.reason, 100)}" if one.reason else ""
    if one.state == "taken":
        row = store.with_uid(one.run)
        gone = "" if one.worker in alive else "its worker is gone"
        waits = display(one.reason, 100)  # where its executor has handed it to somebody else
        if row is None:
            return gone or waits or "begins"
        state = processes.state(row)
        if waits and state not in processes.ALIVE:
            return f"{state}, {gone or waits}"
        far = f" {100 * row.done // row.total} %" if row.total and state in processes.ALIVE else ""
        return f"{state}{f' {row.phase}' if row.phase and far else ''}{far}" + (f", {gone}" if gone else "")
    row = store.with_uid(one.run)
    if one.state == "waiting" and row is not None and processes.state(row) in processes.ALIVE:
        return "its worker is gone, its process goes on"
    if one.state == "waiting" and (others := queue.waits_for(one)):
        return f"waits for {', '.join(display(other.id, 40) + f' ({other.state})' for other in others[:3])}"
    return f"{one.state}{reason}"


@app.command("add")
@request_options(lists=True)
def add(
    file: Annotated[
        Path | None, Argument(metavar="[FILE.toml]", help="A run's settings, or a sweep; flags go over the former.")
    ] = None,
    *,
    given: dict[str, Any],
    settings: Settings = None,
    priority: Annotated[int, Option(min=-1000, max=1000, help="Higher ones come first.")] = 0,
    workers: Annotated[
        int | None, Option("--workers", min=1, help="How many runs are to be at once: they share the threads.")
    ] = None,
    db: Db = None,
    as_json: Json = False,
) -> int:
    """Queue a run, one for each seed, or all runs of a sweep: all or nothing. What is finished is not queued again."""
    path = db or stored.default_path()
    stored.check(path)
    grid = None
    if file is not None and {"grid", "skip", "run"} & set(config.toml_in(file)):
        if settings or any(value is not None for value in given.values()):
            raise BadInput(f"{str(file)!r} is a sweep: its settings stand in it, and flags are for single runs.")
        grid = grids.read(file)
    with foreground() as here:
        if grid is not None:
            planned = plans.plan(grid, path, prepare=here.watch.say)
        else:
            requests, grid = asked_of(file, given, settings)
            points = tuple(Point({}, request) for request in requests)
            planned = plans.plan(grid or grids.Sweep("", (), points, len(points), ()), path, prepare=here.watch.say)
        settled = [one for one in planned if isinstance(one, SettledRun)]
        done = [one.run for one in settled if one.standing == "done"]
        missing = [one for one in settled if one.standing in ("new", "to resume")]
        with open_store(path, write=True) as store:
            added = queue_settled(store, missing, grid.tag if grid else "", threads_of_one(workers), priority)
    if as_json:
        facts = {"queued": [one.id for one in added.new], "there": [one.id for one in added.there], "done": done}
        print(json.dumps(facts))
        return 0
    for one in added.new:
        print(one.id)
    there = f", {len(added.there)} were there already" if added.there else ""
    over = f", {len(done)} are done: {', '.join(done[:3])}" if done else ""
    others = len(settled) - len(missing) - len(done)
    more = f", {others} run or have failed" if others else ""
    say(f"{counted(len(added.new), 'run')} queued{there}{over}{more}. `dambench queue work` carries them out.")
    return 0


@app.command("evaluate")
@request_options(
    evaluate_on="those of the run",
    eval_repeats="as the run",
    protocol="the run's",
    device="the run's",
    threads="the queued run's",
    name="",
    tags="",
)
def evaluate(
    ids: Annotated[list[str], Argument(metavar="ID…", help="Of runs, or of queued ones that are to become some.")],
    *,
    given: dict[str, Any],
    evaluator: Annotated[str, Option(help="What is measured of the set.")] = "accuracy",
    settings: EvaluatorSettings = None,
    priority: Annotated[int, Option(min=-1000, max=1000, help="Higher ones come first.")] = 0,
    db: Db = None,
) -> int:
    """Queue the evaluation of sets, as `dambench evaluate`: of a queued run once it has made its own."""
    named("evaluator", evaluator, registry.names("evaluators"))
    config.settings(settings or [], ("evaluator",))
    config.read(config.Request, config.overlay({}, given), "the request")
    words = words_of(given, evaluator, settings or [])
    with open_store(db) as store:
        for prefix in ids:
            evaluated(Queue(store), prefix, words)
    with open_store(db, write=True) as store:
        queue = Queue(store)
        runs = [evaluated(queue, prefix, words, threads=given["threads"], priority=priority) for prefix in ids]
        added = queue.add(runs)
    for one in added.new:
        print(one.id)
    there = f", {len(added.there)} were there already" if added.there else ""
    say(f"{counted(len(added.new), 'evaluation')} queued{there}. `dambench queue work` carries them out.")
    return 0


@app.command("work")
@executor_options
def work(
    context: typer.Context,
    where: Chosen,
    device: Devices = "",
    detached: Annotated[
        bool, Option("--detach", help="In the background, where a lost terminal ends nothing; one for a database.")
    ] = False,
    alone: Annotated[bool, Option(own_worker.ALONE, hidden=True)] = False,
    db: Db = None,
    as_json: Json = False,
) -> int:
    """Carry out what is queued, until nothing is left. Several at once share the work, on one host or on many."""
    hooks.use("")  # else each run would fail by the one that the environment names
    path = db or stored.default_path()
    if detached:
        stored.check(path)
        own = words_after_command(context)[1:]
        words = [word for word in own if word not in ("--detach", "--json", own_worker.ALONE)]
        worker = own_worker.start(path, without_db(words))
        print(json.dumps({"pid": worker.pid, "log": worker.log}) if as_json else worker.pid, flush=True)
        say(f"At work as process {worker.pid} ({worker.log}); `dambench queue stop` lets it take nothing more.")
        return 0
    with foreground() as here, open_store(path, write=True, make=False) as store:
        held = own_worker.lock(path) if alone else None
        tally = carry_out(store, where, device, here)
        received = here.signals.received
        if held is not None:
            held.release()
    say(in_words(tally) + (" Stopped; what it had begun waits with a checkpoint." if received else ""))
    if as_json:
        print(json.dumps({"finished": tally.finished, "failed": tally.failed, "left": tally.left}))
    return EXIT_CODES[received] if received else 1 if tally.failed or (tally.hindered and tally.left) else 0


def without_db(words: Sequence[str]) -> list[str]:
    """Words of a command line without `--db FILE`."""
    kept: list[str] = []
    skip = False
    for word in words:
        if not skip and word != "--db" and not word.startswith("--db="):
            kept.append(word)
        skip = word == "--db" and not skip
    return kept


@app.command("stop")
def stop(
    which: Annotated[
        list[int] | None, Argument(metavar="[PID…]", help="Processes of workers, as `queue list` names them; else all.")
    ] = None,
    now: Annotated[bool, Option("--now", help="Also stop what they run, with a checkpoint; it waits then.")] = False,
    db: Db = None,
) -> int:
    """Have workers finish what they run, take nothing more, and end. What is queued waits for the next worker."""
    with open_store(db, write=True, make=False) as store:
        queue = Queue(store)
        workers = [worker for worker in queue.workers() if processes.state(worker) in processes.ALIVE]
        missing = [pid for pid in which or [] if pid not in {worker.pid for worker in workers}]
        if missing:
            raise BadInput(f"No worker of this queue is process {missing[0]}: `dambench queue list` names them.")
        meant = [worker for worker in workers if not which or worker.pid in which]
        for worker in meant:
            queue.ask(worker.uid, "stop" if now else "drain")
    if not meant:
        say("No worker is at this queue: nothing is to be stopped.")
        return 0
    what = "stop what they run, with a checkpoint," if now else "finish what they run"
    say(f"{counted(len(meant), 'worker')} asked to {what} and take nothing more: `dambench queue list` shows them.")
    return 0


def _chosen(queue: Queue, ids: Sequence[str] | None, everything: bool, states: tuple[str, ...]) -> list[str]:
    """The uids of those that are meant.

    Raises:
        BadInput: nobody, or some and all.
    """
    if bool(ids) == everything:
        raise BadInput("Say which queued runs are meant: their ids, as `dambench queue list` shows them, or --all.")
    if ids:
        return [queue.one(prefix).uid for prefix in ids]
    return [one.uid for one in queue.all() if one.state in states]


def _change(
    db: Path | None,
    ids: Sequence[str] | None,
    everything: bool,
    states: tuple[str, ...],
    what: str,
    change: Callable[[Store, Queue, list[str]], list[Queued]],
) -> int:
    """Change queued runs, all or none, and say how many were."""
    with open_store(db) as store:  # nothing is written, nor made, for who is not there
        _chosen(Queue(store), ids, everything, states)
    with open_store(db, write=True, make=False) as store:
        queue = Queue(store)
        uids = _chosen(queue, ids, everything, states)
        changed = change(store, queue, uids)
        left = [one for one in queue.with_uids(uids) if one.uid not in {other.uid for other in changed}] if ids else []
    if left:
        say(", ".join(f"{display(one.id, 40)} is {one.state}" for one in left[:5]) + ": left as it is.")
    say(f"{counted(len(changed), 'run')} {what}.")
    return 0 if changed or not left else 2


def _stopping(change: Callable[[Queue, list[str]], list[Queued]]) -> Callable[[Store, Queue, list[str]], list[Queued]]:
    """A change after which those of its runs that are being carried out are asked to stop with a checkpoint."""

    def change_and_stop(store: Store, queue: Queue, uids: list[str]) -> list[Queued]:
        changed = change(queue, uids)
        for one in changed:
            row = store.with_uid(one.run)
            if row is not None and processes.state(row) in processes.ALIVE:
                store.edit(row.id, "stop_asked", row.attempt)
        return changed

    return change_and_stop


@app.command("pause")
def pause(ids: Ids = None, everything: All = False, reason: Reason = "", db: Db = None) -> int:
    """Let queued runs wait until they are resumed. One that is carried out stops with a checkpoint."""
    return _change(
        db, ids, everything, ("waiting", "taken"), "paused", _stopping(lambda queue, uids: queue.pause(uids, reason))
    )


@app.command("resume")
def resume(ids: Ids = None, everything: All = False, db: Db = None) -> int:
    """Let paused runs wait for their turn again."""
    return _change(db, ids, everything, ("paused",), "waiting again", lambda store, queue, uids: queue.resume(uids))


@app.command("move")
def move(
    ids: Annotated[list[str], Argument(metavar="ID…", help="Of queued runs, or their beginnings.")],
    first: Annotated[bool, Option("--first", help="Before all others.")] = False,
    last: Annotated[bool, Option("--last", help="After all others.")] = False,
    before: Annotated[str, Option("--before", metavar="ID", help="Before this one.")] = "",
    db: Db = None,
) -> int:
    """Move queued runs that have not begun to another place."""
    if [first, last, bool(before)].count(True) != 1:
        raise BadInput("Say where to: --first, --last or --before ID.")

    def change(store: Store, queue: Queue, uids: list[str]) -> list[Queued]:
        to: Literal["first", "last"] | Queued = "first" if first else "last" if last else queue.one(before)
        if isinstance(to, Queued) and to.uid in uids:
            raise BadInput(f"{display(to.id, 40)} cannot be moved before itself.")
        return queue.move(uids, to)

    return _change(db, ids, False, ("waiting", "paused"), "moved", change)


@app.command("priority")
def priority(
    number: Annotated[int, Argument(metavar="N", min=-1000, max=1000, help="Higher ones come first; usual is 0.")],
    ids: Ids = None,
    everything: All = False,
    db: Db = None,
) -> int:
    """Change the priority of queued runs that have not begun."""
    return _change(
        db,
        ids,
        everything,
        ("waiting", "paused"),
        f"given priority {number}",
        lambda store, queue, uids: queue.prioritise(uids, number),
    )


@app.command("retry")
def retry(ids: Ids = None, everything: All = False, reason: Reason = "", db: Db = None) -> int:
    """Let runs that failed or were dropped wait again. They go on from a checkpoint; what diverged begins anew."""

    def change(store: Store, queue: Queue, uids: list[str]) -> list[Queued]:
        anew = []
        for one in queue.with_uids(uids):
            row = store.with_uid(one.run)
            if row is not None and (row.diverged_at is not None or row.deleted_at):
                anew.append(one.uid)
        return queue.retry(uids, reason, anew)

    return _change(db, ids, everything, ("failed",), "waiting again", change)


@app.command("drop")
def drop(ids: Ids = None, everything: All = False, reason: Reason = "", db: Db = None) -> int:
    """Take runs out of the queue. One that is carried out stops with a checkpoint, and stays a run."""
    return _change(
        db,
        ids,
        everything,
        ("waiting", "paused", "failed"),
        "dropped",
        _stopping(lambda queue, uids: queue.drop(uids, reason)),
    )
