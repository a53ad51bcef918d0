"""A run in full, and the picture of its set, on stdout."""

import json
from collections.abc import Callable
from itertools import groupby
from operator import itemgetter
from typing import Any

from rich.console import Console

from dambench.cli.output import table, table_in_blocks
from dambench.core.sanitize import counted, display, display_lines
from dambench.core.units import duration, energy, size
from dambench.report.labels import label_of, place_of
from dambench.report.verdict import coarse
from dambench.report.wording import figure, metric_label
from dambench.store.metrics import MetricRow
from dambench.store.statistics import estimate, mean


def describe(details: dict[str, Any]) -> None:
    """Print everything that the database has about a run.

    Args:
        details: as `Store.describe` gives them.
    """
    run = details["run"]
    table(["", ""], [[key, value] for key, value in _facts(run, details["tags"]).items() if value != ""])
    _print_costs(details["costs"])
    if details["scores"] or not details["measurements"]:
        _print_scores(details["scores"])
        if details["scores"] and (text := coarse(details["test_images"])):
            print(text)
    for evaluator, rows in groupby(details["measurements"], itemgetter("evaluator")):
        for some in _of_one_kind(list(rows)):
            _print_measurements(evaluator, some)
    if details["selection"]:
        _print_selection(details["selection"])
    for line in machine(details["usage"]):
        print(line)
    for made in details["sets"]:
        file = display(made["file"]) or "its tensors are not on this machine, a picture is (--preview FILE.png)"
        print(f"set after iteration {made['iteration']}, {display(made['shape'] + ' ' + made['dtype'])}: {file}")
        if made["needs"]:
            print(f"  it takes {display(made['needs'])}")
    for checkpoint in details["checkpoints"]:
        print(f"checkpoint after iteration {checkpoint['iteration']}, {size(checkpoint['bytes'])}")
    for warning in details["warnings"]:
        print(f"note: {display(warning, 400)}")
    _print_environments(details["environment"], details["attempts"])
    if run["traceback"]:
        print(display_lines(run["traceback"]))


def _print_costs(costs: list[dict[str, Any]]) -> None:
    """Print what each phase took; of a GPU also what was reserved, and the energy of its board where it is known."""
    reserved = ["peak_reserved_bytes"] if any(cost.get("peak_reserved_bytes") for cost in costs) else []
    metered = any(cost.get("joules") is not None for cost in costs)
    lines = []
    for cost in costs:
        line = [
            cost["phase"],
            duration(cost["seconds"]),
            *(size(cost[key]) for key in ("peak_memory_bytes", *reserved)),
        ]
        if metered:
            line.append("–" if cost["joules"] is None else energy(cost["joules"]) + " (shared)" * (cost["shared"] == 1))
        lines.append(line)
    table(
        ["phase", "took", "peak memory", *(["reserved"] if reserved else []), *(["energy of the board"] * metered)],
        lines,
    )


def _facts(run: dict[str, Any], tags: list[str]) -> dict[str, Any]:
    """What is shown of the row of a run, by its title."""
    skipped = ["config", "traceback", "dataset_sha256", "protocol_sha256", "overrides"]
    skipped += ["uid", "boot", "process_started", "stop_asked"]
    skipped += [] if run["phase"] else ["done", "total"]
    skipped += [] if run["attempt"] > 1 else ["attempt"]
    skipped += [] if run["pid"] else ["pid"]
    facts = {key: value for key, value in run.items() if key not in skipped and value not in ("", None)}
    facts["settings"] = ", ".join(f"{k} {v}" for k, v in run["config"]["method"].get("options", {}).items())
    facts["evaluated on"] = ", ".join(run["config"]["evaluate_on"])
    facts["computed in"] = _computed(run["config"])
    facts["tags"] = ", ".join(tags)
    facts["in the trash since"] = facts.pop("deleted_at", "")
    return facts


def _percent(fraction: float | None) -> str:
    """A fraction; None: a database from elsewhere has none."""
    return "–" if fraction is None else f"{100 * fraction:.2f} %"


SCORES = {
    "accuracy": "accuracy",
    "validation_accuracy": "validation",
    "balanced_accuracy": "balanced",
    "train_accuracy": "train",
}
"""Metrics of scores, and the headings of their columns."""


def _print_selection(rows: list[dict[str, Any]]) -> None:
    """Print which iterations are reported by which rule, and their accuracies."""
    table(
        ["selection", "network", "iteration", "validation", "accuracy", "n"],
        [
            [
                row["selection"],
                display(row["network"]),
                "/".join(map(str, row["iterations"])) or None,
                *(_percent(row[name]) for name in ("validation_accuracy", "accuracy")),
                row["n"],
            ]
            for row in rows
        ],
    )


def _print_scores(scores: list[dict[str, Any]]) -> None:
    validated = any(score.get("validation_accuracy") is not None for score in scores)
    shown = ["accuracy", *(["validation_accuracy"] if validated else []), "balanced_accuracy", "train_accuracy"]
    table(
        ["iteration", "network", "#", *(SCORES[metric] for metric in shown), "loss", "took"],
        [
            [
                score["iteration"],
                score["network"],
                score["repeat"],
                *(_percent(score[metric]) for metric in shown),
                (score["loss_state"] or "–") if score["loss"] is None else f"{score['loss']:.4f}",
                duration(score["seconds"]),
            ]
            for score in scores
        ],
    )
    for (iteration, network), some in groupby(scores, itemgetter("iteration", "network")):
        values = [score["accuracy"] for score in some if score["accuracy"] is not None]
        if len(values) > 1 and iteration == scores[-1]["iteration"]:
            within = estimate(values)
            print(
                f"{display(network)} on the set after iteration {iteration}: mean {_percent(within.mean)}, standard "
                f"deviation {_percent(within.std)} within this set; between sets it takes other seeds (report, compare)"
            )


def _of_one_kind(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Split measurements into those of subjects that have the same metrics, or some of them: each becomes a table."""
    metrics: dict[str, set[str]] = {}
    for row in rows:
        metrics.setdefault(row["subject"], set()).add(row["metric"])
    groups: list[set[str]] = []
    for own in sorted(metrics.values(), key=len, reverse=True):
        if not any(own <= group for group in groups):
            groups.append(own)
    group_of = {
        subject: next(at for at, group in enumerate(groups) if own <= group) for subject, own in metrics.items()
    }
    return [[row for row in rows if group_of[row["subject"]] == at] for at in range(len(groups))]


def _print_measurements(evaluator: str, rows: list[dict[str, Any]]) -> None:
    """Print what an evaluator has measured, a line for each subject and repeat; of classes, a line for each class."""
    metrics = {
        row["metric"]: MetricRow(evaluator, row["metric"], row["unit"], row["better"], row["description"])
        for row in rows
    }
    lines = []
    plain = {
        name: metrics[name]
        for name in sorted(metrics, key=lambda name: place_of(metrics[name]))
        if not metrics[name].is_of_class
    }
    for (iteration, subject, repeat), some in groupby(rows, itemgetter("iteration", "subject", "repeat")):
        values = {row["metric"]: row for row in some}
        figures = [
            ""
            if name not in values
            else values[name]["state"]
            if values[name]["value"] is None
            else label_of(metric).words.get(values[name]["value"]) or figure(metric, values[name]["value"])
            for name, metric in plain.items()
        ]
        lines.append([iteration, display(subject), repeat, *figures])
    if len(plain) > max(WIDE_METRICS, len(lines)):  # a line for each metric
        heads = [f"{subject} #{repeat}" for _, subject, repeat, *_ in lines]
        table_in_blocks(
            [evaluator, *heads],
            [[metric_label(metric), *(line[3 + at] for line in lines)] for at, metric in enumerate(plain.values())],
            1,
        )
    else:
        table_in_blocks([evaluator, "network", "#", *map(metric_label, plain.values())], lines, 3)
    if len(metrics) > len(plain):
        _print_classes([row for row in rows if metrics[row["metric"]].is_of_class])


WIDE_METRICS = 8
"""Metrics above which a table has a line for each, where there are fewer networks."""

SHOWN_CLASSES = 20
"""Lines of a table of classes."""


def _print_classes(rows: list[dict[str, Any]]) -> None:
    """Print the accuracy of each class, mean over its networks; of many classes, those that are recognised least."""
    subjects = list(dict.fromkeys(row["subject"] for row in rows))
    values: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        of_class = values.setdefault(row["metric"], {})
        if row["value"] is not None:
            of_class.setdefault(row["subject"], []).append(row["value"])
    means = {
        name: [mean(each[subject]) if subject in each else None for subject in subjects]
        for name, each in values.items()
    }
    shown = list(means)
    if len(means) > SHOWN_CLASSES:
        shown = sorted(means, key=lambda name: min((m for m in means[name] if m is not None), default=1.0))
        print(f"the {SHOWN_CLASSES} of {len(means)} classes that are recognised least (--json has all):")
    table(
        ["class", *(f"accuracy, {display(subject)}" for subject in subjects)],
        [[display(name), *map(_percent, means[name])] for name in shown[:SHOWN_CLASSES]],
    )


def _print_environments(environment: dict[str, Any], attempts: list[dict[str, Any]]) -> None:
    """Print what a run was made with, and what was different in each attempt after the first."""
    made_with = (f"{key} {display(str(value))}" for key, value in environment.items() if value != "")
    print("made with: " + ", ".join(made_with))
    before = environment
    for attempt in attempts:
        changes = {key: value for key, value in attempt["environment"].items() if value != before.get(key)}
        changes.pop("command_line", None)
        different = ", ".join(f"{key} {display(str(value)) or 'none'}" for key, value in changes.items()) or "the same"
        after = f"from iteration {attempt['iteration'] + 1} on" if attempt["iteration"] >= 0 else "anew"
        print(f"attempt {attempt['attempt']}, {after}, made with: {different}")
        before = attempt["environment"]


def _computed(config: dict[str, Any]) -> str:
    execution = config.get("where", {})
    parts = [config.get("precision", "fp32"), "compiled" if execution.get("compiled") else ""]
    parts += [
        f"{execution[f'{kind}_chunk']} {kind} images at once"
        for kind in ("real", "synthetic")
        if execution.get(f"{kind}_chunk")
    ]
    parts += [
        f"{execution['stack']} networks trained together" if execution.get("stack", 1) > 1 else "",
        *_shared(execution),
    ]
    return ", ".join(part for part in parts if part)


def _shared(execution: dict[str, Any]) -> list[str]:
    """How many threads share an operation, on a CPU."""
    if execution.get("device", "cpu") != "cpu":
        return []
    if not execution.get("cores"):  # of before there was a choice: the bits of a run of today may be others
        return ["all threads in an operation"]
    of = execution.get("network_threads", {}).items()
    made = [("the set is made", execution.get("shared_by", 0))] if execution.get("shared_by") else []
    counts = [*made, *((display(name), count) for name, count in of)]
    alike = {count for _, count in counts}
    if len(alike) == 1:
        return [f"{counted(alike.pop(), 'thread')} in an operation"]
    return [f"{counted(count, 'thread')} in an operation of {name}" for name, count in counts if count > 1]


def preview_note(png: bytes, shape: str, extent: tuple[int, int, bool]) -> str:
    """The part of a set that its preview shows; empty: all of it.

    Args:
        shape: of the set, (N, C, H, W) as JSON.
        extent: as `Store.extent` gives it.
    """
    from dambench.core import half_blocks

    height, width = json.loads(shape)[2:]
    try:
        classes, each, high, wide, _ = half_blocks.tiles(png, height, width).shape
    except ValueError:
        return ""
    count, images, even = extent
    parts = [half_blocks.in_part(classes, each, count, images, even=even)]
    parts += [f"thinned out to {high - 1}×{wide - 1} pixels"] if (high - 1, wide - 1) != (height, width) else []
    return ", ".join(part for part in parts if part)


def draw(png: bytes, shape: str) -> None:
    """Draw the preview of a set, a column per class, in half blocks; in signs where the terminal has no colours.

    Args:
        shape: of the set, (N, C, H, W) as JSON.
    """
    from dambench.core import half_blocks

    try:
        images = half_blocks.tiles(png, *json.loads(shape)[2:])
    except ValueError:
        return
    stdout = Console(highlight=False)
    classes, each, high, wide, _ = images.shape
    turned = images.transpose(1, 2, 0, 3, 4).reshape(each * high, classes * wide, 3)
    fit = min(1.0, stdout.width / (classes * wide))
    small = half_blocks.scaled(turned, max(2, int(each * high * fit) // 2 * 2), max(1, int(classes * wide * fit)))
    for line in half_blocks.half_blocks(small, colour=stdout.color_system is not None and not stdout.no_color):
        stdout.print(line, no_wrap=True, overflow="crop")


def machine(usage: dict[str, Any]) -> list[str]:
    """The use of the GPU and of the host by a run, a line each, from its samples; n/a: not supported, or not known."""

    def value_of(name: str, missing: str, written: Callable[[float], str]) -> str:
        value = usage[name]
        return f"{missing} n/a" if value is None else written(value)

    lines = []
    if any(usage[name] is not None for name in usage if name.startswith("gpu_")):
        total = usage["gpu_memory_total_bytes"]
        memory = value_of("gpu_peak_memory_bytes", "memory", size)
        if total is not None:
            memory = f"peak {memory} of the card's {size(total)} in use"
        parts = [
            memory,
            value_of("gpu_busy_percent", "utilisation", lambda percent: f"{percent:.0f} % busy"),
            value_of("gpu_watts", "power", lambda watts: f"{watts:.0f} W"),
            value_of("gpu_peak_celsius", "temperature", lambda celsius: f"{celsius:.0f} °C"),
            value_of("gpu_joules", "energy", energy),
        ]
        shared = {None: "not known whether the card was shared", True: "card was shared", False: "card was not shared"}
        lines.append(f"GPU: {', '.join(parts)} ({shared[usage['gpu_shared']]})")
    if usage["process_peak_memory_bytes"] is not None:
        memory = value_of("process_peak_memory_bytes", "", size)
        cpu = value_of("process_cpu_percent", "CPU", lambda percent: f"{percent:.0f} % CPU")
        lines.append(f"host: process peak {memory}, {cpu}")
    return lines
