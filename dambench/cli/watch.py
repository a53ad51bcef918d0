"""Runs that go on: watch one, read its log, stop it."""

import json
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Annotated

from typer import Option

from dambench.cli.options import Db, RunId
from dambench.cli.output import Watch, say
from dambench.cli.record import exit_code
from dambench.cli.signals import STOP_SECONDS
from dambench.cli.store import open_store
from dambench.core import files, sanitize
from dambench.core.errors import BadInput
from dambench.core.events import AnyEvent, Progressed
from dambench.core.narration import summary
from dambench.runner import processes

POLL_SECONDS = 0.25
"""Between two looks at a run."""


def watch(run_id: RunId, db: Db = None) -> int:
    """Show a run as it goes on, or went. Leave with Ctrl+C: the run does not notice."""
    screen = Watch().console
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
    run_id: RunId,
    kill: Annotated[bool, Option("--kill", help="With SIGKILL: it goes back to its last checkpoint.")] = False,
    db: Db = None,
) -> int:
    """Ask a run to stop. It writes a checkpoint first, and can be resumed."""
    with open_store(db) as store:
        row = store.run(run_id)
        now = processes.state(row)
        if now == "lost":
            raise BadInput(f"The run {row.id} is lost: there is no process to stop. `dambench resume` goes on with it.")
        if now not in processes.ALIVE:
            raise BadInput(f"The run {row.id} is {now}: there is nothing to stop.")
    if not processes.is_here(row):
        if kill:
            raise BadInput(f"The run {row.id} is on {row.host}: only there can it be killed.")
        with open_store(db, write=True) as store:
            store.edit(row.id, "stop_asked", row.attempt)
        say(f"Asked. {row.host} notices within {processes.BEAT_SECONDS + store.late_seconds:.0f} s.")
        return 0
    processes.send(row, signal.SIGKILL if kill else signal.SIGTERM)
    until = time.monotonic() + STOP_SECONDS + 5
    with open_store(db) as store:
        while time.monotonic() < until:
            store.refresh()
            row = store.run(row.id)
            now = processes.state(row)
            if now not in ("waiting", "running"):
                where = f" at iteration {row.done}" if row.phase == "distil" else ""
                print(f"{'Killed' if now == 'lost' else now.capitalize()}{where}.", file=sys.stderr)
                return 0
            time.sleep(0.1)
    print("It has been asked, and has not come to the end of an iteration yet.", file=sys.stderr)
    return 0
