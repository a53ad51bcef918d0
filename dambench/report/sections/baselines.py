"""Results between their baselines: the part of the gap they recover, and what is missing beside them."""

from collections.abc import Iterator, Sequence

from dambench.core.sanitize import display
from dambench.report.parts import Part, Records, Section
from dambench.report.standing import entries
from dambench.report.wording import TableEntry
from dambench.store.baselines import NO_COMMAND, Standing
from dambench.store.cells import Cell
from dambench.store.leaderboard import AXES, Leaderboard

HEAD = ("result", "network", "protocol", "relative accuracy in %", "recovered gap in %", "random IPC as good")
FEW = 6
"""Places that are named one by one."""

NOTES = (
    "Relative accuracy: A / A of the whole set. Recovered gap: (A − A of random) / (A of whole − A of random), – where "
    "the two are not told apart. In brackets Fieller's 95 % intervals, with the units of evidence that the tables of "
    "accuracy have. Both depend on the protocol's budget for the whole set.",
    "Random IPC as good: images per class at which random subsets reach the result, read from their means, made not to "
    "fall, on a line over log IPC; in brackets the 95 % interval from Student's t of all means. < and >: outside it.",
)


def parts(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> list[Part]:
    """A table of results, and the commands that make what they lack."""
    made = []
    lines, reasons = [], dict[str, list[str]]()
    for cell, standing in _standings(board):
        score = cell.scores[0]
        ipc = "" if score.ipc is None else f" IPC {score.ipc}"
        name = display(f"{score.method}, {score.dataset}{ipc}")
        place = TableEntry(display(score.network)), TableEntry(display(score.protocol))
        lines.append((name, [*place, *entries(standing)]))
        for label, reason in (
            ("Relative accuracy", standing.relative.reason),
            ("Recovered gap", standing.recovered.reason),
            ("Random IPC", standing.size.reason),
        ):
            if reason:
                reasons.setdefault(f"{label}: {reason}", []).append(name)
    if lines:
        why = [f"{reason} ({_few(names)})." for reason, names in reasons.items()]
        made.append(Part("Between random and whole", HEAD, lines, [*NOTES, *why]))
    if missing := board.baselines.missing:
        commands = [
            (display(f"{one.what} ({one.where}; {one.there} there)", 400), display(one.command or NO_COMMAND, 2000))
            for one in missing
        ]
        made.append(Part("Missing beside these results", commands=commands))
    return made


def records(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> Records:
    """One for each result, fractions unrounded; then one for each missing baseline, with its command."""
    head = [*AXES, "relative_accuracy", "relative_low", "relative_high", "recovered_gap", "recovered_low"]
    head += ["recovered_high", "random_size", "random_size_low", "random_size_high", "curve", "reasons"]
    head += ["missing", "where", "there", "command"]
    lines: list[list[str | float | None]] = []
    for cell, found in _standings(board):
        score, size = cell.scores[0], found.size
        reasons = dict.fromkeys(filter(None, (found.relative.reason, found.recovered.reason, size.reason)))
        lines.append(
            [
                *(getattr(score, axis) for axis in AXES),
                *(found.relative.value, *(found.relative.interval or (None, None))),
                *(found.recovered.value, *(found.recovered.interval or (None, None))),
                *(_end(value, size.curve) for value in (size.value, size.low, size.high)),
                " ".join(map(str, size.curve)),
                "; ".join(reasons),
                *[None] * 4,
            ]
        )
    empty = [None] * (len(head) - 4)
    lines += [[*empty, one.what, one.where, one.there, one.command] for one in board.baselines.missing]
    return Records(head, lines)


def _end(value: float | None, curve: Sequence[int]) -> float | str | None:
    """An IPC, or beyond which end of the curve it is."""
    if value is None or not curve:
        return None
    return f"< {curve[0]}" if value == 0 else f"> {curve[-1]}" if value == float("inf") else value


def _standings(board: Leaderboard) -> Iterator[tuple[Cell, Standing]]:
    """The results of all tables, each once."""
    for table in board.tables:
        for row in table.rows:
            for column in table.columns:
                cell = table.cells.get((row, column))
                found = None if cell is None else board.baselines.standing(cell)
                if cell is not None and found is not None:
                    yield cell, found


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return ", ".join(names[:FEW]) + more


SECTION = Section(
    "how far results are between random and whole, and the commands that make what is missing", parts, records
)
