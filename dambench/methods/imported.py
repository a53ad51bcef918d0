"""Imported: a synthetic set that was made elsewhere, or before.

`dambench import FILE` checks a file and keeps it under its SHA-256; here it is given as it is, so that it can be
evaluated under any protocol and on any network beside the sets that are made here. The run's seed decides nothing
about it, only about the networks that are trained on it.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

from msgspec import Meta

from dambench import config, files
from dambench.config import Recipe
from dambench.errors import BadInput
from dambench.problem import Problem, State, Step, SyntheticSet

PAPER = ""
MATCHES_ON_NETWORK = False
RECIPES: tuple[Recipe, ...] = ()


class Options(config.Options, frozen=True):
    set: Annotated[str, Meta(pattern="^([0-9a-f]{64})?$", max_length=64)] = ""
    """SHA-256 of the set, as `dambench import` says it."""


def distill(problem: Problem, options: Options, resume: State | None = None) -> Iterator[Step]:
    """Give the set, once.

    Raises:
        BadInput: it is not on this machine, is damaged, or is none for this dataset and IPC.
    """
    if not options.set:
        raise BadInput("Which set? `dambench import FILE --dataset NAME` says what to give as --set method.set=SHA256.")
    path = files.set_path(options.set)
    if not path.is_file():
        raise BadInput(f"There is no set {options.set} on this machine: `dambench import FILE` brings it here.")
    if files.sha256(path) != options.set:
        raise BadInput(f"The set {str(path)!r} is damaged: its content is not what its name says.")
    found = SyntheticSet.read(path)
    ipc = found.ipc_on(problem.card)
    if ipc != problem.ipc:
        raise BadInput(f"The set has {ipc} images per class, the run was asked for {problem.ipc}: say --ipc {ipc}.")
    images, labels = (tensor.to(problem.device) for tensor in (found.images, found.labels))
    yield Step(0, replace(found, images=images, labels=labels))
