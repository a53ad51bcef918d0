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
from typing import Any

import msgspec
from sqlite_utils import Database

from dambench.core.errors import BadInput, NotKept
from dambench.core.events import Progressed, Resumed
from dambench.store import database, journal
from dambench.store.database import transaction
from dambench.store.journal import Journal, Look, Taken, whose, words_name
from dambench.store.runs import Created, Edited, Line, Said, Store, Superseded, new_id

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
_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


class Shared(Store):
    """An open index of a journal."""

    AGE = ("created_at", "number")
    """Each host numbers the runs in the order in which it came to know them."""
    late_seconds = 60.0
    """Clients of NFS may believe for so long that a folder is as it was (acdirmax)."""

    def __init__(self, path: Path, file: Path, db: Database):
        super().__init__(path, db, wrote=True)
        self.file = file
        self.notes: list[str] = []
        self._journal = Journal(path)
        self._seen: object = None

    @classmethod
    def reach(cls, path: Path, why: str, *, write: bool) -> "Shared":
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
                for statement in _TABLES.split(";\n\n"):
                    store.db.conn.execute(statement)
                # What could not be read may have been written by a newer dambench, which this may be now.
                store._execute("update journal_files set size = -1 where unread > 0")
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
            if (there, base) == self._seen:
                return
            if self._is_behind(there, base):
                with transaction(self.db, self.file):
                    # Once more: meanwhile another process here may have taken in what was not there yet.
                    there, base = self._journal.look(), self._journal.base()
                    self._take(there, base)
            self._seen = there, base
        except OSError as error:
            raise NotKept(f"The journal {str(self._journal.folder)!r} cannot be read: {error.strerror}.") from error

    def beat(self, run: str, attempt: int) -> bool:
        name = words_name(self.run(run)["uid"], attempt)
        with self._writing(name):
            self._journal.check_there()
            self._journal.touch(name)
        self.refresh()
        return self._is_asked_to_stop(run, attempt)

    def write(self, lines: Sequence[Line], patience: float | None = None) -> None:
        last = max((n for n, line in enumerate(lines) if _is_progress(line)), default=0)
        parts: dict[str, list[Line]] = {}
        for number, line in enumerate(lines):
            if number >= last or not _is_progress(line):  # only the latest matters
                parts.setdefault(self._name(line), []).append(line)
        for name, part in parts.items():
            with self._writing(name):
                self._journal.check_there()
                self._append(name, part)
            self._take_own(name, patience)

    def _write_checked(self, edited: Edited, check: Callable[[], None]) -> None:
        name = self._journal.edits
        with self._writing(name), transaction(self.db, self.file):
            self._journal.check_there()
            self._take(self._journal.look(), self._journal.base())
            check()
            self._append(name, [edited])
            self._take(self._journal.look({name}), None, name.partition(".")[0])

    def _name(self, line: Line) -> str:
        """The file of a line."""
        match line:
            case Created(uid=uid):
                return words_name(uid, 1)
            case Said(uid=uid, attempt=attempt):
                return words_name(uid, attempt)
            case Edited():
                return self._journal.edits

    def _append(self, name: str, lines: list[Line]) -> None:
        content = b"".join(_encode(line) + b"\n" for line in lines)
        if run := whose(name):
            # A process that another one has replaced must not go on.
            if (self._journal.folder / words_name(run[0], run[1] + 1)).exists():
                raise Superseded("Another process has gone on with this run: this one ends without a word of its own.")
            first = lines[0]
            begins = isinstance(first, Created) or (isinstance(first, Said) and isinstance(first.event, Resumed))
        else:
            begins = not (self._journal.folder / name).exists()
        if not begins:
            self._journal.append(name, content)
            return
        try:
            self._journal.begin(name, content)
        except Taken:
            raise Superseded("Another process is going on with this run already: this one ends.") from None

    def _take_own(self, name: str, patience: float | None) -> None:
        """Into the index with what this process wrote, without a look at everybody's files."""
        uid = name.partition(".")[0]
        with self._writing(name), transaction(self.db, self.file, patience):
            rows = self.query("select name from journal_files where name like ?", f"{uid}.%")
            names = {name, *(row["name"] for row in rows)}
            began_here = not whose(name) or words_name(uid, 1) in names
            if began_here:
                self._take(self._journal.look(names), None, uid)
        if not began_here:
            self.refresh()

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = str(self._journal.folder / name)
            raise NotKept(f"The journal {where!r} could not be written: {error.strerror}.") from error

    def _execute(self, sql: str, *values: Any) -> None:
        self.db.conn.execute(sql, values)

    def _is_behind(self, there: dict[str, Look], base: str) -> bool:
        known = {row["name"]: row["size"] for row in self.query("select name, size from journal_files")}
        if known != {name: look.size for name, look in there.items()}:
            return True
        if base != self._known_base():
            return True
        return any(True for _ in self._beats(there))

    def _known_base(self) -> str:
        return str(next((row["looked"] for row in self.query("select looked from journal_base")), ""))

    def _beats(self, there: dict[str, Look]) -> Iterator[tuple[str, int]]:
        """Signs of life that are news: when, and of which run."""
        alive = "select number, uid, attempt, beat_at from runs where state in ('waiting', 'running')"
        for row in self.query(alive):
            if look := there.get(words_name(row["uid"], row["attempt"])):
                at = datetime.fromtimestamp(look.changed_ns / 1e9, UTC).isoformat(timespec="milliseconds")
                if at > row["beat_at"]:
                    yield at, row["number"]

    def _take(self, there: dict[str, Look], base: str | None, only: str = "") -> None:
        """Bring the index up to date, within a transaction.

        Args:
            there: the files as they are.
            base: how the database beside the journal is; None: it is not looked at.
            only: the files whose name begins so, if not all.
        """
        rows = self.query("select * from journal_files")
        known = {row["name"]: row for row in rows if not only or row["name"].partition(".")[0] == only}
        runs: dict[str, dict[int, str]] = {}
        for name in {*known, *there}:
            if run := whose(name):
                runs.setdefault(run[0], {})[run[1]] = name
        again = {uid for uid, attempts in runs.items() if self._is_changed(attempts, there, known)}
        entered: set[str] = set()
        if base is not None:
            # Runs that were resumed here, and had begun in the database beside the journal.
            adopted = {uid for uid in runs if words_name(uid, 1) not in there}
            if base != self._known_base() or adopted & again:
                with self._copied(base) as copied:
                    if copied or not base:  # else: next time
                        again |= adopted
                        entered |= self._copy(copied, base, there)
        for uid in again:
            if words_name(uid, 1) in there or base is None:
                self._execute("delete from runs where uid = ?", uid)
            for name in runs[uid].values():
                self._execute("delete from journal_files where name = ?", name)
        for uid in sorted(again, key=lambda uid: self._created_at(uid, there)):
            self._read(uid, there)
        for uid in runs.keys() - again:
            name = runs[uid][max(runs[uid])]
            if name in known and name in there and there[name].size != known[name]["size"]:
                row = known[name]
                self._hear_file(name, there[name], row["taken"], row["sequence"], row["unread"])
        self._apply_edits(entered | again | self._take_edits(there, known))
        for at, number in list(self._beats(there)):
            self._update(number, beat_at=at)

    @staticmethod
    def _is_changed(attempts: dict[int, str], there: dict[str, Look], known: dict[str, Any]) -> bool:
        """Whether more has happened to the files of a run than that its last process has said more."""
        last = max(attempts)
        for attempt, name in attempts.items():
            if name not in there or name not in known or known[name]["size"] > there[name].size:
                return True
            if known[name]["size"] != there[name].size and (attempt != last or known[name]["size"] < 0):
                return True
        return False

    def _created_at(self, uid: str, there: dict[str, Look]) -> tuple[str, str]:
        name = words_name(uid, 1)
        line = self._line(self._journal.first(name)) if name in there else None
        return line.at if line else "", uid

    @staticmethod
    def _line(raw: bytes) -> Line | None:
        """None: this dambench cannot read it."""
        try:
            return _decoder.decode(raw)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None

    def _read(self, uid: str, there: dict[str, Look]) -> None:
        """Take in all that is known of a run, process after process."""
        found = self.query("select attempt from runs where uid = ?", uid)
        attempt = found[0]["attempt"] + 1 if found else 1
        while (name := words_name(uid, attempt)) in there:
            after = words_name(uid, attempt + 1)
            following = self._line(self._journal.first(after)) if after in there else None
            # What a process said after another had gone on with its run does not hold.
            until = following.sequence if isinstance(following, Said) else None
            self._hear_file(name, there[name], until=until)
            if not self.query("select 1 from runs where uid = ? and attempt = ?", uid, attempt):
                self._execute("delete from journal_files where name = ?", name)  # it is not whole yet
                break
            attempt += 1

    def _hear_file(
        self,
        name: str,
        look: Look,
        taken: int = 0,
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
        of = whose(name)
        lines, end = self._journal.read(name, taken)
        for raw in lines:
            line = self._line(raw)
            try:
                match line:
                    case Created(uid=uid) if (uid, 1) == of:
                        if not self.query("select 1 from runs where uid = ?", uid):
                            self.apply(line)
                    case Said(uid=uid, attempt=attempt) if (uid, attempt) == of:
                        if line.sequence > sequence and (until is None or line.sequence < until):
                            self.apply(line)
                            sequence = line.sequence
                    case _:
                        unread += bool(raw)
            except (sqlite3.IntegrityError, OverflowError, Superseded):
                unread += 1
        self._execute(
            "insert or replace into journal_files (name, size, taken, sequence, unread) values (?, ?, ?, ?, ?)",
            *(name, max(look.size, end), end, sequence, unread),
        )

    def _take_edits(self, there: dict[str, Look], known: dict[str, Any]) -> set[str]:
        """Note what is new in the files of edits. Returns the runs that they are about."""
        about: set[str] = set()
        for name in sorted(name for name in {*there, *known} if journal.is_edits(name)):
            if name in there and name in known and known[name]["size"] == there[name].size:
                continue
            about |= {row["uid"] for row in self.query("select uid from journal_edits where name = ?", name)}
            self._execute("delete from journal_edits where name = ?", name)
            self._execute("delete from journal_files where name = ?", name)
            if name not in there:
                continue
            lines, end = self._journal.read(name)
            unread = 0
            for number, raw in enumerate(lines):
                line = self._line(raw)
                if isinstance(line, Edited):
                    about.add(line.uid)
                    values = [name, number, line.uid, line.at, line.what, line.value]
                    self._execute("insert into journal_edits values (?, ?, ?, ?, ?, ?)", *values)
                else:
                    unread += bool(raw)
            self._execute(
                "insert into journal_files (name, size, taken, sequence, unread) values (?, ?, ?, 0, ?)",
                *(name, max(there[name].size, end), end, unread),
            )
        return about

    def _apply_edits(self, uids: set[str]) -> None:
        """All that was ever changed about these runs, in the order of time: the last one holds, on every host."""
        edits = "select uid, at, what, value from journal_edits order by at, name, line"
        for row in self.query(edits) if uids else []:
            if row["uid"] in uids:
                self.apply(Edited(**row))

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

    def _copy(self, other: Database | None, base: str, there: dict[str, Look]) -> set[str]:
        """Have the runs of that database that did not begin in the journal, as they are there. Returns their names."""
        for row in self.query("select uid from runs"):
            if words_name(row["uid"], 1) not in there:
                self._execute("delete from runs where uid = ?", row["uid"])
        self._execute("delete from journal_base")
        self._execute("insert into journal_base values (?)", base)
        return _copy_runs(self, other, there) if other else set()


def _is_progress(line: Line) -> bool:
    return isinstance(line, Said) and isinstance(line.event, Progressed)


def _copy_runs(store: Store, other: Database, there: dict[str, Look]) -> set[str]:
    """Copy all that another database holds of runs which did not begin in the journal. Returns their names."""
    for table in ("protocols", "datasets"):
        for row in other.conn.execute(f"select * from {table}"):
            store._insert("insert or ignore into", table, dict(row))
    own = """
        select m.name from sqlite_master m, pragma_table_info(m.name) c
        where m.type = 'table' and c.name = 'run' order by m.rowid
    """
    parts = [row["name"] for row in other.conn.execute(own)]
    copied: set[str] = set()
    for found in other.conn.execute("select * from runs order by number").fetchall():
        run = dict(found)
        if words_name(run["uid"], 1) in there:
            continue
        theirs = run.pop("number")
        while store.query("select 1 from runs where id = ?", run["id"]):
            run["id"] = new_id()
        number = store._insert("insert into", "runs", run)
        for table in parts:
            for row in other.conn.execute(f"select * from {table} where run = ?", [theirs]):
                store._insert("insert into", table, dict(row) | {"run": number})
        copied.add(run["uid"])
    return copied
