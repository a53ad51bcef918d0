"""Contest: forms of the same work, measured in turn, round by round.

What is set for a whole process (the allocator, torch's flags) must not leak from one form into another: the parent
starts a worker for each side and allocator and asks them over pipes, one at a time, to measure a form once. Workers
that are not asked sleep. Every second round goes through the forms backwards.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Self

import torch

from dambench.core import allocator

ROOT = Path(__file__).parents[1]

NAMES = (
    "distil",
    "costs",
    "gradients",
    "floors",
    "trajectories",
    "experts",
    "start",
    "opening",
    "console",
    "evaluation",
    "testpass",
    "recording",
    "store",
    "report",
    "queue",
    "ranking",
    "threads",
    "memory",
    "growth",
)
"""The benchmarks, each a module with `contest(scene)`."""

ON_GPU = ("distil", "evaluation", "testpass", "costs", "memory")
"""Those of what a GPU computes, the most worth first: a machine that has one may be at hand for ten minutes only."""

DEFAULT, KEPT = "default malloc", "kept malloc"

ALLOCATORS = {
    DEFAULT: {},
    KEPT: allocator.KEPT,  # what `dambench run` starts itself with
}

OFFICIAL, OURS = "official", "ours"

PROCESSOR = "processor seconds"

Measured = dict[str, float]
"""What one measurement found, by quantity; the quantity's name says the unit: `seconds`, `peak bytes`."""

Measure = Callable[[], Measured]

Results = dict[str, list[Measured]]
"""By form, one measurement per round."""


@dataclass(frozen=True)
class Scene:
    """Where a contest is held."""

    device: str
    """`cpu` or `cuda:0`."""
    quick: bool = False
    """Tiny sizes: only to see that all works."""

    @property
    def cuda(self) -> bool:
        return self.device != "cpu"

    @property
    def allocators(self) -> tuple[str, ...]:
        """What official forms are measured under: on a GPU, malloc has no part in it."""
        return (KEPT,) if self.cuda else (DEFAULT, KEPT)


@dataclass(frozen=True)
class Form:
    """One way to do the work."""

    name: str
    prepare: Callable[[], Measure]
    """Called once in the worker: sets all up, and returns what measures once."""
    side: str = OURS
    allocator: str = KEPT
    warmups: int = 1
    """Measurements before the first round, which do not count: caches, heaps and clocks settle."""
    fresh: bool = False
    """Whether each measurement has a process of its own."""


@dataclass(frozen=True)
class Contest:
    """Forms that do the same work, and which are compared."""

    forms: tuple[Form, ...]
    ratios: tuple[tuple[str, str], ...] = ()
    """Names of forms (a, b): how many times b's measure a's is."""
    compared: str = "seconds"
    """The quantity of which the ratios are."""
    figures: Callable[[Results], dict[str, float]] = lambda results: {}
    """What else follows from the results; the names say the units."""
    most_rounds: int = 10**6
    """For what does not vary."""


def load(name: str, scene: Scene) -> Contest:
    """The contest of a benchmark."""
    contest: Contest = importlib.import_module(f"benchmarks.{name}").contest(scene)
    names = [form.name for form in contest.forms]
    assert len(set(names)) == len(names), f"{name} has two forms of one name"
    return contest


def headline(name: str) -> str:
    """The first line of a benchmark's docstring."""
    return (importlib.import_module(f"benchmarks.{name}").__doc__ or "").splitlines()[0]


def timed(action: Callable[[], object], device: str, repeats: int = 1) -> Measured:
    """Seconds that an action takes, the mean of several one after another; on a GPU, until it has done all."""

    def synchronise() -> None:
        if device != "cpu":
            torch.cuda.synchronize(device)

    synchronise()
    began = time.perf_counter()
    for _ in range(repeats):
        action()
    synchronise()
    return {"seconds": (time.perf_counter() - began) / repeats}


def hold(contest: Contest, ask: Callable[[Form, bool], Measured], rounds: int, say: Callable[[str], None]) -> Results:
    """Measure every form once per round.

    Args:
        ask: measures a form; with True, only warms it up.
        say: hears how far it is.
    """
    results: Results = {form.name: [] for form in contest.forms}
    for form in contest.forms:
        if not form.fresh:
            say(f"warming up: {form.name}")
            ask(form, True)
    rounds = min(rounds, contest.most_rounds)
    for index in range(rounds):
        for form in contest.forms if index % 2 == 0 else reversed(contest.forms):
            say(f"round {index + 1} of {rounds}: {form.name}")
            results[form.name].append(ask(form, False))
    return results


def per_round(results: Results, a: str, b: str, quantity: str) -> list[float]:
    """a's measure over b's in each round."""
    return [x[quantity] / y[quantity] for x, y in zip(results[a], results[b], strict=True)]


def middle(results: Results, name: str, quantity: str = "seconds") -> float:
    """The median over the rounds."""
    return median(measured[quantity] for measured in results[name])


class Workers:
    """The processes of one contest, which live in a temporary DAMBENCH_HOME; they are started when first asked."""

    def __init__(self, benchmark: str, scene: Scene):
        self.benchmark = benchmark
        self.scene = scene
        self.machine: dict[str, Any] = {}
        """What the last worker that was started said about itself."""
        self._open = ExitStack()
        self._folder = self._open.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-"))
        self._kept: dict[tuple[str, str], Worker] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, traceback)

    def ask(self, form: Form, warm: bool) -> Measured:
        """Measure a form once, in its worker."""
        if form.fresh:
            with self._start(form) as worker:
                return worker.ask(form.name, warm)
        key = (form.side, form.allocator)
        if key not in self._kept:
            self._kept[key] = self._open.enter_context(self._start(form))
        return self._kept[key].ask(form.name, warm)

    def _start(self, form: Form) -> "Worker":
        own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "DAMBENCH_"))}
        own |= {
            "DAMBENCH_HOME": f"{self._folder}/home",
            "DAMBENCH_DB": f"{self._folder}/runs.db",
            # As in `dambench run`, and for all sides: they are to differ in the allocator alone.
            "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", allocator.SPINS),
        }
        worker = Worker(self.benchmark, self.scene, own | ALLOCATORS[form.allocator])
        self.machine = worker.machine
        return worker


class Worker:
    """A process that measures what it is asked to."""

    def __init__(self, benchmark: str, scene: Scene, environment: dict[str, str]):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", benchmark, scene.device, "quick" if scene.quick else "full"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.machine: dict[str, Any] = self._hear()["machine"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self._process.communicate()  # the end of its input ends it
        else:
            self._process.kill()
            self._process.wait()

    def ask(self, form: str, warm: bool) -> Measured:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"form": form, "warm": warm}) + "\n")
        self._process.stdin.flush()
        measured: Measured = self._hear()["measured"]
        return measured

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended with code {self._process.wait()}; what it said is above")
        heard: dict[str, Any] = json.loads(line)
        return heard


def of_processor(action: Callable[[], object], device: str) -> dict[str, float]:
    """What an action takes, by the clock and of the processors, all threads together."""
    began, spent = time.perf_counter(), time.process_time()
    action()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return {"seconds": time.perf_counter() - began, PROCESSOR: time.process_time() - spent}
