"""What papers print, beside what was measured: the gap, and what makes the two not comparable."""

from collections.abc import Iterator, Sequence
from typing import Any

from dambench.core.errors import BadInput
from dambench.core.sanitize import display
from dambench.published.beside import Comparable, beside, closest
from dambench.report import names, wording
from dambench.report.parts import Part, Records, Section
from dambench.report.wording import TableEntry
from dambench.store.cells import Cell
from dambench.store.leaderboard import AXES, Leaderboard
from dambench.store.metrics import ACCURACY

MOST_TEXT = 400
FEW = 8
"""Cells that are named one by one."""


def parts(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> list[Part]:
    """One table: a line for each cell of which a published figure is known."""
    lines: list[tuple[str, list[TableEntry]]] = []
    sources: dict[str, int] = {}
    reasons: dict[str, list[str]] = {}
    others: list[str] = []
    unknown: list[str] = []
    for cell, some in _cells(board):
        name = _name(cell)
        if not some:
            unknown.append(name)
            continue
        first = some[0]
        value = first.value
        number = sources.setdefault(value.source, len(sources) + 1)
        mark = " (recalled)" if value.recalled else ""
        score = cell.scores[0]
        lines.append(
            (
                name,
                [
                    TableEntry(display(names.of("network", score.network))),
                    TableEntry(display(names.of("protocol", score.protocol))),
                    TableEntry(f"{value.text}{mark} [{number}]"),
                    wording.entry(cell),
                    TableEntry(f"{first.gap:+.1f}"),
                    TableEntry(first.differs_in),
                ],
            )
        )
        reasons.setdefault(first.why, []).append(name)
        others += [f"{name}: {text}" for text in _others(some)]
    if not lines:
        return []
    notes = [f"{_few(same)}: {display(why, MOST_TEXT)}." for why, same in reasons.items()]
    notes += [f"[{number}] {display(source, MOST_TEXT)}." for source, number in sources.items()]
    notes += [f"Also printed for {display(text, MOST_TEXT)}." for text in others]
    if unknown:
        notes.append(f"No published accuracy is known of {_few(unknown)}.")
    return [
        Part(
            title="Published beside measured",
            head=["method", "trained network", "protocol", "published", "here", "gap", "differs in"],
            lines=lines,
            text="Accuracy in % as papers print it, beside what was measured here; gap: here minus published, in "
            "points. A paper's ± is its standard deviation, ours half of the 95 % interval. A gap says something about "
            "the method only where nothing differs; ?: not stated.",
            notes=notes,
        )
    ]


def records(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> Records:
    """One for each cell and published figure, the closest first, in fractions."""
    head = [
        *(
            *AXES,
            "mean",
            "low",
            "high",
            "sets",
            "networks",
            "published",
            "published_std",
            "gap",
            "closest",
            "not_comparable_because",
        ),
        *("not_stated", "published_n", "paper", "table", "where", "recalled", "rerun", "published_protocol"),
        *("published_network", "published_labels", "published_selection", "published_preprocessing", "variant", "note"),
    ]
    lines: list[list[Any]] = []
    for cell, some in _cells(board):
        score = cell.scores[0]
        nearest = closest(some, score.network) if some else []
        for each in some:
            value = each.value
            lines.append(
                [
                    *(getattr(score, axis) for axis in AXES),
                    *(cell.mean, *(cell.interval or (None, None)), cell.sets, cell.networks),
                    *(value.value / 100, None if value.std is None else value.std / 100, each.gap / 100),
                    int(each in nearest),
                    "; ".join(deviation.text for deviation in each.deviations),
                    ", ".join(each.unstated),
                    *(value.n, value.paper, value.table, value.where, int(value.recalled), int(value.rerun)),
                    *(value.protocol, value.network, value.labels, value.selection, value.preprocessing),
                    *(value.variant, value.note),
                ]
            )
    return Records(head, lines)


def line(board: Leaderboard, cell: Cell) -> str:
    """The sentence beside one cell of accuracies; empty: no published figure is known."""
    if board.metric != ACCURACY:
        return ""
    try:
        some = beside(cell, {protocol.label: protocol for protocol in board.protocols})
    except BadInput as error:  # a screen goes on without them
        return display(str(error), MOST_TEXT)
    if not some:
        return ""
    first = some[0]
    mark = " (recalled)" if first.value.recalled else ""
    return display(
        f"published {first.value.text}{mark}, {first.value.paper}; gap {first.gap:+.1f}; {first.why}", MOST_TEXT
    )


def _cells(board: Leaderboard) -> Iterator[tuple[Cell, list[Comparable]]]:
    """Each cell once, with what was published of it. The whole set stands in several columns, and is one cell."""
    if board.metric != ACCURACY:
        return
    protocols = {protocol.label: protocol for protocol in board.protocols}
    seen = set()
    for table in board.tables:
        for row in table.rows:
            for column in table.columns:
                cell = table.cells.get((row, column))
                if cell is None:
                    continue
                key = tuple(getattr(cell.scores[0], axis) for axis in AXES)
                if key not in seen:
                    seen.add(key)
                    yield cell, beside(cell, protocols)


def _name(cell: Cell) -> str:
    score = cell.scores[0]
    ipc = "" if score.ipc is None else f" {names.shown('ipc', score.ipc)}"
    return display(f"{names.of('method', score.method)}, {names.of('dataset', score.dataset)}{ipc}")


def _others(some: list[Comparable]) -> Iterator[str]:
    """Other figures for the same network that say something else."""
    first = some[0].value
    said = {first.value}
    for each in some[1:]:
        value = each.value
        if value.network == first.network and value.value not in said:
            said.add(value.value)
            variant = f" ({value.variant})" if value.variant else ""
            yield f"{value.text}{variant} by {value.source}, gap {each.gap:+.1f}"


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return "; ".join(names[:FEW]) + more


SECTION = Section("what papers print, beside what was measured", parts, records)
