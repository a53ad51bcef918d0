"""Losses and accuracies on the way, over iterations or seconds, of several runs."""

import json
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dambench.core.errors import BadInput, unknown
from dambench.core.sanitize import counted, display
from dambench.report import names
from dambench.report.figures import drawing
from dambench.report.figures.drawing import Drawn, Look
from dambench.store import history
from dambench.store.row_names import method_label
from dambench.store.rows import RunRow
from dambench.store.runs import Store

MARKS = 7
"""Markers on a line of many points."""
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """What one run has logged."""

    run: RunRow
    key: tuple[str, ...]
    """What it is apart from its seed: runs of one key have one sign."""
    lines: dict[str, Points]
    """By panel. A value that is no number is nan."""


def read(store: Store, rows: Sequence[RunRow], shown: str, over: str) -> list[Curve]:
    """The curves of runs.

    Args:
        shown: loss, accuracy or both.
        over: iterations or seconds.
    """
    curves = []
    for row in rows:
        lines: dict[str, history.Line] = {}
        if shown != "accuracy":
            lines |= {f"loss: {name}": line for name, line in history.losses(store, row.id).items()}
        if shown != "loss":
            scores = history.accuracies(store, row.id)
            lines |= {f"accuracy: {network}": [(x, 100 * y) for x, y in line] for network, line in scores.items()}
        clock = _clock(store, row.id) if over == "seconds" else None
        points = {
            name: [(x if clock is None else _at(clock, x), y if math.isfinite(y) else math.nan) for x, y in line]
            for name, line in lines.items()
        }
        ipc = "" if row.ipc is None else str(row.ipc)
        key = (method_label(row.method, row.overrides), row.dataset, ipc, row.network)
        curves.append(Curve(row, key, points))
    return curves


def _clock(store: Store, run: str) -> list[tuple[int, float]]:
    """Iterations at which losses were logged, and the seconds since the method began; of a run without any, what all of
    its distilling took."""
    rows = store.query(
        "select body from events where kind = 'stepped' and run = (select number from runs where id = ?) "
        "order by sequence",
        run,
    )
    steps = [json.loads(row["body"]) for row in rows]
    if steps:
        return sorted({int(step["iteration"]): float(step["seconds"]) for step in steps}.items())
    took = store.query(
        "select seconds from costs where phase = 'distil' and run = (select number from runs where id = ?)", run
    )
    return [(0, float(row["seconds"])) for row in took]


def _at(clock: list[tuple[int, float]], iteration: float) -> float:
    """The seconds at an iteration: those of the last one before it that was logged; 0 before the first."""
    place = bisect_right(clock, (iteration, float("inf")))
    return clock[place - 1][1] if place else 0.0


def draw(curves: Sequence[Curve], over: str, look: Look, *, only: Sequence[str] = (), log: bool = False) -> Drawn:
    """
    Args:
        only: names of losses and networks; empty: all.
        log: losses on a logarithmic scale.

    Raises:
        BadInput: there is nothing to draw, or too much.
    """
    named = dict.fromkeys(name for curve in curves for name, line in curve.lines.items() if line)
    if not named:
        raise BadInput("These runs have logged neither a loss nor an accuracy.")
    found = [name for kind in ("loss", "accuracy") for name in named if name.startswith(f"{kind}: ")]
    if only:
        known = [name.partition(": ")[2] for name in found]
        if strange := [name for name in only if name not in known]:
            raise unknown("panel", strange[0], known)
        found = [name for name in found if name.partition(": ")[2] in only]
    keys = list(dict.fromkeys(curve.key for curve in curves))
    keys.sort(key=lambda key: names.current.get().place("method", key[0]))
    drawing.check_number(len(keys), "kinds of runs")
    handles: dict[tuple[str, ...], Any] = {}
    figure, panels = drawing.panels(len(found), look)
    for axes, panel in zip(panels, found, strict=True):
        for curve in curves:
            if points := curve.lines.get(panel):
                handle = _line(axes, points, drawing.sign(keys.index(curve.key)))
                handles.setdefault(curve.key, handle)
        kind, _, name = panel.partition(": ")
        shown = names.of("network", name) if kind == "accuracy" else name.replace("_", " ")
        axes.set_title(drawing.printable(shown, look))
        axes.set_ylabel("accuracy in %" if kind == "accuracy" else "loss")
        axes.set_xlabel("iteration" if over == "iterations" else "seconds of distilling")
        if log and kind == "loss":
            _log_scale(axes)
    order = [key for key in keys if key in handles]
    labels = [drawing.printable(label, look) for label in _labels(order, curves)]
    drawing.legend(figure, [handles[key] for key in order], labels, look)
    what = " and ".join(dict.fromkeys({"loss": "Losses", "accuracy": "Accuracies"}[n.partition(":")[0]] for n in found))
    about = f"{what[:1]}{what[1:].lower()} over {over}"
    several = any(sum(curve.key == key for curve in curves) > 1 for key in keys)
    sentences = [f"{about} of {counted(len(curves), 'run')}."]
    if several:
        sentences.append("Runs that differ in their seed alone have one sign, a line each.")
    if any(name.startswith("accuracy") for name in found):
        sentences.append("Accuracies are means over the networks trained on the set of that moment.")
    silent = [curve.run.id for curve in curves if not any(curve.lines.values())]
    return Drawn(figure, about, " ".join(sentences), tuple(f"run {run} has logged nothing of this" for run in silent))


def _labels(keys: Sequence[tuple[str, ...]], curves: Sequence[Curve]) -> list[str]:
    """Name each kind of runs by its method and by what not all have alike, and its seeds where they have several."""
    labels = []
    for key in keys:
        parts = [names.of("method", key[0])]
        for place, axis in ((1, "dataset"), (2, "ipc"), (3, "network")):
            if len({other[place] for other in keys}) > 1 and key[place]:
                parts.append(names.shown(axis, key[place]))
        seeds = sorted({curve.run.seed for curve in curves if curve.key == key})
        text = ", ".join(map(display, parts))
        labels.append(f"{text} ({len(seeds)} seeds)" if len(seeds) > 1 else text)
    return labels


def _line(axes: Any, points: Points, sign: drawing.Sign) -> Any:
    every = max(1, len(points) // MARKS)
    (handle,) = axes.plot(
        [x for x, _ in points],
        [y for _, y in points],
        color=sign.colour,
        linestyle=sign.dashes,
        marker=sign.marker,
        markevery=every,
        linewidth=0.9,
    )
    return handle


def _log_scale(axes: Any) -> None:
    """Powers as numbers: what matplotlib writes by itself is mathtext."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
