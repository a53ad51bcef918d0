"""Per class, macro-F1, calibration, AUC and the spread over classes, against cases computed by hand and by others."""

import math

import pytest
import torch
from msgspec.structs import replace
from sklearn import metrics as sklearn_metrics

from dambench.evaluators import _classification as classification
from dambench.testing import data_card


def random_logits(classes: int, images: int = 200, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (images,), generator=generator)
    logits = torch.randn(images, classes, generator=generator)
    return logits + 1.5 * torch.nn.functional.one_hot(labels, classes), labels


def counted(logits: torch.Tensor, labels: torch.Tensor) -> tuple[list[int], list[int], list[int]]:
    answers, classes = logits.argmax(1), logits.shape[1]
    hits = [int(((answers == c) & (labels == c)).sum()) for c in range(classes)]
    return hits, labels.bincount(minlength=classes).tolist(), answers.bincount(minlength=classes).tolist()


def test_macro_f1_is_that_computed_by_hand() -> None:
    # Class 0: 4 of 6 recognised, answered 6 times; class 1: 2 of 3, answered 3 times; class 2: none, answered once.
    expected = (2 * 4 / (6 + 6) + 2 * 2 / (3 + 3) + 0) / 3
    assert classification.macro_f1([4, 2, 0], [6, 3, 1], [6, 3, 1]) == pytest.approx(expected)


def test_a_class_without_images_has_no_say_in_macro_f1_and_one_that_is_never_answered_has_0() -> None:
    assert classification.macro_f1([2, 0, 0], [2, 0, 2], [3, 1, 0]) == pytest.approx((2 * 2 / 5 + 0) / 2)


def test_macro_f1_is_that_of_scikit_learn() -> None:
    logits, labels = random_logits(7)
    expected = sklearn_metrics.f1_score(labels, logits.argmax(1), average="macro")
    assert classification.macro_f1(*counted(logits, labels)) == pytest.approx(expected)


def test_calibration_error_is_that_computed_by_hand() -> None:
    # Confidences .9 (right), .9 (wrong) and .6 (right), with two bins' worth of them in bins 14 and 9 of 15.
    p = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    value = classification.calibration_error(p.log(), torch.tensor([0, 1, 1]))
    assert value == pytest.approx(2 / 3 * abs(0.5 - 0.9) + 1 / 3 * abs(1 - 0.6))


def test_calibration_error_is_that_of_a_slow_transcription_also_on_the_borders_of_bins() -> None:
    logits, labels = random_logits(3, 300, seed=4)
    exact = torch.tensor([[1 / 3, 1 / 3, 1 / 3], [1.0, 0.0, 0.0]]).clamp_min(1e-30).log()
    logits, labels = torch.cat([logits, exact]), torch.cat([labels, torch.tensor([2, 0])])
    bins: dict[int, list[tuple[float, float]]] = {}
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        exponentials = [math.exp(x - max(row)) for x in row]
        confidence = max(exponentials) / sum(exponentials)
        index = next(i for i in range(15) if confidence <= (i + 1) / 15 + 1e-6)
        bins.setdefault(index, []).append((confidence, float(row.index(max(row)) == label)))
    expected = sum(
        abs(sum(right for _, right in members) - sum(confidence for confidence, _ in members))
        for members in bins.values()
    ) / len(labels)
    assert classification.calibration_error(logits, labels) == pytest.approx(expected, abs=1e-6)


def test_perfect_confidence_in_right_answers_has_no_calibration_error_and_in_wrong_ones_all_of_it() -> None:
    logits = torch.tensor([[100.0, 0.0], [0.0, 100.0]])
    assert classification.calibration_error(logits, torch.tensor([0, 1])) == pytest.approx(0)
    assert classification.calibration_error(logits, torch.tensor([1, 0])) == pytest.approx(1)


def test_auc_is_that_computed_by_hand_ties_half() -> None:
    margins = torch.tensor([0.0, 1.0, 1.0, 2.0])
    logits = torch.stack([torch.zeros(4), margins], 1)
    # Of class 0: margins 0 and 1; of class 1: 1 and 2. Pairs: 1>0, 1=1, 2>0, 2>1.
    assert classification.auc(logits, torch.tensor([0, 0, 1, 1])) == (1 + 0.5 + 1 + 1) / 4


def test_auc_is_that_of_scikit_learn_whichever_class_is_positive() -> None:
    logits, labels = random_logits(2)
    logits = (logits * 2).round()  # so that there are ties
    expected = sklearn_metrics.roc_auc_score(labels, logits[:, 1] - logits[:, 0])
    assert classification.auc(logits, labels) == pytest.approx(expected)
    assert classification.auc(logits.flip(1), 1 - labels) == pytest.approx(expected)


def test_metrics_of_classes_are_named_as_the_classes_are_and_say_so() -> None:
    names = ["cat", "Traffic Light", "кот", "a/b", "a b", "none", "\x1b[31mred"]
    card = replace(data_card((3,) * 7, test_counts=(2, 2, 2, 2, 2, 0, 2)), classes=names)
    assert list(classification.class_metrics(card).values()) == [
        "class_cat",
        "class_traffic-light",
        "class_2",
        "class_a-b-3",
        "class_a-b-4",
        "class_31mred",
    ]
    described = classification.further_metrics(card)
    assert "auc" not in described
    assert described["class_2"].description == "share of the test images of class 'кот' that are recognised"
    assert "\x1b" not in described["class_31mred"].description


def test_where_a_class_is_called_as_another_with_its_number_numbers_are_their_names() -> None:
    card = replace(data_card((3,) * 3), classes=["a/b", "a b", "a b 0"])
    assert list(classification.class_metrics(card).values()) == ["class_0", "class_1", "class_2"]


def test_auc_is_measured_where_there_are_two_classes_both_with_test_images() -> None:
    assert "auc" in classification.further_metrics(data_card((3, 3)))
    assert "auc" not in classification.further_metrics(data_card((3, 3), test_counts=(4, 0)))
