"""Rank correlations: how far two networks put the methods into the same order."""

from collections.abc import Sequence

from dambench.report import wording
from dambench.report.parts import Part, Records, Section
from dambench.report.sections.cross_architecture import NetworkPlace, places
from dambench.report.wording import MISSING, TableEntry
from dambench.store.leaderboard import Leaderboard
from dambench.store.transfer import FEWEST_METHODS, CrossArchitecture, RankCorrelation, cross_architecture


def parts(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> list[Part]:
    """A triangle of networks at each place with methods enough."""
    return [part for place in places(board) for part in _part(place, cross_architecture(place.cells, place.networks))]


def _part(place: NetworkPlace, result: CrossArchitecture) -> list[Part]:
    """The rank correlations as a triangle; none where no two networks have methods enough."""
    if not any(one.spearman is not None for one in result.correlations.values()):
        return []
    others = place.networks[1:]
    lines = [
        (
            wording.name(["network"], (network,)),
            [
                _rank(result.correlations[network, other])
                if (network, other) in result.correlations
                else TableEntry("")
                for other in others
            ],
        )
        for network in place.networks[:-1]
    ]
    most = max(one.methods for one in result.correlations.values())
    notes = [
        "Spearman's rank correlation of the methods' means / Kendall's tau-b (n methods); "
        f"{MISSING}: fewer than {FEWEST_METHODS} methods, or all level. The whole set has no part."
    ]
    if most < 10:
        notes.append(
            "Of so few methods it says little: by chance 4 have the same order, or the opposite one, with p 0.083, "
            "of 5 with 0.017."
        )
    return [
        Part(
            f"Order of methods between networks: {place.title}",
            ["", *(wording.name(["network"], (network,)) for network in others)],
            lines,
            notes,
        )
    ]


def _rank(one: RankCorrelation) -> TableEntry:
    shown = [MISSING if value is None else f"{value:.2f}" for value in (one.spearman, one.kendall)]
    return TableEntry(MISSING if shown == [MISSING, MISSING] else " / ".join(shown), str(one.methods))


def records(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> Records:
    """One for each place and pair of networks."""
    head = ["dataset", "ipc", "protocol", "network", "other_network", "spearman", "kendall", "methods"]
    lines = []
    for place in places(board):
        for pair, one in cross_architecture(place.cells, place.networks).correlations.items():
            lines.append([place.dataset, place.ipc, place.protocol, *pair, one.spearman, one.kendall, one.methods])
    return Records(head, lines)


SECTION = Section("how far networks agree on the order of the methods", parts, records)
