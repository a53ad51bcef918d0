"""The columns of the table of runs: what each says of a run, and how wide it may be. No textual here."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from math import log as ln
from typing import Any

from rich.cells import cell_len, set_cell_size

from dambench.core.sanitize import display, markdown
from dambench.core.units import age, countdown, size
from dambench.report.formats.markdown import grid
from dambench.store.row_names import method_label
from dambench.store.rows import ListedRun
from dambench.store.statistics import Estimate
from dambench.tui import clock

UNKNOWN = "–"

STATES = {
    "waiting": "wait",
    "running": "run",
    "finished": "done",
    "failed": "fail",
    "stopped": "stop",
    "lost": "lost",
    "silent": "silent",
}


@dataclass(frozen=True)
class RunColumn:
    title: str
    meaning: str
    """For whoever chooses columns."""
    value: Callable[[ListedRun], str]
    number: bool = False
    """Aligned to the right."""
    least: int = 0
    """Cells it can be cut to; 0: it is never cut."""
    most: int = 30


def percent(estimate: Estimate | None) -> str:
    """`53.9 ± 0.3 (5)`: mean ± sample standard deviation in percent, and of how many networks."""
    if estimate is None:
        return UNKNOWN
    spread = "" if estimate.std is None else f" ± {100 * estimate.std:.1f}"
    return f"{100 * estimate.mean:.1f}{spread} ({estimate.n})"


def memory(count: int | None) -> str:
    return size(count) if count else UNKNOWN


def figure(value: Any) -> str:
    """A loss; what is no number stays a word."""
    return UNKNOWN if value is None else display(value, 10) if isinstance(value, str) else f"{value:.3g}"


def seconds_left(row: ListedRun) -> float | None:
    """Seconds until the distillation ends, at the speed it has had; None: unknown, or it is not distilling."""
    if row.phase != "distil" or not row.rate or not row.total:
        return None
    return max(0.0, float(row.total - row.done) / float(row.rate))


def _age(row: ListedRun) -> str:
    match row.stands:
        case "running":
            remaining = seconds_left(row)
            return display(row.phase) or UNKNOWN if remaining is None else countdown(remaining)
        case "waiting":
            return UNKNOWN
        case "lost" | "silent":
            return f"beat {age(clock.since(row.beat_at or row.created_at))}"
        case _:
            return f"{age(clock.since(row.ended_at or row.created_at))} ago"


def _step(row: ListedRun) -> str:
    return UNKNOWN if row.iteration is None else str(row.iteration)


def _of(row: ListedRun) -> str:
    return f"{_step(row)}/{row.iterations}" if row.iterations else _step(row)


def _text(name: str) -> Callable[[ListedRun], str]:
    return lambda row: display(str(getattr(row, name)), 200)


COLUMNS: dict[str, RunColumn] = {
    "run": RunColumn("RUN", "its id", _text("id")),
    "state": RunColumn("STATE", "how it stands", lambda row: STATES[row.stands]),
    "name": RunColumn("NAME", "its name", _text("name"), least=6),
    "method": RunColumn(
        "METHOD", "with settings other than its recipe's",
        lambda row: display((f"{row.evaluates}: " if row.evaluates else "")
        + method_label(row.method, row.overrides)),
        least=7, most=40,
    ),
    "dataset": RunColumn("DATASET", "what was distilled", _text("dataset"), least=7),
    "ipc": RunColumn("IPC", "images per class", lambda row: UNKNOWN if row.ipc is None else str(row.ipc), True),
    "network": RunColumn("NETWORK", "that it matches on, or is first evaluated on", _text("network"), least=7),
    "protocol": RunColumn("PROTOCOL", "how networks are trained and tested", _text("protocol"), least=6),
    "seed": RunColumn("SEED", "everything random follows from it", _text("seed"), True),
    "loss": RunColumn("LOSS", "the last one", lambda row: figure(row.loss), True),
    "accuracy": RunColumn(
        "ACC ± STD (N)", "of its latest set, in %, over n networks", lambda row: percent(row.accuracy)
    ),
    "step": RunColumn("STEP", "iterations taken", _step, True),
    "of": RunColumn("STEP/OF", "iterations taken, and how many it takes", _of, True),
    "rate": RunColumn(
        "IT/S", "iterations per second", lambda row: UNKNOWN if row.rate is None else f"{row.rate:.3g}", True
    ),
    "peak": RunColumn("PEAK", "memory", lambda row: memory(row.peak), True),
    "took": RunColumn("TOOK", "seconds of all phases", lambda row: _took(row.seconds), True),
    "age": RunColumn("LEFT/AGE", "time left, or since it ended", _age, True),
    "tags": RunColumn("TAGS", "what it was tagged with", lambda row: display(", ".join(row.tags)), least=6),
    "note": RunColumn("NOTE", "what was written about it", _text("note"), least=6),
    "host": RunColumn("HOST", "where its process is, or was", _text("host"), least=6),
    "begun": RunColumn(
        "BEGUN (UTC)", "when it was entered", lambda row: display(row.created_at)[:16].replace("T", " ")
    ),
    "validated": RunColumn(
        "BY VALIDATION", "accuracy of the set that validation chose", lambda row: percent(row.validated)
    ),
}  # fmt: skip

SORTED_AS = {"of": "step", "begun": "age"}
"""Columns that are sorted as others are."""

LEAST = ["run", "state", "method", "dataset", "ipc", "accuracy", "age"]
NARROW = ["run", "state", "method", "dataset", "ipc", "seed", "accuracy", "step", "age"]
MIDDLE = ["run", "state", "method", "dataset", "ipc", "network", "seed", "loss", "accuracy", "of", "age"]
WIDE = [
    "run", "state", "method", "dataset", "ipc", "network", "seed", "loss", "accuracy", "of", "rate", "peak", "took",
    "age", "tags", "name",
]  # fmt: skip


def _took(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else countdown(seconds) if seconds >= 60 else f"{seconds:.1f} s"


def usual(width: int) -> list[str]:
    """The columns where nobody has chosen any."""
    return LEAST if width < 80 else NARROW if width < 100 else MIDDLE if width < 140 else WIDE


def heads(names: Iterable[str], order: str, *, down: bool, ascii_only: bool = False) -> dict[str, str]:
    """Titles of columns; an arrow says which one the runs are sorted by. Newest first goes without saying."""
    arrow = "v^"[not down] if ascii_only else "↓↑"[not down]
    by = "" if (order, down) == ("age", True) else order
    titles = {name: plain(COLUMNS[name].title) if ascii_only else COLUMNS[name].title for name in names}
    return {name: title + (arrow if SORTED_AS.get(name, name) == by else "") for name, title in titles.items()}


def layout(
    titles: Mapping[str, str], rows: Iterable[ListedRun], room: int, *, ascii_only: bool = False, chosen: bool = False
) -> tuple[list[tuple[str, int]], int]:
    """Columns and their widths, with a space between two: as wide as what they hold, cut where there is no room.

    The longest words are cut first. If that is not enough, the last columns are left out.

    Args:
        chosen: somebody wants to see these: an empty one, too.

    Returns:
        Also how many columns there was no room for.
    """
    shown = list(rows)
    widths = {}
    for name, title in titles.items():
        texts = [value(name, row, ascii_only=ascii_only) for row in shown]
        # An empty column of words tells nothing.
        if any(texts) or not shown or chosen:
            widths[name] = min(max(map(cell_len, [title, *texts])), COLUMNS[name].most)
    total = len(widths)
    while widths and (over := sum(widths.values()) + len(widths) - 1 - room) > 0:
        can = {name: width - COLUMNS[name].least for name, width in widths.items() if 0 < COLUMNS[name].least < width}
        if can:
            # One that is longer than all others gives first, down to the next.
            longest = max(can, key=lambda name: widths[name])
            rest = [widths[name] for name in can if name != longest]
            widths[longest] -= max(1, min(over, can[longest], widths[longest] - max(rest, default=0)))
        else:
            widths.popitem()
    return list(widths.items()), total - len(widths)


def value(name: str, row: ListedRun, *, ascii_only: bool = False) -> str:
    """The text of a column for a run."""
    return plain(COLUMNS[name].value(row)) if ascii_only else COLUMNS[name].value(row)


def cell(text: str, width: int, *, right: bool = False, ascii_only: bool = False) -> str:
    """Exactly so many cells; what is cut ends in an ellipsis."""
    if cell_len(text) > width:
        mark = "~" if ascii_only else "…"
        return set_cell_size(text, width - 1) + mark if width > 1 else set_cell_size(text, width)
    gap = " " * (width - cell_len(text))
    return gap + text if right else text + gap


def plain(text: str) -> str:
    """In ASCII only."""
    for sign, other in (("±", "+-"), ("–", "-"), ("…", "~"), ("·", "|"), ("×", "x"), ("↓", "v"), ("↑", "^")):
        text = text.replace(sign, other)
    return text.encode("ascii", "replace").decode()


def bars(
    values: Sequence[float | None], width: int, height: int, *, ascii_only: bool = False, log: bool = False
) -> list[str]:
    """Lines of bars, low to high; a value that was no number is an `!`.

    Args:
        log: of logarithms, where all values are positive.
    """
    values = [value if value is not None and isfinite(value) else None for value in values]
    if len(values) > width:
        values = [_furthest(values[at * len(values) // width : (at + 1) * len(values) // width]) for at in range(width)]
    finite = [value for value in values if value is not None]
    if log and finite and min(finite) > 0:
        values = [None if value is None else ln(value) for value in values]
        finite = [ln(value) for value in finite]
    signs = " _.-=+*#@" if ascii_only else " ▁▂▃▄▅▆▇█"
    low, high = min(finite, default=0.0) / 2, max(finite, default=0.0) / 2  # halves: their difference is a number
    scale = (8 * height - 1) / (high - low) if high - low > 1e-300 else 0.0
    lines = []
    for floor in range(8 * (height - 1), -1, -8):
        filled = (1 + round((value / 2 - low) * scale) - floor if value is not None else None for value in values)
        lines.append("".join("!" if f is None else signs[max(0, min(f, 8))] for f in filled))
    return lines


def _furthest(some: Sequence[float | None]) -> float | None:
    """The one of several values that differs most from the first: no spike, and no hole, is left out."""
    if any(value is None for value in some):
        return None
    return max((value for value in some if value is not None), key=lambda value: abs(value - (some[0] or 0.0)))


def spark(values: Sequence[float | None], width: int, *, ascii_only: bool = False, log: bool = False) -> str:
    """One such line."""
    return bars(values, width, 1, ascii_only=ascii_only, log=log)[0]


def markdown_table(names: Sequence[str], rows: Iterable[ListedRun]) -> str:
    """The runs as a table of markdown."""
    lines = [[COLUMNS[name].title.lower() for name in names]]
    lines += [[markdown(COLUMNS[name].value(row)) for name in names] for row in rows]
    return grid(lines) + "\n"
