"""Executors: where the runs of a queue are carried out.

A worker (`runner/worker.py`) takes queued runs one after another and hands each to an executor; it asks how each
stands about twice a second, and notes in the queue how it ended. It is the only one that writes the queue: an executor
begins a run, stops it, and says how it is. An executor is a module with

    def open(site: Site, wishes: Wishes) -> Executor

which raises `BadInput`, in one sentence, where it cannot work here: an extra is missing (with the exact pip line), a
host is not there. Its module is named in `MODULES`, and imported only when it is asked for.

What every executor keeps to:

- The run gets the identity that the queue has for it, `Identity(queued.run, queued.id)`: with `dambench run`, by the
  environment of its process (`environment_of`). So it is entered once, whoever begins it; a second process that tries
  ends with a sentence, and the run is followed as it is.
- A run that is there already is gone on with (`dambench resume`), or followed while it is alive.
- It has as many threads as the queued run says: `environment_of` sets them.
- It outlives the worker: one that is killed leaves its runs as they are, and the next worker follows them.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, cast, runtime_checkable

import msgspec

from dambench.core.errors import named
from dambench.runner import processes
from dambench.store.queue import Queued
from dambench.store.runs import Store

MODULES = {
    "local": "dambench.runner.executors.local",
    "ray": "dambench.runner.executors.ray",
    "slurm": "dambench.runner.executors.slurm",
}
"""By name, as `--executor` takes it."""

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Variables that say how many threads a process may have for its sums."""


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody asked of an executor. What one has no use for, it refuses in one sentence."""

    workers: int | None = None
    """How many runs at once; None: as many as there are devices, or as the processors have room for."""
    devices: tuple[str, ...] = ()
    """cpu, cuda:0, …; none: all GPUs, or where there are none the processors."""
    options: Mapping[str, str] = {}
    """What one executor alone knows: address, partition, …"""


@dataclass
class Site:
    """What is common to all that a worker runs."""

    path: Path
    """The database."""
    store: Store
    """It, open to write, for the worker's own thread."""
    worker: str
    """The worker's uid."""


class Outcome(NamedTuple):
    """How a run ended.

    finished: `run` is its uid. failed: for good, `reason` says why. stopped: with a checkpoint, on request. lost: its
    process ended without a word. In the last two cases it can be gone on with.
    """

    state: Literal["finished", "failed", "stopped", "lost"]
    reason: str = ""
    run: str = ""


class Handle(Protocol):
    """A queued run that is being carried out."""

    @property
    def queued(self) -> Queued: ...


class Executor(Protocol):
    """Where queued runs are carried out. All methods are called by one thread."""

    slots: int
    """How many runs at once, at most."""
    devices: Sequence[str]
    """What it carries them out on, for people."""

    def fits(self, queued: Queued) -> bool:
        """Tell whether a run could begin now, beside those that are going on."""
        ...

    def start(self, queued: Queued) -> Handle:
        """Begin a run, or go on with it, or follow it where it goes on already. Returns at once.

        Raises:
            BadInput: it cannot be; the run is noted as failed then, for this reason.
        """
        ...

    def poll(self, handle: Any) -> Outcome | None:
        """Look how a run stands; None: it goes on."""
        ...

    def stop(self, handle: Any) -> None:
        """Ask a run to stop with a checkpoint. May be called again and again; `poll` says when it has."""
        ...

    def close(self) -> None:
        """Let go of everything but the runs that go on."""
        ...


@runtime_checkable
class Explaining(Protocol):
    """An executor that hands its runs to somebody else, and knows why one of them waits."""

    def standing(self, handle: Any) -> str:
        """Say how a run stands, where it does not simply run; empty: it does."""
        ...


def names() -> list[str]:
    return sorted(MODULES)


def open_executor(name: str, site: Site, wishes: Wishes) -> Executor:
    """Open an executor by its name.

    Raises:
        BadInput: there is none of that name, or it cannot work here.
    """
    module = importlib.import_module(MODULES[named("executor", name, MODULES)])
    return cast(Executor, module.open(site, wishes))


def environment_of(queued: Queued) -> dict[str, str]:
    """What a process that carries out a queued run has in its environment: who the run is, and how many threads."""
    threads = dict.fromkeys(THREADS, str(queued.threads)) if queued.threads else {}
    return {processes.QUEUED: f"{queued.run}:{queued.id}"} | threads
