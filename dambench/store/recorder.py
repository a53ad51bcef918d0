"""Recorder: writes what one process of a run says, about once a second, and loses none of it.

While somebody else holds the database the run goes on, and its words wait in memory. Where the file is removed,
replaced or written over, what is in it is dropped, or it is held for too long, they are kept in another file, which
`dambench db merge` takes.
"""

import os
import sqlite3
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

import msgspec

from dambench.core import files
from dambench.core.errors import BadInput, Gone, Held, KeptElsewhere, NotKept
from dambench.core.events import AnyEvent, Previewed, Progressed, Sampled, Stepped, harmless
from dambench.store import database
from dambench.store.records import AttemptSuperseded, EventLogged, LogRecord, log_event
from dambench.store.rows import RunRow
from dambench.store.runs import Store
from dambench.store.tables import PREVIEWS

FLUSH_SECONDS = 1.0
FLUSH_EVENTS = 500

LOCK_SECONDS = 2.0
"""Seconds for which a run that computes waits for others who write, the first time …"""

LOCK_AGAIN_SECONDS, AGAIN_SECONDS = 0.25, 2.0
"""… and then, this often."""

LAST_PATIENCE = 600.0
"""For which a run that has come to its end waits for them …"""

HURRIED_PATIENCE = 10.0
"""… and one that was told to stop."""

MOST_EVENTS = 200_000
"""Words that wait in memory: of a run that logs once a second, two days."""

_encode = msgspec.json.Encoder().encode
_decode: Callable[[bytes], LogRecord] = msgspec.json.Decoder(LogRecord).decode


class Recorder:
    """The recorder of one process of a run.

    Args:
        attempt: which of the run's processes this is.
        say: tells whoever looks on that the database cannot be written.
        hurried: whether the run was told to stop.
    """

    def __init__(
        self,
        store: Store,
        run: str,
        attempt: int = 1,
        say: Callable[[str], None] = lambda text: None,
        hurried: Callable[[], bool] = lambda: False,
    ):
        row = store.run(run)
        self.lost = ""
        """Why the database will not be written any more; empty: it is."""
        self._store, self._run, self._uid, self._attempt = store, str(row.id), str(row.uid), attempt
        self._say, self._hurried = say, hurried
        self._number = row.number
        self._sequence = self._last_sequence()
        self._waiting: list[LogRecord] = []
        self._flushed = time.monotonic()
        self._held = False
        self._interrupted = False
        self._readable = False
        self._before = [_encode(line) for line in _log_so_far(store, row)]
        self._history: list[bytes] = []
        """What was said here, without what is in `_pictures`: to be kept elsewhere if need be."""
        self._pictures: deque[bytes] = deque(maxlen=PREVIEWS)

    @property
    def is_behind(self) -> bool:
        """True while something that was logged is not on disk."""
        return bool(self._waiting)

    def record(self, events: Iterable[AnyEvent]) -> Iterator[AnyEvent]:
        """Keep everything a run says, and hand it on. See `Store.record`."""
        for event in map(harmless, events):
            self._sequence += 1
            self._waiting.append(log_event(self._uid, self._attempt, self._sequence, event))
            late = time.monotonic() - self._flushed > FLUSH_SECONDS or len(self._waiting) >= FLUSH_EVENTS
            # A sample never has a transaction of its own: it goes with the event that it came with.
            if not isinstance(event, Sampled) and (late or not isinstance(event, Stepped | Progressed | Previewed)):
                self._flush()
            yield event
        self._end()

    def _flush(self) -> None:
        if self.lost:
            self._compact()
            return
        if self._held and time.monotonic() - self._flushed < AGAIN_SECONDS:
            return
        if self._interrupted:  # by a signal: before it was written, or after
            last = self._last_sequence()
            self._waiting = [line for line in self._waiting if isinstance(line, EventLogged) and line.sequence > last]
        try:
            self._interrupted = True
            self._store.write(self._waiting, LOCK_AGAIN_SECONDS if self._held else LOCK_SECONDS)
            self._interrupted = False
        except Held as error:
            self._interrupted = False
            if not self._held:
                self._say(f"{error} The run goes on, and what it says waits in memory.")
            self._held = True
            self._compact()
            if len(self._waiting) >= MOST_EVENTS:
                self._lose(str(error))
        except Gone as error:
            self._readable = error.readable
            self._lose(str(error))
        except AttemptSuperseded:
            if self._store.with_uid(self._uid) is not None:
                raise
            self._lose(f"The run {self._run} is not in the database {str(self._store.path)!r} any more.")
        except NotKept:
            raise
        except Exception:  # a fault of ours: what it was about cannot be kept, all else can
            self._interrupted = False
            lines, self._waiting = self._waiting, []
            for line in lines:
                with suppress(Exception):
                    self._store.write([line], LOCK_SECONDS)
            raise
        else:
            self._remember()
            if self._held:
                self._held = False
                self._say("The database can be written again: nothing is missing in it.")
        self._flushed = time.monotonic()

    def _last_sequence(self) -> int:
        both = "select sequence from events where run = ?1 union all select sequence from samples where run = ?1"
        return int(self._store.query(f"select coalesce(max(sequence), 0) last from ({both})", self._number)[0]["last"])

    def _remember(self) -> None:
        for line in self._waiting:
            if isinstance(line, EventLogged) and isinstance(line.event, Previewed):
                self._pictures.append(_encode(line))
            elif not (isinstance(line, EventLogged) and isinstance(line.event, Progressed)):
                self._history.append(_encode(line))
        self._waiting.clear()

    def _compact(self) -> None:
        """Keep of what waits only the latest progress, and some pictures."""
        few: dict[type[AnyEvent], int] = {Progressed: 1, Previewed: PREVIEWS}
        kept: list[LogRecord] = []
        for line in reversed(self._waiting):
            kind = type(line.event) if isinstance(line, EventLogged) else None
            if kind in few:
                few[kind] -= 1
            if kind is None or few.get(kind, 0) >= 0:
                kept.append(line)
        self._waiting = kept[::-1]

    def _lose(self, why: str) -> None:
        self.lost = why
        self._say(f"{why} The run stops, and all that it says is kept in another file.")

    def _end(self) -> None:
        """Write what waits.

        Raises:
            KeptElsewhere: it is in another file.
            NotKept: it is nowhere.
        """
        began = time.monotonic()
        while self._waiting and not self.lost:
            self._flush()
            if self._waiting:
                if time.monotonic() - began > (HURRIED_PATIENCE if self._hurried() else LAST_PATIENCE):
                    self.lost = f"The database {str(self._store.path)!r} could not be written: others hold it."
                time.sleep(LOCK_AGAIN_SECONDS)
        if self.lost:
            where = self._keep_elsewhere()
            raise KeptElsewhere(
                f"{self.lost} All that the run {self._run} said is kept in {str(where)!r}: `dambench db merge` takes "
                f"it, and if the run is not finished, `dambench resume {self._run}` then goes on with it."
            )

    def _keep_elsewhere(self) -> Path:
        """Make a database with the run; and with all that was in the one that is gone, if it can still be read."""
        self._compact()
        name = f"{self._store.path.name}.{self._run}.kept"
        for folder in (self._store.path.absolute().parent, files.home() / "kept"):
            for whole in (True, False) if self._readable else (False,):
                with suppress(OSError, sqlite3.Error, BadInput, NotKept):
                    if folder.parent == files.home():
                        folder.mkdir(parents=True, exist_ok=True)
                    return self._make(folder, name, whole)
        raise NotKept(f"{self.lost} Nor could what the run {self._run} said be kept in another file.")

    def _make(self, folder: Path, name: str, whole: bool) -> Path:
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name[:40]}.", suffix=".part") as place:
            part = Path(place) / "runs.db"
            lines: list[LogRecord] = []
            if whole:
                database.copy_whole(self._store.db, part)
            else:
                lines = [_decode(line) for line in (*self._before, *self._history, *self._pictures)]
            with closing(Store(part, database.open_to_write(part), wrote=True)) as store:
                store.write([*lines, *self._waiting])
            target = next(path for n in count(1) if not (path := folder / f"{name}{n if n > 1 else ''}.db").exists())
            os.link(part, target)
        files.sync_folder(folder)
        if whole and isinstance(self._store.db, database.Connection) and self._store.db.aside:
            self._store.db.aside.unlink(missing_ok=True)  # the copy has what was in it
        return target


def _log_so_far(store: Store, row: RunRow) -> Iterator[LogRecord]:
    """The log of a run and its earlier processes, from the database; nothing, where it cannot be read."""
    from dambench.store.merge import Refused, copy_of

    with suppress(Refused, BadInput):
        copy = copy_of(store, msgspec.structs.asdict(row))
        yield copy.created
        yield from copy.log
        yield from copy.last
