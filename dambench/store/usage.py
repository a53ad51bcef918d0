"""Usage: what a run took of its machine, from its samples."""

from collections.abc import Iterable
from itertools import pairwise

from msgspec import Struct

from dambench.core.events import Sampled


class Usage(Struct, frozen=True, kw_only=True):
    """Peaks, means and sums over a run's samples. None: no sample knew."""

    samples: int
    gpu_peak_memory_bytes: int | None
    """In use on the card, by all who used it."""
    gpu_memory_total_bytes: int | None
    gpu_busy_percent: float | None
    """Mean."""
    gpu_watts: float | None
    """Mean."""
    gpu_peak_celsius: int | None
    gpu_joules: float | None
    """The whole board's, from the first sample of each attempt to its last: on a shared GPU not the run's alone."""
    gpu_shared: bool | None
    """Whether another process computed on the card at any time."""
    process_peak_memory_bytes: int | None
    process_cpu_percent: float | None
    """Mean; 100: one core."""


def usage(*attempts: Iterable[Sampled]) -> Usage:
    """Sum up the samples of a run's attempts, in order. What the card took between two of them was not for it."""
    parts = [list(samples) for samples in attempts]
    whole = [sample for part in parts for sample in part]
    energies = [joules for joules in map(_joules, parts) if joules is not None]
    neighbours = [sample.gpu_neighbours for sample in whole if sample.gpu_neighbours is not None]
    return Usage(
        samples=len(whole),
        gpu_peak_memory_bytes=_peak(sample.gpu_memory_used_bytes for sample in whole),
        gpu_memory_total_bytes=_peak(sample.gpu_memory_total_bytes for sample in whole),
        gpu_busy_percent=_mean(sample.gpu_busy_percent for sample in whole),
        gpu_watts=_mean(sample.gpu_watts for sample in whole),
        gpu_peak_celsius=_peak(sample.gpu_celsius for sample in whole),
        gpu_joules=sum(energies) if energies else None,
        gpu_shared=any(neighbours) if neighbours else None,
        process_peak_memory_bytes=_peak(sample.process_memory_bytes for sample in whole),
        process_cpu_percent=_mean(sample.process_cpu_percent for sample in whole),
    )


def _peak(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _mean(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def _joules(samples: list[Sampled]) -> float | None:
    """The counter's difference; without one, the integral of power over time by the trapezoid rule.

    The counter moves every 20 to 100 ms only: of a short time its difference may be 0, and power is asked instead.
    """
    counted = [sample.gpu_millijoules for sample in samples if sample.gpu_millijoules is not None]
    if counted and counted[-1] > counted[0]:
        return (counted[-1] - counted[0]) / 1000
    powers = [(sample.seconds, sample.gpu_watts) for sample in samples if sample.gpu_watts is not None]
    if len(powers) < 2:
        return None
    return sum((until - since) * (a + b) / 2 for (since, a), (until, b) in pairwise(powers))
