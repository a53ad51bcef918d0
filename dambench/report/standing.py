"""Where results are between their baselines, and what they lack, in words."""

import math

from dambench.core.sanitize import display
from dambench.report.wording import MISSING, TableEntry
from dambench.store.baselines import RandomSize, Ratio, Standing, place_of
from dambench.store.leaderboard import Leaderboard, Table


def missing_baselines(board: Leaderboard, table: Table) -> list[str]:
    """One sentence on what the results of a table lack to be read; none: nothing."""
    places = {(place_of(score), score.ipc) for cell in table.cells.values() for score in cell.scores}
    where: dict[str, list[str]] = {}
    for missing in board.baselines.missing:
        if any((place, ipc) in places for place, ipc in missing.results):
            where.setdefault(missing.what, []).append(missing.at)
    if not where:
        return []
    listed = "; ".join(f"{what} ({', '.join(dict.fromkeys(at))})" for what, at in where.items())
    return [
        f"Missing: {display(listed, 1000)}. `dambench report --sections baselines` has the commands that make them."
    ]


def entries(found: Standing) -> list[TableEntry]:
    """Relative accuracy, recovered gap and equivalent random size, as a table shows them."""
    return [ratio(found.relative), ratio(found.recovered), TableEntry(random_size(found.size))]


def ratio(found: Ratio) -> TableEntry:
    """`86.2 (81.0 to 90.9)` in percent, the interval where there is one."""
    if found.value is None:
        return TableEntry(MISSING)
    shown = MISSING if found.interval is None else " to ".join(f"{100 * value:.1f}" for value in found.interval)
    return TableEntry(f"{100 * found.value:.1f}", shown)


def random_size(found: RandomSize) -> str:
    """`7.3 (4.1 to > 50)`: images per class, within the curve's ends."""
    if found.value is None:
        return MISSING

    def shown(ipc: float) -> str:
        ends = {0.0: f"< {found.curve[0]}", math.inf: f"> {found.curve[-1]}"}
        return ends.get(ipc, f"{ipc:.1f}")

    interval = MISSING if found.low is None or found.high is None else f"{shown(found.low)} to {shown(found.high)}"
    return f"{shown(found.value)} ({interval})"
