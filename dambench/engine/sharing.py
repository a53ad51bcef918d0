"""One distillation shared by several processes: what can be, and the life of every rank but the first.

The first rank is the run: it has the record, the checkpoints and the evaluation. The others are told the job and where
to begin, and then do what their method says until it ends.
"""

import json
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any, cast

import msgspec
import torch

from dambench import __version__, networks
from dambench.core import registry
from dambench.core.config import Execution, RunConfig
from dambench.core.contracts import Method
from dambench.core.errors import BadInput, about
from dambench.engine.checkpoints import Checkpoint
from dambench.engine.job import Job, distilled, open_parts, open_problem
from dambench.engine.threads import with_threads
from dambench.training.policy import Policy, choose_device, choose_devices
from dambench.training.problem import State
from dambench.training.ranks import Ranks

Join = Callable[[Job], Ranks]
"""Starts the other ranks of a job, and waits until they are there."""


@about("ranks")
def check_shares(name: str, method: Method, devices: tuple[str, ...]) -> None:
    """See that a method's run can be shared by so many processes.

    Raises:
        BadInput: its loss is no sum over classes.
    """
    if len(devices) > 1 and not method.SUMS_OVER_CLASSES:
        able = [other for other in registry.names("methods") if registry.load("methods", other).SUMS_OVER_CLASSES]
        raise BadInput(
            f"{len(devices)} processes cannot share a run of {name}: they share classes, and its loss is no sum over "
            f"classes. Take one device, or one of {', '.join(able)}."
        )


@about("ranks")
def shared(job: Job, devices: tuple[str, ...]) -> Job:
    """The job on these devices, by one process each; of the job's own threads each has its share, if none were asked.

    Raises:
        BadInput: it cannot be shared by so many.
    """
    config = job.config
    check_shares(config.method.name, job.method, devices)
    ranks, classes = len(devices), len(job.card.classes)
    if ranks == 1:
        if not config.execution.devices:
            return job
        return _on(job, _threads(job, msgspec.structs.replace(config.execution, device=devices[0], devices=())))
    if ranks > classes:
        raise BadInput(f"{ranks} processes cannot share {classes} classes of {job.card.label}: each takes whole ones.")
    if networks.build(config.network, job.card).uses_batch_statistics:
        raise BadInput(
            f"{ranks} processes cannot share a run that matches on {config.network}: they share classes, and the "
            "statistics of its BatchNorm are of images of all. Take one device, or a network with another norm, as "
            f"--network {_without_batch_norm(config.network)}."
        )
    execution = msgspec.structs.replace(config.execution, device=devices[0], devices=devices, compiled=False)
    if config.execution.devices != devices:  # else it goes on as it did
        execution = _threads(job, execution)
    notes = ["It runs uncompiled: several processes share it."] if config.execution.compiled else []
    return _on(replace(job, notes=[*job.notes, *notes]), execution)


def _threads(job: Job, execution: Execution) -> Execution:
    """Choose the threads of each of the processes that share a run."""
    config = msgspec.structs.replace(job.config, execution=execution)
    return with_threads(config, job.card, max(1, len(execution.devices)))


def resumed(job: Job, ranks: int | None) -> Job:
    """The job of a run that goes on, by so many processes; None: by as many as before.

    Raises:
        BadInput: it cannot be shared by so many, or there are not so many devices here.
    """
    before = job.config.execution
    devices = before.devices or (before.device,)
    if ranks is not None and ranks != len(devices):
        devices = (before.device,) if ranks == 1 else choose_devices(before.device.partition(":")[0], ranks)
    for device in devices:
        choose_device(device)
    return shared(job, devices)


def _on(job: Job, execution: Any) -> Job:
    config = msgspec.structs.replace(job.config, execution=execution)
    return replace(job, config=config, policy=Policy.of(execution, config.precision, config.deterministic))


def _without_batch_norm(network: str) -> str:
    """The same network with instance norm, said by name so that no recipe's norm is taken; else the ConvNet."""
    module, options = networks.parse(network)
    words = module.PARTS.get("norm", {})
    word = next((word for word, norm in words.items() if norm == "instance"), "") if isinstance(words, dict) else ""
    if not word:
        return "convnet-in"
    name = networks.spell(module, msgspec.structs.replace(options, norm="instance"))
    return name if name.endswith(f"-{word}") else f"{name}-{word}"


def lead(ranks: Ranks, job: Job, policy: Policy, state: State | None) -> None:
    """Tell the others where to begin.

    Args:
        policy: which may have been adapted.
        state: to go on from.
    """
    fields = ("real_chunk", "synthetic_chunk", "kept_steps")
    adapted = {name: int(getattr(policy, name)) for name in fields}
    # The same bytes as a checkpoint has: tensors and JSON, nothing that is executed.
    ranks.from_first(Checkpoint(job.config.sha256, 0, {"go on": state}, "", adapted).to_bytes())


def description(job: Job) -> bytes:
    """What another rank is told of a job, as JSON."""
    about_job = {
        "version": [__version__, str(torch.__version__)],
        "config": msgspec.to_builtins(job.config),
        "data": job.card.sha256,
        "threads": job.policy.threads,
    }
    return json.dumps(about_job).encode()


def follow(
    ranks: Callable[[torch.device], Ranks], rank: int, description_of_first: bytes, say: Callable[[str], None]
) -> None:
    """Do what a rank but the first does in a run, from its beginning to its end.

    Args:
        ranks: joins the others.
        description_of_first: what `description` gave on the first rank.

    Raises:
        BadInput: this machine lacks something that the first one has.
        RankLost: another rank is gone.
    """
    from dambench.engine.settle import reopen

    described = json.loads(description_of_first)
    here = [__version__, str(torch.__version__)]
    if described["version"] != here:
        raise BadInput(f"The first rank is dambench, torch {described['version']}, and this one is {here}.")
    config = msgspec.convert(described["config"], RunConfig)
    own = msgspec.structs.replace(config.execution, device=config.execution.devices[rank], threads=described["threads"])
    job = reopen(msgspec.structs.replace(config, execution=own), described["data"], "", {}, None, say)
    job.policy.apply()
    problem = open_problem(job, open_parts(job).train)
    with closing(ranks(job.policy.device)) as joined:
        start = Checkpoint.from_bytes(joined.from_first(b""))
        problem.ranks = joined
        problem.policy = replace(problem.policy, **cast(dict[str, Any], start.policy))
        for _ in distilled(job, problem, start.state["go on"]):
            pass


@contextmanager
def together(join: Join | None, job: Job, policy: Policy, state: State | None) -> Generator[Ranks | None]:
    """Join the other ranks of a job for its distillation, if there are any.

    Raises:
        RankLost: one of them did not get there.
    """
    if not job.config.execution.devices:
        yield None
        return
    if join is None:
        raise BadInput(f"A run of {len(job.config.execution.devices)} processes was asked for, and there is this one.")
    with closing(join(job)) as ranks:
        lead(ranks, job, policy, state)
        yield ranks
