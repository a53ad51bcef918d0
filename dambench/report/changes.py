"""Changes: what is different in a run since another one, and what came of it; by itself, since the nearest earlier one.

Nearest is the finished run of the same method, dataset and purpose that was begun earlier and differs least: first in
what makes it another experiment (IPC, network, protocol, trained networks), then in the number of settings, the seed
among them; of equal ones one with the same seed, then the newest. So a run with a new step size is compared with the
run of the same seed before, and a further seed of the same settings with the seed before it.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from dambench.core.config import RunConfig
from dambench.core.events import PHASES
from dambench.core.natural import natural
from dambench.core.sanitize import display
from dambench.core.units import duration, size
from dambench.report.wording import figure, metric_label
from dambench.runner import processes
from dambench.store.metrics import ACCURACY, MetricRow
from dambench.store.row_names import Settings
from dambench.store.rows import RunRow, SqlRow
from dambench.store.runs import Store
from dambench.store.statistics import mean, std

MOST = 5_000
"""Runs, the newest, among which the nearest is looked for."""

MISSING = "–"

EXPERIMENT = ("ipc", "network", "evaluate_on", "made")
"""Settings that make it another experiment; so does the protocol."""

VERSIONS = ("dambench", "commit", "python", "torch", "torchvision", "cuda", "cudnn", "driver", "compiler", "sqlite")
MACHINE = ("host", "device", "device_name", "platform", "cpus", "threads")
NUMERICS = (
    *("deterministic_algorithms", "cudnn_benchmark", "tf32_matmul", "tf32_convolution", "matmul_precision"),
    *("cublas_workspace", "allocator"),
)


class Change(Struct, frozen=True):
    """Something that is not the same in both runs."""

    kind: str
    """`settings`, `computed`, `versions`, `data` or `machine`."""
    name: str
    before: str
    now: str


class ChangedResult(Struct, frozen=True):
    """A metric of one subject, in both runs: means over the repeats of the final set."""

    evaluator: str
    subject: str
    metric: str
    unit: str
    before: float | None
    """None: it was not measured in that run, or is no number for one of the networks."""
    now: float | None
    std_before: float | None
    std_now: float | None
    n_before: int
    n_now: int

    @property
    def gap(self) -> float | None:
        return None if self.before is None or self.now is None else self.now - self.before


class Changes(Struct, frozen=True):
    """What is different in a run since another one."""

    run: str
    before: str
    nearest: bool
    """The other one was not named: it is the nearest earlier one."""
    changes: tuple[Change, ...]
    results: tuple[ChangedResult, ...]
    costs: tuple[tuple[str, str, str], ...]
    """What was spent, before and now, on machines of the same kind."""
    notes: tuple[str, ...]
    """Sentences on what the figures do not tell."""


def nearest_earlier(store: Store, row: RunRow) -> RunRow | None:
    """The finished run that was begun before this one and differs least from it; None: there is none."""
    ours = settings(row.config)
    best: tuple[tuple[int, int, bool], str] | None = None
    candidates = store.query(
        """
        select id, config, protocol_sha256, seed from runs
        where method = ? and dataset = ? and purpose = ? and state = 'finished' and deleted_at = '' and
            (age < ? or (age = ? and number < ?))
        order by age desc, number desc limit ?
        """,
        *(row.method, row.dataset, row.purpose, row.age, row.age, row.number, MOST),
    )
    for one in candidates:
        if best is not None and best[0] <= (0, 0, False):
            break  # nothing is nearer than the same again
        try:
            theirs = settings(one["config"])
        except (ValueError, AttributeError):
            continue  # a file from elsewhere holds anything
        if theirs.get("evaluator", ACCURACY.evaluator) != ours.get("evaluator", ACCURACY.evaluator):
            continue
        differing = {name for name in ours | theirs if ours.get(name) != theirs.get(name) and not _is_how(name)}
        experiment = len(differing & set(EXPERIMENT)) + (one["protocol_sha256"] != row.protocol_sha256)
        others = [name for name in differing - set(EXPERIMENT) if not name.startswith("protocol.")]
        distance = experiment, len(others), one["seed"] != row.seed
        if best is None or distance < best[0]:
            best = distance, one["id"]
    return None if best is None else store.with_id(best[1])


def changes_since(store: Store, row: RunRow, before: RunRow, *, nearest: bool = False) -> Changes:
    """Compare a run with another one."""
    environments = _environment(store, before), _environment(store, row)
    found = [*_changed_settings(before, row), *_changed_environment(*environments), *_changed_data(store, before, row)]
    order = ("settings", "computed", "versions", "data", "machine")
    found.sort(key=lambda change: order.index(change.kind))
    results = _results(store, before, row)
    same_machine = all(environments[0].get(name) == environments[1].get(name) for name in ("device_name", "threads"))
    return Changes(
        run=row.id,
        before=before.id,
        nearest=nearest,
        changes=tuple(found),
        results=tuple(results),
        costs=tuple(_costs(store, before, row)) if same_machine else (),
        notes=tuple(_notes(before, row, results, same_machine=same_machine)),
    )


def since_nearest(store: Store, row: RunRow) -> Changes | None:
    """Compare a run with the nearest earlier one; None: there is none."""
    before = nearest_earlier(store, row)
    return None if before is None else changes_since(store, row, before, nearest=True)


def title(changes: Changes | None) -> str:
    if changes is None:
        return (
            "No earlier run of this method, dataset and evaluator has finished: there is nothing that it could be "
            "compared to."
        )
    which = ", the nearest earlier run" if changes.nearest else ""
    return f"What changed since {changes.before}{which}"


def sections(changes: Changes) -> list[tuple[str, list[str]]]:
    """The changes in words: a heading, and a line for each that there is."""
    by_kind: dict[str, list[str]] = {"settings": [], "versions": [], "data": []}
    for change in changes.changes:
        by_kind.setdefault(change.kind, []).append(f"{change.name}  {change.before} → {change.now}")
    same = {"settings": "the same", "versions": "the same", "data": "the same images"}
    found = [(kind, lines or [same[kind]]) for kind, lines in by_kind.items()]
    results = [_in_words(one) for one in changes.results] or ["not measured in both"]
    found.append(("result", results))
    if changes.costs:
        found.append(("took", [f"{what}  {before} → {now}" for what, before, now in changes.costs]))
    return found


def _in_words(one: ChangedResult) -> str:
    """`Accuracy of convnet-d3  86.46 ± 2.12 (3) → 88.01 ± 1.90 (3) %, +1.55 points`."""
    metric = MetricRow(one.evaluator, one.metric, one.unit, "higher", "")

    def written(value: float | None, spread: float | None, n: int) -> str:
        if value is None:
            return MISSING
        return _value(metric, value) + (f" ± {_value(metric, spread)}" if spread is not None else "") + f" ({n})"

    text = f"{metric_label(metric)}, {display(one.subject, 60)}  "
    text += f"{written(one.before, one.std_before, one.n_before)} → {written(one.now, one.std_now, one.n_now)}"
    if one.gap is not None:
        points = " points" if one.unit == "fraction" else ""
        text += f", {_value(metric, one.gap, sign='+')}{points}"
    return text


def _value(metric: MetricRow, value: float, sign: str = "") -> str:
    """A value; of a fraction with two decimals, as `show` has it."""
    return f"{100 * value:{sign}.2f}" if metric.unit == "fraction" else figure(metric, value, sign=sign)


# Settings.


def settings(text: str) -> Settings:
    """Everything that a run depends on, flat: `method.iterations` and the like.

    Args:
        text: its configuration, as JSON. What a dambench that made it did not know yet has its default.
    """
    try:
        config = msgspec.to_builtins(msgspec.json.decode(text, type=RunConfig))
    except msgspec.DecodeError:  # of a dambench that knows other settings
        config = json.loads(text)
    flat: Settings = {}
    for name, value in config.items():
        if name in ("method", "dataset", "evaluator") and isinstance(value, Mapping):
            flat[name] = value.get("name")
            flat |= {f"{name}.{option}": setting for option, setting in (value.get("options") or {}).items()}
        elif name in ("protocol", "where") and isinstance(value, Mapping):
            for key, setting in value.items():
                if isinstance(setting, Mapping):
                    flat |= {f"{name}.{key}.{part}": one for part, one in setting.items()}
                else:  # the set that is evaluated is part of what is done, not of how
                    flat["made" if key == "made" else f"{name}.{key}"] = setting
        else:
            flat[name] = value
    return flat


def _is_how(name: str) -> bool:
    """How a run is computed, not what."""
    return name.startswith("where.")


HIDDEN = ("protocol.name", "protocol.version", "protocol.source", "where.data", "plugins")
"""Settings that others say, or that are said as data and versions."""


def _changed_settings(before: RunRow, now: RunRow) -> list[Change]:
    old, new = settings(before.config), settings(now.config)
    found = []
    same_protocol = before.protocol_sha256 == now.protocol_sha256
    if not same_protocol:
        found.append(Change("settings", "protocol", display(before.protocol, 60), display(now.protocol, 60)))
    for name in sorted(old | new, key=lambda name: (name.startswith("protocol."), natural(name))):
        is_said = name in HIDDEN or (same_protocol and name.startswith("protocol."))
        if old.get(name) != new.get(name) and not is_said:
            kind = "computed" if _is_how(name) else "versions" if name.endswith("_version") else "settings"
            label = {"made": "evaluates the set of"}.get(
                name, name.removeprefix("where.").replace("_version", ", as dambench counts")
            )
            found.append(Change(kind, display(label, 60), shown(old.get(name)), shown(new.get(name))))
    codes = [_code(config.get("plugins")) for config in (old, new)]
    for name in sorted(codes[0] | codes[1]):
        if codes[0].get(name) != codes[1].get(name):
            found.append(Change("versions", name, *(code.get(name, MISSING) for code in codes)))
    return found


def _code(plugins: Any) -> dict[str, str]:
    """The beginning of the hash of each plug-in, by kind and name."""
    return {
        display(f"plug-in {one.get('kind')} {one.get('name')}", 80): display(str(one.get("sha256", "")), 8)
        for one in (plugins if isinstance(plugins, list | tuple) else ())
        if isinstance(one, Mapping)
    }


def shown(value: Any) -> str:
    """A setting as people write it; of a hash, its beginning."""
    if value is None or value == "":
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple) and all(isinstance(one, str | int | float) for one in value):
        return display(", ".join(map(str, value)), 120) or "none"
    text = value if isinstance(value, str) else json.dumps(value)
    is_hash = len(text) == 64 and not set(text) - set("0123456789abcdef")
    return text[:8] if is_hash else display(text, 120)


# Versions, machine, data.


def _environment(store: Store, row: RunRow) -> SqlRow:
    """The environment of its last attempt; empty: it has none."""
    found = dict(next(iter(store.query("select * from environments where run = ?", row.number)), {}))
    resumed = store.query(
        "select body from events where run = ? and kind = 'resumed' order by sequence desc limit 1", row.number
    )
    if resumed:
        last = json.loads(resumed[0]["body"])
        found |= last.get("environment") or {}
    commit = str(found.get("git_commit") or "")[:7]
    return found | {"commit": commit + (" with changes" if commit and found.get("git_dirty") else "")} if found else {}


def _changed_environment(before: SqlRow, now: SqlRow) -> list[Change]:
    if not before or not now:
        return []
    kinds = (("versions", VERSIONS), ("computed", NUMERICS), ("machine", MACHINE))

    def written(value: Any) -> str:
        """SQLite has no yes and no."""
        return (
            display(str(int(value) if isinstance(value, bool) else value if value is not None else ""), 120) or MISSING
        )

    return [
        Change(kind, name.replace("_", " "), written(before.get(name)), written(now.get(name)))
        for kind, names in kinds
        for name in names
        if written(before.get(name)) != written(now.get(name))
    ]


def _changed_data(store: Store, before: RunRow, now: RunRow) -> list[Change]:
    if before.dataset_sha256 == now.dataset_sha256:
        return []
    found = [Change("data", "images, by hash", before.dataset_sha256[:8], now.dataset_sha256[:8])]
    cards = [store.query("select * from datasets where sha256 = ?", row.dataset_sha256) for row in (before, now)]
    if all(cards):
        names = ("train_images", "test_images", "classes", "channels", "height", "width")
        (old,), (new,) = cards
        found += [
            Change("data", name.replace("_", " "), str(old[name]), str(new[name]))
            for name in names
            if old[name] != new[name]
        ]
    return found


# What came of it.


def _results(store: Store, before: RunRow, now: RunRow) -> list[ChangedResult]:
    values = [_measured(store, row) for row in (before, now)]
    metrics = {
        (row["evaluator"], row["name"]): MetricRow(**row)
        for row in store.query("select evaluator, name, unit, better, description from metrics")
    }
    found = []
    for key in dict.fromkeys((*values[1], *values[0])):
        evaluator, _, name = key
        metric = metrics.get((evaluator, name), MetricRow(evaluator, name, "", "higher", ""))
        if metric.is_of_class or (evaluator == ACCURACY.evaluator and name not in ("accuracy", "validation_accuracy")):
            continue
        old, new = (one.get(key, []) for one in values)
        means, spreads = [mean(of) if of else None for of in (old, new)], [std(of) if of else None for of in (old, new)]
        found.append(ChangedResult(*key, metric.unit, means[0], means[1], spreads[0], spreads[1], len(old), len(new)))
    return sorted(found, key=lambda one: (one.evaluator != ACCURACY.evaluator, one.evaluator, one.metric != "accuracy"))


def _measured(store: Store, row: RunRow) -> dict[tuple[str, str, str], list[float]]:
    """The values of the final set, by evaluator, subject and metric; none where a network diverged."""
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for one in store.query(
        """
        select evaluator, subject, metric, value from evaluations
            join measurements using (run, iteration, evaluator, subject, repeat)
        where run = ? and final = 1 order by evaluator, subject, repeat
        """,
        row.number,
    ):
        value = one["value"] if isinstance(one["value"], float) else math.nan
        values[one["evaluator"], one["subject"], one["metric"]].append(value)
    return {key: of if all(map(math.isfinite, of)) else [] for key, of in values.items()}


def _costs(store: Store, before: RunRow, now: RunRow) -> Iterable[tuple[str, str, str]]:
    """Time and peak memory by phase."""
    of = [
        {row["phase"]: row for row in store.query("select * from costs where run = ?", run.number)}
        for run in (before, now)
    ]
    for phase in sorted(of[0] | of[1], key=lambda phase: " ".join(PHASES).find(phase)):
        old, new = (MISSING if phase not in one else duration(one[phase]["seconds"]) for one in of)
        yield display(phase, 40), old, new
    peaks = [max((row["peak_memory_bytes"] or 0 for row in one.values()), default=0) for one in of]
    if any(peaks):
        old, new = (size(peak) if peak else MISSING for peak in peaks)
        yield "peak memory", old, new


def _notes(before: RunRow, now: RunRow, results: Sequence[ChangedResult], *, same_machine: bool) -> Iterable[str]:
    state = processes.state(now)
    if state != "finished":
        yield f"{now.id} is {state}: its result is not there yet, or never will be."
    if (state := processes.state(before)) != "finished":
        yield f"{before.id} is {state}: it has no whole result."
    measured = [one for one in results if one.gap is not None]
    if measured and before.protocol_sha256 != now.protocol_sha256:
        yield "The protocols differ: the figures do not tell which set is better."
    if measured and before.dataset_sha256 != now.dataset_sha256:
        yield "The images differ: the figures were not measured on the same test set."
    if measured:
        most = max(max(one.n_before, one.n_now) for one in measured)
        of = f"In brackets are {'networks' if most > 1 else 'the networks'} trained on one set of each run"
        yield f"{of}; how much sets of other seeds differ is not in these figures (compare tells)."
    if not same_machine:
        yield "Other devices or threads: what was spent is not compared."


def text(changes: Changes | None) -> list[str]:
    """All of it, a line each, for a terminal."""
    if changes is None:
        return [title(changes)]
    lines = [f"{title(changes)}:"]
    for heading, entries in sections(changes):
        lines += [f"  {heading if not number else '':<9} {entry}" for number, entry in enumerate(entries)]
    return [*lines, *(f"  {note}" for note in changes.notes)]
