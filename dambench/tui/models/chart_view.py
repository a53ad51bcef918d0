"""Chart view: which part of its charts a screen shows, where their cursor is, and what their x axis counts."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from dambench.tui.models.chart import Floats, Series

AxisName = Literal["iterations", "seconds", "images"]
AXES: tuple[AxisName, ...] = get_args(AxisName)

UNITS: Mapping[AxisName, str] = {"iterations": "iteration", "seconds": "s", "images": "real images"}

SMOOTHING = (0.0, 0.9, 0.99)

CLOSEST = 1 / 2000
"""The smallest part of all that is shown alone."""


@dataclass(frozen=True)
class ChartView:
    """What all charts of a screen have in common, so that one place is looked at in each of them."""

    axis: AxisName = "iterations"
    log: bool = False
    smooth: float = 0.0
    cursor: float | None = None
    """In units of the axis; None: there is none."""
    window: tuple[float, float] | None = None
    """From where to where on the axis; None: all."""

    def shown(self, extent: tuple[float, float]) -> tuple[float, float]:
        """The part of the axis that is shown, of what there is."""
        return self.window or extent

    def moved(self, step: int, points: Floats, extent: tuple[float, float], columns: int) -> "ChartView":
        """The cursor so many columns further, on the point that is nearest there; what is shown follows it.

        Args:
            points: where on the axis there are any, ascending.
            columns: of the plot, a step's size.
        """
        if not len(points):
            return self
        begin, end = self.shown(extent)
        if self.cursor is None:
            at = points[-1] if step < 0 else points[0]
            at = min(max(float(at), begin), end)
        else:
            at = self.cursor + step * (end - begin) / max(1, columns - 1)
        here = self.cursor if self.cursor is not None else at
        nearest = float(points[int(np.abs(points - at).argmin())])
        if self.cursor is not None and nearest == here:  # sparse points: the next one all the same
            after = points[points > here] if step > 0 else points[points < here]
            nearest = float(after[0] if step > 0 else after[-1]) if len(after) else here
        view = replace(self, cursor=nearest)
        if self.window and not begin <= nearest <= end:
            shift = nearest - (end if nearest > end else begin)
            view = replace(view, window=(begin + shift, end + shift))
        return view

    def zoomed(self, factor: float, extent: tuple[float, float]) -> "ChartView":
        """So many times as much of the axis, around the cursor, else around the middle; all there is at most."""
        begin, end = self.shown(extent)
        whole = extent[1] - extent[0]
        if whole <= 0:
            return self
        middle = self.cursor if self.cursor is not None else (begin + end) / 2
        length = max(whole * CLOSEST, (end - begin) * factor)
        if length >= whole:
            return replace(self, window=None)
        share = (middle - begin) / (end - begin) if begin <= middle <= end and end > begin else 0.5
        return replace(self, window=_inside(middle - share * length, length, extent))

    def panned(self, share: float, extent: tuple[float, float]) -> "ChartView":
        """Further by a share of what is shown."""
        if self.window is None:
            return self
        begin, end = self.window
        return replace(self, window=_inside(begin + share * (end - begin), end - begin, extent))

    def whole(self) -> "ChartView":
        return replace(self, window=None, cursor=None)

    def on(self, axis: AxisName) -> "ChartView":
        """With another axis, on which places mean something else."""
        return replace(self, axis=axis, cursor=None, window=None)


def place(at: float, axis: AxisName) -> str:
    """A place on an axis in words: `iteration 120`, `at 12.5 s`."""
    number = f"{at:,.0f}" if at >= 1000 or at == int(at) else f"{at:.3g}"
    return f"iteration {number}" if axis == "iterations" else f"at {number} {UNITS[axis]}"


def _inside(begin: float, length: float, extent: tuple[float, float]) -> tuple[float, float]:
    begin = min(max(begin, extent[0]), extent[1] - length)
    return begin, begin + length


def extent(series: Iterable[Series]) -> tuple[float, float]:
    """From where to where on the axis there is anything."""
    ends = [(float(one.x[0]), float(one.x[-1])) for one in series if len(one.x)]
    return (min(first for first, _ in ends), max(last for _, last in ends)) if ends else (0.0, 0.0)


def points(series: Sequence[Series]) -> Floats:
    """Everywhere on the axis where one of them has a point, ascending."""
    return np.unique(np.concatenate([one.x for one in series])) if series else np.empty(0)


def images_an_iteration(config: str, train_counts: Sequence[int]) -> int | None:
    """Real images that a method looks at in an iteration, by its settings; None: they do not tell.

    A method that matches batches takes `batch_real` of each class, or as many as a class has, and that for each of its
    updates of the images.

    Args:
        config: of the run, as JSON.
        train_counts: real images of each class.
    """
    options: Mapping[str, Any] = json.loads(config).get("method", {}).get("options", {})
    batch = options.get("batch_real")
    updates = options.get("updates", None if "batch_network" in options else 1)
    if not isinstance(batch, int) or not isinstance(updates, int):
        return None
    return updates * sum(min(batch, count) for count in train_counts)


def along(
    series: Sequence[Series], axis: AxisName, iterations: Floats, seconds: Floats, images: int | None
) -> list[Series]:
    """Series over iterations, over another axis; none where it is not known.

    Args:
        iterations, seconds: where a run was after so many seconds.
        images: real images that it looks at in an iteration; None: not known.
    """
    if axis == "images":
        return [] if images is None else [replace(one, x=one.x * images) for one in series]
    if axis == "seconds":
        return [replace(one, x=np.interp(one.x, iterations, seconds)) for one in series] if len(iterations) else []
    return list(series)
