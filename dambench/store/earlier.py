"""What was measured before of a set: by an evaluation that was interrupted, or by one of fewer networks or repeats."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from dambench.core.config import RunConfig
from dambench.core.events import Measured, Real
from dambench.core.items import Earlier, Look
from dambench.store.metrics import ACCURACY
from dambench.store.recall import alike
from dambench.store.results import damaged
from dambench.store.runs import Store
from dambench.store.statistics import mean

Machine = tuple[str, int]
"""What seconds depend on: the name of the device, and the threads of the process."""


def earlier(
    store: Store, config: RunConfig, dataset_sha256: str, run: str, *, repeatable: bool, machine: Machine
) -> Look:
    """Look up what runs have measured by the same evaluator, options, protocol, seed, preprocessing and precision.

    Runs that were interrupted count, too: what they have measured they have measured whole. Accuracies are left to
    each run, which has their networks trained under its own name.

    Args:
        run: the id of the run that asks; empty: it has not begun.
        repeatable: whether values do not depend on the machine; else those of other machines are left out.
        machine: this one.
    """

    def look(set_sha256: str) -> list[Earlier]:
        evaluator = config.evaluator.name
        rows = store.query(
            f"""
            select number, runs.id, runs.state, runs.config, environments.device_name, environments.threads
            from runs left join environments on environments.run = runs.number
            where number in (select run from evaluations where set_sha256 = ? and protocol_sha256 = ?
                and evaluations.evaluator = ? and final = 1) and runs.seed = ? and runs.dataset_sha256 = ?
                and (runs.deleted_at = '' or runs.id = ?)
            order by runs.id != ?, {store.by_age(newest_first=True)}
            """,
            *(set_sha256, config.protocol.sha256, evaluator, config.seed, dataset_sha256, run, run),
        )
        found = []
        for row in rows:
            own = row["id"] == run
            if not own and (
                evaluator == ACCURACY.evaluator
                or not _same_way(json.loads(row["config"]), config)
                or (not repeatable and (row["device_name"], row["threads"]) != machine)
                or damaged(store.query, "runs.number = ?", (row["number"],))
            ):
                continue
            found += [Earlier("" if own else row["id"], event) for event in _events(store, row["number"], set_sha256)]
        return found

    return look


def made_seconds(store: Store, set_sha256: str, machine: Machine) -> float | None:
    """What making a set took on this machine, experts included; None: it was made elsewhere, or is imported."""
    rows = store.query(
        """
        select total(costs.seconds) as seconds, device_name, threads from runs
            join environments on environments.run = runs.number join costs on costs.run = runs.number
        where runs.set_sha256 = ? and runs.state = 'finished' and costs.phase in ('experts', 'distil')
            and coalesce(json_extract(runs.config, '$.where.made'), '') = '' and runs.method != 'imported'
        group by runs.number order by runs.number desc
        """,
        set_sha256,
    )
    return next((row["seconds"] for row in rows if (row["device_name"], row["threads"]) == machine), None)


def past_seconds(store: Store, config: RunConfig, dataset_sha256: str, machine: Machine) -> dict[str, float]:
    """By subject, the mean seconds of an item in runs of the same evaluator, options, protocol, data and IPC here."""
    rows = store.query(
        """
        select subject, seconds, runs.config from evaluations
            join runs on runs.number = evaluations.run join environments on environments.run = runs.number
        where evaluations.evaluator = ? and evaluations.protocol_sha256 = ? and final = 1 and runs.deleted_at = ''
            and runs.dataset_sha256 = ? and runs.ipc is ? and device_name = ? and threads = ?
        """,
        *(config.evaluator.name, config.protocol.sha256, dataset_sha256, config.ipc, *machine),
    )
    seconds: dict[str, list[float]] = {}
    for row in rows:
        if json.loads(row["config"]).get("evaluator", {}).get("options", {}) == msgspec.to_builtins(
            config.evaluator.options
        ):
            seconds.setdefault(row["subject"], []).append(row["seconds"])
    return {subject: mean(each) for subject, each in seconds.items()}


def _same_way(found: Mapping[str, Any], config: RunConfig) -> bool:
    ours = msgspec.to_builtins(config)
    return (
        alike(found, config, config.evaluator_version)
        and found.get("evaluator", {}).get("options", {}) == ours["evaluator"]["options"]
        and _code(found) == _code(ours)
    )


def _code(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The evaluators from elsewhere that it was measured by."""
    return [plugin for plugin in config.get("plugins", []) if plugin["kind"] == "evaluators"]


def _events(store: Store, number: int, set_sha256: str) -> list[Measured]:
    """What a run has measured of a set, in the order of subjects and repeats."""
    values: dict[tuple[int, str, int], dict[str, Real]] = {}
    for row in store.query("select * from measurements where run = ?", number):
        key = row["iteration"], row["subject"], row["repeat"]
        values.setdefault(key, {})[row["metric"]] = row["state"] if row["value"] is None else row["value"]
    return [
        Measured(
            evaluator=row["evaluator"],
            subject=row["subject"],
            repeat=row["repeat"],
            iteration=row["iteration"],
            final=True,
            set_sha256=set_sha256,
            protocol_sha256=row["protocol_sha256"],
            seconds=row["seconds"],
            peak_memory_bytes=row["peak_memory_bytes"],
            values=values[row["iteration"], row["subject"], row["repeat"]],
        )
        for row in store.query(
            "select * from evaluations where run = ? and set_sha256 = ? and final = 1", number, set_sha256
        )
    ]
