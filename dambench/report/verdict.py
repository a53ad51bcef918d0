"""Verdicts in words: what a table, or a comparison, does and does not show."""

from collections.abc import Mapping, Sequence

from dambench.core.sanitize import counted, display
from dambench.report import names, wording
from dambench.store.cells import Cell, CellKey, Key
from dambench.store.leaderboard import Leaderboard, Table, alike
from dambench.store.metrics import ACCURACY
from dambench.store.ranking import competes, rank
from dambench.store.statistics import ENOUGH
from dambench.store.transfer import CrossArchitecture

COARSE = 0.001
"""The share of the test set from which one image is worth a digit that tables print, a tenth of a point."""

MOST_PLACES = 6
"""Places that one outcome names, of those that share it."""


def notes(board: Leaderboard, table: Table, rows: Sequence[str], columns: Sequence[str]) -> list[str]:
    """All sentences below a table: its verdict first."""
    return [*filter(None, [verdict(table, rows, columns)]), *remarks(board, table)]


def remarks(board: Leaderboard, table: Table) -> list[str]:
    """The sentences below a table without its verdict."""
    unseen = [note for result in table.transfer for note in unseen_notes(result)]
    return [*table.notes, *unseen, *coarse_notes(board, table)]


def verdict(table: Table, rows: Sequence[str], columns: Sequence[str]) -> str:
    """Say in one sentence which method is best where, or why that cannot be said; empty: no methods are compared."""
    if "method" not in (*rows, *columns):
        return ""
    outcomes: dict[str, list[str]] = {}
    order = {place: number for number, place in enumerate((r, c) for c in table.columns for r in table.rows)}
    groups = alike(table, rows, columns).items()
    for shared, cells in sorted(groups, key=lambda group: min(order.get(place, len(order)) for place in group[1])):
        if text := outcome(cells):
            outcomes.setdefault(text, []).append(" ".join(map(names.of_any, shared)))
    if not outcomes:
        return ""
    return f"Verdict: {'; '.join(f'{_at(places)}{text}' for text, places in outcomes.items())}."


def _at(places: Sequence[str]) -> str:
    named = [display(place) for place in places[:MOST_PLACES] if place]
    if not named:
        return ""
    more = [f"{len(places) - MOST_PLACES} more"] if len(places) > MOST_PLACES else []
    return f"at {wording.listed([*named, *more])}, "


def outcome(cells: Mapping[CellKey, Cell]) -> str:
    """Say which of some cells is best that differ in nothing but the method; empty: there is one, or none."""
    methods = {place: cell for place, cell in cells.items() if cell.scores[0].base_method != "whole"}
    if len(methods) < 2:
        return ""
    competing = [place for place, cell in methods.items() if competes(cell)]
    mute = len(methods) - len(competing)
    ranking = rank(cells)
    if ranking is None:
        if not competing:
            return f"no method can be called better: each has fewer than {ENOUGH} sets"
        only = _names(methods, competing)
        return f"no method can be called better: {only} alone has the {ENOUGH} sets that it takes"
    others = [place for place in competing if place not in ranking.level]
    level = [ranking.best, *(place for place in competing if place in ranking.level and place != ranking.best)]
    best = _names(methods, level[:1])
    if len(level) == 1:
        text = (
            f"{best} is best, told from {_names(methods, others) if len(others) < 3 else f'all {len(others)} others'}"
        )
    elif not others and len(level) == 2:
        text = f"{_names(methods, level)} cannot be told apart"
    else:
        text = f"{best} has the best mean, and {_names(methods, level[1:])} cannot be told from it"
    return text + (f" (no claim about {counted(mute, 'other')} of fewer than {ENOUGH} sets)" if mute else "")


def _names(cells: Mapping[CellKey, Cell], places: Sequence[CellKey]) -> str:
    return wording.listed([display(names.of("method", cells[place].scores[0].method), 80) for place in places])


def coarse_notes(board: Leaderboard, table: Table) -> list[str]:
    """Say of each dataset of a table what one test image is worth, where that is much."""
    if board.metric != ACCURACY:
        return []
    shown = {score.dataset for cell in table.cells.values() for score in cell.scores}
    return [
        text
        for name, images in sorted(board.test_images.items())
        if name in shown and (text := coarse(images, display(names.of("dataset", name))))
    ]


def coarse(images: int, dataset: str = "") -> str:
    """`digits: 450 test images, so that one is worth 0.22 points.`; empty: it is worth less than 0.1."""
    if images < 1 or 1 / images < COARSE:
        return ""
    about = f"{dataset}: " if dataset else ""
    return f"{about}{counted(images, 'test image')}, so that one is worth {100 / images:.2g} points."


def unseen_notes(result: CrossArchitecture) -> list[str]:
    """Tell over which networks and sets the figures on unseen networks are."""
    sources = _networks(result.sources)
    if not result.unseen:
        return [f"Unseen: none; no network has a score of each row but those matched on ({wording.SOURCE}: {sources})."]
    notes = [f"Unseen: {_networks(result.unseen)}; matched on ({wording.SOURCE}): {sources}."]
    for network, lacking in result.lacking.items():
        rows = wording.listed([_row(row) for row in lacking])
        verb = "lacks" if len(lacking) == 1 else "lack"
        notes.append(f"{_networks([network])} is left out of the figures on unseen networks: {rows} {verb} it.")
    for key, row in result.rows.items():
        if row.missing_sets:
            of = counted(row.sets + row.missing_sets, "set")
            notes.append(
                f"{_row(key)}: unseen over {row.sets} of {of}, the others were not tried on all these networks."
            )
    return notes


def _row(row: Key) -> str:
    return display(" ".join(names.of("method", part) for part in row if part))


def _networks(networks: Sequence[str]) -> str:
    return wording.listed([wording.name(["network"], (network,)) for network in networks])
