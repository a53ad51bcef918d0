"""A bundle: runs and the files of their sets, to be carried to another machine. One uncompressed tar, or a folder:

    runs.db                             the runs
    runs.db.sha256                      its SHA-256, as `sha256sum -c` reads it; bundles of before have none
    sets/SHA256.safetensors             their synthetic sets
    data/zca-DATA-SHA256.safetensors    the whitenings without which some of them cannot be tested

It may come from anybody. Only files of these names are taken, each only if its content is that of its name; links are
refused, and nothing is executed. A set is there whole or not at all, and before the runs that need it: what was cut
short is completed by doing it again.
"""

import hashlib
import json
import os
import re
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError, safe_open

from dambench.core import files, reading
from dambench.core.errors import BadInput
from dambench.core.sanitize import display
from dambench.store import merge
from dambench.store.runs import Store

DATABASE = "runs.db"

DIGEST = "runs.db.sha256"

LARGEST_FILE = 32 * 10**9
"""The size of one file in a bundle, at most."""

MOST_FILES = 1_000_000

PIECE = 2**22
"""Bytes that are copied at once."""

NAME = re.compile(
    r"runs\.db(?:\.sha256)?|sets/(?P<set>[0-9a-f]{64})\.safetensors"
    r"|data/zca-[0-9a-f]{16}-(?P<whitening>[0-9a-f]{64})\.safetensors"
)
"""The names of files in a bundle."""

SHA256 = re.compile(r"\b[0-9a-f]{64}\b")

SETS = """
    select runs.id, artifacts.sha256, artifacts.bytes from artifacts join runs on runs.number = artifacts.run
    where deleted_at = '' and artifacts.sha256 not in (select sha256 from datasets) order by runs.id
"""
"""The sets of all runs. (That of `whole` is the prepared dataset, which is not ours to hand on.)"""

IMPORTED = "select id, config from runs where method = 'imported' and deleted_at = '' order by id"


@dataclass
class Bundled:
    """The contents of a bundle."""

    file: str
    runs: int = 0
    sets: int = 0
    size_bytes: int = 0
    """All sets and whitenings together."""
    missing: dict[str, list[str]] = field(default_factory=dict)
    """Files that are not on this machine: name → ids of the runs that need them."""
    damaged: list[str] = field(default_factory=list)
    """Files whose content is not that of their name: left out."""


def bundle(store: Store, target: Path, runs: Sequence[str], *, overwrite: bool = False) -> Bundled:
    """Write runs and the files of their sets: a tar where the name ends so, else a folder.

    The same runs and files give the same bytes.

    Args:
        runs: their ids.
        overwrite: a tar that is there. A folder never is.

    Raises:
        BadInput: the target is there already, or cannot be written; nothing is left behind.
    """
    if target.exists() and not (overwrite and target.is_file()):
        raise BadInput(
            f"The bundle {str(target)!r} is there already: choose another name"
            f"{', or add --overwrite' if target.is_file() else ''}."
        )
    made, folder = Bundled(str(target)), target.absolute().parent
    with files.writing("The bundle", folder), ExitStack() as stack:
        # Beside the target, so that it can be put in its place whole.
        content = stack.enter_context(files.staging(target)) / "content"
        content.mkdir()
        _copy_runs(store, content / DATABASE, runs)
        with closing(Store.open(content / DATABASE)) as copied:
            made.runs = len(copied.query("select 1 from runs"))
            needed = _needed(copied)
        (content / DIGEST).write_text(f"{files.sha256(content / DATABASE)}  {DATABASE}\n")
        contents = {name: path for name, path in _files(needed, made) if _is_sound(name, path, made)}
        made.sets = sum(name.startswith("sets/") for name in contents)
        made.size_bytes = sum(path.stat().st_size for path in contents.values())
        if target.suffix == ".tar":
            with tarfile.open(content / "tar", "w") as tar:
                for name, path in [*((name, content / name) for name in (DATABASE, DIGEST)), *sorted(contents.items())]:
                    with reading.opened(path) as file:
                        tar.addfile(_header(name, path.stat().st_size), file)
            _sync(content / "tar")
            (content / "tar").chmod((content / DATABASE).stat().st_mode & 0o777)
            (content / "tar").replace(target)
        else:
            for name, path in contents.items():
                (content / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(path, content / name)
            for path in content.rglob("*"):
                if path.is_file():
                    _sync(path)
            content.rename(target)
        files.sync_folder(folder)
    return made


def _sync(path: Path) -> None:
    """See to it that a file outlives a power cut."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _header(name: str, size: int) -> tarfile.TarInfo:
    """Make the header of a file in a tar, without its owner and time: the same files give the same bytes."""
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, 0o644
    return header


def _copy_runs(store: Store, path: Path, runs: Sequence[str]) -> None:
    """A database with these runs and nothing else, as one file."""
    try:
        store.db.conn.execute("vacuum into ?", [str(path)])
        with closing(sqlite3.connect(path, isolation_level=None)) as copy:
            copy.execute("pragma foreign_keys = on")
            copy.execute("delete from runs where id not in (select value from json_each(?))", [json.dumps(runs)])
            for table in ("dataset", "protocol"):
                copy.execute(f"delete from {table}s where sha256 not in (select {table}_sha256 from runs)")
            copy.execute("update revisions set number = 0")  # how often was written here is none of their business
            copy.execute("vacuum")
    except sqlite3.Error as error:
        raise BadInput(f"The runs cannot be copied to {str(path)!r}: {error}.") from None


def _needed(store: Store) -> dict[str, tuple[int | None, list[str]]]:
    """List the sets of a database's runs, by SHA-256: their size, if it is known, and the runs that need them."""
    needed: dict[str, tuple[int | None, list[str]]] = {}
    for row in store.query(SETS):
        if isinstance(row["sha256"], str) and SHA256.fullmatch(row["sha256"]):
            needed.setdefault(row["sha256"], (row["bytes"], []))[1].append(str(row["id"]))
    for row in store.query(IMPORTED):
        for sha256 in _imported(row["config"]):
            needed.setdefault(sha256, (None, []))[1].append(str(row["id"]))
    return needed


def _imported(configuration: Any) -> list[str]:
    """The sets that a run of `imported` names."""
    try:
        return SHA256.findall(str(json.loads(configuration)["method"]["options"]["set"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        return []  # merging says what is wrong with it


def _files(needed: dict[str, tuple[int | None, list[str]]], made: Bundled) -> Iterator[tuple[str, Path]]:
    """The files of sets and the whitenings that they name, by their names in a bundle."""
    for sha256, (_, runs) in needed.items():
        path = files.set_path(sha256)
        if not path.is_file():
            made.missing[f"sets/{path.name}"] = sorted(set(runs))
            continue
        yield f"sets/{path.name}", path
        if whitening := whitening_of(path):
            if (file := files.find_whitening(whitening)) is None:
                made.missing[f"whitening {whitening}"] = sorted(set(runs))
            else:
                yield f"data/{file.name}", file


def _is_sound(name: str, path: Path, made: Bundled) -> bool:
    match = NAME.fullmatch(name)
    sound = match is not None and files.sha256(path) in match.groups()
    if not sound:
        made.damaged.append(str(path))
    return sound


def whitening_of(path: Path) -> str:
    """SHA-256 of the whitening that the file of a set names; empty: it names none, or is no set."""
    try:
        with safe_open(path, "numpy") as tensors:
            about = json.loads((tensors.metadata() or {})["dambench"])
        return str(about.get("whitening") or "")
    except (OSError, SafetensorError, ValueError, KeyError, AttributeError, RecursionError):
        return ""


@dataclass
class Source:
    """A database or a bundle that is to be merged."""

    path: Path
    database: Path
    """Its database: the file itself, or a copy."""
    opened: dict[str, Callable[[], IO[bytes]]] = field(default_factory=dict)
    """What opens each file of sets and whitenings, by name."""


def merge_all(store: Store, paths: Sequence[Path]) -> merge.Merged:
    """Add the runs of other databases and bundles to an open one, and the sets of the bundles to those that are here.

    To do so again changes nothing. Each set is taken in whole, and each source's runs in one transaction.

    Raises:
        BadInput: one of them is none, or not safe to read; nothing was taken in of any.
        NotKept: the database could not be written.
    """
    merged = merge.Merged()
    with ExitStack() as stack:
        sources = [stack.enter_context(_open(path)) for path in paths]
        for source in sources:
            _check_database(source)
            with merge.opened(store, source.database, source.path):
                pass
        for source in sources:
            _take_sets(source, merged)
            merge.merge(store, source.database, merged, source.path)
    merged.missing.sort()
    return merged


def check(paths: Sequence[Path]) -> None:
    """See that these are databases and bundles that can be read, before a database is made for their runs.

    Raises:
        BadInput: one of them is none.
    """
    for path in paths:
        with _open(path) as source:
            _check_database(source)
            Store.open(source.database).close()


def _check_database(source: Source) -> None:
    """See that a bundle's database is as it was bundled, where the bundle says how that is."""
    if DIGEST in source.opened:
        with source.opened[DIGEST]() as file:
            expected = file.read(64)
        if files.sha256(source.database).encode() != expected:
            raise BadInput(
                f"The bundle {str(source.path)!r} is not merged: its {DATABASE} is damaged, or was changed; its "
                f"SHA-256 is not that in {DIGEST}. Bundle the runs again."
            )


def _take_sets(source: Source, merged: merge.Merged) -> None:
    """Keep the sets of a source that its runs name, and are not here yet."""
    with closing(Store.open(source.database)) as theirs:
        try:
            needed = _needed(theirs)
        except (sqlite3.Error, TypeError) as error:
            raise BadInput(f"The database of {str(source.path)!r} cannot be read: {error}.") from None
    whitenings = {match["whitening"]: name for name in source.opened if (match := NAME.fullmatch(name))}
    for sha256, (size, runs) in needed.items():
        path, name = files.set_path(sha256), f"sets/{sha256}.safetensors"
        if not path.is_file() and name in source.opened:
            merged.sets += _take(source, name, path, sha256, size, merged)
        if not path.is_file():
            merged.missing += [run for run in sorted(set(runs)) if run not in merged.missing]
            continue
        whitening = whitening_of(path)
        if whitening in whitenings and files.find_whitening(whitening) is None:
            name = whitenings[whitening]
            _take(source, name, files.data_folder() / Path(name).name, whitening, None, merged)


def _take(source: Source, name: str, target: Path, sha256: str, size: int | None, merged: merge.Merged) -> bool:
    """Copy a file of a bundle to where it is kept, if its content is that of its name."""
    digest, copied = hashlib.sha256(), 0
    most = LARGEST_FILE if size is None else size
    with files.writing(f"The file {name} of {str(source.path)!r}", target.parent, files.HOME_HINT):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with source.opened[name]() as file, files.replacing(target) as part, part.open("wb") as output:
                while piece := file.read(PIECE):
                    copied += len(piece)
                    if copied > most:
                        raise merge.Refused
                    digest.update(piece)
                    output.write(piece)
                if digest.hexdigest() != sha256:
                    raise merge.Refused
                output.flush()
                with safe_open(part, "numpy"):
                    pass  # it is one of tensors
        except (merge.Refused, SafetensorError, tarfile.TarError):
            merged.damaged.append(f"{name} of {display(str(source.path))}")
            return False
    return True


@contextmanager
def _open(path: Path) -> Iterator[Source]:
    """Open a database, a tar or a folder.

    Raises:
        BadInput: it is none, or holds what no bundle does.
    """
    try:
        if path.is_dir():
            yield Source(path, path / DATABASE, dict(_in_folder(path)))
            return
        with ExitStack() as stack:
            file = stack.enter_context(reading.opened(path))
            begins = file.read(512)
            file.seek(0)
            if begins[257:262] != b"ustar":
                yield Source(path, path)
                return
            tar = stack.enter_context(tarfile.open(fileobj=file, mode="r:"))
            members = _in_tar(path, tar)
            if DATABASE not in members:
                raise BadInput(f"The bundle {str(path)!r} is not merged: it has no {DATABASE}.")
            copy = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dambench."))) / DATABASE
            if members[DATABASE].size > files.room(copy.parent):
                raise BadInput(
                    f"The runs of {str(path)!r} need {members[DATABASE].size} bytes in {str(copy.parent)!r}."
                )
            with _extracted(tar, members[DATABASE])() as inside, copy.open("xb") as output:
                shutil.copyfileobj(inside, output, PIECE)
            yield Source(path, copy, {name: _extracted(tar, member) for name, member in members.items()})
    except (tarfile.TarError, EOFError) as error:
        raise BadInput(f"The bundle {str(path)!r} cannot be read: {display(str(error))}.") from None
    except OSError as error:
        if error.filename and str(error.filename) != str(path):
            raise
        raise BadInput(f"The database or bundle {str(path)!r} cannot be read: {error.strerror or error}.") from None


def _in_folder(path: Path) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    for file in [path / DATABASE, path / DIGEST, *sorted(path.glob("sets/*")), *sorted(path.glob("data/*"))]:
        name = file.relative_to(path).as_posix()
        if NAME.fullmatch(name) is None:
            continue  # whoever owns the folder may have put it there
        if any(part.is_symlink() for part in (file, file.parent)) or reading.is_no_file(file):
            raise BadInput(f"The bundle {str(path)!r} is not merged: {name} in it is no plain file.")
        if file.exists():
            yield name, partial(reading.opened, file)
    if not (path / DATABASE).is_file():
        raise BadInput(f"The folder {str(path)!r} is no bundle: it has no {DATABASE}.")


def _in_tar(path: Path, tar: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    """The files of a tar, by name.

    Raises:
        BadInput: there is anything else in it than what `bundle` writes.
    """
    members: dict[str, tarfile.TarInfo] = {}
    for member in tar:
        name = member.name.removeprefix("./")
        if member.isdir() and name in ("", ".", "sets", "data"):
            continue  # another program's tar of the folder
        why = ""
        if not member.isreg() or member.issparse():
            why = "is no plain file"
        elif NAME.fullmatch(name) is None:
            why = "has a name that no bundle has"
        elif name in members:
            why = "is in it twice"
        elif member.size > LARGEST_FILE or len(members) >= MOST_FILES:
            why = "is too large, or one of too many"
        if why:
            raise BadInput(f"The bundle {str(path)!r} is not merged: {display(name, 100)!r} {why}.")
        members[name] = member
    return members


def _extracted(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
    def opened() -> IO[bytes]:
        file = tar.extractfile(member)
        assert file is not None  # it is a plain file
        return file

    return opened
