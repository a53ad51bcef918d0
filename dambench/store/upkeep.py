"""Upkeep of a database: whether it is whole, copies of it, its schema, and what it no longer needs."""

import json
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sqlite_utils import Database

from dambench import files
from dambench.errors import BadInput
from dambench.store import database
from dambench.store.results import SCORES, damaged
from dambench.store.runs import Store
from dambench.store.schema import VERSION

STALE_SECONDS = 24 * 3600.0
"""After which nobody goes on with a temporary file."""

MOST_FAULTS = 20
"""Of one kind that are told one by one."""

_UID = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Finding(NamedTuple):
    """What was looked at, and how it was."""

    what: str
    state: Literal["ok", "missing", "damaged"]
    """Missing: not on this machine. That is no fault, the tensors of a run may be where it was made."""
    detail: str


def check(store: Store) -> list[Finding]:
    """See whether the database, its results and its files are whole: all that it names is read."""
    found = list(_check_database(store))
    for look in (_check_results, _check_files):
        try:
            found += look(store)
        except BadInput as error:
            found.append(Finding("database", "damaged", str(error)))
    return found


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


def _check_results(store: Store) -> Iterator[Finding]:
    rows = store.query(f"{SCORES} where state = 'finished' order by number")
    broken = damaged(rows)
    for run in broken.values():
        yield Finding("results", "damaged", f"run {run}: its scores are not those of its checksum")
    sums = {row["number"] for row in rows if row["results_sha256"]}
    without = len({row["number"] for row in rows} - sums)
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
    yield from _compare("sets", [(_of(row), files.set_path(row["sha256"])) for row in sets])
    yield from _compare("data", [(_of(row), prepared.get(row["sha256"])) for row in data])
    yield from _compare(
        "checkpoints",
        [(_of(row), files.run_folder(row["uid"]) / f"{row['sha256']}.safetensors") for row in checkpoints],
    )


def _of(row: dict[str, Any]) -> tuple[str, str]:
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
    """From which schema to which, and where the file is as it was before; none: it was up to date."""

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
    """What is no longer needed, and takes space."""

    runs: list[str] = field(default_factory=list)
    """In the trash, by id."""
    alive: list[str] = field(default_factory=list)
    """In the trash too, but their processes go on: left alone."""
    paths: list[Path] = field(default_factory=list)
    """Files: sets, checkpoints, logs and temporary ones."""
    size_bytes: int = 0
    """Of the files."""
    unknown: list[Path] = field(default_factory=list)
    """Folders with checkpoints of runs that this database does not know. Another one may."""


def waste(store: Store, goes_on: Callable[[dict[str, Any]], bool], *, unknown: bool = False) -> Waste:
    """Find what `purge` removes.

    Args:
        goes_on: whether the process of a run, given its row, is alive.
        unknown: whether checkpoints of runs that this database does not know are waste too.
    """
    found = Waste()
    rows = store.query("select * from runs where deleted_at != '' order by number")
    gone = {row["number"] for row in rows if not goes_on(row)}
    found.runs = [row["id"] for row in rows if row["number"] in gone]
    found.alive = [row["id"] for row in rows if row["number"] not in gone]
    named: dict[str, set[int]] = {}
    for row in store.query("select sha256, run from artifacts"):
        named.setdefault(row["sha256"], set()).add(row["run"])
    for sha256, runs in named.items():
        if runs <= gone and _SHA256.fullmatch(sha256):  # what names no set of ours may name any file
            found.paths.append(files.set_path(sha256))
    every = store.query("select uid, number, state, log from runs")
    logs = {row["log"] for row in every if row["number"] not in gone}  # runs that were started together share one
    found.paths += [
        log for row in rows if row["number"] in gone and row["log"] not in logs and (log := _log(row["log"]))
    ]
    unfinished = {row["uid"] for row in every if row["state"] != "finished" and row["number"] not in gone}
    known = {row["uid"] for row in every}
    for folder in sorted(_checkpoints().glob("*")):
        if not _UID.fullmatch(folder.name) or folder.name in unfinished:
            continue
        if folder.name not in known and not unknown:
            found.unknown.append(folder)
        else:
            found.paths += [*folder.glob("*.safetensors"), *folder.glob(".*.part")]
    found.paths += _stale()
    sizes: dict[Path, int] = {}
    for path in found.paths:
        with suppress(OSError):
            if path.is_file() and not path.is_symlink():
                sizes[path] = path.stat().st_size
    found.paths, found.size_bytes = list(sizes), sum(sizes.values())
    return found


def _checkpoints() -> Path:
    return files.home() / "runs"


def _log(path: str) -> Path | None:
    """A run's log, where it is one that we wrote: a run that came from elsewhere may name any file."""
    log = Path(path)
    return log if path and log.parent == files.log_folder() and log.suffix == ".log" else None


def _stale() -> Iterator[Path]:
    """What killed processes left half written."""
    for folder in (files.data_folder(), files.home() / "sets", *_checkpoints().glob("*")):
        for path in folder.glob(".*.part"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > STALE_SECONDS:
                    yield path


def purge(store: Store, goes_on: Callable[[dict[str, Any]], bool], *, unknown: bool = False) -> Waste:
    """Remove for good what `waste` finds; returns what was removed.

    Raises:
        NotKept: the database could not be written.
    """
    # The files first: should this be cut short, the runs are still in the trash, and the next purge goes on.
    with database.transaction(store.db, store.file):
        found = waste(store, goes_on, unknown=unknown)
        for path in found.paths:
            with suppress(OSError):
                path.unlink()
        for folder in {path.parent for path in found.paths if path.parent.parent == _checkpoints()}:
            with suppress(OSError):
                folder.rmdir()  # those that are empty now
        store.db.conn.execute("delete from runs where id in (select value from json_each(?))", [json.dumps(found.runs)])
    return found
