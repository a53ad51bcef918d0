"""Augmentation-robust score (ARS): how much better than random images a set is, with and without augmentation.

With accuracies from 0 to 1, as in the documentation of DD-Ranking (Li et al., 2025):
β = g · [A(set, augmented) − A(random, augmented)] + (1 − g) · [A(set, plain) − A(random, plain)], and
ARS = (e^β − e⁻¹) / (e − e⁻¹). "Plain" is the same protocol without augmentation, CutMix or mixup.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated

from msgspec import Meta
from msgspec.structs import replace

from dambench.core import config
from dambench.core.arms import Arm
from dambench.core.errors import BadInput
from dambench.core.events import Metric
from dambench.core.protocol import Protocol
from dambench.evaluators import Context, Finding
from dambench.evaluators._arms import measure_arms, normalised

__all__ = ["METRICS", "Options", "arms", "evaluate"]

METRICS = {
    "ars": Metric(description="augmentation-robust score, (e^β − e⁻¹) / (e − e⁻¹) with β of the two gains over random"),
    "gain_augmented": Metric(description="accuracy on the set less that on as many random images, with augmentation"),
    "gain_plain": Metric(description="accuracy on the set less that on as many random images, without augmentation"),
    "set_augmented": Metric(description="accuracy of networks trained on the set, with augmentation"),
    "random_augmented": Metric(description="accuracy of networks trained on random images, with augmentation"),
    "set_plain": Metric(description="accuracy of networks trained on the set, without augmentation"),
    "random_plain": Metric(description="accuracy of networks trained on random images, without augmentation"),
}


class Options(config.Options, frozen=True):
    weight: Annotated[float, Meta(ge=0, le=1, description="of the gain with augmentation")] = 0.5


def arms(protocol: Protocol) -> tuple[Arm, ...]:
    """The four arms.

    Raises:
        BadInput: the protocol has no augmentation that could be left out.
    """
    plain = replace(
        protocol,
        name=f"{protocol.name}-plain",
        augmentation=(),
        mixing="none",
        source=f"as {protocol.name}, without augmentation and mixing, for ARS",
    )
    if plain.sha256 == protocol.sha256:
        raise BadInput(f"ARS compares with and without augmentation, and {protocol.label} has none.")
    return (
        Arm("set_augmented", "set", protocol),
        Arm("random_augmented", "random", protocol),
        Arm("set_plain", "set", plain),
        Arm("random_plain", "random", plain),
    )


def evaluate(context: Context, options: Options, resume: Collection[tuple[str, int]] = ()) -> Iterator[Finding]:
    """Compute the score of each network from the accuracies of its four arms."""
    return measure_arms(context, arms(context.protocol), lambda accuracies: scores(accuracies, options.weight), resume)


def scores(accuracies: Mapping[str, float], weight: float) -> dict[str, float]:
    """ARS and both gains beside the accuracies that they are made of, all from 0 to 1."""
    augmented = accuracies["set_augmented"] - accuracies["random_augmented"]
    plain = accuracies["set_plain"] - accuracies["random_plain"]
    beta = weight * augmented + (1 - weight) * plain
    return {"ars": normalised(beta), "gain_augmented": augmented, "gain_plain": plain, **accuracies}
