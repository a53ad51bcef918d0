"""Top-2 accuracy: how often the right class is one of the two that a network finds most likely."""

from collections.abc import Collection, Iterator

from dambench.core import config
from dambench.core.events import Metric
from dambench.evaluators import Context, Finding, measure_networks
from dambench.training.problem import Network
from dambench.training.train import predict

METRICS = {"top2_accuracy": Metric(description="share of the test images whose class is among the two most likely")}


class Options(config.Options, frozen=True):
    """There are none."""


def evaluate(context: Context, options: Options, resume: Collection[tuple[str, int]] = ()) -> Iterator[Finding]:
    def measure(network: Network) -> dict[str, float] | None:
        logits = predict(network, context.test_set, context.test_batch)
        if not bool(logits.isfinite().all()):
            return None
        likely = logits.topk(2).indices == context.test_set.labels.unsqueeze(1)
        return {"top2_accuracy": likely.any(1).float().mean().item()}

    return measure_networks(context, measure, resume)
