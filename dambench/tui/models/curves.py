"""Curves: what charts show of a run over its iterations, and of the marked runs that are drawn over it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dambench.core.sanitize import counted
from dambench.store.runs import Store
from dambench.tui.models.chart import Series
from dambench.tui.models.chart_view import AxisName, along, images_an_iteration
from dambench.tui.models.run_reader import RunReader, RunSnapshot

MOST_OVERLAYS = 5
"""Marked runs whose curves are drawn over those of a run."""

RATES = 400
"""Places on the axis at which the speed is taken at most."""


class OverlayReader:
    """Reads the runs whose curves are drawn over another run's."""

    def __init__(self) -> None:
        self.marked: tuple[str, ...] = ()
        """The uids of the runs. Anybody may set it."""
        self.snapshots: tuple[RunSnapshot, ...] = ()
        """The runs as they were when they were read last."""
        self._readers: dict[str, RunReader] = {}
        self._ended: dict[str, RunSnapshot] = {}
        """Those that have ended: they do not change."""

    def read(self, store: Store, but: str) -> tuple[RunSnapshot, ...]:
        """Read them; those that are not there any more are left out.

        Args:
            but: the uid of the run that they are drawn over.
        """
        found: list[RunSnapshot] = []
        for uid in self.marked:
            row = store.with_uid(uid)
            if row is None or uid == but or len(found) == MOST_OVERLAYS:
                continue
            if (ended := self._ended.get(uid)) is not None and ended.row.attempt == row.attempt:
                found.append(ended)
                continue
            other = self._readers.setdefault(uid, RunReader(row.id)).read(store)
            if isinstance(other, RunSnapshot):
                found.append(other)
                if not other.live:
                    self._ended[uid] = other
        if found != list(self.snapshots):
            self.snapshots = tuple(found)
        return self.snapshots


def curves(name: str, snapshot: RunSnapshot, overlays: Sequence[RunSnapshot], axis: AxisName) -> list[Series]:
    """The curves of a chart: those of the run, then those of marked runs that are of the same kind.

    Args:
        name: `loss`, `accuracy` or `speed`.
    """
    own = _along(name, snapshot, axis)
    names = {one.name for one in own}
    for other in overlays:
        for one in _along(name, other, axis):
            if one.name in names or not names or name != "loss":
                own.append(replace(one, name=f"{other.run} {one.name}"))
    return own


def over_it(series: Sequence[Series], overlays: Sequence[RunSnapshot]) -> str:
    """How many of the marked runs have curves among these, in words."""
    there = sum(any(one.name.startswith(f"{other.run} ") for one in series) for other in overlays)
    text = f"over it {there} of {counted(len(overlays), 'marked run')}"
    return text + (", the most" if len(overlays) == MOST_OVERLAYS else "")


def axis_is_known(snapshot: RunSnapshot, axis: AxisName) -> bool:
    """Whether a run can be drawn over that axis."""
    if axis == "images":
        return images_an_iteration(snapshot.row.config, snapshot.card.train_counts) is not None
    return axis == "iterations" or len(snapshot.seconds) > 0


def _along(name: str, snapshot: RunSnapshot, axis: AxisName) -> list[Series]:
    match name:
        case "loss":
            series = list(snapshot.losses)
        case "accuracy":
            series = _accuracies(snapshot)
        case _:
            series = _speed(snapshot)
    images = images_an_iteration(snapshot.row.config, snapshot.card.train_counts)
    return along(series, axis, snapshot.iterations, snapshot.seconds, images)


def _accuracies(snapshot: RunSnapshot) -> list[Series]:
    """The mean accuracy of each network after each iteration that was evaluated, in percent; none of one alone."""
    series = []
    for network in dict.fromkeys(one.network for one in snapshot.accuracies):
        of = sorted((one.iteration, 100 * one.mean) for one in snapshot.accuracies if one.network == network)
        if len(of) > 1:
            x, y = np.array(of, dtype=np.float64).T
            series.append(Series(network, x, y))
    return series


def _speed(snapshot: RunSnapshot) -> list[Series]:
    """Iterations per second between the iterations that were logged, at so many places at most."""
    step = max(1, len(snapshot.iterations) // RATES)
    iterations, seconds = snapshot.iterations[::step], snapshot.seconds[::step]
    spans = np.diff(seconds)
    good = spans > 0
    if not good.any():
        return []
    return [Series("it/s", iterations[1:][good], np.diff(iterations)[good] / spans[good])]
