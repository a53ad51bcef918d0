"""Watched: all that Live shows of one run, read bit by bit as the run says it. Known without a screen."""

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
from dambench.runner import processes
from dambench.store.rows import RunRow
from dambench.store.runs import Store
from dambench.store.statistics import mean, std
from dambench.tui.models.chart import Floats, Series
from dambench.tui.models.sheet import Sheet

RECENT_SECONDS = 60.0
"""Of a run, over which its speed is taken."""

PARTS = 20
"""Logged iterations over which the parts of one are taken."""

SAMPLES = 300
"""That are kept for little bars: five minutes."""

LOG_BYTES = 64_000
"""Of a log's end that are shown."""


@dataclass(frozen=True)
class NetworkAccuracy:
    """What networks of one kind that were trained on the set of one iteration came to."""

    iteration: int
    network: str
    final: bool
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
    """Of the last attempt."""
    attempts: tuple[Attempt, ...]
    losses: tuple[Series, ...]
    seconds: Floats
    """Of distilling, at each iteration that was logged."""
    iterations: Floats
    """Those."""
    parts: dict[str, float]
    """Seconds of an iteration, on average; empty: not measured."""
    judged: tuple[NetworkAccuracy, ...]
    """In the order of their first scores."""
    samples: tuple[Sampled, ...]
    """The last ones."""
    joules: float | None
    """Of the whole card, while the run's attempts went on."""
    costs: dict[str, float]
    """Seconds by phase."""
    log: tuple[str, ...]
    checkpoint: int | None
    """The iteration that it can go on from."""
    pictures: tuple[int, ...]
    """The iterations of which there is one."""
    picture: int | None
    """That of the sheet."""
    sheet: Sheet | None
    speed: float | None
    """Of the phase, per second; None: not known."""

    @property
    def run(self) -> str:
        return str(self.row.id)

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
    """What has been read so far, up to one attempt."""

    after: int = 0
    last: object = None
    """When the event of that number was, and what it said."""
    after_sample: int = 0
    iterations: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    losses: dict[str, tuple[list[float], list[float]]] = field(default_factory=lambda: defaultdict(lambda: ([], [])))
    parts: deque[dict[str, float]] = field(default_factory=lambda: deque(maxlen=PARTS))
    measurements: dict[tuple[int, str, int], Measured] = field(default_factory=dict)
    samples: deque[Sampled] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    joules: float | None = None
    counted: int | None = None
    """What the card's counter of millijoules said last, in this attempt."""
    resumed: list[int] = field(default_factory=list)
    """The numbers of the events at which it was resumed."""
    environment: Environment | None = None
    attempts: list[Attempt] = field(default_factory=list)
    costs: dict[str, float] | None = None
    """Seconds by phase, as the last word of the last attempt told them; None: it has not come, or told none."""
    prepared: dict[str, float] = field(default_factory=dict)
    """The same of an earlier attempt, but for what the events tell."""
    said: list[str] = field(default_factory=list)
    before: int = 0
    """Of these, those of earlier attempts: each has a log of its own."""
    series: tuple[Series, ...] = ()
    drawn: int = -1

    def mark(self, store: Store, number: int) -> None:
        """Remember the last event that was read."""
        self.last = self._event(store, number)

    def holds(self, store: Store, number: int) -> bool:
        """Whether that is still what the run, of that number, said then."""
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
        self.wanted: int | None = None
        """Of which iteration the picture is to be; None: of the newest. Anybody may set it."""
        self._begun: object = None
        """Which run, and which attempt, it is that something is known of."""
        self._known = _History()
        self._card: DataCard | None = None
        self._sheet: tuple[int, Sheet | None] | None = None
        self._log: tuple[object, tuple[str, ...]] = (None, ())
        self._moved: deque[tuple[float, str, int]] = deque(maxlen=240)

    def ask(self, store: Store) -> RunSnapshot | RunGone | None:
        """What is known now; None: there is no run."""
        if not self.run:
            order = runs(store)
            if not order:
                return None
            self.run = order[0]
        row = next(iter(store.runs("id = ?", self.run)), None)
        if row is None:
            return RunGone(self.run)
        if row.phase == "distil":
            # After an evaluation the row has that one's total until the run says how far it is.
            options = json.loads(row.config)["method"].get("options", {})
            row = msgspec.structs.replace(row, total=options.get("iterations", row.total))
        begun = row.uid, row.attempt
        if begun != self._begun or not self._known.holds(store, row.number):
            # Whatever it had said of iterations after its checkpoint holds no more; or the file was written over.
            self._begun, self._known, self._card, self._sheet = begun, _History(), None, None
        known = self._known
        for sequence, event in store.tail(self.run, known.after):
            known.after = sequence
            if isinstance(event, Resumed):
                known.resumed.append(sequence)
            self._hear(event)
        known.mark(store, row.number)
        for sequence, sample in store.samples(self.run, known.after_sample):
            known.after_sample = sequence
            known.samples.append(sample)
            while known.resumed and sequence > known.resumed[0]:
                known.resumed.pop(0)
                known.counted = None  # what the card took in between was not for this run
            if sample.gpu_millijoules is not None:
                spent = 0.0 if known.counted is None else (sample.gpu_millijoules - known.counted) / 1000
                known.joules, known.counted = (known.joules or 0.0) + spent, sample.gpu_millijoules
        if self._card is None:
            self._card = store.card(row)
        if known.drawn != known.after:
            known.drawn = known.after
            known.series = tuple(
                Series(name, np.array(x), np.array(y))
                for name, (x, y) in known.losses.items()
                if name != "skipped" or any(y)  # said only where steps were left out, as in the log
            )
        pictures = store.pictures(self.run)
        picture = self._nearest(pictures)
        return RunSnapshot(
            row=row,
            evaluates=store.evaluates(row.id),
            state=processes.state(row),
            card=self._card,
            environment=known.environment,
            attempts=tuple(known.attempts),
            losses=known.series,
            seconds=np.array(known.seconds),
            iterations=np.array(known.iterations),
            parts=_means(known.parts),
            judged=_judged(known.measurements.values()),
            samples=tuple(known.samples),
            joules=known.joules,
            costs=self._spent(),
            log=self._lines(row),
            checkpoint=store.last_checkpoint(row),
            pictures=tuple(pictures),
            picture=picture,
            sheet=self._look(store, picture),
            speed=self._speed(row),
        )

    def _hear(self, event: AnyEvent) -> None:
        known = self._known
        match event:
            case Started() | Resumed():
                known.environment = event.environment
                number, after = (event.attempt, event.iteration) if isinstance(event, Resumed) else (1, -1)
                known.attempts.append(Attempt(number, after, event.environment))
                known.before = 0 if isinstance(event, Started) else len(known.said)
                told, known.costs = known.costs or {}, None
                known.prepared |= {phase: spent for phase, spent in told.items() if phase not in ("distil", "evaluate")}
            case Finished() | Failed() | Stopped():
                known.costs = {cost.phase: cost.seconds for cost in event.costs} or None
            case Stepped():
                known.iterations.append(event.iteration)
                known.seconds.append(event.seconds)
                for name, value in event.losses.items():
                    if name == SKIPPED and not value:
                        continue  # a line once there is something to see
                    x, y = known.losses[name]
                    x.append(event.iteration)
                    y.append(float(value))
                if event.parts:
                    known.parts.append(event.parts)
            case Evaluated() | Measured():
                one = event.measured if isinstance(event, Evaluated) else event
                known.measurements[one.iteration, one.subject, one.repeat] = one
        if isinstance(event, Stepped):
            line: str | None = f"iteration {event.iteration}  {spelled(event)}"
            if known.said and known.said[-1].startswith("iteration "):
                known.said.pop()  # only the last of those that follow each other
        else:
            line = summary(event)
        if line:
            known.said.append(line)

    def _spent(self) -> dict[str, float]:
        """Seconds by phase: as the run told them with its last word, else as far as they are seen."""
        known = self._known
        if known.costs is not None:
            return known.costs
        found = dict(known.prepared)
        if known.seconds:
            found["distil"] = known.seconds[-1]
        if known.measurements:
            found["evaluate"] = sum(one.seconds for one in known.measurements.values())
        return found

    def _speed(self, row: RunRow) -> float | None:
        known = self._known
        if row.phase == "distil" or row.state not in ("waiting", "running"):
            if len(known.seconds) < 2:
                return None
            first = min(len(known.seconds) - 2, int(np.searchsorted(known.seconds, known.seconds[-1] - RECENT_SECONDS)))
            span = known.seconds[-1] - known.seconds[first]
            return (known.iterations[-1] - known.iterations[first]) / span if span > 0 else None
        # Of other phases the database has only how far they have come: how fast is seen by looking.
        if self._moved and (self._moved[-1][1] != row.phase or self._moved[-1][2] > row.done):
            self._moved.clear()
        if not self._moved or self._moved[-1][2] != row.done:
            self._moved.append((time.monotonic(), row.phase, row.done))
        (since, _, before), (until, _, now) = self._moved[0], self._moved[-1]
        return (now - before) / (until - since) if until - since > 1 else None

    def _nearest(self, pictures: Sequence[int]) -> int | None:
        wanted = self.wanted
        if not pictures:
            return None
        return pictures[-1] if wanted is None else min(pictures, key=lambda at: abs(at - wanted))

    def _look(self, store: Store, picture: int | None) -> Sheet | None:
        """The sheet of that iteration; read and taken apart only once."""
        assert self._card is not None
        if picture is None:
            return None
        if self._sheet is None or self._sheet[0] != picture:
            try:
                png = store.picture(self.run, picture)
                card, (_, count, even) = self._card, store.extent(self.run)
                found = Sheet.read(png, card.height, card.width, card.classes, count, even=even)
            except ValueError:
                found = None
            self._sheet = picture, found
        return self._sheet[1]

    def _lines(self, row: RunRow) -> tuple[str, ...]:
        """The end of its log file or, where that is not, what it said."""
        path = Path(row.log) if row.log else None
        try:
            if path is None or not processes.is_here(row) or not path.is_file():
                raise FileNotFoundError
            at = path.stat()
            now = row.attempt, self._known.before, at.st_mtime_ns, at.st_size
            if self._log[0] != now:
                with path.open("rb") as file:
                    file.seek(max(0, at.st_size - LOG_BYTES))
                    text = file.read(LOG_BYTES).decode(errors="replace")
                found = text.splitlines()[1 if at.st_size > LOG_BYTES else 0 :]
                earlier = self._known.said[: self._known.before]
                self._log = now, (*earlier, *(display(line, 400) for line in found))
        except OSError:
            if self._log[0] != self._known.after:
                self._log = self._known.after, tuple(self._known.said)
        return self._log[1]


def runs(store: Store) -> list[str]:
    """The ids of all runs, those that run first, the newest first."""
    unfinished = sorted(store.unfinished(), key=lambda row: (row.age, row.number), reverse=True)
    alive = [row.id for row in unfinished if processes.state(row) in processes.ALIVE]
    return [*alive, *(run for run in store.ids() if run not in set(alive))]


def _means(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for some in parts for name in some)
    return {name: mean([some.get(name, 0.0) for some in parts]) for name in names}


def _judged(measurements: Iterable[Measured]) -> tuple[NetworkAccuracy, ...]:
    by: dict[tuple[int, str], list[Measured]] = defaultdict(list)
    for one in measurements:
        if one.evaluator == "accuracy":
            by[one.iteration, one.subject].append(one)
    return tuple(
        NetworkAccuracy(iteration, network, of[0].final, mean(values), std(values), len(values))
        for (iteration, network), of in by.items()
        for values in [[float(one.values["accuracy"]) for one in of]]
    )


def local(moment: str) -> str:
    """A time of the database on the clock of whoever reads it: `09:14`."""
    return f"{datetime.fromisoformat(moment).astimezone():%H:%M}"
