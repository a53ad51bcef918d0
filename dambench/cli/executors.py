"""Flags of commands that carry out queued runs: where, how many at once, and what one executor alone needs to know."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Annotated, Any, NamedTuple, TypeVar, cast

from typer import Option

from dambench.core.errors import BadInput
from dambench.runner import executors
from dambench.runner.executors import Wishes

Result = TypeVar("Result")

DEFAULT = "local"

_HELP = {
    "address": "ray: the cluster, as HOST:PORT; else one is begun on this machine.",
    "gpus": "ray: GPUs of a run, or a part of one as 0.5; slurm: GPUs of a run.",
    "partition": "slurm: the partition.",
    "time": "slurm: the time of a job, as 90m, 36h or 1-12:00:00 [default: 60m]. A longer run goes on in the next.",
    "account": "slurm: who pays.",
    "qos": "slurm: the quality of service.",
    "gres": "slurm: generic resources, as gpu:a100:1.",
    "mem": "slurm: memory of a run, as 16G.",
    "constraint": "slurm: features of a node.",
    "grace": "slurm: seconds before the end of its time at which a run saves its state [default: 120].",
}
"""By name, in the order of the help."""


class Chosen(NamedTuple):
    """What the flags of a command say about where runs are carried out."""

    executor: str
    workers: int | None
    options: Mapping[str, str]

    def wishes(self, devices: Sequence[str] = ()) -> Wishes:
        """What is asked of the executor.

        Args:
            devices: cpu, cuda:0, …, if any were named.
        """
        return Wishes(workers=self.workers, devices=tuple(devices), options=self.options)


def executor_options(command: Callable[..., Result]) -> Callable[..., Result]:
    """Give a command the flags of executors, in the place of its parameter `where`, which is then a `Chosen`."""
    flags: dict[str, tuple[Any, Any, Any]] = {
        "executor": (
            str,
            Option("--executor", metavar="|".join(executors.names()), help="Where the runs are made."),
            DEFAULT,
        ),
        "workers": (int | None, Option("--workers", min=1, help="How many at once, at most."), None),
    }
    for name, text in _HELP.items():
        flags[name] = (str | None, Option(f"--{name}", help=text), None)
    flags["slurm_flag"] = (
        list[str] | None,
        Option("--slurm-flag", metavar="NAME[=VALUE]", help="slurm: any other option of sbatch. May be repeated."),
        None,
    )

    @wraps(command)
    def with_flags(**values: Any) -> Result:
        given = {name: values.pop(name) for name in flags}
        executor, workers, others = given.pop("executor"), given.pop("workers"), given.pop("slurm_flag")
        options = {name: value for name, value in given.items() if value is not None}
        if others:
            if any("\n" in other for other in others):
                raise BadInput("--slurm-flag has one option of sbatch; it may be repeated.")
            options["flag"] = "\n".join(others)
        return command(**values, where=Chosen(executor, workers, options))

    parameters: list[inspect.Parameter] = []
    for own in inspect.signature(command).parameters.values():
        if own.name == "where":
            parameters += [
                inspect.Parameter(
                    name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=cast(Any, Annotated)[kind, option]
                )
                for name, (kind, option, default) in flags.items()
            ]
        else:
            parameters.append(own.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    cast(Any, with_flags).__signature__ = inspect.Signature(parameters)
    with_flags.__annotations__ = {each.name: each.annotation for each in parameters}
    return with_flags
