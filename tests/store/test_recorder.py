"""What a run says is never lost: not where its database goes away under it, nor where others hold it."""

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from dambench.core import files
from dambench.core.errors import Held, KeptElsewhere
from dambench.core.events import AnyEvent, Previewed, Sampled
from dambench.store import database, recorder
from dambench.store.merge import merge
from dambench.store.recorder import Recorder
from dambench.store.runs import Store
from tests.ledger import CARD, PNG, add, config, words


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "FLUSH_SECONDS", 0.0)
    monkeypatch.setattr(recorder, "LOCK_SECONDS", 0.0)
    monkeypatch.setattr(recorder, "AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(recorder, "LOCK_AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(database, "BUSY_MS", 5)


def _wal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _another(path: Path, size: int = 8) -> Path:
    """A database with other runs, made elsewhere."""
    other = path.with_name("another.db")
    with closing(Store.open(other, write=True)) as store:
        for seed in range(size):
            add(store, config("random", seed=seed))
    return other


def _write_over(path: Path) -> None:
    with _another(path).open("rb") as source, path.open("r+b") as target:
        target.truncate()
        shutil.copyfileobj(source, target)


def _rename_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("renamed"))


def _remove_all(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def _remove_log(path: Path) -> None:
    _wal(path).unlink()


GONE: dict[str, Callable[[Path], object]] = {
    "removed": os.unlink,
    "removed with its log": _remove_all,
    "renamed": lambda path: path.rename(path.with_name("elsewhere.db")),
    "replaced": lambda path: os.replace(_another(path), path),
    "written over": _write_over,
    "cut off": lambda path: os.truncate(path, 5000),
    "emptied": lambda path: os.truncate(path, 0),
    "its log removed": _remove_log,
    "its folder renamed": _rename_folder,
}


def _said() -> list[AnyEvent]:
    said = list(words(config()))
    said[4:4] = [Sampled(seconds=0.5, gpu_watts=3.5), Previewed(iteration=1, preview=PNG)]
    return said


def _told(store: Store, run: str) -> list[Any]:
    row = store.run(run)
    return [
        [(number, event) for number, event in store.tail(run)],
        list(store.samples(run)),
        store.pictures(run),
        {name: getattr(row, name) for name in ("state", "set_sha256", "results_sha256", "done", "attempt")},
        store.query("select accuracy, repeat from scores where run = ?", row.number),
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    with closing(Store.open(tmp_path_factory.mktemp("undisturbed") / "runs.db", write=True)) as store:
        run = store.create(config(), CARD)
        list(store.record(run, iter(_said())))
        return _told(store, run)


@pytest.mark.parametrize(
    ("how", "folded"),
    [*((how, False) for how in GONE), *((how, True) for how in ("written over", "cut off", "emptied"))],
)
def test_a_run_whose_database_goes_away_is_kept_whole_and_can_be_merged(
    how: str, folded: bool, tmp_path: Path, undisturbed: list[Any]
) -> None:
    """And what is there in its place is not touched."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "runs.db"
    store = Store.open(path, write=True)
    earlier = add(store, config("random"))
    if folded:  # as when much has been written
        with database.transaction(store.db, path):
            pass
        with database.locked(path) as lock:
            store.db.conn.execute("pragma wal_checkpoint(truncate)")
            database._note_look(path, lock)
    run = store.create(config(), CARD)
    said: list[str] = []
    keeping = Recorder(store, run, say=said.append)
    put: dict[str, bytes] = {}

    def spoken() -> Iterator[AnyEvent]:
        for number, event in enumerate(_said()):
            if number == 4:
                GONE[how](path)
                if path.exists() and "log" not in how:
                    put["content"] = path.read_bytes()
            yield event
            if number == 5:
                noticed.append(keeping.lost)

    noticed: list[str] = []
    with pytest.raises(KeptElsewhere, match="dambench db merge") as told:
        list(keeping.record(spoken()))
    store.close()
    assert "" not in noticed  # at once, not at its end
    kept = Path(str(told.value).split("'")[3])
    assert kept.parent == (files.home() / "kept" if how == "its folder renamed" else folder)
    assert len(said) == 1
    if how in ("removed", "renamed"):  # what comes in its place has no log of another
        assert not _wal(path).exists()
        assert sorted(os.listdir(folder)) == sorted(
            ["runs.db-lock", kept.name, *(["elsewhere.db"] if how == "renamed" else [])]
        )
    if put:
        assert path.read_bytes() == put["content"]
        if how in ("replaced", "written over"):
            with closing(Store.open(path)) as there:
                assert there.query("pragma integrity_check") == [{"integrity_check": "ok"}]
                assert len(there.query("select id from runs")) == 8
    with closing(Store.open(tmp_path / "merged.db", write=True)) as merged:
        assert run in merge(merged, kept).added
        assert _told(merged, run) == undisturbed
        if how not in ("written over", "cut off", "emptied"):
            assert merged.run(earlier).state == "finished"  # all that could be read is kept
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".part")]


@pytest.mark.parametrize(
    "sql",
    [
        "drop table events",
        "drop table runs",
        "drop table samples",
        "drop table measurements",
        "delete from runs",
    ],
)
def test_a_run_under_which_another_program_drops_a_table_is_kept_whole_and_can_be_merged(
    sql: str, tmp_path: Path, undisturbed: list[Any]
) -> None:
    path = tmp_path / "runs.db"

    def spoken() -> Iterator[AnyEvent]:
        for number, event in enumerate(_said()):
            if number == 4:
                with closing(sqlite3.connect(path)) as other, other:
                    other.execute("pragma foreign_keys = on")
                    other.execute(sql)
            yield event

    with closing(Store.open(path, write=True)) as store:
        run = store.create(config(), CARD)
        with pytest.raises(KeptElsewhere, match="dambench db merge") as told:
            list(Recorder(store, run).record(spoken()))
    kept = Path(str(told.value).split("'")[3])
    assert kept.parent == tmp_path
    with closing(Store.open(tmp_path / "merged.db", write=True)) as merged:
        assert merge(merged, kept).added == [run]
        assert _told(merged, run) == undisturbed


@contextmanager
def _lock_held(path: Path) -> Iterator[None]:
    with path.with_name(f"{path.name}-lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _transaction_held(path: Path) -> Iterator[None]:
    """As another program does, which does not know our lock."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        yield


HELD = pytest.mark.parametrize("held", [_lock_held, _transaction_held], ids=["the lock", "a transaction"])


@HELD
def test_while_others_hold_the_database_a_run_goes_on_and_nothing_of_it_is_missing(
    held: Callable[[Path], AbstractContextManager[None]], tmp_path: Path, undisturbed: list[Any]
) -> None:
    path = tmp_path / "runs.db"
    with closing(Store.open(path, write=True)) as store:
        run = store.create(config(), CARD)
        said: list[str] = []
        keeping = Recorder(store, run, say=said.append)

        def spoken() -> Iterator[AnyEvent]:
            words = _said()
            yield from words[:2]
            assert not keeping.is_behind
            with held(path):
                yield from words[2:-1]
                assert keeping.is_behind
                assert len(said) == 1
                assert "The run goes on" in said[0]
            yield words[-1]

        assert list(keeping.record(spoken())) == _said()
        assert len(said) == 2
        assert "can be written again" in said[1]
        assert not keeping.is_behind
        assert _told(store, run) == undisturbed


@HELD
@pytest.mark.parametrize("when", ["memory is full", "the end has come"])
def test_a_run_that_others_leave_no_turn_is_kept_elsewhere_in_the_end(
    held: Callable[[Path], AbstractContextManager[None]], when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "LAST_PATIENCE", 0.1)
    monkeypatch.setattr(recorder, "MOST_EVENTS", 3 if when == "memory is full" else 100)
    path = tmp_path / "runs.db"
    with closing(Store.open(path, write=True)) as store:
        run = store.create(config(), CARD)
        keeping = Recorder(store, run)
        words = _said()

        def heard() -> Iterator[AnyEvent]:
            for number, event in enumerate(words):
                yield event
                if number == 6:
                    assert bool(keeping.lost) == (when == "memory is full")

        with held(path), pytest.raises(KeptElsewhere) as told:
            list(keeping.record(heard()))
        assert store.run(run).state == "waiting"
        found = merge(store, Path(str(told.value).split("'")[3]))
        assert found.continued == [run]
        assert store.run(run).state == "finished"
        assert len(list(store.tail(run))) == 7


def test_whoever_waits_is_told_so_and_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "SPEAK_SECONDS", 0.01)
    path = tmp_path / "runs.db"
    with closing(Store.open(path, write=True)) as store:
        heard: list[str] = []
        voice = database.voice.set(heard.append)
        try:
            for held in (_lock_held, _transaction_held):
                heard.clear()
                with held(path), pytest.raises(Held, match="does not come to an end"):
                    store.write([], patience=0.05)
                assert len(heard) == 1
                assert "waiting for another process" in heard[0]
        finally:
            database.voice.reset(voice)
