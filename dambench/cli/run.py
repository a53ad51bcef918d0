"""Begin a run, go on with one, evaluate the set of one."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from typer import Argument, Option

from dambench.cli import check as checking
from dambench.cli.arms import record_arms
from dambench.cli.chosen import Chosen, chosen, fitting
from dambench.cli.console import in_terminal, refuse_console_options, run_in_console, words_after_command
from dambench.cli.executors import Chosen as Executing
from dambench.cli.follow_up import interrupted_run, left_by_another, reopen
from dambench.cli.halves import record_halves
from dambench.cli.items import announced, print_outlook, timed
from dambench.cli.options import Again, Db, EvaluatorSettings, Hook, Json, Settings, asked_of, request_options
from dambench.cli.output import Watch
from dambench.cli.process import AGAIN, Foreground, detach, foreground
from dambench.cli.rank import ranks_of_torchrun
from dambench.cli.record import record, result
from dambench.cli.signals import EXIT_CODES
from dambench.cli.store import open_store
from dambench.cli.sweep import Asked, make
from dambench.cli.twin import record_twin
from dambench.core import config, files, sanitize
from dambench.core.config import Choice, Request, RunConfig, SetRef
from dambench.core.errors import BadInput
from dambench.core.hard_labels import wants_twin
from dambench.core.sweep import Sweep
from dambench.core.units import duration
from dambench.runner import hooks, processes
from dambench.store import runs as stored
from dambench.store.rows import RunRow
from dambench.store.runs import Store

if TYPE_CHECKING:
    from dambench.engine.job import Job

OF_NEW_RUNS = "--name and --tag are of new runs. `dambench tag {run}` and `note {run}` change this one."

# Whoever needs torch imports the engine in the function: `dambench runs` must answer at once.


@request_options(lists=True)
def run(
    context: typer.Context,
    file: Annotated[Path | None, Argument(metavar="[FILE.toml]", help="Settings; flags go over them.")] = None,
    headless: Annotated[bool, Option("--headless", help="Run here, in the foreground.")] = False,
    detached: Annotated[
        bool, Option("--detach", help="Run in the background, where a lost terminal ends nothing.")
    ] = False,
    *,
    given: dict[str, Any],
    settings: Settings = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Measure a few steps, say what the run would take, and keep nothing.")
    ] = False,
    check: Annotated[
        bool, Option("--check", help="Say what the run would be, as JSON; nothing is prepared, run or kept.")
    ] = False,
    again: Again = False,
    workers: Annotated[
        int | None, Option("--workers", min=1, help="Of several runs: how many at once, at most.")
    ] = None,
    hook: Hook = "",
    db: Db = None,
    as_json: Json = False,
) -> int:
    """Distil a dataset, train networks on the result, test them, store everything. In a terminal: in the console.

    A list, as --ipc 1,10, is a run for each value, made as `dambench sweep` does: docs/sweeps.md.
    """
    ways = {"--headless": headless, "--detach": detached, "--dry-run": dry_run, "--check": check}
    given |= {"ranks": ranks_of_torchrun(given["ranks"])}
    requests, grid = asked_of(file, given, settings)
    flags = [flag for flag, chosen in ways.items() if chosen]
    if grid is None or flags:
        _check_ways(flags, context)
    hooks.use(hook)
    path = db or stored.default_path()
    stored.check(path)
    if grid is not None:
        _check_sweep(grid, {"--check": check, "--detach": detached, "--again": again})
        return make(grid, path, Asked(dry_run, False, False, Executing("local", workers, {}), ""), as_json)
    if workers is not None:
        raise BadInput("--workers is for several runs at once, as of --ipc 1,10; this is one command for one.")
    if not (headless or dry_run or check):
        words = [
            "run",
            *(word for word in words_after_command(context) if word not in ("--detach", "--json")),
            "--headless",
        ]
        return detach(words, path, as_json) if detached else run_in_console(words, path, context)
    with foreground() as here:
        if check:
            print(json.dumps(checking.outlook(requests, None if again else path)))
            return 0
        from dambench import engine

        job = engine.prepare(requests[0], here.watch.say)
        if dry_run:
            here.watch.say("measuring a few steps …")
            return checking.estimate(job, len(requests), as_json, hard_twin=wants_twin(requests[0]))
        with open_store(path, write=True) as store:
            code, finished = 0, None
            for request in requests:
                if here.signals.received:
                    return EXIT_CODES[here.signals.received]
                job = job.with_seed(request.seed or 0)
                ended, finished = _make(store, job, request, here, again=again, as_json=as_json)
                code = max(code, ended)
            if finished:
                here.announce(finished)  # if no other was begun
            if len(requests) == 1 and not code and (few := checking.few_sets(store, job)):
                here.watch.say(few)
            return code


def _make(
    store: Store, job: "Job", request: Request, here: Foreground, *, again: bool, as_json: bool
) -> tuple[int, str | None]:
    """Begin a run in this process, or go on with one that was interrupted, or point out one that has done the same.

    Returns:
        The exit code, and the run that had done it before.
    """
    identity = here.identity()
    finished = None if again else store.finished(job.config, job.card)
    if not (again or identity or finished):
        before = left_by_another(store, job, here)
        if before is not None:
            return _go_on(store, before, request, here, as_json, instead=True), None
        finished = store.finished(job.config, job.card)  # it may have been waited for
    if finished:
        code, more = record_twin(store, finished, job, request, here, again=False)
        _point_out(store, finished, job, request, here.watch, as_json, more)
        return code, finished
    source = job.recipe.source if job.recipe else ""
    run_id = store.create(
        job.config,
        job.card,
        request.name or "",
        request.tags or [],
        here.process(),
        source,
        job.overrides,
        queued=identity,
    )
    here.announce(run_id)
    here.watch.say(f"run {run_id}" + (f", settings: {source}" if job.recipe else ""))
    then = partial(record_twin, store, run_id, job, request, here, again=again)
    return record(store, run_id, job, here, as_json, then=then), None


def _check_ways(flags: list[str], context: typer.Context) -> None:
    """See that one way to run was chosen, and that it is possible here."""
    if flags:
        refuse_console_options(context, f"dambench run {flags[0]}")
    elif not in_terminal():
        raise BadInput("A run opens in the console, which needs a terminal, and this is none: --headless or --detach.")
    if "--headless" in flags and "--detach" in flags:
        raise BadInput("--headless and --detach exclude each other: in the foreground, or in the background.")
    if len({"--detach", "--dry-run", "--check"} & {*flags}) > 1:
        raise BadInput("--detach, --dry-run and --check exclude each other: begin a run, measure it, or look at it.")


def _check_sweep(grid: Sweep, ways: Mapping[str, bool]) -> None:
    """See that several runs were asked for in a way in which they can be made."""
    why = {
        "--check": "it looks at one run; --dry-run prints the plan of several",
        "--detach": "`dambench queue add` takes the same words, and `dambench queue work` carries them out",
        "--again": "a sweep leaves out what is finished; say one value of each to make a run anew",
    }
    for flag, given in ways.items():
        if given:
            axes = ", ".join(grid.axes)
            raise BadInput(f"{flag} is not for a sweep, which this is by several values of {axes}: {why[flag]}.")


@request_options(ranks="as before", hard_twin="")
def resume(
    context: typer.Context,
    runs: Chosen,
    *,
    given: dict[str, Any],
    headless: Annotated[
        bool, Option("--headless", help="Here, in the foreground, one after another; not all in the background.")
    ] = False,
    hook: Hook = "",
    db: Db = None,
    as_json: Json = False,
) -> int:
    """Go on with runs from their last checkpoints, as if they had never been interrupted."""
    request, path = _asked(given, hook, db)
    with open_store(path) as store:
        rows = fitting(chosen(store, runs), _can_resume)
    if not headless:
        flags = {"--hard-twin": given.get("hard_twin"), "--ranks": given.get("ranks")}
        more = [word for flag, value in flags.items() if value for word in (flag, str(value))]
        words = ["--headless", "--db", str(path), *more]
        return max(detach(["resume", row.id, *words], path, as_json) for row in rows)
    code = 0
    with foreground() as here:
        for row in rows:
            if here.signals.received:
                return EXIT_CODES[here.signals.received]
            code = max(code, _resume(path, row.id, request, here, as_json))
    return code


def _resume(path: Path, run_id: str, request: Request, here: Foreground, as_json: bool) -> int:
    """Go on with one run in this process."""
    with open_store(path, write=True) as store:
        row = store.run(run_id)
        _can_resume(row)
        return _go_on(store, row, request, here, as_json)


def _go_on(
    store: Store, row: RunRow, request: Request, here: Foreground, as_json: bool, *, instead: bool = False
) -> int:
    """Go on with a run in this process.

    Args:
        instead: whether a new one of these settings was asked for.
    """
    from dambench import engine

    state = processes.state(row)
    beginning = store.beginning(row.id, here.process())
    job = reopen(row, beginning, here)
    job = engine.resumed(job, ranks_of_torchrun(request.ranks))
    if instead:
        here.announce(row.id)
    how = {"lost": "its process was lost", "stopped": "it was stopped"}.get(state, f"it is {state}")
    here.watch.say(f"run {row.id}, resumed" + (f": {how}, and --again begins a new one" if instead else ""))
    if instead and (request.name or request.tags):
        here.watch.say(OF_NEW_RUNS.format(run=row.id))
    then = partial(record_twin, store, row.id, job, request, here, again=False)
    return record(store, row.id, job, here, as_json, beginning, then)


@request_options(
    evaluate_on="those of the run",
    eval_repeats="as the run",
    protocol="the run's",
    device="the run's",
    threads="",
    hard_twin="",
    name="",
    tags="",
)
def evaluate(
    context: typer.Context,
    runs: Chosen,
    *,
    given: dict[str, Any],
    evaluator: Annotated[str, Option(help="What is measured of the set.")] = "accuracy",
    settings: EvaluatorSettings = None,
    detached: Annotated[bool, Option("--detach", help="In the background.")] = False,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Measure some items, say what all would take, and keep nothing.")
    ] = False,
    again: Again = False,
    hook: Hook = "",
    db: Db = None,
    as_json: Json = False,
) -> int:
    """Train other networks on the sets of finished runs, and test them: cross-architecture evaluation."""
    choice = Choice(evaluator, config.settings(settings or [], ("evaluator",)).get("evaluator", {}))
    request, path = _asked(given, hook, db)
    with open_store(path) as store:
        found = chosen(store, runs)
        tuning = not found.by_filter or any("purpose" in word for word in runs)
        rows = fitting(found, partial(_can_evaluate, store, tuning=tuning))
    if dry_run and detached:
        raise BadInput("--dry-run and --detach exclude each other: measure what it would take, or begin it.")
    if found.by_filter:
        rows = list({(row.set_sha256, row.seed): row for row in reversed(rows)}.values())[::-1]  # each set once
    if detached:
        words = [word for word in context.obj if word not in ("--detach", "--json")]
        return detach(words, path, as_json, [row.set_sha256 or "" for row in rows])
    code = 0
    with foreground() as here:
        for row in rows:
            if here.signals.received:
                return EXIT_CODES[here.signals.received]
            code = max(code, _evaluate(path, row, choice, request, here, again=again, as_json=as_json, dry_run=dry_run))
    return code


def _can_evaluate(store: Store, row: RunRow, *, tuning: bool) -> None:
    if row.purpose and not tuning:
        raise BadInput(
            f"The run {row.id} chose settings, or is of half of the images, and is in no table: its set is evaluated "
            "where it is named, or where the filter says purpose:tuning."
        )
    if row.state != "finished" or row.set_sha256 is None or store.iteration_of(row) is None:
        raise BadInput(f"The run {row.id} is {processes.state(row)}: only the set of a finished run is evaluated.")
    _check_set(row, row.set_sha256)


def _evaluate(
    path: Path,
    row: RunRow,
    choice: Choice,
    request: Request,
    here: Foreground,
    *,
    again: bool,
    as_json: bool,
    dry_run: bool = False,
) -> int:
    """Measure the set of one run in this process, or what that would take."""
    from dambench import engine

    with open_store(path, write=not dry_run) as store:
        overrides, iteration = json.loads(row.overrides), store.iteration_of(row)
        assert row.set_sha256 is not None
        assert iteration is not None
        job = engine.reopen(
            msgspec.json.decode(row.config, type=RunConfig),
            row.dataset_sha256,
            row.recipe,
            overrides,
            None,
            here.watch.say,
            only_its_set=True,
        )
        made_set = SetRef(row.set_sha256, iteration)
        job = timed(store, engine.evaluation(job, request, made_set, choice))
        if dry_run:
            return print_outlook(store, job, made_set, again=again, as_json=as_json)
        finished = None if again else store.finished(job.config, job.card, row.set_sha256)
        if finished:
            code, more = record_twin(store, finished, job, request, here, again=False)
            _point_out(store, finished, job, request, here.watch, as_json, more)
            here.announce(finished)
            return code
        others = job.evaluator.name != "accuracy"
        if others:
            here.watch.say(f"{announced(store, job, made_set, again=again)}.")
        if code := record_arms(store, job, made_set, request, here) or record_halves(store, job, request, here):
            return code
        interrupted = interrupted_run(store, job) if others and not again and not here.is_queued else None
        if interrupted is None:
            new = store.create(
                job.config,
                job.card,
                request.name or "",
                request.tags or [],
                here.process(),
                row.recipe,
                overrides,
                queued=here.identity(),
            )
            here.announce(new)
            here.watch.say(f"run {new}, of the set of {row.id}")
            then = partial(record_twin, store, new, job, request, here, again=again)
            return record(store, new, job, here, as_json, then=then, again=again)
    return _resume(path, interrupted.id, request, here, as_json)


def _point_out(
    store: Store, run_id: str, job: "Job", request: Request, watch: Watch, as_json: bool, more: dict[str, Any]
) -> None:
    """Say that no run is begun, because this finished one did what is requested, and what has no effect or no use."""
    for note in [*job.card.notes, *job.notes]:
        watch.say(f"note: {sanitize.display(note, 1000)}")
    row = store.run(run_id)
    where, when = sanitize.display(row.host, 60), (row.ended_at or "")[:16].replace("T", " ")
    watch.say(f"run {run_id} has done this already{f' on {where}' if where else ''} ({when} UTC): {AGAIN}")
    if request.name or request.tags:
        watch.say(OF_NEW_RUNS.format(run=run_id))
    if as_json:
        print(json.dumps(result(store, run_id) | {"existing": True} | more), flush=True)


def _check_set(row: RunRow, sha256: str) -> None:
    """See that a set which is to be evaluated is here, before anything is recorded.

    Args:
        row: a run that has it.

    Raises:
        BadInput: it is missing, or its content is not that of its name.
    """
    if sha256 == row.dataset_sha256:
        return  # the prepared dataset itself, which is looked at when it is opened
    path = files.set_path(sha256)
    if not path.is_file():
        raise BadInput(
            f"The set {sha256[:12]} of the run {row.id} is not on this machine; the run was made on "
            f"{sanitize.display(row.host, 60) or 'another'}. `dambench db bundle` there and `dambench db merge` "
            "here bring it."
        )
    if files.sha256(path) != sha256:
        raise BadInput(f"The set {str(path)!r} of the run {row.id} is damaged: its content is not that of its name.")


def _asked(given: dict[str, Any], hook: str, db: Path | None) -> tuple[Request, Path]:
    """What flags ask of runs that are there already, and the database that they are in."""
    request = config.read(Request, config.overlay({}, given), "the request")
    wants_twin(request)
    hooks.use(hook)
    path = db or stored.default_path()
    stored.check(path)
    return request, path


def _can_resume(row: RunRow) -> None:
    if row.deleted_at:
        raise BadInput(f"The run {row.id} is in the trash: `dambench restore {row.id}` takes it out.")
    now = processes.state(row)
    if now == "finished":
        raise BadInput(f"The run {row.id} is finished: there is nothing to go on with.")
    if now in processes.ALIVE:
        quiet = f", silent for {duration(processes.silence(row))}" if now == "silent" else ""
        raise BadInput(
            f"The run {row.id} goes on, as process {row.pid} on {row.host}{quiet}: `dambench watch {row.id}` shows it."
        )
    if made := json.loads(row.config).get("where", {}).get("made"):
        _check_set(row, made)
    if row.diverged_at is not None:
        raise BadInput(
            f"The run {row.id} diverged at iteration {row.diverged_at}, and would again: begin a new one, with "
            "a smaller step size."
        )
