"""What the tables of a report show, and what they do not, in some sentences made of the data."""

from collections.abc import Iterator, Sequence

from dambench.core.sanitize import counted, display
from dambench.report import names, wording
from dambench.report.parts import Part, Records, Section
from dambench.store.cells import Cell, Key, Score, order
from dambench.store.leaderboard import BASELINES, Leaderboard
from dambench.store.metrics import ACCURACY
from dambench.store.statistics import ENOUGH

MOST_NAMES = 8
"""Names that one sentence lists."""


def parts(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> list[Part]:
    """One paragraph."""
    return [Part("What this shows, and what it does not", text=" ".join(sentences(board)))] if board.scores else []


def records(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> Records:
    """One for each sentence."""
    return Records(["sentence"], [[sentence] for sentence in (sentences(board) if board.scores else ())])


def sentences(board: Leaderboard) -> Iterator[str]:
    """Count what was measured, then name what nothing can be said of."""
    scores = board.scores
    sets = len({score.set_sha256 for score in scores})
    networks = sorted({score.network for score in scores})
    methods = {score.base_method for score in scores} - set(BASELINES)
    datasets = [names.of("dataset", dataset) for dataset in sorted({score.dataset for score in scores})]
    baselines = [names.of("method", name) for name in BASELINES if any(score.base_method == name for score in scores)]
    yield (
        f"{_listed([*([counted(len(methods), 'method')] if methods else []), *baselines])} on {_listed(datasets)}: "
        f"{counted(len(scores), 'trained network')} on {counted(sets, 'set')}, "
        f"from {counted(len({score.run for score in scores}), 'run')}."
    )
    yield protocols(board)
    if board.metric == ACCURACY:
        chosen = any(not one.one_set for one in board.selections.values())
        beside = ", but for what is called test-selected" if chosen else ""
        yield f"Accuracies are of the last epoch, and nothing was selected on the test set{beside}."
    if any(score.base_method == "imported" for score in scores):
        yield "How the imported sets were chosen is not known here."
    if len(networks) == 1:
        yield f"All networks are {display(names.of('network', networks[0]))}: nothing is shown of any other."
    yield from gaps(board)
    if board.left_out:
        yield f"{counted(board.left_out, 'unfinished run')} {'is' if board.left_out == 1 else 'are'} left out."


def protocols(board: Leaderboard) -> str:
    """Name the protocols; of several, say that they are not mixed."""
    shown = [names.of("protocol", protocol) for protocol in sorted({score.protocol for score in board.scores})]
    several = "s" if len(shown) > 1 else ""
    apart = ", which are never in one cell together" if several else ""
    return f"Protocol{several} {_listed(shown)}{apart}."


def gaps(board: Leaderboard) -> Iterator[str]:
    """Name the results that no claim can be made of, and the baselines that nothing can be held against."""
    cells = kinds(board)
    mute = [cell for cell in cells if cell.unit == "set" and not cell.sample.enough]
    if mute and len(mute) == sum(cell.unit == "set" for cell in cells):
        yield f"No method has the {ENOUGH} sets that a claim about it takes: each number is about its sets alone."
    elif mute:
        yield f"Fewer than {ENOUGH} sets, and so no claim about the method: {_listed(_named(mute))}."
    fixed = [cell for cell in cells if cell.unit == "network" and cell.scores[0].base_method != "whole"]
    if fixed:
        yield f"About one set only, which no seed changes or which was imported: {_listed(_named(fixed))}."
    yield from _missing(cells)


def kinds(board: Leaderboard) -> list[Cell]:
    """The scores of each method, dataset, IPC, network and protocol, whatever the axes of the report."""
    groups: dict[Key, list[Score]] = {}
    for score in board.scores:
        key = score.dataset, score.ipc, score.method, score.network, score.protocol
        groups.setdefault(key, []).append(score)
    in_order = sorted(groups, key=lambda key: order(("dataset", "ipc", "method", "network", "protocol"), key))
    # Mostly they are those of the tables, which have their means already.
    known = {id(cell.scores[0]): cell for table in board.tables for cell in table.cells.values()}
    cells = []
    for scores in (tuple(groups[key]) for key in in_order):
        same = known.get(id(scores[0]))
        cells.append(same if same is not None and same.scores == scores else Cell(scores, board.metric))
    return cells


def _named(cells: Sequence[Cell]) -> list[str]:
    """`dc on fashionmnist IPC 1, 10`, each method on each dataset once."""
    sizes: dict[tuple[str, str], set[int]] = {}
    for cell in cells:
        score = cell.scores[0]
        sizes.setdefault((score.method, score.dataset), set()).update([] if score.ipc is None else [score.ipc])
    return [
        f"{names.of('method', method)} on {names.of('dataset', dataset)}"
        + (f" {names.shown('ipc', sorted(ipcs)[0])}{''.join(f', {ipc}' for ipc in sorted(ipcs)[1:])}" if ipcs else "")
        for (method, dataset), ipcs in sizes.items()
    ]


def _missing(cells: Sequence[Cell]) -> Iterator[str]:
    """Name the baselines that nothing can be held against."""
    first = [cell.scores[0] for cell in cells]
    for name in BASELINES:
        there = {
            (s.dataset, s.ipc if name != "whole" else None, s.network, s.protocol)
            for s in first
            if s.base_method == name
        }
        needed = {
            (s.dataset, s.ipc if name != "whole" else None, s.network, s.protocol)
            for s in first
            if s.base_method not in BASELINES
        }
        places = sorted({(dataset, ipc or 0) for dataset, ipc, *_ in needed - there})
        lacking = [
            names.of("dataset", dataset) + (f" {names.shown('ipc', ipc)}" if ipc else "") for dataset, ipc in places
        ]
        if lacking:
            yield f"Without {name}, under the same protocol and on the same network: {_listed(lacking)}."


def _listed(items: Sequence[str]) -> str:
    shown = [display(item, 120) for item in items[:MOST_NAMES]]
    return wording.listed([*shown, *([f"{len(items) - MOST_NAMES} more"] if len(items) > MOST_NAMES else [])])


SECTION = Section("in words, what the tables show and what they do not", parts, records)
