"""Imported: a synthetic set that was made elsewhere, or before.

`dambench import FILE` checks a file and keeps it under its SHA-256; here it is given as it is, so that it can be
evaluated under any protocol and on any network beside the sets that are made here. Several sets that were made alike,
with other seeds, are one row: each run takes one of them, by its own seed. Beyond that the seed decides nothing about
the set, only about the networks that are trained on it.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

import msgspec
from msgspec import Meta

from dambench.core import claims, config, files
from dambench.core.config import PreprocessingName
from dambench.core.errors import BadInput
from dambench.core.events import DataCard, Warned
from dambench.training.problem import Notice, Problem, State, Step, SyntheticSet

MATCHES_ON_NETWORK = False
USES_TRAINING_SET = False
TEACHES = True
"""Where the set does."""


class Options(config.Options, frozen=True):
    set: Annotated[
        str,
        Meta(
            pattern="^([0-9a-f]{4,64}(,[0-9a-f]{4,64})*)?$",
            max_length=10_000,
            description="SHA-256 of a set, as `dambench import` says it, or its beginning; of several, with commas, "
            "seed 0 takes the first, seed 1 the next, and so on round",
        ),
    ] = ""
    factor: Annotated[
        int, Meta(ge=1, le=8, description="of its mosaics; the set says it, and nothing needs to be given")
    ] = 1


def settle(options: Options, card: DataCard, ipc: int | None) -> tuple[Options, PreprocessingName]:
    """The options with whole hashes, and what was done to the images.

    Raises:
        BadInput: a set is not on this machine, is damaged, or is none for this dataset and IPC, or several begin so.
    """
    if not options.set:
        raise BadInput("Which set? `dambench import FILE --dataset NAME` says what to give as --set method.set=SHA256.")
    hashes = [_whole(beginning) for beginning in options.set.split(",")]
    loaded = [_open(sha256, card, ipc or 0) for sha256 in hashes]
    kinds = {one.preprocessing_name for one in loaded}
    if len(kinds) > 1:
        raise BadInput("Some of the sets are whitened (zca) and some normalised (mean/std): they are two rows.")
    factors = {one.factor for one in loaded}
    if len(factors) > 1:
        raise BadInput("Some of the sets are mosaics and some not, or of another factor: they are two rows.")
    factor = factors.pop()
    if options.factor not in (1, factor):
        raise BadInput(f"The set's factor is {factor}, not {options.factor}: leave it out.", field="method.factor")
    return msgspec.structs.replace(options, set=",".join(hashes), factor=factor), kinds.pop()


def distill(problem: Problem, options: Options, resume: State | None = None) -> Iterator[Step | Notice]:
    """Give the set of this seed, once.

    Raises:
        BadInput: as `settle`: it may have gone meanwhile.
    """
    hashes = options.set.split(",")
    loaded = _open(hashes[problem.seeds.seed % len(hashes)], problem.card, problem.ipc)
    images, labels = (tensor.to(problem.device) for tensor in (loaded.images, loaded.labels))
    if known := claims.find(hashes[problem.seeds.seed % len(hashes)]):
        yield Warned(message=f"{known.file} claims, under a protocol that it does not state: {known.text()}.")
    yield Step(0, replace(loaded, images=images, labels=labels))


def _whole(beginning: str) -> str:
    digests = files.sets(beginning)
    if not digests:
        raise BadInput(f"There is no set {beginning} on this machine: `dambench import FILE` brings it here.")
    if len(digests) > 1:
        raise BadInput(f"{len(digests)} sets begin with {beginning}: give more of it, such as {digests[0][:12]}.")
    return digests[0]


def _open(sha256: str, card: DataCard, ipc: int) -> SyntheticSet:
    path = files.set_path(sha256)
    if not path.is_file():
        raise BadInput(f"There is no set {sha256} on this machine: `dambench import FILE` brings it here.")
    if files.sha256(path) != sha256:
        raise BadInput(f"The set {str(path)!r} is damaged: its content is not what its name says.")
    data = SyntheticSet.read(path)
    its = data.ipc_on(card)
    if its != ipc:
        raise BadInput(f"The set has {its} images per class, the run was asked for {ipc}: say --ipc {its}.")
    return data
