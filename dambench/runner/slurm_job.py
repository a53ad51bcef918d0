"""A job of Slurm on its node: one queued run, which gives way when its time is up and goes on when it is called again.

Slurm says a signal before the time of a job is over, and when it is to make room. submitit hears it and calls
`checkpoint`: the run saves its state and ends, the job is put back into Slurm's queue, and what is called then, perhaps
on another node, resumes the run. What the node has to say lies beside the database, for whoever submitted the job:

    runs.db.slurm/UID.json          which job the run belongs to; an earlier one whose turn comes ends at once
    runs.db.slurm/UID.TOKEN.json    what became of it: a slice for each time that the job was called
    runs.db.slurm/jobs/             submitit's files, and what the runs print
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec
from msgspec import Struct

from dambench.core import files
from dambench.core.errors import BadInput, NotKept
from dambench.core.units import duration
from dambench.runner import processes
from dambench.store.rows import RunRow, SqlRow
from dambench.store.runs import Store, exists

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

Outcome = Literal["", "finished", "failed", "stopped", "lost", "superseded"]
"""Empty: not yet. stopped: it gave way and can be resumed. lost: its process ended without a word."""

STUCK_SLICES = 3
"""Slices in a row, ended by the end of their time, in which a run came no further: then it is not put back again."""
LOOK_SECONDS = 5.0
"""How often a run is looked at that somebody else is making."""
WAIT_SECONDS = 0.1
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
STOPPED = (-signal.SIGTERM, 128 + signal.SIGHUP, 128 + signal.SIGINT, 128 + signal.SIGTERM)
"""Exit codes of a run that was asked to stop; the first before it had begun to listen."""

_Record = TypeVar("_Record", bound=Struct)


class JobSpec(Struct, frozen=True):
    """What a job needs to know: plain values, so that they can be pickled for a node."""

    folder: str
    """`runs.db.slurm`, on a disk that all nodes share."""
    uid: str
    """The run's."""
    token: str
    """The name of this job, among all that were ever submitted for the run."""
    db: str
    begin: tuple[str, ...]
    """Words of the command that begins the run. (What goes on with one that is there needs none of them.)"""
    threads: int
    """0: as many as the job has cores."""
    limit_seconds: float
    """The time of one slice; 0: not known."""
    environ: dict[str, str]


class CurrentJob(Struct):
    """Which job a queued run belongs to."""

    token: str
    job: str = ""
    """Slurm's id; empty: it is being submitted."""
    at: str = ""


class Slice(Struct):
    """One call of a job: from when a node began it until it ended there."""

    job: str
    host: str
    process: str = ""
    """The run's, as `processes.identity` writes it."""
    began: str = ""
    ended: str = ""
    code: int | None = None
    mark: str = ""
    """How far the run had come when it ended."""

    @property
    def seconds(self) -> float:
        if not (self.began and self.ended):
            return 0.0
        return (datetime.fromisoformat(self.ended) - datetime.fromisoformat(self.began)).total_seconds()


class JobRecord(Struct):
    """What became of a job."""

    slices: list[Slice] = []
    outcome: Outcome = ""
    reason: str = ""
    """A sentence, of what is no success."""
    run: str = ""
    """The uid of the run that was made, or had done the same before."""
    told: bool = False
    """It was Slurm who stopped it; else, if it stopped, somebody did by hand."""


def current_path(folder: Path, uid: str) -> Path:
    return folder / f"{uid}.json"


def record_path(folder: Path, uid: str, token: str) -> Path:
    return folder / f"{uid}.{token}.json"


def read(path: Path, kind: type[_Record]) -> _Record | None:
    """Read a file of the folder; None: it is not there yet, or is not one of ours."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, ValueError):
        return None


def write(path: Path, record: Struct) -> None:
    """Write a file of the folder, whole or not at all."""
    files.write_whole(path, msgspec.json.format(msgspec.json.encode(record)))


class _EndedByItself(BaseException):
    """The run has ended by itself while it was asked to give way: there is nothing to put back."""


class SlurmJob:
    """One queued run as a job: what submitit calls on a node, and calls again once the job was put back."""

    def __init__(self, spec: JobSpec):
        self.spec = spec
        self._child: subprocess.Popen[bytes] | None = None
        self._record = JobRecord()
        self._pipe = -1
        """What the run announces its id on."""

    def __reduce__(self) -> "tuple[type[SlurmJob], tuple[JobSpec]]":
        return SlurmJob, (self.spec,)

    def __call__(self) -> Outcome:
        """Begin the run, or go on with it, until it ends. Returns what became of it."""
        try:
            return self._carry_out()
        except _EndedByItself:
            return self._record.outcome
        except (BadInput, NotKept) as error:
            return self._end("failed", str(error))

    def checkpoint(self) -> "DelayedSubmission":
        """Let the run save its state and end, before the job is put back. Called within a signal's handler."""
        from submitit.helpers import DelayedSubmission

        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # one reason is enough, and then the process ends
        if self._child is not None:
            self._ask()
            outcome = self._close_slice(self._wait(self._child.pid))
            if outcome != "stopped" or self._is_stuck():
                raise _EndedByItself
            self._say("the run gives way, and is resumed when the job is called again")
        return DelayedSubmission(SlurmJob(self.spec))

    # On the node.

    def _carry_out(self) -> Outcome:
        spec, folder = self.spec, Path(self.spec.folder)
        current = read(current_path(folder, spec.uid), CurrentJob)
        if current is None or current.token != spec.token:
            self._say("another job has this run now: nothing is done")
            return "superseded"
        self._record = read(record_path(folder, spec.uid, spec.token), JobRecord) or JobRecord()
        self._record.outcome, self._record.reason, self._record.told = "", "", False
        os.environ.update(spec.environ)
        before = self._record.slices[-1].process if self._record.slices else ""
        self._record.slices.append(Slice(job_id(), socket.gethostname(), began=_now()))
        self._keep()
        os.environ[processes.ENDED] = before
        if self._wait_for_others() == "finished":
            self._record.run = spec.uid
            return self._end("finished")
        words = self._words()
        signal.signal(signal.SIGTERM, self._pass_on)
        with _held_signals() as held:
            self._child = self._start(words, held)
            self._record.slices[-1].process = processes.identity_of(self._child.pid)
            self._keep()
        code = self._wait(self._child.pid)
        with _held_signals():
            return self._close_slice(code)

    def _wait_for_others(self) -> str:
        """Wait while somebody else makes the run. Returns its state then; empty: it has not begun."""
        said = False
        while (state := self._state()) in processes.ALIVE:
            if not said:
                self._say("the run goes on elsewhere: this job waits for its end")
                said = True
            time.sleep(LOOK_SECONDS)
        return state

    def _state(self) -> str:
        row = self._row()
        return processes.state(row, acting=True) if row else ""

    def _words(self) -> tuple[str, ...]:
        row = self._row()
        return ("resume", row.id, "--headless", "--db", self.spec.db) if row else self.spec.begin

    def _row(self) -> RunRow | None:
        path = Path(self.spec.db)
        if not exists(path):
            return None
        with closing(Store.open(path)) as store:
            return store.with_uid(self.spec.uid)

    def _start(self, words: tuple[str, ...], held: set[signal.Signals]) -> "subprocess.Popen[bytes]":
        """Start the run in this job's own group of processes: what ends the job must not leave it behind.

        Args:
            held: the signals that were not to come before, which the run must hear again.
        """
        threads = self.spec.threads or len(os.sched_getaffinity(0))
        environ = os.environ | {processes.BATCH: job_id() or "1", "PYTHONUNBUFFERED": "1"} | thread_counts(threads)
        ours, theirs = os.pipe()
        log = _log()
        if log:
            environ[processes.VARIABLE] = f"{theirs}:{log}"
        try:
            return subprocess.Popen(
                [sys.executable, "-m", "dambench", *words],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs],
                env=environ,
                preexec_fn=partial(signal.pthread_sigmask, signal.SIG_SETMASK, held),
            )
        finally:
            os.close(theirs)
            self._pipe = ours

    @staticmethod
    def _wait(pid: int) -> int:
        """Wait until a child has ended, without burying it: a signal may come, and its handler asks for the same.

        Returns:
            Its exit code, as subprocess gives it.
        """
        while not (end := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)):
            time.sleep(WAIT_SECONDS)
        return end.si_status if end.si_code == os.CLD_EXITED else -end.si_status

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        """Stop the run for good: its job was cancelled, or is to make room at once."""
        self._ask()

    def _ask(self) -> None:
        self._record.told = True
        if self._child is not None:
            with suppress(ProcessLookupError):
                self._child.send_signal(signal.SIGTERM)

    def _close_slice(self, code: int) -> Outcome:
        """Note how the process of this slice ended, and what that means for the run."""
        last = self._record.slices[-1]
        if last.code is not None:
            return self._record.outcome  # a signal came just then
        last.code, last.ended, last.mark = code, _now(), self._mark()
        if self._child is not None:
            self._child.poll()  # which buries it
        error = self._error()
        if code == 0:
            self._record.run = self._announced()
            return self._end("finished")
        if code in STOPPED:
            return self._end("stopped", error)
        if code < 0:
            return self._end("lost", f"Its process was ended by {_signal_name(-code)}.")
        return self._end("failed", error or f"It ended with exit code {code}, and {_log() or 'its job'} says why.")

    def _is_stuck(self) -> bool:
        """Whether the run came no further in several slices: it would be put back for ever. Noted as its failure."""
        last = self._record.slices[-STUCK_SLICES:]
        marks = {one.mark for one in last}
        whole = [one for one in last if one.seconds > self.spec.limit_seconds / 2 > 0]  # else it was to make room
        if len(whole) < STUCK_SLICES or len(marks) > 1:
            return False
        time_of_one = duration(self.spec.limit_seconds)
        self._end("failed", f"It came no further in {STUCK_SLICES} slices of {time_of_one}: it needs more --time.")
        return True

    def _mark(self) -> str:
        sql = """
            select phase, done, (select max(iteration) from checkpoints where run = number) as checkpoint,
                (select count(*) from scores where run = number) as scores
            from runs where uid = ?
        """
        return json.dumps(self._asked(sql), default=str)

    def _announced(self) -> str:
        """The uid of the run that its process has announced: another one's, where that had done the same before."""
        run = ""
        with suppress(OSError), open(self._pipe, "rb", buffering=0) as pipe:
            os.set_blocking(self._pipe, False)  # a process that it left behind may hold the other end
            run = (pipe.read(200) or b"").decode(errors="replace").partition(" ")[0]
        if not exists(Path(self.spec.db)):
            return self.spec.uid
        with closing(Store.open(Path(self.spec.db))) as store:
            found = store.with_id(run)
        return found.uid if found else self.spec.uid

    def _error(self) -> str:
        rows = self._asked("select error from runs where uid = ?")
        return str(rows[0]["error"] or "") if rows else ""

    def _asked(self, sql: str) -> list[SqlRow]:
        with suppress(BadInput, NotKept):
            if exists(Path(self.spec.db)):
                with closing(Store.open(Path(self.spec.db))) as store:
                    return list(store.query(sql, self.spec.uid))
        return []

    def _end(self, outcome: Outcome, reason: str = "") -> Outcome:
        self._record.outcome, self._record.reason = outcome, reason
        self._keep()
        return outcome

    def _keep(self) -> None:
        write(record_path(Path(self.spec.folder), self.spec.uid, self.spec.token), self._record)

    @staticmethod
    def _say(text: str) -> None:
        print(f"dambench: {text}", file=sys.stderr, flush=True)


@contextmanager
def _held_signals() -> Iterator[set[signal.Signals]]:
    """Let no handler run within the block. Yields the signals that were held before."""
    before = {signal.Signals(one) for one in signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)}
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def thread_counts(threads: int) -> dict[str, str]:
    """What tells the libraries of a process how many threads it has: read when they are loaded."""
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))


def job_id() -> str:
    """The id of the job that this process is of, as `123` or `123_4`; empty: of none."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID", "")


def _log() -> str:
    """The file that this process writes to; empty: it is none."""
    with suppress(OSError):
        path = os.readlink("/proc/self/fd/2")
        if os.path.isfile(path):
            return path
    return ""


def _signal_name(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
