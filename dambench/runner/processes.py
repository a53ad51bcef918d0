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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, cast

from dambench.core import files
from dambench.core.errors import Gone, NotKept
from dambench.core.events import Process
from dambench.store.records import Identity
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

QUEUED = "DAMBENCH_QUEUED"
"""In the environment of a process that begins a queued run: the uid and the id that the run is to have."""

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
    if parts:
        return " ".join(parts)
    import psutil  # Linux says all by itself

    return f"{psutil.boot_time():.0f}"


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
    import psutil

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


def state(row: ProcessRow, *, acting: bool = False) -> State:
    """Look up how a run stands: as its row says, unless its process is not there any more.

    On this machine that is known at once; of another one, only that it has been silent.

    Args:
        acting: whether something is begun in its place, by itself, if it is lost. One on another machine is then
            listened to for a while first: it may be that only a clock was set.
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
    if quiet > LOST_SECONDS and not (acting and _listened(row) < SILENT_SECONDS):
        return "lost"
    return "silent" if quiet > SILENT_SECONDS else stored


def identity(row: ProcessRow) -> str:
    """Write down which process a run was, so that a later one can be told that it has ended."""
    return json.dumps([row.host, row.boot, row.pid, row.process_started])


def identity_of(pid: int) -> str:
    """Write down which process that is, of this machine."""
    return json.dumps([socket.gethostname(), _boot(), pid, _started(pid)])


def states(store: Store) -> dict[int, State]:
    """Look up how each run stands, by its number, that is waiting or running by its own word."""
    return {row.number: state(row) for row in store.unfinished()}


class _Heard(NamedTuple):
    """A sign of life of a process elsewhere, when it was noticed here."""

    beat_at: str
    silent: float
    """Seconds that it had been silent then."""
    noticed: float
    """When that was, by the monotonic clock."""
    looked: float
    """When it was looked at last, by the same."""


_heard: dict[tuple[str, str, int, int], _Heard] = {}
"""By process. A wall clock may be set while we look, or another host's be wrong. So a sign of life that is new is no
older than the last look, whenever it says that it was given; and from then on the time is counted that passes here."""
MOST_HEARD = 10_000


def silence(row: ProcessRow) -> float:
    """Seconds since a run's last sign of life: by this machine's clock when it is first asked for, and then by the time
    that has passed."""
    if not row.beat_at:
        return float("inf")
    process, now = _process(row), time.monotonic()
    last = _heard.get(process)
    if last is None or last.beat_at != row.beat_at:
        passed = max(0.0, (datetime.now(UTC) - datetime.fromisoformat(row.beat_at)).total_seconds())
        if len(_heard) >= MOST_HEARD:
            _heard.clear()
        last = _Heard(row.beat_at, passed if last is None else min(passed, now - last.looked), now, now)
    _heard[process] = last._replace(looked=now)
    return last.silent + now - last.noticed


def _listened(row: ProcessRow) -> float:
    """Seconds for which its last sign of life is known here; infinite: it never gave one."""
    last = _heard.get(_process(row))
    return float("inf") if last is None else time.monotonic() - last.noticed


def _process(row: ProcessRow) -> tuple[str, str, int, int]:
    return row.host, row.boot, row.pid, row.process_started


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


def queued() -> Identity | None:
    """The identity of the queued run that this process is to begin; None: it has none to begin. To be asked once."""
    match = re.fullmatch("([0-9a-f]{32}):([a-z0-9]{1,40})", os.environ.pop(QUEUED, ""))
    return Identity(match[1], match[2]) if match else None


class Child:
    """A process of our own that was started with `launch`, and what it has said until now."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path, pipe: int):
        self._process, self.log, self._pipe = process, log, pipe
        self._received, self._silent = b"", False
        os.set_blocking(pipe, False)
        self.run = ""
        """The id of its run, once it has announced one."""

    @property
    def pid(self) -> int:
        return self._process.pid

    def hear(self) -> bool:
        """Hear what it announces. Returns whether it will announce nothing more."""
        while not self._silent:
            try:
                part = os.read(self._pipe, 100)
            except BlockingIOError:
                break
            self._received += part
            if not part or part.endswith(b"\n"):
                self._silent = True
                self.run = self._received.decode().strip().partition(" ")[0]
                os.close(self._pipe)
        return self._silent

    @property
    def written(self) -> int:
        """How much it had written to its log when it announced its run."""
        return int(self._received.decode().strip().partition(" ")[2] or 0)

    def ended(self) -> int | None:
        """Its exit code, negative for a signal; None: it goes on."""
        return self._process.poll()

    def wait(self) -> int:
        return self._process.wait()

    def terminate(self) -> None:
        self._process.terminate()

    def let_go(self) -> None:
        """Ask no more about it: its end is the business of whoever looks for it."""
        if not self._silent:
            self._silent = True
            os.close(self._pipe)
        if self._process.returncode is None:
            self._process.returncode = 0


def launch(arguments: Sequence[str], environ: Mapping[str, str] | None = None) -> Child:
    """Start `dambench` with these arguments as a process of its own, that outlives this one.

    Args:
        environ: what is added to our environment.
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
                env=os.environ | {VARIABLE: f"{theirs}:{log}", "PYTHONUNBUFFERED": "1"} | dict(environ or {}),
            )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return Child(child, log, ours)


def start(arguments: Sequence[str], say: Callable[[str], None]) -> tuple[str, int]:
    """Start `dambench` with these arguments as a process of its own, and wait until its run has begun.

    Args:
        say: hears what the process says until then.

    Returns:
        The run's id, or an empty text and the exit code of a process that ended without one.
    """
    child = launch(arguments)
    try:
        _read_aloud(child, say)
        if child.run:
            return child.run, 0
        code = child.wait()
        child.log.unlink(missing_ok=True)
        return "", code
    finally:
        child.let_go()


def _read_aloud(child: Child, say: Callable[[str], None]) -> None:
    """Read aloud what the log of a process has until it announces a run, or ends."""
    over = False
    with child.log.open("rb") as output:
        rest = b""
        while not over:
            over = child.hear()
            until = max(0, child.written - output.tell()) if over and child.run else -1
            lines = (rest + output.read(until)).split(b"\n")
            rest = lines.pop()
            for line in [*lines, rest] if over else lines:
                if line:
                    say(line.decode(errors="replace"))
            if not over:
                time.sleep(0.02)


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
