"""Cells: the scores that belong to one row and one column of a table, by synthetic set and network."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from msgspec import Struct

from dambench.store import statistics
from dambench.store.metrics import ACCURACY, MetricRow
from dambench.store.statistics import Interval, Sample, Unit, VarianceComponents

Key = tuple[str | int | None, ...]
"""A row or a column: its value on each of its axes; of `ipc` a number, None for the whole set."""

CellKey = tuple[Key, Key]
"""A row and a column."""


class Score(Struct, frozen=True, gc=False):
    """One network trained on one set."""

    method: str
    """With the settings that differ from its recipe: `dm (iterations 50)`."""
    dataset: str
    ipc: int | None
    network: str
    protocol: str
    values: Mapping[str, float]
    """By metric of the evaluator that is shown; nan: it was not finite."""
    base_method: str
    settings: str
    """All that the meaning of the number depends on, besides data, network and protocol, as JSON."""
    recipe: str
    """Where those come from that the row does not name."""
    set_sha256: str
    dataset_sha256: str
    run: str
    source: bool = False
    """Whether the network is the one that the set was matched on, whatever the norm of either."""
    tested: tuple[str, ...] = ()
    """How the test images were seen, where it is not the usual way: only scores of one such way are compared."""
    computed: tuple[tuple[str, str], ...] = ()
    """With what, by name: it changes bits at most, and may differ within a cell."""
    seed: int = 0
    """The run's: the set came of it, unless `from_seed` is false or the set is imported, and its networks did."""
    repeat: int = 0
    """The number of the network among those trained on the set in this run."""
    data_name: str = ""
    """The dataset's name in the program, where tables may call it by the name of a user's folder; empty: not known."""
    from_seed: bool = True
    """Whether another seed makes another set. False: the whole set, or several seeds are known to have made one."""
    left_out: tuple[str, ...] = ()
    """What the set carries and the protocol does not use: `soft labels`, `learning rate`. It is a hard-label twin."""
    epochs: int = 0
    """For how many a network on the whole set is trained; 0: this one is not."""
    repeats: int = 1
    """How many of each network the run was asked for."""
    teacher: str = ""
    """The network and epochs of the teacher whose labels the protocol took: `convnet-d3-w128-bn, 60 epochs`."""
    words: tuple[str, ...] = ()
    """Flags of `dambench run` that another method's run must share, besides protocol and networks."""


@dataclass(frozen=True)
class Cell:
    """The scores that belong to one row and one column."""

    scores: tuple[Score, ...]
    metric: MetricRow = ACCURACY
    """The one that is shown."""

    def of(self, metric: MetricRow) -> "Cell":
        """The same networks by another metric of the same evaluator."""
        return replace(self, metric=metric)

    @property
    def values(self) -> list[float]:
        """As `scores`."""
        return [score.values.get(self.metric.name, math.nan) for score in self.scores]

    @cached_property
    def by_set(self) -> dict[str, list[Score]]:
        """The scores of each set by its SHA-256, in the order of seeds and repeats: equal sets are one."""
        groups: dict[str, list[Score]] = {}
        for score in sorted(self.scores, key=lambda score: (score.seed, score.repeat)):
            groups.setdefault(score.set_sha256, []).append(score)
        return groups

    @cached_property
    def sample(self) -> Sample:
        """The values by set and network, for tests and intervals."""
        return Sample(
            sets=tuple(
                tuple(score.values.get(self.metric.name, math.nan) for score in scores)
                for scores in self.by_set.values()
            ),
            unit=self.unit,
            seeds=self.seeds,
            repeats=tuple(tuple(score.repeat for score in scores) for scores in self.by_set.values()),
        )

    @property
    def unit(self) -> Unit:
        """What counts as evidence: sets; networks where one set is all there can be, or is all of an import."""
        (first, *more) = self.by_set.values()
        is_only = not more and (not first[0].from_seed or first[0].base_method == "imported")
        return "network" if is_only else "set"

    @property
    def seeds(self) -> tuple[int, ...]:
        """The distillation seeds, if each made a set of its own; empty: there is nothing to pair sets by.

        Which seed an imported set was evaluated under says nothing of the seed that it was made with.
        """
        seeds = [{score.seed for score in scores} for scores in self.by_set.values()]
        flat = [seed for some in seeds for seed in some]
        own = len(flat) == len(seeds) == len({*flat}) and self.unit == "set"
        return tuple(flat) if own and self.scores[0].base_method != "imported" else ()

    @property
    def networks(self) -> int:
        """The number of networks, on all sets together."""
        return len(self.scores)

    @property
    def sets(self) -> int:
        """The number of different synthetic sets that the networks were trained on."""
        return len(self.by_set)

    @property
    def networks_per_set(self) -> int | None:
        """The number of networks trained on each set; None if not the same."""
        numbers = {len(scores) for scores in self.by_set.values()}
        return numbers.pop() if len(numbers) == 1 else None

    @property
    def mean(self) -> float:
        """Mean of the set means, or of the networks where those are the unit. nan: a value was not finite."""
        return self.sample.mean

    @property
    def interval(self) -> Interval | None:
        """Student's t over the units; None: there is one, or a value was not finite."""
        return self.sample.interval

    @cached_property
    def bootstrap(self) -> Interval | None:
        """The hierarchical bootstrap's interval; None below ten sets, or where networks are the unit."""
        return statistics.bootstrap_interval(self.sample.sets) if self.unit == "set" else None

    @cached_property
    def spread(self) -> VarianceComponents:
        """Between sets and within them."""
        return statistics.variance_components(self.sample.sets)


def order(axes: Sequence[str], key: Key) -> tuple[Any, ...]:
    """Random first, whole last, numbers as numbers."""
    parts = []
    for axis, value in zip(axes, key, strict=True):
        base = str(value).partition(" ")[0]
        rank = {"random": 0, "whole": 2}.get(base, 1) if axis == "method" else 1
        parts.append((rank, value if isinstance(value, int) else 0, "" if value is None else str(value)))
    return tuple(parts)
