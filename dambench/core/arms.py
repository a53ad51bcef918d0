"""Arms of a comparison: the accuracies that a score is computed from, each of networks trained on one set."""

from typing import Literal, NamedTuple

from dambench.core.protocol import Protocol


class Arm(NamedTuple):
    """Networks trained on one set under one protocol."""

    name: str
    """What its accuracy is called among the metrics: `random_own`."""
    of: Literal["set", "random", "whole"]
    """The set that is evaluated, as many random real images of each class, or all real images."""
    protocol: Protocol
