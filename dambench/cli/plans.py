"""The plan of a sweep: how each of its runs stands, what the others take, and how both are printed."""

import json
import os
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import msgspec

from dambench.cli import estimates
from dambench.cli.output import table
from dambench.cli.shared_work import SharedWork, past_seconds, shared_work
from dambench.cli.store import open_store
from dambench.core import expert_files
from dambench.core import sweep as grids
from dambench.core.config import Recipe, Request
from dambench.core.errors import BadInput
from dambench.core.hard_labels import wants_twin
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
MOST_WORKS = 6
"""Lines about what runs share."""


class _NotPrepared(Exception):
    """Data that would have to be prepared, or downloaded, before more can be said."""


@dataclass
class PlannedRun:
    """A run of a sweep, and how it stands."""

    point: Point
    standing: Standing
    kind: str = ""
    """What it shares with the same under other seeds; empty: its data are not prepared."""
    run: str = ""
    """The run that is meant, where there is one already."""
    seconds: float | None = None
    """What it would take, by runs of its kind on the device that was used last; None: there are none."""
    peak_bytes: int = 0
    disk_bytes: int = 0
    by_steps: bool = False
    """Whether this is by a few steps that were measured, not by past runs."""
    unknown: str = ""
    """Why a few steps of it could not be measured."""
    work: SharedWork | None = None
    """What it needs that is trained once, for all runs that share it, and is not counted in its seconds."""

    @property
    def iterations(self) -> int:
        """How many its method makes; 0: it has none, or that is not known."""
        return 0


def plan(
    grid: Sweep,
    path: Path,
    prepare: Callable[[str], None] | None,
    patience: float = 0.0,
    left_out: list[str] | None = None,
) -> list[PlannedRun]:
    """Look up how each run of a sweep stands.

    Args:
        prepare: hears what takes long when data are prepared; None: they are not.
        left_out: gets a sentence for each row of a suite that the user's data have too few images for.
        patience: seconds that steps of runs are measured of whose kind none is known; 0: none are.

    Raises:
        BadInput: a run cannot be: nothing is begun then.
    """
    settled: dict[str, Job | None] = {}
    planned: dict[str, PlannedRun] = {}
    unfit: dict[str, BadInput] = {}
    for point in grid.points:
        key = json.dumps(grids.file_of(point.request) | {"seed": 0}, sort_keys=True)
        if key in unfit:
            continue
        if key not in settled:
            try:
                settled[key] = job_of(point, prepare, of=grid.prefix if grid.name else "")
            except BadInput as error:
                if left_out is None or error.field != "ipc" or grid.prefix != grids.SUITE_TAG:
                    raise
                unfit[key] = error
                continue
        job = settled[key]
        if job is None:
            planned[str(len(planned))] = PlannedRun(point, "data not prepared")
            continue
        job = job.with_seed(point.seed)
        # Two combinations may be one run, where a method has no use for what differs.
        sha256 = job.config.sha256
        new = SettledRun(point, "new", job=job, sha256=sha256, kind=key)
        same = planned.setdefault(f"{sha256} {job.card.sha256}", new)
        if more := tuple(one for one in point.evaluators if one not in same.point.evaluators):
            same.point = replace(same.point, evaluators=(*same.point.evaluators, *more))
    if left_out is not None:
        left_out += dict.fromkeys(str(error).partition(" cannot be: ")[2] or str(error) for error in unfit.values())
    if unfit and not planned:
        raise next(iter(unfit.values()))
    found = [one for one in planned.values() if isinstance(one, SettledRun)]
    _share(found)
    if stored.exists(path):
        with open_store(path) as store:
            look_up(store, found)
            past_seconds(store, works_of(found))
    if patience:
        measure(found, patience)
    return list(planned.values())


def _share(planned: "Sequence[SettledRun]") -> None:
    """Let runs that need the same trained networks name them once."""
    pools = expert_files.listed()
    works: dict[str, SharedWork] = {}
    for one in planned:
        work = shared_work(one.job, pools)
        if work is not None:
            one.work = works.setdefault(work.key, work)
            if work.count > one.work.count:
                one.work.count, one.work.kept, one.work.seconds = work.count, work.kept, work.seconds


def works_of(planned: Sequence[PlannedRun]) -> list[SharedWork]:
    """What runs that are not done share, each once, in the order in which it is needed."""
    works = [one.work for one in planned if one.work is not None and one.standing != "done"]
    return list({work.key: work for work in works}.values())


class NamedRecipes:
    """The runs of a plan by other recipes of their methods that have a name, found when somebody asks.

    Args:
        planned: the runs.
        path: the database.
        patience: seconds that steps are measured of what no past run tells.
    """

    def __init__(self, planned: Sequence[PlannedRun], path: Path, patience: float):
        self._planned, self._path, self._patience = planned, path, patience
        self._found: dict[str, list[SettledRun]] | None = None

    def __call__(self, one: PlannedRun) -> "list[SettledRun]":
        """Those of one run. What is done already takes no time."""
        if self._found is None:
            self._found = self._find()
        return self._found.get(one.sha256, []) if isinstance(one, SettledRun) else []

    def _find(self) -> "dict[str, list[SettledRun]]":
        jobs: dict[str, Job | None] = {}
        found: dict[str, list[SettledRun]] = {}
        for one in self._planned:
            if not isinstance(one, SettledRun) or one.standing == "done" or not _takes_recipe(one.point.request):
                continue
            for recipe in dict.fromkeys(recipe.name for recipe in one.job.method.RECIPES if _fits(recipe, one.job)):
                key = f"{one.kind} {recipe}"
                request = msgspec.structs.replace(one.point.request, recipe=recipe)
                point = Point(dict(one.point.settings) | {"recipe": recipe}, request)
                if key not in jobs:
                    jobs[key] = None
                    with suppress(BadInput):  # what the run asks for does not go with this recipe
                        jobs[key] = job_of(point, None)
                if (job := jobs[key]) is not None:
                    seeded = job.with_seed(one.point.seed)
                    made = SettledRun(point, "new", job=seeded, sha256=seeded.config.sha256, kind=key)
                    found.setdefault(one.sha256, []).append(made)
        every = [made for each in found.values() for made in each]
        _share(every)
        if stored.exists(self._path):
            with open_store(self._path) as store:
                look_up(store, every)
                past_seconds(store, works_of(every))
        if self._patience:
            measure(every, self._patience)
        for made in every:
            if made.standing == "done":
                made.seconds, made.work = 0.0, None
        return found


def _takes_recipe(request: Request) -> bool:
    """Whether nobody has said how long a run is to be, or by which recipe."""
    method = request.method
    return (
        request.recipe is None
        and request.iterations is None
        and not (isinstance(method, dict) and "iterations" in method)
    )


def _fits(recipe: Recipe, job: "Job") -> bool:
    return recipe.name != "default" and recipe.fits(job.config.dataset.name, job.config.ipc or 0)


def measure(planned: "Sequence[SettledRun]", patience: float) -> None:
    """Measure a few steps of what no past run tells, one run of a kind, for as long as there is patience."""
    kinds: dict[str, list[SettledRun]] = {}
    for one in planned:
        if one.standing == "new" and (one.seconds is None or (one.work is not None and one.work.seconds is None)):
            kinds.setdefault(one.kind, []).append(one)
    answers = estimates.measure([runs[0].point.request for runs in kinds.values()], patience)
    for runs, answer in zip(kinds.values(), answers, strict=False):
        for one in runs:
            if isinstance(answer, str):
                one.unknown = answer
                continue
            if one.seconds is None:
                one.seconds, one.by_steps = answer.seconds, True
                one.peak_bytes, one.disk_bytes = answer.peak_bytes, answer.disk_bytes
            if one.work is not None and one.work.seconds is None:
                one.work.seconds = answer.shared_seconds or 0.0
                one.work.kept = answer.shared_seconds is None


@dataclass(kw_only=True)
class SettledRun(PlannedRun):
    job: "Job"
    sha256: str
    """The digest of its configuration."""

    @property
    def iterations(self) -> int:
        return self.job.config.iterations


def job_of(point: Point, prepare: Callable[[str], None] | None, *, of: str = "") -> "Job | None":
    """A run as it would be; None: its data are not prepared.

    Args:
        of: what the tag of its sweep or suite begins with; empty: it is of none.
    """
    from dambench import engine

    def stop(text: str) -> NoReturn:
        raise _NotPrepared(text)

    try:
        data = point.request.data or os.environ.get("DAMBENCH_DATA") or None
        return engine.prepare(msgspec.structs.replace(point.request, data=data), prepare or stop)
    except _NotPrepared:
        return None
    except BadInput as error:
        if not of:
            raise
        said = f"The run with {named(point) or 'these settings'} cannot be: {error}"
        rule = " A rule under [[skip]] of a sweep's file leaves it out." if of == grids.TAG else ""
        raise BadInput(said + rule, field=error.field) from None


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
            one.run, one.standing = row.id, standing_of(row)
        if one.kind not in expected:
            expected[one.kind] = history.expected(store, one.job.config, one.job.card.sha256)
        for cost in expected[one.kind][:1]:
            phases = cost.phases(hard_twin=wants_twin(one.point.request))
            one.seconds = None if phases is None else sum(phases.values())
            one.peak_bytes, one.disk_bytes = cost.peak_memory_bytes, cost.disk_bytes


def standing_of(row: RunRow) -> Standing:
    """How a run stands that has begun and is not finished."""
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
    skipped = grid.product - len(planned)
    left = f"; {counted(skipped, 'combination')} left out, or the same run as another" if skipped > 0 else ""
    lines = [
        f"{grid.prefix[:-1].capitalize()} {grid.name}: {counted(len(planned), 'run')}, "
        f"{len(planned) - len(missing)} done already, {len(missing)} to do{left}."
    ]
    lines += times(missing)
    if missing:
        lines.append("Order: one seed of everything before the second of anything, random and whole first.")
    return lines


def times(missing: Sequence[PlannedRun]) -> list[str]:
    """What runs take, in sentences, by what is known of it."""
    known = [one for one in missing if one.seconds is not None]
    works = [work for work in works_of(missing) if not work.kept]
    first = sum(work.seconds or 0.0 for work in works)
    lines = []
    groups: dict[str, list[tuple[SharedWork, int]]] = {}
    for work in works:
        groups.setdefault(work.what, []).append((work, sum(one.work is work for one in missing)))
    for what, group in list(groups.items())[:MOST_WORKS]:
        known_times = [work.seconds for work, _ in group if work.seconds is not None]
        took = duration(sum(known_times)) if len(known_times) == len(group) else "– (not known yet)"
        often = "" if len(group) == 1 else f", {len(group)} times (each seed has its own)"
        users = counted(sum(number for _, number in group), "run")
        lines.append(f"First, kept for the {users} that share it{often}: {what}, {took}.")
    if len(groups) > MOST_WORKS:
        lines.append(f"… and {len(groups) - MOST_WORKS} more such.")
    if known:
        seconds = first + sum(one.seconds or 0.0 for one in known)
        steps = sum(one.by_steps for one in known)
        by = "By runs of their kind" if not steps else "By a few measured steps"
        by += f" ({steps} of them; the others by runs of their kind)" if 0 < steps < len(known) else ""
        peaks = [one.peak_bytes for one in known if one.peak_bytes]
        memory = f"at most {size(max(peaks))} of memory, " if peaks else ""
        share = "" if len(known) == len(missing) else f", for {len(known)} of {counted(len(missing), 'run')}"
        lines.append(
            f"{by}: {duration(seconds)} one after another, {memory}{size(sum(one.disk_bytes for one in known))} of "
            f"disk{share}."
        )
    unknown = [one for one in missing if one.seconds is None]
    first_of: dict[str, str] = {}
    reasons = Counter(
        first_of.setdefault(one.point.request.choice("dataset").name, _unprepared(one.point.request))
        if one.standing == "data not prepared"
        else one.unknown
        for one in unknown
    )
    none_known = (
        "no run of their kind is known yet, and measuring did not come to them; `dambench run --dry-run` measures one"
    )
    for reason, number in reasons.most_common(4):
        lines.append(f"– for {counted(number, 'run')}: {(reason or none_known).rstrip('.')}.")
    return lines


def _unprepared(request: Request) -> str:
    """Why nothing can be said of a run whose data are not prepared, with a command that prepares them."""
    dataset = request.choice("dataset")
    words = ["dambench", "run", "--dry-run", "--method", request.choice("method").name, "--dataset", dataset.name]
    for flag in ("preprocessing", "recipe", "data"):  # images may be prepared in several ways
        words += [f"--{flag}", str(value)] if (value := getattr(request, flag)) else []
    for name, value in dataset.options.items():
        words += ["--set", f"dataset.{name}={value if isinstance(value, str) else json.dumps(value)}"]
    command, called = display(shlex.join(words), 1000), display(dataset.name, 60)
    return f"their data ({called}) are not prepared, which the first run does; `{command}` does it now"


def as_json(
    grid: Sweep, planned: Sequence[PlannedRun], notes: Sequence[str], budget: Sequence[str] | None = None
) -> dict[str, Any]:
    """A plan for programs.

    Args:
        budget: what fits one, in sentences; None: there is none.
    """
    return ({} if budget is None else {"budget": list(budget)}) | {
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
                "measured": one.by_steps,
                "shared": None if one.work is None else one.work.what,
                "peak_memory_bytes": one.peak_bytes or None,
                "disk_bytes": one.disk_bytes or None,
            }
            for one in planned
        ],
        "shared": [{"what": work.what, "seconds": work.seconds, "kept": work.kept} for work in works_of(planned)],
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
