import hashlib
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dambench.core.errors import BadInput
from dambench.core.events import (
    AnyEvent,
    Checkpointed,
    Failed,
    Neighbour,
    Process,
    Resumed,
    Sampled,
    Snapshot,
    Started,
    Stepped,
    Warned,
)
from dambench.store.leaderboard import leaderboard
from dambench.store.merge import LARGEST_PREVIEW, merge
from dambench.store.runs import Store
from tests import ledger
from tests.ledger import CARD, ENVIRONMENT, PNG, SCHEMAS, add, config, older, other_data, tables, words

HERE = Process(host="there", boot="b", pid=17, started=4711, log="/there/x.log")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return tmp_path / "other.db"


def _contents(path: Path) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables, with uids for the numbers, which are every database's own."""
    with closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        uids = {row["number"]: row["uid"] for row in db.execute("select number, uid from runs")}
        found = {}
        for table in tables(db):
            if table == "revisions":  # how often was written, which is no content
                continue
            rows = [dict(row) for row in db.execute(f"select * from {table}")]
            for row in rows:
                row |= {name: uids[row[name]] for name in ("run", "number") if name in row}
            found[table] = sorted(rows, key=repr)
        return found


def _resumed(attempt: int, iteration: int) -> Resumed:
    return Resumed(
        attempt=attempt,
        iteration=iteration,
        checkpoint="c" * 64,
        process=msgspec.structs.replace(HERE, pid=100 + attempt),
        environment=ENVIRONMENT,
    )


def _rich(store: Store) -> dict[str, str]:
    """Runs of every kind, by what they are."""
    found = {"plain": add(store, config("dm"), [0.5, 0.75])}
    found["failed"] = add(store, config("dm", seed=1), end=ledger.failed())
    found["whole"] = add(store, config("whole"), card=other_data("e", "flowers"))
    found["bare"] = store.create(config("random"), CARD, name="barely begun", tags=["b", "a"], process=HERE)
    run = config("dm", seed=2)
    found["resumed"] = store.create(run, CARD, process=HERE)
    said = list(words(run))
    neighbours = [Neighbour(pid=7, name="python", memory_bytes=None)]
    kept = Checkpointed(iteration=1, sha256="c" * 64, size_bytes=9, seconds=0.1)
    begun = [*said[:2], Sampled(seconds=0.5, gpu_watts=3.5, gpu_neighbours=neighbours), said[2], kept, *said[3:6]]
    list(store.record(found["resumed"], iter(begun)))
    list(store.record(found["resumed"], iter([_resumed(2, 1), *said[4:]]), attempt=2))
    found["asked"] = store.create(config("dm", seed=3), CARD, process=HERE)
    list(store.record(found["asked"], iter(said[:4])))
    store.edit(found["asked"], "stop_asked", 1)
    store.delete(found["failed"])
    return found


def test_merging_into_an_empty_database_gives_every_row_of_the_other(store: Store, other: Path) -> None:
    with closing(Store.open(other, write=True)) as theirs:
        ids = _rich(theirs)
        report = leaderboard(theirs)
    found = merge(store, other)
    assert sorted(found.added) == sorted(ids.values())
    assert (found.conflicts, found.refused, found.renamed) == ({}, {}, {})
    assert _contents(store.path) == _contents(other)
    assert leaderboard(store) == report
    assert store.query("pragma foreign_key_check") == []


def test_merging_again_changes_nothing_in_either_file(store: Store, other: Path) -> None:
    with closing(Store.open(other, write=True)) as theirs:
        number = len(_rich(theirs))
    merge(store, other)
    before, digest = _contents(store.path), hashlib.sha256(other.read_bytes()).hexdigest()
    found = merge(store, other)
    assert (found.added, found.continued, found.unchanged) == ([], [], number)
    assert _contents(store.path) == before
    assert hashlib.sha256(other.read_bytes()).hexdigest() == digest


def test_runs_of_both_stand_side_by_side(store: Store, other: Path) -> None:
    mine = add(store, config("dm"), [0.5])
    with closing(Store.open(other, write=True)) as theirs:
        their = add(theirs, config("dm", seed=1), [0.75])
    merge(store, other)
    assert {row["id"] for row in store.query("select id from runs")} == {mine, their}
    (cell,) = leaderboard(store).tables[0].cells.values()
    assert (cell.networks, cell.sets, cell.mean) == (2, 2, 0.625)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_file_of_an_older_schema_is_merged_and_stays_as_it_is(store: Store, other: Path, schema: int) -> None:
    older(other, schema)
    digest = hashlib.sha256(other.read_bytes()).hexdigest()
    assert len(merge(store, other).added) == 3
    assert merge(store, other).unchanged == 3
    assert hashlib.sha256(other.read_bytes()).hexdigest() == digest
    # The same file brought up to date gives the same runs.
    Store.open(other, write=True).close()
    assert merge(store, other).unchanged == 3


def test_an_id_of_another_run_is_changed_and_the_change_is_told(store: Store, other: Path) -> None:
    mine = add(store, config("dm"))
    with closing(Store.open(other, write=True)) as theirs:
        their = add(theirs, config("dm", seed=1))
        theirs.db.conn.execute("update runs set id = ?", [mine])
    found = merge(store, other)
    assert list(found.renamed) == [mine]
    assert found.added == [found.renamed[mine]]
    assert store.run(found.added[0]).seed == 1
    assert store.run(mine).seed == 0
    assert mine != found.added[0] != their
    assert merge(store, other).unchanged == 1


def _begun_here_ended_there(store: Store, other: Path, tail: list[AnyEvent], attempt: int) -> str:
    """A run whose beginning is here, and whose end is in a copy."""
    run = config("dm")
    said = list(words(run))
    run_id = store.create(run, CARD, process=HERE)
    kept = Checkpointed(iteration=1, sha256="c" * 64, size_bytes=9, seconds=0.1)
    list(store.record(run_id, iter([*said[:3], kept, said[4]])))
    store.db.conn.execute("vacuum into ?", [str(other)])
    with closing(Store.open(other, write=True)) as theirs:
        list(theirs.record(run_id, iter(tail), attempt))
    return run_id


@pytest.mark.parametrize("resumed", [False, True])
def test_a_run_that_went_on_elsewhere_is_brought_up_to_date(store: Store, other: Path, resumed: bool) -> None:
    said = list(words(config("dm")))
    tail = [_resumed(2, 1), *said[4:]] if resumed else said[5:]
    run_id = _begun_here_ended_there(store, other, tail, 2 if resumed else 1)
    found = merge(store, other)
    assert (found.continued, found.added, found.unchanged) == ([run_id], [], 0)
    assert _contents(store.path) == _contents(other)
    assert store.run(run_id).state == "finished"
    assert merge(store, other).unchanged == 1


@pytest.mark.parametrize("after", range(9))
def test_wherever_a_copy_was_made_both_become_the_same_again(store: Store, other: Path, after: int) -> None:
    run = config("dm")
    said = [*list(words(run))[:7], Sampled(seconds=0.5), *list(words(run))[7:]]
    run_id = store.create(run, CARD)
    list(store.record(run_id, iter(said[:after])))
    store.db.conn.execute("vacuum into ?", [str(other)])
    with closing(Store.open(other, write=True)) as theirs:
        list(theirs.record(run_id, iter(said[after:])))
    assert not merge(store, other).conflicts
    assert _contents(store.path) == _contents(other)
    assert merge(store, other).unchanged == 1


def test_a_copy_that_is_behind_takes_nothing_back(store: Store, other: Path) -> None:
    run_id = store.create(config("dm"), CARD)
    said = list(words(config("dm")))
    list(store.record(run_id, iter(said[:4])))
    store.db.conn.execute("vacuum into ?", [str(other)])
    list(store.record(run_id, iter(said[4:])))
    before = _contents(store.path)
    found = merge(store, other)
    assert (found.unchanged, found.continued, found.conflicts) == (1, [], {})
    assert _contents(store.path) == before


def test_data_that_were_prepared_elsewhere_are_the_same_data(store: Store, other: Path) -> None:
    run_id = store.create(config("dm"), CARD)
    said = list(words(config("dm")))
    list(store.record(run_id, iter(said[:4])))
    store.db.conn.execute("vacuum into ?", [str(other)])
    list(store.record(run_id, iter(said[4:])))
    with closing(sqlite3.connect(other)) as theirs, theirs:
        card = msgspec.structs.replace(CARD, source="there", notes=["a file was passed over"])
        theirs.execute("update datasets set card = ?", [msgspec.json.encode(card).decode()])
    found = merge(store, other)
    assert (found.unchanged, found.conflicts) == (1, {})


def test_a_run_that_went_on_in_both_is_a_conflict_and_the_others_are_merged(store: Store, other: Path) -> None:
    run_id = _begun_here_ended_there(store, other, [Warned(message="there")], 1)
    list(store.record(run_id, iter([Warned(message="here")])))
    with closing(Store.open(other, write=True)) as theirs:
        new = add(theirs, config("dm", seed=5))
    before = list(store.tail(run_id))
    found = merge(store, other)
    assert found.added == [new]
    assert list(found.conflicts) == [run_id]
    assert "(warned)" in found.conflicts[run_id]
    assert list(store.tail(run_id)) == before


def test_other_settings_under_the_same_uid_are_a_conflict(store: Store, other: Path) -> None:
    run_id = add(store, config("dm"))
    with closing(Store.open(other, write=True)) as theirs:
        add(theirs, config("dm", seed=9))
        theirs.db.conn.execute("update runs set uid = ?", [store.run(run_id).uid])
    found = merge(store, other)
    assert (list(found.conflicts), found.added) == ([run_id], [])
    assert store.run(run_id).seed == 0


def _body(path: Path, kind: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a word of the runs of a file."""
    with closing(sqlite3.connect(path)) as db:
        for run, sequence, body in db.execute(
            "select run, sequence, body from events where kind = ?", [kind]
        ).fetchall():
            event = json.loads(body)
            change(event)
            db.execute("update events set body = ? where run = ? and sequence = ?", [json.dumps(event), run, sequence])
        db.commit()


def _sql(statement: str, *values: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with closing(sqlite3.connect(path)) as db:
            assert db.execute(statement, values).rowcount
            db.commit()

    return change


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a word that is none": (_sql("update events set body = '{}' where kind = 'warned'"), "event 2 cannot be read"),
    "a word of no kind": (_sql("""update events set body = '{"kind": "x"}' where sequence = 2"""), "event 2 cannot"),
    "no JSON": (_sql("update events set body = '\x1b[2J' where kind = 'warned'"), "cannot be read"),
    "a word too long": (_sql("update events set body = body || ?", " " * 10**6), "characters"),
    "nesting": (_sql("update events set body = ? where kind = 'warned'", "\\" + "[" * 10**5), "cannot be read"),
    "a set named as a path": (
        lambda path: _body(path, "snapshot", lambda e: e.update(sha256="../../../etc/passwd")),
        "a sha256 of its",
    ),
    "a result named as a path": (
        lambda path: _body(path, "finished", lambda e: e.update(set_sha256="/etc/passwd")),
        "a set_sha256 of its",
    ),
    "a protocol nobody knows": (
        lambda path: _body(path, "measured", lambda e: e.update(protocol_sha256="a" * 64)),
        "FOREIGN KEY",
    ),
    "a uid that is a path": (_sql("update runs set uid = '../../x'"), "its uid is none"),
    "no configuration": (_sql("update runs set config = '{}'"), "its configuration cannot be read"),
    "a preview that is none": (_sql("update artifacts set preview = x'00'"), "no small PNG"),
    "a large preview": (_sql("update artifacts set preview = ?", PNG + b"\0" * LARGEST_PREVIEW), "no small PNG"),
    "a picture as large as a house": (
        _sql("update artifacts set preview = ?", PNG[:16] + b"\0\1\0\0\0\1\0\0" + PNG[24:]),
        "no small PNG",
    ),
    "a number beyond numbers": (
        lambda path: _body(path, "snapshot", lambda e: e.update(iteration=2**64)),
        "do not go together",
    ),
    "a time that is none": (_sql("update events set at = '\x1b[2J' where sequence = 2"), "is no time"),
    "attempts that are not counted": (
        _sql("update events set body = ? where sequence = 2", msgspec.json.encode(_resumed(7, 0)).decode()),
        "Another process",
    ),
    "another dataset's card": (_sql("update datasets set card = replace(card, ?, ?)", "d" * 64, "e" * 64), "dataset"),
    "a dataset of nothing": (_sql("update datasets set card = replace(card, '[6,4]', '[0,0]')"), "no images"),
    "better results": (lambda path: _body(path, "measured", lambda e: e["values"].update(accuracy=0.99)), "checksum"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_run_that_is_none_is_refused_with_a_sentence_and_the_others_are_merged(
    store: Store, other: Path, tmp_path: Path, case: str
) -> None:
    spoil, said = HOSTILE[case]
    with closing(Store.open(other, write=True)) as theirs:
        spoilt = add(theirs, config("dm"))
    spoil(other)
    sound = tmp_path / "sound.db"
    with closing(Store.open(sound, write=True)) as theirs:
        number = add(theirs, config("random"), card=other_data("f"))
    merge(store, sound)
    before = _contents(store.path)
    found = merge(store, other)
    assert list(found.refused) == [spoilt], found
    assert said in found.refused[spoilt]
    assert "\x1b" not in found.refused[spoilt]
    assert _contents(store.path) == before
    assert store.run(number).state == "finished"


def test_one_run_that_is_refused_keeps_no_other_from_being_merged(store: Store, other: Path) -> None:
    with closing(Store.open(other, write=True)) as theirs:
        first, spoilt, last = (add(theirs, config("dm", seed=seed)) for seed in range(3))
        theirs.db.conn.execute("update runs set config = '{}' where id = ?", [spoilt])
    found = merge(store, other)
    assert (found.added, list(found.refused)) == ([first, last], [spoilt])


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("create trigger t after update on runs begin delete from runs; end", "'t' in it is a trigger"),
        ("drop table samples; create view samples as select 1 as run", "'samples' in it is a view"),
        ("alter table tags add column x text", "its table tags is not dambench's"),
    ],
)
def test_a_file_with_tables_that_dambench_did_not_make_is_refused_as_it_is(
    store: Store, other: Path, statement: str, said: str
) -> None:
    with closing(Store.open(other, write=True)) as theirs:
        add(theirs, config("dm"))
    with closing(sqlite3.connect(other)) as db:
        db.executescript(statement)
    digest = hashlib.sha256(other.read_bytes()).hexdigest()
    with pytest.raises(BadInput, match="is not merged"):
        merge(store, other)
    with pytest.raises(BadInput, match=said):
        merge(store, other)
    assert hashlib.sha256(other.read_bytes()).hexdigest() == digest
    assert store.query("select count(*) n from runs") == [{"n": 0}]


def test_a_text_beyond_all_measure_is_not_even_read(store: Store, other: Path) -> None:
    with closing(Store.open(other, write=True)) as theirs:
        add(theirs, config("dm"))
        theirs.db.conn.execute("update events set body = body || ? where kind = 'warned'", [" " * 5_000_000])
        sound = add(theirs, config("dm", seed=1))
    found = merge(store, other)
    assert found.added == [sound]
    assert ["too big" in why for why in found.refused.values()] == [True]


def test_texts_of_the_other_file_are_harmless_once_merged(store: Store, other: Path) -> None:
    evil = "\x1b]52;c;aGk=\x07"
    run = config("dm", options={evil: evil})
    said: list[AnyEvent] = [
        event
        if not isinstance(event, Started)
        else msgspec.structs.replace(event, recipe=evil, environment=msgspec.structs.replace(ENVIRONMENT, host=evil))
        for event in words(run, end=Failed(error=evil, traceback=f"one\ntwo {evil}\nthree", costs=ledger.costs()))
    ]
    said.insert(1, Stepped(iteration=1, losses={evil: "nan"}, seconds=0.1))
    with closing(Store.open(other, write=True)) as theirs:
        card = msgspec.structs.replace(CARD, label=evil, classes=[evil, "\u202e1"])
        run_id = theirs.create(run, card, tags=["x"], process=msgspec.structs.replace(HERE, host=evil, log=evil))
        list(theirs.record(run_id, iter(said)))
        theirs.db.conn.execute("update runs set name = ?", [evil])
        theirs.db.conn.execute("update tags set tag = ?", [evil])
        theirs.db.conn.execute("update runs set id = ?", [evil])
    found = merge(store, other)
    assert len(found.added) == 1
    everything = repr(_contents(store.path))
    assert "\\x1b" not in everything
    assert "u001b" not in everything
    assert "\\u202e" not in everything
    assert store.query("select traceback from runs")[0]["traceback"].count("\n") == 2
    assert merge(store, other).unchanged == 1


def test_a_database_is_not_merged_into_itself_nor_one_that_is_none(store: Store, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="would be merged into"):
        merge(store, store.path)
    (tmp_path / "text.db").write_text("not a database at all, " * 20)
    with pytest.raises(BadInput, match="is not a database of dambench"):
        merge(store, tmp_path / "text.db")
    with pytest.raises(BadInput, match="No such file"):
        merge(store, tmp_path / "none.db")


def test_what_only_the_pictures_row_holds_is_merged_too(store: Store, other: Path) -> None:
    with closing(Store.open(other, write=True)) as theirs:
        run_id = add(theirs, config("dm"))
    merge(store, other)
    assert store.preview(run_id) == PNG
    assert [event.preview for _, event in store.tail(run_id) if isinstance(event, Snapshot)] == [b""]


@pytest.mark.parametrize("into", ["older", "newer"])
def test_the_newest_run_counts_whichever_database_it_was_merged_from(
    store: Store, other: Path, monkeypatch: pytest.MonkeyPatch, into: str
) -> None:
    """Each database numbers its runs in the order in which it came to know them."""
    with closing(Store.open(other, write=True)) as newer:
        for day, (entered, accuracy) in enumerate([(store, 0.25), (newer, 0.75)], start=1):
            monkeypatch.setattr("dambench.store.records.now", lambda day=day: f"2026-01-0{day}T00:00:00.000+00:00")
            add(entered, config("dm"), [accuracy])
        merged, name = (store, other) if into == "older" else (newer, store.path)
        assert len(merge(merged, name).added) == 1
        (cell,) = leaderboard(merged).tables[0].cells.values()
        assert cell.values == [0.75]
        assert [run.accuracy for run in merged.newest()] == [0.75, 0.25]
        with closing(sqlite3.connect(merged.path)) as plain:  # as people read it
            assert plain.execute("select accuracy from results where counts").fetchall() == [(0.75,)]
