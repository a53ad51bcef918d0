"""Grouping: scores in a tree, by any key of their runs' configurations, with a mean wherever one means something."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dambench.core.errors import BadInput, unknown
from dambench.core.natural import natural
from dambench.core.sanitize import counted, display
from dambench.store.cells import Cell, Score
from dambench.store.leaderboard import AXES, Leaderboard
from dambench.store.metrics import MetricRow
from dambench.store.runs import Store

OWN = ("seed", "run")
"""Keys that every score has, besides the axes."""

USUAL = ("dataset", "ipc", "method")
"""What runs are grouped by where nobody says."""

UNSET = "–"

SAME = {"method": "method", "dataset": "dataset", "ipc": "IPC", "network": "trained network", "protocol": "protocol"}
"""What all scores of a group must share to have a mean, and what it is called."""

Values = Mapping[str, Mapping[str, str]]
"""By run, its values of all keys of its configuration."""


@dataclass(frozen=True)
class RunGroup:
    """Scores that share the values of some keys."""

    path: tuple[tuple[str, str], ...]
    """Keys and values, from the root."""
    scores: tuple[Score, ...]
    metric: MetricRow
    children: tuple["RunGroup", ...] = ()

    @property
    def value(self) -> str:
        return self.path[-1][1] if self.path else ""

    @property
    def runs(self) -> list[str]:
        """The runs of its scores, by seed."""
        seeds = {score.run: score.seed for score in self.scores}
        return sorted(seeds, key=lambda run: (seeds[run], run))

    @cached_property
    def mixed(self) -> str:
        """What its scores differ in, so that they have no mean: `2 methods, 3 IPCs`; empty: nothing."""
        several = {name: len({getattr(score, axis) for score in self.scores}) for axis, name in SAME.items()}
        said = [counted(count, name) for name, count in several.items() if count > 1]
        if not said and len({(score.settings, score.tested, score.dataset_sha256) for score in self.scores}) > 1:
            said = ["different settings"]
        return ", ".join(said)

    @cached_property
    def cell(self) -> Cell | None:
        """Its scores as a table holds them, sets as the units; None: they are of different things."""
        return None if self.mixed else Cell(self.scores, self.metric)

    def below(self) -> "list[RunGroup]":
        """Itself and all groups in it, each before its own."""
        return [self, *(one for child in self.children for one in child.below())]


def values(store: Store, runs: Sequence[str]) -> Values:
    """The values of all keys of these runs."""
    # Most differ in the seed alone, which is a key of its own: each kind is read once.
    sql = "select id, json_remove(config, '$.seed', '$.protocol') as settings from runs where id in ({})"
    rows = store.query(sql.format("select value from json_each(?)"), json.dumps(list(runs)))
    kinds = {settings: _flat(json.loads(settings)) for settings in {row["settings"] for row in rows}}
    return {row["id"]: kinds[row["settings"]] for row in rows}


def _flat(config: Mapping[str, Any]) -> dict[str, str]:
    """The keys of a configuration, without those that are axes: `method.lr_images`, `matched_on`, `threads`."""
    found = {"matched_on": config.get("network") or UNSET}
    for part in ("dataset", "method"):
        found |= {f"{part}.{name}": value for name, value in (config.get(part) or {}).get("options", {}).items()}
    found |= {name: value for name, value in config.items() if not isinstance(value, dict | list)}
    found |= config.get("where") or {}
    for name in (*AXES, *OWN):
        found.pop(name, None)
    return {name: _text(value) for name, value in found.items()}


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None or value == "":
        return {True: "yes", False: "no"}.get(value, UNSET) if isinstance(value, bool) else UNSET
    return display(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), 80)


def keys(known: Values) -> list[str]:
    """All that these runs can be grouped by."""
    return [*AXES, *OWN, *sorted({name for one in known.values() for name in one}, key=natural)]


def differing(known: Values) -> list[str]:
    """The keys whose values are not the same for all of these runs, and the axes."""
    kinds = list({id(one): one for one in known.values()}.values())
    return [name for name in keys(known) if name in (*AXES, *OWN) or len({one.get(name) for one in kinds}) > 1]


def read(text: str) -> tuple[str, ...]:
    """Keys in their order, as `dataset,method.lr_images`.

    Raises:
        BadInput: none is named, or one twice.
    """
    chosen = tuple(part.strip() for part in text.split(",") if part.strip())
    if not chosen or len(set(chosen)) < len(chosen):
        raise BadInput(f"--group {display(text, 60)!r}: name each key once, such as dataset,ipc,method.lr_images.")
    return chosen


def group(board: Leaderboard, by: Sequence[str], known: Values) -> list[RunGroup]:
    """All scores of a board as a tree by these keys, the first outermost.

    Raises:
        BadInput: no run has such a key.
    """
    for key in by:
        if key not in keys(known):
            raise unknown("key", key, keys(known))
    return list(_children((), board.scores, board.metric, by, known))


def _children(
    path: tuple[tuple[str, str], ...], scores: Sequence[Score], metric: MetricRow, by: Sequence[str], known: Values
) -> tuple[RunGroup, ...]:
    if not by:
        return ()
    groups: dict[str, list[Score]] = {}
    for score in scores:
        own = getattr(score, by[0]) if by[0] in (*AXES, *OWN) else known.get(score.run, {}).get(by[0])
        groups.setdefault(UNSET if own is None or own == "" else display(str(own), 80), []).append(score)
    return tuple(
        RunGroup(
            path=(*path, (by[0], value)),
            scores=tuple(groups[value]),
            metric=metric,
            children=_children((*path, (by[0], value)), groups[value], metric, by[1:], known),
        )
        for value in sorted(groups, key=natural)
    )
