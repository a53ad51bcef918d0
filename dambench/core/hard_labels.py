"""The hard-label twin of a protocol: the one that tests a set without the labels and the rate that it carries.

A set that carries soft labels, a learned rate or a teacher is tested with more than its images. Under another set's
labels or rate a random subset gains, too; so such a set is tested a second time with hard labels and the usual rate,
as the sets of other methods are (Li et al., DD-Ranking, 2025; Qin et al., "A Label is Worth a Thousand Images", 2024).
"""

from collections.abc import Collection
from contextlib import suppress

from msgspec.structs import replace

from dambench.core import overrides
from dambench.core.config import SWITCH, Request
from dambench.core.errors import BadInput, about
from dambench.core.protocol import PRESETS, Protocol, preset
from dambench.core.sanitize import display

USUAL_LR = 0.01
"""The rate of SGD in the code of DC and its descendants."""

USUAL_BATCH = 256

SOFT, RATE, TEACHER = "soft labels", "learning rate", "teacher"
"""What a set may carry besides images and classes, as its parts are called."""


@about("hard_twin")
def wants_twin(request: Request) -> bool:
    """Tell whether a set is to be evaluated with hard labels, too.

    Raises:
        BadInput: it is neither on nor off.
    """
    choice = "on" if request.hard_twin is None else request.hard_twin.strip().lower()
    if choice not in SWITCH:
        raise BadInput(f"--hard-twin {display(choice, 60)!r} is neither on nor off.")
    return choice == "on"


def hard_twin(protocol: Protocol) -> Protocol | None:
    """The preset that does all the same with hard labels at the usual rate.

    Where there is none with the same batch, it is the one with the usual batch: DATM's protocol differs from that of
    DSA and DM in nothing else, and is to be compared with their sets.

    Returns:
        None: it uses hard labels and a rate of its own, or no preset is such a twin.
    """
    if protocol.labels == "hard" and not isinstance(protocol.lr, str):
        return None
    lr = USUAL_LR if isinstance(protocol.lr, str) else protocol.lr
    twin = replace(protocol, labels="hard", lr=lr, temperature=1.0)
    for candidate in (twin, replace(twin, batch=USUAL_BATCH)):
        for found in PRESETS.values():
            if found.sha256 == candidate.sha256:
                return found
    if overrides.MARK in protocol.name:  # a preset with changes: its twin has more of them
        with suppress(BadInput):
            plain = overrides.text_of({"labels": "hard", "lr": lr, "temperature": 1.0})
            found = preset(overrides.over(protocol.name, plain))
            return found if found.sha256 == twin.sha256 else None
    return None


def used(protocol: Protocol, carried: Collection[str]) -> list[str]:
    """Name what a protocol takes of the set's own, besides images and classes."""
    soft = [SOFT] if protocol.labels == "as the set carries" and SOFT in carried else []
    teacher = [TEACHER] if protocol.labels == "teacher" and TEACHER in carried else []
    rate = [RATE] if isinstance(protocol.lr, str) and RATE in carried else []
    return [*soft, *teacher, *rate]


def left_out(protocol: Protocol, carried: Collection[str]) -> list[str]:
    """Name what a set carries and a protocol does not use."""
    taken = used(protocol, carried)
    if TEACHER in taken:  # which labels the images in place of what the set has
        taken.append(SOFT)
    return [part for part in (SOFT, TEACHER, RATE) if part in carried and part not in taken]
