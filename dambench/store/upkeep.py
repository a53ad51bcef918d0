"""Upkeep of a database: whether it is whole, copies of it, its schema, and what it no longer needs."""

import glob
import json
import os
import re
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Literal, NamedTuple

from dambench.core import files
from dambench.core.errors import BadInput
from dambench.store import contents, database, final_scores
from dambench.store.connection import Database
from dambench.store.results import damaged
from dambench.store.rows import RunRow, SqlRow
from dambench.store.runs import Store
from dambench.store.version import VERSION

STALE_SECONDS = 24 * 3600.0
"""After which nobody goes on with a temporary folder."""

MOST_FAULTS = 20
"""How many of one kind are told one by one."""

_UID = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Finding(NamedTuple):
    """A thing that was checked, and its state."""

    what: str
    state: Literal["ok", "missing", "damaged"]
    """Missing: not on this machine. That is no fault, the tensors of a run may be where it was made."""
    detail: str


def check(store: Store) -> list[Finding]:
    """See whether the database, its results and its files are whole: all that it names is read."""
    findings = list(_check_database(store))
    for look in (_check_contents, _check_results, _check_files):
        try:
            findings += look(store)
        except BadInput as error:
            findings.append(Finding("database", "damaged", str(error)))
    return findings


def _check_database(store: Store) -> Iterator[Finding]:
    try:
        rows = store.db.conn.execute(f"pragma integrity_check({MOST_FAULTS})").fetchall()
        faults = [str(row[0]) for row in rows if row[0] != "ok"]
        for table, number, parent, _ in store.db.conn.execute("pragma foreign_key_check").fetchmany(MOST_FAULTS):
            faults.append(f"a row of {table} ({number or 'without a number'}) belongs to none of {parent}")
    except sqlite3.DatabaseError as error:
        faults = [str(error)]
    for fault in faults:
        yield Finding("database", "damaged", fault)
    if not faults:
        yield Finding("database", "ok", f"schema {database.version(store.db)}, every page and every reference")


def _check_contents(store: Store) -> Iterator[Finding]:
    faults = list(contents.faults(store))
    for fault in faults:
        yield Finding("contents", "damaged", fault)
    if not faults:
        yield Finding("contents", "ok", "every row is such as dambench writes")


def _check_results(store: Store) -> Iterator[Finding]:
    rows = store.query("select number, results_sha256 from runs where state = 'finished' order by number")
    broken = damaged(store.query, "runs.state = 'finished'")
    for run in broken.values():
        yield Finding("results", "damaged", f"run {run}: its scores are not those of its checksum")
    for run in final_scores.faults(store.query):
        yield Finding("results", "damaged", f"run {run}: the copy of its scores is not what they are")
    if missing := final_scores.missing_triggers(store.query):
        yield Finding("results", "damaged", f"nothing keeps the copies of scores right: no trigger {missing[0]}")
    sums = [row for row in rows if row["results_sha256"]]
    without = len(rows) - len(sums)
    older = f"; {without} without a checksum, finished before schema 4" if without else ""
    yield Finding("results", "ok", f"{len(sums) - len(broken)} finished runs as their checksum says{older}")


def _check_files(store: Store) -> Iterator[Finding]:
    """Each kind of file: how many are as their name says, and which are not."""
    prepared = files.prepared()
    # The set of the method `whole` is the prepared dataset.
    sets = store.query(
        "select sha256, min(id) id from artifacts join runs on number = run "
        "where sha256 not in (select sha256 from datasets) group by sha256"
    )
    data = store.query("select sha256, label id from datasets")
    checkpoints = store.query("select checkpoints.sha256, uid, id from checkpoints join runs on number = run")
    yield from _compare("sets", [(_of(row), _placed(files.set_path, row["sha256"])) for row in sets])
    yield from _compare("data", [(_of(row), prepared.get(row["sha256"])) for row in data])
    yield from _compare(
        "checkpoints",
        [
            (_of(row), folder / f"{row['sha256']}.safetensors")
            if (folder := _placed(files.run_folder, row["uid"])) and _SHA256.fullmatch(row["sha256"])
            else (_of(row), None)
            for row in checkpoints
        ],
    )


def _placed(place: Callable[[str], Path], name: str) -> Path | None:
    """None: nothing of ours has that name."""
    with suppress(BadInput):
        return place(name)
    return None


def _of(row: SqlRow) -> tuple[str, str]:
    return row["sha256"], row["id"]


def _compare(kind: str, named: list[tuple[tuple[str, str], Path | None]]) -> Iterator[Finding]:
    """Files of one kind with their names.

    Args:
        named: SHA-256 and whose it is, and where the file should be; None: nobody knows.
    """
    missing, intact = [], 0
    for (sha256, of), path in named:
        if path is None or not path.is_file():
            missing.append(of)
        elif fault := _fault(path, sha256):
            yield Finding(kind, "damaged", f"{path} ({of}): {fault}")
        else:
            intact += 1
    yield Finding(kind, "ok", f"{intact} files, each as its SHA-256 says")
    if missing:
        of = ", ".join(missing[:MOST_FAULTS]) + (", …" if len(missing) > MOST_FAULTS else "")
        yield Finding(kind, "missing", f"{len(missing)} files are not on this machine: of {of}")


def _fault(path: Path, sha256: str) -> str:
    try:
        return "" if files.sha256(path) == sha256 else "its bytes are not those of its SHA-256"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"


def back_up(path: Path, target: Path | None, *, overwrite: bool = False, pictures: bool = True) -> Path:
    """Copy a database into one file, while runs may write to it. Its schema stays as it is.

    Args:
        target: none: beside the database, with the first number that is free.
        pictures: whether those that show a set on its way are copied, too. What a set looks like at its end always is.

    Returns:
        Where the copy is.

    Raises:
        BadInput: there is no such database, or the target is there already or cannot be written.
    """
    database.identify(path)
    names = (path.with_name(f"{path.stem}.backup{n}{path.suffix}") for n in count(1))
    chosen = target or next(name for name in names if not name.exists())
    if chosen.exists() and (not overwrite or chosen.samefile(path) or not chosen.is_file()):
        raise BadInput(f"The backup {str(chosen)!r} is there already: choose another name, or add --overwrite.")
    try:
        with files.writing("The backup", chosen.parent), closing(database.open_as_it_is(path)) as db:
            database.copy_whole(db, chosen, overwrite=overwrite, and_then=None if pictures else _without_pictures)
    except sqlite3.Error as error:
        raise BadInput(f"The backup {str(chosen)!r} cannot be made: {error}.") from None
    return chosen


def _without_pictures(db: Database) -> None:
    if db.conn.execute("select 1 from sqlite_master where name = 'previews'").fetchone():
        db.conn.execute("delete from previews")
        db.conn.execute("vacuum")


class Migrated(NamedTuple):
    """The schemas before and after, and the copy of the file as it was; none: it was up to date."""

    old: int
    new: int
    backup: Path | None


def migrate(path: Path) -> Migrated:
    """Bring a database up to date.

    Raises:
        BadInput: there is none, or it cannot be written.
    """
    database.identify(path)
    with closing(database.open_as_it_is(path)) as db:
        old = database.version(db)
    Store.open(path, write=True).close()
    copies = database.backups(path, old) if old < VERSION else []
    return Migrated(old, VERSION, copies[-1] if copies else None)


@dataclass
class Waste:
    """Runs and files that are no longer needed, and take space."""

    runs: list[str] = field(default_factory=list)
    """In the trash, by id."""
    alive: list[str] = field(default_factory=list)
    """In the trash too, but their processes go on: left alone."""
    paths: list[Path] = field(default_factory=list)
    """Files: sets, checkpoints, logs and temporary ones."""
    folders: list[Path] = field(default_factory=list)
    """Temporary ones, which are empty once those files are gone."""
    size_bytes: int = 0
    """The files together."""
    unknown: list[Path] = field(default_factory=list)
    """Folders with checkpoints of runs that no database knows which was written with this home."""
    kept: dict[str, list[Path]] = field(default_factory=dict)
    """Files that only runs in the trash need, as far as this database knows, by why they stay."""
    unread: list[Path] = field(default_factory=list)
    """Other databases that were written with this home, and cannot be read: what they need, nobody knows."""


@dataclass
class Needs:
    """The files of a home that the runs of a database need."""

    sets: set[str] = field(default_factory=set)
    """By SHA-256."""
    imported: set[str] = field(default_factory=set)
    """Those among them that were brought here by hand."""
    unfinished: set[str] = field(default_factory=set)
    """Runs that can be gone on with, by uid: they need their checkpoints."""
    finished: set[str] = field(default_factory=set)
    logs: set[str] = field(default_factory=set)


def needs(store: Store, but: Collection[int] = ()) -> Needs:
    """List the files that the runs of a database need, but for these runs, by number."""
    mine = Needs()
    for row in store.query("select sha256, run from artifacts"):
        if row["run"] not in but:
            mine.sets.add(row["sha256"])
    for row in store.query("select number, uid, state, log, config from runs"):
        made, imported = _names(row["config"])
        mine.imported |= imported  # also of runs in the trash
        if row["number"] not in but:
            mine.sets |= made | imported
            (mine.finished if row["state"] == "finished" else mine.unfinished).add(row["uid"])
            mine.logs.add(row["log"])
    return mine


def _names(config: str) -> tuple[set[str], set[str]]:
    """The sets that a configuration names: one that is only evaluated, and one that was imported."""
    with suppress(ValueError, TypeError, AttributeError):
        fields = json.loads(config)
        made, imported = fields.get("where", {}).get("made"), fields["method"].get("options", {}).get("set")
        return {made} if made else set(), {imported} if imported else set()
    return set(), set()


def _elsewhere(store: Store) -> tuple[dict[Path, Needs], list[Path]]:
    """Look up the needs of other databases that were written with this home, and those that cannot be read."""
    theirs: dict[Path, Needs] = {}
    unread: list[Path] = []
    here = Path(os.path.realpath(store.path))
    for path in files.databases():
        if path == here:
            continue
        try:
            with closing(Store.open(path)) as other:
                theirs[path] = needs(other)
        except BadInput:
            unread.append(path)
    return theirs, unread


@dataclass
class _Others:
    """The needs of other databases, also of one that cannot be read."""

    needs: dict[Path, Needs]
    may_need: bool
    kept: dict[str, list[Path]]
    """The files that stay, by why: what is asked of here is added."""

    def keep(self, reason: str, path: Path) -> None:
        if path.is_file():
            self.kept.setdefault(reason, []).append(path)

    def need(self, path: Path, kind: Literal["sets", "logs", "unfinished"], name: str) -> bool:
        for other, theirs in self.needs.items():
            if name in getattr(theirs, kind):
                self.keep(f"a run in {str(other)!r} needs them", path)
                return True
        if self.may_need:
            self.keep("a database that cannot be read may need them (--unknown: it does not)", path)
        return self.may_need


def waste(store: Store, goes_on: Callable[[RunRow], bool], *, unknown: bool = False) -> Waste:
    """Find what `purge` removes.

    Args:
        goes_on: whether the process of a run, given its row, is alive.
        unknown: whether what only databases may need that cannot be read any more is waste too, and checkpoints of
            runs that no database knows.
    """
    result = Waste()
    rows = store.runs("deleted_at != '' order by number")
    gone = {row.number for row in rows if not goes_on(row)}
    result.runs = [row.id for row in rows if row.number in gone]
    result.alive = [row.id for row in rows if row.number not in gone]
    mine = needs(store, gone)
    theirs, result.unread = _elsewhere(store)
    others = _Others(theirs, bool(result.unread) and not unknown, result.kept)
    sets = list(_unneeded_sets(store, mine, others))
    logs = list(_unneeded_logs([row.log for row in rows if row.number in gone], mine, others))
    checkpoints, result.unknown = _unneeded_checkpoints(store, mine, others, unknown=unknown)
    stale = list(_stale(store))
    result.folders = [path for path in stale if path.is_dir()]
    sizes: dict[Path, int] = {}
    for path in (*sets, *logs, *checkpoints, *stale):
        with suppress(OSError):
            if path.is_file() and not path.is_symlink():
                sizes[path] = path.stat().st_size
    result.paths, result.size_bytes = list(sizes), sum(sizes.values())
    return result


def _unneeded_sets(store: Store, mine: Needs, others: _Others) -> Iterator[Path]:
    named = {row["sha256"] for row in store.query("select sha256 from artifacts")}
    for sha256 in sorted(named - mine.sets):
        if not _SHA256.fullmatch(sha256):  # what names no set of ours may name any file
            continue
        path = files.set_path(sha256)
        if sha256 in mine.imported or files.is_imported(sha256):
            others.keep("they were imported", path)
        elif not others.need(path, "sets", sha256):
            yield path


def _unneeded_logs(logs: Iterable[str], mine: Needs, others: _Others) -> Iterator[Path]:
    for name in logs:
        # Runs that were started together share one.
        log = files.own_log(name) if name not in mine.logs else None
        if log and not others.need(log, "logs", name):
            yield log


def _unneeded_checkpoints(
    store: Store, mine: Needs, others: _Others, *, unknown: bool
) -> tuple[list[Path], list[Path]]:
    """Files of checkpoints that are waste, and the folders of runs that no database knows."""
    unneeded: list[Path] = []
    folders: list[Path] = []
    states = {row["uid"]: row["state"] for row in store.query("select uid, state from runs")}
    for folder in sorted(_checkpoints().glob("*")):
        uid = folder.name
        if not _UID.fullmatch(uid) or uid in mine.unfinished:
            continue
        if uid in states or unknown or any(uid in theirs.finished for theirs in others.needs.values()):
            for path in (*folder.glob("*.safetensors"), *folder.glob(f".*{files.PART}")):
                if states.get(uid) == "finished" or not others.need(path, "unfinished", uid):
                    unneeded.append(path)
        elif not any(uid in theirs.unfinished for theirs in others.needs.values()):
            folders.append(folder)
    return unneeded, folders


def _checkpoints() -> Path:
    return files.home() / "runs"


def _stale(store: Store) -> Iterator[Path]:
    """Find what killed processes left half written: here, and beside the database."""
    home = files.home()
    places = (home, files.data_folder(), home / "sets", files.experts_folder(), files.log_folder(), home / "kept")
    folders = {*places, *_checkpoints().glob("*"), *files.experts_folder().glob("*")}
    parts = [path for folder in sorted(folders) for path in folder.glob(f".*{files.PART}*")]
    parts += (home / "raw").glob("*/.download-*")
    for end in (files.PART, ".new"):  # as they were called once
        parts += store.path.absolute().parent.glob(f".{glob.escape(store.path.stem[:20])}*{end}*")
    for note, place in files.staged().items():
        if _is_stale(place):
            parts.append(place)
            yield note
    for path in dict.fromkeys(parts):
        if path.is_dir():
            if _is_stale(path):
                yield from (path, *sorted(path.rglob("*")))
        elif files.is_left(path):
            yield path


def _is_stale(folder: Path) -> bool:
    """Tell whether nobody goes on with a temporary folder, or it is gone."""
    with suppress(FileNotFoundError):
        return time.time() - folder.stat().st_mtime > STALE_SECONDS
    return True


def purge(store: Store, goes_on: Callable[[RunRow], bool], *, unknown: bool = False) -> Waste:
    """Remove for good what `waste` finds; returns what was removed.

    Raises:
        NotKept: the database could not be written.
    """
    # The files first: should this be cut short, the runs are still in the trash, and the next purge goes on.
    with database.transaction(store.db, store.file):
        removed = waste(store, goes_on, unknown=unknown)
        for path in removed.paths:
            with suppress(OSError):
                path.unlink()
        emptied = {path.parent for path in removed.paths if path.parent.parent == _checkpoints()}
        for folder in sorted((*removed.folders, *emptied), reverse=True):  # what is in one comes before it
            with suppress(OSError):
                folder.rmdir()
        if unknown and removed.unread:
            files.forget_databases(set(removed.unread))
        ids = json.dumps(removed.runs)
        store.tables.execute("delete from runs where id in (select value from json_each(?))", ids)
    return removed
