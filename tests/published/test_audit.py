"""The audit of imported sets: what a file claims, for which of its sets, and whether the networks here agree."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dambench.cli.app import run_cli
from dambench.core import claims, files
from dambench.core.claims import Claims
from dambench.engine import imports
from dambench.published.audit import AuditLine, half_interval
from dambench.testing import data_card
from tests.lab import noise

CARD = data_card(mirrors=False)
"""Three classes, 1 × 8 × 8."""

LABELS = torch.tensor([0, 1, 2])

NETWORK = "convnet-d1-w4"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DAMBENCH_DB", str(tmp_path / "runs.db"))
    return tmp_path


def saved(path: Path, accuracies: object, sets: int = 1, protocol: int = 2) -> Path:
    """A file as the code of DC writes it."""
    data = [[noise(3, 1, 8, 8, dtype=torch.float32) + number, LABELS] for number in range(sets)]
    torch.save({"data": data, "accs_all_exps": accuracies}, path / "res.pt", pickle_protocol=protocol)
    return path / "res.pt"


def claimed(path: Path, **how: Any) -> list[dict[str, list[float]]]:
    return [each.accuracies if each else {} for each in imports.read(path, CARD, **how).claims]


@pytest.mark.parametrize("kind", [float, np.float64, np.float32, np.float16])
@pytest.mark.parametrize("protocol", [2, 4])
def test_claims_are_read_as_numbers_of_any_kind(tmp_path: Path, kind: type, protocol: int) -> None:
    path = saved(tmp_path, {"LeNet": [kind(0.25), kind(0.75)]}, protocol=protocol)
    (accuracies,) = claimed(path)
    assert accuracies == {"LeNet": [0.25, 0.75]}  # no LeNet is for images of 8 × 8


def test_scalars_of_another_order_of_bytes_are_the_same_numbers(tmp_path: Path) -> None:
    scalar = np.dtype(">f8").type(0.3)
    assert claimed(saved(tmp_path, {"ConvNetD1": [scalar]})) == [{"convnet-d1-w128": [0.3]}]


def test_each_set_of_a_file_has_its_own_part_of_the_claims_in_their_order(tmp_path: Path) -> None:
    path = saved(tmp_path, {"MLP": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], "ConvNetD2": [0.7, 0.8, 0.9]}, sets=3)
    assert claimed(path)[1] == {"mlp-d2-w128": [0.3, 0.4], "convnet-d2-w128": [0.8]}
    assert claimed(path, experiment=2) == [{"mlp-d2-w128": [0.5, 0.6], "convnet-d2-w128": [0.9]}]


@pytest.mark.parametrize(
    "accuracies",
    [
        {"MLP": [91.7, 92.0]},  # percent
        {"MLP": [0.5, float("nan")]},
        {"MLP": [0.5, 0.6, 0.7]},  # of two sets
        {"MLP": "all"},
        {"MLP": [0.5, True]},
        {str(number): [0.5, 0.5] for number in range(101)},
    ],
)
def test_claims_that_cannot_be_given_to_sets_are_left_out_with_a_note(tmp_path: Path, accuracies: object) -> None:
    reading = imports.read(saved(tmp_path, accuracies, sets=2), CARD)
    assert reading.claims == (None, None)
    assert "are not used: they are not fractions, or not as many for each of its 2 sets" in " ".join(reading.notes)


def test_a_file_without_claims_is_imported_as_ever(tmp_path: Path) -> None:
    assert imports.read(saved(tmp_path, {}), CARD).claims == (None,)
    assert imports.read(saved(tmp_path, [0.5]), CARD).claims == (None,)


def test_claims_stay_with_the_set_also_when_a_file_without_any_is_imported_again(tmp_path: Path) -> None:
    one = Claims(file="res.pt", accuracies={"mlp": [0.5, 0.7]})
    (synthetic,) = imports.read(saved(tmp_path, {}), CARD).sets
    sha256 = imports.keep(synthetic)
    assert claims.find(sha256) is None
    imports.keep(synthetic, one)
    imports.keep(synthetic)
    assert claims.find(sha256) == one
    assert one.text() == "mlp 60.00 ± 14.14 % (2)"


@pytest.mark.parametrize("content", [b"", b"{", b'{"file": "x", "accuracies": {"mlp": [2.0]}}', b"\xff"])
def test_a_mark_that_says_nothing_is_no_claim(tmp_path: Path, content: bytes) -> None:
    (synthetic,) = imports.read(saved(tmp_path, {}), CARD).sets
    sha256 = imports.keep(synthetic)
    files.mark_imported(sha256, content)
    assert claims.find(sha256) is None
    assert claims.find("0" * 64) is None


def test_the_interval_is_students_with_pooled_variance() -> None:
    # Claimed 0.1, 0.2, 0.3 (sum of squares 0.02) and measured 0.4, 0.6 (0.02): s² = 0.04 / 3, t(3) = 3.18245.
    expected = 3.182446305284263 * math.sqrt(0.04 / 3 * (1 / 3 + 1 / 2))
    assert half_interval([0.1, 0.2, 0.3], [0.4, 0.6]) == pytest.approx(expected)
    # One network is judged by the spread of the others: t(2) = 4.30265.
    alone = 4.302652729911275 * math.sqrt(0.01 * (1 / 3 + 1))
    assert half_interval([0.1, 0.2, 0.3], [0.2]) == pytest.approx(alone)
    assert half_interval([0.5], [0.5]) is None


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        ((0.505, 0.515), "gap +0.50 ± "),
        ((0.505, 0.515), ": consistent"),
        ((0.905, 0.915), ": not consistent"),
        ((0.4,), "measured 40.00 % (1)"),
    ],
)
def test_a_line_has_claim_measurement_gap_and_verdict(measured: tuple[float, ...], words: str) -> None:
    line = AuditLine("mlp", "dc#1234", (0.50, 0.51, 0.505), measured)
    assert line.text.startswith("mlp under dc#1234: claimed 50.50 ± 0.50 % (3), measured ")
    assert words in line.text


def test_one_network_on_each_side_tells_nothing() -> None:
    assert "too few networks to tell" in AuditLine("mlp", "dc#1234", (0.5,), (0.9,)).text


def test_a_run_of_an_imported_set_prints_the_audit_and_show_does_so_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, labels = noise(10, 1, 8, 8, dtype=torch.float32), torch.arange(10)
    accuracies = {NETWORK: [0.9, 0.91, 0.92], "ResNet50": [0.5]}
    torch.save({"data": [[images, labels]], "accs_all_exps": accuracies}, tmp_path / "res.pt")
    assert run_cli(["import", str(tmp_path / "res.pt"), "--dataset", "digits", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert "to check them, pass that one" in " ".join(facts["notes"])
    assert facts["claims"] == [{NETWORK: [0.9, 0.91, 0.92], "ResNet50": [0.5]}]
    words = [*("run", "--headless", "--dataset", "digits", "--method", "imported", "--eval-repeats", "1", "--json")]
    words += ["--device", "cpu", "--set", f"method.set={facts['sha256']}", "--evaluate-on", NETWORK]
    assert run_cli(words) == 0
    printed = capsys.readouterr()
    assert "res.pt claims, under a protocol that it does not state: convnet-d1-w4 91.00 ± 1.00 % (3)" in printed.err
    assert "audit (the claim's protocol is not stated): convnet-d1-w4 under quick#" in printed.err
    assert "claimed 91.00 ± 1.00 % (3), measured" in printed.err
    assert "not consistent" in printed.err  # noise is no set
    run = json.loads(printed.out)["run"]
    assert run_cli(["show", run]) == 0
    assert "not consistent" in capsys.readouterr().out
    assert run_cli(["show", run, "--json"]) == 0
    (line,) = json.loads(capsys.readouterr().out)["audit"]
    assert (line["network"], line["claimed"], line["consistent"]) == (NETWORK, [0.9, 0.91, 0.92], False)
    assert len(line["measured"]) == 1
