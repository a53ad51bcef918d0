"""Network disks are simulated: two hosts are two host names and two folders for their indexes."""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dambench.core.errors import BadInput, Gone, KeptElsewhere, NotKept
from dambench.core.events import (
    AnyEvent,
    Checkpointed,
    Finished,
    Measured,
    Process,
    Progressed,
    Resumed,
    Sampled,
    Stepped,
)
from dambench.report.formats.markdown import render as to_markdown
from dambench.runner import processes
from dambench.store import journal, records
from dambench.store import runs as stored
from dambench.store.journal_store import JournalStore
from dambench.store.leaderboard import leaderboard
from dambench.store.merge import merge
from dambench.store.records import AttemptSuperseded, EditConflict, EventLogged, RunEdited
from dambench.store.runs import Store
from tests.ledger import CARD, ENVIRONMENT, add, config, costs, failed, stopped, words
from tests.mounts import disk_by, table_in

PARTS = (
    "events",
    "samples",
    "scores",
    "evaluations",
    "measurements",
    "artifacts",
    "costs",
    "environments",
    "checkpoints",
    "tags",
)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DAMBENCH_DISK", "network")
    (tmp_path / "net").mkdir()
    return tmp_path / "net" / "runs.db"


Host = Callable[..., Store]


@pytest.fixture
def host(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """Opens the database as a host of that name would."""
    opened: list[Store] = []

    def reach(name: str, *, write: bool = True) -> Store:
        with monkeypatch.context() as there:
            there.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache of {name}"))
            opened.append(Store.open(path, write=write))
        return opened[-1]

    yield reach
    for store in opened:
        store.close()


def _process(name: str) -> Process:
    return Process(host=name, boot=name, pid=1, started=1)


def _resumed(attempt: int, iteration: int = 1, name: str = "b") -> Resumed:
    return Resumed(attempt=attempt, iteration=iteration, checkpoint="", process=_process(name), environment=ENVIRONMENT)


def _say(store: Store, run: str, *events: AnyEvent, attempt: int = 1) -> None:
    list(store.record(run, iter(events), attempt))


def _told(store: Store) -> dict[str, list[dict[str, object]]]:
    """All that the tables hold, but for the numbers that are an index's own, and signs of life."""
    found = {"runs": store.query("select * from runs order by uid")}
    for table in PARTS:
        rows = store.query(f"select uid, t.* from {table} t join runs on runs.number = t.run")
        found[table] = sorted(rows, key=repr)
    own = ("number", "run", "beat_at")
    return {name: [{k: v for k, v in row.items() if k not in own} for row in rows] for name, rows in found.items()}


def _anew(store: Store, tmp_path: Path) -> dict[str, list[dict[str, object]]]:
    """The same, of an index that is made at once from all the files."""
    with pytest.MonkeyPatch.context() as there:
        there.setenv("XDG_CACHE_HOME", str(tmp_path / f"new {os.urandom(4).hex()}"))
        with closing(Store.open(store.path)) as new:
            return _told(new)


def _half(run: str, store: Store) -> None:
    """The first words of a run, and some of every kind."""
    _say(store, run, *list(words(config()))[:5], Checkpointed(iteration=1, sha256="c" * 64, size_bytes=5, seconds=0.1))


@pytest.mark.parametrize("wal", [False, True])
def test_sqlite_writes_nothing_on_a_network_disk(
    path: Path, host: Host, wal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as local:
        local.setenv("DAMBENCH_DISK", "local")
        first = Store.open(path, write=True)
        known = add(first, config(seed=7))
        if wal:  # somebody has it open, and the run is in the log alone
            assert path.with_name("runs.db-wal").stat().st_size > 0
        else:
            first.close()
    before = {name: (path.parent / name).read_bytes() for name in os.listdir(path.parent)}
    assert ("runs.db-wal" in before) == wal
    with closing(host("a")) as store:
        run = add(store, config())
        assert {row["id"] for row in store.query("select id from runs")} == {run, known}
        assert store.query("pragma journal_mode") == [{"journal_mode": "wal"}]
        assert path.parent not in store.file.parents
    after = {name: (path.parent / name).read_bytes() for name in os.listdir(path.parent) if name != "runs.db.d"}
    assert after == before
    assert len(os.listdir(journal.folder(path))) == 1
    if wal:
        first.close()


def test_a_mount_table_decides_and_the_folder_of_a_journal_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAMBENCH_DISK")
    table = table_in(tmp_path, f"/dev/vda / ext4 rw 0 0\nfiler:/x {tmp_path.resolve()}/net nfs4 rw 0 0\n")
    monkeypatch.setattr(journal, "disk_of", disk_by(table))
    (tmp_path / "net").mkdir()
    with closing(Store.open(tmp_path / "net" / "runs.db", write=True)) as store:
        add(store, config())
        assert "nfs4 at" in store.notes[0]
    assert os.listdir(tmp_path / "net") == ["runs.db.d"]
    with closing(Store.open(tmp_path / "here.db", write=True)) as store:
        assert not store.notes
        assert store.file == store.path
    # The file server, where the same disk is a local one.
    table.write_text("/dev/vda / ext4 rw 0 0\n")
    with closing(Store.open(tmp_path / "net" / "runs.db", write=True)) as store:
        assert len(store.query("select * from runs")) == 1
        assert "is there" in store.notes[0]
    monkeypatch.setenv("DAMBENCH_DISK", "nfs")
    with pytest.raises(BadInput, match="local, network, or not set"):
        Store.open(tmp_path / "here.db")


def test_where_the_cache_is_on_a_network_disk_too_the_index_is_elsewhere(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "filer:/x {} nfs4 rw 0 0\n"
    table = table_in(tmp_path)
    monkeypatch.setattr(journal, "disk_of", disk_by(table))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    table.write_text("/dev/vda / ext4 rw 0 0\n" + line.format((tmp_path / "cache").resolve()))
    place = journal.index_path(path).parent
    assert place == tmp_path / "tmp" / f"dambench-{os.getuid()}"
    assert place.stat().st_mode & 0o777 == 0o700
    # What somebody else has put there is not used.
    place.rmdir()
    (tmp_path / "elsewhere").mkdir()
    place.symlink_to(tmp_path / "elsewhere")
    table.write_text(table.read_text() + line.format("/dev/shm"))
    with pytest.raises(BadInput, match="no local one was found for its index"):
        journal.index_path(path)


def test_what_is_told_is_what_an_ordinary_database_tells(
    path: Path, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same words at the same times, in both; and again in an index made anew."""
    shared = host("a")
    with monkeypatch.context() as local:
        local.setenv("DAMBENCH_DISK", "local")
        plain = Store.open(tmp_path / "plain.db", write=True)
    for store in (plain, shared):
        ticks = iter(range(10**6))
        names = iter(range(10**6))
        with monkeypatch.context() as same:
            same.setattr(records, "now", lambda ticks=ticks: f"2026-01-01T00:00:00.{next(ticks):06}+00:00")
            same.setattr("secrets.token_hex", lambda n, names=names: f"{next(names):032x}")
            same.setattr(records, "new_id", lambda names=names: f"a{next(names):05}")
            for seed, accuracy in enumerate([0.9, 0.8, 0.91]):
                add(store, config(seed=seed), [accuracy, 0.7])
                add(store, config("random", seed=seed), [accuracy / 2])
            add(store, config(seed=8), [0.1], end=failed())
            run = store.create(config(seed=9), CARD, "a name", ["a", "b"], _process("a"))
            _half(run, store)
            _say(
                store, run, Sampled(seconds=1.0, gpu_watts=2.5), Progressed(phase="distil", done=2, total=3), stopped()
            )
            store.edit(run, "stop_asked", 1)
            _say(store, run, _resumed(2), *list(words(config()))[4:], attempt=2)
            store.edit(add(store, config(seed=10)), "deleted_at", "2026-01-02")
    # A resumed run has numbers of words that were only progress: they are not kept anywhere.
    assert len(_told(plain)["events"]) > 50
    told = _told(shared)
    assert _anew(shared, tmp_path) == told
    for each in (told, ordinary := _told(plain)):
        for row in each["runs"]:
            del row["stop_asked"]  # of an attempt that is over
    assert told == ordinary
    axes = (("method",), ("dataset", "ipc"))
    report = to_markdown(leaderboard(plain, *axes), *axes)
    assert "7 finished runs" in report
    assert to_markdown(leaderboard(shared, *axes), *axes) == report
    plain.close()


def test_two_hosts_see_each_others_runs(host: Host) -> None:
    a, b = host("a"), host("b")
    assert a.file != b.file
    first, second = a.create(config(seed=1), CARD), b.create(config(seed=2), CARD)
    _half(first, a)
    _half(second, b)
    for store in (a, b):
        store.refresh()
        assert {(row["id"], row["state"], row["done"]) for row in store.query("select * from runs")} == {
            (first, "running", 2),
            (second, "running", 2),
        }
    heard = max(number for number, _ in b.tail(first))
    _say(a, first, *list(words(config(seed=1)))[5:])
    b.refresh()
    assert [type(event).__name__ for _, event in b.tail(first, heard)] == ["Snapshot", "Measured", "Finished"]
    assert _told(a)["scores"] == _told(b)["scores"]


def test_a_look_at_what_has_not_changed_writes_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = host("a"), host("b", write=False)
    add(a, config())
    b.refresh()
    monkeypatch.setattr("dambench.store.journal_store.transaction", None)
    a.refresh()
    b.refresh()
    assert b.query("select state from runs") == [{"state": "finished"}]


def test_an_old_look_takes_nothing_away(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = host("a"), host("a")
    seen: list[str] = []
    real = JournalStore._is_behind

    def meanwhile(store: JournalStore, there: dict[str, journal.FileState], base: str) -> bool:
        if not seen:  # between the look and the transaction
            seen.append("")
            seen.append(add(first, config(seed=2)))
        return real(store, there, base)

    add(host("b"), config(seed=1))
    monkeypatch.setattr(JournalStore, "_is_behind", meanwhile)
    second.refresh()
    assert second.run(seen[1]).state == "finished"


def test_a_line_that_is_not_whole_waits(host: Host, path: Path, tmp_path: Path) -> None:
    a, b = host("a"), host("b")
    add(a, config())
    (file,) = journal.folder(path).iterdir()
    content = file.read_bytes()
    whole = _told(a)
    ends = [n + 1 for n, byte in enumerate(content) if byte == 10]
    file.unlink()
    b.refresh()
    assert not b.query("select * from runs")  # what is gone is gone
    for end in sorted({*ends[:-1], *(n - 1 for n in ends), *(n + 7 for n in ends[:-1]), len(content)}):
        file.write_bytes(content[:end])
        b.refresh()
        lines = content[: content.rfind(b"\n", 0, end) + 1].splitlines()
        kept = sum(b'"kind":"progressed"' not in line for line in lines[1:])
        assert b.query("select count(*) n from events") == [{"n": kept}]
        assert _anew(b, tmp_path) == _told(b)
    assert _told(b) == whole
    assert not b.query("select * from journal_files where unread > 0")


def test_what_is_there_twice_counts_once(host: Host, path: Path, tmp_path: Path) -> None:
    a, b = host("a"), host("b")
    run = a.create(config(), CARD, tags=["t"])
    _half(run, a)
    b.refresh()
    (file,) = journal.folder(path).iterdir()
    lines = file.read_bytes().splitlines(keepends=True)
    with file.open("ab") as more:
        more.writelines(lines)
    before = _told(b)
    b.refresh()
    assert _told(b) == before == _anew(b, tmp_path)
    assert not b.query("select * from journal_files where unread > 0")


def test_lines_that_cannot_be_read_are_passed_over_counted_and_tried_again(
    host: Host, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = host("a")
    run = a.create(config(), CARD)
    (file,) = journal.folder(path).iterdir()
    other = EventLogged(uid="f" * 32, attempt=1, sequence=9, at="x", event=Stepped(iteration=1, losses={}, seconds=0.0))
    huge = msgspec.structs.replace(other, uid=file.name[:32], event=Stepped(iteration=2**70, losses={}, seconds=0.0))
    hostile = [
        b"\xff\xfe",
        b"{" * 5000,
        b"null",
        b'{"line":"told"}',
        msgspec.json.encode(other),
        msgspec.json.encode(huge),
    ]
    with file.open("ab") as more:
        more.write(b"\n".join(hostile) + b"\n")
    (journal.folder(path) / f"edits-{'0' * 32}.jsonl").write_bytes(b"nonsense\n")
    (journal.folder(path) / "../runs.db.d/notes.txt").write_text("somebody's own")
    _half(run, a)
    assert len(list(a.tail(run))) == 5
    with closing(host("a", write=False)) as again:
        assert again.notes == [f"7 lines of {str(journal.folder(path))!r} cannot be read by this dambench."]
        assert len(list(again.tail(run))) == 5
    # A newer dambench may know more words.
    monkeypatch.setattr("dambench.store.records._decoder", _Lenient())
    with closing(host("a", write=False)) as newer:
        assert newer.notes[0].startswith("6 lines")


class _Lenient:
    def decode(self, raw: bytes) -> object:
        if raw == b"nonsense":
            return RunEdited(uid="f" * 32, at="x", what="stop_asked", value=1)
        return msgspec.json.decode(raw, type=records.LogRecord)


def test_files_may_be_seen_in_any_order(host: Host, path: Path, tmp_path: Path) -> None:
    a, b = host("a"), host("b")
    run = a.create(config(), CARD)
    _half(run, a)
    _say(a, run, stopped())
    _say(a, run, _resumed(2), *list(words(config()))[4:6], attempt=2)
    _say(a, run, _resumed(3, 2), Finished(set_sha256="s", costs=costs()), attempt=3)
    a.edit(run, "deleted_at", "2026")
    whole = _told(a)
    folder = journal.folder(path)
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert len(files) == 4
    for file in folder.iterdir():
        file.unlink()
    for name in sorted(
        files, key=lambda name: (journal.is_edits_file(name), name), reverse=True
    ):  # edits, then 3, 2, 1
        b.refresh()
        assert not b.query("select * from runs")
        (folder / name).write_bytes(files[name])
    b.refresh()
    assert _told(b) == whole == _anew(b, tmp_path)
    assert b.query("select attempt, state, deleted_at from runs") == [
        {"attempt": 3, "state": "finished", "deleted_at": "2026"}
    ]


def test_of_two_that_go_on_with_a_run_at_once_one_does(host: Host, tmp_path: Path) -> None:
    a, b, c = host("a"), host("b"), host("c")
    run = a.create(config(), CARD, process=_process("a"))
    _half(run, a)
    for store in (b, c):
        store.refresh()
    _say(b, run, _resumed(2, name="b"), attempt=2)
    with pytest.raises(AttemptSuperseded):
        _say(c, run, _resumed(2, name="c"), attempt=2)
    c.refresh()
    assert c.run(run).host == "b"
    # The first process has only been silent, and finds out at its next word.
    with pytest.raises(AttemptSuperseded):
        _say(a, run, Stepped(iteration=9, losses={}, seconds=1.0))
    _say(b, run, Stepped(iteration=2, losses={}, seconds=1.0), attempt=2)
    a.refresh()
    assert _told(a) == _told(b) == _anew(a, tmp_path)


def test_what_was_said_after_another_had_gone_on_does_not_hold_whoever_sees_it_first(
    host: Host, path: Path, tmp_path: Path
) -> None:
    a, b, c = host("a"), host("b"), host("c")
    run = a.create(config(), CARD)
    _half(run, a)
    b.refresh()
    uid = a.run(run).uid
    # As seen by `a`, whose look at the folder is old: the second file is not there yet.
    _say(a, run, Stepped(iteration=8, losses={"x": 1.0}, seconds=1.0), failed())
    c.refresh()
    assert c.run(run).state == "failed"
    late = (journal.folder(path) / f"{uid}.1.jsonl").read_bytes()
    (journal.folder(path) / f"{uid}.1.jsonl").write_bytes(b"".join(late.splitlines(keepends=True)[:-2]))
    second = msgspec.structs.replace(_resumed(2))
    _say(b, run, second, Stepped(iteration=2, losses={"x": 2.0}, seconds=1.0), attempt=2)
    (journal.folder(path) / f"{uid}.1.jsonl").write_bytes(late)
    for store in (a, b, c):
        store.refresh()
        assert [e.iteration for _, e in store.tail(run) if isinstance(e, Stepped)] == [1, 2]
        assert (store.run(run).state, store.run(run).attempt) == ("running", 2)
        assert _told(store) == _anew(store, tmp_path)


def test_another_host_can_ask_a_run_to_stop(host: Host) -> None:
    a, b = host("a"), host("b")
    run = a.create(config(), CARD)
    _half(run, a)
    b.refresh()
    assert not a.beat(run, 1)
    b.edit(run, "stop_asked", 1)
    assert a.beat(run, 1)
    _say(a, run, stopped())
    b.refresh()
    _say(b, run, _resumed(2), attempt=2)
    assert not b.beat(run, 2)  # that was about the first attempt


def test_the_last_of_two_changes_holds_on_every_host(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = host("a"), host("b")
    run = add(a, config())
    b.refresh()
    for store, at, value in ((a, "2026-01-02", "later"), (b, "2026-01-01", "earlier")):
        with monkeypatch.context() as then:
            then.setattr(records, "now", lambda at=at: at)
            store.edit(run, "deleted_at", value)
    for store in (a, b):
        store.refresh()
        assert store.run(run).deleted_at == "later"


@pytest.mark.parametrize("how", ["removed", "renamed", "replaced"])
def test_a_journal_that_goes_away_is_noticed_and_nothing_of_its_runs_is_lost(
    how: str, host: Host, path: Path, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as local:
        local.setenv("DAMBENCH_DISK", "local")
        with closing(Store.open(path, write=True)) as beside:
            known = add(beside, config(seed=7))
    a, b = host("a"), host("b", write=False)
    earlier = add(a, config("random"))
    run = a.create(config(), CARD)
    b.refresh()
    place, said = journal.folder(path), list(words(config()))

    def spoken() -> Iterator[AnyEvent]:
        yield from said[:4]
        shutil.rmtree(place) if how == "removed" else place.rename(path.with_name("elsewhere"))
        if how == "replaced":
            place.mkdir()
        yield from said[4:]

    with pytest.raises(KeptElsewhere, match="dambench db merge") as told:
        list(a.record(run, spoken()))
    for store in (a, b):
        with pytest.raises(Gone, match=r"journal .* is not there any more"):
            store.refresh()
    with pytest.raises(Gone):
        a.beat(run, 1)
    with pytest.raises(Gone):
        a.edit(earlier, "note", "a note")
    assert list(place.iterdir()) == [] if how == "replaced" else not place.exists()
    assert {row["id"] for row in b.query("select id from runs")} == {known, earlier, run}
    kept = Path(str(told.value).split("'")[3])
    with pytest.MonkeyPatch.context() as local:
        local.setenv("DAMBENCH_DISK", "local")
        with closing(Store.open(tmp_path / "merged.db", write=True)) as merged:
            assert {run, earlier, known} <= set(merge(merged, kept).added)
            assert merged.run(run).state == "finished"
            assert [event for _, event in merged.tail(run)][-1] == said[-1]


def test_of_two_that_replace_a_note_at_once_one_is_told_of_the_other(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAMBENCH_DISK", "local")
    store, other = (Store.open(tmp_path / "local.db", write=True) for _ in range(2))
    monkeypatch.setenv("DAMBENCH_DISK", "network")
    for mine, theirs in ((store, other), (host("a"), host("a")), (host("a"), host("b"))):
        run = add(mine, config())
        begun = type(mine).decide

        def meanwhile(self: Store, *given: Any, begun: Any = begun, theirs: Store = theirs, run: str = run) -> None:
            monkeypatch.setattr(type(self), "decide", begun)
            theirs.edit(run, "note", "theirs", was="")  # all of it, after the other has looked
            begun(self, *given)

        monkeypatch.setattr(type(mine), "decide", meanwhile)
        with pytest.raises(EditConflict, match="theirs"):
            mine.edit(run, "note", "mine", was="")
        mine.refresh()
        assert mine.run(run).note == "theirs"
        mine.edit(run, "note", "mine", was="theirs")
    store.close()
    other.close()


def test_a_sign_of_life_reaches_other_hosts(host: Host, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = host("a"), host("b")
    run = a.create(config(), CARD, process=_process("elsewhere"))
    _half(run, a)
    (file,) = journal.folder(path).iterdir()
    b.refresh()
    row = b.run(run)
    assert processes.state(row) == "running"
    monkeypatch.setattr(processes, "_heard", {})  # as another process, which looks at it for the first time
    assert processes.state(msgspec.structs.replace(row, beat_at="2026-01-01T00:00:00.000+00:00")) == "lost"
    os.utime(file, (2e9, 2e9))
    b.refresh()
    assert b.run(run).beat_at.startswith("2033-05-18")
    a.beat(run, 1)
    assert file.stat().st_mtime < 2e9
    _say(a, run, Finished(set_sha256="s", costs=[]))
    b.refresh()
    before = b.run(run).beat_at
    os.utime(file, (2.1e9, 2.1e9))
    b.refresh()
    assert b.run(run).beat_at == before  # a run that is over has no signs of life


def test_a_run_of_the_database_beside_it_can_be_resumed_and_deleted(
    path: Path, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as local:
        local.setenv("DAMBENCH_DISK", "local")
        with closing(Store.open(path, write=True)) as first:
            finished = add(first, config(seed=1))
            run = first.create(config(), CARD)
            _half(run, first)
            _say(first, run, stopped())
    before = path.read_bytes()
    a, b = host("a"), host("b")
    _say(a, run, _resumed(2), *list(words(config()))[4:], attempt=2)
    a.edit(finished, "deleted_at", "2026")
    b.refresh()
    for store in (a, b):
        assert (store.run(run).state, store.run(run).attempt) == ("finished", 2)
        assert store.run(finished).deleted_at == "2026"
    assert _told(a) == _told(b) == _anew(a, tmp_path)
    assert path.read_bytes() == before
    # A newer copy of that database, as `git pull` brings one.
    with monkeypatch.context() as local:
        local.setenv("DAMBENCH_DISK", "local")
        with closing(Store.open(path, write=True)) as first:
            more = add(first, config(seed=2))
    with closing(host("a")) as again:
        assert again.run(more).state == "finished"
        assert again.run(run).attempt == 2
        assert again.run(finished).deleted_at == "2026"
        assert _told(again) == _anew(again, tmp_path)
    path.unlink()
    b.refresh()
    assert not b.query("select * from runs where id in (?, ?)", finished, more)


def test_a_database_that_is_being_written_is_copied_later(
    path: Path, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as local:
        local.setenv("DAMBENCH_DISK", "local")
        with closing(Store.open(path, write=True)) as first:
            run = first.create(config(), CARD)
            _half(run, first)
    a = host("a")
    _say(a, run, _resumed(2), attempt=2)
    real = shutil.copyfile

    def meanwhile(source: Path, target: Path) -> None:
        real(source, target)
        os.utime(source, ns=(0, source.stat().st_mtime_ns + 1))

    with monkeypatch.context() as busy:
        busy.setattr("shutil.copyfile", meanwhile)
        os.utime(path, (1e9, 1e9))
        _say(a, run, Stepped(iteration=2, losses={}, seconds=1.0), attempt=2)
        assert a.run(run).attempt == 2
        with closing(host("b", write=False)) as b:
            assert not b.query("select * from runs")
    b = host("b")
    a.refresh()
    assert b.run(run).done == a.run(run).done == 2
    assert _told(a) == _told(b)


def test_another_folder_at_the_same_place_has_another_index(path: Path) -> None:
    # (Two containers may call different disks the same.)
    journal.folder(path).mkdir()
    first = journal.index_path(path)
    journal.folder(path).rename(path.with_name("away"))
    journal.folder(path).mkdir()
    assert journal.index_path(path) != first
    assert journal.index_path(path) == journal.index_path(path)


def test_a_foreign_file_beside_the_journal_is_refused(path: Path) -> None:
    path.write_text("not a database " * 20)
    for write in (False, True):
        with pytest.raises(BadInput, match="not a database of dambench"):
            Store.open(path, write=write)
    with pytest.raises(BadInput, match="not a database of dambench"):
        stored.check(path)
    assert path.read_text() == "not a database " * 20


def test_nothing_is_made_by_looking(path: Path) -> None:
    with pytest.raises(BadInput, match="There is no database"):
        Store.open(path)
    assert not stored.exists(path)
    stored.check(path)
    assert os.listdir(path.parent) == []
    with pytest.raises(BadInput, match="there is no folder"):
        Store.open(path / "no" / "x.db", write=True)


def test_a_journal_that_may_not_be_written_is_refused_before_a_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.access
    monkeypatch.setattr(
        "dambench.store.journal.os.access",
        lambda where, mode: real(where, mode) and Path(where) != path.parent,
    )
    with pytest.raises(BadInput, match="may not be written"):
        stored.check(path)


@pytest.mark.parametrize("failing", ["write", "fsync"])
def test_lines_that_could_not_be_written_are_not_there(
    host: Host, path: Path, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = host("a")
    run = a.create(config(), CARD)
    (file,) = journal.folder(path).iterdir()
    before = file.read_bytes()
    real = os.write
    room = iter([30])

    def full(handle: int, content: bytes) -> int:
        left = next(room, 0)
        if not left:
            raise OSError(28, "No space left on device")
        return real(handle, content[:left])

    def broken(handle: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as bad:
        bad.setattr("dambench.store.journal.os.write", full) if failing == "write" else bad.setattr(
            "dambench.store.journal.os.fsync", broken
        )
        with pytest.raises(NotKept, match="No space" if failing == "write" else "Input/output"):
            _half(run, a)
    assert file.read_bytes() == before
    _half(run, a)
    assert len(list(a.tail(run))) == 5


def test_disks_without_links_know_who_was_first_too(host: Host, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(source: str, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    a, b = host("a"), host("b")  # whose indexes are on other disks
    monkeypatch.setattr("dambench.store.journal.os.link", none)
    run = a.create(config(), CARD)
    _half(run, a)
    b.refresh()
    _say(b, run, _resumed(2), attempt=2)
    with pytest.raises(AttemptSuperseded):
        _say(a, run, _resumed(2), attempt=2)
    assert not [name for name in os.listdir(journal.folder(path)) if name.startswith(".")]


def test_an_answer_that_was_lost_does_not_make_a_run_somebody_elses(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = host("a")
    real = os.link

    def twice(source: str, target: Path) -> None:
        real(source, target)
        real(source, target)

    monkeypatch.setattr("dambench.store.journal.os.link", twice)
    run = a.create(config(), CARD)
    assert a.run(run).state == "waiting"


def test_only_the_latest_progress_of_a_batch_is_written(host: Host, path: Path) -> None:
    a = host("a")
    run = a.create(config(), CARD)
    _say(a, run, *[Progressed(phase="evaluate", done=n, total=99) for n in range(99)])
    (file,) = journal.folder(path).iterdir()
    assert file.read_bytes().count(b"progressed") == 1
    assert a.run(run).done == 98


def test_an_index_that_is_removed_is_made_again(host: Host, tmp_path: Path) -> None:
    a = host("a")
    add(a, config(), [0.3])
    told = _told(a)
    a.close()
    a.file.unlink()
    with closing(host("a", write=False)) as again:
        assert _told(again) == told


def test_scores_that_were_said_again_count_once(host: Host, tmp_path: Path) -> None:
    a = host("a")
    run = a.create(config(), CARD)
    said = list(words(config(), [0.5]))
    _say(a, run, *said[:-1])
    (evaluated,) = [event for event in said if isinstance(event, Measured)]
    _say(a, run, _resumed(2, 2), evaluated, said[-1], attempt=2)
    assert len(a.query("select * from scores")) == 1
    assert _anew(a, tmp_path) == _told(a)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_in_whatever_order_every_host_comes_to_know_the_same(
    host: Host, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    hosts = [host(name) for name in "abc"]
    speakers: dict[str, tuple[Store, int]] = {}  # of each run the last process that we know to have begun
    for _ in range(40):
        store = chance.choice(hosts)
        known = store.query("select id, attempt, state from runs")
        match chance.choice(["create", "say", "say", "say", "resume", "edit", "refresh", "zombie"]):
            case "create":
                run = store.create(config(seed=chance.randrange(99)), CARD)
                speakers[run] = store, 1
                _half(run, store)
            case "say" if speakers:
                run = chance.choice(list(speakers))
                speaker, attempt = speakers[run]
                events = chance.sample(list(words(config()))[2:], 2)
                said = [*events, Sampled(seconds=1.0), stopped()][: chance.randrange(1, 5)]
                _say(speaker, run, *said, attempt=attempt)
            case "resume" if known:
                row = chance.choice(known)
                with suppress(AttemptSuperseded):  # it does not know yet that another one has
                    _say(store, row["id"], _resumed(row["attempt"] + 1), attempt=row["attempt"] + 1)
                    speakers[row["id"]] = store, row["attempt"] + 1
            case "zombie" if known:
                row = chance.choice(known)
                if speakers[row["id"]][1] > row["attempt"]:
                    with pytest.raises(AttemptSuperseded):
                        _say(store, row["id"], failed(), attempt=row["attempt"])
            case "edit" if known:
                store.edit(chance.choice(known)["id"], "deleted_at", str(chance.randrange(9)))
            case _:
                store.refresh()
    for store in hosts:
        store.refresh()
    told = [_told(store) for store in hosts]
    assert told[0]["runs"]
    assert told[0] == told[1] == told[2] == _anew(hosts[0], tmp_path)
    assert not hosts[0].query("select * from journal_files where unread > 0")
