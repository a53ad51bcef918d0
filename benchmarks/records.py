"""What was measured: one JSON object per line in `records.jsonl`, only ever added to."""

import json
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.contest import ROOT, Contest, Results, Scene, per_round
from dambench.cli.output import table

RECORDS = Path(__file__).with_name("records.jsonl")

Record = dict[str, Any]

ENGINE = tuple(f"dambench/{folder}" for folder in ("training", "matching", "methods", "networks"))

MEASURED = dict.fromkeys(
    ("distil", "costs", "gradients", "floors", "trajectories", "experts", "evaluation", "testpass", "memory", "growth"),
    ENGINE,
)
"""By benchmark, the code whose speed it measures; of the others all of dambench."""


def record(
    benchmark: str, contest: Contest, scene: Scene, results: Results, machine: Record, load: float, note: str
) -> Record:
    """All that should be known of a finished contest.

    Args:
        machine: what a worker says about itself.
        load: the machine's load average before anything was measured.
    """
    forms = {}
    for form in contest.forms:
        rounds = results[form.name]
        spread = {}
        for quantity in rounds[0]:
            values = [measured[quantity] for measured in rounds]
            spread[quantity] = {"median": median(values), "min": min(values), "values": values}
        forms[form.name] = {"side": form.side, "allocator": form.allocator, "measured": spread}
    ratios = {}
    for a, b in contest.ratios:
        values = per_round(results, a, b, contest.compared)
        of = {"of": contest.compared, "median": median(values), "min": min(values), "max": max(values)}
        ratios[f"{a} / {b}"] = of
    return {
        "benchmark": benchmark,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": scene.device,
        "machine": machine,
        "load_before": round(load, 2),
        "rounds": len(next(iter(results.values()))),
        "forms": forms,
        "ratios": ratios,
        "figures": contest.figures(results),
        "note": note,
    }


def append(one: Record, path: Path = RECORDS) -> None:
    """Add a record to the file; what is in it stays as it is."""
    with path.open("a") as file:
        file.write(json.dumps(one) + "\n")


def read(path: Path = RECORDS) -> list[Record]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def show(records: Iterable[Record], names: Sequence[str] = ()) -> None:
    """Records as tables on stdout, oldest first.

    Args:
        names: of benchmarks; none: all.
    """
    for one in records:
        if names and one["benchmark"] not in names:
            continue
        machine = one["machine"]
        print(f"\n{one['benchmark']}: {one['at']}, {one['rounds']} rounds{', ' if one['note'] else ''}{one['note']}")
        print(
            f"{machine['gpu'] or machine['cpu']}, {machine['threads']} threads of {machine['cpus']} CPUs, torch "
            f"{machine['torch']}, load {one['load_before']} before, commit {machine['git_commit'][:10] or 'unknown'}"
            f"{' and changes' if machine['git_dirty'] else ''}\n{_since(one)}\n"
        )
        rows = []
        for name, form in one["forms"].items():
            for quantity, spread in form["measured"].items():
                figures = (_figure(spread[key], quantity) for key in ("median", "min"))
                most = _figure(max(spread["values"]), quantity)
                rows.append([name, form["allocator"], quantity, *figures, most])
        table(["form", "allocator", "what", "median", "min", "max"], rows)
        if one["ratios"]:
            print()
            rows = [
                [name, ratio["of"], *(f"{ratio[key]:.2f}" for key in ("median", "min", "max"))]
                for name, ratio in one["ratios"].items()
            ]
            table(["ratio of a round", "of", "median", "min", "max"], rows)
        if one["figures"]:
            print()
            table(["figure", ""], [[name, _figure(value)] for name, value in one["figures"].items()])


def _since(one: Record) -> str:
    """How far the measured code is from what it was, in a sentence."""
    commit, paths = one["machine"]["git_commit"], MEASURED.get(one["benchmark"], ("dambench",))
    count = commits_since(commit, [*paths, f"benchmarks/{one['benchmark']}.py"]) if commit else None
    if count is None:
        return "How many commits to the measured code lie between this record and now is not known: no history has it."
    where = f"{', '.join(paths)} and the benchmark"
    return f"Commits to the measured code ({where}) between this record and now: {count}."


def commits_since(commit: str, paths: Sequence[str], root: Path = ROOT) -> int | None:
    """How many commits after this one changed these paths; None: the history here does not lead back to it."""
    git = ["git", "-C", str(root)]
    try:
        subprocess.run([*git, "merge-base", "--is-ancestor", commit, "HEAD"], check=True, capture_output=True)
        counted = subprocess.run(
            [*git, "rev-list", "--count", f"{commit}..HEAD", "--", *paths], check=True, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return int(counted.stdout)


def _figure(value: float, quantity: str = "") -> str:
    """As people read it: memory in MB, FLOPs in GFLOP."""
    if "bytes" in quantity:
        return f"{value / 1e6:,.0f} MB"
    if quantity.startswith("FLOP"):
        return f"{value / 1e9:.4g} G{quantity}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
