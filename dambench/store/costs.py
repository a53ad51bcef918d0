"""What runs took: seconds and memory of each method, median over its runs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from dambench.core.sanitize import counted
from dambench.store.cells import order
from dambench.store.metrics import MetricRow
from dambench.store.row_names import EvaluatedRun
from dambench.store.rows import SqlRow
from dambench.store.runs import Store


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


def costs(store: Store, entries: Sequence[EvaluatedRun], metric: MetricRow) -> list[MethodCost]:
    """One for each method, dataset, IPC, trained network, protocol and device.

    Args:
        entries: runs by trained networks, the newest first.
        metric: whose evaluator trained them.
    """
    rows = store.query(
        """
        select runs.number, runs.protocol, scores.subject as network, device_name, threads, device,
            distil.seconds as distil_seconds, distil.peak_memory_bytes as distil_peak,
            experts.seconds as experts_seconds,
            experts.seconds is not null and exists (select 1 from events where events.run = runs.number
                and kind = 'warned' and json_extract(body, '$.message') like '% experts of % are trained, for %'
            ) as experts_trained,
            distil.joules as distil_joules, evaluate.joules as evaluate_joules,
            max(coalesce(distil.shared, evaluate.shared), coalesce(evaluate.shared, distil.shared)) as shared,
            (select count(*) from evaluations where run = runs.number) as trained,
            avg(scores.seconds) as evaluate_seconds, max(scores.peak_memory_bytes) as evaluate_peak
        from runs
            join environments on environments.run = runs.number
            left join costs as distil on distil.run = runs.number and distil.phase = 'distil'
            left join costs as evaluate on evaluate.run = runs.number and evaluate.phase = 'evaluate'
            left join costs as experts on experts.run = runs.number and experts.phase = 'experts'
            join evaluations as scores on scores.run = runs.number and scores.evaluator = ?
        where runs.number in (select value from json_each(?))
        group by runs.number, scores.subject
        """,
        metric.evaluator,
        json.dumps(sorted({entry.run.number for entry in entries})),
    )
    by_run = {(row["number"], row["network"]): row for row in rows}
    groups: dict[CostKey, list[SqlRow]] = {}
    for entry in reversed(entries):
        if row := by_run.get((entry.run.number, entry.network)):
            threads = "" if row["device"] != "cpu" else f", {counted(row['threads'], 'thread')}"
            device = f"{row['device_name']}{threads}"
            key = CostKey(entry.label, entry.dataset, entry.run.ipc, row["network"], row["protocol"], device)
            groups.setdefault(key, []).append(row)
    axes = ("method", "dataset", "ipc", "network", "protocol")
    return [_cost(key, groups[key]) for key in sorted(groups, key=lambda key: (order(axes, key[:5]), key[5]))]


def _cost(key: CostKey, group: Sequence[SqlRow]) -> MethodCost:
    made = [row for row in group if row["distil_seconds"] is not None]
    return MethodCost(
        method=key.method,
        dataset=key.dataset,
        ipc=key.ipc,
        network=key.network,
        protocol=key.protocol,
        experts_seconds=max(row["experts_seconds"] or 0.0 for row in group),
        distil_seconds=median(row["distil_seconds"] for row in made) if made else None,
        distil_peak_bytes=int(median(row["distil_peak"] for row in made)) if made else 0,
        evaluate_seconds=median(row["evaluate_seconds"] for row in group),
        evaluate_peak_bytes=int(median(row["evaluate_peak"] for row in group)),
        device=key.device,
        distil_joules=_median([row["distil_joules"] for row in made]),
        evaluate_joules=_median(
            [None if row["evaluate_joules"] is None else row["evaluate_joules"] / row["trained"] for row in group]
        ),
        shared=any(known) if (known := [row["shared"] for row in group if row["shared"] is not None]) else None,
        on_gpu=group[0]["device"] != "cpu",
        runs=len(group),
        experts_used=sum(row["experts_seconds"] is not None for row in group),
        experts_trained=sum(row["experts_trained"] for row in group),
    )


def _median(values: Sequence[float | None]) -> float | None:
    """None: one of them is not known, or there are none."""
    known = [value for value in values if value is not None]
    return median(known) if known and len(known) == len(values) else None
