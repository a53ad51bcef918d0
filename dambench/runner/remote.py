"""Remote: a queued run on another host than that of the database, from its claim to its last word.

The run is an ordinary process of that host, `dambench run`, whose database is a spool (`store/spool.py`). Whoever
carries it out here sends the spool to the host of the database while the run goes on. The process ends with whoever
started it: it is asked to stop then, and saves its state. What the spool has by that time is sent by the next who
carries out the run on this host; on another one it goes on from the last checkpoint that was sent.
"""

import hashlib
import json
import os
import platform
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import dambench
from dambench.core import files
from dambench.core.errors import BadInput, NotKept
from dambench.core.sanitize import display
from dambench.runner import processes
from dambench.store import journal
from dambench.store.rows import SqlRow
from dambench.store.spool import Link, Seed, Spool, Unreachable

SHIP_SECONDS = 0.5
BEAT_SECONDS = 5.0
AGAIN_SECONDS = 2.0
"""After which the host of the database is asked again where it did not answer."""
PATIENCE = 600.0
"""Seconds for which a run that has ended waits for the host of the database; then its spool is left where it is."""
STOP_SECONDS = 20.0
"""For which a process that was left behind may save its state."""
LONGEST_REASON = 400

_TETHERED = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[1]):
    sys.exit(143)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
"""What a process begins with that is to be asked to stop when its parent ends; Linux only."""


class HostVersions(NamedTuple):
    """What must be the same on all hosts that make one table."""

    dambench: str
    """Version."""
    code: str
    """SHA-256 of dambench's source."""
    python: str


@cache
def about_here() -> HostVersions:
    """What this host has."""
    digest, folder = hashlib.sha256(), Path(dambench.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return HostVersions(dambench.__version__, digest.hexdigest(), ".".join(platform.python_version_tuple()[:2]))


def difference(ours: HostVersions, theirs: HostVersions, host: str) -> str:
    """Say in one sentence what another host has otherwise; empty: nothing."""
    where = display(host, 60)
    if ours.dambench != theirs.dambench:
        return f"{where} has dambench {display(theirs.dambench, 30)}, and this host {ours.dambench}: install the same."
    if ours.code != theirs.code:
        return f"{where} has another source of dambench {ours.dambench} than this host: install the same on both."
    if ours.python != theirs.python:
        return f"{where} has Python {display(theirs.python, 30)}, and this host {ours.python}: install the same."
    return ""


class Order(NamedTuple):
    """A queued run, as another host is told of it."""

    run: str
    """The uid that it has, or will have."""
    command: Literal["run", "evaluate", "experts"]
    request: dict[str, Any]
    """As a TOML file of `dambench run` holds it; of the other commands: `words`."""
    of: str
    """The id of the run whose set is evaluated; empty: none."""
    environment: dict[str, str]
    """What its process is told: who it is, and how many threads it has."""
    about: HostVersions
    """What the host of the database has."""


class Ended(NamedTuple):
    """How a run ended; see `executors.Outcome`."""

    state: Literal["finished", "failed", "stopped", "lost"]
    reason: str = ""


THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def carry_out(order: Order, link: Link, stop: Callable[[], bool] = lambda: False) -> Ended:
    """Begin a run on this host, or go on with it, until it ends and all that it said is in the database.

    Args:
        stop: whether it is to stop with a checkpoint.
    """
    if wrong := difference(order.about, about_here(), socket.gethostname()):
        return Ended("failed", wrong)
    try:
        return _Carried(order, link, stop).carry_out()
    except BadInput as error:
        return Ended("failed", str(error))
    except (NotKept, Unreachable, OSError) as error:
        return Ended("lost", display(f"{socket.gethostname()}: {error}", LONGEST_REASON))


class _Carried:
    def __init__(self, order: Order, link: Link, stop: Callable[[], bool]):
        self._order, self._link, self._stop = order, link, stop
        self._log = files.log_folder() / f"{secrets.token_hex(8)}.log"

    def carry_out(self) -> Ended:
        order, link = self._order, self._link
        left = dict(_left_spools(order.run))
        for folder in left.values():
            _end_process(folder)
        begun = link.begin(order.run, list(left))
        if begun.continues:
            spool = Spool(left[begun.continues], order.run, begun.claim)
            if not spool.ship(link):
                return Ended("lost", "another process has gone on with the run")
        for folder in left.values():
            _remove(folder)
        if order.command == "experts":
            return self._train_experts(begun.claim)
        seed = link.seed(order.run, begun.claim, [order.of] if order.of else [])
        if seed.row.get("state") == "finished":
            return Ended("finished")
        spool = Spool(_spools() / f"{order.run}.{begun.claim}", order.run, begun.claim)
        spool.prepare(seed)
        spool.fetch(link, seed)
        with _child([*self._words(spool, seed), "--db", str(spool.path)], self._environment(seed), self._log) as child:
            _note_process(spool.folder, child.pid)
            ended = self._follow(spool, child)
        if ended is None:
            ended = self._judged(child.returncode)
        if not spool.rest or spool.superseded:
            _remove(spool.folder)
        return ended

    def _train_experts(self, claim: int) -> Ended:
        """Networks trained on real images are files of a host, not rows: others see them on a shared disk alone."""
        if not (files.home() / "claims" / f"{self._order.run}.json").is_file():
            return Ended(
                "failed",
                f"Experts are files, and {socket.gethostname()} has a DAMBENCH_HOME of its own: let it be on a disk "
                "that all hosts share.",
            )
        with _child(["experts", "train", *self._given()], self._environment(None), self._log) as child:
            while child.poll() is None:
                if self._stop():
                    child.terminate()
                    return Ended("stopped") if child.wait() else Ended("finished")
                time.sleep(SHIP_SECONDS)
        return Ended("finished") if child.returncode == 0 else Ended("failed", self._last_words())

    def _given(self) -> list[str]:
        return [str(word) for word in self._order.request.get("words", [])]

    def _words(self, spool: Spool, seed: Seed) -> list[str]:
        if seed.row:
            return ["resume", str(seed.row["id"]), "--headless"]
        if self._order.command == "evaluate":
            return ["evaluate", self._order.of, *self._given()]
        import tomli_w

        path = spool.folder / "run.toml"
        path.write_text(tomli_w.dumps(self._order.request))
        return ["run", str(path), "--headless"]

    def _environment(self, seed: Seed | None) -> dict[str, str]:
        # What began this process may have set the number of threads for its own reasons.
        environ = {name: value for name, value in os.environ.items() if name not in THREADS}
        environ |= self._order.environment | {"DAMBENCH_DISK": "network", "PYTHONUNBUFFERED": "1"}
        if seed and seed.row:
            environ[processes.ENDED] = json.dumps(
                [seed.row[name] for name in ("host", "boot", "pid", "process_started")]
            )
        return environ

    def _follow(self, spool: Spool, child: "subprocess.Popen[bytes]") -> Ended | None:
        """Send what the process says, until it has ended and all is sent. None: how it ended is in the database."""
        asked, beat, reached = False, time.monotonic(), time.monotonic()
        while True:
            code = child.poll()
            pause, whole = SHIP_SECONDS, False
            try:
                whole = spool.ship(self._link)
                if time.monotonic() - beat > BEAT_SECONDS:
                    beat = time.monotonic()
                    spool.beat(self._link)
                reached = time.monotonic()
            except (Unreachable, NotKept):
                pause = AGAIN_SECONDS
            if spool.superseded:
                child.kill()
                return Ended("lost", "another process has gone on with the run")
            if code is not None and whole:
                return None
            if code is not None and time.monotonic() - reached > PATIENCE:
                return Ended(
                    "lost",
                    f"the host of the database did not answer: what the run said is kept in {spool.folder} on "
                    f"{socket.gethostname()}, and is sent when it is carried out there again",
                )
            if (spool.stop_asked or self._stop()) and code is None and not asked:
                asked = True  # a second signal would end it at once, without a checkpoint
                child.terminate()
            if code is None:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(pause)
            else:
                time.sleep(min(pause, 0.1) if whole else pause)

    def _judged(self, code: int) -> Ended:
        """How the run ended, by what the database has of it."""
        row = self._standing()
        error = display(str(row.get("error") or ""), LONGEST_REASON)
        match row.get("state"):
            case "finished":
                return Ended("finished")
            case "failed":
                return Ended("failed", error if code != 2 else self._last_words())
            case "stopped" if code != 2:
                return Ended("stopped", error)
            case "waiting" | "running" if code < 0:
                return Ended("lost", f"its process was ended by signal {-code}")
            case None if code in (129, 130, 143, -15):
                return Ended("stopped", "stopped before it began")
            case None if code < 0:
                return Ended("lost", f"its process was ended by signal {-code} before it began")
        return Ended("failed", self._last_words() or f"it ended with exit code {code}")

    def _standing(self) -> SqlRow:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return self._link.standing(self._order.run)
            except (Unreachable, NotKept):
                if time.monotonic() > until:
                    raise
                time.sleep(AGAIN_SECONDS)

    def _last_words(self) -> str:
        """The last line that the process said, which is why it ended."""
        with suppress(OSError):
            lines = self._log.read_bytes()[-4 * LONGEST_REASON :].decode(errors="replace").strip().splitlines()
            if lines:
                return display(lines[-1].removeprefix("dambench: "), LONGEST_REASON)
        return ""


@contextmanager
def _child(words: list[str], environ: dict[str, str], log: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """Run `dambench` as a process that is asked to stop when this one ends, whatever the reason."""
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "dambench", *words]
    if sys.platform == "linux":
        command = [sys.executable, "-c", _TETHERED, str(os.getpid()), *command[1:]]
    ours, theirs = os.pipe()
    try:
        with log.open("xb") as output:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs],
                env=environ | {processes.VARIABLE: f"{theirs}:{log}"},
            )
    finally:
        os.close(theirs)
        os.close(ours)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(STOP_SECONDS)
            child.kill()
            child.wait()


def _spools() -> Path:
    return files.home() / "spool"


def _left_spools(run: str) -> Iterator[tuple[int, Path]]:
    """The spools of a run that lie on this host, by their claims."""
    for folder in sorted(_spools().glob(f"{run}.*")):
        claim = folder.name.rpartition(".")[2]
        if claim.isdecimal() and journal.folder(folder / "runs.db").is_dir():
            yield int(claim), folder


def _note_process(folder: Path, pid: int) -> None:
    (folder / "process.json").write_text(processes.identity_of(pid))


def _end_process(folder: Path) -> None:
    """End the process that a spool was left by, if it is still there: it may save its state before."""
    path = folder / "process.json"
    if not path.is_file():
        return
    identity = path.read_text()
    host, _, pid, started = json.loads(identity)
    until = time.monotonic() + STOP_SECONDS

    def lives() -> bool:
        return bool(host == socket.gethostname() and started and processes.identity_of(pid) == identity)

    for number in (15, 9):
        if lives():
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        while lives() and time.monotonic() < until:
            time.sleep(0.05)
        until = time.monotonic() + STOP_SECONDS


def _remove(folder: Path) -> None:
    """Remove a spool that was sent, and this host's index of it."""
    with suppress(OSError, BadInput):
        index = journal.index_path(folder / "runs.db")
        for path in index.parent.glob(f"{index.name}*"):
            path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
