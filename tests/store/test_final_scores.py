"""The copies of final scores are what the tables hold, whoever has written, or they are not there."""

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dambench.core.config import RunConfig
from dambench.core.events import AnyEvent, Cost, Finished, Measured, Stepped, Warned
from dambench.core.files import digest
from dambench.store import final_scores
from dambench.store.bundle import bundle, merge_all
from dambench.store.leaderboard import Leaderboard, leaderboard
from dambench.store.metrics import find_metric
from dambench.store.records import EventLogged
from dambench.store.runs import Store
from dambench.store.upkeep import back_up, check, migrate, purge
from tests.ledger import add, config, failed, older, other_data, stopped, words

AT = "2026-01-01T00:00:00.000+00:00"

EXPERTS = Warned(message="3 experts of convnet-d1-w8 on digits are trained, for 5 epochs")


def _said(run: RunConfig, accuracies: tuple[float, ...] = (0.5, 0.75)) -> Iterator[AnyEvent]:
    """What an engine would say that evaluates on the way, on two networks, with an infinite loss and experts."""
    for event in words(run, accuracies):
        if isinstance(event, Measured):
            yield msgspec.structs.replace(event, iteration=1, final=False, values={"accuracy": 0.1})
            yield msgspec.structs.replace(event, subject="resnet18", values=event.values | {"loss": "inf"})
            yield msgspec.structs.replace(event, evaluator="mine", values={"odd": 3.5})
            event = msgspec.structs.replace(event, values=event.values | {"class_0": 0.25})
        if isinstance(event, Finished):
            yield EXPERTS
            spent = Cost(phase="experts", seconds=7.5, peak_memory_bytes=5, joules=3.0, shared=False)
            event = msgspec.structs.replace(event, costs=[*event.costs, spent])
        yield event


def _add(store: Store, run: RunConfig) -> str:
    run_id = store.create(run, other_data("d"))
    for _ in store.record(run_id, _said(run)):
        pass
    return run_id


def _copied(store: Store) -> list[str]:
    return [row["id"] for row in store.query("select id from finals join runs on number = run order by number")]


def _board(store: Store, metric: str = "accuracy") -> Leaderboard:
    return leaderboard(store, metric=find_metric(store, metric))


def _is_the_truth(store: Store) -> None:
    """All that there is to see is what it would be if there were no copies."""
    assert final_scores.faults(store.query) == []
    assert final_scores.missing_triggers(store.query) == []
    if not store.query("select 1 from metrics where name = 'odd'"):
        row = {"evaluator": "mine", "name": "odd", "unit": "", "better": "higher", "description": ""}
        store.tables.insert("insert into", "metrics", row)
    metrics = ("accuracy", "loss", "mine.odd")
    with_copies = [_board(store, metric) for metric in metrics]
    kept = store.query("select * from finals")
    store.db.conn.execute("delete from finals")
    assert [_board(store, metric) for metric in metrics] == with_copies
    for row in kept:
        store.tables.insert("insert into", "finals", row)


def test_a_run_that_finishes_has_a_copy_of_its_final_scores(store: Store) -> None:
    run_id = _add(store, config("dm"))
    assert _copied(store) == [run_id]
    (row,) = store.query("select * from finals")
    (found,) = final_scores.read([(row["run"], row["body"], row["sha256"])]).values()
    assert found.trained == 8
    assert {name: list(of) for name, of in found.subjects.items()} == {
        "accuracy": ["convnet-d1-w8", "resnet18"],
        "mine": ["convnet-d1-w8"],
    }
    first, second, *_ = found.scores["accuracy"]
    assert (first.subject, first.repeat, first.set_sha256) == ("convnet-d1-w8", 0, store.runs("1")[0].set_sha256)
    assert first.values == {"accuracy": 0.5, "balanced_accuracy": 0.5, "loss": 0.5, "train_accuracy": 1.0}
    assert second.subject == "resnet18"
    assert second.values["loss"] == float("inf")
    assert [score.repeat for score in found.scores["accuracy"]] == [0, 0, 1, 1]
    assert [score.values for score in found.scores["mine"]] == [{"odd": 3.5}] * 2
    assert found.computed is not None
    assert (found.computed.experts_seconds, found.computed.experts_trained) == (7.5, 1)
    assert (found.computed.device_name, found.computed.threads) == ("a CPU", 2)
    _is_the_truth(store)


def test_only_finished_runs_have_a_copy(store: Store) -> None:
    ends: tuple[AnyEvent, ...] = (failed(), stopped())
    for seed, end in enumerate(ends):
        add(store, config("dm", seed=seed), end=end)
    store.create(config("dm", seed=3), other_data("d"))
    assert _copied(store) == []
    _is_the_truth(store)


def test_runs_that_differ_in_the_seed_alone_are_alike(store: Store) -> None:
    several: list[tuple[int, dict[str, object]]] = [(0, {}), (1, {}), (1, {"seed": 0}), (1, {"iterations": 3})]
    for seed, options in several:
        _add(store, config("dm", seed=seed, options=options))
    rows = store.query("select * from finals order by run")
    found = final_scores.read([(row["run"], row["body"], row["sha256"]) for row in rows])
    first, second, third, fourth = (one.alike for one in found.values())
    assert first == second
    assert len({first, third, fourth}) == 3


WRITES: dict[str, tuple[str, set[int]]] = {
    "a value": ("update measurements set value = 0.9 where evaluator = 'accuracy' and run = {run}", {1}),
    "a metric less": ("delete from measurements where metric = 'loss' and run = {run}", {1}),
    "a metric more": (
        "insert or ignore into measurements select run, iteration, evaluator, subject, repeat, 'new', 1.0, 'finite' "
        "from evaluations where run = {run} and final",
        {1},
    ),
    "a network less": ("delete from evaluations where subject = 'resnet18' and run = {run}", {1}),
    "no longer final": ("update evaluations set final = 0 where run = {run}", {1}),
    "another's costs": ("update costs set run = 2, phase = 'x' where run = {run} and phase = 'distil'", {1, 2}),
    "another's machine": ("update or replace environments set run = 2 where run = {run}", {1, 2}),
    "seconds": ("update costs set seconds = 3 where run = {run}", {1}),
    "a machine": ("update environments set torch = '1' where run = {run}", {1}),
    "no machine": ("delete from environments where run = {run}", {1}),
    "experts": ("delete from events where kind = 'warned' and run = {run}", {1}),
    "a configuration": ("update runs set config = json_set(config, '$.eval_repeats', 9) where number = {run}", {1}),
    "a state": ("update runs set state = 'failed' where number = {run}", {1}),
    "a checksum": ("update runs set results_sha256 = 'a' where number = {run}", {1}),
    "no run": ("delete from runs where number = {run}", {1}),
    "a name": ("update runs set name = 'mine', note = 'a' where number = {run}", set()),
    "a sign of life": ("update runs set beat_at = 'now', stop_asked = 1 where number = {run}", set()),
    "steps": ("delete from events where kind = 'stepped' and run = {run}", set()),
}
"""What somebody may write of a run, and the runs whose copies that takes away, if it is the first."""


@pytest.mark.parametrize("what", WRITES)
def test_whoever_changes_what_a_copy_is_of_takes_it_away(store: Store, what: str) -> None:
    ids = [_add(store, config("dm", seed=seed)) for seed in range(3)]
    sql, gone = WRITES[what]
    store.db.conn.execute(sql.format(run=1))
    assert _copied(store) == [run_id for number, run_id in enumerate(ids, 1) if number not in gone]
    _is_the_truth(store)


def test_a_run_whose_copy_was_taken_away_is_told_as_damaged_where_its_scores_were_changed(store: Store) -> None:
    first, second = (_add(store, config("dm", seed=seed)) for seed in (0, 1))
    store.db.conn.execute("update measurements set value = 0.9 where run = 1 and metric = 'accuracy'")
    assert _board(store).damaged == [first]
    assert {score.run for score in _board(store).scores} == {second}
    assert any("scores are not those of its checksum" in finding.detail for finding in check(store))


def test_a_copy_whose_bytes_are_not_its_own_is_not_read(store: Store) -> None:
    _add(store, config("dm"))
    before = _board(store)
    store.db.conn.execute("update finals set body = replace(body, '0.75', '0.99')")
    assert _board(store) == before
    store.db.conn.execute("update finals set body = '[]', sha256 = ?", [digest(b"[]")])
    assert _board(store) == before
    assert [one.detail for one in check(store) if "copy" in one.detail] == [
        f"run {_copied(store)[0]}: the copy of its scores is not what they are"
    ]


def test_a_copy_that_says_something_else_is_found(store: Store) -> None:
    run_id = _add(store, config("dm"))
    body = str(store.query("select body from finals")[0]["body"]).replace("0.75", "0.99")
    store.db.conn.execute("update finals set body = ?, sha256 = ?", [body, digest(body.encode())])
    assert final_scores.faults(store.query) == [run_id]


def test_a_database_whose_triggers_somebody_has_taken_away_is_damaged(store: Store) -> None:
    _add(store, config("dm"))
    assert {one.state for one in check(store)} == {"ok", "missing"}
    store.db.conn.execute("drop trigger finals_update_measurements")
    (found,) = (one for one in check(store) if one.state == "damaged")
    assert found.detail == "nothing keeps the copies of scores right: no trigger finals_update_measurements"


def test_an_older_database_gains_copies_of_all_that_is_as_its_checksum_says(tmp_path: Path) -> None:
    older(tmp_path / "old.db", 8)
    with closing(sqlite3.connect(tmp_path / "old.db")) as db:
        db.execute("update measurements set value = 0.9 where run = 2")
        db.commit()
    with closing(Store.open(tmp_path / "old.db")) as store:  # in memory
        before = _board(store)
        assert _copied(store) == []
    migrate(tmp_path / "old.db")
    with closing(Store.open(tmp_path / "old.db", write=True)) as store:
        whole, damaged_one = (row["id"] for row in store.query("select id from runs where state = 'finished'"))
        assert _copied(store) == [whole]
        assert _board(store) == before
        assert before.damaged == [damaged_one]
        _is_the_truth(store)


def test_copies_are_right_in_backups_bundles_and_merged_databases_and_after_purging(
    store: Store, tmp_path: Path
) -> None:
    ids = [_add(store, config(method, seed=seed)) for method in ("dm", "random") for seed in (0, 1)]
    for path in (
        back_up(tmp_path / "runs.db", None),
        Path(bundle(store, tmp_path / "bundle", ids[1:3]).file) / "runs.db",
    ):
        with closing(Store.open(path)) as copy:
            assert _copied(copy) == (ids if path.name != "runs.db" else ids[1:3])
            assert final_scores.faults(copy.query) == []
            assert final_scores.missing_triggers(copy.query) == []
    with closing(Store.open(tmp_path / "other.db", write=True)) as other:
        more = _add(other, config("dm", seed=9))
        merge_all(other, [tmp_path / "bundle", tmp_path / "runs.db"])
        assert set(_copied(other)) == {more, *ids}
        _is_the_truth(other)
    store.delete(ids[0])
    assert _copied(store) == ids
    _is_the_truth(store)
    store.restore(ids[0])
    store.delete(ids[1])
    purge(store, lambda run: False)
    assert _copied(store) == [ids[0], *ids[2:]]
    _is_the_truth(store)


def test_bundles_of_the_same_runs_have_the_same_bytes_whatever_was_written_beside(store: Store, tmp_path: Path) -> None:
    run_id = _add(store, config("dm"))
    bundle(store, tmp_path / "one.tar", [run_id])
    store.edit(run_id, "tag", "a")
    store.edit(run_id, "untag", "a")
    bundle(store, tmp_path / "two.tar", [run_id])
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


@pytest.mark.parametrize("seed", range(3))
def test_copies_are_right_after_any_writes_in_any_order(store: Store, seed: int) -> None:
    rng = random.Random(seed)
    ids = [_add(store, config("dm", seed=0))]

    def new() -> None:
        ids.append(_add(store, config(rng.choice(["dm", "random"]), seed=rng.randrange(4), ipc=rng.choice([1, 10]))))

    def event(run_id: str) -> None:
        row = store.run(run_id)
        last = store.query("select max(sequence) as n from events where run = ?", row.number)[0]["n"] or 0
        said = [event for event in _said(config("dm")) if isinstance(event, Measured | Stepped | Finished | Warned)]
        store.write([EventLogged(uid=row.uid, attempt=row.attempt, sequence=last + 1, at=AT, event=rng.choice(said))])

    def sql(run_id: str) -> None:
        what, gone = rng.choice([one for name, one in WRITES.items() if name not in ("no run", "a state")])
        if 2 not in gone:
            store.db.conn.execute(what.format(run=store.run(run_id).number))

    actions: list[Callable[[str], Any]] = [
        lambda run_id: new(),
        event,
        event,
        sql,
        sql,
        store.delete,
        store.restore,
        lambda run_id: store.edit(run_id, "tag", "t"),
    ]
    for _ in range(12):
        rng.choice(actions)(rng.choice(ids))
        assert final_scores.faults(store.query) == []
    _is_the_truth(store)
