"""Spools: what a run on another host says, kept there, and taken into the one database here.

A run on another host writes to a spool of that host, as quickly as if it were alone: a journal (`store/journal.py`) of
its own. What its files say is sent to the host of the database in batches, each of whole lines from a known byte on.
Here they are applied in one transaction, and only then acknowledged. So a batch may be sent twice, an answer may be
lost, and whoever applies them may be killed at any time: lines are known by their run, attempt and number.

Whoever carries out a run has a *claim* on it, a number that only grows. What comes under an earlier claim is refused:
a process that was thought to be dead, and was only cut off, cannot write any more, whatever it still computes.

A line that names a file (a checkpoint, a set) is sent after the file, whose content is that of its name.
"""

import fcntl
import os
import re
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from dambench.core import files, reading
from dambench.core.errors import BadInput, NotKept
from dambench.core.events import AnyEvent, Checkpointed, Finished, Progressed, Snapshot
from dambench.store import bundle, database, journal
from dambench.store.journal import Journal, parse_attempt_file_name
from dambench.store.merge import Refused, copy_of
from dambench.store.records import AttemptSuperseded, EventLogged, LogRecord, RunCreated, RunEdited, decoded
from dambench.store.rows import SqlRow
from dambench.store.runs import Store

BATCH_BYTES = 1 << 20
"""A batch ends with the line that reaches so many."""

PIECE_BYTES = 1 << 22
"""The part of a file that is sent at once."""

KEPT_DAYS = 30.0
"""For which a claim is remembered after the last word of its run."""

_FILE = re.compile(
    r"runs/(?P<run>[0-9a-f]{32})/(?P<checkpoint>[0-9a-f]{64})\.safetensors"
    r"|sets/(?P<set>[0-9a-f]{64})\.safetensors"
    r"|data/zca-[0-9a-f]{16}-(?P<whitening>[0-9a-f]{64})\.safetensors"
)


class Unreachable(RuntimeError):
    """The host of the database does not answer. It may later."""


class Batch(NamedTuple):
    """A part of what a spool says."""

    run: str
    """The uid of the run that the claim is on."""
    claim: int
    name: str
    """A file of the spool's journal."""
    offset: int
    """Bytes of the file before `content`."""
    content: bytes
    """Whole lines; none: a sign of life."""


class Answer(NamedTuple):
    """The acknowledgement of a batch."""

    taken: int
    """Bytes of the file that are in the database: what follows is to be sent."""
    stop: bool = False
    """Somebody has asked the run to stop."""
    superseded: bool = False
    """Somebody else has the claim now: nothing was taken, nor will be."""
    unread: int = 0
    """Lines of the batch that no run says."""


class Begun(NamedTuple):
    """A claim on a run."""

    claim: int
    continues: int
    """The claim before, if its spool is the one to go on from; 0: it is not."""


class Seed(NamedTuple):
    """All that another host needs to begin a run, or to go on with it."""

    database: bytes
    """A database with the run so far; empty: it has not begun."""
    files: list[tuple[str, int]]
    """Names and bytes of the files that it needs."""
    row: SqlRow
    """Its row of `runs`; empty: it has not begun."""


class Link(Protocol):
    """The way to the host of the database, where an `Intake` is.

    Every call may be repeated. All raise `Unreachable` where there is no answer, and `NotKept` where the database
    cannot be written now.
    """

    def begin(self, run: str, held: Sequence[int]) -> Begun: ...
    def seed(self, run: str, claim: int, also: Sequence[str]) -> Seed: ...
    def take(self, batch: Batch) -> Answer: ...
    def lacks(self, run: str, claim: int, name: str) -> int | None: ...
    def add(self, run: str, claim: int, name: str, offset: int, content: bytes, last: bool) -> int | None: ...
    def fetch(self, name: str, offset: int) -> bytes: ...
    def standing(self, run: str) -> SqlRow: ...


class _Claim(msgspec.Struct):
    """A claim, and how much of each file was taken, in bytes."""

    number: int = 0
    taken: dict[str, int] = {}


class Intake:
    """Takes spools into a database; one per database, on its host.

    Args:
        path: the database.
    """

    def __init__(self, path: Path):
        self._path = path
        self._store: Store | None = None
        self._folder = files.home() / "claims"
        _forget_old(self._folder)

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    @contextmanager
    def _open(self) -> Iterator[Store]:
        """The database; where something is wrong with it, it is opened anew the next time."""
        try:
            if self._store is None:
                self._store = Store.open(self._path, write=True)
            yield self._store
        except BaseException:
            with suppress(Exception):
                self.close()
            raise

    def begin(self, run: str, held: Sequence[int] = ()) -> Begun:
        """Claim a run: from now on nothing is taken under an earlier claim.

        Args:
            held: claims whose spools are at hand: the last one is gone on with.
        """
        with self._locked(run) as claim:
            before = claim.number
            claim.number += 1
            self._keep(run, claim)
            return Begun(claim.number, before if before in held else 0)

    def seed(self, run: str, claim: int, also: Sequence[str] = ()) -> Seed:
        """All that is known of a claimed run, and of others that it needs.

        Args:
            also: ids of the others.

        Raises:
            AttemptSuperseded: somebody else has the claim now.
            BadInput: one of the others is not here, or what is here of them is damaged.
        """
        with self._locked(run) as now, self._open() as store:
            if now.number != claim:
                raise AttemptSuperseded
            store.refresh()
            rows = store.query("select * from runs where uid = ?", run)
            others = [store.query("select * from runs where id = ?", store.run(one).id)[0] for one in also]
            wanted = [*rows, *(row for row in others if row["uid"] != run)]
            names = [name for row in wanted for name in self._files_of(store, row, checkpoints=row["uid"] == run)]
            there = [(name, path.stat().st_size) for name in names if (path := path_of(name)).is_file()]
            return Seed(_database_of(store, wanted), list(dict.fromkeys(there)), rows[0] if rows else {})

    @staticmethod
    def _files_of(store: Store, row: SqlRow, *, checkpoints: bool) -> Iterator[str]:
        if checkpoints:
            sql = "select sha256 from checkpoints where run = ? order by sequence"
            yield from (f"runs/{row['uid']}/{one['sha256']}.safetensors" for one in store.query(sql, row["number"]))
        sets = [one["sha256"] for one in store.query("select sha256 from artifacts where run = ?", row["number"])]
        for sha256 in (*sets, *bundle.SHA256.findall(str(row["config"]))):
            yield from set_files(sha256)

    def take(self, batch: Batch) -> Answer:
        """Apply what is new of a batch, all or nothing, and acknowledge it.

        Raises:
            NotKept: the database could not be written: it is to be sent again.
            BadInput: it is no batch.
        """
        named = parse_attempt_file_name(batch.name)
        if named is None or (batch.content and not batch.content.endswith(b"\n")):
            raise BadInput("What was sent is no batch of a spool.")
        with self._locked(batch.run) as claim:
            if batch.claim != claim.number:
                return Answer(0, superseded=True)
            taken = claim.taken.get(batch.name, 0)
            if batch.offset > taken:
                return Answer(taken)  # what comes before is missing
            fresh, unread = batch.content[taken - batch.offset :], 0
            with self._open() as store:
                if fresh:
                    try:
                        unread = _apply(store, *named, fresh)
                    except AttemptSuperseded:
                        if named[0] == batch.run:
                            return Answer(taken, superseded=True)
                        # Of a run that came of this one, and is not here any more: nobody waits for its words.
                    claim.taken[batch.name] = taken = taken + len(fresh)
                    self._keep(batch.run, claim)
                return Answer(taken, _is_asked_to_stop(store, batch.run, *named, beat=not fresh), False, unread)

    def lacks(self, run: str, claim: int, name: str) -> int | None:
        """Tell how many bytes of a file have come; None: it is here, whole."""
        if path_of(name).is_file():
            return None
        with suppress(FileNotFoundError):
            return self._part(run, claim, name).stat().st_size
        return 0

    def add(self, run: str, claim: int, name: str, offset: int, content: bytes, last: bool) -> int | None:
        """Add a piece to a file. Returns how many bytes of it are here; None: it is here, whole.

        Args:
            last: the file ends with it.

        Raises:
            NotKept: it could not be written.
        """
        here = self.lacks(run, claim, name)
        if here is None or here != offset:
            return here
        part, path = self._part(run, claim, name), path_of(name)
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            with part.open("ab") as file:
                file.write(content)
            if not last:
                return here + len(content)
            if files.sha256(part) != _digest_in(name):
                part.unlink()
                return 0  # once more, from the beginning
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(path)
            files.sync_folder(path.parent)
        except OSError as error:
            raise NotKept(f"The file {str(path)!r} could not be written: {error.strerror}.") from error
        return None

    def _part(self, run: str, claim: int, name: str) -> Path:
        files.run_folder(run)  # raises where it is no uid
        return self._folder / f"{run}.{claim}.{_digest_in(name)}.incoming"

    def fetch(self, name: str, offset: int) -> bytes:
        """A piece of a file from there on; empty: it ends there.

        Raises:
            BadInput: there is no such file here.
        """
        try:
            with reading.opened(path_of(name)) as file:
                file.seek(offset)
                return bytes(file.read(PIECE_BYTES))
        except OSError as error:
            raise BadInput(f"The file {name} is not on the host of the database: {error.strerror}.") from None

    def standing(self, run: str) -> SqlRow:
        """The row of a run; empty: it has not begun."""
        with self._open() as store:
            store.refresh()
            rows = store.query("select * from runs where uid = ?", run)
            return rows[0] if rows else {}

    @contextmanager
    def _locked(self, run: str) -> Iterator[_Claim]:
        """The claim on a run, which nobody else changes meanwhile."""
        files.run_folder(run)  # raises where it is no uid
        path = self._folder / f"{run}.json"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise NotKept(f"The claim {str(path)!r} could not be written: {error.strerror}.") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            try:
                claim = msgspec.json.decode(path.read_bytes(), type=_Claim)
            except FileNotFoundError:
                claim = _Claim()
            except (OSError, msgspec.MsgspecError) as error:
                raise NotKept(f"The claim {str(path)!r} cannot be read: {error}.") from error
            yield claim
        finally:
            os.close(handle)

    def _keep(self, run: str, claim: _Claim) -> None:
        path = self._folder / f"{run}.json"
        try:
            files.write_whole(path, msgspec.json.encode(claim))
        except OSError as error:
            raise NotKept(f"The claim {str(path)!r} could not be written: {error.strerror}.") from error


def _forget_old(folder: Path) -> None:
    """Remove the claims of runs that have said nothing for long."""
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > KEPT_DAYS * 86400:
                    path.unlink()


def _apply(store: Store, uid: str, attempt: int, content: bytes) -> int:
    """Write the lines of one process that are new. Returns how many are none that a run says.

    Raises:
        AttemptSuperseded: another process has gone on with the run, or it is not here any more.
        NotKept: they could not be written.
    """
    row = next(iter(store.query("select number, attempt from runs where uid = ?", uid)), None)
    last, unread = _last_sequence(store, row["number"]) if row and row["attempt"] == attempt else 0, 0
    new: list[LogRecord] = []
    for raw in content.split(b"\n")[:-1]:
        line = decoded(raw)
        match line:
            case RunCreated() if (line.uid, 1) == (uid, attempt):
                if row is None:
                    new.append(line)
            case EventLogged() if (line.uid, line.attempt) == (uid, attempt):
                if line.sequence > last:
                    new.append(line)
            case _:
                unread += bool(raw)
    if row and row["attempt"] > attempt:
        raise AttemptSuperseded
    before = _checkpoints(store, uid)
    try:
        store.write(_without_old_progress(new))
    except (NotKept, OverflowError) as error:
        if isinstance(error, AttemptSuperseded) or not _is_about_the_lines(error):
            raise
        for line in new:  # all that goes together
            try:
                store.write([line])
            except (NotKept, OverflowError) as fault:
                if not _is_about_the_lines(fault):
                    raise
                unread += 1
    events = [line.event for line in new if isinstance(line, EventLogged)]
    if any(isinstance(event, Checkpointed | Finished) for event in events):
        before += [event.sha256 for event in events if isinstance(event, Checkpointed)]
        _sweep_checkpoints(store, uid, before)
    return unread


def _is_about_the_lines(error: Exception) -> bool:
    return isinstance(error, OverflowError) or isinstance(error.__cause__, sqlite3.IntegrityError | sqlite3.DataError)


def _without_old_progress(lines: list[LogRecord]) -> list[LogRecord]:
    """Leave out all but the last word of how far the run is."""
    far = [n for n, line in enumerate(lines) if isinstance(line, EventLogged) and isinstance(line.event, Progressed)]
    return [line for n, line in enumerate(lines) if n not in far[:-1]]


def _last_sequence(store: Store, number: int) -> int:
    both = "select sequence from events where run = ?1 union all select sequence from samples where run = ?1"
    return int(store.query(f"select coalesce(max(sequence), 0) last from ({both})", number)[0]["last"])


def _is_asked_to_stop(store: Store, run: str, uid: str, attempt: int, *, beat: bool) -> bool:
    if beat:
        store.refresh()
        said = store.with_uid(uid)
        if said and said.attempt == attempt and said.state in ("waiting", "running"):
            store.beat(said.id, attempt)
    row = store.with_uid(run)
    return row is not None and row.stop_asked == row.attempt


def _checkpoints(store: Store, uid: str) -> list[str]:
    sql = "select sha256 from checkpoints where run = (select number from runs where uid = ?) order by sequence"
    return [row["sha256"] for row in store.query(sql, uid)]


def _sweep_checkpoints(store: Store, uid: str, before: Sequence[str]) -> None:
    """Remove the checkpoints here that the record named before and does not any more, once there is one that it names.

    Others may be of a process that shares this folder, and has not said them yet.
    """
    folder, named = files.run_folder(uid), _checkpoints(store, uid)
    if not named:
        files.remove_others(folder, set())  # the run is finished
    elif any((folder / f"{name}.safetensors").is_file() for name in named):
        for name in {*before} - {*named}:
            with suppress(OSError):
                (folder / f"{name}.safetensors").unlink()


def _database_of(store: Store, rows: Sequence[SqlRow]) -> bytes:
    """A database with these runs and nothing else; empty: there are none."""
    if not rows:
        return b""
    with tempfile.TemporaryDirectory(prefix="dambench.") as place:
        path = Path(place) / "runs.db"
        with closing(Store(path, database.open_to_write(path), wrote=True)) as seed:
            for row in rows:
                try:
                    copy = copy_of(store, row)
                except Refused as reason:
                    raise BadInput(f"The run {row['id']} cannot be carried out elsewhere: {reason}.") from None
                lines = [line for line in copy.last if not isinstance(line, RunEdited)]
                seed.write([copy.created, *copy.log, *lines])
        return path.read_bytes()


def path_of(name: str) -> Path:
    """Where a file of a run lies on this host.

    Raises:
        BadInput: no file of a run is called so.
    """
    match = _parts(name)
    if match["run"]:
        return files.run_folder(match["run"]) / name.rpartition("/")[2]
    return files.set_path(match["set"]) if match["set"] else files.data_folder() / name.rpartition("/")[2]


def _parts(name: str) -> re.Match[str]:
    match = _FILE.fullmatch(name)
    if match is None:
        raise BadInput("No file of a run is called so.")
    return match


def _digest_in(name: str) -> str:
    """The SHA-256 in the name of a file; raises as `path_of`."""
    match = _parts(name)
    return match["checkpoint"] or match["set"] or match["whitening"]


def set_files(sha256: str) -> Iterator[str]:
    """The names of a synthetic set and of the whitening that it names, as far as they are on this host."""
    if (path := files.set_path(sha256)).is_file():
        yield f"sets/{path.name}"
        whitening = bundle.whitening_of(path)
        if whitening and (file := files.find_whitening(whitening)):
            yield f"data/{file.name}"


def files_of(uid: str, event: AnyEvent) -> Iterator[str]:
    """The names of the files that an event of a run names, as far as they are on this host."""
    match event:
        case Checkpointed(sha256=sha256):
            name = f"runs/{uid}/{sha256}.safetensors"
            if path_of(name).is_file():  # else a later one has taken its place
                yield name
        case Snapshot(sha256=sha256):
            yield from set_files(sha256)


class Spool:
    """The spool of one claim, on the host that carries out the run.

    Args:
        folder: where it lies.
        run: the uid of the run.
        claim: under which it is sent.
    """

    def __init__(self, folder: Path, run: str, claim: int):
        self.folder, self.run, self.claim = folder, run, claim
        self.path = folder / "runs.db"
        """The database of the run's process, which is a journal."""
        self.superseded = False
        self.stop_asked = False
        self.unread = 0
        """Lines that were no lines."""
        self._journal = Journal(self.path)
        self._taken: dict[str, int] = {}

    def prepare(self, seed: Seed) -> None:
        """Make it, with the run so far.

        Raises:
            OSError: it cannot be written.
        """
        journal.folder(self.path).mkdir(parents=True, exist_ok=True)
        if seed.database:
            files.write_whole(self.path, seed.database)

    def fetch(self, link: Link, seed: Seed) -> None:
        """Bring the files that the run needs, where they are not here.

        Raises:
            OSError: they cannot be written.
            Unreachable: the host of the database does not answer.
        """
        for name, size in seed.files:
            path = path_of(name)
            if path.is_file() and path.stat().st_size == size:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with files.replacing(path) as part, part.open("wb") as file:
                while file.tell() < size and (piece := link.fetch(name, file.tell())):
                    file.write(piece)
                file.flush()
                if files.sha256(part) != _digest_in(name):
                    raise OSError(5, f"the file {name} did not come whole", str(path))

    def ship(self, link: Link) -> bool:
        """Send what is not acknowledged yet. Returns whether all of it is.

        Raises:
            Unreachable, NotKept: not now; it stays, and is to be tried again.
        """
        whole = True
        for name in self._names():
            whole = self._ship(link, name) and whole
            if self.superseded:
                return False
        return whole

    def beat(self, link: Link) -> None:
        """Give a sign of life of the run, if it has begun.

        Raises:
            Unreachable, NotKept: not now.
        """
        for name in self._names()[-1:]:
            self._heed(link.take(Batch(self.run, self.claim, name, 0, b"")), name)

    def _names(self) -> list[str]:
        """The files of runs in the order of their attempts: those of the claimed run last."""
        runs = {name: parse_attempt_file_name(name) for name in self._journal.look()}
        named = {name: run for name, run in runs.items() if run}
        return sorted(named, key=lambda name: (named[name][0] == self.run, *named[name]))

    def _heed(self, answer: Answer, name: str) -> None:
        self.superseded = self.superseded or answer.superseded
        self.stop_asked = self.stop_asked or answer.stop
        self.unread += answer.unread
        if not answer.superseded:
            self._taken[name] = answer.taken

    def _ship(self, link: Link, name: str) -> bool:
        if name not in self._taken:  # how much of it was sent before, by whomever
            self._heed(link.take(Batch(self.run, self.claim, name, 0, b"")), name)
        while not self.superseded:
            offset = self._taken[name]
            lines, _ = self._journal.read(name, offset)
            content = _first(lines)
            if not content:
                return True
            for raw in content.split(b"\n")[:-1]:
                line = decoded(raw)
                if isinstance(line, EventLogged):
                    for file in files_of(line.uid, line.event):
                        self._send(link, file)
            self._heed(link.take(Batch(self.run, self.claim, name, offset, content)), name)
            if self._taken[name] == offset:
                return False
        return False

    def _send(self, link: Link, name: str) -> None:
        """Send a file that the host of the database lacks."""
        offset = link.lacks(self.run, self.claim, name)
        if offset is None:
            return
        with suppress(FileNotFoundError), path_of(name).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            while offset is not None:
                file.seek(offset)
                piece = file.read(PIECE_BYTES)
                offset = link.add(self.run, self.claim, name, offset, piece, offset + len(piece) >= size)

    @property
    def rest(self) -> int:
        """Bytes that are not acknowledged."""
        return sum(
            max(0, look.size - self._taken.get(name, 0))
            for name, look in self._journal.look().items()
            if parse_attempt_file_name(name)
        )


def _first(lines: list[bytes]) -> bytes:
    """The first lines, as many as one batch holds."""
    size = 0
    for number, line in enumerate(lines):
        size += len(line) + 1
        if size >= BATCH_BYTES:
            return b"".join(one + b"\n" for one in lines[: number + 1])
    return b"".join(line + b"\n" for line in lines)
