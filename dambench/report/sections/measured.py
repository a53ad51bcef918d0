"""What evaluators other than of accuracy have measured: methods side by side, a line for each metric."""

import json
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from dambench.core.sanitize import display
from dambench.report import labels, names, wording
from dambench.report.parts import Part, Records, Section, finite
from dambench.report.sections.runs import runs_of
from dambench.report.wording import TableEntry
from dambench.store.leaderboard import Leaderboard
from dambench.store.measured import MOST_SUBJECTS, MeasuredPlace
from dambench.store.metrics import MetricRow
from dambench.store.statistics import ENOUGH

MOST_RUNS = 6
"""Runs that are named in a command."""
MOST_LINES = 60
"""Lines of a table of several subjects; where there would be more, each network has a table."""


def parts(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> list[Part]:
    """A table for each evaluator and place, with the subjects that are few; of many subjects a sentence."""
    written = []
    for places in _by_place(board.measured):
        few, many = _few_and_many(places)
        tables = [few] if len(_lines_of(few)) <= MOST_LINES else _by_network(few)
        written += [_table(table) for table in tables if table]
        written += [_of_many(group) for group in many]
    return written


def _by_place(places: Sequence[MeasuredPlace]) -> list[list[MeasuredPlace]]:
    """The places that differ in the subject alone."""
    groups: dict[tuple[str | int | None, ...], list[MeasuredPlace]] = {}
    for place in places:
        where = (place.evaluator, place.dataset, place.ipc, place.protocol, json.dumps(place.options))
        groups.setdefault(where, []).append(place)
    return list(groups.values())


def _few_and_many(places: Sequence[MeasuredPlace]) -> tuple[list[MeasuredPlace], list[list[MeasuredPlace]]]:
    """Part the subjects of a place: those of which each is worth lines, and groups of too many of one kind, as networks
    that were ranked, to which belong those that have a part of their metrics, such as networks that cannot be built."""
    kinds: dict[frozenset[str], list[MeasuredPlace]] = {}
    for place in places:
        kinds.setdefault(frozenset(metric.name for metric in place.metrics), []).append(place)
    many = {kind: group for kind, group in kinds.items() if len(group) > MOST_SUBJECTS}
    few: list[MeasuredPlace] = []
    for kind, group in kinds.items():
        if kind in many:
            continue
        larger = next((other for other in many if kind < other), None)
        if larger is None:
            few += group
        else:
            many[larger] += group
    return few, list(many.values())


def _by_network(places: Sequence[MeasuredPlace]) -> list[list[MeasuredPlace]]:
    """Subjects with those whose name begins with theirs: `mlp` and `mlp step 1/5`."""
    subjects = {place.subject for place in places}
    groups: dict[str, list[MeasuredPlace]] = {}
    for place in places:
        of = next((one for one in subjects if place.subject.startswith(f"{one} ")), place.subject)
        groups.setdefault(of, []).append(place)
    return list(groups.values())


def _title(places: Sequence[MeasuredPlace], *, subject: str = "") -> str:
    place = places[0]
    ipc = "" if place.ipc is None else f" {names.shown('ipc', place.ipc)}"
    where = f"{names.of('dataset', place.dataset)}{ipc}, protocol {names.of('protocol', place.protocol)}"
    others = "".join(
        f", {labels.option_in_words(place.evaluator, name, value)}" for name, value in place.options.items()
    )
    return display(f"{labels.evaluator_name(place.evaluator)}: {where}{subject}{others}", 300)


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _given(place: MeasuredPlace) -> str:
    """The words of a command that ask for the evaluator's options of a place."""
    return "".join(
        f" --set {shlex.quote(f'evaluator.{name}={_written(value)}')}" for name, value in place.options.items()
    )


class _MetricLine(NamedTuple):
    """A line of a table: a metric of a subject."""

    place: MeasuredPlace
    metric: MetricRow
    ends: tuple[MetricRow, MetricRow] | None
    """The ends of the interval that was measured with it."""


def _lines_of(places: Sequence[MeasuredPlace]) -> list[_MetricLine]:
    """The lines of a table, those of one metric together; the ends of intervals stand with what they are of."""
    lines = []
    for place in places:
        by_name = {metric.name: metric for metric in place.metrics}
        ends = {
            name: (by_name[f"{name}_low"], by_name[f"{name}_high"])
            for name in by_name
            if f"{name}_low" in by_name and f"{name}_high" in by_name
        }
        hidden = {end.name for both in ends.values() for end in both}
        lines += [_MetricLine(place, metric, ends.get(name)) for name, metric in by_name.items() if name not in hidden]

    def turn(line: _MetricLine) -> tuple[object, ...]:
        return labels.place_of(line.metric), labels.subject_place(line.place.evaluator, line.place.subject)

    found: list[_MetricLine] = []
    for line in sorted(lines, key=turn):
        if not any(_says_the_same(line, other) for other in found):
            found.append(line)
    return found


def _says_the_same(line: _MetricLine, other: _MetricLine) -> bool:
    """Whether two lines are a count that is the same of both subjects, as k."""
    if line.metric != other.metric or labels.KINDS.get(line.metric.full_name) != labels.COUNT:
        return False
    mine, theirs = (
        {method: cells[line.metric.name].mean for method, cells in one.place.cells.items() if line.metric.name in cells}
        for one in (line, other)
    )
    return mine == theirs


def _entry(line: _MetricLine, method: str) -> TableEntry:
    """A cell; of one network on one set with the interval that was measured with it."""
    cells = line.place.cells.get(method, {})
    cell = cells.get(line.metric.name)
    if cell is None:
        return TableEntry(wording.MISSING)
    plain = wording.entry(cell)
    if line.ends is None or cell.networks > 1:
        return plain
    low, high = (cells.get(end.name) for end in line.ends)
    if low is None or high is None:
        return plain
    written = [wording.figure(line.metric, one.mean) for one in (cell, low, high)]
    return TableEntry("{} ({} to {})".format(*written), plain.n)


def _table(places: Sequence[MeasuredPlace]) -> Part:
    place = places[0]
    found = _lines_of(places)
    methods = list(dict.fromkeys(name for one in places for name in one.cells))
    network = _network_of(places)
    several = {name for name, count in Counter(line.metric.name for line in found).items() if count > 1}
    lines = []
    for line in found:
        subject = line.place.subject
        rest = subject.removeprefix(f"{network} ") if network and subject != network else subject
        rest = labels.subject_name(place.evaluator, names.of("network", rest))
        suffix = f", {rest}" if line.metric.name in several and subject != network else ""
        lines.append((wording.metric_label(line.metric) + suffix, [_entry(line, method) for method in methods]))
    head = ["", *(wording.name(["method"], (method,)) for method in methods)]
    title = _title(places, subject=f", {names.of('network', network)}" if network else "")
    return Part(title, head, lines, _notes(places, found), _commands(places))


def _network_of(places: Sequence[MeasuredPlace]) -> str:
    """The network that a table is about, or the only subject; empty: it is about several."""
    subjects = [place.subject for place in places]
    bases = [one for one in subjects if all(one == other or other.startswith(f"{one} ") for other in subjects)]
    networks = [one for one in subjects if any(other.startswith(f"{one} ") for other in subjects)]
    return bases[0] if bases else networks[0] if len(networks) == 1 else ""


def _notes(places: Sequence[MeasuredPlace], lines: Sequence[_MetricLine]) -> list[str]:
    notes = [f"Cells are {wording.SHORT}. What each line is says `--sections measured --format csv`."]
    cells = [cell for place in places for by_metric in place.cells.values() for cell in by_metric.values()]
    if any(line.ends for line in lines):
        notes.append("(a to b): of one network on one set, the 95 % interval that was measured with it.")
    if any(cell.unit == "network" for cell in cells):
        notes.append(f"{wording.ONLY}: this set only, ± is over its networks.")
    if lower := [line.metric for line in lines if line.metric.better == "lower" and line.metric.name != "status"]:
        named = dict.fromkeys(wording.metric_label(metric) for metric in lower if metric.unit != "seconds")
        times = ["all seconds"] if any(metric.unit == "seconds" for metric in lower) else []
        notes.append(f"Lower is better of {wording.listed([*times, *named])}.")
    if few := list(dict.fromkeys(name for place in places for name in place.few)):
        notes.append(f"Fewer than {ENOUGH} sets make no claim: {display(wording.listed(few))}.")
    absent = dict.fromkeys(one.what for place in places for one in place.missing if not one.runs)
    if absent:
        notes.append(
            f"{wording.capitalised(wording.listed([display(name) for name in absent]))} "
            f"{'is' if len(absent) == 1 else 'are'} missing: there is no such run under this protocol yet."
        )
    return notes


def _commands(places: Sequence[MeasuredPlace]) -> list[tuple[str, str]]:
    """What measures the sets that are not measured yet, as the others were."""
    commands = []
    for place in places:
        commands += [
            (
                f"measures {display(one.what)}",
                f"dambench evaluate {' '.join(one.runs[:MOST_RUNS])} --evaluator {place.evaluator}"
                f"{''.join(f' {shlex.quote(word)}' for word in one.words)}{_given(place)}",
            )
            for one in place.missing
            if one.runs
        ]
    return list(dict.fromkeys(commands))


def _of_many(places: Sequence[MeasuredPlace]) -> Part:
    """Say of many subjects how many there are, and what they came to where that is in words."""
    first, last = (labels.subject_name(place.evaluator, place.subject) for place in (places[0], places[-1]))
    notes = [
        f"{len(places)} subjects were measured, {first} to {last}: `--sections measured --format csv` has each, and "
        "`dambench show ID`."
    ]
    in_words = {metric for place in places for metric in place.metrics if labels.label_of(metric).words}
    for metric in sorted(in_words, key=labels.place_of):
        label = labels.label_of(metric)
        methods = dict.fromkeys(name for place in places for name in place.cells)
        for method in methods:
            counts = Counter(
                score.values[metric.name]
                for place in places
                if (cell := place.cells.get(method, {}).get(metric.name)) is not None
                for score in cell.scores
                if metric.name in score.values
            )
            words = [f"{count} {label.words.get(value, wording.MISSING)}" for value, count in sorted(counts.items())]
            notes.append(f"{label.text}, {display(method)}: {wording.listed(words)}.")
    return Part(_title(places), notes=notes)


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
