"""Recording: the one place that joins engine, monitor, store and screen, and what signals do to a run meanwhile."""

import json
import os
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from rich.console import Console

from dambench.cli.output import Watch
from dambench.core import files, registry
from dambench.core.errors import KeptElsewhere, NotKept
from dambench.core.events import Adapted, AnyEvent, Evaluated, Failed, Finished, Resumed, Stopped, Warned, remark
from dambench.runner import processes
from dambench.store.leaderboard import mean, std
from dambench.store.recorder import Recorder
from dambench.store.runs import Store

if TYPE_CHECKING:
    from dambench.core.events import Beginning
    from dambench.engine.settle import Job

REQUEST = "request"
"""By which a run is stopped that cannot be signalled from where its user is."""

LOST = "the loss of its database"

EXIT_CODES = {"SIGHUP": 129, "SIGINT": 130, "SIGTERM": 143, "SIGUSR1": 143, "SIGUSR2": 143, REQUEST: 143, LOST: 1}

PATIENCE = 10.0
"""Seconds after which somebody who asked a run to stop is told why it has not yet."""


def record(
    store: Store,
    run_id: str,
    job: "Job",
    signals: "Signals",
    console: Console,
    as_json: bool,
    beginning: "Beginning | None" = None,
    told: processes.Detached | None = None,
) -> int:
    """Run a job that has been entered in the database, and keep all that it says.

    Args:
        as_json: print the result when it is over.
        beginning: the run was begun already.
        told: this process is a detached one; whoever waits for it hears when a run goes on.

    Returns:
        The exit code.
    """
    from dambench import engine
    from dambench.engine.checkpoints import Keeper
    from dambench.runner.monitor import sampled
    from dambench.training.environment import without_secrets

    said: list[AnyEvent] = []
    attempt = beginning.attempt if beginning else 1
    recorder = Recorder(store, run_id, attempt, lambda text: watch.say(text), lambda: bool(signals.heard))

    def keep(events: Iterator[AnyEvent]) -> None:
        for event in recorder.record(events):
            watch.hear(event)
            if isinstance(event, Resumed) and told:
                told.announce(run_id)
            if isinstance(event, Finished | Failed | Stopped):
                said.append(event)

    folder = files.run_folder(store.run(run_id)["uid"])
    keeper = Keeper(
        folder,
        job.config.where.checkpoint_every,
        beginning.checkpoints if beginning else None,
        lambda: not recorder.is_behind,
    )
    try:
        with (
            registry.aside(),
            Watch(console, getattr(job.options, "iterations", 0)) as watch,
            signals.kept_for_the_run(),
            processes.beating(store.path, run_id, attempt, signals.ask),
        ):
            try:
                command_line = shlex.join(["dambench", *without_secrets(sys.argv[1:])])
                words = until_told(
                    engine.run(job, command_line, keeper, beginning),
                    lambda: signals.heard or (LOST if recorder.lost else ""),
                    engine.StopRun,
                )
                with closing(sampled(words, since=store.seconds(run_id))) as events:
                    keep(events)
            except Told as reason:
                row = store.run(run_id)
                iteration = row["done"] if row["phase"] == "distil" else 0
                keep(iter([Stopped(signal=str(reason), phase=row["phase"], iteration=iteration, costs=[])]))
            except NotKept:
                raise
            except Exception as error:
                # The engine raises nothing: this is a fault of ours outside it. The run must not look alive.
                text = f"{type(error).__name__}: {error}"
                keep(iter([Failed(error=text, traceback=traceback.format_exc(), costs=[])]))
    except KeptElsewhere as error:
        watch.say(f"dambench: {error}")
        return 1
    except NotKept as error:
        watch.say(f"dambench: {error} What was kept stays; `dambench resume {run_id}` goes on from there.")
        return 1
    if as_json:
        print(json.dumps(result(store, run_id)), flush=True)
    match said[-1]:
        case Stopped(signal=signal_name):
            return EXIT_CODES[signal_name]
        case Failed():
            return 1
        case _:
            return 0


def until_told(
    events: Generator[AnyEvent, None, None], told: Callable[[], str], stop: type[Exception]
) -> Iterator[AnyEvent]:
    """The events of a run; once `told` answers with a reason, it is thrown into the run, which then says its last."""
    thrown = False
    try:
        event = next(events)
        while True:
            yield event
            reason = told()
            if reason and not thrown:
                thrown = True
                event = events.throw(stop(reason))
            else:
                event = next(events)
    except StopIteration:
        return


class Told(BaseException):
    """A signal came, and there is no time for a run to end by itself."""


class Signals:
    """They end the program, but while a run is recorded the first is only a reason to stop it.

    Args:
        detached: HUP, which comes when the terminal goes, is ignored.
        say: tells who waits why it takes long.
    """

    def __init__(self, *, detached: bool = False, say: Callable[[str], None] = lambda text: None) -> None:
        self.heard = ""
        """Which came first; empty: none yet."""
        self._detached = detached
        self._say = say
        self._recording = False
        self._count = 0
        self._timer: threading.Timer | None = None

    def __enter__(self) -> "Signals":
        self._before: dict[int, Any] = {}
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            before = signal.getsignal(number)
            if number == signal.SIGHUP and self._detached:
                self._before[number] = signal.signal(number, signal.SIG_IGN)
            elif before is not signal.SIG_IGN or number == signal.SIGTERM:
                # (Whoever started us under nohup, or in the background of a script, wants the others ignored.)
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def kept_for_the_run(self) -> Iterator[None]:
        self._recording = True
        try:
            yield
        finally:
            self._recording = False
            if self._timer is not None:
                self._timer.cancel()

    def ask(self) -> None:
        """Stop the run, as a signal would; may be called by another thread."""
        self.heard = self.heard or REQUEST

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        self.heard = self.heard or signal.Signals(number).name
        if self._count > 2:
            os._exit(EXIT_CODES[self.heard])  # it was asked three times: whatever hangs, hangs
        if self._count == 2 or not self._recording:
            raise Told(self.heard)
        self._timer = threading.Timer(PATIENCE, self._explain)
        self._timer.daemon = True
        self._timer.start()

    def _explain(self) -> None:
        self._say(
            f"It stops at the end of an iteration, which takes longer than {PATIENCE:.0f} s here. A second signal ends "
            "it at once; it can then be resumed from its last checkpoint."
        )


def result(store: Store, run_id: str) -> dict[str, Any]:
    """What `--json` prints of a run that has ended."""
    row = store.run(run_id)
    told = [event for _, event in store.tail(run_id)]
    final = [event for event in told if isinstance(event, Evaluated) and event.final]
    # Of the first network, as on every screen; of those that are left where others diverged there is no mean.
    config = json.loads(row["config"])
    accuracies = [event.accuracy for event in final if event.network == config["evaluate_on"][0]]
    if row["state"] == "finished" and len(accuracies) < config["eval_repeats"]:
        accuracies = []
    costs = next((event.costs for event in reversed(told) if isinstance(event, Finished | Failed | Stopped)), [])
    keep = (
        "network",
        "repeat",
        "accuracy",
        "balanced_accuracy",
        "loss",
        "train_accuracy",
        "seconds",
        "peak_memory_bytes",
    )
    result = {
        "run": run_id,
        "state": row["state"],
        "method": row["method"],
        "dataset": row["dataset"],
        "ipc": row["ipc"],
        "network": row["network"],
        "protocol": row["protocol"],
        "seed": row["seed"],
        "accuracy": mean(accuracies) if accuracies else None,
        "std": std(accuracies),
        "n": len(accuracies),
        "scores": [{key: getattr(event, key) for key in keep} for event in final],
        "seconds": {cost.phase: cost.seconds for cost in costs},
        "peak_memory_bytes": {cost.phase: cost.peak_memory_bytes for cost in costs},
        "synthetic_sha256": row["set_sha256"],
        "warnings": list(dict.fromkeys(remark(event) for event in told if isinstance(event, Warned | Adapted))),
    }
    return result | ({"error": row["error"]} if row["error"] else {})
