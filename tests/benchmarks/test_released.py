"""The page of released sets: its numbers are those of the database and of the claims."""

import math
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.released import half_by_network, page
from dambench.core import claims, files
from dambench.core.claims import Claims
from dambench.published.audit import AuditLine
from dambench.store.runs import Store
from tests.ledger import add, config

NETWORK = "convnet-d1-w8"


def test_the_page_has_published_measured_and_gap_by_set_and_by_network(tmp_path: Path) -> None:
    measured = {0: [0.50, 0.52], 1: [0.60, 0.64]}
    claimed = {0: [0.49, 0.51, 0.53], 1: [0.61, 0.62, 0.63]}
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        for seed, accuracies in measured.items():
            add(store, config("imported", seed=seed), accuracies)
        (sets,) = ([row["sha256"] for row in store.query("select sha256 from artifacts order by run")],)
    for sha256, accuracies in zip(sets, claimed.values(), strict=True):
        files.set_path(sha256).parent.mkdir(parents=True, exist_ok=True)
        claims.keep(sha256, Claims(file="res.pt", accuracies={NETWORK: accuracies, "lenet": [0.9]}))
    text = page([tmp_path / "runs.db"])
    assert "## res.pt: digits, IPC 1, protocol quick#" in text
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {NETWORK}") and "×" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    # Means of set means 56.5 and 56.5; gaps of the sets 0 and 0.
    assert cells[1].startswith("56.50 ± ")
    assert cells[1].endswith("(2×3)")
    assert cells[2].endswith("(2×2)")
    assert cells[3] == "+0.00"
    assert cells[5] == cells[7] == "yes"
    assert "Not measured: lenet on 2 of 2 sets." in text
    assert "2 of" not in text.split("## What was run")[0].replace("2 of 2 sets", "")
    assert "dambench run\n        # digits IPC 1: 1 of convnet-d1-w8, seed 0, 1" in text


def test_the_interval_by_network_pools_the_variance_of_networks_on_one_set() -> None:
    lines = [
        AuditLine("mlp", "dc#0000", (0.1, 0.2, 0.3), (0.4, 0.6)),
        AuditLine("mlp", "dc#0000", (0.5, 0.7), (0.2, 0.4)),
    ]
    # Sums of squares 0.02, 0.02, 0.02, 0.02 on 2 + 1 + 1 + 1 degrees of freedom; t(5) = 2.570581835636314.
    error = math.sqrt(0.08 / 5 * (1 / 3 + 1 / 2 + 1 / 2 + 1 / 2)) / 2
    assert half_by_network(lines) == pytest.approx(2.570581835636314 * error)
    assert half_by_network([AuditLine("mlp", "dc#0000", (0.1,), (0.2,))]) is None
