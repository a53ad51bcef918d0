import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from dambench.cli.app import run_cli
from dambench.core import files
from dambench.core.errors import BadInput
from dambench.core.events import Checkpointed, Finished, Measured, Process, Snapshot
from dambench.report.formats.markdown import render as to_markdown
from dambench.store.leaderboard import leaderboard
from dambench.store.rows import RunRow
from dambench.store.runs import Store
from dambench.store.upkeep import Finding, back_up, check, migrate, purge, waste
from tests.ledger import CARD, SCHEMAS, add, config, failed, older, words


def _never(row: RunRow) -> bool:
    return False


def _with_set(store: Store, content: bytes, seed: int = 0) -> tuple[str, Path]:
    """A run whose set is a file here."""
    path = files.set_path(files.digest(content))
    files.write_whole(path, content)
    run = config("dm", seed=seed)
    run_id = store.create(run, CARD)
    names: dict[type, str] = {Snapshot: "sha256", Measured: "set_sha256", Finished: "set_sha256"}
    said = (
        msgspec.structs.replace(event, **{names[type(event)]: path.stem}) if type(event) in names else event
        for event in words(run)
    )
    list(store.record(run_id, said))
    return run_id, path


def _with_checkpoint(store: Store, content: bytes, seed: int, log: str = "") -> tuple[str, Path]:
    """A run that failed, and could go on from a file here."""
    run = config("dm", seed=seed)
    run_id = store.create(run, CARD, process=Process(host="", boot="", pid=0, started=0, log=log))
    path = files.run_folder(store.run(run_id).uid) / f"{files.digest(content)}.safetensors"
    files.write_whole(path, content)
    kept = Checkpointed(iteration=1, sha256=path.stem, size_bytes=len(content), seconds=0.1)
    list(store.record(run_id, iter([*list(words(run))[:3], kept, failed()])))
    return run_id, path


def _states(found: list[Finding]) -> dict[str, list[str]]:
    states: dict[str, list[str]] = {}
    for finding in found:
        states.setdefault(finding.what, []).append(finding.state)
    return states


def test_a_database_whose_files_are_all_here_is_whole(store: Store) -> None:
    _with_set(store, b"a set")
    _with_checkpoint(store, b"a checkpoint", 1)
    files.write_whole(files.data_folder() / "digits-1.safetensors", b"data")
    files.write_whole(files.data_folder() / "digits-1.json", f'{{"sha256": "{files.digest(b"data")}"}}'.encode())
    card = msgspec.structs.replace(CARD, sha256=files.digest(b"data"))
    add(store, config("whole"), card=card)
    store.db.conn.execute("update artifacts set sha256 = ? where run = 3", [card.sha256])
    states = _states(check(store))
    assert states["database"] == ["ok"]
    assert states["results"] == ["ok"]
    assert states["sets"] == ["ok"]
    assert states["checkpoints"] == ["ok"]
    assert states["data"] == ["ok", "missing"]  # the other runs' data were never here


def test_what_is_not_on_this_machine_is_missing_and_what_is_not_as_its_name_says_is_damaged(store: Store) -> None:
    run_id, path = _with_set(store, b"a set")
    halted, checkpoint = _with_checkpoint(store, b"a checkpoint", 1)
    path.write_bytes(b"a set?")
    checkpoint.write_bytes(b"")
    add(store, config("dm", seed=2))
    found = check(store)
    states = _states(found)
    assert states["sets"] == ["damaged", "ok", "missing"]
    assert states["checkpoints"] == ["damaged", "ok"]
    told = [finding.detail for finding in found if finding.state == "damaged"]
    assert run_id in told[0]
    assert str(path) in told[0]
    assert halted in told[1]


def test_a_page_that_was_written_over_is_found(tmp_path: Path) -> None:
    path = tmp_path / "torn.db"
    with closing(Store.open(path, write=True)) as store:
        for seed in range(40):
            add(store, config("dm", seed=seed))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 4096] = b"\xff" * 4096
    path.write_bytes(content)
    with closing(Store.open(path)) as store:
        assert "damaged" in _states(check(store))["database"]


def test_a_row_that_belongs_to_nothing_is_found(store: Store) -> None:
    add(store, config("dm"))
    store.db.conn.execute("pragma foreign_keys = off")
    store.db.conn.execute("insert into tags values ('x', 77)")
    (finding,) = (finding for finding in check(store) if finding.what == "database")
    assert finding.state == "damaged"
    assert "tags" in finding.detail


@pytest.mark.parametrize(
    "change",
    [
        "update measurements set value = 0.99 where repeat = 0 and metric = 'accuracy'",
        "delete from measurements where repeat = 0 and metric = 'loss'",
        "delete from evaluations where repeat = 1",
        "update evaluations set final = 0",
        "insert into evaluations select run, 7, evaluator, subject, repeat, protocol_sha256, 1, 1, 1, set_sha256 "
        "from evaluations where repeat = 0",
        "insert into measurements select run, iteration, evaluator, subject, repeat, 'another', 0.5, 'finite' "
        "from evaluations where repeat = 0",
        "update runs set config_sha256 = 'another'",
        "update runs set set_sha256 = 'another'",
    ],
)
def test_results_that_were_changed_are_found_and_in_no_table(store: Store, change: str) -> None:
    sound = add(store, config("random"), [0.25])
    changed = add(store, config("dm"), [0.5, 0.75])
    assert to_markdown(leaderboard(store), ("method",), ("dataset", "ipc")).count("dm") > 1
    store.db.conn.execute(f"{change} {'and' if 'where' in change else 'where'} {_only(change, store, changed)}")
    (finding,) = (f for f in check(store) if f.what == "results" and f.state == "damaged")
    assert changed in finding.detail
    board = leaderboard(store)
    assert board.damaged == [changed]
    assert {score.run for table in board.tables for cell in table.cells.values() for score in cell.scores} == {sound}
    assert {cost.method for cost in board.costs} == {"random"}
    assert f"dambench db check\\`: {changed}" in to_markdown(board, ("method",), ("dataset", "ipc"))


def _only(change: str, store: Store, run: str) -> str:
    number = store.run(run).number
    return f"number = {number}" if change.startswith("update runs") else f"run = {number}"


def test_runs_that_finished_before_there_were_checksums_are_taken_as_they_are(tmp_path: Path) -> None:
    older(tmp_path / "old.db", 3)
    with closing(Store.open(tmp_path / "old.db")) as store:
        assert leaderboard(store).damaged == []
        (finding,) = (finding for finding in check(store) if finding.what == "results")
        assert finding.state == "ok"
        assert "2 without a checksum" in finding.detail


def test_a_run_that_scored_nothing_has_a_checksum_too(store: Store) -> None:
    run_id = store.create(config("dm"), CARD)
    list(store.record(run_id, (event for event in words(config("dm")) if not isinstance(event, Measured))))
    assert len(store.run(run_id).results_sha256) == 64
    assert leaderboard(store).damaged == []


def test_a_backup_is_one_file_that_is_read_anywhere_and_holds_all(store: Store, tmp_path: Path) -> None:
    run_id = add(store, config("dm"))
    waiting = store.create(config("dm", seed=1), CARD)
    with closing(sqlite3.connect(store.path, isolation_level=None)) as writer:
        writer.execute("begin immediate")  # in the middle of writing, of which nothing is kept
        writer.execute("update runs set name = 'half'")
        copy = back_up(store.path, None)
        assert copy == tmp_path / "runs.backup1.db"
        assert back_up(store.path, None) == tmp_path / "runs.backup2.db"
        writer.execute("rollback")
    assert copy.read_bytes()[18:20] == b"\x01\x01"  # rollback-journal mode
    with closing(sqlite3.connect(f"file:{copy}?immutable=1", uri=True)) as plain:
        assert plain.execute("select id, name from runs order by number").fetchall() == [(run_id, ""), (waiting, "")]
    with closing(Store.open(copy)) as kept:
        assert list(kept.tail(run_id)) == list(store.tail(run_id))
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".new")]


def test_a_backup_can_leave_out_the_pictures_of_sets_on_their_way(store: Store, tmp_path: Path) -> None:
    run_id = add(store, config("dm"))
    store.db.conn.execute("insert into previews select number, 1, zeroblob(100000) from runs")
    small = back_up(store.path, None, pictures=False)
    assert back_up(store.path, tmp_path / "all.db").stat().st_size > small.stat().st_size + 100_000
    assert small.read_bytes()[18:20] == b"\x01\x01"
    with closing(Store.open(small)) as kept:
        assert kept.query("select * from previews") == []
        assert kept.preview(run_id) == store.preview(run_id)
        assert list(kept.tail(run_id)) == list(store.tail(run_id))
        assert leaderboard(kept).damaged == []


def test_a_backup_goes_over_no_file_unless_it_is_said_so(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "there.db"
    target.write_text("mine")
    with pytest.raises(BadInput, match="is there already"):
        back_up(store.path, target)
    assert target.read_text() == "mine"
    assert back_up(store.path, target, overwrite=True) == target
    Store.open(target).close()
    with pytest.raises(BadInput, match="is there already"):
        back_up(store.path, store.path, overwrite=True)
    with pytest.raises(BadInput, match="cannot be written"):
        back_up(store.path, tmp_path / "no" / "folder.db")
    with pytest.raises(BadInput, match="No such file"):
        back_up(tmp_path / "none.db", None)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_backup_keeps_the_schema(schema: int, tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    older(path, schema)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert migrate(back_up(path, None)).old == schema
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest


def test_purging_removes_the_trash_for_good_and_nothing_that_another_run_names(store: Store) -> None:
    alone, alone_set = _with_set(store, b"of one")
    first, shared_set = _with_set(store, b"of two", seed=1)
    second, _ = _with_set(store, b"of two", seed=2)
    log = files.log_folder() / "x.log"
    files.write_whole(log, b"words")
    halted, checkpoint = _with_checkpoint(store, b"deleted", 3, log=str(log))
    resumable, kept = _with_checkpoint(store, b"kept", 4)
    for run in (alone, first, halted):
        store.delete(run)
    planned = waste(store, _never)
    assert store.run(alone).deleted_at
    assert alone_set.exists()
    found = purge(store, _never)
    assert found == planned
    assert found.runs == [alone, first, halted]
    assert set(found.paths) == {alone_set, log, checkpoint}
    assert found.size_bytes == len(b"of one") + len(b"words") + len(b"deleted")
    assert [row["id"] for row in store.query("select id from runs order by number")] == [second, resumable]
    assert not any(path.exists() for path in (alone_set, log, checkpoint.parent))
    assert shared_set.exists()
    assert kept.exists()
    assert purge(store, _never).paths == []


def test_what_a_run_in_the_trash_names_elsewhere_is_not_removed(store: Store, tmp_path: Path) -> None:
    """A run that came from another database may name any file."""
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(b"mine")
    data = files.data_folder() / "digits-1.safetensors"
    files.write_whole(data, b"data")
    run_id = add(store, config("dm"))
    link = files.log_folder() / "link.log"
    link.parent.mkdir(parents=True)
    link.symlink_to(mine)
    files.can_keep_sets()
    relative = os.path.relpath(mine.with_suffix(""), files.home() / "sets")
    with pytest.raises(BadInput, match="is not the SHA-256"):
        files.set_path(relative)
    store.db.conn.execute("update artifacts set sha256 = ?", [relative])
    assert (files.home() / "sets" / f"{relative}.safetensors").exists()
    for log in (str(mine), str(files.log_folder() / ".." / ".." / "mine.log"), str(link)):
        store.db.conn.execute("update runs set log = ?", [log])
        store.delete(run_id)
        assert waste(store, _never).paths == []
    assert purge(store, _never).runs == [run_id]
    assert mine.exists()
    assert data.exists()


def test_a_log_that_two_runs_share_stays_as_long_as_one_of_them(store: Store) -> None:
    log = files.log_folder() / "x.log"
    files.write_whole(log, b"words")
    first, second = (_with_checkpoint(store, b"x", seed, log=str(log))[0] for seed in (1, 2))
    store.delete(first)
    purge(store, _never)
    assert log.exists()
    store.delete(second)
    purge(store, _never)
    assert not log.exists()


def test_a_run_in_the_trash_whose_process_goes_on_is_left(store: Store) -> None:
    run_id = add(store, config("dm"))
    store.delete(run_id)
    found = purge(store, lambda row: bool(row.id == run_id))
    assert (found.runs, found.alive) == ([], [run_id])
    assert store.run(run_id)


def test_checkpoints_of_finished_runs_are_swept_and_those_of_other_databases_only_if_it_is_said(store: Store) -> None:
    run_id = add(store, config("dm"))
    finished = files.run_folder(store.run(run_id).uid) / "left.safetensors"
    others = files.run_folder("0123456789abcdef" * 2) / "x.safetensors"
    strange = files.home() / "runs" / "notes" / "x.safetensors"
    for path in (finished, others, strange):
        files.write_whole(path, b"x")
    found = purge(store, _never)
    assert (found.paths, found.unknown) == ([finished], [others.parent])
    assert not finished.parent.exists()
    assert others.exists()
    assert purge(store, _never, unknown=True).paths == [others]
    assert strange.exists()


def test_broken_off_files_are_swept_once_they_are_a_day_old(store: Store) -> None:
    old, new, named = (files.home() / "sets" / name for name in (".a.1.part", ".b.2.part", "c.part"))
    for path in (old, new, named):
        files.write_whole(path, b"half")
    yesterday = time.time() - 25 * 3600
    for path in (old, named):
        os.utime(path, (yesterday, yesterday))
    assert purge(store, _never).paths == [old]
    assert new.exists()
    assert named.exists()


def test_what_a_killed_bundle_left_is_swept_wherever_it_was_to_be(store: Store, tmp_path: Path) -> None:
    add(store, config("dm"))
    far = tmp_path / "far"
    far.mkdir()
    code = (
        "import os, sys; from pathlib import Path; from dambench.store import bundle, runs;"
        "bundle._needed = lambda store: os._exit(9);"
        "bundle.bundle(runs.Store.open(Path(sys.argv[1])), Path(sys.argv[2]), [])"
    )
    words = [sys.executable, "-c", code, str(store.path), str(far / "all.tar")]
    assert subprocess.run(words, check=False).returncode == 9
    (left,) = far.iterdir()
    (note,) = files.staged()
    assert purge(store, _never).paths == []
    yesterday = time.time() - 25 * 3600
    os.utime(left, (yesterday, yesterday))
    assert purge(store, _never).paths == [note, left / "content" / "runs.db"]
    assert list(far.iterdir()) == []
    assert files.staged() == {}


def test_the_files_of_a_purge_go_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it is cut short, the runs are still in the trash, and the next purge goes on."""
    run_id, path = _with_set(store, b"a set")
    store.delete(run_id)

    def cut(self: Path, missing_ok: bool = False) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", cut)
        with pytest.raises(KeyboardInterrupt):
            purge(store, _never)
    assert store.run(run_id).deleted_at
    assert purge(store, _never).runs == [run_id]
    assert not path.exists()


def test_a_snapshot_of_the_same_set_in_another_run_keeps_its_file(store: Store) -> None:
    first, path = _with_set(store, b"a set")
    other = store.create(config("dm", seed=1), CARD)
    snapshot = next(event for event in words(config("dm")) if isinstance(event, Snapshot))
    store.delete(first)
    list(store.record(other, iter([msgspec.structs.replace(snapshot, sha256=path.stem)])))
    assert purge(store, _never).runs == [first]
    assert path.exists()


def test_what_another_database_needs_is_not_purged_and_that_is_said(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = files.log_folder() / "x.log"
    files.write_whole(log, b"words")
    mine, only = _with_set(store, b"only here")
    both, shared = _with_set(store, b"in both", seed=1)
    evaluated, reused = _with_set(store, b"evaluated in the other", seed=2)
    halted, checkpoint = _with_checkpoint(store, b"goes on in the other", 3, log=str(log))
    away = tmp_path / "away" / "other.db"
    away.parent.mkdir()
    store.db.conn.execute("vacuum into ?", [str(away)])
    with closing(Store.open(away, write=True)) as other:
        other.db.conn.execute("delete from runs where id in (?, ?)", [mine, evaluated])
        run = config("dm", seed=2)
        where = msgspec.structs.replace(run.execution, made=reused.stem)
        other.create(msgspec.structs.replace(run, execution=where), CARD)  # and is killed before it says a word
    for run_id in (mine, both, evaluated, halted):
        store.delete(run_id)
    before = away.read_bytes()
    found = waste(store, _never)
    assert found.paths == [only]
    (kept,) = found.kept.values()
    assert sorted(kept) == sorted([shared, reused, log, checkpoint])
    # One that is not there any more may need anything.
    away.rename(tmp_path / "away.db")
    assert waste(store, _never).paths == []
    assert waste(store, _never).unread == [away]
    (tmp_path / "away.db").rename(away)
    assert run_cli(["db", "purge"]) == 0
    said = capsys.readouterr().err
    assert f"Kept: 4 files, since a run in {str(away)!r} needs them." in said
    assert all(path.exists() for path in (shared, reused, log, checkpoint))
    assert not only.exists()
    assert away.read_bytes() == before


def test_what_only_databases_need_that_are_gone_is_purged_where_it_is_said(store: Store, tmp_path: Path) -> None:
    gone = tmp_path / "gone.db"
    Store.open(gone, write=True).close()
    gone.unlink()
    run_id, path = _with_set(store, b"a set")
    store.delete(run_id)
    assert waste(store, _never).unread == [gone]
    assert purge(store, _never, unknown=True).paths == [path]
    assert waste(store, _never).unread == []


def test_what_was_imported_stays_whichever_run_is_thrown_away(store: Store) -> None:
    marked_run, marked = _with_set(store, b"imported, and made here too")
    files.mark_imported(marked.stem)
    content = b"imported before that was marked"
    path = files.set_path(files.digest(content))
    files.write_whole(path, content)
    used = store.create(config("imported", options={"set": path.stem}), CARD)
    snapshot = next(event for event in words(config("dm")) if isinstance(event, Snapshot))
    list(store.record(used, iter([msgspec.structs.replace(snapshot, sha256=path.stem)])))
    for run_id in (marked_run, used):
        store.delete(run_id)
    found = purge(store, _never)
    assert (found.runs, found.paths) == ([marked_run, used], [])
    assert {name: sorted(paths) for name, paths in found.kept.items()} == {"they were imported": sorted([marked, path])}


@pytest.mark.parametrize("pictures", [True, False], ids=["all", "no pictures"])
@pytest.mark.parametrize("kills", [1, pytest.param(50, marks=pytest.mark.slow)])
def test_a_backup_that_is_killed_is_not_there_by_halves_and_the_next_sweeps_what_it_left(
    store: Store, tmp_path: Path, kills: int, pictures: bool
) -> None:
    add(store, config("dm"))
    if kills > 1:
        store.db.conn.execute("insert into previews select number, 1, zeroblob(20000000) from runs")
    target, draw = tmp_path / "copy.db", random.Random(3)
    for _ in range(kills):
        child = os.fork()
        if child == 0:
            if kills == 1:  # in the midst of it
                os.fchmod = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
            while True:
                back_up(store.path, target, overwrite=True, pictures=pictures)
        time.sleep(draw.uniform(0.0, 0.1) if kills > 1 else 0.0)
        if kills > 1:
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if target.exists():
            with closing(sqlite3.connect(target)) as copy:
                assert copy.execute("pragma integrity_check").fetchone() == ("ok",)
                assert bool(copy.execute("select count(*) from previews").fetchone()[0]) == (pictures and kills > 1)
    left = list(tmp_path.glob(".copy.db.*"))
    for path in left:
        os.utime(path, (0, 0))
    assert bool(left) or kills > 1
    target.unlink(missing_ok=True)
    back_up(store.path, target, pictures=pictures)
    assert list(tmp_path.glob(".copy.db.*")) == []
