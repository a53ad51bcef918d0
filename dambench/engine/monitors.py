"""Monitors of a run: seconds and memory by phase, losses that are no numbers or do not fall, previews."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median

import torch

from dambench.core.config import Options
from dambench.core.errors import Diverged
from dambench.core.events import Cost, Energy, Previewed, Stepped
from dambench.engine.preview import preview
from dambench.training.policy import Policy
from dambench.training.problem import Step

FIRST_PREVIEW = 0.5
"""Seconds after which the first preview may be taken."""

PREVIEW_SECONDS = 5.0
"""Between two previews of the set on its way, at least."""

PREVIEWS = 200
"""Previews of a run, at most about."""

PREVIEW_SHARE = 0.005
"""Share of a run's time that previews may take."""

PREVIEW_BYTES = 40_000


Meter = Callable[[], Energy | None]
"""Reads the energy at once; None: it cannot."""


def no_energy() -> Energy | None:
    """Read no energy: there is no meter."""
    return None


@dataclass
class PhaseTimer:
    """Seconds and peak memory of each phase, in the order in which the phases began."""

    policy: Policy
    phase: str = "prepare"
    seconds: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)
    reserved: dict[str, int] = field(default_factory=dict)
    meter: Meter = no_energy
    energy: dict[str, Energy | None] = field(default_factory=dict)
    """None: a part of the phase was not measured, and so the phase was not."""
    _since: float = field(default_factory=time.perf_counter)
    _read: Energy | None = None
    """The energy at the last border."""

    def __post_init__(self) -> None:
        self._read = self.meter()

    def start(self, phase: str) -> None:
        """End the current phase and begin, or go on with, another."""
        self.close()
        self.phase = phase
        self.policy.restart_peak()
        self._since = time.perf_counter()

    def note_peak(self, peak: int) -> None:
        """A peak of the current phase that was measured by someone who will begin a new measurement."""
        self.peaks[self.phase] = max(peak, self.peaks.get(self.phase, 0))
        self.reserved[self.phase] = max(self.policy.peak_reserved_bytes(), self.reserved.get(self.phase, 0))

    def close(self) -> None:
        self.policy.synchronise()
        now = time.perf_counter()
        self.seconds[self.phase] = self.seconds.get(self.phase, 0.0) + now - self._since
        self._since = now
        self.note_peak(self.policy.peak_bytes())
        self._note_energy()

    def _note_energy(self) -> None:
        before, self._read = self._read, self.meter()
        so_far = self.energy.get(self.phase, Energy(0.0, None))
        if before is None or self._read is None or so_far is None:
            self.energy[self.phase] = None
            return
        seen = [shared for shared in (so_far.shared, self._read.shared) if shared is not None]
        joules = so_far.joules + self._read.joules - before.joules
        self.energy[self.phase] = Energy(joules, any(seen) if seen else None)

    def known_energy(self) -> dict[str, list[float | bool | None]]:
        """The energy of the phases that it is known of, for a checkpoint."""
        return {phase: [*energy] for phase, energy in self.energy.items() if energy is not None}

    def go_on_with_energy(self, phases: Collection[str], known: Mapping[str, Sequence[float | bool | None]]) -> None:
        """Take over what an earlier attempt knew of the phases that it was in."""
        for phase in phases:
            joules, shared = known.get(phase, (None, None))
            self.energy[phase] = (
                None if joules is None else Energy(float(joules), None if shared is None else bool(shared))
            )

    def spent(self, phase: str) -> float:
        running = time.perf_counter() - self._since if phase == self.phase else 0.0
        return self.seconds.get(phase, 0.0) + running

    def costs(self) -> list[Cost]:
        # After an error of the device it may not answer any more.
        with suppress(RuntimeError):
            self.close()
        costs = []
        for phase, seconds in self.seconds.items():
            energy = self.energy.get(phase)
            known = energy is not None and energy.joules > 0  # a board that is on takes some: it was too short a time
            costs.append(
                Cost(
                    phase=phase,
                    seconds=seconds,
                    peak_memory_bytes=self.peaks.get(phase, 0),
                    peak_reserved_bytes=self.reserved.get(phase, 0),
                    joules=energy.joules if energy is not None and known else None,
                    shared=energy.shared if energy is not None and known else None,
                )
            )
        return costs


class PreviewSchedule:
    """Previews of the set on its way: not too many, and not more often than they are worth.

    Args:
        total: iterations of the run.
    """

    def __init__(self, total: int) -> None:
        self._least = total / PREVIEWS
        """Iterations between two."""
        self._last = -total
        self._next = time.perf_counter() + FIRST_PREVIEW

    def due(self, step: Step) -> bool:
        return time.perf_counter() >= self._next and step.iteration - self._last >= self._least

    def take(self, step: Step) -> Previewed:
        began = time.perf_counter()
        previewed = Previewed(iteration=step.iteration, preview=preview(step.synthetic, PREVIEW_BYTES))
        now = time.perf_counter()
        self._last, self._next = step.iteration, now + max(PREVIEW_SECONDS, (now - began) / PREVIEW_SHARE)
        return previewed


class DivergenceMonitor:
    """The first iteration whose loss is no number, found without making a GPU wait for each."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._first = torch.empty(0)
        """By loss, its last value, and the iteration since which it is no number: (2, losses); -1: it is one."""

    def look(self, step: Step) -> None:
        if not step.losses:
            return
        values = torch.stack([loss.detach().double() for loss in step.losses.values()])
        if list(step.losses) != self._names:
            self._names = list(step.losses)
            self._first = torch.stack([values, torch.full_like(values, -1)])
        value, since = self._first
        fine = since < 0
        since = torch.where(fine & ~values.isfinite(), step.iteration, since)
        self._first = torch.stack([torch.where(fine, values, value), since])
        if values.device.type == "cpu":
            self.check()

    def check(self) -> None:
        """Raises Diverged if there was one. Here the host waits for the device."""
        for name, value, since in zip(self._names, *self._first.tolist(), strict=True) if self._names else ():
            if since >= 0:
                raise Diverged(int(since), f"The {name} loss is {value} at iteration {since:.0f}")


def stagnation_warning(logged: list[Stepped], options: Options) -> str:
    """Warn where the matching loss is no lower at the end of a whole run than at its beginning; empty: it is.

    Each iteration may have a network of its own, and their losses differ: medians are compared. The first iteration
    counts by itself, too, for a step that is far too large makes the loss jump at once, and then fall. Nothing is said
    where a part weighs more the longer its networks are trained: such a loss grows whatever the images do.
    """
    if getattr(options, "calibrated_by", "") == "accuracy":
        return ""
    losses = [float(event.losses["matching"]) for event in logged if "matching" in event.losses]
    few = len(losses) // 10
    if few < 5 or logged[0].iteration > 1:
        return ""
    first, last = min(losses[0], median(losses[:few])), median(losses[-few:])
    if last < first:
        return ""
    smaller = getattr(options, "lr_images", 1.0) / 10
    return (
        f"The matching loss has not fallen: it began at {first:.3g} and is {last:.3g} over the last tenth of the run. "
        f"A smaller step may help (--set method.lr_images={smaller:g}), or matching on the ConvNet (--network convnet)."
    )
