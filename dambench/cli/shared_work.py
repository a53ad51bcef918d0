"""Work that several queued runs share: experts are trained once, before the runs that match their trajectories."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from dambench.core.sanitize import counted
from dambench.store.queue import Queue
from dambench.store.records import QueuedRun

if TYPE_CHECKING:
    from dambench.engine.job import Job


def experts_first(queue: Queue, runs: Sequence[tuple[QueuedRun, "Job"]], tag: str) -> list[QueuedRun]:
    """Let runs that share experts come after one command that trains them. A run that shares them with none trains
    its own.

    Args:
        runs: with their jobs.

    Returns:
        The commands, and all runs.
    """
    groups: dict[str, list[int]] = {}
    words_of: list[list[str]] = []
    for number, (run, job) in enumerate(runs):
        words = expert_words(job, str(run.request.get("data", "")))
        words_of.append(words)
        if words:
            groups.setdefault(json.dumps([words, run.threads, run.device]), []).append(number)
    found = [run for run, _ in runs]
    commands: list[QueuedRun] = []
    for group in groups.values():
        if len(group) < 2:
            continue
        most = max(_count(runs[number][1]) for number in group)
        run, words = found[group[0]], [*words_of[group[0]], "--count", str(most)]
        device = ["--device", run.device] if run.device else []
        command = queue.new(
            {"words": [*words, *device]},
            command="experts",
            method=counted(most, "expert"),
            dataset=run.dataset,
            network=run.network,
            key=f"experts {json.dumps(words)} {run.device}",
            threads=run.threads,
            device=run.device,
            tag=tag,
            priority=max(found[number].priority for number in group),
        )
        commands.append(command)
        for number in group:
            found[number] = msgspec.structs.replace(found[number], after=[*found[number].after, command.uid])
    return [*commands, *found]


def _count(job: "Job") -> int:
    return int(job.config.method.options.get("experts", 0))


def expert_words(job: "Job", data: str) -> list[str]:
    """The words after `dambench experts train` for the experts that a run matches, but for their number.

    Args:
        data: where the raw data are; empty: the dataset needs none.

    Returns:
        None at all: it needs no experts, or those that were imported, or there is no such command for them.
    """
    from dambench.matching import experts, trajectories

    options, config = job.options, job.config
    if not isinstance(options, trajectories.Options) or options.experts_from:
        return []
    how = trajectories.training(options, getattr(options, "schedule", None))
    usual = experts.MTT if how.gsam is None else experts.FTD
    words = ["--dataset", config.dataset.name, "--network", config.network, "--epochs", str(how.epochs)]
    words += ["--optimiser", "sgd" if how.gsam is None else "gsam", "--seed", str(how.seed)]
    words += ["--preprocessing", config.preprocessing]
    words += ["--precision", "tf32" if config.precision != "fp32" and config.execution.device != "cpu" else "fp32"]
    settings: dict[str, Any] = {f"dataset.{name}": value for name, value in sorted(config.dataset.options.items())}
    mine, theirs = msgspec.to_builtins(how), msgspec.to_builtins(usual)
    settings |= {
        name: value
        for name, value in mine.items()
        if name not in ("epochs", "seed", "gsam", "schedule") and value != theirs[name]
    }
    if how.gsam is not None:
        settings |= {f"gsam.{name}": value for name, value in mine["gsam"].items() if value != theirs["gsam"][name]}
    if how.schedule is not None:
        words += ["--schedule", how.schedule.score]
        plain = msgspec.to_builtins(experts.Schedule())
        schedule = mine["schedule"]
        settings |= {f"schedule.{n}": v for n, v in schedule.items() if n != "score" and v != plain[n]}
    for name, value in settings.items():
        words += ["--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    if config.held_out is not None:
        words += ["--protocol", config.protocol.name]
    return [*words, *(["--data", data] if data else [])]
