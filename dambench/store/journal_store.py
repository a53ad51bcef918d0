"""A store whose truth is a journal, because its disk is a network disk that several hosts may use at once.

What is written goes to a file of this process's own, and then from there into this host's index, as what others wrote
does: there is one way in. The index is what the files say and nothing else. It may be removed, and is made again.
"""

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from dambench.core.errors import BadInput, NotKept
from dambench.core.events import Progressed, Resumed
from dambench.store import database, journal, journal_queue
from dambench.store.connection import Database
from dambench.store.database import transaction
from dambench.store.journal import AlreadyBegun, FileState, Journal, attempt_file_name, parse_attempt_file_name
from dambench.store.journal_queue import JournalQueue
from dambench.store.records import (
    AttemptSuperseded,
    EventLogged,
    LogRecord,
    QueueEdited,
    QueueTaken,
    RunCreated,
    RunEdited,
    RunsQueued,
    WorkerSeen,
    decoded,
    new_id,
)
from dambench.store.rows import SqlRow
from dambench.store.runs import Store

_TABLES = """
create table if not exists journal_files (
    name text primary key,
    size integer not null,      -- when it was last looked at
    taken integer not null,     -- bytes: what follows is not a whole line yet
    sequence integer not null,  -- of the last word
    unread integer not null     -- lines that this dambench cannot read
) strict, without rowid;

create table if not exists journal_edits (
    name text not null,
    line integer not null,
    uid text not null,
    at text not null,
    what text not null,
    value any not null,
    primary key (name, line)
) strict, without rowid;

-- How the database beside the journal was when its runs were last copied.
create table if not exists journal_base (looked text not null) strict
"""

_encode = msgspec.json.Encoder().encode


class JournalStore(Store):
    """An open index of a journal."""

    late_seconds = 60.0
    """Clients of NFS may believe for so long that a folder is as it was (acdirmax)."""

    def __init__(self, path: Path, file: Path, db: Database):
        super().__init__(path, db, wrote=True)
        self.file = file
        self.notes: list[str] = []
        self._journal = Journal(path)
        self._queue = JournalQueue(self.tables, self._journal)
        self._last_state: object = None

    @classmethod
    def reach(cls, path: Path, why: str, *, write: bool) -> "JournalStore":
        """Open this host's index, and bring it up to date.

        Raises:
            BadInput: there is nothing to read, what lies under the database's name is not ours, or no run could be
                recorded.
        """
        place = journal.folder(path)
        if write:
            journal.check(path)
            place.mkdir(exist_ok=True)
        elif not (place.is_dir() or path.exists()):
            raise BadInput(f"There is no database {str(path)!r} yet: `dambench run` makes it.")
        file = journal.index_path(path)
        store = cls(path, file, database.open_to_write(file))
        try:
            with transaction(store.db, file):
                for statement in [*_TABLES.split(";\n\n"), journal_queue.TABLE]:
                    store.db.conn.execute(statement)
                # What could not be read may have been written by a newer dambench, which this may be now.
                store.tables.execute("update journal_files set size = -1 where unread > 0")
            store.refresh()
            unread = store.query("select total(unread) n from journal_files")[0]["n"]
        except BaseException:
            store.close()
            raise
        if unread:
            store.notes.append(f"{unread:.0f} lines of {str(place)!r} cannot be read by this dambench.")
        if write:
            store.notes.append(
                f"Runs are written to {str(place)!r}, not to a database ({why}); this host's index of them is "
                f"{str(file)!r}."
            )
        return store

    def close(self) -> None:
        self._journal.close()
        super().close()

    def refresh(self) -> None:
        """Take in what the files say that was not there before."""
        try:
            self._journal.check_there()
            there, base = self._journal.look(), self._journal.base()
            if (there, base) == self._last_state:
                return
            if self._is_behind(there, base):
                with transaction(self.db, self.file):
                    # Once more: meanwhile another process here may have taken in what was not there yet.
                    there, base = self._journal.look(), self._journal.base()
                    self._index_files(there, base)
            self._last_state = there, base
        except OSError as error:
            raise NotKept(f"The journal {str(self._journal.folder)!r} cannot be read: {error.strerror}.") from error

    def beat(self, run: str, attempt: int) -> bool:
        name = attempt_file_name(self.run(run).uid, attempt)
        with self._writing(name):
            self._journal.check_there()
            self._journal.touch(name)
        self.refresh()
        return self._is_asked_to_stop(run, attempt)

    def write(self, lines: Sequence[LogRecord], patience: float | None = None) -> None:
        last = max((n for n, line in enumerate(lines) if _is_progress(line)), default=0)
        parts: dict[str, list[LogRecord]] = {}
        for number, line in enumerate(lines):
            if number >= last or not _is_progress(line):  # only the latest matters
                parts.setdefault(self._name(line), []).append(line)
        for name, part in parts.items():
            with self._writing(name):
                self._journal.check_there()
                self._append(name, part)
            self._index_own(name, patience)

    def decide(self, decision: Callable[[], Sequence[LogRecord]]) -> None:
        with self._writing(self._journal.edits), transaction(self.db, self.file):
            self._journal.check_there()
            self._index_files(self._journal.look(), self._journal.base())
            parts: dict[str, list[LogRecord]] = {}
            for record in decision():
                parts.setdefault(self._name(record), []).append(record)
            for name, part in parts.items():
                self._append(name, part)
            for name in parts:
                self._index_files(self._journal.look({name}), None, name.partition(".")[0])

    def _name(self, line: LogRecord) -> str:
        """The file of a line."""
        match line:
            case RunCreated(uid=uid):
                return attempt_file_name(uid, 1)
            case EventLogged(uid=uid, attempt=attempt):
                return attempt_file_name(uid, attempt)
            case RunEdited():
                return self._journal.edits
            case RunsQueued():
                return journal.queue_file_name()  # one of its own, which is there whole or not at all
            case QueueTaken(uid=uid, attempt=attempt):
                return journal.taken_file_name(uid, attempt)
            case QueueEdited() | WorkerSeen():
                return self._journal.queue

    def _append(self, name: str, lines: list[LogRecord]) -> None:
        content = b"".join(_encode(line) + b"\n" for line in lines)
        if run := parse_attempt_file_name(name):
            # A process that another one has replaced must not go on.
            if (self._journal.folder / attempt_file_name(run[0], run[1] + 1)).exists():
                raise AttemptSuperseded
            first = lines[0]
            begins = isinstance(first, RunCreated) or (
                isinstance(first, EventLogged) and isinstance(first.event, Resumed)
            )
        else:
            begins = journal.is_taken_file(name) or not (self._journal.folder / name).exists()
        if not begins:
            self._journal.append(name, content)
            return
        try:
            self._journal.begin(name, content)
        except AlreadyBegun:
            raise AttemptSuperseded("Another process is going on with this run already: this one ends.") from None

    def _index_own(self, name: str, patience: float | None) -> None:
        """Into the index with what this process wrote, without a look at everybody's files."""
        uid = name.partition(".")[0]
        with self._writing(name), transaction(self.db, self.file, patience):
            rows = self.query("select name from journal_files where name like ?", f"{uid}.%")
            names = {name, *(row["name"] for row in rows)}
            began_here = not parse_attempt_file_name(name) or attempt_file_name(uid, 1) in names
            if began_here:
                self._index_files(self._journal.look(names), None, uid)
        if not began_here:
            self.refresh()

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = str(self._journal.folder / name)
            raise NotKept(f"The journal {where!r} could not be written: {error.strerror}.") from error

    def _is_behind(self, there: dict[str, FileState], base: str) -> bool:
        indexed = {row["name"]: row["size"] for row in self.query("select name, size from journal_files")}
        if indexed != {name: look.size for name, look in there.items()}:
            return True
        if base != self._known_base():
            return True
        return any(True for _ in self._news_of_life(there))

    def _known_base(self) -> str:
        return str(next((row["looked"] for row in self.query("select looked from journal_base")), ""))

    def _news_of_life(self, there: dict[str, FileState]) -> Iterator[tuple[str, int]]:
        """Signs of life that are news: when, and of which run."""
        alive = "select number, uid, attempt, beat_at from runs where state in ('waiting', 'running')"
        for row in self.query(alive):
            if look := there.get(attempt_file_name(row["uid"], row["attempt"])):
                at = datetime.fromtimestamp(look.changed_ns / 1e9, UTC).isoformat(timespec="milliseconds")
                if at > row["beat_at"]:
                    yield at, row["number"]

    def _index_files(self, there: dict[str, FileState], base: str | None, only: str = "") -> None:
        """Bring the index up to date, within a transaction.

        Args:
            there: the files as they are.
            base: how the database beside the journal is; None: it is not looked at.
            only: the files whose name begins so, if not all.
        """
        rows = self.query("select * from journal_files")
        indexed = {row["name"]: row for row in rows if not only or row["name"].partition(".")[0] == only}
        runs: dict[str, dict[int, str]] = {}
        for name in {*indexed, *there}:
            if run := parse_attempt_file_name(name):
                runs.setdefault(run[0], {})[run[1]] = name
        again = {uid for uid, attempts in runs.items() if self._is_changed(attempts, there, indexed)}
        entered: set[str] = set()
        if base is not None:
            # Runs that were resumed here, and had begun in the database beside the journal.
            adopted = {uid for uid in runs if attempt_file_name(uid, 1) not in there}
            if base != self._known_base() or adopted & again:
                with self._copied(base) as copied:
                    if copied or not base:  # else: next time
                        again |= adopted
                        entered |= self._copy_base(copied, base, there)
        for uid in again:
            if attempt_file_name(uid, 1) in there or base is None:
                self.tables.execute("delete from runs where uid = ?", uid)
            for name in runs[uid].values():
                self.tables.execute("delete from journal_files where name = ?", name)
        for uid in sorted(again, key=lambda uid: self._created_at(uid, there)):
            self._index_run(uid, there)
        for uid in runs.keys() - again:
            name = runs[uid][max(runs[uid])]
            if name in indexed and name in there and there[name].size != indexed[name]["size"]:
                row = indexed[name]
                self._apply_file(name, there[name], row["taken"], row["sequence"], row["unread"])
        self._apply_edits(entered | again | self._index_edits(there, indexed))
        self._queue.index({name: look.size for name, look in there.items()}, whole=base is not None)
        for at, number in list(self._news_of_life(there)):
            self.tables.update_run(number, beat_at=at)

    @staticmethod
    def _is_changed(attempts: dict[int, str], there: dict[str, FileState], indexed: dict[str, SqlRow]) -> bool:
        """Tell whether more has happened to the files of a run than that its last process has said more."""
        last = max(attempts)
        for attempt, name in attempts.items():
            if name not in there or name not in indexed or indexed[name]["size"] > there[name].size:
                return True
            if indexed[name]["size"] != there[name].size and (attempt != last or indexed[name]["size"] < 0):
                return True
        return False

    def _created_at(self, uid: str, there: dict[str, FileState]) -> tuple[str, str]:
        name = attempt_file_name(uid, 1)
        line = decoded(self._journal.first(name)) if name in there else None
        return line.at if line else "", uid

    def _index_run(self, uid: str, there: dict[str, FileState]) -> None:
        """Take in all that is known of a run, process after process."""
        rows = self.query("select attempt from runs where uid = ?", uid)
        attempt = rows[0]["attempt"] + 1 if rows else 1
        while (name := attempt_file_name(uid, attempt)) in there:
            after = attempt_file_name(uid, attempt + 1)
            following = decoded(self._journal.first(after)) if after in there else None
            # What a process said after another had gone on with its run does not hold.
            until = following.sequence if isinstance(following, EventLogged) else None
            self._apply_file(name, there[name], until=until)
            if not self.query("select 1 from runs where uid = ? and attempt = ?", uid, attempt):
                self.tables.execute("delete from journal_files where name = ?", name)  # it is not whole yet
                break
            attempt += 1

    def _apply_file(
        self,
        name: str,
        look: FileState,
        offset: int = 0,
        sequence: int = 0,
        unread: int = 0,
        until: int | None = None,
    ) -> None:
        """Apply the whole lines of a file that have not been before.

        Args:
            taken: bytes that have been.
            sequence: of the last word that has been.
            until: words from this one on do not hold.
        """
        of = parse_attempt_file_name(name)
        lines, end = self._journal.read(name, offset)
        for raw in lines:
            line = decoded(raw)
            try:
                match line:
                    case RunCreated(uid=uid) if (uid, 1) == of:
                        if not self.query("select 1 from runs where uid = ?", uid):
                            self.tables.apply(line)
                    case EventLogged(uid=uid, attempt=attempt) if (uid, attempt) == of:
                        if line.sequence > sequence and (until is None or line.sequence < until):
                            self.tables.apply(line)
                            sequence = line.sequence
                    case _:
                        unread += bool(raw)
            except (sqlite3.IntegrityError, OverflowError, AttemptSuperseded):
                unread += 1
        self.tables.execute(
            "insert or replace into journal_files (name, size, taken, sequence, unread) values (?, ?, ?, ?, ?)",
            *(name, max(look.size, end), end, sequence, unread),
        )

    def _index_edits(self, there: dict[str, FileState], indexed: dict[str, SqlRow]) -> set[str]:
        """Note what is new in the files of edits. Returns the runs that they are about."""
        about: set[str] = set()
        for name in sorted(name for name in {*there, *indexed} if journal.is_edits_file(name)):
            if name in there and name in indexed and indexed[name]["size"] == there[name].size:
                continue
            about |= {row["uid"] for row in self.query("select uid from journal_edits where name = ?", name)}
            self.tables.execute("delete from journal_edits where name = ?", name)
            self.tables.execute("delete from journal_files where name = ?", name)
            if name not in there:
                continue
            lines, end = self._journal.read(name)
            unread = 0
            for number, raw in enumerate(lines):
                line = decoded(raw)
                if isinstance(line, RunEdited):
                    about.add(line.uid)
                    values = [name, number, line.uid, line.at, line.what, line.value]
                    self.tables.execute("insert into journal_edits values (?, ?, ?, ?, ?, ?)", *values)
                else:
                    unread += bool(raw)
            self.tables.execute(
                "insert into journal_files (name, size, taken, sequence, unread) values (?, ?, ?, 0, ?)",
                *(name, max(there[name].size, end), end, unread),
            )
        return about

    def _apply_edits(self, uids: set[str]) -> None:
        """All that was ever changed about these runs, in the order of time: the last one holds, on every host."""
        edits = "select uid, at, what, value from journal_edits order by at, name, line"
        for row in self.query(edits) if uids else []:
            if row["uid"] in uids:
                self.tables.apply(RunEdited(**row))

    @contextmanager
    def _copied(self, base: str) -> Iterator[Database | None]:
        """A copy of the database beside the journal, which may not be opened where it is: SQLite would write there.

        None: there is none, or somebody is writing it.
        """
        if not base:
            yield None
            return
        database.identify(self.path)
        with tempfile.TemporaryDirectory(dir=self.file.parent, prefix=".base-") as place:
            copy = Path(place) / "runs.db"
            for suffix in ("", "-wal"):
                with suppress(FileNotFoundError):
                    source = self.path.with_name(f"{self.path.name}{suffix}")
                    shutil.copyfile(source, copy.with_name(f"{copy.name}{suffix}"))
            if self._journal.base() != base:
                yield None
                return
            with closing(database.open_to_write(copy)) as db:
                yield db

    def _copy_base(self, other: Database | None, base: str, there: dict[str, FileState]) -> set[str]:
        """Have the runs of that database that did not begin in the journal, as they are there. Returns their names."""
        for row in self.query("select uid from runs"):
            if attempt_file_name(row["uid"], 1) not in there:
                self.tables.execute("delete from runs where uid = ?", row["uid"])
        self.tables.execute("delete from journal_base")
        self.tables.execute("insert into journal_base values (?)", base)
        self._queue.copy_base(other)
        return _copy_runs(self, other, there) if other else set()


def _is_progress(line: LogRecord) -> bool:
    return isinstance(line, EventLogged) and isinstance(line.event, Progressed)


def _copy_runs(store: Store, other: Database, there: dict[str, FileState]) -> set[str]:
    """Copy all that another database holds of runs which did not begin in the journal. Returns their names."""
    for table in ("protocols", "datasets"):
        for row in other.conn.execute(f"select * from {table}"):
            store.tables.insert("insert or ignore into", table, dict(row))
    own = """
        select m.name from sqlite_master m, pragma_table_info(m.name) c
        where m.type = 'table' and c.name = 'run' order by m.rowid
    """
    parts = [row["name"] for row in other.conn.execute(own)]
    copied: set[str] = set()
    for sql_row in other.conn.execute("select * from runs order by number").fetchall():
        run = dict(sql_row)
        if attempt_file_name(run["uid"], 1) in there:
            continue
        theirs = run.pop("number")
        while store.query("select 1 from runs where id = ?", run["id"]):
            run["id"] = new_id()
        number = store.tables.insert("insert into", "runs", run)
        for table in parts:
            for row in other.conn.execute(f"select * from {table} where run = ?", [theirs]):
                store.tables.insert("insert into", table, dict(row) | {"run": number})
        copied.add(run["uid"])
    return copied
