"""Preflight: what a request comes to before it is started, field by field, and what the past says of it."""

import os
from collections.abc import Container, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from dambench.core import files
from dambench.core.config import RunConfig
from dambench.core.units import duration, rate, size
from dambench.runner import monitor
from dambench.store import history
from dambench.store.history import Expected, Similar
from dambench.store.runs import Store
from dambench.tui import hints
from dambench.tui.checker import Answer
from dambench.tui.models.catalogue import Catalogue


@dataclass(frozen=True)
class Outlook:
    """The past of a request: runs of the same and of nearly the same."""

    same: list[Similar] = field(default_factory=list)
    near: list[Similar] = field(default_factory=list)
    expected: list[Expected] = field(default_factory=list)
    sharing: dict[str, int] | None = None
    """Finished runs by the SHA-256 of their protocol; None: not known."""
    trouble: str = ""


def whereabouts(name: str, here: Container[str], catalogue: Catalogue, data: str) -> str:
    """Tell where a dataset is; empty: unknown.

    Args:
        here: those that are prepared.
        data: where raw data are, as the form has it.
    """
    entry = catalogue.dataset(name)
    match entry.source:
        case "path":  # another path is another dataset, whatever was prepared
            return " · by path"
        case "package":
            return " · here"
        case "download" if name in here:
            return " · here"
        case "download" if entry.files:
            given = data.strip() or os.environ.get("DAMBENCH_DATA")
            folder = files.user_path(given) if given else files.raw_folder()
            missing = files.missing_raw(folder, entry.files, entry.instead)
            return " · not here" if missing else " · raw here"
    return ""


def read_outlook(path: Path, answer: Answer) -> Outlook:
    with closing(Store.open(path)) as store:
        sharing = store.finished_by_protocol()
        if "config" not in answer:
            return Outlook(sharing=sharing)
        config = msgspec.convert(answer["config"], RunConfig)
        same, near = history.similar(store, config, answer["seeds"], answer["data"]["sha256"])
        return Outlook(same, near, history.expected(store, config, answer["data"]["sha256"]), sharing)


def field_notes(answer: Answer, catalogue: Catalogue) -> dict[str, str]:
    """Notes on what each field comes to, by field."""
    config, card = answer.get("config"), answer.get("data")
    if not config or not card:
        return {"dataset": answer["first"]} if "first" in answer else {}
    where = config["where"]
    train, test = sum(card["train_counts"]), sum(card["test_counts"])
    shape = f"{card['channels']}×{card['height']}×{card['width']}"
    runs = answer["runs"]
    held = (config.get("held_out") or {}).get("of_each_class", 0)
    left = min(card["train_counts"]) - held
    smallest = f"of {left} in the smallest class" + (f", {held} held out" if held else "")
    notes = {
        "method": catalogue.method(config["method"]["name"]).what,
        "dataset": f"{train:,} + {test:,} images, {shape}, {len(card['classes'])} classes",
        "data": where["data"],
        "ipc": "the whole set" if config["ipc"] is None else smallest,
        "network": config["network"] or "this method matches on none",
        "evaluate_on": ", ".join(config["evaluate_on"]),
        "eval_repeats": f"{config['eval_repeats']} of each network",
        "protocol": protocol.label if (protocol := catalogue.protocol(config["protocol"]["name"])) else "",
        "seeds": "1 run" if runs == 1 else f"{runs} runs, one after the other",
        "device": where["device"],
        "recipe": answer["recipe"]["source"] if answer["recipe"] else "",
        "preprocessing": config["preprocessing"],
        "precision": config["precision"],
        "compile": "on" if where["compiled"] else "off",
    }
    recipe = (answer["recipe"] or {}).get("options", {})
    for option, value in answer["standard"].items():
        from_ = "recipe" if option in recipe else "default"
        changed = option in answer["overrides"]
        notes[f"method.{option}"] = f"{from_} {value}" + (", changed" if changed else "")
    return notes


def preflight_lines(
    answer: Answer, outlook: Outlook, measured: Answer | None, cards: Sequence[str]
) -> list[tuple[str, str]]:
    """Lines on what a run would take and what is like it: a word and a sentence each."""
    lines: list[tuple[str, str]] = []
    runs = answer.get("runs", 1)
    if measured is not None and "error" in measured:
        lines.append(("time", f"could not be measured: {measured['error']}"))
    elif measured is not None and "wait" in measured:
        lines.append(("time", "measuring a few iterations …"))
    elif measured is not None:
        seconds = sum(measured["seconds"].values())
        lines.append(("time", f"{_times(seconds, runs)}, measured just now ({_phases(measured['seconds'])})"))
        lines.append(("memory", f"{size(max(measured['peak_memory_bytes'].values()))} peak"))
        lines.append(("disk", f"{size(measured['disk_bytes'])}{' per seed' if runs > 1 else ''}"))
    elif "config" in answer and outlook.expected:
        lines += _history(outlook.expected[0], runs, hard_twin=answer.get("hard_twin", True))
    elif "config" in answer and not outlook.trouble:
        lines.append(
            (
                "time",
                f"unknown: no such run on {answer['config']['where']['device']} yet; "
                f"{hints.hint('form.measure', 'ctrl+t')} measures",
            )
        )
    if outlook.trouble:
        lines.append(("past", f"cannot be asked: {outlook.trouble}"))
    if outlook.same:
        some = ", ".join(f"{similar.run} ({similar.state})" for similar in outlook.same[:3])
        lines.append(("same", f"{some}{_more(outlook.same, 3)}: this very configuration"))
    for similar in outlook.near[:3]:
        ((setting, (theirs, ours)),) = similar.differs.items()
        lines.append(("near", f"{similar.run} differs in {setting} only: {theirs}, here {ours}"))
    if len(outlook.near) > 3:
        lines.append(("", f"and {len(outlook.near) - 3} more"))
    lines += [("GPU" if index == 0 else "", card) for index, card in enumerate(cards)]
    return lines


def _history(past: Expected, runs: int, *, hard_twin: bool) -> list[tuple[str, str]]:
    of = f"{past.runs} past run{'s' if past.runs > 1 else ''} on {past.device}"
    speed = f", {rate(1 / past.iteration_seconds)}" if past.iteration_seconds else ""
    phases = past.phases(hard_twin=hard_twin)
    if phases is None:
        time = f"~{duration(past.distil_seconds)} to distil{speed}, from {of}; to evaluate: unknown, "
        time += f"{hints.hint('form.measure', 'ctrl+t')} measures"
    else:
        time = f"{_times(sum(phases.values()), runs)} ({_phases(phases)}{speed}), from {of}"
    return [
        ("time", time),
        ("memory", f"~{size(past.peak_memory_bytes)} peak"),
        ("disk", f"~{size(past.disk_bytes)}{' per seed' if runs > 1 else ''}"),
    ]


def _times(seconds: float, runs: int) -> str:
    return f"~{duration(seconds)}" + (f" per seed, ~{duration(seconds * runs)} for {runs} seeds" if runs > 1 else "")


def _phases(seconds: dict[str, float]) -> str:
    return ", ".join(f"{phase} {duration(spent)}" for phase, spent in seconds.items())


def _more(items: Sequence[Any], shown: int) -> str:
    return f" and {len(items) - shown} more" if len(items) > shown else ""


def brief(lines: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Memory and disk on one line: there are few."""
    texts = dict(lines)
    short = []
    for label, text in lines:
        if label == "memory" and "disk" in texts:
            text = f"{text}      disk {texts['disk']}"
        if label != "disk":
            short.append((label, text))
    return short


def sharing_line(count: int) -> str:
    if not count:
        return "No finished run has this protocol yet."
    return f"{count} finished run{'s have' if count > 1 else ' has'} this protocol: one table with this one."


def no_gpu_line(trouble: str) -> str:
    """The line where there is no GPU to compute on. Most machines have none, and nothing is wrong with them."""
    if trouble in (monitor.NO_LIBRARY, monitor.NO_GPU):
        return "none: runs are on the CPU (`dambench doctor` says why)"
    return trouble


def gpu_lines(cards: Sequence[monitor.Glance], runs: dict[int, str]) -> list[str]:
    """Lines on the GPUs and on who uses them.

    Args:
        runs: ids of runs that go on, by process.
    """
    lines = []
    for index, card in enumerate(cards):
        memory = "memory unknown"
        if card.used_bytes is not None and card.total_bytes:
            memory = f"{size(card.total_bytes - card.used_bytes)} of {size(card.total_bytes)} free"
        busy = "" if card.busy_percent is None else f", {card.busy_percent} % busy"
        parts = [f"{index} {card.name}: {memory}{busy}"]
        if card.tenants is None:
            parts.append("the driver does not tell who uses it")
        for tenant in card.tenants or []:
            who = f"run {runs[tenant.pid]}" if tenant.pid in runs else tenant.name or "a process"
            held = "" if tenant.memory_bytes is None else f", {size(tenant.memory_bytes)}"
            by = f", {tenant.user}" if tenant.user else ""
            parts.append(f"{tenant.pid} {who}{by}{held}")
        if card.tenants == []:
            parts.append("nobody computes on it")
        lines.append("; ".join(parts))
    return lines
