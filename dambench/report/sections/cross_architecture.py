"""Cross-architecture results: how sets serve networks that no method was matched on."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dambench.core.sanitize import display
from dambench.report import names, verdict, wording
from dambench.report.parts import Part, Records, Section, finite
from dambench.report.sections.runs import runs_of
from dambench.report.wording import MISSING, TableEntry
from dambench.store.cells import Cell, Key, Score, order
from dambench.store.leaderboard import Leaderboard
from dambench.store.metrics import MetricRow
from dambench.store.transfer import cross_architecture


class NetworkPlace(NamedTuple):
    """One dataset, IPC and protocol, with its methods over networks."""

    dataset: str
    ipc: int | None
    protocol: str
    networks: list[str]
    cells: dict[Key, dict[str, Cell]]
    """By method."""

    @property
    def title(self) -> str:
        ipc = "" if self.ipc is None else f" {names.shown('ipc', self.ipc)}"
        return display(f"{names.of('dataset', self.dataset)}{ipc}, protocol {names.of('protocol', self.protocol)}")


def places(board: Leaderboard) -> list[NetworkPlace]:
    """All places at which networks can be compared: there is more than one. The whole set is at each IPC."""
    groups: dict[tuple[str, str], dict[int | None, list[Score]]] = {}
    for score in board.scores:
        groups.setdefault((score.dataset, score.protocol), {}).setdefault(score.ipc, []).append(score)
    found = []
    for (dataset, protocol), by_ipc in sorted(groups.items()):
        whole = by_ipc.pop(None, [])
        for ipc, scores in sorted(by_ipc.items()) or [(None, [])]:
            here = [*scores, *whole]
            source = {score.network for score in here if score.source}
            networks = sorted({score.network for score in here}, key=lambda network: (network not in source, network))
            if len(networks) > 1:
                found.append(NetworkPlace(dataset, ipc, protocol, networks, _by_method(here, board.metric)))
    return found


def _by_method(scores: Sequence[Score], metric: MetricRow) -> dict[Key, dict[str, Cell]]:
    groups: dict[str, dict[str, list[Score]]] = {}
    for score in scores:
        groups.setdefault(score.method, {}).setdefault(score.network, []).append(score)
    return {
        (method,): {network: Cell(tuple(mine), metric) for network, mine in groups[method].items()}
        for method in sorted(groups, key=lambda method: order(("method",), (method,)))
    }


def parts(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> list[Part]:
    """A table of methods over networks at each place; none where the tables of accuracy are these."""
    if (tuple(rows), tuple(columns)) == (("method",), ("network",)) and "accuracy" in (board.sections or ["accuracy"]):
        return []
    written = []
    for place in places(board):
        result = cross_architecture(place.cells, place.networks)
        lines = [
            (
                wording.name(["method"], (method,)),
                [
                    *(_entry(cells.get(network)) for network in place.networks),
                    *wording.unseen(board.metric, result.rows.get((method,))),
                ],
            )
            for (method,), cells in place.cells.items()
        ]
        head = [names.of_axis("method"), *(wording.name(["network"], (network,)) for network in place.networks)]
        title = f"Cross-architecture: {wording.metric_label(board.metric)}, {place.title}"
        written.append(Part(title, [*head, *wording.UNSEEN], lines, verdict.unseen_notes(result)))
    return written


def _entry(cell: Cell | None) -> TableEntry:
    return TableEntry(MISSING) if cell is None else wording.entry(cell, mark=True)


def records(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> Records:
    """One for each place, method and network; what is over the unseen networks stands on each of the method's."""
    head = ["dataset", "ipc", "protocol", "method", "network", "source", "unseen", board.metric.name, "sets"]
    head += ["networks"]
    head += ["unseen_mean", "unseen_low", "unseen_high", "unseen_std_between_sets", "unseen_sets", "worst"]
    head += ["worst_network", "drop", "runs"]
    return Records(head, list(_lines(board)))


def _lines(board: Leaderboard) -> Iterator[list[object]]:
    for place in places(board):
        result = cross_architecture(place.cells, place.networks)
        for (method,), cells in place.cells.items():
            row = result.rows.get((method,))
            over: list[object] = [None] * 8
            if row is not None:
                over = [row.mean, *(row.interval or (None, None)), row.std, row.sets]
                over += [row.worst, row.worst_network, row.drop]
            for network, cell in cells.items():
                yield [
                    *(place.dataset, place.ipc, place.protocol, method, network),
                    all(score.source for score in cell.scores),
                    network in result.unseen,
                    *(finite(cell.mean), cell.sets, cell.networks),
                    *over,
                    " ".join(runs_of(cell)),
                ]


SECTION = Section("methods over networks, and the networks that no method was matched on", parts, records)
