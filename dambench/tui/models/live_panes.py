"""Live panes: the contents of the panes of Live as lines of text."""

import json
from itertools import pairwise
from typing import Literal

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.text import Text

from dambench.core.events import PHASES, Sampled
from dambench.core.sanitize import display
from dambench.core.units import duration, energy, milliseconds, part_of, size
from dambench.report.labels import label_of
from dambench.report.wording import figure
from dambench.runner import processes
from dambench.store.metrics import ACCURACY, MetricRow
from dambench.tui import clock, hints
from dambench.tui.models.chart import bar, short, spark
from dambench.tui.models.machine_course import narrowed
from dambench.tui.models.run_reader import Attempt, NetworkAccuracy, RunGone, RunSnapshot, local

QUIET_SECONDS = 15.0
"""Since the last sign of life, from which on it is worth a word on a small screen."""

WIDE = 120

NAMED = 16
"""Cells for the name of a part."""

SHOWN = ("host", "device_name", "threads", "dambench", "torch")
"""Fields of an environment that are named where attempts of a run differ in them."""

SHORT = 10
"""Lines of a pane in which there is no room for reasons."""


def header_lines(snapshot: RunSnapshot, width: int, frozen: bool, ascii: bool) -> list[Text]:
    """Two lines: which run this is and how it stands, and how far it is."""
    row = snapshot.row
    # Settings that differ from the recipe's are many words: they are left to the place of runs.
    parts = [f"evaluates {snapshot.evaluates}"] if snapshot.evaluates else []
    parts += [display(row.method), display(row.dataset), "whole" if row.ipc is None else f"IPC {row.ipc}"]
    parts += [display(row.network)] if row.network else []
    parts += [f"seed {row.seed}"]
    if width >= WIDE:
        parts += [display(row.protocol, 40), display(row.name, 40)]
    dot = " - " if ascii else " · "
    left = Text(f" {row.id} ", "bold", no_wrap=True)
    left.append(snapshot.state, STATES.get(snapshot.state, ""))
    left.append("  " + dot.join(part for part in parts if part))
    right = [f"frozen ({hints.hint('live.freeze', 'space')})"] if frozen else []
    if snapshot.live:
        quiet = clock.since(row.beat_at) if row.beat_at else 0.0
        if width >= WIDE:
            right += [f"process {row.pid} on {display(row.host, 30)}"] if row.pid else []
            right += [f"heartbeat {duration(int(quiet))} ago"]
        elif quiet > QUIET_SECONDS:
            right += [f"silent {duration(int(quiet))}"]
    elif row.ended_at and width >= WIDE:
        right += [f"ended {local(row.ended_at)}"]
    if snapshot.live:
        right += [f"since {local(row.created_at)}"]
        right += [f"for {duration(int(clock.since(row.created_at)))}"] if width >= WIDE else []
    first = _apart(left, Text("  ".join(right)), width, ascii)
    return [first, progress_line(snapshot, width, ascii)]


STATES = {
    "running": "bold green",
    "waiting": "yellow",
    "silent": "bold yellow",
    "lost": "bold red",
    "failed": "bold red",
    "stopped": "yellow",
    "finished": "bold",
}


def progress_line(snapshot: RunSnapshot, width: int, ascii: bool) -> Text:
    """Phase, a bar, how much of it is done, how fast, and what is left."""
    row = snapshot.row
    phase, done, total = row.phase, row.done, row.total
    if not snapshot.live and snapshot.state == "finished":
        phase, done, total = "done", 1, 1
    share = done / total if total else 0.0
    parts = [f"{done}/{total}  {int(100 * share)} %"] if phase not in ("", "done") and total else []
    if phase in ("distil", "done") and snapshot.speed:
        parts.append(f"{short(float(f'{snapshot.speed:.3g}'))} it/s")
        if width >= WIDE and snapshot.spread:
            low, high = snapshot.spread
            parts.append(f"({low:.3g} to {high:.3g} in 90 % of the time)")
    if snapshot.left is not None:
        parts.append(f"{duration(max(1, int(snapshot.left)))} left")
    right = Text("  ".join(parts))
    left = Text(f" {phase or ('starting' if snapshot.live else snapshot.state)} ", no_wrap=True)
    room = max(4, width - left.cell_len - right.cell_len - 2)
    full = min(room, int(share * room))
    left.append(("#" if ascii else "━") * full, "bold")
    left.append(("." if ascii else "─") * (room - full), "dim")
    return _apart(left, right, width, ascii)


def _apart(left: Text, right: Text, width: int, ascii: bool) -> Text:
    """Two texts at the ends of a line; the left one gives way."""
    room = width - right.cell_len - 2
    if left.cell_len > room:
        left = left.copy()
        left.truncate(max(0, room - 1), overflow="crop")
        left.append("~" if ascii else "…")
    line = left + Text(" " * max(1, width - 1 - left.cell_len - right.cell_len)) + right
    line.no_wrap = True
    return line


def lacking_lines(answer: object, database: str, is_there: bool, place: Literal["live", "run"]) -> list[Text]:
    """Sentences on what is not there any more: the run that was asked for, or the database (`is_there`).

    Args:
        place: the one whose keys are the ways out.
    """
    runs, new = hints.hint("everywhere.place-1", "1"), hints.hint("everywhere.new", "n")
    if isinstance(answer, RunGone):
        other = hints.hint("run.other-run", "]") if place == "run" else hints.hint("live.other-run", "]")
        return [
            Text(f"The run {display(answer.run)} is not in {display(database)} any more.", "bold"),
            Text(f"{other} shows another one; {runs} goes to the runs."),
        ]
    if answer is None and not is_there:
        return [Text(f"There is no database {display(database)}.", "bold"), Text(f"{new} begins a run, and makes it.")]
    return []


def problem_banner(snapshot: RunSnapshot | None, database: str, place: Literal["live", "run"] = "live") -> list[Text]:
    """The trouble with a run that did not go well, and the ways out.

    Args:
        place: the one whose keys they are.
    """
    if snapshot is None:
        return [
            Text(f"No runs in {display(database)} yet.", "bold"),
            Text(
                f"{hints.hint('everywhere.place-1', '1')} goes to the runs; {hints.hint('everywhere.new', 'n')} begins "
                "one, and so does: dambench run --detach --method dm --dataset digits"
            ),
        ]
    row, state = snapshot.row, snapshot.state
    # Losses are kept about once a second, a checkpoint at once.
    at = f" at iteration {max(row.done, snapshot.checkpoint or 0)}" if row.phase == "distil" else ""
    copy, pager = hints.hint("everywhere.copy", "y"), hints.hint("live.log-in-pager", "E")
    resume = hints.hint("run.resume", "r") if place == "run" else hints.hint("live.resume", "r")
    ways = (
        f"{resume} goes on from iteration {snapshot.checkpoint}"
        if snapshot.checkpoint is not None
        else f"{resume} begins it anew",
        "the section Log has its log" if place == "run" else f"{pager} shows the log",
    )
    if state == "lost":
        quiet = f"{duration(int(clock.since(row.beat_at)))} ago" if row.beat_at else "unknown"
        gone = f"process {row.pid} is gone from {display(row.host)}" if row.pid else "its process is gone"
        if row.pid and not processes.is_here(row):
            gone = f"process {row.pid} on {display(row.host)} is silent"
        lines = [Text(f"Lost{at}: {gone}; its last sign of life was {quiet}.", "bold")]
        if snapshot.log:
            lines.append(Text(f"Last words: {display(snapshot.log[-1], 300)}"))
        return [*lines, Text(f"{', '.join(ways)}.")]
    if state == "silent":
        quiet = duration(int(clock.since(row.beat_at)))
        return [Text(f"No sign of life from {display(row.host)} for {quiet}: the run may have ended there.", "bold")]
    if state == "failed":
        if row.diverged_at is not None:
            return [
                Text(f"Diverged at iteration {row.diverged_at}.", "bold"),
                Text(display(row.error, 600)),
                Text(f"It would again: begin a new run with a smaller step size. {copy} copies the traceback."),
            ]
        error = Text(display(row.error, 600))
        return [Text(f"Failed{at}.", "bold"), error, Text(f"{', '.join(ways)}, {copy} copies the traceback.")]
    if state == "stopped":
        reason = display(row.error) or "stopped"
        return [Text(f"{reason[0].upper()}{reason[1:]}{at}. {ways[0]}.")]
    return []


def no_loss_reason(snapshot: RunSnapshot) -> str:
    """Why there is no loss to draw."""
    if snapshot.evaluates:
        return f"it only evaluates {display(snapshot.evaluates)}"
    if not snapshot.live:
        return "this run logged no loss"
    return "no loss logged yet" if snapshot.row.phase else "it is starting …"


def machine_lines(snapshot: RunSnapshot, width: int, height: int, *, ascii: bool, why: str) -> list[Text]:
    """Gauges of the GPU and of the host, and the run's share of them.

    Args:
        why: there is no GPU, in a sentence.
    """
    last = snapshot.samples[-1] if snapshot.samples else Sampled(seconds=0.0)
    room = max(4, min(28, width - 30)) if width >= 40 else max(3, width - 21)
    on_gpu = snapshot.environment is not None and snapshot.environment.device != "cpu"
    cores = snapshot.environment.cpus if snapshot.environment else 1
    if on_gpu:
        lines = _gpu_gauges(last, snapshot.joules, room, ascii=ascii)
    else:
        lines = (
            wrapped(why, width)
            if height > SHORT
            else [Text(f"no GPU ({hints.hint('live.zoom-pane', 'z')} says why)" if why else "no GPU")]
        )
    percent = last.process_cpu_percent
    used = "n/a" if percent is None else f"{percent / 100:.1f}/{cores} cores"
    lines.append(_gauge("CPU", None if percent is None else percent / 100 / max(1, cores), used, room, ascii))
    lines.append(_filled("RAM", last.host_memory_used_bytes, last.host_memory_total_bytes, room, ascii))
    resident = last.process_memory_bytes
    lines.append(Text(f"this run {'n/a' if resident is None else part_of(resident, None)}"))
    if height > 12:
        lines += _courses(snapshot, width - 6, cores, on_gpu=on_gpu, ascii=ascii)
    return lines


def _gauge(name: str, share: float | None, value: str, room: int, ascii: bool) -> Text:
    line = Text(f"{name:<5}", no_wrap=True)
    if share is not None:
        line.append_text(bar(share, room, ascii=ascii)).append(" ")
    return line.append(value)


def _filled(name: str, used: float | None, total: float | None, room: int, ascii: bool) -> Text:
    """A gauge of memory."""
    if used is None:
        return _gauge(name, None, "n/a", room, ascii)
    return _gauge(name, used / total if total else None, part_of(used, total), room, ascii)


def _gpu_gauges(last: Sampled, joules: float | None, room: int, *, ascii: bool) -> list[Text]:
    """Memory, load, power and energy of the GPU, and who else is on it."""
    busy, others = last.gpu_busy_percent, last.gpu_neighbours
    watts = "n/a" if last.gpu_watts is None else f"{last.gpu_watts:.0f} W"
    degrees = "n/a" if last.gpu_celsius is None else f"{last.gpu_celsius} {'C' if ascii else '°C'}"
    lines = [
        _filled("mem", last.gpu_memory_used_bytes, last.gpu_memory_total_bytes, room, ascii),
        _gauge("busy", None, "n/a", room, ascii)
        if busy is None
        else _gauge("busy", busy / 100, f"{busy} %", room, ascii),
        Text(f"power {watts}  temp {degrees}"),
        Text("energy n/a" if joules is None else f"energy {energy(joules)}, the whole card"),
    ]
    if not others:
        lines.append(Text("others n/a" if others is None else "no other process"))
    for other in others or ():
        memory = "" if other.memory_bytes is None else f"  {size(other.memory_bytes)}"
        lines.append(Text(f"other {other.pid} {display(other.name, 16)}{memory}"))
    return lines


def _courses(snapshot: RunSnapshot, room: int, cores: int, *, on_gpu: bool, ascii: bool) -> list[Text]:
    """Load and memory over the whole run as little bars."""
    course, last = snapshot.course, snapshot.samples[-1] if snapshot.samples else None
    series: list[tuple[str, str, float | None]] = [("CPU", "process_cpu_percent", 100.0 * cores)]
    if on_gpu:
        total = last.gpu_memory_total_bytes if last else None
        series = [("busy", "gpu_busy_percent", 100.0), ("mem", "gpu_memory_used_bytes", total), *series]
    lines = [Text(f"the whole run, {duration(snapshot.sampled_seconds)}:", "dim")]
    return lines + [
        Text(f"{name:<5} {spark(narrowed(course[field], room), room, top, ascii=ascii)}") for name, field, top in series
    ]


def timing_lines(snapshot: RunSnapshot, width: int, *, ascii: bool) -> list[Text]:
    """Shares of the time: the parts of an iteration, as far as they are measured, and the phases."""
    lines: list[Text] = []
    if snapshot.speed and len(snapshot.seconds) > 1 and (snapshot.row.phase == "distil" or not snapshot.live):
        whole = 1 / snapshot.speed
        lines.append(Text(f"per iteration {milliseconds(whole)}"))
        rest = whole - sum(snapshot.parts.values())
        parts = snapshot.parts | ({"other": rest} if snapshot.parts and rest > 0 else {})
        if not parts:
            on_gpu = snapshot.environment is not None and snapshot.environment.device != "cpu"
            unknown = "its parts are measured on a CPU only" if on_gpu else "its parts were not measured"
            lines += [Text(line.plain, "dim") for line in wrapped(unknown, width)]
        most = sum(parts.values())
        lines += [_share(name, milliseconds(spent), spent / most, width, ascii) for name, spent in parts.items()]
    total = sum(snapshot.costs.values())
    if total > 0:
        lines.append(Text(f"the run, {duration(total)}"))
        phases = sorted(snapshot.costs.items(), key=lambda cost: " ".join(PHASES).find(cost[0]))
        lines += [_share(name, duration(spent), spent / total, width, ascii) for name, spent in phases]
    for before, attempt in pairwise(snapshot.attempts):
        where = "from the beginning" if attempt.after < 0 else f"after iteration {attempt.after}"
        lines += wrapped(f"attempt {attempt.number}, {where}{_elsewhere(before, attempt)}", width)
    return lines


def _elsewhere(before: Attempt, attempt: Attempt) -> str:
    """In what the environment of an attempt differs from that of the one before."""
    old, new = before.environment, attempt.environment
    differ = [name for name in SHOWN if getattr(old, name) != getattr(new, name)]
    return "".join(
        f", {display(str(getattr(new, name)), 40)} {name}"
        if name == "threads"
        else f", {name.partition('_')[0]} {display(str(getattr(new, name)), 40)}"
        for name in differ
    )


def _share(name: str, value: str, share: float, width: int, ascii: bool) -> Text:
    """A name, how long that took and its share of the whole, which gives way where there is no room."""
    room = width - NAMED - len(" 4 min 19 s  100 %")
    if room < 0:
        return Text(f"{set_cell_size(display(name, 40), max(8, width - len(value) - 1))} {value}", no_wrap=True)
    line = Text(f"{set_cell_size(display(name, 40), NAMED)} {value:>10} ", no_wrap=True)
    if room >= 4:
        line.append_text(bar(share, room, ascii=ascii))
    return line.append(f" {100 * share:3.0f} %")


def accuracy_lines(snapshot: RunSnapshot, width: int, *, ascii: bool) -> list[Text]:
    """Mean and spread of each network after each iteration that was judged, the last ones first."""
    if not snapshot.accuracies and (snapshot.figures or snapshot.evaluator != ACCURACY.evaluator):
        return figure_lines(snapshot, width, ascii=ascii)
    if not snapshot.accuracies:
        every = json.loads(snapshot.row.config)["evaluate_every"]
        when = f"The set is evaluated every {every} iterations." if every else "The set is evaluated at the end."
        return wrapped(when, width)
    sign = "+-" if ascii else "±"
    several = len({one.network for one in snapshot.accuracies}) > 1
    validated = all(one.validation is not None for one in snapshot.accuracies)
    held = "valid.  " if validated else ""
    title = f"{'after':>7}  {f'mean {sign} std':<13}{'n':>3}  {held}{'network' if several else ''}"
    lines = [Text(title, "dim", no_wrap=True)]

    def chooses(one: NetworkAccuracy) -> float:
        return one.mean if one.validation is None else one.validation

    best = max(map(chooses, snapshot.accuracies))  # by validation, where there is such
    for one in sorted(snapshot.accuracies, key=lambda one: -one.iteration):
        spread = f" {sign} {100 * one.std:.2f}" if one.std is not None else ""
        line = Text(f"{one.iteration:>7}  {100 * one.mean:.2f}{spread:<8}{one.n:>3}  ", no_wrap=True)
        line.append(f"{100 * one.validation:<8.2f}" if validated and one.validation is not None else "")
        line.append("best " if chooses(one) == best and len(snapshot.accuracies) > 1 else "")
        line.append(display(one.network, 40) if several else "")
        lines.append(line)
    return lines


def figure_lines(snapshot: RunSnapshot, width: int, *, ascii: bool) -> list[Text]:
    """What another evaluator than of accuracy has measured: a line for each metric, by subject."""
    if not snapshot.figures:
        return wrapped("Nothing is measured yet.", width)
    sign, lines, subject = "+-" if ascii else "±", [], ""
    several = len({one.subject for one in snapshot.figures}) > 1
    for one in snapshot.figures:
        if several and one.subject != subject:
            lines.append(Text(display(one.subject, 60), "dim", no_wrap=True))
        subject = one.subject
        metric = MetricRow(one.evaluator, one.metric, one.unit, "higher", "")
        spread = f" {sign} {figure(metric, one.std)}" if one.std is not None else ""
        label = label_of(metric)
        unit = f" {label.format.unit}" if label.format.unit else ""
        value = f"{figure(metric, one.mean)}{spread}{unit}"
        if label.words:
            value = label.words.get(one.mean, "mixed") if not one.std else "mixed"
        name = with_end(label.text, max(8, min(30, width - max(15, cell_len(value)) - 4)), ascii=ascii)
        lines.append(Text(f"{name} {value:<15}{one.n:>3}", no_wrap=True))
    return lines


def with_end(name: str, width: int, *, ascii: bool) -> str:
    """A name in so many cells; a long one keeps its end, by which those of one kind are told apart."""
    sign = ".." if ascii else "…"
    room = width - len(sign)
    if cell_len(name) > width and room > 4:
        name = f"{name[: room - room * 3 // 5].rstrip()}{sign}{name[-(room * 3 // 5) :]}"
    return set_cell_size(name, width)


def wrapped(text: str, width: int) -> list[Text]:
    """Words on as many lines as they need; one that is longer than a line goes on in the next."""
    lines: list[str] = []
    for word in [part for one in text.split() for part in chop_cells(one, max(2, width))]:
        if lines and cell_len(lines[-1]) + 1 + cell_len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return [Text(line) for line in lines]
