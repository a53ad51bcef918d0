"""What the commands draw: a run's events (a bar in a terminal, plain lines elsewhere) and tables."""

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from dambench.core.events import (
    AnyEvent,
    Progressed,
    Stepped,
)
from dambench.core.narration import losses, summary
from dambench.core.sanitize import display, display_lines
from dambench.core.units import duration, energy, size

WIDE = 120
"""Columns of a terminal that has room for every detail."""

FIRM = 12
"""Columns of a table up to this width are never broken; longer ones share what is left, and wrap."""

LINE_EVERY = 5.0
"""Seconds between two plain lines about losses."""


class Watch:
    """A screen for the events of a run: a bar in a terminal, plain lines elsewhere.

    Args:
        console: None: stderr, since stdout is for data.
        total: iterations of the method; 0: it has none.
    """

    def __init__(self, console: Console | None = None, total: int = 0, clock: Callable[[], float] = time.monotonic):
        self.console = console or Console(stderr=True, highlight=False)
        self.total = total
        self.clock = clock
        self.last_line = clock()
        self.progress: Progress | None = None
        self.task: TaskID | None = None
        self.phase = ""
        self.gone = False
        """Whether nobody can see the screen any more."""

    def __enter__(self) -> "Watch":
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self.progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[said]}", markup=False),
                TimeRemainingColumn(compact=True),
                console=self.console,
                refresh_per_second=4,
                expand=True,
                transient=True,
            )
            self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.progress is not None:
            self._try(self.progress.stop)

    def show(self, event: AnyEvent) -> None:
        """Show an event."""
        self._try(lambda: self._show(event))

    def say(self, line: str) -> None:
        """Show a line, whatever it holds. Outside a terminal a line stays one line."""
        text = Text(display(line, 1000))
        self._try(lambda: self.console.print(text, soft_wrap=not self.console.is_terminal))

    def _try(self, draw: Callable[[], None]) -> None:
        """Draw, unless nobody can see it any more: a run goes on without its screen."""
        if self.gone:
            return
        try:
            draw()
        except (OSError, SystemExit):  # rich leaves the program when a pipe is broken
            self.gone = True

    def _show(self, event: AnyEvent) -> None:
        if line := summary(event):
            self.say(line)
        if isinstance(event, Stepped):
            self._step(event)
        elif isinstance(event, Progressed):
            self._move(display(event.phase, 40), event.done, event.total, _side(event.note, event.memory_bytes))

    def _step(self, event: Stepped) -> None:
        rate = event.iteration / event.seconds if event.seconds else 0.0
        said = f"{losses(event)}  {rate:.3g} it/s"
        self._move("distil", event.iteration, self.total, _side(said, event.memory_bytes))
        now = self.clock()
        if self.progress is None and (now - self.last_line >= LINE_EVERY or event.iteration in (1, self.total)):
            self.last_line = now
            left = (self.total - event.iteration) / rate if rate else 0.0
            place = f"{event.iteration}/{self.total}"
            self.say(f"iteration {place}  {_side(said, event.memory_bytes)}  {duration(round(left))} left")

    def _move(self, phase: str, done: int, total: int, said: str) -> None:
        if self.progress is None:
            return
        if self.task is None or phase != self.phase:
            if self.task is not None:
                self.progress.remove_task(self.task)
            self.phase = phase
            self.task = self.progress.add_task(phase, total=total or None, said=said)
        self.progress.update(self.task, completed=done, total=total or None, said=said)


def say(line: str) -> None:
    """Say a line on stderr, whatever it holds."""
    print(display(line, 1000), file=sys.stderr)


def complain(sentence: str, code: int = 2) -> int:
    """Say what is wrong on stderr. Returns the exit code."""
    with suppress(OSError, ValueError):  # the code says it, too
        print(f"dambench: {display(sentence, 1000)}", file=sys.stderr)
    return code


def _side(said: str, memory_bytes: int) -> str:
    return f"{display(said)}  {size(memory_bytes)}" if memory_bytes else display(said)


def has_room() -> bool:
    """Whether stdout takes long lines: it is wide, or no terminal at all."""
    return not sys.stdout.isatty() or Console().width >= WIDE


def table(head: list[str], rows: list[list[Any]]) -> None:
    """Rows on stdout. Where that is no terminal nothing is wrapped: a row is a line."""
    texts = [["–" if value is None else display(str(value), 400) for value in row] for row in rows]
    drawn = Table(box=box.SIMPLE_HEAD, show_header=any(head), pad_edge=False, padding=(0, 1, 0, 0))
    for index, title in enumerate(head):
        longest = max(cell_len(line[index]) for line in [head, *texts])
        firm = longest <= FIRM
        drawn.add_column(Text(title), no_wrap=firm, min_width=longest if firm else None, overflow="fold")
    for line in texts:
        drawn.add_row(*map(Text, line))
    stdout = Console(highlight=False)
    if not stdout.is_terminal:
        stdout = Console(highlight=False, width=10_000)
    with stdout.capture() as lines:
        stdout.print(drawn)
    print("\n".join(line.rstrip() for line in lines.get().splitlines() if line.strip()))


def describe(details: dict[str, Any]) -> None:
    """What `Store.describe` knows of a run, on stdout."""
    run = details["run"]
    skipped = ["config", "traceback", "dataset_sha256", "protocol_sha256", "overrides"]
    skipped += ["uid", "boot", "process_started", "stop_asked"]
    skipped += [] if run["phase"] else ["done", "total"]
    skipped += [] if run["attempt"] > 1 else ["attempt"]
    skipped += [] if run["pid"] else ["pid"]
    facts = {key: value for key, value in run.items() if key not in skipped and value not in ("", None)}
    facts["settings"] = ", ".join(f"{k} {v}" for k, v in run["config"]["method"].get("options", {}).items())
    facts["evaluated on"] = ", ".join(run["config"]["evaluate_on"])
    facts["computed in"] = _computed(run["config"])
    facts["tags"] = ", ".join(details["tags"])
    facts["in the trash since"] = facts.pop("deleted_at", "")
    reserved = [key for key in ("peak_reserved_bytes",) if any(cost.get(key) for cost in details["costs"])]
    table(["", ""], [[key, value] for key, value in facts.items() if value != ""])
    table(
        ["phase", "took", "peak memory", *(["reserved"] if reserved else [])],
        [
            [c["phase"], duration(c["seconds"]), *(size(c[key]) for key in ("peak_memory_bytes", *reserved))]
            for c in details["costs"]
        ],
    )
    table(
        ["iteration", "network", "#", "accuracy", "balanced", "train", "loss", "took"],
        [
            [
                score["iteration"],
                score["network"],
                score["repeat"],
                f"{100 * score['accuracy']:.2f} %",
                f"{100 * score['balanced_accuracy']:.2f} %",
                f"{100 * score['train_accuracy']:.2f} %",
                score["loss_state"] if score["loss"] is None else f"{score['loss']:.4f}",
                duration(score["seconds"]),
            ]
            for score in details["scores"]
        ],
    )
    for line in machine(details["usage"]):
        print(line)
    for made in details["sets"]:
        where = display(made["file"]) or "its tensors are not on this machine, a picture is (--preview FILE.png)"
        what = display(f"{made['shape']} {made['dtype']}")
        print(f"set after iteration {made['iteration']}, {what}: {where}")
    for checkpoint in details["checkpoints"]:
        print(f"checkpoint after iteration {checkpoint['iteration']}, {size(checkpoint['bytes'])}")
    for warning in details["warnings"]:
        print(f"note: {display(warning, 400)}")
    made_with = (f"{key} {display(str(value))}" for key, value in details["environment"].items() if value != "")
    print("made with: " + ", ".join(made_with))
    before = details["environment"]
    for attempt in details["attempts"]:
        other = {key: value for key, value in attempt["environment"].items() if value != before.get(key)}
        other.pop("command_line", None)
        said = ", ".join(f"{key} {display(str(value)) or 'none'}" for key, value in other.items()) or "the same"
        after = f"from iteration {attempt['iteration'] + 1} on" if attempt["iteration"] >= 0 else "anew"
        print(f"attempt {attempt['attempt']}, {after}, made with: {said}")
        before = attempt["environment"]
    if run["traceback"]:
        print(display_lines(run["traceback"]))


def _computed(config: dict[str, Any]) -> str:
    where = config.get("where", {})
    said = [config.get("precision", "fp32"), "compiled" if where.get("compiled") else ""]
    said += [
        f"{where[f'{kind}_chunk']} {kind} images at once"
        for kind in ("real", "synthetic")
        if where.get(f"{kind}_chunk")
    ]
    said += [f"{where['stack']} networks trained together" if where.get("stack", 1) > 1 else ""]
    return ", ".join(part for part in said if part)


def shown(png: bytes, shape: str, extent: tuple[int, int, bool]) -> str:
    """How much of a set its preview shows; empty: all of it.

    Args:
        shape: of the set, (N, C, H, W) as JSON.
        extent: as `Store.extent` gives it.
    """
    from dambench.core import half_blocks

    height, width = json.loads(shape)[2:]
    try:
        classes, each, high, wide, _ = half_blocks.tiles(png, height, width).shape
    except ValueError:
        return ""
    count, images, even = extent
    parts = [half_blocks.in_part(classes, each, count, images, even=even)]
    parts += [f"thinned out to {high - 1}×{wide - 1} pixels"] if (high - 1, wide - 1) != (height, width) else []
    return ", ".join(part for part in parts if part)


def draw(png: bytes, shape: str) -> None:
    """The preview of a set, a column per class, in half blocks; in signs where the terminal has no colours.

    Args:
        shape: of the set, (N, C, H, W) as JSON.
    """
    from dambench.core import half_blocks

    try:
        images = half_blocks.tiles(png, *json.loads(shape)[2:])
    except ValueError:
        return
    stdout = Console(highlight=False)
    classes, each, high, wide, _ = images.shape
    turned = images.transpose(1, 2, 0, 3, 4).reshape(each * high, classes * wide, 3)
    fit = min(1.0, stdout.width / (classes * wide))
    small = half_blocks.scaled(turned, max(2, int(each * high * fit) // 2 * 2), max(1, int(classes * wide * fit)))
    for line in half_blocks.half_blocks(small, colour=stdout.color_system is not None and not stdout.no_color):
        stdout.print(line, no_wrap=True, overflow="crop")


def machine(usage: dict[str, Any]) -> list[str]:
    """What a run took of the GPU and of the host, a line each, from its samples; n/a: not supported, or not known."""

    def known(name: str, missing: str, written: Callable[[float], str]) -> str:
        value = usage[name]
        return f"{missing} n/a" if value is None else written(value)

    lines = []
    if any(usage[name] is not None for name in usage if name.startswith("gpu_")):
        total = usage["gpu_memory_total_bytes"]
        memory = known("gpu_peak_memory_bytes", "memory", size)
        if total is not None:
            memory = f"peak {memory} of the card's {size(total)} in use"
        parts = [
            memory,
            known("gpu_busy_percent", "utilisation", lambda percent: f"{percent:.0f} % busy"),
            known("gpu_watts", "power", lambda watts: f"{watts:.0f} W"),
            known("gpu_peak_celsius", "temperature", lambda celsius: f"{celsius:.0f} °C"),
            known("gpu_joules", "energy", energy),
        ]
        shared = {None: "not known whether the card was shared", True: "card was shared", False: "card was not shared"}
        lines.append(f"GPU: {', '.join(parts)} ({shared[usage['gpu_shared']]})")
    if usage["process_peak_memory_bytes"] is not None:
        memory = known("process_peak_memory_bytes", "", size)
        cpu = known("process_cpu_percent", "CPU", lambda percent: f"{percent:.0f} % CPU")
        lines.append(f"host: process peak {memory}, {cpu}")
    return lines
