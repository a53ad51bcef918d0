"""`dambench sweep`: all runs of a grid, one after another, and again only what is missing."""

import json
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import tomli_w
from typer import Argument, Option

from dambench.cli import plans
from dambench.cli.options import Db, Json
from dambench.cli.output import say
from dambench.cli.plans import PlannedRun
from dambench.cli.process import foreground
from dambench.cli.signals import EXIT_CODES, Signals
from dambench.cli.store import open_store
from dambench.core import sweep as grids
from dambench.core.sanitize import counted
from dambench.core.sweep import Sweep
from dambench.runner import processes
from dambench.store import runs as stored

POLL_SECONDS = 0.5


def sweep(
    file: Annotated[Path, Argument(metavar="GRID.toml", help="[grid], [run] and [[skip]]: see docs/sweeps.md.")],
    dry_run: Annotated[bool, Option("--dry-run", help="Only the plan; nothing is prepared, run or kept.")] = False,
    retry: Annotated[bool, Option("--retry", help="Also runs that have failed before.")] = False,
    db: Db = None,
    as_json: Json = False,
) -> int:
    """Make all runs of a grid that are missing, one after another: the same command goes on after an interruption."""
    grid = grids.read(file)
    path = db or stored.default_path()
    stored.check(path)
    with foreground() as here:
        planned = plans.plan(grid, path, prepare=None if dry_run else here.watch.say)
        notes = [f"rule {number} of [[skip]] leaves nothing out" for number in grid.idle_rules]
        if as_json and dry_run:
            print(json.dumps(plans.as_json(grid, planned, notes)))
            return 0
        for note in notes:
            say(f"note: {note}")
        if dry_run:
            plans.print_plan(grid, planned)
            return 0
        return _carry_out(grid, planned, path, here.signals, retry, as_json)


def _carry_out(
    grid: Sweep, planned: Sequence[PlannedRun], path: Path, signals: Signals, retry: bool, as_json: bool
) -> int:
    """Make what is missing, one run after another, each a process of its own.

    Returns:
        The exit code: 0 all are finished, 1 some failed, else that of the signal.
    """
    _tag(grid, [one.run for one in planned if one.run], path)
    failed = []
    missing = [one for one in planned if one.standing != "done"]
    say(plans.summary(grid, planned)[0])
    with signals.kept_for_the_run():
        for number, one in enumerate(missing, 1):
            if signals.received:
                return EXIT_CODES[signals.received]
            place = f"{number} of {len(missing)}: {plans.named(one.point)}, seed {one.point.seed}"
            if one.standing == "failed" and not retry:
                failed.append(one.run)
                say(f"{place}: run {one.run} has failed before; --retry tries it again")
                continue
            if stored.exists(path) and isinstance(one, plans.SettledRun):
                with open_store(path) as store:
                    plans.look_up(store, [one])  # somebody else may have made it meanwhile
            run = one.run if one.standing == "done" else _begin(one, path)
            if not run:
                return 1
            one.run = run
            say(f"{place}: run {run}")
            state = _wait(run, path, signals)
            if signals.received:
                say(f"Stopped; the same command goes on, with run {run}.")
                return EXIT_CODES[signals.received]
            if state != "finished":
                failed.append(run)
                say(f"run {run} is {state}: `dambench show {run}` and `logs {run}` say why.")
    say(f"{counted(len(planned) - len(failed), 'run')} finished: dambench report --filter sweep:{grid.name}")
    if as_json:
        print(json.dumps({"sweep": grid.name, "runs": [one.run for one in planned], "failed": failed}))
    return 1 if failed else 0


def _tag(grid: Sweep, runs: Sequence[str], path: Path) -> None:
    """Let runs that were there before belong to the sweep."""
    if not runs:
        return
    with open_store(path, write=True) as store:
        have = {
            row["id"] for row in store.query("select id from runs join tags on run = number where tag = ?", grid.tag)
        }
        for run in runs:
            if run not in have:
                store.edit(run, "tag", grid.tag)


def _begin(planned: PlannedRun, path: Path) -> str:
    """Start a run, or go on with it, in a process of its own. Returns its id; empty: it did not begin, and said why."""
    if planned.standing == "running":
        return planned.run
    if planned.standing == "to resume":
        run, _ = processes.start(["resume", planned.run, "--headless", "--db", str(path)], say)
        return run
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.toml"
        file.write_text(tomli_w.dumps(grids.file_of(planned.point.request)))
        run, _ = processes.start(["run", str(file), "--headless", "--db", str(path)], say)
    return run


def _wait(run: str, path: Path, signals: Signals) -> str:
    """Wait until a run has ended, or until we are to stop, and then stop it. Returns its state."""
    asked = False
    with open_store(path) as store:
        while True:
            store.refresh()
            row = store.run(run)
            state = processes.state(row)
            if state not in processes.ALIVE:
                break
            if signals.received and not asked:
                if not processes.is_here(row):
                    return state
                asked = processes.send(row, signal.SIGTERM)
            time.sleep(POLL_SECONDS)
    with suppress(ChildProcessError, OSError):
        os.waitpid(row.pid, os.WNOHANG)  # one that we began is ours to bury
    return state
