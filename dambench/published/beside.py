"""Published figures beside measured ones: which belong to a cell, how far they are apart, and what differs.

All of it is computed from what is recorded of both. A published accuracy belongs to a cell of the same method, dataset
and IPC, measured on a network of the same family.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from dambench import published
from dambench.core.protocol import PRESETS, Protocol
from dambench.published import PublishedValue
from dambench.store.cells import Cell

SUBSETS = "imagenet"
"""The dataset whose tables are called by what was chosen of it: `imagewoof`."""

SELECTION = "last epoch"
"""How every accuracy of ours is chosen: the test set selects nothing."""


class Deviation(NamedTuple):
    """One thing that was not the same."""

    name: str
    published: str
    here: str

    @property
    def text(self) -> str:
        return f"{self.name} {self.published}, here {self.here}"


@dataclass(frozen=True)
class Comparable:
    """A published figure beside a cell."""

    value: PublishedValue
    gap: float
    """Measured minus published, in points of percent."""
    deviations: tuple[Deviation, ...]
    """What makes the two not comparable; none: nothing that is recorded."""
    unstated: tuple[str, ...]
    """What could differ too, but is not stated."""
    networks: Deviation | None
    """Sets × networks, where the numbers differ."""

    @property
    def differs_in(self) -> str:
        """The names of what differs, then with a question mark of what is not stated."""
        names = [*(each.name for each in self.deviations), *(f"{name}?" for name in self.unstated)]
        return ", ".join(names) or "nothing"

    @property
    def why(self) -> str:
        """The sentence on what differs, without its last full stop."""
        parts = []
        if self.deviations:
            parts.append(f"not comparable because {'; '.join(each.text for each in self.deviations)}")
        if self.unstated:
            begin = "not stated" if self.deviations else "cannot be called comparable, because it is not stated"
            parts.append(f"{begin}: {', '.join(self.unstated)}")
        if not parts:
            parts.append("nothing that is recorded differs")
        if self.networks:
            parts.append(self.networks.text)
        return "; ".join(parts)


def beside(cell: Cell, protocols: Mapping[str, Protocol]) -> list[Comparable]:
    """The published accuracies that belong to a cell of accuracies, the closest first; none: none is known.

    Those on the same network come first, then those that are not re-runs by others, then those of which least differs
    and is left open, that were read and not recalled, and that have a standard deviation.

    Args:
        protocols: by label, at least the cell's.

    Raises:
        BadInput: a file of published figures of the user's has a fault.
    """
    score = cell.scores[0]
    dataset = score.dataset.partition("#")[0]
    if not math.isfinite(cell.mean) or score.data_name not in ("", dataset, SUBSETS):
        return []  # a user's own folder may be called mnist, too
    some = [
        _compared(cell, value, protocols.get(score.protocol))
        for value in published.load(dataset)
        if value.quantity == published.ACCURACY
        and value.method == score.base_method
        and value.ipc == score.ipc
        and family(value.network) in ("", family(score.network))
    ]
    return sorted(some, key=lambda each: (*rank(each, score.network), each.value.key[-2:], each.value.variant))


def closest(some: list[Comparable], network: str) -> list[Comparable]:
    """Those at the beginning that nothing puts before each other."""
    return [each for each in some if rank(each, network) == rank(some[0], network)]


def rank(comparable: Comparable, network: str) -> tuple[bool | int, ...]:
    """A key by which what belongs to a cell most comes first."""
    value = comparable.value
    return (
        value.network != network,
        value.rerun,
        bool(value.variant),
        len(comparable.deviations) + len(comparable.unstated),
        value.recalled,
        not value.original and not value.std,
        value.std is None,
        not value.original,
    )


def family(network: str) -> str:
    """`convnet` of `convnet-d3-w128`; empty: not stated."""
    first = re.match("[a-z0-9]*", network.lower())
    return first[0] if first else ""


def _compared(cell: Cell, value: PublishedValue, protocol: Protocol | None) -> Comparable:
    score = cell.scores[0]
    _, options, traits = json.loads(score.settings)
    stated: list[tuple[str, str, str]] = [
        ("protocol", value.protocol, _protocol_here(value.protocol, score.protocol, protocol)),
        ("network", value.network, score.network),
        ("matched on", value.matched_on, traits.get("network") or value.matched_on),
        ("labels", value.labels, _labels_here(value.labels, protocol)),
        ("selection", value.selection, SELECTION),
        ("preprocessing", value.preprocessing, traits.get("preprocessing", "mean/std")),
    ]
    deviations = [Deviation(*each) for each in stated if each[1] and each[1] != each[2]]
    for name, setting in value.settings.items():
        if name in options and options[name] != setting:
            deviations.append(Deviation(name.replace("_", " "), _number(setting), _number(options[name])))
    each = cell.networks_per_set
    here = f"{cell.sets}×{'?' if each is None else each}"
    needed = ("protocol", "network", "labels", "selection")
    return Comparable(
        value=value,
        gap=100 * cell.mean - value.value,
        deviations=tuple(deviations),
        unstated=tuple(name for name, theirs, _ in stated if name in needed and not theirs),
        networks=Deviation("sets × networks", value.n, here) if value.n and value.n != here else None,
    )


def _protocol_here(name: str, label: str, protocol: Protocol | None) -> str:
    """What the published protocol is compared with: its own name where ours computes the same."""
    known = PRESETS.get(name)
    same = known is not None and protocol is not None and known.sha256 == protocol.sha256
    return name if same else label


def _labels_here(labels: str, protocol: Protocol | None) -> str:
    """Which labels the networks of a cell were trained on: a set's own are those of its method."""
    if protocol is None or protocol.labels == "as the set carries":
        return labels
    return "hard" if protocol.labels == "hard" else "soft"


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
