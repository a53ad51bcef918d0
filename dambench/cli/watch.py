"""Runs that go on: watch one, read its log, stop some, wait for some."""

import json
import signal
import socket
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated

from typer import Option

from dambench.cli.chosen import Chosen, awaited, chosen, fitting, standings
from dambench.cli.options import Db, Json, RunId
from dambench.cli.output import Watch, say
from dambench.cli.record import exit_code
from dambench.cli.signals import EXIT_CODES, STOP_SECONDS
from dambench.cli.store import open_store
from dambench.core import files, preferences, sanitize
from dambench.core.errors import BadInput
from dambench.core.events import AnyEvent, Progressed
from dambench.core.narration import summary
from dambench.core.notifying import in_words, signals
from dambench.core.sanitize import counted, display
from dambench.core.units import duration
from dambench.runner import processes
from dambench.store.rows import RunRow

POLL_SECONDS = 0.25
"""Between two looks at a run."""


def watch(run_id: RunId, db: Db = None) -> int:
    """Show a run as it goes on, or went. Leave with Ctrl+C: the run does not notice."""
    screen, kinds = Watch().console, preferences.read().console.notify
    last: AnyEvent | None = None
    try:
        with open_store(db) as store:
            row = store.run(run_id)
            total = json.loads(row.config)["method"].get("options", {}).get("iterations", 0)
            shown = 0
            with Watch(screen, total) as view:
                while True:
                    store.refresh()
                    row = store.run(row.id)
                    for number, event in store.tail(row.id, shown):
                        view.show(event)
                        shown, last = number, event
                    if row.state == "running" and row.phase:
                        view.show(Progressed(phase=row.phase, done=row.done, total=row.total))
                    now = processes.state(row)
                    if now not in processes.ALIVE:
                        break
                    time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        screen.print("The run goes on.")
        return 0
    if screen.is_terminal and not screen.is_dumb_terminal:
        sys.stderr.write(signals(kinds, in_words([(row.id, now)])))
        sys.stderr.flush()
    if now == "lost":
        screen.print(f"lost: its process is gone. `dambench resume {row.id}` goes on from its last checkpoint.")
        return 1
    return exit_code(last)


def logs(
    run_id: RunId,
    follow: Annotated[bool, Option("--follow", "-f", help="Go on as more is written.")] = False,
    db: Db = None,
) -> None:
    """What a run has written; of one in the foreground, what it has said."""
    with open_store(db) as store:
        row = store.run(run_id)
        log = files.own_log(row.log)
        # One that was merged may name any file.
        here = row.host == socket.gethostname() and log is not None and log.is_file()
        if log is None or not here:
            if row.log:
                say(
                    f"Its log {row.log!r} on {row.host or 'an unknown machine'} is no log of a run that is here; "
                    "this is what it said."
                )
            for _, event in store.tail(row.id):
                if line := summary(event):
                    print(line)
            return
        with log.open("rb") as file, suppress(KeyboardInterrupt):
            rest = b""
            while True:
                store.refresh()
                alive = processes.state(store.run(row.id)) in processes.ALIVE
                *lines, rest = (rest + file.read()).split(b"\n")
                for text in lines:
                    print(sanitize.display(text.decode(errors="replace"), 1000))
                sys.stdout.flush()
                if not (follow and alive):
                    break
                time.sleep(POLL_SECONDS)
            if rest:
                print(sanitize.display(rest.decode(errors="replace"), 1000))


def stop(
    runs: Chosen,
    kill: Annotated[bool, Option("--kill", help="With SIGKILL: it goes back to its last checkpoint.")] = False,
    db: Db = None,
) -> int:
    """Ask runs to stop. Each writes a checkpoint first, and can be resumed."""
    with open_store(db) as store:
        found = chosen(store, runs)
    rows = fitting(found, partial(_can_stop, kill=kill))
    elsewhere = [row for row in rows if not processes.is_here(row)]
    if elsewhere:
        with open_store(db, write=True, make=False) as store:
            for row in elsewhere:
                store.edit(row.id, "stop_asked", row.attempt)
            late = processes.BEAT_SECONDS + store.late_seconds
        for host in dict.fromkeys(row.host for row in elsewhere):
            say(f"Asked. {display(host, 60)} notices within {late:.0f} s.")
    here = {row.id: row for row in rows if processes.is_here(row)}
    for row in here.values():
        processes.send(row, signal.SIGKILL if kill else signal.SIGTERM)
    _see_them_stop(db, here, several=len(rows) > 1)
    return 0


def _can_stop(row: RunRow, *, kill: bool) -> None:
    now = processes.state(row)
    if now == "lost":
        raise BadInput(f"The run {row.id} is lost: there is no process to stop. `dambench resume` goes on with it.")
    if now not in processes.ALIVE:
        raise BadInput(f"The run {row.id} is {now}: there is nothing to stop.")
    if kill and not processes.is_here(row):
        raise BadInput(f"The run {row.id} is on {row.host}: only there can it be killed.")


def _see_them_stop(db: Path | None, going: dict[str, RunRow], *, several: bool) -> None:
    """Say of each run how it ended, or at last that it has not yet."""
    until = time.monotonic() + STOP_SECONDS + 5
    with open_store(db) as store:
        while going and time.monotonic() < until:
            store.refresh()
            for run in list(going):
                row = store.run(run)
                now = processes.state(row)
                if now not in ("waiting", "running"):
                    del going[run]
                    where = f" at iteration {row.done}" if row.phase == "distil" else ""
                    how = f"{'killed' if now == 'lost' else now}{where}."
                    print(f"{run}: {how}" if several else how.capitalize(), file=sys.stderr)
            time.sleep(0.1 if going else 0)
    for run in going:
        how = "has been asked, and has not come to the end of an iteration yet."
        print(f"{run} {how}" if several else f"It {how}", file=sys.stderr)


WAIT_LONGER = 2.0
"""Seconds between two looks at many runs."""
TIMED_OUT = 124
"""The exit code of `dambench wait --timeout`, as of timeout(1)."""


def wait(
    runs: Chosen,
    timeout: Annotated[float | None, Option(metavar="SECONDS", help="Then leave them, with exit code 124.")] = None,
    db: Db = None,
    as_json: Json = False,
) -> int:
    """Wait until runs have ended, queued ones too.

    Exit code: 0 all are finished, 1 some failed or were lost, 143 some were stopped.
    """
    if timeout is not None and not timeout >= 0:
        raise BadInput(f"--timeout {timeout} is no time to wait: seconds, from 0.")
    until = None if timeout is None else time.monotonic() + timeout
    with open_store(db) as store:
        meant = awaited(store, runs)
        states = dict.fromkeys(meant, "running")
        while True:
            going = [run for run in meant if states[run] in processes.ALIVE]
            for run, stands in standings(store, going).items():
                states[run] = stands
                if stands not in processes.ALIVE and not as_json:
                    print(f"{run} {stands}", flush=True)
            going = [run for run, state in states.items() if state in processes.ALIVE]
            left = None if until is None else until - time.monotonic()
            if not going or (left is not None and left <= 0):
                break
            time.sleep(min(POLL_SECONDS if len(meant) < 20 else WAIT_LONGER, left or WAIT_LONGER))
            store.refresh()
    if as_json:
        print(json.dumps({"runs": states, "timed_out": bool(going)}))
    if going:
        say(f"{counted(len(going), 'run')} not ended after {duration(timeout or 0.0)}: {' '.join(going[:20])}")
        return TIMED_OUT
    if {"failed", "lost"} & {*states.values()}:
        return 1
    return EXIT_CODES["SIGTERM"] if "stopped" in states.values() else 0
