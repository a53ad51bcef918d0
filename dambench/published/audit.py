"""Audit of imported sets: what a file claims for a set beside what was measured on it here, network by network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from dambench.core import claims
from dambench.core.claims import spread
from dambench.core.sanitize import display
from dambench.store.statistics import t_quantile


@dataclass(frozen=True)
class AuditLine:
    """One network: its claimed and its measured accuracies on one set, as fractions."""

    network: str
    protocol: str
    """Under which it was measured; under which the claim was, no such file states."""
    claimed: tuple[float, ...]
    measured: tuple[float, ...]

    @property
    def gap(self) -> float:
        """Measured minus claimed mean."""
        return sum(self.measured) / len(self.measured) - sum(self.claimed) / len(self.claimed)

    @property
    def half(self) -> float | None:
        """Half of the gap's 95 % interval; None: there are two networks in all."""
        return half_interval(self.claimed, self.measured)

    @property
    def consistent(self) -> bool | None:
        """Whether the gap's interval holds 0; None: there is no interval."""
        return None if self.half is None else abs(self.gap) <= self.half

    @property
    def text(self) -> str:
        verdict = {True: "consistent", False: "not consistent", None: "too few networks to tell"}[self.consistent]
        half = "" if self.half is None else f" ± {100 * self.half:.2f}"
        return (
            f"{display(self.network, 60)} under {display(self.protocol, 60)}: claimed {spread([*self.claimed])}, "
            f"measured {spread([*self.measured])}, gap {100 * self.gap:+.2f}{half}: {verdict}"
        )

    @property
    def facts(self) -> dict[str, Any]:
        """The line for programs."""
        return {
            "network": self.network,
            "protocol": self.protocol,
            "claimed": [*self.claimed],
            "measured": [*self.measured],
            "gap": self.gap,
            "half_interval": self.half,
            "consistent": self.consistent,
        }


def half_interval(claimed: Sequence[float], measured: Sequence[float]) -> float | None:
    """Half of the 95 % interval of a difference of means, by Student's t with pooled variance.

    Networks trained on one set under one protocol are draws of one distribution, if the claim holds: so their variances
    are one, and a single network can be judged by the spread of the others.
    """
    freedom = len(claimed) + len(measured) - 2
    if freedom < 1:
        return None
    squares = sum(sum((value - sum(some) / len(some)) ** 2 for value in some) for some in (claimed, measured))
    error = sqrt(squares / freedom * (1 / len(claimed) + 1 / len(measured)))
    return t_quantile(freedom) * error


def audit(scores: Sequence[Mapping[str, Any]], protocol: str) -> list[AuditLine]:
    """The lines for the networks that were measured on an imported set and have a claim; empty: there are none.

    Args:
        scores: of one run, as `Store.describe` gives them.
        protocol: its label.
    """
    last = max((score["iteration"] for score in scores), default=0)
    lines = []
    measured: dict[tuple[str, str], list[float]] = {}
    for score in scores:
        if score["iteration"] == last and score["accuracy"] is not None:
            measured.setdefault((score["set_sha256"], score["network"]), []).append(score["accuracy"])
    for (sha256, network), values in measured.items():
        known = claims.find(sha256)
        if known is not None and known.accuracies.get(network):
            lines.append(AuditLine(network, protocol, tuple(known.accuracies[network]), tuple(values)))
    return lines


def sentence(lines: Sequence[AuditLine]) -> str:
    """The audit in one line; empty: nothing is claimed."""
    if not lines:
        return ""
    return f"audit (the claim's protocol is not stated): {'; '.join(line.text for line in lines)}."
