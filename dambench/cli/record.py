"""Recording: the one place that joins engine, monitor, store and screen."""

import json
import shlex
import sys
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

from dambench.cli.halves import made_of_halves
from dambench.cli.items import look_for
from dambench.cli.output import Watch
from dambench.cli.process import Foreground
from dambench.cli.rank import joiner
from dambench.cli.signals import EXIT_CODES, LOST, Interrupted
from dambench.core import files, registry
from dambench.core.errors import KeptElsewhere, NotKept
from dambench.core.events import (
    Adapted,
    AnyEvent,
    Evaluated,
    Failed,
    Finished,
    Measured,
    Resumed,
    Stopped,
    Warned,
    remark,
)
from dambench.published.audit import audit, sentence
from dambench.runner import hooks, processes
from dambench.store.recall import recall
from dambench.store.recorder import Recorder
from dambench.store.runs import Store
from dambench.store.statistics import mean, std

if TYPE_CHECKING:
    from dambench.core.events import Beginning
    from dambench.engine.checkpoints import Keeper
    from dambench.engine.job import Job
    from dambench.runner.energy import EnergyMeter


def record(
    store: Store,
    run_id: str,
    job: "Job",
    here: Foreground,
    as_json: bool,
    beginning: "Beginning | None" = None,
    then: Callable[[], tuple[int, dict[str, Any]]] = lambda: (0, {}),
    *,
    again: bool = False,
) -> int:
    """Run a job that has been entered in the database, and keep all its events.

    Args:
        as_json: print the result when it is over.
        beginning: of a run that is resumed.
        then: what follows once it has finished: its exit code, and what it adds to the result.
        again: take nothing over that other runs have measured of the set that is evaluated.

    Returns:
        The exit code.
    """
    from dambench import engine
    from dambench.runner.monitor import sampled
    from dambench.training.environment import without_secrets

    attempt = beginning.attempt if beginning else 1
    watch = here.watch.of_run(job.config.iterations)
    recorder = Recorder(store, run_id, attempt, watch.say, lambda: bool(here.signals.received))
    keeper = _keeper(store, run_id, job, beginning, recorder)
    last: list[AnyEvent] = []

    def keep(events: Iterator[AnyEvent]) -> None:
        for event in recorder.record(events):
            watch.show(event)
            if isinstance(event, Resumed):
                here.announce(run_id)
            if isinstance(event, Finished | Failed | Stopped):
                last.append(event)

    try:
        with (
            registry.stdout_to_stderr(),
            watch,
            here.signals.kept_for_the_run(),
            processes.beating(store.path, run_id, attempt, here.signals.ask),
            closing(_meter(job)) as meter,
        ):
            try:
                command_line = shlex.join(["dambench", *without_secrets(sys.argv[1:])])
                known, before = recall(store, job.config, job.card.sha256), look_for(store, job, run_id, again=again)
                others = known, joiner(watch.say), before, partial(made_of_halves, store, job)
                events = run_until_signal(
                    engine.run(job, command_line, keeper, beginning, meter, *others),
                    lambda: here.signals.received or (LOST if recorder.lost else ""),
                    engine.StopRun,
                )
                with closing(sampled(events, since=store.seconds(run_id))) as sampled_events:
                    keep(sampled_events)
            except Interrupted as interrupt:
                keep(iter([_stopped(store, run_id, interrupt)]))
            except NotKept:
                raise
            except Exception as error:
                # The engine raises nothing: this is a fault of ours outside it. The run must not look alive.
                fault = f"{type(error).__name__}: {error}"
                keep(iter([Failed(error=fault, traceback=traceback.format_exc(), costs=[])]))
    except NotKept as error:
        kept = f" What was kept stays; `dambench resume {run_id}` goes on from there."
        watch.say(f"dambench: {error}{'' if isinstance(error, KeptElsewhere) else kept}")
        hooks.ended("run", run_id, "not kept", store.path, {"error": str(error)}, watch.say)
        return 1
    code, more = exit_code(last[-1]), dict[str, Any]()
    _tell_hook(store, run_id, watch)
    if isinstance(last[-1], Finished):
        _say_audit(store, run_id, last[-1], watch)
        code, more = then()
    if as_json:
        print(json.dumps(result(store, run_id) | more), flush=True)
    return code


def _meter(job: "Job") -> "EnergyMeter":
    """The meter of a run's energy: of none, where several GPUs share it, for that of one would be too little."""
    from dambench.runner.energy import EnergyMeter
    from dambench.training.environment import device_uuid

    return EnergyMeter("" if job.config.execution.devices else device_uuid(job.policy))


def _tell_hook(store: Store, run_id: str, watch: Watch) -> None:
    if hooks.is_set():
        facts = result(store, run_id)
        hooks.ended("run", run_id, str(facts["state"]), store.path, facts, watch.say)


def _keeper(store: Store, run_id: str, job: "Job", beginning: "Beginning | None", recorder: Recorder) -> "Keeper":
    """What keeps the checkpoints of a run, as long as its words are kept too."""
    from dambench.engine.checkpoints import Keeper

    return Keeper(
        files.run_folder(store.run(run_id).uid),
        job.config.execution.checkpoint_every,
        beginning.checkpoints if beginning else None,
        lambda: not recorder.is_behind,
    )


def _stopped(store: Store, run_id: str, interrupt: Interrupted) -> Stopped:
    """The last word of a run that was interrupted outside the engine."""
    row = store.run(run_id)
    iteration = row.done if row.phase == "distil" else 0
    return Stopped(signal=str(interrupt), phase=row.phase, iteration=iteration, costs=[])


def _say_audit(store: Store, run_id: str, finished: Finished, watch: Watch) -> None:
    """Say how the accuracies compare that the file of an imported set claims."""
    if files.is_imported(finished.set_sha256):
        details = store.describe(run_id)
        if lines := audit(details["scores"], details["run"]["protocol"]):
            watch.say(sentence(lines))


def exit_code(last: AnyEvent | None) -> int:
    """The exit code for the last event of a run."""
    match last:
        case Stopped(signal=name):
            return EXIT_CODES.get(name, 143)
        case Failed():
            return 1
        case _:
            return 0


def run_until_signal(
    events: Generator[AnyEvent, None, None], received: Callable[[], str], stop: type[Exception]
) -> Iterator[AnyEvent]:
    """Yield the events of a run; throw the first reason that `received` gives into it, and yield its last ones."""
    thrown = False
    try:
        event = next(events)
        while True:
            yield event
            reason = received()
            if reason and not thrown:
                thrown = True
                event = events.throw(stop(reason))
            else:
                event = next(events)
    except StopIteration:
        return


def result(store: Store, run_id: str) -> dict[str, Any]:
    """The object that `--json` prints of a run that has ended."""
    row = store.run(run_id)
    events = [event for _, event in store.tail(run_id)]
    measured = [event.measured if isinstance(event, Evaluated) else event for event in events]
    final = [event for event in measured if isinstance(event, Measured) and event.final]
    # Of the first network, as on every screen; of those that are left where others diverged there is no mean.
    config = json.loads(row.config)
    first = [event for event in final if event.evaluator == "accuracy" and event.subject == config["evaluate_on"][0]]
    accuracies = [float(event.values["accuracy"]) for event in first]
    if row.state == "finished" and len(accuracies) < config["eval_repeats"]:
        accuracies = []
    costs = next((event.costs for event in reversed(events) if isinstance(event, Finished | Failed | Stopped)), [])
    result = {
        "run": run_id,
        "state": row.state,
        "method": row.method,
        "dataset": row.dataset,
        "ipc": row.ipc,
        "network": row.network,
        "protocol": row.protocol,
        "seed": row.seed,
        "accuracy": mean(accuracies) if accuracies else None,
        "std": std(accuracies),
        "n": len(accuracies),
        "scores": [
            {"network": event.subject, "repeat": event.repeat}
            | event.values
            | {"seconds": event.seconds, "peak_memory_bytes": event.peak_memory_bytes}
            for event in final
        ],
        "seconds": {cost.phase: cost.seconds for cost in costs},
        "peak_memory_bytes": {cost.phase: cost.peak_memory_bytes for cost in costs},
        "joules": {cost.phase: cost.joules for cost in costs},
        "joules_shared": {cost.phase: cost.shared for cost in costs},
        "synthetic_sha256": row.set_sha256,
        "warnings": list(dict.fromkeys(remark(event) for event in events if isinstance(event, Warned | Adapted))),
    }
    return result | ({"error": row.error} if row.error else {})
