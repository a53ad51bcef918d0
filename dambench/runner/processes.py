"""Processes: start a run so that it outlives its terminal, tell whether it still lives, ask it to stop.

A detached run is in a session of its own, reads nothing, writes to a file and ignores SIGHUP: that is what a dropped
SSH connection does not end. (A pipe to whoever started it would: the run would die at its next line.) What still ends
it: a restart, the end of a batch job or container, and logind where it kills the processes of users who leave.
"""

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, cast

import psutil

from dambench.core import files
from dambench.core.errors import Gone, NotKept
from dambench.core.events import Process
from dambench.store.runs import Store, exists

BEAT_SECONDS = 10.0
SILENT_SECONDS = 60.0
LOST_SECONDS = 600.0
"""Without a sign of life a run on another host is called silent, and then lost."""

VARIABLE = "DAMBENCH_DETACHED"
"""In the environment of a detached process: the pipe to say the run's id to, and the log file."""

BATCH = "DAMBENCH_BATCH"
"""In the environment of a run that is part of a batch system's job: its signals come in several."""

ENDED = "DAMBENCH_ENDED"
"""In the environment, as JSON: host, boot, pid and start of a process that has ended. A batch system begins a job again
on another host only when nothing of it is left on the first, which nobody else could know."""

State = Literal["waiting", "running", "silent", "lost", "finished", "failed", "stopped"]

ALIVE: tuple[State, ...] = ("waiting", "running", "silent")
"""States of a run that has a process, as far as is known."""


def this_process(log: str = "") -> Process:
    """Who we are."""
    return Process(host=socket.gethostname(), boot=_boot(), pid=os.getpid(), started=_started(os.getpid()), log=log)


def _boot() -> str:
    """An identity of the time since this machine, and this container, were started; empty: not known."""
    parts = []
    with suppress(OSError):
        parts = [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts) or f"{psutil.boot_time():.0f}"


def _started(pid: int) -> int:
    """The start of a process, in ticks since that of the machine (elsewhere than on Linux: the clock's).

    0: there is no such process, or it has ended and nobody has asked how.
    """
    with suppress(OSError, ValueError, IndexError):
        # The name, in brackets, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return 0 if fields[0] in "ZX" else int(fields[19])
    if Path("/proc/self/stat").exists():
        return 0
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return 0 if process.status() == psutil.STATUS_ZOMBIE else int(process.create_time() * 100)
    return 0


class ProcessRow(Protocol):
    """The columns that say which process a run is, and how it stands by its own word."""

    @property
    def state(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def boot(self) -> str: ...
    @property
    def pid(self) -> int: ...
    @property
    def process_started(self) -> int: ...
    @property
    def beat_at(self) -> str: ...


def state(row: ProcessRow) -> State:
    """Look up how a run stands: as its row says, unless its process is not there any more.

    On this machine that is known at once; of another one, only that it has been silent.
    """
    stored = cast(State, row.state)
    if stored not in ("waiting", "running"):
        return stored
    if not row.pid:
        return "lost"  # by a dambench that did not say which process it was
    if (ended := os.environ.get(ENDED)) and ended == identity(row):
        return "lost"
    if is_here(row):
        return stored if _started(row.pid) == row.process_started else "lost"
    if row.host == socket.gethostname() and row.boot.split(" ")[0] != _boot().split(" ")[0]:
        return "lost"  # this machine was restarted since
    quiet = silence(row)
    return "lost" if quiet > LOST_SECONDS else "silent" if quiet > SILENT_SECONDS else stored


def identity(row: ProcessRow) -> str:
    """Write down which process a run was, so that a later one can be told that it has ended."""
    return json.dumps([row.host, row.boot, row.pid, row.process_started])


def states(store: Store) -> dict[int, State]:
    """Look up how each run stands, by its number, that is waiting or running by its own word."""
    return {row.number: state(row) for row in store.unfinished()}


def silence(row: ProcessRow) -> float:
    """Seconds since a run's last sign of life, by this machine's clock."""
    if not row.beat_at:
        return float("inf")
    return (datetime.now(UTC) - datetime.fromisoformat(row.beat_at)).total_seconds()


def is_here(row: ProcessRow) -> bool:
    """Tell whether the run's process, if there is one, can be signalled from here."""
    return bool(row.host == socket.gethostname() and row.boot == _boot())


def send(row: ProcessRow, number: signal.Signals) -> bool:
    """Signal a run's process here. Returns whether there was one."""
    pid = row.pid
    if hasattr(os, "pidfd_open"):
        with suppress(OSError):
            handle = os.pidfd_open(pid)
            try:
                # The handle is of one process: if that is ours, whatever comes after it is not meant.
                if _started(pid) == row.process_started:
                    signal.pidfd_send_signal(handle, number)
                    return True
            finally:
                os.close(handle)
            return False
    if _started(pid) == row.process_started:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            return True
    return False


class Detached(NamedTuple):
    """This process, where it was started by `start`."""

    log: str
    announce: Callable[[str], None]
    """Say the run's id to whoever waits for it."""


def detached(environ: dict[str, str] | None = None) -> Detached | None:
    """What `start` told this process; None: it was started by somebody else. To be asked once."""
    value = os.environ.pop(VARIABLE, "") if environ is None else environ.pop(VARIABLE, "")
    number, _, log = value.partition(":")
    if not log or not re.fullmatch("[0-9]{1,9}", number):
        return None
    pipe = int(number)
    try:
        os.set_inheritable(pipe, False)
    except OSError:  # that was meant for another process
        return None

    def announce(run: str) -> None:
        with suppress(OSError):  # nobody waits any more
            # With how much it has written to its log until now.
            os.write(pipe, f"{run} {os.fstat(2).st_size}\n".encode())
            os.close(pipe)

    return Detached(log, announce)


def start(arguments: Sequence[str], say: Callable[[str], None]) -> tuple[str, int]:
    """Start `dambench` with these arguments as a process of its own, and wait until its run has begun.

    Args:
        say: hears what the process says until then.

    Returns:
        The run's id, or an empty text and the exit code of a process that ended without one.
    """
    folder = files.log_folder()
    with files.writing("The log", folder, files.HOME_HINT):
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / f"{secrets.token_hex(8)}.log"
        output = log.open("xb")
    ours, theirs = os.pipe()
    try:
        with output:
            child = subprocess.Popen(
                [sys.executable, "-m", "dambench", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[theirs],
                env=os.environ | {VARIABLE: f"{theirs}:{log}", "PYTHONUNBUFFERED": "1"},
            )
        os.close(theirs)
        theirs = -1
        run = _announced(ours, log, say)
    finally:
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)
    if run:
        # Its end is the business of whoever looks for it; here nobody waits.
        child.returncode = 0
        return run, 0
    code = child.wait()
    log.unlink(missing_ok=True)
    return "", code


def _announced(pipe: int, log: Path, say: Callable[[str], None]) -> str:
    """The run that a process announces, or an empty text at its end; what its log has until then is read aloud."""
    received, over = b"", False
    os.set_blocking(pipe, False)
    with log.open("rb") as output:
        rest = b""
        while not over:
            with suppress(BlockingIOError):
                part = os.read(pipe, 100)
                received += part
                over = not part or part.endswith(b"\n")
            run, _, length = received.decode().strip().partition(" ")
            lines = (rest + output.read(max(0, int(length) - output.tell()) if over and run else -1)).split(b"\n")
            rest = lines.pop()
            for line in [*lines, rest] if over else lines:
                if line:
                    say(line.decode(errors="replace"))
            if not over:
                time.sleep(0.02)
    return run


@contextmanager
def beating(path: Path, run: str, attempt: int, stop: Callable[[], None]) -> Iterator[None]:
    """Give a sign of life every ten seconds, however long an iteration takes.

    Args:
        stop: called when somebody who cannot signal this process has asked it to stop.
    """
    over = threading.Event()

    def beat() -> None:
        while exists(path):
            with suppress(Exception), closing(Store.open(path, write=True)) as store:
                while not over.wait(BEAT_SECONDS):
                    try:
                        if store.beat(run, attempt):
                            stop()
                    except Gone:
                        return
                    except NotKept:
                        continue  # the run itself will say what is wrong
            if over.wait(BEAT_SECONDS):
                return

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=2.0)
