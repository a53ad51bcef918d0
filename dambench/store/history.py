"""Runs of the past, for one that has not begun: what it would take, and which are like it."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import msgspec

from dambench.core.config import RunConfig
from dambench.core.events import SKIPPED
from dambench.core.hard_labels import hard_twin, used
from dambench.core.sanitize import counted
from dambench.store.rows import SqlRow
from dambench.store.runs import Store
from dambench.store.set_bytes import set_bytes
from dambench.store.statistics import mean

MOST = 5_000
"""Runs, the newest, among which similar ones are looked for."""

DATA = "the data"
"""The same name need not mean the same images."""

LOGGED_BYTES = 500
"""An event or a sample in the database, indices included."""


@dataclass(frozen=True)
class Expected:
    """The cost of a run of this kind on one device: medians over runs that finished."""

    device: str
    runs: int
    distil_seconds: float
    """Scaled by the number of iterations."""
    evaluate_seconds: float | None
    """For all networks that would be trained; None: none was yet under this protocol."""
    iteration_seconds: float | None
    """None: the method has no iterations."""
    peak_memory_bytes: int
    disk_bytes: int
    twin_seconds: float = 0.0
    """For the networks of its hard-label twin; 0: their sets carry nothing that their protocol uses."""

    def phases(self, *, hard_twin: bool) -> dict[str, float] | None:
        """Seconds by phase, as an estimate has them; None: how long its networks take is not known.

        Args:
            hard_twin: whether the run is to have its twin.
        """
        if self.evaluate_seconds is None:
            return None
        phases = {"distil": self.distil_seconds, "evaluate": self.evaluate_seconds}
        return phases | ({"hard twin": self.twin_seconds} if hard_twin and self.twin_seconds else {})


@dataclass(frozen=True)
class Similar:
    """A run that is the same, or nearly."""

    run: str
    state: str
    differs: dict[str, tuple[Any, Any]]
    """By setting: the run's, and the one asked for. Empty: it is the very same."""


def expected(store: Store, config: RunConfig, dataset_sha256: str) -> list[Expected]:
    """Estimate the cost of a run by device of the kind that it would use, the one used last first."""
    rows = store.query(
        """
        select runs.number, runs.config, runs.set_sha256, environments.device_name, environments.threads, costs.seconds,
            (select max(peak_memory_bytes) from costs where run = runs.number) as peak,
            (select coalesce(sum(bytes + length(preview)), 0) from artifacts where run = runs.number) as bytes,
            (select count(*) from events where run = runs.number) +
            (select count(*) from samples where run = runs.number) as logged
        from runs
            join environments on environments.run = runs.number
            join costs on costs.run = runs.number and costs.phase = 'distil'
        where runs.state = 'finished' and runs.deleted_at = '' and runs.method = ? and runs.dataset_sha256 = ?
            and runs.ipc is ? and runs.network = ? and (environments.device = 'cpu') = ?
        order by runs.number desc
        """,
        config.method.name,
        dataset_sha256,
        config.ipc,
        config.network,
        int(config.execution.device == "cpu"),
    )
    groups: dict[str, list[SqlRow]] = {}
    for row in rows:
        threads = f", {counted(row['threads'], 'thread')}" if config.execution.device == "cpu" else ""
        groups.setdefault(f"{row['device_name']}{threads}", []).append(row)
    iterations = config.iterations
    by_device = []
    for device, group in groups.items():
        evaluation = _evaluation(store, config, [row["number"] for row in group])
        each = [row["seconds"] / max(1, _iterations(json.loads(row["config"])["method"]["options"])) for row in group]
        by_device.append(
            Expected(
                device=device,
                runs=len(group),
                distil_seconds=median(each) * max(1, iterations),
                evaluate_seconds=None if evaluation is None else evaluation * _judgements(config),
                iteration_seconds=median(each) if iterations else None,
                peak_memory_bytes=int(median(row["peak"] or 0 for row in group)),
                disk_bytes=int(median(row["bytes"] + LOGGED_BYTES * row["logged"] for row in group)),
                twin_seconds=(evaluation or 0.0) * _twin(store, config, group[0]["set_sha256"]),
            )
        )
    return by_device


def _iterations(options: dict[str, Any]) -> int:
    return int(options.get("iterations") or 0)


def _evaluation(store: Store, config: RunConfig, numbers: Sequence[int]) -> float | None:
    """Seconds to train and test all networks on one set of a run, going by those that these runs trained."""
    times: dict[str, list[float]] = {}
    for row in store.query(
        f"select network, seconds from scores where protocol_sha256 = ? and run in ({','.join('?' * len(numbers))})",
        config.protocol.sha256,
        *numbers,
    ):
        times.setdefault(row["network"], []).append(row["seconds"])
    if not set(config.evaluate_on) <= set(times):
        return None
    return config.eval_repeats * sum(median(times[network]) for network in config.evaluate_on)


def _judgements(config: RunConfig) -> int:
    """How many sets of a run are evaluated."""
    iterations = config.iterations
    return 1 + ((iterations - 1) // config.evaluate_every if config.evaluate_every and iterations else 0)


def _twin(store: Store, config: RunConfig, set_sha256: str | None) -> float:
    """How many times as long as its networks those of a run's hard-label twin take; 0: it has none.

    Args:
        set_sha256: a set of such a run, which tells what they carry.
    """
    twin = hard_twin(config.protocol)
    known = None if set_sha256 is None else set_bytes(store.query, [set_sha256]).get(set_sha256)
    if twin is None or known is None or not used(config.protocol, known.carries):
        return 0.0
    return twin.synthetic.epochs / config.protocol.synthetic.epochs


def similar(
    store: Store, config: RunConfig, seeds: Iterable[int], dataset_sha256: str
) -> tuple[list[Similar], list[Similar]]:
    """Runs of this very configuration under one of these seeds; and those that differ in one setting.

    A run that differs in its seed alone is neither: it is of the same kind, and counted with it.
    """
    ours = settings(config) | {DATA: dataset_sha256[:8]}
    wanted_seeds = set(seeds)
    same, near = [], []
    for row in store.query(
        "select id, state, config, dataset_sha256 from runs where deleted_at = '' and method = ? "
        "order by number desc limit ?",
        config.method.name,
        MOST,
    ):
        try:
            past = msgspec.json.decode(row["config"], type=RunConfig)
            if past.evaluates != config.evaluates:  # it only evaluated what another one had made
                continue
            theirs = settings(past)
            theirs[DATA] = row["dataset_sha256"][:8]
        except msgspec.DecodeError:  # of a dambench that knows other settings
            continue
        differs = {key: (theirs.get(key), ours.get(key)) for key in ours | theirs if ours.get(key) != theirs.get(key)}
        seed = differs.pop("seed", (config.seed, config.seed))[0]
        if not differs and seed in wanted_seeds:
            same.append(Similar(row["id"], row["state"], {}))
        elif len(differs) == 1:
            near.append(Similar(row["id"], row["state"], differs))
    return same, near


def settings(config: RunConfig) -> dict[str, Any]:
    """Everything that a run depends on, flat: `method.iterations` and the like."""
    flat: dict[str, Any] = {}
    for name, value in msgspec.to_builtins(config).items():
        if name in ("method", "dataset", "evaluator"):
            flat[name] = value["name"]
            flat |= {f"{name}.{option}": setting for option, setting in value["options"].items()}
        elif name == "protocol":
            flat[name] = config.protocol.label
        elif name == "evaluate_on":
            flat[name] = ", ".join(value)
        elif name != "where":
            flat[name] = value
    return flat


Line = list[tuple[float, float]]
"""Iterations, and the value at each, NaN and infinities too."""


def losses(store: Store, run: str) -> dict[str, Line]:
    """The losses of a run by name, as they were logged: NaN and infinities, too."""
    lines: dict[str, Line] = {}
    for row in store.query(
        "select body from events where kind = 'stepped' and run = (select number from runs where id = ?) "
        "order by sequence",
        run,
    ):
        step = json.loads(row["body"])
        for name, value in step["losses"].items():
            if name == SKIPPED and not value:
                continue
            lines.setdefault(name, []).append((step["iteration"], float(value)))
    return lines


def accuracies(store: Store, run: str) -> dict[str, Line]:
    """The mean accuracy on each set, by evaluation network."""
    by_network: dict[str, dict[int, list[float]]] = {}
    for row in store.query(
        "select network, iteration, accuracy from scores where run = (select number from runs where id = ?) "
        "order by iteration",
        run,
    ):
        by_network.setdefault(row["network"], {}).setdefault(row["iteration"], []).append(
            math.nan if row["accuracy"] is None else row["accuracy"]
        )
    return {network: [(at, mean(values)) for at, values in by.items()] for network, by in by_network.items()}
