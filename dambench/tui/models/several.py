"""Several: runs that go on at once, each as a small chart of its loss, beside each other."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from dambench.core.sanitize import display
from dambench.runner import processes
from dambench.store.runs import Store
from dambench.tui.models import chart
from dambench.tui.models.alerts import alerts
from dambench.tui.models.live_panes import STATES, no_loss_reason, progress_line
from dambench.tui.models.run_reader import RunReader, RunSnapshot

MOST = 12
"""Runs that are shown at once."""

NARROW, LOW = 38, 7
"""Columns and lines that a small chart needs."""


@dataclass(frozen=True)
class SeveralRuns:
    """Some runs at one moment."""

    shown: tuple[RunSnapshot, ...]
    more: int = 0
    """Runs that are meant and not shown."""
    marked: bool = False
    """They were marked; otherwise they are those that go on."""


class SeveralReader:
    """Reads runs in the feed's thread, each bit by bit."""

    def __init__(self) -> None:
        self._readers: dict[str, RunReader] = {}

    def read(self, store: Store, marked: Sequence[str]) -> SeveralRuns:
        """Read the marked runs or, where none is, those that go on, the newest first.

        Args:
            marked: their uids.
        """
        rows = [row for uid in marked if (row := store.with_uid(uid)) is not None]
        if not marked:
            unfinished = sorted(store.unfinished(), key=lambda row: (row.age, row.number), reverse=True)
            rows = [row for row in unfinished if processes.state(row) in processes.ALIVE]
        readers = {row.uid: self._readers.get(row.uid) or RunReader(row.id) for row in rows[:MOST]}
        self._readers = readers
        read = [reader.read(store) for reader in readers.values()]
        shown = tuple(one for one in read if isinstance(one, RunSnapshot))
        return SeveralRuns(shown, len(rows) - len(readers), bool(marked))


def grid(count: int, width: int, height: int) -> tuple[int, int]:
    """Columns and rows of small charts; the fewest columns that let all be seen, as far as there is room."""
    most = max(1, width // NARROW)
    columns = 1
    while columns < most and -(-count // columns) > max(1, height // LOW):
        columns += 1
    return columns, max(1, min(-(-count // columns), height // LOW))


def small(snapshot: RunSnapshot, width: int, height: int, *, here: bool, ascii: bool, log: bool) -> list[Text]:
    """One run on so many columns and lines: which it is and how it stands, how far it is, its loss, what is wrong."""
    row = snapshot.row
    found = alerts(snapshot)
    head = Text("> " if here else "  ", "bold", no_wrap=True)
    head.append(f"{row.id} ", "bold reverse" if here else "bold")
    head.append(snapshot.state, STATES.get(snapshot.state, ""))
    head.append("".join(f"  ! {alert.mark}" for alert in found), "bold red")
    ipc = "whole" if row.ipc is None else f"IPC {row.ipc}"
    head.append(f"  {display(row.method)} {display(row.dataset)} {ipc} seed {row.seed}")
    head.truncate(width, overflow="crop")
    lines = [head, progress_line(snapshot, width, ascii)]
    drawn = chart.lines(
        snapshot.losses[:1],
        width,
        height - len(lines),
        log=log,
        ascii=ascii,
        unit="iteration",
        steady=snapshot.live,
        nothing=no_loss_reason(snapshot),
    )
    return [*lines, *drawn][:height]


def beside(cells: Sequence[Sequence[Text]], width: int) -> list[Text]:
    """Blocks of lines next to each other, each so wide."""
    lines = []
    for y in range(max(map(len, cells), default=0)):
        line = Text(no_wrap=True)
        for cell in cells:
            piece = cell[y].copy() if y < len(cell) else Text()
            piece.truncate(width)
            line.append_text(piece).append(" " * (width + 1 - piece.cell_len))
        lines.append(line)
    return lines
