"""The checksum of a finished run's results: whether the figures are still those that were measured.

SQLite has no checksums of what its pages hold: a bit that flips in a number, or a hand that changes it, goes unseen.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from dambench.core import files

RUN = ("config_sha256", "dataset_sha256", "result_sha256")
"""Of the run: what was asked, of which data, and the set that came of it."""

SCORE = (
    *("iteration", "network", "protocol_sha256", "repeat", "accuracy", "balanced_accuracy", "loss", "loss_state"),
    *("train_accuracy", "seconds", "peak_memory_bytes", "set_sha256"),
)

SCORES = """
    select runs.number, runs.id, config_sha256, dataset_sha256, runs.set_sha256 as result_sha256, results_sha256,
        scores.*
    from runs left join scores on scores.run = runs.number and scores.final = 1
"""
"""What the checksum is of: a row per final score, or one without any."""


def checksum(rows: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256 over the final scores of one run, as the database has them, whatever their order.

    Args:
        rows: the fields of RUN and SCORE, one row per score; at least one.
    """
    found = list(rows)
    scores = sorted([row[name] for name in SCORE] for row in found if row["network"] is not None)
    return files.digest(json.dumps([[found[0][name] for name in RUN], scores]).encode())


def damaged(rows: Iterable[Mapping[str, Any]]) -> dict[int, str]:
    """The runs whose results are not those of their checksum: number → id.

    Args:
        rows: of finished runs, as SCORES gives them. Runs that finished before there were checksums have none.
    """
    runs: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["results_sha256"]:
            runs.setdefault(row["number"], []).append(row)
    return {number: run[0]["id"] for number, run in runs.items() if checksum(run) != run[0]["results_sha256"]}
