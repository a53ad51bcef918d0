"""The sections that a report can have, a file each. Formats write them without knowing what they are about."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from dambench.core.errors import BadInput, named
from dambench.core.sanitize import display
from dambench.report import names
from dambench.report.parts import Part, Section
from dambench.report.sections import (
    accuracy,
    baselines,
    condensed,
    cost,
    cross_architecture,
    groups,
    measured,
    published,
    rank_correlation,
    runs,
    scores,
    selection,
    size,
    summary,
)
from dambench.store.leaderboard import Leaderboard

SECTIONS: dict[str, Section] = {
    "summary": summary.SECTION,
    "accuracy": accuracy.SECTION,
    "baselines": baselines.SECTION,
    "cross-architecture": cross_architecture.SECTION,
    "rank-correlation": rank_correlation.SECTION,
    "measured": measured.SECTION,
    "published": published.SECTION,
    "selection": selection.SECTION,
    "condensed": condensed.SECTION,
    "cost": cost.SECTION,
    "size": size.SECTION,
    "scores": scores.SECTION,
    "runs": runs.SECTION,
    "groups": groups.SECTION,
}
"""In the order in which a report has them."""

ALL = "all"


def read(text: str) -> tuple[str, ...]:
    """The sections that are asked for, as `accuracy,cost` or `all`, in a report's order; empty: the usual ones.

    Raises:
        BadInput: one is unknown, or there twice.
    """
    if text.strip().lower() == ALL:
        return tuple(SECTIONS)
    names = [named("section", part.strip(), SECTIONS) for part in text.split(",") if part.strip()]
    if text.strip() and (not names or len(set(names)) < len(names)):
        raise BadInput(f"--sections {display(text, 60)!r}: each is named once, of {', '.join(SECTIONS)}, or {ALL}.")
    return tuple(name for name in SECTIONS if name in names)


def parts(board: Leaderboard, rows: Sequence[str], columns: Sequence[str], *, short: bool = False) -> list[Part]:
    """The parts of the report that is asked for, in its order.

    Args:
        short: the tables of accuracy alone.
    """
    chosen = ("accuracy",) if short else board.sections or usual()
    return _named((name, part) for name in chosen for part in SECTIONS[name].parts(board, rows, columns))


def _named(made: Iterable[tuple[str, Part]]) -> list[Part]:
    """Give parts the captions and labels that the names of the report ask for. No label is there twice."""
    parts, labels = [], Counter[str]()
    for section, part in made:
        title, usual = part.title, part.caption or part.title
        caption = names.caption(section, title, usual)
        if caption != usual:
            part = replace(part, title=caption, caption=caption)
        if part.head and (label := names.label("tab", section, title)):
            labels[label] += 1
            part = replace(part, label=label if labels[label] == 1 else f"{label}-{labels[label]}")
        parts.append(part)
    return parts


def usual() -> tuple[str, ...]:
    return tuple(name for name, section in SECTIONS.items() if section.usual)
