"""Surroundings: the GPUs of this machine with whoever uses them, and the room on the database's disk."""

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rich.text import Text

from dambench.core.sanitize import display
from dambench.core.units import part_of, size
from dambench.runner import monitor, processes
from dambench.runner.monitor import Glance
from dambench.tui.models.chart import bar
from dambench.tui.models.run_reader import RunSnapshot

EVERY = 5.0
"""Seconds between two looks."""


class Surroundings(NamedTuple):
    """A machine around a run, at one moment."""

    cards: tuple[Glance, ...] = ()
    """None of them: there are none, or they were not asked yet."""
    free_bytes: int | None = None
    """On the disk of the database; None: not known."""


class SurroundingsReader:
    """Looks around seldom, in a thread of its own: a driver takes its time, and may hang.

    Args:
        look: gives all cards, as `monitor.look`.
    """

    def __init__(self, look: Callable[[], tuple[list[Glance], str]] | None = None) -> None:
        self.last = Surroundings()
        self._look = look or monitor.look
        self._at = -EVERY
        self._looking: threading.Thread | None = None

    def read(self, database: Path, snapshot: object) -> None:
        """Look around a run that goes on here; of others nothing is known here."""
        if not isinstance(snapshot, RunSnapshot) or not snapshot.live or not processes.is_here(snapshot.row):
            self.last, self._at = Surroundings(), -EVERY
            return
        if time.monotonic() - self._at < EVERY or (self._looking is not None and self._looking.is_alive()):
            return
        self._at = time.monotonic()
        on_gpu = snapshot.environment is not None and snapshot.environment.device != "cpu"
        look = partial(self._look_around, database.absolute().parent, on_gpu)
        self._looking = threading.Thread(target=look, name="surroundings", daemon=True)
        self._looking.start()

    def _look_around(self, folder: Path, on_gpu: bool) -> None:
        free = None
        with suppress(OSError):
            free = shutil.disk_usage(folder).free
        self.last = self.last._replace(free_bytes=free)
        if on_gpu:
            self.last = Surroundings(tuple(self._look()[0]), free)


def card_lines(cards: Sequence[Glance], run_pid: int | None, width: int, *, ascii: bool) -> list[Text]:
    """Each card of this machine: how full and how busy it is, and whose processes are on it.

    Args:
        run_pid: the process of the run that is shown; None: unknown.
    """
    lines = []
    for index, card in enumerate(cards):
        busy = "n/a" if card.busy_percent is None else f"{card.busy_percent} %"
        used = "n/a" if card.used_bytes is None else part_of(card.used_bytes, card.total_bytes)
        lines.append(Text(f"GPU {index} {display(card.name, 24)}", "bold", no_wrap=True))
        line = Text("  ", no_wrap=True)
        if card.used_bytes is not None and card.total_bytes:
            line.append_text(bar(card.used_bytes / card.total_bytes, max(4, min(20, width - 30)), ascii=ascii)).append(
                " "
            )
        lines.append(line.append(f"{used}  busy {busy}"))
        if card.tenants is None:
            lines.append(Text("  its processes are not told", no_wrap=True))
        elif not card.tenants:
            lines.append(Text("  no process", no_wrap=True))
        for one in card.tenants or ():
            memory = "" if one.memory_bytes is None else f" {size(one.memory_bytes)}"
            who = "this run" if run_pid is not None and one.pid == run_pid else display(one.user, 12) or "user n/a"
            lines.append(Text(f"  {one.pid} {who} {display(one.name, 16)}{memory}", no_wrap=True))
    return lines
