"""Queue page: what waits and what is being run, in the order of its turn; why, by whom, and for about how long."""

import heapq
import json
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dambench.core.sanitize import counted, display
from dambench.core.units import age, duration
from dambench.runner import monitor, processes
from dambench.store.queue import Queue, Queued, WorkerRow
from dambench.store.queue import label_of as queue_label
from dambench.store.row_names import method_label
from dambench.store.rows import RunRow
from dambench.store.runs import Store
from dambench.tui import clock, hints

MOST = 300
"""Queued runs that are listed, in the order of their turn."""
MOST_FAILED = 50
CARD_SECONDS = 5.0
"""Between two questions to the GPUs' driver."""

STATES = {"taken": "run", "waiting": "wait", "paused": "hold", "failed": "fail"}
"""What the list says."""
SIGNS = {"finished": "●", "taken": "◐", "waiting": "○", "paused": "‖", "failed": "x", "dropped": "·"}
ASCII_SIGNS = {"finished": "#", "taken": "@", "waiting": "o", "paused": "=", "failed": "x", "dropped": "."}
"""A seed of a sweep, by how it stands."""
WORDS = {"finished": "done", "taken": "run", "waiting": "wait", "paused": "hold", "failed": "fail", "dropped": "drop"}

_TURN = "priority desc, place, uid"


class QueueLine(NamedTuple):
    """A queued run as the list shows it."""

    one: Queued
    when: str
    """When it is expected to begin, or how far it is."""
    why: str
    """Why it waits, or failed."""
    run: str
    """The id of its run; empty: it has not begun."""


class WorkerLine(NamedTuple):
    """A worker, and whether its process lives."""

    row: WorkerRow
    stands: str
    devices: list[str]


class SweepGrid(NamedTuple):
    """The runs of one sweep or suite: a sign per seed."""

    tag: str
    columns: list[str]
    rows: list[tuple[str, list[list[tuple[int, str]]]]]
    """Method, and per column seed and state of each run."""
    counts: Counter[str]


@dataclass(frozen=True)
class QueuePage:
    """The queue, as one moment of the database has it."""

    tag: str
    """The sweep that was asked for."""
    lines: list[QueueLine]
    counts: dict[str, int]
    workers: list[WorkerLine]
    slots: int
    """Runs at once of all workers that live."""
    rest: float | None
    """Seconds until what waits is done, by the estimates there are; None: there is none."""
    without: int
    """Waiting runs of which nothing is known."""
    grid: SweepGrid
    cards: list[monitor.Glance]
    no_card: str


class QueueReader:
    """Reads the queue in the feed's thread."""

    def __init__(self) -> None:
        self._cards: tuple[list[monitor.Glance], str] = ([], "")
        self._asked = -CARD_SECONDS

    def read(self, store: Store, tag: str) -> QueuePage:
        """Read the queue.

        Args:
            tag: the sweep whose grid is shown; empty: runs that belong to none.
        """
        if time.monotonic() - self._asked >= CARD_SECONDS:
            self._asked, self._cards = time.monotonic(), monitor.look()
        return read(store, tag, *self._cards)


def read(store: Store, tag: str, cards: Sequence[monitor.Glance] = (), no_card: str = "") -> QueuePage:
    """Read the queue of a database."""
    queue = Queue(store)
    taken = queue.all("state = 'taken'")
    pending = queue.with_uids(_uids(store, "state in ('waiting', 'paused')", _TURN, MOST))
    failed = queue.with_uids(_uids(store, "state = 'failed'", "ended_at desc, uid", MOST_FAILED))
    workers = [_worker(row) for row in queue.workers()]
    living = [worker for worker in workers if worker.stands in processes.ALIVE]
    slots = sum(worker.row.slots for worker in living)
    before = {one.uid: one for one in queue.with_uids(list({uid for one in pending for uid in one.after}))}
    done = {uid for uid, one in before.items() if one.state == "finished"}
    ready = [one for one in pending if one.state == "waiting" and (not living or _has_place(one, living))]
    expected, rest = _schedule(taken, ready, max(1, slots), done)
    runs = _runs(store, [*taken, *pending, *failed])
    lines = [
        QueueLine(
            one,
            _when(one, runs.get(one.run), expected.get(one.uid), working=bool(living)),
            _why(one, before, living, runs.get(one.run)),
            runs[one.run].id if one.run in runs else "",
        )
        for one in [*taken, *pending, *failed]
    ]
    (row,) = store.query("select count(*) as n from queue where state = 'waiting' and seconds is null")
    (known,) = store.query("select sum(seconds) as s from queue where state = 'waiting'")
    whole = None if known["s"] is None else rest if len(pending) < MOST else known["s"] / max(1, slots)
    return QueuePage(
        tag=tag,
        lines=lines,
        counts={str(state): number for state, number in queue.counts().items()},
        workers=workers,
        slots=slots,
        rest=whole,
        without=int(row["n"]),
        grid=_grid(store, tag),
        cards=list(cards),
        no_card=no_card,
    )


def _uids(store: Store, condition: str, order: str, most: int) -> list[str]:
    sql = f"select uid from queue where {condition} order by {order} limit ?"
    return [row["uid"] for row in store.query(sql, most)]


def _worker(row: WorkerRow) -> WorkerLine:
    try:
        devices = [display(str(one), 40) for one in json.loads(row.devices or "[]")]
    except (ValueError, TypeError):
        devices = []
    return WorkerLine(row, processes.state(row), devices)


def _runs(store: Store, queued: Sequence[Queued]) -> dict[str, RunRow]:
    """The runs that these have become, by uid."""
    uids = json.dumps([one.run for one in queued if one.run])
    return {row.uid: row for row in store.runs("uid in (select value from json_each(?))", uids)}


def _schedule(
    taken: Sequence[Queued], waiting: Sequence[Queued], slots: int, done: Collection[str] = ()
) -> tuple[dict[str, float | None], float | None]:
    """When each begins, in seconds from now, where so many run at once in the order of their turn.

    Args:
        done: uids of runs that others come after, and that are finished.

    Returns:
        None for those that come after a run of which nothing is known; and when the last one ends whose end is known.
    """
    free: list[float] = []
    ends: dict[str, float] = {}
    for one in taken:
        left = float("inf") if one.seconds is None else max(0.0, one.seconds - clock.since(one.taken_at))
        ends[one.uid] = left
        free.append(left)
    free += [0.0] * (slots - len(free))
    heapq.heapify(free)
    begins: dict[str, float | None] = {}
    for one in waiting:
        needed = [0.0 if uid in done else ends.get(uid, float("inf")) for uid in one.after]
        at = heapq.heappop(free)
        begin = max([at, *needed])
        if begin == float("inf") > at:  # it holds no slot while it waits for something of which nothing is known
            heapq.heappush(free, at)
            begins[one.uid], ends[one.uid] = None, begin
            continue
        end = begin + (float("inf") if one.seconds is None else one.seconds)
        heapq.heappush(free, end)
        begins[one.uid], ends[one.uid] = (None if begin == float("inf") else begin), end
    known = [end for end in ends.values() if end != float("inf")]
    return begins, max(known, default=None)


def _when(one: Queued, run: RunRow | None, begins: float | None, *, working: bool) -> str:
    match one.state:
        case "taken":
            return "begins" if run is None or not run.phase else _how_far(run)
        case "waiting":
            if run is not None and _goes_on(run):
                return _how_far(run)
            if begins is None:
                return "–"
            soon = "next" if begins < 1 else f"in ~{coarse(begins)}"
            return soon if working else f"({soon})"
        case "failed":
            return f"{age(clock.since(one.ended_at))} ago" if one.ended_at else "–"
        case _:
            return "–"


def _goes_on(run: RunRow | None) -> bool:
    """Whether a run has a process, also where nobody in the queue looks after it."""
    return run is not None and processes.state(run) in processes.ALIVE


def _how_far(run: RunRow) -> str:
    return f"{display(run.phase, 20)} {run.done}/{run.total}"


def coarse(seconds: float) -> str:
    """One figure: what is estimated is not known to the second, and a line that changes costs bytes."""
    return age(seconds) if seconds >= 60 else "1 min"


def _why(one: Queued, before: Mapping[str, Queued], living: Sequence[WorkerLine], run: RunRow | None) -> str:
    """Why a run does not go on, in words."""
    reason = display(one.reason, 200)
    if one.state == "paused":
        return reason or f"paused: {hints.hint('queue.pause', 'p')} lets it go on"
    if one.state == "taken" and one.worker not in {worker.row.uid for worker in living}:
        return "its worker is gone: the next one goes on with it"
    if one.state != "waiting":
        return reason
    if _goes_on(run):
        return "its worker is gone, its process goes on: the next one follows it"
    for uid in one.after:
        needed = before.get(uid)
        if needed is None:
            return "needs a run that is not in the queue"
        if needed.state in ("failed", "dropped"):
            return f"needs {needed.id} ({needed.what}), which {'failed' if needed.state == 'failed' else 'was dropped'}"
        if needed.state != "finished":
            return f"after {needed.id} ({needed.what})"
    if not living:
        return reason or "no worker"
    if not _has_place(one, living):
        return f"no worker has {display(one.device, 20)}"
    return reason


def _has_place(one: Queued, living: Sequence[WorkerLine]) -> bool:
    """Whether some worker has the device that a run is to be made on."""
    return not one.device or any(_has(worker, one.device) for worker in living)


def _has(worker: WorkerLine, device: str) -> bool:
    names = worker.devices
    return not names or device in names or (device == "cuda" and any(name.startswith("cuda") for name in names))


def _grid(store: Store, tag: str) -> SweepGrid:
    """The runs of a sweep by method and data, those that were there before it, too."""
    found: dict[tuple[str, str], dict[int, str]] = {}
    columns: dict[tuple[str, int], str] = {}

    def add(label: str, dataset: str, ipc: int | None, seed: int | None, state: str) -> None:
        column = f"{display(dataset, 20)} {'all' if ipc is None else ipc}"
        columns.setdefault((dataset, -1 if ipc is None else ipc), column)
        found.setdefault((label, column), {})[seed or 0] = state

    queued = store.query(
        "select run, method, settings, dataset, ipc, seed, state from queue where tag = ? and command = 'run'", tag
    )
    label_of = {row["run"]: queue_label(row["method"], json.loads(row["settings"])) for row in queued}
    labels_of: dict[str, set[str]] = {}
    for row in queued:
        labels_of.setdefault(row["method"], set()).add(label_of[row["run"]])
    if tag:
        for row in store.query(
            """select uid, method, overrides, dataset, ipc, seed from runs join tags on tags.run = runs.number
            where tag = ? and state = 'finished' and deleted_at = ''""",
            tag,
        ):
            # By the name that it has in the queue: what all runs of a sweep share is not in it.
            alike = labels_of.get(row["method"], set())
            only = next(iter(alike)) if len(alike) == 1 else method_label(row["method"], row["overrides"])
            label = label_of.get(row["uid"], only)
            add(label, row["dataset"], row["ipc"], row["seed"], "finished")
    for row in queued:
        add(label_of[row["run"]], row["dataset"], row["ipc"], row["seed"], row["state"])
    names = [columns[key] for key in sorted(columns)]
    labels = list(dict.fromkeys(label for label, _ in found))
    rows = [(label, [sorted(found.get((label, name), {}).items()) for name in names]) for label in labels]
    counts = Counter(state for seeds in found.values() for state in seeds.values())
    return SweepGrid(tag, names, rows, counts)


# What is drawn.


def grid_lines(grid: SweepGrid, width: int, height: int, *, ascii_only: bool) -> list[str]:
    """A sweep as rows of methods and columns of data, with a sign per seed; columns for which there is no room are
    counted."""
    if not grid.rows:
        return ["Nothing is queued here."]
    signs = ASCII_SIGNS if ascii_only else SIGNS
    first = min(14, max(len(label) for label, _ in grid.rows))
    cells = [[_dots(seeds, signs) for seeds in entries] for _, entries in grid.rows]
    widths = [max(len(name), *(len(row[index]) for row in cells)) for index, name in enumerate(grid.columns)]
    shown, room = 0, width - first
    while shown < len(widths) and room >= widths[shown] + 2:
        room -= widths[shown] + 2
        shown += 1
    head = " " * first + "".join(f"  {name:<{widths[i]}}" for i, name in enumerate(grid.columns[:shown]))
    lines = [head.rstrip()]
    for (label, _), row in zip(grid.rows, cells, strict=True):
        lines.append(
            (f"{_short(label, first):<{first}}" + "".join(f"  {row[i]:<{widths[i]}}" for i in range(shown))).rstrip()
        )
    more = len(grid.columns) - shown
    used = [state for state in SIGNS if grid.counts.get(state)]
    key = " ".join(f"{signs[state]} {WORDS[state]}" for state in used)
    if len(lines) > height - 1:
        hidden = len(lines) - (height - 2)
        lines = [*lines[: max(1, height - 2)], f"and {counted(hidden, 'method')} more"]
    return [*lines, key + (f"  +{counted(more, 'column')}" if more else "")]


def _dots(seeds: Sequence[tuple[int, str]], signs: Mapping[str, str]) -> str:
    """A sign per seed, at most ten; where there are more, how many stand how."""
    if len(seeds) <= 10:
        return "".join(signs[state] for _, state in seeds)
    counts = Counter(state for _, state in seeds)
    return " ".join(f"{counts[state]}{signs[state]}" for state in SIGNS if counts[state])


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "~"


def progress_line(page: QueuePage, width: int, *, ascii_only: bool) -> str:
    """How far the sweep is whose grid is shown; without one, the queue in numbers."""
    counts: Mapping[str, int] = page.grid.counts if page.tag else page.counts
    total = sum(number for state, number in counts.items() if state != "dropped")
    done = counts.get("finished", 0)
    words = [f"{done} of {total} done"]
    for state, word in (("taken", "running"), ("failed", "failed"), ("waiting", "waiting"), ("paused", "on hold")):
        if counts.get(state):
            words.append(f"{counts[state]} {word}")
    name = display(page.tag.replace(":", " ", 1), 40) if page.tag else "queue"
    text = "   ".join(words)
    room = min(40, width - len(name) - len(text) - 6)
    full = round(room * done / total) if total and room > 5 else 0
    bar = ("#" * full + "-" * (room - full)) if ascii_only else ("━" * full + "─" * (room - full))
    return f"{name}  {bar}  {text}" if room > 5 else f"{name}  {text}"


def worker_lines(page: QueuePage) -> list[str]:
    """Who works on the queue, on what, and how long what waits will take."""
    lines = []
    for worker in page.workers[:4]:
        row = worker.row
        where = ", ".join(worker.devices) or row.host
        if worker.stands in processes.ALIVE:
            up = age(clock.since(row.began_at)) if row.began_at else "–"
            asked = {"drain": ", takes no more", "stop": ", is to stop"}.get(row.asked, "")
            quiet = ", silent" if worker.stands == "silent" else ""
            slots = counted(row.slots, "slot")
            lines.append(f"{display(row.executor, 20)}: {slots} on {display(where, 60)}, up {up}{asked}{quiet}")
            lines.append(f"  pid {row.pid} on {display(row.host, 30)}")
        else:
            lines.append(f"gone: {display(row.executor, 20)}, pid {row.pid} on {display(row.host, 30)}")
    if len(page.workers) > 4:
        lines.append(f"and {len(page.workers) - 4} more")
    waiting = page.counts.get("waiting", 0)
    if not page.slots:
        start = hints.hint("queue.worker", "w")
        lines.append(f"No worker: {start} starts one here." if waiting else "No worker, and nothing waits.")
    if waiting:
        lines.append(rest_line(page))
    return lines


def rest_line(page: QueuePage) -> str:
    """How long what waits will take, and of how many runs that is not known."""
    waiting = page.counts.get("waiting", 0)
    unknown = f"{page.without} of {counted(waiting, 'run')} without an estimate" if page.without else ""
    if page.rest is None:
        return f"rest –: {unknown or 'no estimate'}"
    slots = counted(max(1, page.slots), "slot")
    return f"rest ~{duration(round(page.rest))} on {slots}" + (f"; {unknown}" if unknown else "")


def card_lines(page: QueuePage, width: int, *, ascii_only: bool) -> list[str]:
    """The GPUs of this machine."""
    if not page.cards:
        return [display(page.no_card or "No GPU.", 300)]
    lines = []
    for index, card in enumerate(page.cards):
        busy = "–" if card.busy_percent is None else f"{card.busy_percent} %"
        used = "–" if card.used_bytes is None else f"{card.used_bytes / 1e9:.1f}"
        total = "–" if card.total_bytes is None else f"{card.total_bytes / 1e9:.0f} GB"
        lines.append(f"{index} {display(card.name, 20)}  {used}/{total}  {busy}")
        if card.used_bytes is not None and card.total_bytes:
            room = max(5, min(30, width - 2))
            full = round(room * card.used_bytes / card.total_bytes)
            lines.append("  " + ("#" * full + "." * (room - full) if ascii_only else "█" * full + "░" * (room - full)))
    return lines


def about(line: QueueLine, ascii_only: bool = False) -> list[str]:
    """What there is to say of the run under the cursor."""
    one = line.one
    took = "–" if one.seconds is None else f"~{duration(round(one.seconds))}"
    parts = [f"takes {took}"]
    if one.peak_memory_bytes:
        parts.append(f"{one.peak_memory_bytes / 1e9:.1f} GB of memory")
    if one.threads:
        parts.append(counted(one.threads, "thread"))
    if one.device:
        parts.append(f"on {display(one.device, 20)}")
    if one.priority:
        parts.append(f"priority {one.priority}")
    if one.attempt > 1:
        parts.append(f"attempt {one.attempt}")
    if one.tag:
        parts.append(display(one.tag, 40))
    return [f"{one.id}  {one.what}", ", ".join(parts), *([line.why] if line.why else [])]
