"""Label-robust score (LRS): how good a set is without its labels, and how much better than random images with them.

With accuracies from 0 to 1, as in the documentation of DD-Ranking (Li et al., 2025):

* HLR, hard label recovery = A(all real images, hard labels) − A(set, hard labels): lower is better.
* IOR, improvement over random = A(set, its own protocol) − A(random images, the same protocol): higher is better.
* α = w · IOR − (1 − w) · HLR, and LRS = (e^α − e⁻¹) / (e − e⁻¹).

"Hard" is the protocol's hard-label twin: hard labels, the usual rate. For a protocol that has no labels or rate of the
set it is the protocol itself, and both accuracies of the set are one. A set as good as all images where random ones are
useless has 54.5 %; α = 0 gives 26.9 %. Random images have hard labels and the usual rate in both.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated

from msgspec import Meta

from dambench.core import config
from dambench.core.arms import Arm
from dambench.core.errors import BadInput
from dambench.core.events import Metric
from dambench.core.hard_labels import hard_twin
from dambench.core.protocol import Protocol
from dambench.evaluators import Context, Finding
from dambench.evaluators._arms import measure_arms, normalised

__all__ = ["METRICS", "Options", "arms", "evaluate"]

METRICS = {
    "lrs": Metric(description="label-robust score, (e^α − e⁻¹) / (e − e⁻¹) with α of IOR and HLR: at most about 55 %"),
    "hlr": Metric(
        description="hard label recovery: accuracy on all real images less that on the set, hard labels", better="lower"
    ),
    "ior": Metric(description="improvement over random: accuracy on the set less that on random images, own protocol"),
    "real_hard": Metric(description="accuracy of networks trained on all real images, hard labels"),
    "set_hard": Metric(description="accuracy of networks trained on the set, hard labels"),
    "set_own": Metric(description="accuracy of networks trained on the set, its own protocol"),
    "random_own": Metric(description="accuracy of networks trained on as many random images, the set's protocol"),
}


class Options(config.Options, frozen=True):
    weight: Annotated[float, Meta(ge=0, le=1, description="of IOR; the rest is that of HLR")] = 0.5


def arms(protocol: Protocol) -> tuple[Arm, ...]:
    """The four arms.

    Raises:
        BadInput: the protocol uses what sets carry, and none is its twin with hard labels.
    """
    hard = hard_twin(protocol)
    if hard is None and (protocol.labels != "hard" or isinstance(protocol.lr, str)):
        raise BadInput(
            f"LRS needs the hard-label twin of {protocol.label}, and there is none: take another --protocol."
        )
    hard = hard or protocol
    return (
        Arm("set_own", "set", protocol),
        Arm("random_own", "random", protocol),
        Arm("set_hard", "set", hard),
        Arm("real_hard", "whole", hard),
    )


def evaluate(context: Context, options: Options, resume: Collection[tuple[str, int]] = ()) -> Iterator[Finding]:
    """Compute the score of each network from the accuracies of its four arms."""
    return measure_arms(context, arms(context.protocol), lambda accuracies: scores(accuracies, options.weight), resume)


def scores(accuracies: Mapping[str, float], weight: float) -> dict[str, float]:
    """LRS, HLR and IOR beside the accuracies that they are made of, all from 0 to 1."""
    hlr = accuracies["real_hard"] - accuracies["set_hard"]
    ior = accuracies["set_own"] - accuracies["random_own"]
    return {"lrs": normalised(weight * ior - (1 - weight) * hlr), "hlr": hlr, "ior": ior, **accuracies}
