"""The plan of a sweep: how each of its runs stands, what the others take, and how both are printed."""

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import msgspec

from dambench.cli.output import table
from dambench.cli.store import open_store
from dambench.core import sweep as grids
from dambench.core.errors import BadInput
from dambench.core.sanitize import counted, display
from dambench.core.sweep import Point, Sweep
from dambench.core.units import duration, size
from dambench.runner import processes
from dambench.store import history
from dambench.store import runs as stored
from dambench.store.rows import RunRow
from dambench.store.runs import Store

if TYPE_CHECKING:
    from dambench.engine.job import Job

Standing = Literal["done", "running", "to resume", "failed", "new", "data not prepared"]
MOST_LINES = 60
"""Lines of a plan; the sums are over all runs."""


class _NotPrepared(Exception):
    """Data that would have to be prepared, or downloaded, before more can be said."""


@dataclass
class PlannedRun:
    """A run of a sweep, and how it stands."""

    point: Point
    standing: Standing
    run: str = ""
    """The run that is meant, where there is one already."""
    seconds: float | None = None
    """What it would take, by runs of its kind on the device that was used last; None: there are none."""
    peak_bytes: int = 0
    disk_bytes: int = 0


def plan(grid: Sweep, path: Path, prepare: Callable[[str], None] | None) -> list[PlannedRun]:
    """Look up how each run of a sweep stands.

    Args:
        prepare: hears what takes long when data are prepared; None: they are not.

    Raises:
        BadInput: a run cannot be: nothing is begun then.
    """
    settled: dict[str, Job | None] = {}
    planned: dict[str, PlannedRun] = {}
    for point in grid.points:
        key = json.dumps(grids.file_of(point.request) | {"seed": 0}, sort_keys=True)
        if key not in settled:
            settled[key] = _settled(point, prepare, of_grid=bool(grid.name))
        job = settled[key]
        if job is None:
            planned[str(len(planned))] = PlannedRun(point, "data not prepared")
            continue
        job = job.with_seed(point.seed)
        # Two combinations may be one run, where a method has no use for what differs.
        sha256 = job.config.sha256
        planned.setdefault(f"{sha256} {job.card.sha256}", SettledRun(point, "new", job=job, sha256=sha256, kind=key))
    if stored.exists(path):
        with open_store(path) as store:
            look_up(store, [one for one in planned.values() if isinstance(one, SettledRun)])
    return list(planned.values())


@dataclass(kw_only=True)
class SettledRun(PlannedRun):
    job: "Job"
    sha256: str
    """The digest of its configuration."""
    kind: str
    """What it shares with the same under other seeds."""


def _settled(point: Point, prepare: Callable[[str], None] | None, *, of_grid: bool) -> "Job | None":
    from dambench import engine

    def stop(text: str) -> NoReturn:
        raise _NotPrepared(text)

    try:
        data = point.request.data or os.environ.get("DAMBENCH_DATA") or None
        return engine.prepare(msgspec.structs.replace(point.request, data=data), prepare or stop)
    except _NotPrepared:
        return None
    except BadInput as error:
        if not of_grid:
            raise
        said = f"The run with {named(point) or 'these settings'} cannot be: {error}"
        raise BadInput(f"{said} A rule under [[skip]] of a sweep's file leaves it out.") from None


def look_up(store: Store, planned: Sequence[SettledRun]) -> None:
    """Find the runs that are those of a sweep already, and else what they would take."""
    there: dict[tuple[str, str], list[RunRow]] = {}
    for row in store.runs(
        "deleted_at = '' and purpose = '' and config_sha256 in (select value from json_each(?)) order by number desc",
        json.dumps([one.sha256 for one in planned]),
    ):
        there.setdefault((row.config_sha256, row.dataset_sha256), []).append(row)
    expected: dict[str, list[history.Expected]] = {}
    for one in planned:
        one.standing, one.run = "new", ""
        rows = there.get((one.sha256, one.job.card.sha256), [])
        finished = any(row.state == "finished" for row in rows) and store.finished(one.job.config, one.job.card)
        if finished:
            one.standing, one.run = "done", finished
            continue
        for row in [row for row in rows if row.state != "finished"][:1]:
            one.run, one.standing = row.id, _standing(row)
        if one.kind not in expected:
            expected[one.kind] = history.expected(store, one.job.config, one.job.card.sha256)
        for cost in expected[one.kind][:1]:
            evaluation = cost.evaluate_seconds
            one.seconds = None if evaluation is None else cost.distil_seconds + evaluation
            one.peak_bytes, one.disk_bytes = cost.peak_memory_bytes, cost.disk_bytes


def _standing(row: RunRow) -> Standing:
    state = processes.state(row)
    if state in processes.ALIVE:
        return "running"
    return "to resume" if state in ("stopped", "lost") else "failed"


def print_plan(grid: Sweep, planned: Sequence[PlannedRun]) -> None:
    axes = [axis for axis in grid.axes if axis != "seed"]
    groups: dict[str, list[PlannedRun]] = {}
    for one in planned:
        groups.setdefault(json.dumps(one.point.settings, sort_keys=True), []).append(one)
    lines = []
    for group in groups.values():
        settings = group[0].point.settings
        missing = [one for one in group if one.standing != "done"]
        known = [one.seconds for one in missing if one.seconds is not None]
        standings = Counter(one.standing for one in missing if one.standing != "new")
        took = duration(sum(known)) if missing and len(known) == len(missing) else None if missing else ""
        rest = ", ".join(f"{number} {standing}" for standing, number in standings.items())
        lines.append(
            [
                *(None if settings.get(axis) is None else shown(settings[axis]) for axis in axes),
                len(group),
                len(group) - len(missing),
                took,
                rest,
            ]
        )
    table([*axes, "runs", "done", "time", ""], lines[:MOST_LINES])
    if len(lines) > MOST_LINES:
        print(f"… and {len(lines) - MOST_LINES} lines more.")
    for line in summary(grid, planned):
        print(line)


def summary(grid: Sweep, planned: Sequence[PlannedRun]) -> list[str]:
    """Sentences about a whole plan."""
    missing = [one for one in planned if one.standing != "done"]
    known = [one for one in missing if one.seconds is not None]
    skipped = grid.product - len(planned)
    left = f"; {counted(skipped, 'combination')} left out, or the same run as another" if skipped > 0 else ""
    lines = [
        f"{grid.prefix[:-1].capitalize()} {grid.name}: {counted(len(planned), 'run')}, "
        f"{len(planned) - len(missing)} done already, {len(missing)} to do{left}."
    ]
    if known:
        seconds = sum(one.seconds or 0.0 for one in known)
        peak, disk = max(one.peak_bytes for one in known), sum(one.disk_bytes for one in known)
        share = "" if len(known) == len(missing) else f" for {len(known)} of them; of the others no run is known yet"
        lines.append(
            f"By runs of their kind: {duration(seconds)} one after another, at most {size(peak)} of memory, "
            f"{size(disk)} of disk{share}."
        )
    elif missing:
        lines.append("No run of this kind is known yet: `dambench run --dry-run` measures a few steps of one.")
    if missing:
        lines.append("Order: one seed of everything before the second of anything, random and whole first.")
    return lines


def as_json(grid: Sweep, planned: Sequence[PlannedRun], notes: Sequence[str]) -> dict[str, Any]:
    return {
        "sweep": grid.name,
        "axes": list(grid.axes),
        "combinations": grid.product,
        "runs": [
            {
                "settings": dict(one.point.settings),
                "seed": one.point.seed,
                "standing": one.standing,
                "run": one.run or None,
                "seconds": one.seconds,
                "peak_memory_bytes": one.peak_bytes or None,
                "disk_bytes": one.disk_bytes or None,
            }
            for one in planned
        ],
        "notes": list(notes),
    }


def named(point: Point) -> str:
    """The settings of a run by which it differs from the others of its sweep: `method dm, ipc 10`; empty: none."""
    return ", ".join(f"{axis} {shown(value)}" for axis, value in point.settings.items() if value is not None)


def shown(value: Any) -> str:
    if isinstance(value, dict):
        name = value.get("name", "")
        rest = ", ".join(f"{key} {shown(one)}" for key, one in value.items() if key != "name")
        return f"{name} ({rest})" if name and rest else str(name or rest)
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    return display(str(value), 60)
