"""Run page: all that the screen of one run shows, read from the database, and its sections as lines of text."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.text import Text

from dambench.core.natural import natural
from dambench.core.sanitize import counted, display
from dambench.core.units import duration, energy, size
from dambench.report import changes, labels
from dambench.report.changes import Changes
from dambench.report.wording import figure, in_words, metric_label
from dambench.store import selection
from dambench.store.metrics import MetricRow
from dambench.store.rows import RunRow, SqlRow
from dambench.store.runs import Store
from dambench.store.statistics import mean, std
from dambench.tui import hints
from dambench.tui.models import request
from dambench.tui.models.curves import OverlayReader
from dambench.tui.models.live_panes import wrapped
from dambench.tui.models.run_reader import RunGone, RunReader, RunSnapshot, read_sheet
from dambench.tui.models.sheet import Sheet

MOST_MEASURED = 60
"""Lines of one evaluator; a table of classes may have a thousand."""


@dataclass(frozen=True)
class RunPage:
    """A run at one moment, and what it is compared with."""

    snapshot: RunSnapshot
    details: Mapping[str, Any]
    """As `Store.describe` gives them, and `selection`, as `selection.by_rule` does."""
    since: Changes | None
    """Since the nearest earlier run."""
    against: Changes | None
    """Since the run that was chosen; None: none was."""
    overlays: tuple[RunSnapshot, ...]
    """Marked runs."""
    evaluations: tuple[SqlRow, ...]
    """Measurements of its set by other runs."""
    command: str
    """The command that makes it again; empty: there is none."""
    first: Sheet | None
    """The first picture of its set, where there is another one, too."""

    @property
    def run(self) -> str:
        return self.snapshot.run


class RunPageReader:
    """Reads the page of a run, asked again and again by one thread.

    Args:
        run: its id; empty: the newest.
    """

    def __init__(self, run: str = "") -> None:
        self.reader = RunReader(run)
        self.overlays = OverlayReader()
        self.against = ""
        """The uid of the run that it is compared with; empty: with none that was chosen. Anybody may set it."""
        self._read: tuple[object, RunPage] | None = None

    def read(self, store: Store) -> RunPage | RunGone | None:
        """Read what is new; None: there is no run."""
        against = self.against
        snapshot = self.reader.read(store)
        if not isinstance(snapshot, RunSnapshot):
            return snapshot
        row, overlays = snapshot.row, self.overlays.read(store, snapshot.row.uid)
        # What is dear to read changes with these only.
        now = (
            *(row.uid, snapshot.state, row.attempt, row.note, row.deleted_at, row.results_sha256, against),
            *(snapshot.checkpoint, snapshot.pictures[-1:], len(snapshot.accuracies), len(snapshot.figures)),
        )
        if self._read is not None and self._read[0] == now:
            before = self._read[1]
            page = replace(before, snapshot=snapshot, overlays=overlays)
        else:
            other = store.with_uid(against) if against else None
            page = RunPage(
                snapshot,
                store.describe(row.id) | {"selection": selection.by_rule(store, row.id)},
                changes.since_nearest(store, row),
                changes.changes_since(store, row, other) if other is not None else None,
                overlays,
                tuple(_evaluations(store, row)),
                _command(store, row),
                read_sheet(store, row.id, snapshot.card, snapshot.pictures[0]) if len(snapshot.pictures) > 1 else None,
            )
        self._read = now, page
        return page


def _evaluations(store: Store, row: RunRow) -> list[SqlRow]:
    """The final measurements of its set by other runs, in the order of evaluators, runs and subjects."""
    if not row.set_sha256:
        return []
    return store.query(
        """
        select runs.id as run, evaluations.evaluator, subject, repeat, metric, value, unit, better, description
        from evaluations join measurements using (run, iteration, evaluator, subject, repeat)
            join runs on runs.number = evaluations.run
            join metrics on metrics.evaluator = evaluations.evaluator and metrics.name = metric
        where evaluations.set_sha256 = ? and final = 1 and runs.number != ? and runs.deleted_at = ''
            and (evaluations.evaluator != 'accuracy' or metric = 'accuracy')
        order by evaluations.evaluator, runs.number, subject, repeat, metric
        """,
        *(row.set_sha256, row.number),
    )


def _command(store: Store, row: RunRow) -> str:
    """The command that makes this run again."""
    if row.method == "imported":
        return ""
    maker = store.maker(row.id) if json.loads(row.config).get("where", {}).get("made") else None
    if maker is not None:
        return shlex.join(["dambench", *request.evaluation(row, maker)[0]])
    return request.command(request.of_run(row)) if not store.evaluates(row.id) else ""


# Sections.


def _styled(text: str, style: str) -> Text:
    """A line in a style of its own, which a pane draws only where it is that of a piece."""
    return Text(no_wrap=True).append(text, style)


def _heading(title: str) -> Text:
    return _styled(title, "bold")


def _pairs(facts: Sequence[tuple[str, str]], width: int) -> list[Text]:
    """Names and values, the values wrapped beside them."""
    named = max((len(name) for name, value in facts if value), default=0)
    named = min(named, max(10, width // 3))
    lines: list[Text] = []
    for name, value in facts:
        if value:
            rows = wrapped(value, max(10, width - named - 2)) or [Text()]
            for number, row in enumerate(rows):
                head = _styled(f"{name if not number else '':<{named}}  ", "dim")
                lines.append(head.append(row.plain))
    return lines


def changes_lines(since: Changes | None, width: int) -> list[Text]:
    """What changed since another run: a heading, the changes by kind, and what the figures do not tell."""
    lines = [_styled(row.plain, "bold") for row in wrapped(changes.title(since), width)]
    if since is None:
        return [_styled(line.plain, "dim") for line in lines]
    facts = [
        (kind if not number else "", entry)
        for kind, entries in changes.sections(since)
        for number, entry in enumerate(entries)
    ]
    lines += _pairs([(name or " ", entry) for name, entry in facts], width)
    for note in since.notes:
        lines += [_styled(row.plain, "dim") for row in wrapped(note, width)]
    return lines


def summary_lines(page: RunPage, width: int) -> list[Text]:
    """What changed, what came of it, what it took, and what it is."""
    row, details = page.snapshot.row, page.details
    lines = [*changes_lines(page.since, width), Text(), _heading("Result")]
    lines += result_lines(page, width)
    lines += [Text(), _heading("What it took")]
    costs = [(one["phase"], _cost(one)) for one in details["costs"]]
    lines += _pairs(costs, width) or [_styled("Nothing is recorded yet.", "dim")]
    lines += [Text(), _heading("What it is")]
    config = details["run"]["config"]
    facts = [
        ("name", display(row.name, 200)),
        ("tags", display(", ".join(details["tags"]), 200)),
        ("note", display(row.note, 400)),
        ("method", display(row.method)),
        ("settings", _settings_in_words(config.get("method", {}).get("options", {}))),
        ("recipe", display(row.recipe, 400)),
        ("dataset", display(row.dataset)),
        ("IPC", "the whole set" if row.ipc is None else str(row.ipc)),
        ("matched on", display(row.network)),
        ("trained on it", display(", ".join(config.get("evaluate_on", [])), 300)),
        ("protocol", display(row.protocol, 80)),
        ("seed", str(row.seed)),
        ("created", display(row.created_at, 40)),
        ("ended", display(row.ended_at or "", 40)),
        ("host", display(row.host, 60)),
        ("in the trash", display(row.deleted_at, 40)),
        ("error", display(row.error, 600)),
        ("command", display(page.command, 1000)),
    ]
    lines += _pairs(facts, width)
    for warning in details["warnings"]:
        lines += [_styled(one.plain, "dim") for one in wrapped(f"note: {display(warning, 400)}", width)]
    return lines


def _cost(one: SqlRow) -> str:
    parts = [duration(one["seconds"])]
    if one["peak_memory_bytes"]:
        parts.append(f"peak {size(one['peak_memory_bytes'])}")
    if one.get("joules") is not None:
        parts.append(energy(one["joules"]) + (" of the shared board" if one.get("shared") else " of the board"))
    return ", ".join(parts)


def _settings_in_words(options: Mapping[str, Any]) -> str:
    return display(", ".join(f"{name} {value}" for name, value in options.items()), 600)


def _percent(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[Text]:
    """Columns as wide as they need to be; numbers to the right. What is too long is cut by the pane."""
    lines = [list(map(str, row)) for row in (head, *rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    numeric = [
        all(not line[at] or line[at][:1] in "-+–0123456789" for line in lines[1:]) and bool(rows)
        for at in range(len(head))
    ]
    texts = [
        "  ".join(
            f"{cell:>{wide}}" if right else f"{cell:<{wide}}"
            for cell, wide, right in zip(line, widths, numeric, strict=True)
        )
        for line in lines
    ]
    shown = [Text(text.rstrip(), no_wrap=True) for text in texts]
    shown[0].stylize("dim")
    return shown


TIMED = 90
"""Columns in which there is room for how long each network took."""

RULES = {
    "final": "final",
    "validation-selected": "by validation",
    "cross-fitted": "cross-fitted",
    "test-selected": "by the test set",
}
"""Rules by which a set is chosen, as heads of a table have them."""


def result_lines(page: RunPage, width: int, others: str = "What it measured stands in Scores.") -> list[Text]:
    """Accuracy by network: of the result and, where sets on the way were evaluated too, of those that rules choose.

    Args:
        others: what is said where there is none, but other metrics.
    """
    details = page.details
    finals = [score for score in details["scores"] if score["final"]]
    if not finals:
        if page.snapshot.figures:
            return [_styled(others, "dim")]
        return [_styled("No network has been tested on its result yet.", "dim")]
    by: dict[str, list[SqlRow]] = {}
    for score in finals:
        by.setdefault(score["network"], []).append(score)
    chosen = {(row["network"], row["selection"]): row for row in details["selection"] if row["accuracy"] is not None}
    rules = [rule for rule in RULES if rule != "final" and any(key[1] == rule for key in chosen)]
    rows = []
    for network, scores in by.items():
        values = [score["accuracy"] for score in scores if score["accuracy"] is not None]
        whole = len(values) == len(scores)
        spread = std(values)
        mean_ = f"{100 * mean(values):.2f}" if values and whole else "–"
        spread_ = f" ± {100 * spread:.2f}" if spread is not None and whole else ""
        cells = [
            f"{_percent(chosen[network, rule]['accuracy'])}" if (network, rule) in chosen else "–" for rule in rules
        ]
        rows.append([display(network, 40), mean_ + spread_, *cells, str(len(scores))])
    lines = _table(["network", "final, %", *(f"{RULES[rule]}, %" for rule in rules), "n"], rows, width)
    for rule, about in ABOUT_RULES.items():
        if rule in rules:
            where = {"/".join(map(str, row["iterations"])) for row in details["selection"] if row["selection"] == rule}
            lines += _dim(
                f"{RULES[rule]}: {about} Iteration {', '.join(sorted(filter(None, where), key=natural))}.", width
            )
    if any(score["accuracy"] is None for score in finals):
        lines += _dim("–: a network diverged, and there is no mean.", width)
    if any(len(scores) > 1 for scores in by.values()):
        lines += _dim("± is between networks on this one set; sets of other seeds differ too (Compare).", width)
    return lines


ABOUT_RULES = {
    "validation-selected": "the iteration that does best on validation images.",
    "cross-fitted": "each network on the set that the others chose by validation.",
    "test-selected": "the best on the test set itself, as some papers report it: too high.",
}


def _dim(text: str, width: int) -> list[Text]:
    return [_styled(row.plain, "dim") for row in wrapped(text, width)]


def scores_lines(page: RunPage, width: int) -> list[Text]:
    """Accuracy by network and rule, each network that was trained, and what evaluators have measured of the set."""
    beside = "This run measured other things, which stand below."
    lines = [_heading("Accuracy"), *result_lines(page, width, beside)]
    scores = page.details["scores"]
    if scores:
        validated = any(score.get("validation_accuracy") is not None for score in scores)
        held, timed = ["validation"] if validated else [], width >= TIMED
        rows = [
            [
                str(score["iteration"]) + ("" if score["final"] else " *"),
                display(score["network"], 40),
                f"#{score['repeat']}",
                _percent(score["accuracy"]),
                *([_percent(score["validation_accuracy"])] if validated else []),
                _percent(score["balanced_accuracy"]),
                _percent(score["train_accuracy"]),
                (score["loss_state"] or "–") if score["loss"] is None else f"{score['loss']:.4f}",
                *([duration(score["seconds"])] if timed else []),
            ]
            for score in sorted(
                scores, key=lambda one: (-one["final"], -one["iteration"], one["network"], one["repeat"])
            )
        ]
        head = [
            "after",
            "network",
            "seed",
            "accuracy, %",
            *held,
            "balanced",
            "train",
            "loss",
            *(["took"] if timed else []),
        ]
        lines += [Text(), _heading("Networks, each trained with a seed of its own"), *_table(head, rows, width)]
        if any(not score["final"] for score in scores):
            lines += _dim("*: of a set on its way", width)
    own = [row | {"run": page.run} for row in page.details["measurements"]]
    return lines + measured_lines([*own, *page.evaluations], page.run, width)


def measured_lines(rows: Sequence[SqlRow], own: str, width: int) -> list[Text]:
    """A section for each evaluator and run that measured the set: the mean of each metric, by subject.

    Args:
        own: the id of the run that is shown.
    """
    sections: dict[tuple[str, str], list[SqlRow]] = {}
    for row in rows:
        sections.setdefault((row["evaluator"], row["run"]), []).append(row)
    lines: list[Text] = []
    for (evaluator, run), some in sections.items():
        by: dict[tuple[str, str], list[SqlRow]] = {}
        for row in some:
            by.setdefault((row["subject"], row["metric"]), []).append(row)
        where = "" if run == own else f", measured by {run}"
        lines += [Text(), _heading(display(f"{labels.evaluator_name(evaluator)}{where}", width))]
        several = len({subject for subject, _ in by}) > 1
        table = []
        found = [
            (subject, MetricRow(evaluator, name, of[0]["unit"], of[0]["better"], of[0]["description"]), of)
            for (subject, name), of in by.items()
        ]
        for subject, metric, of in sorted(found, key=lambda one: _turn(one[0], one[1])):
            values = [row["value"] for row in of if row["value"] is not None]
            spread = std(values)
            text = figure(metric, mean(values)) if values and len(values) == len(of) else "–"
            text += f" ± {figure(metric, spread)}" if spread is not None and text != "–" else ""
            if words := labels.label_of(metric).words:
                text = in_words(words, values)
            table.append([*([display(subject, 40)] if several else []), metric_label(metric), text, str(len(of))])
        head = [*(["of"] if several else []), "metric", "mean ± std", "n"]
        lines += _table(head, table[:MOST_MEASURED], width)
        if len(table) > MOST_MEASURED:
            lines += _dim(f"{len(table) - MOST_MEASURED} more: dambench show {run} --json", width)
    return lines


def _turn(subject: str, metric: MetricRow) -> tuple[object, ...]:
    """The order of what was measured: what comes of all before the many that it comes of."""
    place = labels.subject_place(metric.evaluator, subject)
    return place, natural(subject), labels.place_of(metric)


def config_lines(page: RunPage, width: int) -> list[Text]:
    """Every setting and the environment; first the difference to another run."""
    lines = changes_lines(page.against if page.against is not None else page.since, width)
    if page.against is None:
        key = hints.hint("run.difference", "d")
        lines += _dim(f"{key} compares with the runs that are marked in Runs, one after the other.", width)
    differs = {change.name for change in (page.against or page.since or _NOTHING).changes}
    config = page.details["run"]["config"]
    facts = [(name, changes.shown(value)) for name, value in changes.settings(json.dumps(config)).items()]
    lines += [Text(), _heading("Settings"), *_marked_pairs(facts, differs, width)]
    environment = {key: value for key, value in page.details["environment"].items() if value != ""}
    facts = [(key.replace("_", " "), display(str(value), 600)) for key, value in environment.items()]
    lines += [Text(), _heading("Made with"), *_marked_pairs(facts, differs, width)]
    return lines + ([Text(), _heading("Command"), *wrapped(display(page.command, 1000), width)] if page.command else [])


_NOTHING = Changes("", "", False, (), (), (), ())


def _marked_pairs(facts: Sequence[tuple[str, str]], differs: set[str], width: int) -> list[Text]:
    """Facts, those that differ with a star in front."""
    return _pairs([(("* " if name in differs else "  ") + name, value) for name, value in facts], width)


def files_lines(page: RunPage, width: int) -> list[Text]:
    """The files of a run, with their checksums."""
    row, details = page.snapshot.row, page.details
    lines = [_heading("Synthetic sets")]
    for made in details["sets"]:
        shape = "×".join(map(str, json.loads(made["shape"])))
        lines.append(
            Text(f"after iteration {made['iteration']}  {shape} {display(made['dtype'], 20)}  {size(made['bytes'])}")
        )
        lines.append(Text(f"  sha256 {display(made['sha256'], 64)}"))
        lines += _dim(f"  {display(made['file'], 400) or 'its tensors are not on this machine'}", width)
    lines += [] if details["sets"] else [_styled("none yet", "dim")]
    lines += [Text(), _heading("Checkpoints")]
    for one in details["checkpoints"]:
        lines.append(Text(f"after iteration {one['iteration']}  {size(one['bytes'])}"))
        lines.append(Text(f"  sha256 {display(one['sha256'], 64)}"))
    lines += [] if details["checkpoints"] else [_styled("none", "dim")]
    pictures = page.snapshot.pictures
    lines += [Text(), _heading("Log and pictures")]
    lines += wrapped(display(row.log, 400) or "its log is not on this machine: the database has its events", width)
    lines.append(Text(f"{counted(len(pictures), 'picture')} of the set in the database"))
    lines += [Text(), _heading("Checksums of what it was made of, and of its results")]
    hashes = (
        ("configuration", row.config_sha256),
        ("dataset", row.dataset_sha256),
        ("protocol", row.protocol_sha256),
        ("results", row.results_sha256),
    )
    for name, value in hashes:
        line = Text(f"{name:<14} {display(value, 64)}", no_wrap=True)
        if value:  # one that is cut off could not be compared
            lines += [line] if line.cell_len <= width else [Text(name), Text(f"  sha256 {display(value, 64)}")]
    return lines
