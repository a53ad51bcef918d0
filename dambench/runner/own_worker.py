"""The worker of a database that is started in the background of a machine: it outlives its terminal, and there is one.

Two may be asked for at once, by two consoles or a script that is run twice: the second one ends before it takes a run.
"""

import fcntl
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from dambench.core import files
from dambench.core.errors import BadInput
from dambench.core.expert_files import Lock, take_lock
from dambench.core.sanitize import display
from dambench.runner import processes
from dambench.store.queue import Queue, WorkerRow
from dambench.store.runs import Store

START_SECONDS = 60.0
"""How long it may take to say that it is at work."""
POLL_SECONDS = 0.1
ALONE = "--alone"
"""The flag of `dambench queue work` that makes it such a worker."""


class BackgroundWorker(NamedTuple):
    """Such a worker, as it was started."""

    pid: int
    log: str


def lock(path: Path) -> Lock:
    """Be the one such worker of a database, for as long as this process lives.

    Raises:
        BadInput: there is one.
    """
    folder = files.home() / "workers"
    name = files.digest(str(path.absolute()).encode())[:16]
    with files.writing("The worker's lock", folder, files.HOME_HINT):
        folder.mkdir(parents=True, exist_ok=True)
        held = take_lock(folder / f"{name}.lock", fcntl.LOCK_EX | fcntl.LOCK_NB)
    if held is None:
        raise BadInput(
            f"A worker of {display(str(path), 200)!r} is at work in the background here: `dambench queue list` shows "
            "it, `dambench queue stop` ends it."
        )
    return held


def start(path: Path, words: Sequence[str] = ()) -> BackgroundWorker:
    """Start such a worker, and wait until it is at work, or done.

    Args:
        words: more of the command line.

    Raises:
        BadInput: there is one already, or it ended with an error: the sentence is its own.
    """
    child = processes.launch(["queue", "work", ALONE, "--db", str(path.absolute()), *words])
    until = time.monotonic() + START_SECONDS
    try:
        while time.monotonic() < until:
            code = child.ended()
            if code not in (None, 0):
                raise BadInput(_last_words(child.log) or f"The worker ended with {code} before it began.")
            if code == 0 or _is_at_work(path, child.pid):
                break
            time.sleep(POLL_SECONDS)
    finally:
        child.let_go()
    return BackgroundWorker(child.pid, str(child.log))


def at_work(workers: Sequence[WorkerRow]) -> list[WorkerRow]:
    """The workers of this machine's own runs that live, here."""
    return [
        worker
        for worker in workers
        if worker.executor == "local" and processes.is_here(worker) and processes.state(worker) in processes.ALIVE
    ]


def _is_at_work(path: Path, pid: int) -> bool:
    with suppress(Exception), closing(Store.open(path)) as store:
        return any(worker.pid == pid for worker in at_work(Queue(store).workers()))
    return False


def _last_words(log: Path) -> str:
    with suppress(OSError):
        lines = log.read_text(errors="replace").strip().splitlines()
        return display(lines[-1].removeprefix("dambench: "), 400) if lines else ""
    return ""
