"""What evaluators other than of accuracy have measured: methods side by side, a line for each metric."""

import json
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from dambench.core.sanitize import display
from dambench.report import names, wording
from dambench.report.parts import Part, Records, Section, finite
from dambench.report.sections.runs import runs_of
from dambench.report.wording import MISSING, TableEntry
from dambench.store.leaderboard import Leaderboard
from dambench.store.measured import MOST_SUBJECTS, MeasuredPlace
from dambench.store.statistics import ENOUGH

MOST_RUNS = 6
"""Runs that are named in a command."""


def parts(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> list[Part]:
    """A table for each evaluator, place and subject; of many subjects a sentence."""
    written = []
    for places in _by_table(board.measured):
        first = places[0]
        if len(places) > MOST_SUBJECTS:
            note = (
                f"{len(places)} subjects were measured, {display(first.subject)} to {display(places[-1].subject)}: "
                "`--sections measured --format csv` has each, and `dambench show ID`."
            )
            written.append(Part(_title(first, several=True), notes=[note]))
            continue
        written += [_part(place) for place in places]
    return written


def _by_table(places: Sequence[MeasuredPlace]) -> list[list[MeasuredPlace]]:
    """The places that differ in the subject alone and have the same metrics, or, beside many, some of theirs."""
    groups: dict[tuple[str | int | None, ...], list[MeasuredPlace]] = {}
    for place in places:
        where = (place.evaluator, place.dataset, place.ipc, place.protocol, json.dumps(place.options))
        key = (*where, *(one.name for one in place.metrics))
        groups.setdefault(key, []).append(place)
    for key in list(groups):  # what has a part of the metrics of many, such as networks that cannot be built
        for other, many in groups.items():
            if key[:5] == other[:5] and set(key[5:]) < set(other[5:]) and len(many) > MOST_SUBJECTS:
                many += groups.pop(key)
                break
    return list(groups.values())


def _title(place: MeasuredPlace, *, several: bool = False) -> str:
    ipc = "" if place.ipc is None else f" {names.shown('ipc', place.ipc)}"
    where = f"{names.of('dataset', place.dataset)}{ipc}, protocol {names.of('protocol', place.protocol)}"
    of = "" if several else f", {names.of('network', place.subject)}"
    others = "".join(f", {name} {_written(value)}" for name, value in place.options.items())
    return display(f"{wording.capitalised(place.evaluator)}: {where}{of}{others}", 300)


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _given(place: MeasuredPlace) -> str:
    """The words of a command that ask for the evaluator's options of a place."""
    return "".join(
        f" --set {shlex.quote(f'evaluator.{name}={_written(value)}')}" for name, value in place.options.items()
    )


def _part(place: MeasuredPlace) -> Part:
    methods = list(place.cells)
    lines = []
    for metric in place.metrics:
        cells = [place.cells[method].get(metric.name) for method in methods]
        entries = [TableEntry(MISSING) if cell is None else wording.entry(cell) for cell in cells]
        lines.append((wording.metric_label(metric), entries))
    head = ["", *(wording.name(["method"], (method,)) for method in methods)]
    notes = [f"Cells are {wording.SHORT}. What each line is says `--sections measured --format csv`."]
    if any(cell.unit == "network" for cells in place.cells.values() for cell in cells.values()):
        notes.append(f"{wording.ONLY}: this set only, ± is over its networks.")
    if lower := [metric for metric in place.metrics if metric.better == "lower"]:
        named = [wording.metric_label(metric) for metric in lower if metric.unit != "seconds"]
        times = ["all seconds"] if len(named) < len(lower) else []
        notes.append(f"Lower is better of {wording.listed([*times, *named])}.")
    if few := place.few:
        notes.append(f"Fewer than {ENOUGH} sets make no claim: {display(wording.listed(few))}.")
    absent = [one.what for one in place.missing if not one.runs]
    if absent:
        notes.append(
            f"{wording.capitalised(wording.listed([display(name) for name in absent]))} "
            f"{'is' if len(absent) == 1 else 'are'} missing: there is no such run under this protocol yet."
        )
    commands = [
        (
            f"measures {display(one.what)}",
            f"dambench evaluate {' '.join(one.runs[:MOST_RUNS])} --evaluator {place.evaluator}{_given(place)}",
        )
        for one in place.missing
        if one.runs
    ]
    return Part(_title(place), head, lines, notes, commands)


def records(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> Records:
    """One for each metric, method and subject."""
    head = ["evaluator", "metric", "unit", "better", "description", "method", "dataset", "ipc", "subject", "protocol"]
    head += ["mean", "low", "high", "sets", "networks", "std_between_sets", "std_within_set", "runs"]
    return Records(head, list(_lines(board)))


def _lines(board: Leaderboard) -> Iterator[list[object]]:
    for place in board.measured:
        for metric in place.metrics:
            for method, cells in place.cells.items():
                if (cell := cells.get(metric.name)) is None:
                    continue
                yield [
                    *(metric.evaluator, metric.name, metric.unit, metric.better, metric.description),
                    *(method, place.dataset, place.ipc, place.subject, place.protocol, finite(cell.mean)),
                    *(cell.interval or (None, None)),
                    *(cell.sets, cell.networks, cell.spread.between_std, cell.spread.within_std),
                    " ".join(runs_of(cell)),
                ]


SECTION = Section("what other evaluators than of accuracy have measured", parts, records)
