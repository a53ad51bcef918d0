"""What can be counted of a network's answers on labelled images, beside accuracy.

Every figure is of the trained network's logits on the test images: none needs another training.
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from dambench.core.events import DataCard, Metric
from dambench.core.sanitize import display

BINS = 15
"""The number of bins of confidence, equally wide, as Guo et al. have them."""

LONGEST_NAME = 48
"""Characters of a class's name in that of its metric."""


def class_metrics(card: DataCard) -> dict[int, str]:
    """The name of the accuracy of each class that has test images: `class_cat`.

    It is made of the class's name, so that it means the same in every dataset that has such a class. Where two names
    come out alike, or one has nothing that can stand in a name, the class's number is added.
    """
    slugs = [re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")[:LONGEST_NAME] for name in card.classes]
    names = [
        f"class_{slug}" if slug and slugs.count(slug) == 1 else f"class_{slug}{'-' * bool(slug)}{index}"
        for index, slug in enumerate(slugs)
    ]
    if len(set(names)) < len(names):  # one class is called as another one with its number
        names = [f"class_{index}" for index in range(len(names))]
    return {index: name for index, name in enumerate(names) if card.test_counts[index]}


def further_metrics(card: DataCard) -> dict[str, Metric]:
    """Describe the metrics that depend on the classes: the accuracy of each, and AUC where there are two."""
    auc = {
        "auc": Metric(
            description="area under the ROC curve: how often a test image of the one class is ranked before one of the "
            "other, ties counted half"
        )
    }
    return (auc if has_auc(card) else {}) | {
        name: Metric(
            description=f"share of the test images of class {display(card.classes[index], 60)!r} that are recognised"
        )
        for index, name in class_metrics(card).items()
    }


def has_auc(card: DataCard) -> bool:
    return len(card.classes) == 2 and all(card.test_counts)


def recalls(hits: Sequence[int], counts: Sequence[int]) -> list[float | None]:
    """Share of each class's images that are recognised; None: it has none."""
    return [hit / count if count else None for hit, count in zip(hits, counts, strict=True)]


def macro_f1(hits: Sequence[int], counts: Sequence[int], answers: Sequence[int]) -> float:
    """Average F1, the harmonic mean of precision and recall, over the classes that have images.

    It is 2 · hits / (images + answers); of a class that is never answered 0.

    Args:
        hits: images of each class that are recognised.
        answers: how often each class was answered.
    """
    scores = [2 * hit / (count + answer) for hit, count, answer in zip(hits, counts, answers, strict=True) if count]
    return sum(scores) / len(scores)


def calibration_error(logits: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Expected calibration error: Σ over bins of (images in it / images) · |accuracy − mean confidence|.

    Confidence is the softmax probability of the class that is answered; bin i of n holds those in ((i − 1)/n, i/n].
    (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.)

    Args:
        logits: (N, classes), finite.
        labels: (N,) int64.
    """
    largest, answers = logits.max(1)
    confidence = (largest - logits.logsumexp(1)).double().exp().clamp(max=1).cpu()
    right = (answers == labels).double().cpu()
    index = (confidence * bins).ceil().long().sub(1).clamp(0, bins - 1)
    gaps = torch.bincount(index, right - confidence, minlength=bins).abs()
    return float(gaps.sum()) / len(labels)


def auc(logits: Tensor, labels: Tensor) -> float:
    """The probability that an image of class 1 has a higher margin for it than one of class 0; ties count half.

    That is the area under the ROC curve, and the same whichever class is called positive.

    Args:
        logits: (N, 2).
        labels: (N,) int64, both classes among them.
    """
    margins = (logits[:, 1] - logits[:, 0]).cpu()
    of_one, of_zero = margins[labels.cpu() == 1], margins[labels.cpu() == 0].sort().values
    below = torch.searchsorted(of_zero, of_one)
    up_to = torch.searchsorted(of_zero, of_one, right=True)
    return float((below + up_to).sum()) / (2 * len(of_one) * len(of_zero))
