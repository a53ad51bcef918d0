"""Machine course: what a machine did over all of a run, in as few numbers as fit a line, however long it is."""

from collections.abc import Sequence

from dambench.core.events import Sampled

MOST = 256
"""Stretches of time that are told apart; of more, two and two become one."""

FIELDS = ("process_cpu_percent", "gpu_busy_percent", "gpu_memory_used_bytes", "process_memory_bytes")

Means = dict[str, tuple[float | None, ...]]
"""By field, a mean for each stretch; None: it was not measured there."""


class MachineCourse:
    """Means of samples over stretches of equal length of a run's time."""

    def __init__(self) -> None:
        self.span = 1.0
        """Seconds of a stretch."""
        self.seconds = 0.0
        """The time of the latest sample."""
        self._sums: list[dict[str, tuple[float, int]]] = []

    def add(self, sample: Sampled) -> None:
        """Take a sample in; one of an earlier time than others may come later."""
        self.seconds = max(self.seconds, sample.seconds)
        at = int(max(0.0, sample.seconds) / self.span)
        while at >= MOST:
            pairs = zip(self._sums[::2], [*self._sums[1::2], {}], strict=False)
            self._sums = [_together(one, other) for one, other in pairs]
            self.span *= 2
            at = int(max(0.0, sample.seconds) / self.span)
        self._sums += [{} for _ in range(at + 1 - len(self._sums))]
        measured = {name: (float(value), 1) for name in FIELDS if (value := getattr(sample, name)) is not None}
        self._sums[at] = _together(self._sums[at], measured)

    def means(self) -> Means:
        return {
            name: tuple(one[name][0] / one[name][1] if name in one else None for one in self._sums) for name in FIELDS
        }


def _together(one: dict[str, tuple[float, int]], other: dict[str, tuple[float, int]]) -> dict[str, tuple[float, int]]:
    sums = dict(one)
    for name, (value, count) in other.items():
        before = sums.get(name, (0.0, 0))
        sums[name] = before[0] + value, before[1] + count
    return sums


def narrowed(values: Sequence[float | None], room: int) -> list[float | None]:
    """So many values at most: each the mean of 1, 2, 4, … that follow each other, so that a new one moves no other."""
    group = 1
    while len(values) > group * max(1, room):
        group *= 2
    groups = [[v for v in values[at : at + group] if v is not None] for at in range(0, len(values), group)]
    return [sum(some) / len(some) if some else None for some in groups]
