"""Baselines and ceilings beside results: which are there, what is missing, and how far a result is between them.

Of a result at some IPC they are, with the same data, network, protocol, preprocessing and precision: at least five
random draws, herding, and the whole set at the protocol's budget; and the whole set under a strong recipe, which shows
what that budget leaves out. Of a result whose protocol takes the labels of a teacher they are random draws with labels
of a teacher of the same network and training, and the strong recipe: no other baseline names a teacher.
"""

import json
import math
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from dambench.core.protocol import protocol_labelled, strong
from dambench.store.cells import Cell, CellKey, Key, Score
from dambench.store.metrics import ACCURACY, MetricRow
from dambench.store.statistics import (
    ENOUGH,
    SIGNIFICANCE,
    Interval,
    Sample,
    difference,
    ratio_interval,
    too_few,
)

DRAWS = 5
"""Random subsets, of as many seeds, that a result is to be compared with."""
NETWORKS = 3
"""Networks trained on the whole set."""
CURVE = (1, 2, 5, 10, 20, 50)
"""IPCs of the random curve."""
BASELINES = ("random", "herding", "whole")
NO_COMMAND = "# no single command: the protocol has another version by now, or holds out other images"
"""What stands where a command would."""

RESAMPLES = 2000
RESAMPLING_SEED = 20_261_129


MOST_KINDS = 10_000
"""Settings and places that are remembered."""


class Place(NamedTuple):
    """What a result shares with its baselines, but for the IPC."""

    dataset_sha256: str
    network: str
    protocol: str
    """Its label."""
    tested: tuple[str, ...]
    held_out: str = ""
    """Whether the set was made without validation images, where that is not as the protocol has it."""
    teacher: str = ""
    """Whose labels the protocol took, as `Score` has it."""

    @property
    def but_protocol(self) -> tuple[str, str, tuple[str, ...]]:
        return self.dataset_sha256, self.network, self.tested


@dataclass(frozen=True)
class Missing:
    """A baseline that a result lacks."""

    what: str
    """`5 random draws`."""
    at: str
    """`mnist IPC 1`."""
    of: str
    """The protocol and how the test images are seen, where they are shared; empty: neither."""
    there: int
    """Draws or networks that there are; of a curve, IPCs."""
    words: tuple[str, ...]
    networks: tuple[str, ...]
    results: frozenset[tuple[Place, int]]
    """The places and IPCs of the results that lack it."""
    evaluator: str = ACCURACY.evaluator
    """What measures it: of others than accuracy a run alone makes no figure."""

    @property
    def where(self) -> str:
        """`mnist IPC 1, protocol brief#00ba, convnet-d3-w64`."""
        return ", ".join(filter(None, (self.at, self.of, *self.networks)))

    @property
    def command(self) -> str:
        """A line for a shell that makes it; empty: no single one does."""
        if self.evaluator != ACCURACY.evaluator:
            return f"# of a run of it: dambench evaluate ID --evaluator {self.evaluator} (report --sections measured)"
        return _command(self.words, self.networks)


@dataclass(frozen=True)
class Ratio:
    """A ratio with its interval."""

    value: float | None
    interval: Interval | None = None
    reason: str = ""
    """Why the value or the interval is not there."""


@dataclass(frozen=True)
class RandomSize:
    """The IPC at which random images serve as well: between two of the curve, or beyond its ends."""

    value: float | None
    """0: fewer than the curve's smallest; inf: more than its largest."""
    low: float | None = None
    high: float | None = None
    curve: tuple[int, ...] = ()
    """The IPCs that it was read from."""
    reason: str = ""


@dataclass(frozen=True)
class Standing:
    """A result between its baselines."""

    relative: Ratio
    """A_syn / A_full."""
    recovered: Ratio
    """(A_syn − A_rnd) / (A_full − A_rnd)."""
    size: RandomSize


class Baselines:
    """Those of all scores that are shown.

    Args:
        scores: of all tables, those of the newest runs first; one that stands in several may be there several times.
        smallest: by dataset's SHA-256, the images of its smallest class, as far as known.
    """

    def __init__(
        self, scores: Iterable[Score] = (), metric: MetricRow = ACCURACY, smallest: Mapping[str, int] = {}
    ) -> None:
        self._metric, self._smallest = metric, smallest
        self._scores = list({(s.run, s.network, s.protocol, s.repeat): s for s in scores}.values())

    @cached_property
    def _cells(self) -> dict[tuple[str, Place, int | None], Cell]:
        """By baseline, place and IPC, that of the newest settings where there are several."""
        groups: dict[tuple[str, Place, int | None], list[Score]] = {}
        for score in self._scores:
            if score.base_method in BASELINES and is_plain(score):
                group = groups.setdefault((score.base_method, place_of(score), score.ipc), [])
                if not group or group[0].settings == score.settings:
                    group.append(score)
        return {key: Cell(tuple(group), self._metric) for key, group in groups.items()}

    @cached_property
    def _strong(self) -> dict[tuple[str, str, tuple[str, ...]], Cell]:
        found: dict[tuple[str, str, tuple[str, ...]], Cell] = {}
        for (name, place, _), cell in self._cells.items():
            if (
                name == "whole"
                and not place.held_out
                and place.protocol == strong(_plain_name(cell.scores[0].dataset)).label
            ):
                found[place.but_protocol] = cell
        return found

    def random(self, place: Place, ipc: int | None) -> Cell | None:
        return self._cells.get(("random", place, ipc))

    def whole(self, place: Place) -> Cell | None:
        return self._cells.get(("whole", place, None))

    def strong(self, place: Place) -> Cell | None:
        """The whole set's networks by the strong recipe, whatever the protocol of the place."""
        return self._strong.get(place.but_protocol)

    def strong_by_column(self, cells: Mapping[CellKey, Cell]) -> dict[Key, Cell]:
        """The whole set by the strong recipe for each column of a table that is of one place; not beside itself."""
        found = {}
        for column in {column for _, column in cells}:
            places = {place_of(s).but_protocol for (_, c), cell in cells.items() if c == column for s in cell.scores}
            own = {s.protocol for (_, c), cell in cells.items() if c == column for s in cell.scores}
            best = self._strong.get(places.pop()) if len(places) == 1 else None
            if best is not None and best.scores[0].protocol not in own:
                found[column] = best
        return found

    def curve(self, place: Place) -> dict[int, Cell]:
        """Random subsets by IPC, in its order."""
        own = {ipc: cell for (name, at, ipc), cell in self._cells.items() if name == "random" and at == place and ipc}
        return dict(sorted(own.items()))

    def standing(self, cell: Cell) -> Standing | None:
        """Where a result is between its baselines; None: it is one of the two, or its metric is no rate."""
        first = cell.scores[0]
        if not is_result(first) or self._metric.unit != "fraction" or self._metric.better != "higher":
            return None
        place = place_of(first)
        whole, random = self.whole(place), self.random(place, first.ipc)
        return Standing(
            relative=relative(cell, whole),
            recovered=recovered(cell, random, whole),
            size=random_size(cell.sample, {ipc: one.sample for ipc, one in self.curve(place).items()}),
        )

    @cached_property
    def missing(self) -> list[Missing]:
        """What the results lack, by place; networks that lack the same are in one command."""
        places: dict[Place, dict[int, list[Score]]] = {}
        for score in sorted(self._scores, key=_order):
            if is_result(score) and score.ipc:
                places.setdefault(place_of(score), {}).setdefault(score.ipc, []).append(score)
        wanted: dict[tuple[str, str, str, int, tuple[str, ...]], dict[tuple[Place, int], None]] = {}
        for place, results in places.items():
            for lack, ipcs in self._lacking(place, results):
                wanted.setdefault(lack, {}).update(dict.fromkeys((place, ipc) for ipc in ipcs))
        evaluator, found = self._metric.evaluator, []
        for lack, lacking in wanted.items():
            networks = tuple(dict.fromkeys(at.network for at, _ in lacking))
            words = lack[-1] if evaluator == ACCURACY.evaluator else ()  # its subjects need be no networks
            found.append(Missing(*lack[:-1], words, networks, frozenset(lacking), evaluator))
        return found

    def missing_of(self, cell: Cell) -> list[Missing]:
        """What the result of one cell lacks."""
        places = {(place_of(score), score.ipc) for score in cell.scores}
        return [one for one in self.missing if any(result in places for result in one.results)]

    def _lacking(
        self, place: Place, results: Mapping[int, list[Score]]
    ) -> Iterator[tuple[tuple[str, str, str, int, tuple[str, ...]], Iterable[int]]]:
        """What is missing at a place, as the first fields of `Missing`; and at which IPCs results lack it."""
        scores = [score for some in results.values() for score in some]
        dataset, tested = scores[0].dataset, ", ".join(place.tested)
        common, repeats = list(scores[0].words), max(score.repeats for score in scores)
        protocol = protocol_labelled(place.protocol)
        name = protocol.name if protocol else ""
        held_out = f"held out {place.held_out}" if place.held_out else ""
        if held_out:
            name = ""  # it takes two commands: a run under a protocol that holds out, and its evaluation
        taught = f"teacher {place.teacher}" if place.teacher else ""
        of = ", ".join(filter(None, (f"protocol {place.protocol}", tested, held_out, taught)))
        labelled, label = _words_of_teacher(place.teacher), " with its labels" if taught else ""
        if taught and not labelled:
            name = ""  # nothing is known of it but that it was brought with a set

        def words(protocol: str, *more: str, networks: int = 1) -> tuple[str, ...]:
            each = str(max(networks, repeats))
            return (*common, "--protocol", protocol, *more, "--eval-repeats", each) if protocol else ()

        for ipc in results:
            random = self.random(place, ipc)
            if (draws := random.sets if random else 0) < DRAWS:
                run = words(name, "--method", "random", *labelled, "--ipc", str(ipc), "--seeds", f"0-{DRAWS - 1}")
                yield (f"{DRAWS} random draws{label}", f"{dataset} IPC {ipc}", of, draws, run), [ipc]
            if not taught and ("herding", place, ipc) not in self._cells:
                run = words(name, "--method", "herding", "--ipc", str(ipc), "--seeds", "0-2")
                yield ("herding", f"{dataset} IPC {ipc}", of, 0, run), [ipc]
        whole, best, curve = self.whole(place), self.strong(place), self.curve(place)
        if not taught and (there := whole.networks if whole else 0) < NETWORKS:
            run = words(name, "--method", "whole", networks=NETWORKS)
            yield (f"{NETWORKS} networks on the whole set", dataset, of, there, run), results
        if (there := best.networks if best else 0) < NETWORKS:
            recipe = strong(_plain_name(dataset))
            run = words(recipe.name, "--method", "whole", networks=NETWORKS)
            what = f"{NETWORKS} networks on the whole set by its strong recipe, {recipe.whole.epochs} epochs"
            yield (what, dataset, tested, there, run), results
        most = self._smallest.get(place.dataset_sha256, CURVE[-1])
        if few := [ipc for ipc in CURVE if ipc not in curve and ipc not in results and ipc <= most]:
            listed = ",".join(map(str, few))
            run = words(name, "--method", "random", *labelled, "--ipc", listed, "--seeds", "0-2")
            yield (f"the random curve{label}", f"{dataset} IPC {listed}", of, len(curve), run), results


def is_plain(score: Score) -> bool:
    """Whether a baseline is the usual one: no other code, images that are no mosaics, and a teacher only if needed."""
    return _is_plain(score.settings, score.teacher)


@lru_cache(maxsize=MOST_KINDS)
def _is_plain(settings: str, teacher: str) -> bool:
    _, options, traits = json.loads(settings)
    needless = bool(options.get("teacher_epochs")) and not teacher
    return not traits.get("code") and options.get("factor", 1) == 1 and not needless


def is_result(score: Score) -> bool:
    """Whether a score is to be seen beside random and whole, of which it is neither."""
    return score.base_method not in ("random", "whole")


def place_of(score: Score) -> Place:
    return _place(score.dataset_sha256, score.network, score.protocol, score.tested, score.teacher, score.settings)


@lru_cache(maxsize=MOST_KINDS)  # thousands of scores are of one place
def _place(
    dataset_sha256: str, network: str, protocol: str, tested: tuple[str, ...], teacher: str, settings: str
) -> Place:
    held_out = str(json.loads(settings)[2].get("held out", ""))
    return Place(dataset_sha256, network, protocol, tested, held_out, teacher)


EPOCHS_OF_TEACHER = ("teacher_epochs", "epochs")
"""Options of methods whose sets name one."""
BROUGHT = "of its own"
"""A teacher that came with a set from elsewhere."""


def teacher_of(config: Mapping[str, Any]) -> str:
    """The network and epochs of the teacher whose labels a run's networks were trained with; empty: with none's.

    Args:
        config: of the run, as JSON has it.
    """
    if config.get("protocol", {}).get("labels") != "teacher":
        return ""
    options = config["method"].get("options", {})
    epochs = next((options[name] for name in EPOCHS_OF_TEACHER if options.get(name)), None)
    return f"{config['network']}, {epochs} epochs" if config.get("network") and epochs else BROUGHT


def _words_of_teacher(teacher: str) -> tuple[str, ...]:
    """The words after `dambench run --method random` for images with a teacher of the same network and training."""
    network, separator, epochs = teacher.partition(", ")
    if not separator:
        return ()
    return "--network", network, "--set", f"method.teacher_epochs={epochs.removesuffix(' epochs')}"


def words_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The words after `dambench run` for another method on the same data, prepared and tested in the same way.

    Args:
        config: of a run, as JSON has it. Protocol, networks and IPC are not in the words.
    """
    dataset = config["dataset"]
    words = ["--dataset", str(dataset["name"])]
    for name, value in sorted(dataset.get("options", {}).items()):
        words += ["--set", f"dataset.{name}={value if isinstance(value, str) else json.dumps(value)}"]
    if data := config.get("where", {}).get("data"):
        words += ["--data", str(data)]
    if (preprocessing := config.get("preprocessing", "mean/std")) != "mean/std":
        words += ["--preprocessing", str(preprocessing)]
    if config.get("precision") == "tf32":
        words += ["--precision", "tf32"]
    return tuple(words)


def relative(cell: Cell, whole: Cell | None) -> Ratio:
    """Relative accuracy, A_syn / A_full, with Fieller's interval."""
    if whole is None:
        return Ratio(None, None, "whole is missing")
    if not whole.mean or not math.isfinite(cell.mean / whole.mean):
        return Ratio(None, None, "a value is not finite, or the whole set's is 0")
    interval = ratio_interval([cell.sample, whole.sample], (1, 0), (0, 1))
    return Ratio(cell.mean / whole.mean, interval, "" if interval else _no_interval(cell, whole))


def recovered(cell: Cell, random: Cell | None, whole: Cell | None) -> Ratio:
    """The part of the gap between random and whole that a set recovers, (A_syn − A_rnd) / (A_full − A_rnd).

    None where the two are not told apart at 5 %: then it is a division by chance.
    """
    if random is None or whole is None:
        absent = [name for name, one in (("random", random), ("whole", whole)) if one is None]
        return Ratio(None, None, f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing")
    gap = difference(whole.sample, random.sample)
    if gap.p is None:
        return Ratio(None, None, f"random and whole cannot be told apart: {gap.reason}")
    if gap.p >= SIGNIFICANCE or gap.mean <= 0:
        return Ratio(None, None, "random and whole are not told apart, or whole is below")
    value = (cell.mean - random.mean) / (whole.mean - random.mean)
    interval = ratio_interval([cell.sample, random.sample, whole.sample], (1, -1, 0), (0, -1, 1))
    if interval is None and cell.sample.enough:
        return Ratio(None, None, "its interval is unbounded")
    return Ratio(value, interval, "" if interval else _no_interval(cell))


def _no_interval(*cells: Cell) -> str:
    few = next((too_few(cell.sample) for cell in cells if not cell.sample.enough), "")
    return f"no interval: {few or 'nothing varies, or it is unbounded'}"


def random_size(sample: Sample, curve: Mapping[int, Sample]) -> RandomSize:
    """The IPC at which random images are as good as this set: the equivalent random size.

    Read from the means of random subsets by IPC, which are made not to fall (isotonic regression, each IPC counts as
    one) and joined by lines over log IPC; of a flat part the smallest IPC is meant. Its interval is that of what is
    read where every mean is drawn 2,000 times from its own Student's t (a generalised confidence interval: Weerahandi,
    1993), since a bootstrap over three seeds covers too little; none where a mean has fewer than three sets.
    """
    ipcs = tuple(sorted(curve))
    if len(ipcs) < 2:
        return RandomSize(None, curve=ipcs, reason="the random curve is missing")
    means = [curve[ipc].mean for ipc in ipcs]
    if not all(map(math.isfinite, (*means, sample.mean))):
        return RandomSize(None, curve=ipcs, reason="a value is not finite")
    value = read_curve(ipcs, rising(means), sample.mean)
    samples = [sample, *(curve[ipc] for ipc in ipcs)]
    if any(not each.enough or each.variance is None for each in samples):
        return RandomSize(value, curve=ipcs, reason=f"no interval: fewer than {ENOUGH} sets")
    low, high = _drawn(ipcs, samples)
    return RandomSize(value, low, high, ipcs)


def _drawn(ipcs: Sequence[int], samples: Sequence[Sample]) -> tuple[float, float]:
    """Quantiles of the size as each mean is drawn from its own t; the set's is the first. The same each time."""
    import numpy as np

    freedoms = tuple(len(each.values) - 1 for each in samples)
    centre, *curve = ((each.mean, math.sqrt(each.variance or 0.0)) for each in samples)
    at = centre[0] + centre[1] * _draws(freedoms)[0]
    sizes = np.sort(_read_risen(ipcs, _drawn_curves(tuple(curve), freedoms), at))
    tail = int(SIGNIFICANCE / 2 * RESAMPLES)
    return float(sizes[tail]), float(sizes[-1 - tail])


@lru_cache(64)
def _draws(freedoms: tuple[int, ...]) -> Any:
    """Draws of Student's t with these degrees of freedom, each (RESAMPLES,)."""
    import numpy as np

    generator = np.random.default_rng(RESAMPLING_SEED)
    return [generator.standard_t(freedom, RESAMPLES) for freedom in freedoms]


@lru_cache(64)
def _drawn_curves(curve: tuple[tuple[float, float], ...], freedoms: tuple[int, ...]) -> Any:
    """Random curves as they are drawn and made to rise: once for all sets that are read from one curve.

    Args:
        curve: mean and standard error of each IPC.
        freedoms: of the set's mean, and of each of the curve's.

    Returns:
        (RESAMPLES, IPCs).
    """
    import numpy as np

    each = [mean + error * drawn for (mean, error), drawn in zip(curve, _draws(freedoms)[1:], strict=True)]
    return _risen(np.stack(each, axis=1))


def read_curves(ipcs: Sequence[int], heights: Any, at: Any) -> Any:
    """`read_curve` of many curves at once, each made to rise first.

    Args:
        heights: (curves, IPCs).
        at: (curves,).

    Returns:
        IPCs, (curves,).
    """
    return _read_risen(ipcs, _risen(heights), at)


def _risen(heights: Any) -> Any:
    """`rising` of many curves at once, (curves, IPCs)."""
    import numpy as np

    count = heights.shape[1]
    sums = np.cumsum(np.concatenate([np.zeros((len(heights), 1)), heights], axis=1), axis=1)
    # What `rising` gives of i: the highest, over j ≤ i, of the lowest mean of j … k over k ≥ i.
    risen = np.empty_like(heights)
    for i in range(count):
        lowest = [
            np.min([(sums[:, k + 1] - sums[:, j]) / (k + 1 - j) for k in range(i, count)], axis=0) for j in range(i + 1)
        ]
        risen[:, i] = np.max(lowest, axis=0)
    return risen


def _read_risen(ipcs: Sequence[int], risen: Any, at: Any) -> Any:
    """`read_curve` of many curves at once; shapes as in `read_curves`."""
    import numpy as np

    reached = risen >= at[:, None]
    right = np.where(reached.any(1), reached.argmax(1), len(ipcs) - 1)
    left, lines = np.maximum(right - 1, 0), np.arange(len(risen))
    low, high, logs = risen[lines, left], risen[lines, right], np.log(ipcs)
    # What is above a curve is far beyond its last two points, and told below.
    part = np.clip(np.divide(at - low, high - low, out=np.zeros_like(at), where=high > low), 0, 1)
    sizes = np.exp(logs[left] + part * (logs[right] - logs[left]))
    return np.where(at < risen[:, 0], 0.0, np.where(at > risen[:, -1], np.inf, sizes))


def rising(values: Sequence[float]) -> list[float]:
    """The nearest sequence that does not fall, by least squares (pool adjacent violators)."""
    pools: list[tuple[float, int]] = []
    for value in values:
        pools.append((value, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, m), (b, n) = pools[-2:]
            pools[-2:] = [((a * m + b * n) / (m + n), m + n)]
    return [value for value, count in pools for _ in range(count)]


def read_curve(ipcs: Sequence[int], heights: Sequence[float], at: float) -> float:
    """The IPC at which a curve that does not fall comes to a height; 0: it begins higher, inf: it stays lower."""
    if at < heights[0]:
        return 0.0
    if at > heights[-1]:
        return math.inf
    right = next(index for index, height in enumerate(heights) if height >= at)
    if right == 0:
        return float(ipcs[0])
    low, high = heights[right - 1], heights[right]
    part = (at - low) / (high - low)
    return math.exp(math.log(ipcs[right - 1]) + part * math.log(ipcs[right] / ipcs[right - 1]))


def _plain_name(dataset: str) -> str:
    """A dataset's name as tables call it, without the part of its hash that tells it from another one."""
    return dataset.partition("#")[0]


def _order(score: Score) -> tuple[Any, ...]:
    return score.dataset, score.protocol, score.ipc or 0, score.network, score.tested


def _command(words: Sequence[str], networks: Sequence[str]) -> str:
    """A line for a shell; several IPCs become a loop."""
    if not words:
        return ""
    words = [*words, "--evaluate-on", ",".join(networks)]
    at = words.index("--ipc") + 1 if "--ipc" in words else 0
    if not at or "," not in words[at]:
        return f"dambench run --headless {shlex.join(words)}"
    before, after = shlex.join(words[:at]), shlex.join(words[at + 1 :])
    return f"for ipc in {words[at].replace(',', ' ')}; do dambench run --headless {before} $ipc {after}; done"
