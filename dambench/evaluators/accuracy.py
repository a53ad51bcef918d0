"""Accuracy: train networks on a set, test them on the real test images. Several networks: cross-architecture."""

from collections.abc import Collection, Iterator

import torch.nn.functional as F

from dambench.core import config
from dambench.core.events import Metric
from dambench.evaluators import Context, Finding, measure_networks
from dambench.training.problem import Network
from dambench.training.train import predict

METRICS = {
    "accuracy": Metric(description="share of the test images that are recognised after the last epoch"),
    "balanced_accuracy": Metric(description="mean over classes of the share of their test images that are recognised"),
    "loss": Metric(description="mean cross-entropy on the test set, nats", unit="", better="lower"),
    "train_accuracy": Metric(description="share recognised of the set that was trained on, not augmented"),
}


class Options(config.Options, frozen=True):
    """None."""


def evaluate(context: Context, options: Options, resume: Collection[tuple[str, int]] = ()) -> Iterator[Finding]:
    """Train networks on the set, and test each on all real test images."""
    return measure_networks(context, lambda network: scores(context, network), resume)


def scores(context: Context, network: Network) -> dict[str, float] | None:
    """The metrics of a network that was trained on the set; None: its outputs are no numbers."""
    test, own = context.test_set, context.synthetic.decoded()
    logits, own_logits = (predict(network, data, context.test_batch) for data in (test, own))
    if not bool(logits.isfinite().all() & own_logits.isfinite().all()):
        return None
    counts = context.test.counts
    hits = [int(of_class.sum()) for of_class in (logits.argmax(1) == test.labels).split(list(counts))]
    recalls = [recognised / count for recognised, count in zip(hits, counts, strict=True) if count]
    own_hits = own_logits.argmax(1) == own.hard_labels
    return {
        "accuracy": sum(hits) / sum(counts),
        "balanced_accuracy": sum(recalls) / len(recalls),
        "loss": F.cross_entropy(logits, test.labels).item(),
        "train_accuracy": int(own_hits.sum()) / len(own_hits),
    }
