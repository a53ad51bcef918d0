"""Work that several queued runs share: experts are trained once, before the runs that match their trajectories."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from dambench.core import config as settings_of
from dambench.core import expert_files, registry
from dambench.core.config import RunConfig
from dambench.core.errors import BadInput
from dambench.core.sanitize import counted, display
from dambench.store.queue import Queue
from dambench.store.records import QueuedRun
from dambench.store.runs import Store

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


@dataclass
class SharedWork:
    """Networks that are trained on the real images once, and kept for all runs that ask for the same."""

    key: str
    count: int
    network: str
    dataset: str
    seconds: float | None = None
    """What their training takes; None: nobody knows yet. 0: they are kept already."""
    kept: bool = False

    @property
    def what(self) -> str:
        """It in words: `100 networks convnet-d3-w128 on CIFAR-10`."""
        return f"{counted(self.count, 'trained network')} {display(self.network, 60)} on {display(self.dataset, 60)}"


def shared_work(job: "Job", pools: Sequence[expert_files.Pool]) -> SharedWork | None:
    """What a run needs trained on the real images before it begins; None: nothing.

    Args:
        pools: what is kept of such already.
    """
    how = _training(job.config, job.options)
    if how is None:
        return None
    count = int(job.config.method.options.get("experts", 1) or 1)
    work = SharedWork(_work_key(job.config, job.card.sha256, how), count, job.config.network, job.card.label)
    kept = [
        pool
        for pool in pools
        if (pool.about.dataset, pool.about.network) == (_label(job), job.config.network)
        and {"epochs": 0} | pool.about.how == {"epochs": 0} | msgspec.to_builtins(how)
        and pool.about.what == "trajectories"
        and pool.count >= count
    ]
    if kept:
        work.seconds, work.kept = 0.0, True
    return work


def _label(job: "Job") -> str:
    return job.card.label + (" without validation images" if job.config.held_out else "")


def _training(config: RunConfig, options: Any) -> Any | None:
    """How the networks of a run are trained, and what else they depend on but the data; None: it needs none."""
    from dambench.matching import coresets, pretrained, trajectories

    if isinstance(options, trajectories.Options):
        return None if options.experts_from else trajectories.training(options, getattr(options, "schedule", None))
    if isinstance(options, pretrained.PretrainedOptions):
        return options.training
    epochs = getattr(options, "epochs", 0) if config.method.name == "rded" else getattr(options, "teacher_epochs", 0)
    if epochs:
        return {"teacher": epochs, "seed": config.seed}
    return {"network": options.epochs, "seed": config.seed} if isinstance(options, coresets.Options) else None


def _work_key(config: RunConfig, data: str, how: Any) -> str:
    held_out = config.held_out.sha256 if config.held_out else ""
    where = config.execution.device.partition(":")[0]
    parts = [msgspec.to_builtins(how), config.network, data, config.preprocessing, held_out, where, config.precision]
    return json.dumps(parts, sort_keys=True)


def past_seconds(store: Store, works: Sequence[SharedWork]) -> None:
    """Find out what shared work took in the past: the most that a run spent on it, as the others found it done.

    Of trajectories only runs count that said that they trained some.
    """
    if not works:
        return
    unmade: dict[str, list[SharedWork]] = {}
    for work in works:
        if not work.kept:
            unmade.setdefault(_without_seed(work.key), []).append(work)  # that of another seed takes as long
    rows = store.query(
        """
        select runs.config, runs.dataset_sha256, costs.seconds, (
            select json_extract(body, '$.message') from events where events.run = runs.number and kind = 'warned'
                and json_extract(body, '$.message') like '% experts of % are trained, for %' limit 1
        ) as trained
        from runs join costs on costs.run = runs.number and costs.phase = 'experts'
        where runs.state = 'finished' and runs.deleted_at = ''
        """
    )
    for row in rows:
        try:
            config = msgspec.json.decode(row["config"], type=RunConfig)
            method = registry.load("methods", config.method.name)
            how = _training(config, settings_of.read(method.Options, config.method.options, "a past run"))
        except (msgspec.DecodeError, BadInput):  # of a dambench that knows other settings
            continue
        if how is None:
            continue
        for work in unmade.get(_without_seed(_work_key(config, row["dataset_sha256"], how)), []):
            if isinstance(how, dict) or str(row["trained"] or "").startswith(f"{work.count} experts of "):
                work.seconds = max(work.seconds or 0.0, row["seconds"])


def _without_seed(key: str) -> str:
    parts = json.loads(key)
    parts[0].pop("seed", None)
    return json.dumps(parts, sort_keys=True)
