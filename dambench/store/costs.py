"""What runs took: seconds and memory of each method, median over its runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import NamedTuple

from dambench.core.sanitize import counted
from dambench.store.cells import order
from dambench.store.final_scores import Computed, FinalScores, Trained
from dambench.store.metrics import MetricRow
from dambench.store.row_names import EvaluatedRun


@dataclass(frozen=True)
class MethodCost:
    """The cost of a method for one column, median over its runs."""

    method: str
    dataset: str
    ipc: int | None
    network: str
    protocol: str
    experts_seconds: float
    """The most that a run spent on experts, which the others found trained; 0: none needed any."""
    distil_seconds: float | None
    """None: these runs have only evaluated sets of others."""
    distil_peak_bytes: int
    evaluate_seconds: float
    """Per network."""
    evaluate_peak_bytes: int
    device: str
    runs: int
    on_gpu: bool = False
    distil_joules: float | None = None
    """Energy of the GPU's whole board; None: not known of all runs, as on a CPU."""
    evaluate_joules: float | None = None
    """Per network."""
    shared: bool | None = None
    """Whether other processes used the GPU meanwhile; None: not known."""
    experts_used: int = 0
    """As many of the runs needed experts."""
    experts_trained: int = 0
    """As many trained some. The others found them: they are kept, and shared by all runs of the same settings."""


class CostKey(NamedTuple):
    """What costs are put together by."""

    method: str
    dataset: str
    ipc: int | None
    network: str
    protocol: str
    device: str
    in_each_operation: bool
    """All of several threads shared each operation: it is from before their number was chosen by what they compute."""


def costs(entries: Sequence[EvaluatedRun], found: Mapping[int, FinalScores], metric: MetricRow) -> list[MethodCost]:
    """One for each method, dataset, IPC, trained network, protocol, device, and how its threads were used.

    Args:
        entries: runs by trained networks, the newest first.
        found: their final scores, by number.
        metric: whose evaluator trained them.
    """
    devices: dict[tuple[str, str, int], str] = {}
    groups: dict[CostKey, list[tuple[Computed, Trained, int]]] = {}
    for run, mates in reversed(entries):
        of_run = found[run.number]
        trained, row = of_run.subjects.get(metric.evaluator, {}).get(mates.network), of_run.computed
        if row is None or trained is None:
            continue
        computed_on = row.device, row.device_name, row.threads
        if (device := devices.get(computed_on)) is None:
            threads = "" if row.device != "cpu" else f", {counted(row.threads, 'thread')}"
            device = devices[computed_on] = f"{row.device_name}{threads}"
        old = row.device == "cpu" and row.threads > 1 and not mates.config.get("where", {}).get("cores")
        key = CostKey(mates.label, mates.dataset, run.ipc, mates.network, run.protocol, device, old)
        groups.setdefault(key, []).append((row, trained, of_run.trained))
    axes = ("method", "dataset", "ipc", "network", "protocol")
    keys = sorted(groups, key=lambda key: (order(axes, key[:5]), key[5:]))
    made = [_cost(key, groups[key]) for key in keys]
    if len({key.in_each_operation for key in keys}) < 2:
        return made
    said = [" in each operation" if key.in_each_operation else "" for key in keys]
    return [replace(one, device=one.device + words) for one, words in zip(made, said, strict=True)]


def _cost(key: CostKey, group: Sequence[tuple[Computed, Trained, int]]) -> MethodCost:
    rows = [row for row, _, _ in group]
    made = [row for row in rows if row.distil_seconds is not None]
    return MethodCost(
        method=key.method,
        dataset=key.dataset,
        ipc=key.ipc,
        network=key.network,
        protocol=key.protocol,
        experts_seconds=max(row.experts_seconds or 0.0 for row in rows),
        distil_seconds=median(row.distil_seconds or 0.0 for row in made) if made else None,
        distil_peak_bytes=int(median(row.distil_peak or 0 for row in made)) if made else 0,
        evaluate_seconds=median(trained.seconds or 0.0 for _, trained, _ in group),
        evaluate_peak_bytes=int(median(trained.peak_memory_bytes or 0 for _, trained, _ in group)),
        device=key.device,
        distil_joules=_median([row.distil_joules for row in made]),
        evaluate_joules=_median(
            [None if row.evaluate_joules is None else row.evaluate_joules / count for row, _, count in group]
        ),
        shared=any(known) if (known := [row.shared for row in rows if row.shared is not None]) else None,
        on_gpu=rows[0].device != "cpu",
        runs=len(group),
        experts_used=sum(row.experts_seconds is not None for row in rows),
        experts_trained=sum(row.experts_trained for row in rows),
    )


def _median(values: Sequence[float | None]) -> float | None:
    """None: one of them is not known, or there are none."""
    known = [value for value in values if value is not None]
    return median(known) if known and len(known) == len(values) else None
