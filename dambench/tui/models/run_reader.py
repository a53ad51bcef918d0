"""Run reader: all that Live shows of one run, read bit by bit as the run logs it."""

import json
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np

from dambench.core.events import (
    SKIPPED,
    AnyEvent,
    DataCard,
    Environment,
    Evaluated,
    Failed,
    Finished,
    Measured,
    Resumed,
    Sampled,
    Started,
    Stepped,
    Stopped,
)
from dambench.core.narration import losses as spelled
from dambench.core.narration import summary
from dambench.core.sanitize import display
from dambench.report.labels import place_of
from dambench.runner import processes
from dambench.store.metrics import ACCURACY, MetricRow
from dambench.store.rows import RunRow
from dambench.store.runs import Store
from dambench.store.statistics import mean, std
from dambench.store.tuning import OBJECTIVE
from dambench.tui.models.chart import Floats, Series
from dambench.tui.models.machine_course import MachineCourse, Means
from dambench.tui.models.sheet import Sheet

RECENT_SECONDS = 60.0
"""Seconds of a run over which its speed is taken."""

PARTS = 20
"""Logged iterations over which the parts of one are taken."""

SAMPLES = 300
"""Samples that are kept as they are: five minutes."""

LOG_BYTES = 64_000
"""Bytes of a log's end that are shown."""


@dataclass(frozen=True)
class NetworkAccuracy:
    """Mean accuracy of the networks of one kind that were trained on the set of one iteration."""

    iteration: int
    network: str
    final: bool
    mean: float
    std: float | None
    n: int
    validation: float | None = None
    """Mean accuracy on validation images; None: the protocol holds none out."""


@dataclass(frozen=True)
class MeasuredFigure:
    """Mean of a metric of another evaluator than accuracy, over the repeats of a subject."""

    evaluator: str
    subject: str
    metric: str
    unit: str
    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Attempt:
    """A process of a run."""

    number: int
    after: int
    """The iteration that it went on from; -1: it began anew."""
    environment: Environment


@dataclass(frozen=True)
class RunSnapshot:
    """A run at one moment. Nothing in it changes any more."""

    row: RunRow
    evaluates: str
    """The set that it evaluates, if it does nothing else, as `ab2cde's set`."""
    state: processes.State
    card: DataCard
    environment: Environment | None
    """The environment of the last attempt."""
    attempts: tuple[Attempt, ...]
    losses: tuple[Series, ...]
    seconds: Floats
    """Seconds of distilling, at each iteration that was logged."""
    iterations: Floats
    """The iterations that were logged."""
    parts: dict[str, float]
    """Seconds of an iteration, on average; empty: not measured."""
    accuracies: tuple[NetworkAccuracy, ...]
    """In the order of their first scores."""
    figures: tuple[MeasuredFigure, ...]
    """What other evaluators have measured, the subject that was measured last first."""
    samples: tuple[Sampled, ...]
    """The last ones."""
    course: Means
    """What the machine did over the whole run."""
    sampled_seconds: float
    """How long that is."""
    joules: float | None
    """Energy of the whole card, while the run's attempts went on."""
    costs: dict[str, float]
    """Seconds by phase."""
    log: tuple[str, ...]
    checkpoint: int | None
    """The iteration that it can go on from."""
    pictures: tuple[int, ...]
    """The iterations of which there is one."""
    picture: int | None
    """The iteration of the sheet."""
    sheet: Sheet | None
    speed: float | None
    """Steps of the phase per second; None: unknown."""

    @property
    def run(self) -> str:
        return str(self.row.id)

    @property
    def evaluator(self) -> str:
        """What measures its sets."""
        return str(json.loads(self.row.config).get("evaluator", {}).get("name", ACCURACY.evaluator))

    @property
    def live(self) -> bool:
        return self.state in processes.ALIVE

    @property
    def left(self) -> float | None:
        """Seconds of this phase that are left; None: not known."""
        if not (self.live and self.speed and self.row.total):
            return None
        return float(max(0, self.row.total - self.row.done)) / self.speed

    @property
    def spread(self) -> tuple[float, float] | None:
        """Between which the speed was, 5 and 95 % of the time; None: not known."""
        if len(self.seconds) < 10:
            return None
        recent = max(0, int(np.searchsorted(self.seconds, self.seconds[-1] - 10 * RECENT_SECONDS)) - 1)
        spans = np.diff(self.seconds[recent:])
        rates = np.diff(self.iterations[recent:])[spans > 0] / spans[spans > 0]
        if len(rates) < 5:
            return None
        low, high = np.percentile(rates, [5, 95])
        return float(low), float(high)


@dataclass(frozen=True)
class RunGone:
    """A run that is not in the database any more."""

    run: str


@dataclass
class _History:
    """All that was read so far, up to one attempt."""

    after: int = 0
    last: object = None
    """Time and kind of the event of that number."""
    after_sample: int = 0
    iterations: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    losses: dict[str, tuple[list[float], list[float]]] = field(default_factory=lambda: defaultdict(lambda: ([], [])))
    parts: deque[dict[str, float]] = field(default_factory=lambda: deque(maxlen=PARTS))
    measurements: dict[tuple[int, str, int], Measured] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    """By metric of another evaluator than accuracy."""
    samples: deque[Sampled] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    course: MachineCourse = field(default_factory=MachineCourse)
    joules: float | None = None
    counted: int | None = None
    """The last value of the card's counter of millijoules in this attempt."""
    resumed: list[int] = field(default_factory=list)
    """The numbers of the events at which it was resumed."""
    environment: Environment | None = None
    attempts: list[Attempt] = field(default_factory=list)
    costs: dict[str, float] | None = None
    """Seconds by phase, as the last event of the last attempt has them; None: it has not come, or has none."""
    prepared: dict[str, float] = field(default_factory=dict)
    """The same of an earlier attempt, but for what the events tell."""
    log: list[str] = field(default_factory=list)
    earlier_lines: int = 0
    """The number of them that are of earlier attempts: each has a log of its own."""
    series: tuple[Series, ...] = ()
    axes: tuple[Floats, Floats] = (np.empty(0), np.empty(0))
    """The iterations and the seconds as they are drawn."""
    drawn: int = -1

    def mark(self, store: Store, number: int) -> None:
        """Remember the last event that was read."""
        self.last = self._event(store, number)

    def holds(self, store: Store, number: int) -> bool:
        """The last event that was read is still the same."""
        return self.last == self._event(store, number)

    def _event(self, store: Store, number: int) -> object:
        return store.event_mark(number, self.after)


class RunReader:
    """Reads a run, asked again and again by one thread.

    Args:
        run: its id; empty: the newest that is running, else the newest.
    """

    def __init__(self, run: str = "") -> None:
        self.run = run
        self.picture_at: int | None = None
        """The iteration of the picture to read; None: the newest. Anybody may set it."""
        self._begun: object = None
        """The run and the attempt that were read."""
        self._history = _History()
        self._card: DataCard | None = None
        self._sheet: tuple[int, Sheet | None] | None = None
        self._log: tuple[object, tuple[str, ...]] = (None, ())
        self._moved: deque[tuple[float, str, int]] = deque(maxlen=240)

    def read(self, store: Store) -> RunSnapshot | RunGone | None:
        """Read what is new; None: there is no run."""
        if not self.run:
            order = runs(store)
            if not order:
                return None
            self.run = order[0]
        row = store.with_id(self.run)
        if row is None:
            return RunGone(self.run)
        if row.phase == "distil":
            # After an evaluation the row has that one's total until the run says how far it is.
            options = json.loads(row.config)["method"].get("options", {})
            row = msgspec.structs.replace(row, total=options.get("iterations", row.total))
        begun = row.uid, row.attempt
        if begun != self._begun or not self._history.holds(store, row.number):
            # Whatever it had said of iterations after its checkpoint holds no more; or the file was written over.
            self._begun, self._history, self._card, self._sheet = begun, _History(), None, None
        history = self._history
        for sequence, event in store.tail(self.run, history.after):
            history.after = sequence
            if isinstance(event, Resumed):
                history.resumed.append(sequence)
            self._apply(event)
        history.mark(store, row.number)
        for sequence, sample in store.samples(self.run, history.after_sample):
            history.after_sample = sequence
            history.samples.append(sample)
            history.course.add(sample)
            while history.resumed and sequence > history.resumed[0]:
                history.resumed.pop(0)
                history.counted = None  # what the card took in between was not for this run
            if sample.gpu_millijoules is not None:
                spent = 0.0 if history.counted is None else (sample.gpu_millijoules - history.counted) / 1000
                history.joules, history.counted = (history.joules or 0.0) + spent, sample.gpu_millijoules
        if self._card is None:
            self._card = store.card(row)
        if history.drawn != history.after:
            history.drawn = history.after
            history.series = tuple(
                Series(name, np.array(x), np.array(y))
                for name, (x, y) in history.losses.items()
                if name != "skipped" or any(y)  # said only where steps were left out, as in the log
            )
            history.axes = np.array(history.iterations), np.array(history.seconds)
        pictures = store.pictures(self.run)
        picture = self._nearest(pictures)
        return RunSnapshot(
            row=row,
            evaluates=store.evaluates(row.id),
            state=processes.state(row),
            card=self._card,
            environment=history.environment,
            attempts=tuple(history.attempts),
            losses=history.series,
            seconds=history.axes[1],
            iterations=history.axes[0],
            parts=_means(history.parts),
            accuracies=_accuracies(history.measurements.values()),
            figures=_figures(history.measurements.values(), history.units),
            samples=tuple(history.samples),
            course=history.course.means(),
            sampled_seconds=history.course.seconds,
            joules=history.joules,
            costs=self._spent(),
            log=self._lines(row),
            checkpoint=store.last_checkpoint(row),
            pictures=tuple(pictures),
            picture=picture,
            sheet=self._read_sheet(store, picture),
            speed=self._speed(row),
        )

    def _apply(self, event: AnyEvent) -> None:
        history = self._history
        match event:
            case Started() | Resumed():
                history.environment = event.environment
                number, after = (event.attempt, event.iteration) if isinstance(event, Resumed) else (1, -1)
                history.attempts.append(Attempt(number, after, event.environment))
                if isinstance(event, Started):
                    history.units = {name: one.unit for each in event.metrics.values() for name, one in each.items()}
                history.earlier_lines = 0 if isinstance(event, Started) else len(history.log)
                costs, history.costs = history.costs or {}, None
                history.prepared |= {
                    phase: spent for phase, spent in costs.items() if phase not in ("distil", "evaluate")
                }
            case Finished() | Failed() | Stopped():
                history.costs = {cost.phase: cost.seconds for cost in event.costs} or None
            case Stepped():
                history.iterations.append(event.iteration)
                history.seconds.append(event.seconds)
                for name, value in event.losses.items():
                    if name == SKIPPED and not value:
                        continue  # a line once there is something to see
                    x, y = history.losses[name]
                    x.append(event.iteration)
                    y.append(float(value))
                if event.parts:
                    history.parts.append(event.parts)
            case Evaluated() | Measured():
                one = event.measured if isinstance(event, Evaluated) else event
                history.measurements[one.iteration, one.subject, one.repeat] = one
        if isinstance(event, Stepped):
            line: str | None = f"iteration {event.iteration}  {spelled(event)}"
            if history.log and history.log[-1].startswith("iteration "):
                history.log.pop()  # only the last of those that follow each other
        else:
            line = summary(event)
        if line:
            history.log.append(line)

    def _spent(self) -> dict[str, float]:
        """Seconds by phase: those of the run's last event, else as far as the others tell."""
        history = self._history
        if history.costs is not None:
            return history.costs
        spent = dict(history.prepared)
        if history.seconds:
            spent["distil"] = history.seconds[-1]
        if history.measurements:
            spent["evaluate"] = sum(one.seconds for one in history.measurements.values())
        return spent

    def _speed(self, row: RunRow) -> float | None:
        history = self._history
        if row.phase == "distil" or row.state not in ("waiting", "running"):
            if len(history.seconds) < 2:
                return None
            first = min(
                len(history.seconds) - 2, int(np.searchsorted(history.seconds, history.seconds[-1] - RECENT_SECONDS))
            )
            span = history.seconds[-1] - history.seconds[first]
            return (history.iterations[-1] - history.iterations[first]) / span if span > 0 else None
        # Of other phases the database has only how far they have come: how fast is seen by looking.
        if self._moved and (self._moved[-1][1] != row.phase or self._moved[-1][2] > row.done):
            self._moved.clear()
        if not self._moved or self._moved[-1][2] != row.done:
            self._moved.append((time.monotonic(), row.phase, row.done))
        (since, _, earlier_lines), (until, _, now) = self._moved[0], self._moved[-1]
        return (now - earlier_lines) / (until - since) if until - since > 1 else None

    def _nearest(self, pictures: Sequence[int]) -> int | None:
        picture_at = self.picture_at
        if not pictures:
            return None
        return pictures[-1] if picture_at is None else min(pictures, key=lambda at: abs(at - picture_at))

    def _read_sheet(self, store: Store, picture: int | None) -> Sheet | None:
        """The sheet of that iteration; read and taken apart only once."""
        assert self._card is not None
        if picture is None:
            return None
        if self._sheet is None or self._sheet[0] != picture:
            self._sheet = picture, read_sheet(store, self.run, self._card, picture)
        return self._sheet[1]

    def _lines(self, row: RunRow) -> tuple[str, ...]:
        """The end of its log file or, where that is not, its events in words."""
        path = Path(row.log) if row.log else None
        try:
            if path is None or not processes.is_here(row) or not path.is_file():
                raise FileNotFoundError
            at = path.stat()
            now = row.attempt, self._history.earlier_lines, at.st_mtime_ns, at.st_size
            if self._log[0] != now:
                with path.open("rb") as file:
                    file.seek(max(0, at.st_size - LOG_BYTES))
                    text = file.read(LOG_BYTES).decode(errors="replace")
                rows = text.splitlines()[1 if at.st_size > LOG_BYTES else 0 :]
                earlier = self._history.log[: self._history.earlier_lines]
                self._log = now, (*earlier, *(display(line, 400) for line in rows))
        except OSError:
            if self._log[0] != self._history.after:
                self._log = self._history.after, tuple(self._history.log)
        return self._log[1]


def read_sheet(store: Store, run: str, card: DataCard, picture: int) -> Sheet | None:
    """The picture of a run's set after an iteration, taken apart; None: it cannot be read."""
    try:
        png = store.picture(run, picture)
        _, count, even = store.extent(run)
        return Sheet.read(png, card.height, card.width, card.classes, count, even=even)
    except ValueError:
        return None


def runs(store: Store) -> list[str]:
    """The ids of all runs, those that run first, the newest first."""
    unfinished = sorted(store.unfinished(), key=lambda row: (row.age, row.number), reverse=True)
    alive = [row.id for row in unfinished if processes.state(row) in processes.ALIVE]
    return [*alive, *(run for run in store.ids() if run not in set(alive))]


def _means(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for some in parts for name in some)
    return {name: mean([some.get(name, 0.0) for some in parts]) for name in names}


def _accuracies(measurements: Iterable[Measured]) -> tuple[NetworkAccuracy, ...]:
    by: dict[tuple[int, str], list[Measured]] = defaultdict(list)
    for one in measurements:
        if one.evaluator == "accuracy":
            by[one.iteration, one.subject].append(one)
    return tuple(
        NetworkAccuracy(
            iteration, network, of[0].final, mean(values), std(values), len(values), mean(held) if held else None
        )
        for (iteration, network), of in by.items()
        for values in [[float(one.values["accuracy"]) for one in of]]
        for held in [[float(one.values[OBJECTIVE]) for one in of if OBJECTIVE in one.values]]
    )


def _figures(measurements: Iterable[Measured], units: dict[str, str]) -> tuple[MeasuredFigure, ...]:
    """The means of all metrics of other evaluators, in the order in which they are read beside each other."""
    by: dict[tuple[str, str], dict[str, list[float]]] = {}
    for one in measurements:
        if one.evaluator != "accuracy":
            values = by.pop((one.evaluator, one.subject), {})
            by[one.evaluator, one.subject] = values
            for name, value in one.values.items():
                values.setdefault(name, []).append(float(value))
    return tuple(
        MeasuredFigure(evaluator, subject, name, units.get(name, ""), mean(of), std(of), len(of))
        for (evaluator, subject), values in reversed(by.items())
        for name, of in sorted(values.items(), key=lambda item: place_of(MetricRow(evaluator, item[0], "", "", "")))
    )


def local(moment: str) -> str:
    """A time of the database on the clock of whoever reads it: `09:14`."""
    return f"{datetime.fromisoformat(moment).astimezone():%H:%M}"


def idle_pictures(snapshot: RunSnapshot) -> set[str]:
    """The keys for the picture before and after that have none to go to."""
    at = snapshot.pictures.index(snapshot.picture) if snapshot.picture is not None else 0
    first, last = at == 0, at >= len(snapshot.pictures) - 1
    return ({"picture(-1)"} if first else set()) | ({"picture(1)"} if last else set())
