"""What the commands draw: a run's events (a bar in a terminal, plain lines elsewhere) and tables."""

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from dambench.core.events import (
    AnyEvent,
    Progressed,
    Stepped,
)
from dambench.core.narration import losses, summary, without_test
from dambench.core.sanitize import display
from dambench.core.units import duration, rate, size

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

WIDE = 120
"""Columns of a terminal that has room for every detail."""

FIRM = 12
"""Columns of a table up to this width are never broken; longer ones share what is left, and wrap."""

GAP = "  "
"""Between two columns of a table."""

LINE_EVERY = 5.0
"""Seconds between two plain lines about losses."""

SIGN_EVERY = 10.0
"""Seconds without a plain line after which one says how far it is, or that nothing is known of that."""

SILENCE_LOOK = 0.5
"""Seconds between two looks whether it has been silent for so long."""


class Watch:
    """A screen for the events of a run: a bar in a terminal, plain lines elsewhere.

    Args:
        console: None: stderr, since stdout is for data.
        total: iterations of the method; 0: it has none.
        only_validation: nothing of the test set is shown.
    """

    def __init__(
        self,
        console: Console | None = None,
        total: int = 0,
        clock: Callable[[], float] = time.monotonic,
        *,
        only_validation: bool = False,
    ):
        self.only_validation = only_validation
        self.console = console or Console(stderr=True, highlight=False)
        self.total = total
        self.clock = clock
        self.last_line = self.last_said = self.last_heard = clock()
        self.progress: Progress | None = None
        self.task: TaskID | None = None
        self.phase = self.text = ""
        self.left = threading.Event()
        self.gone = False
        """Whether nobody can see the screen any more."""

    def of_run(self, total: int) -> "Watch":
        """Make another one on the same console, for one run."""
        return Watch(self.console, total, only_validation=self.only_validation)

    def __enter__(self) -> "Watch":
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self.progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}", markup=False),
                TimeRemainingColumn(compact=True),
                console=self.console,
                refresh_per_second=4,
                expand=True,
                transient=True,
            )
            self.progress.start()
        self.last_heard = self.clock()
        threading.Thread(target=self._break_silences, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.left.set()
        if self.progress is not None:
            self._try(self.progress.stop)

    def _break_silences(self) -> None:
        """Say of what takes long by itself (a step, a test pass, a compiler) that it goes on: at first after ten
        seconds, and each time when the silence is twice as long.
        """
        last_event, last_sign = self.last_heard, 0.0  # the second: how long the silence was when it was broken last
        while not self.left.wait(SILENCE_LOOK):
            if last_event != self.last_heard:
                last_event, last_sign = self.last_heard, 0.0
            now = self.clock()
            silence = now - max(last_event, 0.0 if last_sign else self.last_said)
            if silence >= max(SIGN_EVERY, 2 * last_sign):
                last_sign = silence
                self._try(partial(self._still_at_it, silence))

    def _still_at_it(self, silence: float) -> None:
        text = f"still at it, nothing new for {duration(round(silence))}"
        if self.progress is None:
            self.say(f"{self.phase or 'preparing'}: {text}")
        elif self.task is not None:
            self.progress.update(self.task, text=f"{self.text}  {text}".lstrip())

    def show(self, event: AnyEvent) -> None:
        """Show an event."""
        self.last_heard = self.clock()
        self._try(lambda: self._show(without_test(event) if self.only_validation else event))

    def say(self, line: str) -> None:
        """Show a line, whatever it holds. Outside a terminal a line stays one line."""
        text, self.last_said = Text(display(line, 1000)), self.clock()
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
            phase, text = display(event.phase, 40), _side(event.note, event.memory_bytes)
            self._move(phase, event.done, event.total, text)
            if self.progress is None and self.clock() - self.last_said >= SIGN_EVERY:
                self.say(f"{phase} {_share_done(event)}  {text}".rstrip())

    def _step(self, event: Stepped) -> None:
        speed = event.iteration / event.seconds if event.seconds else 0.0
        text = f"{losses(event)}  {rate(speed)}"
        self._move("distil", event.iteration, self.total, _side(text, event.memory_bytes))
        now = self.clock()
        if self.progress is None and (now - self.last_line >= LINE_EVERY or event.iteration in (1, self.total)):
            self.last_line = now
            left = (self.total - event.iteration) / speed if speed else 0.0
            place = f"{event.iteration}/{self.total}"
            self.say(f"iteration {place}  {_side(text, event.memory_bytes)}  {duration(round(left))} left")

    def _move(self, phase: str, done: int, total: int, text: str) -> None:
        before, self.phase, self.text = self.phase, phase, text
        if self.progress is None:
            return
        if self.task is None or phase != before:
            if self.task is not None:
                self.progress.remove_task(self.task)
            self.task = self.progress.add_task(phase, total=total or None, text=text)
        self.progress.update(self.task, completed=done, total=total or None, text=text)


def say(line: str) -> None:
    """Say a line on stderr, whatever it holds."""
    print(display(line, 1000), file=sys.stderr)


def complain(sentence: str, code: int = 2) -> int:
    """Say what is wrong on stderr. Returns the exit code."""
    with suppress(OSError, ValueError):  # the code says it, too
        print(f"dambench: {display(sentence, 1000)}", file=sys.stderr)
    return code


def _share_done(event: Progressed) -> str:
    return f"{100 * event.done / event.total:.0f} %" if event.total else str(event.done)


def _side(text: str, memory_bytes: int) -> str:
    return f"{display(text)}  {size(memory_bytes)}" if memory_bytes else display(text)


def has_room() -> bool:
    """Whether stdout takes long lines: it is wide, or no terminal at all."""
    return not sys.stdout.isatty() or Console().width >= WIDE


def table_in_blocks(head: list[str], rows: list[list[Any]], kept: int) -> None:
    """A table whose columns are more than a terminal is wide: one under the other, with the first columns in each.

    Args:
        kept: how many columns each has.
    """
    stdout = Console()
    room = stdout.width if stdout.is_terminal else 10_000
    widths = [max(cell_len(str(line[at])) for line in [head, *rows]) + 2 for at in range(len(head))]
    blocks: list[list[int]] = []
    left = 0
    for at in range(kept, len(head)):
        if not blocks or widths[at] > left:
            blocks.append([*range(kept)])
            left = room - sum(widths[:kept])
        blocks[-1].append(at)
        left -= widths[at]
    for block in blocks or [[*range(len(head))]]:
        table([head[at] for at in block], [[line[at] for at in block] for line in rows])


def table(head: list[str], rows: list[list[Any]]) -> None:
    """Rows on stdout. Where that is no terminal nothing is wrapped: a row is a line."""
    texts = [["–" if value is None else display(str(value), 400) for value in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(head, *texts, strict=True)]
    stdout = Console(highlight=False)
    if stdout.is_terminal:
        widths = _narrowed(widths, stdout.width - len(" ") - len(GAP) * (len(widths) - 1))
    lines: list[str] = []
    if any(head):
        titles = _lines(head, widths)
        lines += [f"\x1b[1m{title}\x1b[0m" for title in titles] if stdout.color_system else titles
        lines += [" " + "─" * (sum(widths) + len(GAP) * (len(widths) - 1))]
    for row in texts:
        lines += _lines(row, widths)
    print("\n".join(lines))


def _narrowed(widths: list[int], room: int) -> list[int]:
    """Take from the longest columns what is more than there is room for; the short ones are never broken."""
    widths = widths.copy()
    while sum(widths) > room and (longest := max(widths)) > FIRM:
        widths[widths.index(longest)] -= 1
    return widths


def _lines(row: list[str], widths: list[int]) -> list[str]:
    """A row of a table, in as many lines as its longest cell takes; none, if it is empty."""
    cells = [
        [text] if cell_len(text) <= width else [str(line).rstrip() for line in Text(text).wrap(Console(), width)]
        for text, width in zip(row, widths, strict=True)
    ]
    lines = []
    for at in range(max(map(len, cells))):
        parts = [cell[at] if at < len(cell) else "" for cell in cells]
        padded = (part + " " * (width - cell_len(part)) for part, width in zip(parts, widths, strict=True))
        if line := GAP.join(padded).rstrip():
            lines.append(f" {line}")
    return lines
