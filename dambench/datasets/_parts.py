"""The parts of a user's own dataset: what they may be called, and how a test part is made where there is none."""

import hashlib
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from dambench.core import config
from dambench.core.errors import BadInput
from dambench.core.sanitize import display
from dambench.datasets import Labels, Pixels

Part = Literal["train", "valid", "test"]
NAMES: dict[str, Part] = {
    "train": "train",
    "training": "train",
    "val": "valid",
    "valid": "valid",
    "validation": "valid",
    "test": "test",
    "testing": "test",
}
"""In any case."""


class Options(config.Options, frozen=True):
    """Options of a dataset that is made of a user's own images."""

    mirrors: bool = True
    """Whether a mirror image belongs to the same class; False for digits and letters."""
    split: Annotated[float, Meta(gt=0, lt=1)] | None = None
    """Share of each class that becomes the test set, where there is no test part."""
    split_seed: Annotated[int, Meta(ge=0, le=2**31)] = 0
    """Another one holds out other images."""


def labelled(label: str, options: Options) -> str:
    """A dataset's label with its split: scores on two splits must not be taken for the same."""
    if options.split is None:
        return label
    seed = f", seed {options.split_seed}" if options.split_seed else ""
    return f"{label} (split {options.split:g}{seed})"


def split(
    images: Pixels, labels: Labels, classes: Sequence[str], options: Options
) -> tuple[list[Pixels], list[Labels], str]:
    """Training and test part: `options.split` of each class is held out, at least one image, and never all.

    Which ones depends on the seed, the class and how many images it has, and is the same everywhere and for ever: it
    is decided by digests, since the order in which a generator draws may change from release to release.

    Returns:
        Images and labels of both, and a note that says so.

    Raises:
        BadInput: a class has one image only.
    """
    assert options.split is not None
    held_out = np.zeros(len(labels), bool)
    for label, name in enumerate(classes):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise BadInput(
                f"dataset.split = {options.split:g} needs two images of each class, one to train on and one to test "
                f"on: {display(name)!r} has {len(members)}."
            )
        count = min(max(round(len(members) * options.split), 1), len(members) - 1)
        keys = [hashlib.sha256(f"{options.split_seed} {label} {n}".encode()).digest() for n in range(len(members))]
        held_out[members[np.argsort(keys)[:count]]] = True
    note = (
        f"There is no test part: the test set is {options.split:.3g} of each class, {held_out.sum()} of {len(labels)} "
        f"images, drawn with seed {options.split_seed}."
    )
    return [images[~held_out], images[held_out]], [labels[~held_out], labels[held_out]], note
