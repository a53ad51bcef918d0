import hashlib
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
import sqlite_utils

from dambench.core.errors import BadInput, NotKept
from dambench.core.events import (
    AnyEvent,
    Measured,
    Neighbour,
    Previewed,
    Progressed,
    Resumed,
    Sampled,
    Snapshot,
    Stepped,
    Warned,
)
from dambench.store import database, records
from dambench.store.leaderboard import leaderboard
from dambench.store.runs import NO_PROCESS, Store
from dambench.store.schema import migrations
from dambench.store.tables import PREVIEWS, Tables
from dambench.store.version import APPLICATION_ID, VERSION
from tests import ledger
from tests.ledger import CARD, add, config, words


def _losses(store: Store, columns: str) -> list[tuple[object, ...]]:
    """From the view, as people read it: with a plain connection."""
    with closing(sqlite3.connect(store.path)) as plain:
        return plain.execute(f"select {columns} from losses order by iteration, loss").fetchall()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_run_is_kept_and_told_again_word_for_word(store: Store) -> None:
    run = config()
    said = list(words(run, [0.25, 0.75]))
    run_id = store.create(run, CARD, name="first", tags=["a", "b", "a"])
    assert list(store.record(run_id, iter(said))) == said
    kept = [event for event in said if not isinstance(event, Progressed)]
    told = [event for _, event in store.tail(run_id)]
    bare = [msgspec.structs.replace(e, preview=b"") if isinstance(e, Snapshot) else e for e in kept]
    assert told == bare
    row = store.run(run_id)
    assert (row.state, row.name, row.method, row.ipc, row.seed) == ("finished", "first", "dm", 1, 0)
    assert row.config_sha256 == run.sha256
    assert msgspec.json.decode(row.config, type=type(run)) == run
    assert [r["accuracy"] for r in store.query("select accuracy from scores order by repeat")] == [0.25, 0.75]
    assert [r["tag"] for r in store.query("select tag from tags order by tag")] == ["a", "b"]
    assert store.query("select preview from artifacts")[0]["preview"] == ledger.PNG
    assert store.query("select host, threads from environments") == [{"host": "here", "threads": 2}]
    assert len(store.query("select * from costs")) == 3


def test_a_viewer_reads_on_from_where_it_was(store: Store) -> None:
    run_id = add(store, config())
    numbers = [number for number, _ in store.tail(run_id)]
    assert numbers == sorted(set(numbers))
    assert [number for number, _ in store.tail(run_id, after=numbers[1])] == numbers[2:]


def test_plain_sql_reads_the_losses(store: Store) -> None:
    run_id = add(store, config())
    assert _losses(store, "id, iteration, loss, value, state, seconds") == [
        (run_id, 1, "matching", 2.5, "finite", 0.1),
        (run_id, 2, "matching", 1.25, "finite", 0.2),
    ]


def test_numbers_that_are_none_are_kept_as_states_not_as_unknown(store: Store) -> None:
    run = config()
    run_id = store.create(run, CARD)
    said: list[AnyEvent] = []
    for event in words(run):
        if isinstance(event, Stepped):
            event = msgspec.structs.replace(event, losses={"a": "nan", "b": "-inf", "c": 1.0})
        if isinstance(event, Measured):
            event = msgspec.structs.replace(event, values=event.values | {"loss": "inf"})
        said.append(event)
    list(store.record(run_id, iter(said)))
    assert store.query("select loss, loss_state from scores") == [{"loss": None, "loss_state": "inf"}]
    assert _losses(store, "value, state")[:3] == [(None, "nan"), (None, "-inf"), (1.0, "finite")]


def test_how_a_run_ended_is_in_its_row(store: Store) -> None:
    broken = store.run(add(store, config(seed=1), end=ledger.failed()))
    assert (broken.state, broken.error, broken.traceback) == ("failed", "it broke", "Traceback …")
    halted = store.run(add(store, config(seed=2), end=ledger.stopped()))
    assert (halted.state, halted.error) == ("stopped", "stopped by SIGTERM")
    assert (halted.ended_at or "") >= halted.created_at


def test_what_matters_is_on_disk_before_it_is_handed_on(store: Store, tmp_path: Path) -> None:
    run = config()
    run_id = store.create(run, CARD)
    with closing(Store.open(tmp_path / "runs.db")) as viewer:
        for event in store.record(run_id, words(run)):
            if isinstance(event, Measured):
                assert viewer.query("select count(*) n from scores")[0]["n"] == 1
                assert [type(e).__name__ for _, e in viewer.tail(run_id)].count("Stepped") == 2


def test_progress_is_in_the_runs_row_and_only_the_latest(store: Store) -> None:
    run_id = store.create(config(), CARD)
    said = [Progressed(phase="evaluate", done=n, total=9) for n in range(5)]
    list(store.record(run_id, iter(said)))
    row = store.run(run_id)
    assert (row.phase, row.done, row.total) == ("evaluate", 4, 9)
    assert not list(store.tail(run_id))


SAMPLE = Sampled(
    seconds=1.5,
    gpu_memory_used_bytes=41 * 10**9,
    gpu_memory_total_bytes=80 * 10**9,
    gpu_busy_percent=93,
    gpu_watts=310.5,
    gpu_celsius=71,
    gpu_millijoules=10**12,
    gpu_neighbours=[Neighbour(pid=7, name="python", memory_bytes=10**9), Neighbour(pid=8, name="", memory_bytes=None)],
    process_memory_bytes=612 * 10**6,
    process_cpu_percent=183.5,
    host_memory_used_bytes=10**10,
    host_memory_total_bytes=10**11,
)


def test_samples_are_told_again_word_for_word_and_are_no_rows_of_events(store: Store) -> None:
    run = config()
    said = list(words(run))
    samples = [SAMPLE, Sampled(seconds=2.5), Sampled(seconds=3.5, gpu_neighbours=[])]
    run_id = store.create(run, CARD)
    assert list(store.record(run_id, iter([*said[:2], *samples, *said[2:]])))
    told = list(store.samples(run_id))
    assert [sample for _, sample in told] == samples
    assert [sample for _, sample in store.samples(run_id, after=told[0][0])] == samples[1:]
    assert store.query("select count(*) n from events where kind = 'sampled'") == [{"n": 0}]
    numbers = [number for number, _ in told] + [number for number, _ in store.tail(run_id)]
    assert len(numbers) == len(set(numbers))
    usage = store.describe(run_id)["usage"]
    assert (usage["samples"], usage["gpu_peak_celsius"], usage["gpu_shared"]) == (3, 71, True)


def test_samples_wait_for_an_event_to_be_written_with(store: Store, tmp_path: Path) -> None:
    run_id = store.create(config(), CARD)
    said: list[AnyEvent] = [Sampled(seconds=1.0), Warned(message="x"), Sampled(seconds=2.0)]
    with closing(Store.open(tmp_path / "runs.db")) as viewer:
        written = [len(list(viewer.samples(run_id))) for _ in store.record(run_id, iter(said))]
        assert written == [0, 1, 1]
        assert len(list(viewer.samples(run_id))) == 2
        list(store.record(run_id, iter([SAMPLE])))
        assert [sample.seconds for _, sample in viewer.samples(run_id)] == [1.0, 2.0, 1.5]


def _previewed(iterations: Iterable[int]) -> Iterator[AnyEvent]:
    for iteration in iterations:
        yield Previewed(iteration=iteration, preview=b"%d" % iteration)


def test_a_few_previews_of_a_run_are_kept_spread_over_it_and_none_is_an_event(store: Store) -> None:
    run = store.create(config(), CARD)
    first, *rest = words(config())
    said = [first, *_previewed(range(1, 200, 2)), *rest]
    assert list(store.record(run, said)) == said
    kept = store.pictures(run)
    assert len(kept) == PREVIEWS + 1  # and that of the set, after iteration 2
    assert (kept[0], kept[-1]) == (1, 199)
    of_previews = [iteration for iteration in kept if iteration != 2]
    gaps = [after - before for before, after in pairwise(of_previews)]
    assert max(gaps) <= 4 * 199 / PREVIEWS
    assert store.picture(run, 2) == ledger.PNG
    assert store.picture(run, 199) == b"199"
    assert store.picture(run, 198) == b""
    assert not [event for _, event in store.tail(run) if isinstance(event, Previewed)]


def test_previews_of_iterations_after_the_checkpoint_go_when_a_run_is_resumed(store: Store) -> None:
    run = store.create(config(), CARD)
    first = next(words(config()))
    for _ in store.record(run, [first, *_previewed([1, 5, 9])]):
        pass
    resumed = Resumed(attempt=2, iteration=5, checkpoint="", process=NO_PROCESS, environment=ledger.ENVIRONMENT)
    for _ in store.record(run, [resumed], attempt=2):
        pass
    assert store.pictures(run) == [1, 5]


def test_a_run_is_found_by_the_beginning_of_its_id(store: Store) -> None:
    first = add(store, config())
    assert store.run(first).id == first
    others = {add(store, config(seed=seed)) for seed in range(1, 40)}
    same = [other for other in others if other[0] == first[0]]
    if same:
        with pytest.raises(BadInput, match="type more of it"):
            store.run(first[0])
    assert store.run(first[:5]).id.startswith(first[:5])
    for nothing in ("", "zzzzzzz", "%", "_", "' or 1"):
        with pytest.raises(BadInput):
            store.run(nothing)


def test_hostile_text_is_harmless_once_stored(store: Store) -> None:
    run_id = store.create(config(), CARD, name="a\x1b]52;c;aGk=\x07\nb", tags=["\x1b[2J", "'); drop table runs; --"])
    assert "\x1b" not in store.run(run_id).name
    assert "\n" not in store.run(run_id).name
    tags = [row["tag"] for row in store.query("select tag from tags")]
    assert "'); drop table runs; --" in tags
    assert not any("\x1b" in tag for tag in tags)


def test_ids_are_short_and_nobody_mistakes_them_for_numbers() -> None:
    found = {records.new_id() for _ in range(2000)}
    assert len(found) > 1990
    assert all(len(run_id) == 6 and run_id[0].isalpha() and not set(run_id) & set("0oil1") for run_id in found)


def test_the_version_counts_the_migrations() -> None:
    db = sqlite_utils.Database(memory=True)
    assert len(migrations.pending(db)) == VERSION
    db.close()


def test_a_new_database_says_whose_it_is(store: Store, tmp_path: Path) -> None:
    assert store.query("pragma application_id")[0]["application_id"] == APPLICATION_ID
    assert store.query("pragma user_version")[0]["user_version"] == VERSION
    assert store.query("pragma journal_mode")[0]["journal_mode"] == "wal"
    assert store.query("pragma foreign_keys")[0]["foreign_keys"] == 1
    assert store.query("pragma synchronous")[0]["synchronous"] == 2
    strict = store.query("select name, strict from pragma_table_list where type = 'table' and schema = 'main'")
    ours = [row for row in strict if not row["name"].startswith(("sqlite_", "_sqlite"))]
    assert len(ours) == 18
    assert all(row["strict"] for row in ours)
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".new")]


def test_deleting_a_run_takes_all_that_is_its_own(store: Store) -> None:
    run_id = add(store, config())
    list(store.record(run_id, iter([Sampled(seconds=1.0)])))
    assert list(store.samples(run_id))
    store.db.conn.execute("delete from runs")
    for name in ("events", "samples", "evaluations", "measurements", "artifacts", "costs", "environments", "tags"):
        assert store.query(f"select count(*) n from {name}") == [{"n": 0}]
    assert store.query("pragma foreign_key_check") == []


def _foreign(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("create table theirs (x)")
    db.execute("pragma user_version = 3")
    db.commit()
    db.close()


def _newer(path: Path) -> None:
    Store.open(path, write=True).close()
    db = sqlite3.connect(path)
    db.execute(f"pragma user_version = {VERSION + 1}")
    db.execute("pragma journal_mode = delete")
    db.close()


def _truncated(path: Path) -> None:
    Store.open(path, write=True).close()
    db = sqlite3.connect(path)
    db.execute("pragma journal_mode = delete")
    db.close()
    path.write_bytes(path.read_bytes()[:2048])


def _text(path: Path) -> None:
    path.write_text("not a database at all, but a long text file " * 20)


def _empty(path: Path) -> None:
    path.touch()


def _bare(path: Path) -> None:
    """Somebody else took our number."""
    db = sqlite3.connect(path)
    db.execute(f"pragma application_id = {APPLICATION_ID}")
    db.execute("create table theirs (x)")
    db.commit()
    db.close()


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_foreign, "is not a database of dambench"),
        (_newer, "a newer dambench made it; update dambench"),
        (_truncated, "damaged: its end is missing"),
        (_text, "is not a database of dambench"),
        (_empty, "is an empty file, not a database"),
        (_folder, "it is a folder"),
        (_bare, "its tables are missing"),
    ],
)
@pytest.mark.parametrize("write", [False, True])
def test_a_file_that_is_not_ours_is_refused_and_stays_as_it_is(
    tmp_path: Path, make: Callable[[Path], None], said: str, write: bool
) -> None:
    path = tmp_path / "their.db"
    make(path)
    before, names = None if path.is_dir() else _digest(path), sorted(os.listdir(tmp_path))
    with pytest.raises(BadInput, match=said):
        Store.open(path, write=write)
    assert (None if path.is_dir() else _digest(path)) == before
    assert sorted(os.listdir(tmp_path)) == names


def test_a_file_whose_end_is_still_in_its_log_is_whole(tmp_path: Path) -> None:
    """As kill -9 leaves it in the midst of folding in the log: the first page is written, the last ones are not yet."""
    path, copy = tmp_path / "runs.db", tmp_path / "killed.db"
    with closing(Store.open(path, write=True)) as store:
        before = path.stat().st_size
        run_ids = [add(store, config(seed=seed)) for seed in range(12)]
        log = path.with_name("runs.db-wal").read_bytes()
        assert log
    folded = path.read_bytes()
    assert len(folded) > before
    copy.write_bytes(folded[:before])
    with pytest.raises(BadInput, match="its end is missing"):
        Store.open(copy)
    copy.with_name("killed.db-wal").write_bytes(log)
    for write in (False, True):
        with closing(Store.open(copy, write=write)) as store:
            assert store.query("pragma integrity_check") == [{"integrity_check": "ok"}]
            assert [row["id"] for row in store.query("select id from runs order by number")] == run_ids


def test_a_missing_database_is_not_made_by_looking(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="There is no database"):
        Store.open(tmp_path / "none.db")
    assert os.listdir(tmp_path) == []
    with pytest.raises(BadInput, match="there is no folder"):
        Store.open(tmp_path / "no" / "x.db", write=True)


def test_a_database_that_may_only_be_read_is_refused_before_a_run(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.close()
    # As root everything may be written: ask the question that another user would get answered with no.
    monkeypatch.setattr("dambench.store.database.os.access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(BadInput, match="may only be read"):
        database.check(tmp_path / "runs.db")
    with pytest.raises(BadInput, match="may not be written"):
        database.check(tmp_path / "new.db")


def test_a_database_in_a_folder_that_may_not_be_written_or_on_a_full_disk_can_be_read(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = add(store, config())
    store.close()
    real = database._open

    def refused(path: Path, mode: str) -> database.Connection:
        if "immutable" not in mode:
            (tmp_path / "runs.db-wal").touch()  # as SQLite does before it fails on a full disk
            raise sqlite3.OperationalError("attempt to write a readonly database")
        return real(path, mode)

    monkeypatch.setattr(database, "_open", refused)
    with closing(Store.open(tmp_path / "runs.db")) as viewer:
        assert viewer.run(run_id).state == "finished"


def test_a_path_may_begin_with_two_slashes_or_hold_anything(tmp_path: Path) -> None:
    for name in (f"/{tmp_path}/a.db", f"{tmp_path}/b #?%20 ü.db"):
        with closing(Store.open(Path(name), write=True)):
            assert Path(name).exists()


def test_a_link_that_leads_nowhere_is_no_place_for_a_database(tmp_path: Path) -> None:
    (tmp_path / "runs.db").symlink_to(tmp_path / "gone" / "runs.db")
    with pytest.raises(BadInput, match="link that leads nowhere"):
        database.check(tmp_path / "runs.db")


def test_checking_changes_nothing(tmp_path: Path) -> None:
    database.check(tmp_path / "new.db")
    assert os.listdir(tmp_path) == []


def test_several_processes_may_make_the_same_database_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dambench.store.runs import Store; from tests.ledger import *\n"
        "add(Store.open(Path(sys.argv[1]), write=True), config(seed=int(sys.argv[2])))"
    )
    root = Path(__file__).parents[2]
    path = str(tmp_path / "runs.db")
    makers = [
        subprocess.Popen([sys.executable, "-c", code, path, str(n)], cwd=root, stderr=subprocess.DEVNULL)
        for n in range(4)
    ]
    assert [maker.wait(60) for maker in makers] == [0, 0, 0, 0]
    with closing(Store.open(tmp_path / "runs.db")) as viewer:
        assert {row["seed"] for row in viewer.query("select seed from runs where state = 'finished'")} == {0, 1, 2, 3}
        assert viewer.query("pragma integrity_check") == [{"integrity_check": "ok"}]


def test_two_writers_wait_for_each_other(store: Store, tmp_path: Path) -> None:
    def work(seed: int) -> None:
        with closing(Store.open(tmp_path / "runs.db", write=True)) as mine:
            for n in range(20):
                add(mine, config(seed=100 * seed + n))

    threads = [threading.Thread(target=work, args=[n]) for n in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.query("select count(*) n from runs where state = 'finished'") == [{"n": 40}]


def test_a_batch_is_written_whole_or_not_at_all(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run = config()
    run_id = store.create(run, CARD)
    real = Tables.insert

    def fail(self: Tables, verb: str, table: str, row: dict[str, object]) -> int:
        if table == "measurements":
            raise sqlite3.OperationalError("database or disk is full")
        return real(self, verb, table, row)

    monkeypatch.setattr(Tables, "insert", fail)
    with pytest.raises(NotKept, match="disk is full"):
        list(store.record(run_id, words(run)))
    monkeypatch.undo()
    assert store.query("select count(*) n from scores") == [{"n": 0}]
    kinds = [type(event).__name__ for _, event in store.tail(run_id)]
    assert kinds == ["Started", "Warned", "Stepped", "Stepped", "Snapshot"]


def test_order_is_that_of_the_words_not_of_a_clock_that_is_set_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = (f"2026-01-01T00:{59 - n // 60:02}:{59 - n % 60:02}.000+00:00" for n in range(600))
    monkeypatch.setattr(records, "now", lambda: next(times))
    runs = [add(store, config(seed=seed), [0.25 * seed]) for seed in range(3)]
    said = [type(event).__name__ for _, event in store.tail(runs[0])]
    assert said == [type(event).__name__ for event in words(config()) if not isinstance(event, Progressed)]
    created = [row["created_at"] for row in store.query("select created_at from runs order by number")]
    assert created == sorted(created, reverse=True)
    again = add(store, config(seed=1), [0.75])
    assert [row["id"] for row in store.query("select id from runs order by number")] == [*runs, again]
    (cell,) = leaderboard(store).tables[0].cells.values()
    assert sorted(cell.values) == [0.0, 0.5, 0.75]  # of two alike the last one counts


def test_a_run_in_the_trash_is_told_but_counted_nowhere(store: Store) -> None:
    kept, gone = add(store, config("dm"), [0.5]), add(store, config("dm", seed=1), [1.0])
    store.delete(gone)
    assert store.run(gone).deleted_at > "2026"
    assert list(store.tail(gone))
    board = leaderboard(store)
    assert (board.finished, [cell.mean for cell in board.tables[0].cells.values()]) == (1, [0.5])
    assert [cost.runs for cost in board.costs] == [1]
    with closing(sqlite3.connect(store.path)) as plain:  # as people read it
        assert plain.execute("select run from results").fetchall() == [(kept,)]
    store.restore(gone)
    assert leaderboard(store).finished == 2
    assert store.run(gone).deleted_at == ""
