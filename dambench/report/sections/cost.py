"""What each method took: seconds and memory of distilling, and of training a network on the set."""

from collections.abc import Iterator, Sequence
from dataclasses import fields

from dambench.core.sanitize import display
from dambench.core.units import duration, energy, size
from dambench.report import names
from dambench.report.parts import Part, Records, Section
from dambench.report.wording import MISSING, TableEntry
from dambench.store.costs import MethodCost
from dambench.store.leaderboard import Leaderboard

SHARED = "§"


def parts(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> list[Part]:
    """One table."""
    if not board.costs:
        return []
    experts = any(cost.experts_used for cost in board.costs)
    joules = ["energy"] if any(_is_metered(cost) for cost in board.costs) else []
    head = ["method", "dataset", "runs", *(["experts"] if experts else []), "distil", "peak", *joules]
    head += ["trained network", "protocol", "each", "peak", *joules, "device"]
    lines = [
        (
            display(names.of("method", cost.method)),
            [TableEntry(text) for text in _texts(cost, experts=experts, metered=bool(joules))],
        )
        for cost in board.costs
    ]
    return [Part("What it took", head, lines, list(_notes(board.costs)))]


def _texts(cost: MethodCost, *, experts: bool, metered: bool) -> list[str]:
    ipc = "" if cost.ipc is None else f" {names.shown('ipc', cost.ipc)}"
    return [
        display(f"{names.of('dataset', cost.dataset)}{ipc}"),
        str(cost.runs),
        *([_experts(cost)] if experts else []),
        MISSING if cost.distil_seconds is None else duration(cost.distil_seconds),
        size(cost.distil_peak_bytes) if cost.distil_peak_bytes else MISSING,
        *([_energy(cost.distil_joules, cost.shared)] if metered else []),
        display(names.of("network", cost.network)),
        display(names.of("protocol", cost.protocol)),
        duration(cost.evaluate_seconds),
        size(cost.evaluate_peak_bytes) if cost.evaluate_peak_bytes else MISSING,
        *([_energy(cost.evaluate_joules, cost.shared)] if metered else []),
        display(cost.device),
    ]


def _is_metered(cost: MethodCost) -> bool:
    return cost.distil_joules is not None or cost.evaluate_joules is not None


def _energy(joules: float | None, shared: bool | None) -> str:
    return MISSING if joules is None else energy(joules) + (" (shared)" if shared else "")


def _experts(cost: MethodCost) -> str:
    """`12 min 3 s`, `12 min 3 s §` where only some runs trained them, `§` where none did."""
    if not cost.experts_used:
        return MISSING
    mark = SHARED if cost.experts_trained < cost.experts_used else ""
    return " ".join(filter(None, (duration(cost.experts_seconds) if cost.experts_trained else "", mark)))


def _notes(costs: Sequence[MethodCost]) -> Iterator[str]:
    if any(cost.experts_used for cost in costs):
        yield (
            "experts: the most that one run took to train those it needed. It is part of what a set costs, and not in "
            "the time to distil."
        )
    if any(_is_metered(cost) for cost in costs):
        yield (
            "energy: of the GPU's whole board, idle power included, median over runs: of distilling, then of each "
            "network. (shared): other processes used the GPU, and it is theirs, too."
        )
    if any(cost.experts_trained < cost.experts_used for cost in costs):
        yield (
            f"{SHARED}: shared. Some of these runs, or all, found experts that were trained before, by a run with the "
            "same settings for them or by `dambench experts train`: their time is there, and counts once."
        )


def records(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> Records:
    """One for each method, column, trained network and device."""
    names = [field.name for field in fields(MethodCost)]
    return Records(names, [[getattr(cost, name) for name in names] for cost in board.costs])


SECTION = Section("what each method took in seconds and memory", parts, records)
