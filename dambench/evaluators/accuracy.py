"""Accuracy: train networks on a set, test them on the real test images. Several networks: cross-architecture."""

from collections.abc import Collection, Iterator
from statistics import pstdev

import torch.nn.functional as F

from dambench.core import config
from dambench.core.events import Metric
from dambench.evaluators import Context, Finding, measure_networks
from dambench.evaluators._classification import (
    BINS,
    auc,
    calibration_error,
    class_metrics,
    further_metrics,
    has_auc,
    macro_f1,
    recalls,
)
from dambench.training.problem import Network
from dambench.training.train import predict

METRICS = {
    "accuracy": Metric(description="share of the test images that are recognised after the last epoch"),
    "balanced_accuracy": Metric(description="mean over classes of the share of their test images that are recognised"),
    "loss": Metric(description="mean cross-entropy on the test set, nats", unit="", better="lower"),
    "validation_accuracy": Metric(
        description="share recognised of the validation images that were held out before the set was made"
    ),
    "train_accuracy": Metric(description="share recognised of the set that was trained on, not augmented"),
    "macro_f1": Metric(description="mean over classes of F1, the harmonic mean of precision and recall"),
    "calibration_error": Metric(
        description="expected calibration error: by how much the confidence of answers misses their accuracy, in "
        f"{BINS} bins of confidence",
        better="lower",
    ),
    "spread": Metric(description="accuracy of the class recognised best less that of the worst", better="lower"),
    "spread_std": Metric(description="standard deviation of accuracy over the classes, all of them", better="lower"),
}
__all__ = ["METRICS", "Options", "evaluate", "further_metrics"]


class Options(config.Options, frozen=True):
    """None."""


def evaluate(context: Context, options: Options, resume: Collection[tuple[str, int]] = ()) -> Iterator[Finding]:
    """Train networks on the set, and test each on all real test images."""
    return measure_networks(context, lambda network: scores(context, network), resume)


def scores(context: Context, network: Network) -> dict[str, float] | None:
    """The metrics of a network that was trained on the set; None: its outputs are no numbers."""
    test, own, validation = context.test_set, context.synthetic.decoded(), context.validation_set
    shown = [test, own, *([validation] if validation else [])]
    logits, own_logits, *rest = (predict(network, data, context.test_batch) for data in shown)
    if not all(bool(of_one.isfinite().all()) for of_one in (logits, own_logits, *rest)):
        return None
    counts = list(context.test.counts)
    answers = logits.argmax(1)
    hits = [int(of_class.sum()) for of_class in (answers == test.labels).split(counts)]
    shares = recalls(hits, counts)
    there = [share for share in shares if share is not None]
    own_hits = own_logits.argmax(1) == own.hard_labels
    values = {
        "accuracy": sum(hits) / sum(counts),
        "balanced_accuracy": sum(there) / len(there),
        "loss": F.cross_entropy(logits, test.labels).item(),
        "train_accuracy": int(own_hits.sum()) / len(own_hits),
        "macro_f1": macro_f1(hits, counts, answers.bincount(minlength=len(counts)).tolist()),
        "calibration_error": calibration_error(logits, test.labels),
        "spread": max(there) - min(there),
        "spread_std": pstdev(there),
    }
    if validation:
        recognised = rest[0].argmax(1) == validation.labels
        values["validation_accuracy"] = int(recognised.sum()) / len(recognised)
    if has_auc(context.card):
        values["auc"] = auc(logits, test.labels)
    if context.final:  # there may be a thousand of them
        for index, name in class_metrics(context.card).items():
            if counts[index]:
                values[name] = hits[index] / counts[index]
    return values
