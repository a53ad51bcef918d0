"""What metrics are called, and how their values are written."""

import math
import re
from functools import cache
from typing import Any

import pytest

from dambench.core import registry
from dambench.core.events import Metric
from dambench.report import labels, wording
from dambench.report.labels import KINDS, TEXTS, WORDS, label_of
from dambench.store.cells import Cell, Score
from dambench.store.metrics import MetricRow
from tests.ledger import CARD


def _row(name: str, unit: str = "") -> MetricRow:
    evaluator, _, metric = name.partition(".")
    return MetricRow(evaluator, metric, unit, "higher", "")


@cache
def _built_in() -> dict[str, MetricRow]:
    """Everything that our evaluators measure by their usual options, by its full name."""
    found = {}
    for evaluator in registry.names("evaluators"):
        plugin: Any = registry.load("evaluators", evaluator)
        metrics: dict[str, Metric] = dict(plugin.METRICS)
        metrics |= plugin.metrics_of(plugin.Options()) | plugin.further_metrics(CARD)
        for name, one in metrics.items():
            row = MetricRow(evaluator, name, one.unit, one.better, one.description)
            found[row.full_name] = row
    return found


def test_every_metric_of_ours_has_a_label_that_no_other_of_its_evaluator_has() -> None:
    labels: dict[tuple[str, str], str] = {}
    for name, row in _built_in().items():
        assert any(re.fullmatch(pattern, name) for pattern in TEXTS), f"no label in dambench/report/labels.py: {name}"
        text = wording.metric_label(row)
        assert text[0].isupper() or text == "k"
        assert "_" not in text
        assert labels.setdefault((row.evaluator, text), name) == name


def test_no_label_is_of_a_metric_that_there_is_not() -> None:
    names = [*_built_in(), "accuracy.auc", "robustness.pgd_l2_1"]
    names += [f"privacy.{attack}_tpr_1" for attack in ("loss", "own", "lira", "own_lira")]
    for pattern in [*TEXTS, *KINDS, *WORDS]:
        if pattern != "privacy.compared":
            assert any(re.fullmatch(pattern, name) for name in names), pattern


@pytest.mark.parametrize(
    ("name", "unit", "label"),
    [
        ("accuracy.accuracy", "fraction", "Accuracy in %"),
        ("time.accuracy_at_1", "fraction", "Accuracy after 1 % of the epochs, in %"),
        ("time.seconds_to_90", "seconds", "Time to an accuracy of 90 %, in s"),
        ("robustness.pgd_linf_8", "fraction", "Accuracy under PGD Linf 8/255, in %"),
        ("robustness.pgd_l2_0-25", "fraction", "Accuracy under PGD L2 0.25, in %"),
        (
            "robustness.transfer_convnet-d1-w8_linf_8",
            "fraction",
            "Accuracy under Linf 8/255 made for convnet-d1-w8, in %",
        ),
        ("continual.memory_bytes", "", "Memory in kB"),
        ("continual.memory_bytes", "bytes", "Memory in kB"),
        ("theirs.macro_f1_of_mine", "fraction", "Macro F1 of mine in %"),
        ("theirs.size", "bytes", "Size in GB"),
    ],
)
def test_a_label_names_the_unit_that_values_are_written_in(name: str, unit: str, label: str) -> None:
    assert wording.metric_label(_row(name, unit)) == label


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("robustness.linf", [8, 32], "Linf of 8 and 32/255"),
        ("robustness.l2", [0.5], "L2 of 0.5"),
        ("robustness.transfer_from", [], "transfer from none"),
        ("privacy.halves", 0, "without LiRA"),
        ("privacy.halves", 4, "4 sets of halves"),
        ("nas.reference_images", 5000, "the reference on 5,000 real images"),
        ("theirs.some_option", True, "some option true"),
    ],
)
def test_an_option_of_an_evaluator_is_told_of_in_words(option: str, value: object, text: str) -> None:
    evaluator, _, name = option.partition(".")
    assert labels.option_in_words(evaluator, name, value) == text


@pytest.mark.parametrize(
    ("name", "unit", "value", "text"),
    [
        ("accuracy.accuracy", "fraction", 0.5255, "52.5"),
        ("time.train_seconds", "seconds", 1.23456, "1.235"),
        ("continual.memory_bytes", "", 76_880.0, "76.9"),
        ("continual.memory_images", "", 1.0, "1"),
        ("continual.memory_images", "", 10.5, "10.5"),
        ("privacy.members", "", 48_000.0, "48,000"),
        ("privacy.members", "", 0.0, "0"),
        ("nas.tau_b", "", 0.83, "0.830"),
        ("nas.tau_b", "", 1.0, "1.000"),
        ("theirs.count", "", 12.0, "12"),
        ("theirs.count", "", 1234.5, "1,234"),
        ("theirs.bytes", "bytes", 2.5e9, "2.50"),
        ("accuracy.accuracy", "fraction", math.nan, "–"),
    ],
)
def test_values_are_written_in_the_unit_of_their_label(name: str, unit: str, value: float, text: str) -> None:
    assert wording.figure(_row(name, unit), value) == text


def test_values_that_stand_for_words_are_written_as_these() -> None:
    status = _built_in()["nas.status"]
    # The description of the metric tells the same words.
    for value, word in WORDS["nas.status"].items():
        assert f"{value:g} {word}" in status.description

    def cell(*values: float) -> Cell:
        scores = [
            Score("dm", "digits", 1, "n", "p", {"status": value}, "dm", "", "", f"set{at}", "d", f"run{at}")
            for at, value in enumerate(values)
        ]
        return Cell(tuple(scores), status)

    assert wording.entry(cell(0, 0)).number == "trained"
    assert wording.entry(cell(0, 4, 0)).number == "2 trained, 1 cannot be built"
    assert label_of(status).in_unit == "Status"
