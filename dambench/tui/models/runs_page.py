"""Runs page: the runs around the cursor of the table of all runs, and the one under it at a glance."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from dambench.core.sanitize import display
from dambench.core.units import age, rate
from dambench.runner import processes
from dambench.store import listing
from dambench.store.filters import Filter
from dambench.store.listing import RunGlance
from dambench.store.rows import ListedRun
from dambench.store.runs import Store
from dambench.tui import clock, hints
from dambench.tui.models.columns import bars, figure, memory, percent, spark

PAGE = 100
"""Runs that are read around the cursor."""

ABOUT = "dambench compares ways to condense a dataset into a few images per class."

FIRST = "dambench run --detach --method dm --dataset digits --ipc 1 --seeds 0-2"


@dataclass(frozen=True)
class RunsQuery:
    """The filter and the order of the table."""

    filter: Filter
    order: str
    down: bool


class RunsPage(NamedTuple):
    """The runs around the cursor, as one moment of the database has them."""

    query: RunsQuery
    numbers: Sequence[int]
    rows: dict[int, ListedRun]
    glance: RunGlance | None
    here: int | None
    """The run that `glance` is of."""
    of: int
    """All runs that are not in the trash."""
    stands: list[str]
    """States of the runs that have not ended."""


@dataclass
class RunsReader:
    """Reads runs in the feed's thread, and remembers what it need not read again for the next key."""

    query: RunsQuery | None = None
    until: float = 0.0
    """When all is read anew: that takes a tenth of the time at most."""
    numbers: list[int] = field(default_factory=list)
    of: int = 0
    stands: dict[int, processes.State] = field(default_factory=dict)
    rows: dict[int, ListedRun] = field(default_factory=dict)

    def read(self, store: Store, query: RunsQuery, number: int | None, at: int, begin: str = "") -> RunsPage:
        """Args:
        number, at: the run under the cursor, and where it was.
        begin: the id of the run to begin at, where there is no cursor yet.
        """
        began = time.monotonic()
        if number is None and begin:
            number = store.number_of(begin)
        anew = query != self.query or began >= self.until
        if anew:
            self.stands = processes.states(store)
            only = query.filter.where(self.stands, clock.now())
            lost = [number for number, state in self.stands.items() if state == "lost"]
            self.numbers = listing.ordered(store, only, query.order, down=query.down, lost=lost)
            self.of = sum(store.count_by_state().values())
            self.query, self.rows = query, {}
        with suppress(ValueError):
            at = self.numbers.index(number) if number is not None else at
        at = max(0, min(at, len(self.numbers) - 1))
        first = max(0, min(at - PAGE // 2, len(self.numbers) - PAGE))
        around = self.numbers[first : first + PAGE]
        near = self.numbers[max(0, at - PAGE // 4) : at + PAGE // 4]
        if any(number not in self.rows for number in near):
            self.rows = listing.page(store, around, self.stands)
        if anew:
            self.until = time.monotonic() + 9 * (time.monotonic() - began)
        here = self.numbers[at] if self.numbers else None
        return RunsPage(
            query=query,
            numbers=self.numbers,
            rows=self.rows,
            glance=None if here is None else listing.glance(store, here),
            here=here,
            of=self.of,
            stands=list(self.stands.values()),
        )


def course(row: ListedRun, glance: RunGlance | None, *, ascii_only: bool) -> str:
    """Loss and accuracy as sparklines, speed and memory, on one line."""
    parts = []
    if glance is not None and glance.losses:
        parts.append(f"loss {spark(glance.losses, 14, ascii_only=ascii_only, log=True)} {figure(row.loss)}")
    if row.accuracy is not None:
        means = [estimate.mean for estimate in glance.accuracies] if glance else []
        drawn = spark(means, 10, ascii_only=ascii_only) + " " if len(means) > 1 else ""
        parts.append(f"acc {drawn}{percent(row.accuracy)}")
    return "   ".join(parts + speed(row, glance)) or "it has said nothing yet"


def wide_course(row: ListedRun, glance: RunGlance | None, *, ascii_only: bool) -> list[str]:
    """The same as bars of several lines."""
    losses = glance.losses if glance else []
    means: list[float | None] = [estimate.mean for estimate in glance.accuracies] if glance else []
    drawn = [
        [f"loss {figure(row.loss)}", *bars(losses, 44, 4, ascii_only=ascii_only, log=True)],
        [
            f"accuracy {percent(row.accuracy)}",
            *(bars(means, 44, 4, ascii_only=ascii_only) if len(means) > 1 else [""] * 4),
        ],
    ]
    return [
        *(f"{loss:<48}{accuracy}" for loss, accuracy in zip(*drawn, strict=True)),
        "   ".join(speed(row, glance)),
    ]


def speed(row: ListedRun, glance: RunGlance | None) -> list[str]:
    """Iterations per second and memory, as far as they are known."""
    speed = (glance.rate if glance and row.stands == "running" else None) or row.rate
    return [*([rate(speed)] if speed else []), *([f"peak {memory(row.peak)}"] if row.peak else [])]


def title(row: ListedRun, *, facts: bool) -> str:
    parts = [f"evaluates {row.evaluates}" if row.evaluates else ""]
    parts += [row.method, row.dataset, "" if row.ipc is None else f"IPC {row.ipc}", row.network]
    text = f"{row.id}  {' · '.join(display(part) for part in parts if part)} · seed {row.seed}"
    return f"{text}   {display(row.protocol)}" if facts else text


def trouble(row: ListedRun) -> str:
    """The trouble with a run, and the ways out."""
    resume, again = hints.hint("runs.resume", "r"), hints.hint("runs.run-again", "R")
    if row.stands == "lost":
        if not row.pid:
            return f"lost: an older dambench began it, and did not say which process it was. {again} runs it again."
        onward = f"{resume} begins it anew"
        if row.checkpoint is not None:
            onward = f"{resume} resumes from the checkpoint after iteration {row.checkpoint}"
        return f"process {row.pid} is gone from {display(row.host)}; {onward}"
    if row.stands == "silent":
        return f"no sign of life from {display(row.host)} for {age(clock.since(row.beat_at))}"
    anew = row.diverged_at is not None or row.stands == "finished"
    return (
        f"{display(row.error, 300).removesuffix('.')}; {f'{again} runs it again' if anew else f'{resume} resumes it'}"
    )


def facts(row: ListedRun, *, wide: bool = False) -> list[str]:
    """Process, tags and note; where there is room a line for each thing."""
    alive = row.stands in processes.ALIVE
    process = f"pid {row.pid} on {display(row.host)}" if row.pid else ""
    began = display(row.created_at)[:16].replace("T", " ")
    beat = f"heartbeat {age(clock.since(row.beat_at))} ago" if alive and row.beat_at else ""
    tags, note = display(", ".join(row.tags)), display(row.note)
    if not wide:
        first = ", ".join(part for part in (process if alive else "", f"begun {began}", beat) if part)
        noted = "   ".join(part for part in (f"tags {tags}" if tags else "", f"note {note}" if note else "") if part)
        return [line for line in (first, noted) if line]
    phase = f"{display(row.phase)} {row.done}/{row.total}" if alive and row.phase else ""
    lines = {
        "protocol": display(row.protocol),
        "settings": row.config_sha256[:8],
        "process": process + (f", attempt {row.attempt}" if row.attempt > 1 else ""),
        "begun": f"{began} UTC",
        "beat": beat.removeprefix("heartbeat "),
        "phase": phase,
        "tags": tags,
        "note": note,
        "log": display(Path(row.log).name) if row.log else "",
    }
    return [f"{name:<10}{text}" for name, text in lines.items() if text]
