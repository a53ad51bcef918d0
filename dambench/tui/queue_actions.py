"""Queue actions: have runs wait for their turn, from whatever place they are seen in, and a worker carry them out."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from dambench.core.errors import BadInput
from dambench.core.sanitize import counted, display
from dambench.core.sweep import TAG
from dambench.core.units import duration
from dambench.runner import own_worker
from dambench.store.queue import Queue
from dambench.store.rows import RunRow
from dambench.tui import hints
from dambench.tui.checker import outlooks
from dambench.tui.main_screen import MainScreen
from dambench.tui.models import queueing
from dambench.tui.models.queueing import Wish
from dambench.tui.run_actions import in_background
from dambench.tui.widgets.pick import Ask
from dambench.tui.widgets.sure import Sure


def queue_again(screen: MainScreen, rows: Sequence[RunRow]) -> None:
    """Ask for other seeds and settings, and queue runs once more with each combination: a sweep, if it has a name."""

    def typed(text: str | None) -> None:
        if text is None:
            return
        words = text.split()
        names = [word for word in words if "=" not in word]
        if len(names) > 1:
            raise BadInput(f"{display(' '.join(names), 60)!r}: a sweep has one name, and settings are NAME=A,B.")
        if names and not re.fullmatch("[A-Za-z0-9._-]{1,60}", names[0]):
            raise BadInput(f"{display(names[0], 60)!r}: a name may have letters, digits, . _ and -, up to 60.")
        wishes = queueing.wishes_like(rows, " ".join(word for word in words if "=" in word))
        ask_to_queue(screen, wishes, f"{TAG}{names[0]}" if names else "")

    which = rows[0].id if len(rows) == 1 else counted(len(rows), "run")
    about = "Other seeds, settings, and a name of the sweep, as:\nseeds=3-7 ipc=1,10 my-sweep"
    screen.app.push_screen(Ask(f"Queue {which} again", "", about), typed)


def ask_to_queue(screen: MainScreen, wishes: Sequence[Wish], tag: str) -> None:
    """Say how many runs are to be queued, and do it."""

    def work() -> str:
        known = queueing.with_keys(wishes, outlooks)  # those of other settings: a child with torch knows
        with screen.console_app.database(write=True) as store:
            store.refresh()
            added = queueing.queue(store, known, tag)
        there = f"; {len(added.there)} were queued already" if added.there else ""
        return (
            f"Queued: {counted(len(added.new), 'run')}{there}. {hints.hint('everywhere.place-4', '4')} shows the queue."
        )

    def sure(yes: bool | None) -> None:
        if yes:
            in_background(screen, work)

    named = f", as the sweep {display(tag.removeprefix(TAG), 60)}" if tag else ""
    text = f"Queue {counted(len(wishes), 'run')}{named}? They begin when a worker takes them."
    screen.app.push_screen(Sure("Queue", text, "queue"), sure)


MOST_SHOWN = 8
"""Runs that a question names."""


def start_or_drain_worker(screen: MainScreen) -> None:
    """Ask whether a worker is to be started here; or, where one is at work, whether it is to take no more."""
    app = screen.console_app
    if app.refuses():
        return
    app.check_file()
    workers = screen.read_now(lambda store: own_worker.at_work(Queue(store).workers()))
    pids = ", ".join(str(worker.pid) for worker in workers)

    def drain() -> str:
        with app.database(write=True) as store:
            for worker in workers:
                Queue(store).ask(worker.uid, "drain")
        return f"Process {pids} takes nothing more, and ends once what it runs is finished."

    def start() -> str:
        worker = own_worker.start(app.path)
        key = hints.hint("queue.worker", "w")
        return (
            f"A worker is at work as process {worker.pid}. {key} lets it take nothing more, as `dambench queue stop`."
        )

    def sure(yes: bool | None) -> None:
        if yes:
            in_background(screen, drain if workers else start)

    if workers and all(worker.asked for worker in workers):
        app.say(f"Process {pids} takes nothing more already, and ends once what it runs is finished.")
    elif workers:
        text = f"A worker is at work here, as process {pids}. Let it finish what it runs, and take nothing more?"
        screen.app.push_screen(Sure("Worker", text, "let it end"), sure)
    else:
        key = hints.hint("queue.worker", "w")
        text = (
            "Start a worker on this machine? It carries out what waits, in the background, also without this console, "
            f"until nothing is left.\n{key}, or `dambench queue stop`, lets it take nothing more."
        )
        screen.app.push_screen(Sure("Worker", text, "start it"), sure)


def queue_what_is_missing(screen: MainScreen, rows: Sequence[str], columns: Sequence[str], only: str = "") -> None:
    """Find out what the tables of these axes lack, say how much that is, and queue it, as `report --fill` does.

    Args:
        only: the filter that their runs have met.
    """
    app = screen.console_app
    if app.refuses():
        return
    app.check_file()
    words = ["report", "--fill", "--rows", ",".join(rows), "--columns", ",".join(columns)]
    words += ["--db", str(app.path.absolute()), *([f"--filter={only}"] if only.strip() else [])]

    def look() -> str:
        found = json.loads(_of_dambench([*words, "--dry-run", "--json"]))
        there = f" {counted(found['queued'], 'run')} of it is queued already." if found["queued"] else ""
        if not found["runs"]:
            return f"The tables lack nothing that could be queued.{there}"
        screen.app.call_from_thread(ask, found)
        return ""

    def fill() -> str:
        queued = _of_dambench(words).splitlines()
        return f"Queued: {counted(len(queued), 'run')}. {hints.hint('everywhere.place-4', '4')} shows the queue."

    def sure(yes: bool | None) -> None:
        if yes:
            in_background(screen, fill)

    def ask(found: dict[str, Any]) -> None:
        if screen.app.screen is screen:
            screen.app.push_screen(Sure("What the tables lack", missing_in_words(found), "queue it"), sure)

    app.say("looking for what the tables lack …")
    in_background(screen, look)


def missing_in_words(found: dict[str, Any]) -> str:
    """What `report --fill --dry-run --json` says, for people."""
    runs, without = found["runs"], found["without"]
    known = len(runs) - without
    time = (
        f"about {duration(found['seconds'])} one after another" if known else "– of time: no run of the kind is known"
    )
    if known and without:
        time += f" for {known} of them; of the others none is known"
    there = f"\n{counted(found['queued'], 'run')} more are queued already." if found["queued"] else ""
    more = f"\n… and {len(runs) - MOST_SHOWN} more" if len(runs) > MOST_SHOWN else ""
    listed = "\n".join(display(run, 70) for run in runs[:MOST_SHOWN])
    return f"Queue {counted(len(runs), 'run')}? They take {time}.{there}\n\n{listed}{more}"


def _of_dambench(words: Sequence[str]) -> str:
    """What a command prints.

    Raises:
        BadInput: it failed; the sentence is its own.
    """
    done = subprocess.run(
        [sys.executable, "-m", "dambench", *words], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2].removeprefix("dambench: ")
        raise BadInput(display(last, 400) or f"It ended with {done.returncode}.")
    return done.stdout
