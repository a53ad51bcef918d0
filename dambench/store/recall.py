"""Accuracies that are on record: of networks that another run has trained on the same set in the same way."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from dambench.core.config import RunConfig
from dambench.store.results import damaged
from dambench.store.runs import Store

Recall = Callable[[str, str, str, int], float | None]
"""The set's SHA-256, the protocol's, a network and a repeat → its accuracy; None: there is none on record."""


def recall(store: Store, config: RunConfig, dataset_sha256: str) -> Recall:
    """Look accuracies up in finished runs of the same data, seed, preprocessing, precision and kind of device.

    The newest one counts, as in tables. A run whose results are not those of their checksum is left out.
    """

    def look(set_sha256: str, protocol_sha256: str, network: str, repeat: int) -> float | None:
        if any(plugin.kind == "networks" for plugin in config.plugins):
            return None  # it may have been other code
        rows = store.query(
            f"""
            select runs.number, runs.config, value from evaluations
                join measurements using (run, iteration, evaluator, subject, repeat)
                join runs on runs.number = evaluations.run
            where evaluations.set_sha256 = ? and evaluations.protocol_sha256 = ? and evaluations.subject = ?
                and evaluations.repeat = ? and evaluations.evaluator = 'accuracy' and metric = 'accuracy' and final = 1
                and value is not null and runs.state = 'finished' and runs.deleted_at = '' and runs.seed = ?
                and runs.dataset_sha256 = ?
            order by {store.by_age(newest_first=True)}
            """,
            *(set_sha256, protocol_sha256, network, repeat, config.seed, dataset_sha256),
        )
        for row in rows:
            if alike(json.loads(row["config"]), config) and not damaged(
                store.query, "runs.number = ?", (row["number"],)
            ):
                return float(row["value"])
        return None

    return look


def alike(found: Mapping[str, Any], config: RunConfig, version: int = 1) -> bool:
    """Whether what an accuracy depends on besides set, protocol, network and seed is the same."""
    held_out = (found.get("held_out") or {}).get("sha256", "")
    device = found.get("where", {}).get("device", "cpu")
    return (
        found.get("preprocessing", "mean/std") == config.preprocessing
        and held_out == (config.held_out.sha256 if config.held_out else "")
        and _tested_in(found.get("precision", "fp32"), device) == _tested_in(config.precision, config.execution.device)
        and device.partition(":")[0] == config.execution.device.partition(":")[0]
        and not any(plugin.get("kind") == "networks" for plugin in found.get("plugins", []))
        and found.get("evaluator_version", 1) == version
    )


def _tested_in(precision: str, device: str) -> str:
    """bf16 is of making a set alone: its networks are tested as the device does by default."""
    return precision if precision != "bf16" else "fp32" if device == "cpu" else "tf32"
