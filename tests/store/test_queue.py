"""The queue: what waits to be run, taken once, and given back by whoever is gone."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dambench.core.errors import BadInput
from dambench.store import queue as queues
from dambench.store import records
from dambench.store.journal import FileState, Journal
from dambench.store.merge import merge
from dambench.store.queue import Queue, Queued
from dambench.store.records import AttemptSuperseded, Identity, QueuedRun
from dambench.store.runs import Store
from dambench.store.upkeep import back_up, check
from tests.ledger import CARD, add, config


@pytest.fixture(params=["local", "network"])
def queue(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    monkeypatch.setenv("DAMBENCH_DISK", request.param)
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        yield Queue(store)


def _run(queue: Queue, name: str, **facts: Any) -> QueuedRun:
    return msgspec.structs.replace(queue.new({"method": name}, method=name, **facts), id=name)


def _order(queue: Queue) -> str:
    return " ".join(one.id for one in queue.all("state in ('waiting', 'paused')"))


def _taken(queue: Queue, worker: str = "w", **more: Any) -> str:
    """All that can be taken, each finished before the next."""
    found = []
    while one := queue.take(worker, **more):
        assert queue.finish(one)
        found.append(one.id)
    return " ".join(found)


def test_runs_are_taken_in_their_order_and_what_has_a_higher_priority_before(queue: Queue) -> None:
    added = queue.add([_run(queue, name) for name in "abcd"])
    assert [one.id for one in added.new] == ["a", "b", "c", "d"]
    uids = {one.id: one.uid for one in added.new}
    queue.prioritise([uids["c"]], 1)
    assert _order(queue) == "c a b d"
    queue.move([uids["d"], uids["b"]], to=queue.one("a"))
    assert _order(queue) == "c d b a"
    queue.move([uids["a"]], to="first")
    assert _order(queue) == "a c d b"
    queue.move([uids["a"]], to="last")
    assert _order(queue) == "c d b a"
    assert _taken(queue, fits=lambda one: one.id != "d") == "c b a"
    assert _taken(queue) == "d"
    assert queue.counts() == {"finished": 4}


def test_runs_may_be_moved_between_the_same_two_for_ever(queue: Queue) -> None:
    added = queue.add([_run(queue, name) for name in "abcd"])
    a, b, _, d = [one.uid for one in added.new]
    queue.move([d], to="last")
    for _ in range(40):  # each halves what is left between two places
        for uid in (a, b):
            assert [one.uid for one in queue.move([uid], to=queue.one("c"))] == [uid]
    assert _order(queue) == "a b c d"
    assert queue.finish(queue.take("w") or pytest.fail("nothing was taken"))
    with pytest.raises(BadInput, match="a is finished: a run is moved before one that waits"):
        queue.move([d], to=queue.one("a"))
    assert _order(queue) == "b c d"


def test_what_fits_is_found_behind_many_that_do_not(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "LOOKED_AT", 10)
    queue.add([_run(queue, f"gpu{n}", device="cuda:0") for n in range(30)])
    queue.add([_run(queue, "cpu", device="cpu")])
    assert len(list(queue.ready())) == 31
    assert _taken(queue, fits=lambda one: one.device == "cpu") == "cpu"


def test_what_depends_on_another_waits_until_that_is_finished(queue: Queue) -> None:
    experts = _run(queue, "experts")
    user = _run(queue, "user", after=[experts.uid])
    queue.add([user, experts])
    first = queue.take("w")
    assert first is not None
    assert first.id == "experts"
    assert queue.take("w") is None
    assert [one.id for one in queue.waits_for(queue.one("user"))] == ["experts"]
    assert queue.fail(first, "no memory")
    assert queue.take("w") is None
    queue.retry([experts.uid], "there is more now")
    assert queue.one("experts").reason == "there is more now"
    assert _taken(queue) == "experts user"


def test_the_same_run_is_queued_once_and_what_depends_on_it_finds_it(queue: Queue) -> None:
    (first,) = queue.add([_run(queue, "a", key="1 2")]).new
    again, user = _run(queue, "b", key="1 2"), _run(queue, "user")
    added = queue.add([again, msgspec.structs.replace(user, after=[again.uid]), _run(queue, "c", key="3")])
    assert ([one.id for one in added.new], [one.id for one in added.there]) == (["user", "c"], ["a"])
    assert queue.one("user").after == [first.uid]
    assert _taken(queue) == "a user c"
    assert [one.id for one in queue.add([again]).new] == ["b"]  # the first is over


def test_nothing_is_queued_by_half(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="one that is not queued: nothing was queued"):
        queue.add([_run(queue, "a"), _run(queue, "b", after=["0" * 32])])
    monkeypatch.setattr(queues, "MOST_WAITING", 2)
    with pytest.raises(BadInput, match="0 runs, and 3 more would be more than 2"):
        queue.add([_run(queue, name) for name in "abc"])
    monkeypatch.undo()

    def interrupted() -> str:
        if len(taken) == 1:
            raise KeyboardInterrupt
        taken.append("")
        return "2026-01-01T00:00:00.000+00:00"

    taken: list[str] = [""]
    monkeypatch.setattr(records, "now", interrupted)
    with pytest.raises(KeyboardInterrupt):
        queue.add([_run(queue, name) for name in "abc"])
    assert queue.all() == []


def test_only_who_has_a_run_may_say_how_it_ended(queue: Queue) -> None:
    queue.add([_run(queue, "a")])
    first = queue.take("gone")
    assert first is not None
    queue.see("gone", pid=1)
    assert queue.give_back(["another"], "its worker is gone") == []
    assert [one.id for one in queue.give_back(["gone"], "its worker is gone")] == ["a"]
    second = queue.take("w")
    assert second is not None
    assert (second.attempt, second.reason) == (2, "its worker is gone")
    assert not queue.fail(first, "late")
    assert queue.one("a").state == "taken"
    assert queue.release(second, "lost", lost=True)
    assert (queue.one("a").losses, queue.one("a").worker) == (1, "")
    third = queue.take("w")
    assert third is not None
    assert queue.release(third, "lost", lost=True)
    assert queue.one("a").losses == 2
    fourth = queue.take("w")
    assert fourth is not None
    assert queue.release(fourth, "lost", lost=True, further=True)
    assert queue.one("a").losses == 1
    fifth = queue.take("w")
    assert fifth is not None
    assert queue.finish(fifth, "f" * 32)
    assert (queue.one("a").run, queue.one("a").attempt) == ("f" * 32, 5)


def test_a_run_of_a_worker_that_nobody_knows_is_given_back(queue: Queue) -> None:
    queue.add([_run(queue, "a"), _run(queue, "b")])
    assert queue.take("unknown")
    assert queue.take("known")
    queue.see("known", pid=1)
    assert [one.id for one in queue.give_back([], "nobody has it")] == ["a"]


def test_runs_are_paused_resumed_dropped_and_tried_again(queue: Queue) -> None:
    uids = {one.id: one.uid for one in queue.add([_run(queue, name) for name in "abc"]).new}
    taken = queue.take("w")
    assert taken is not None
    assert taken.id == "a"
    assert [one.id for one in queue.pause(list(uids.values()), "power cut at 8")] == ["a", "b", "c"]
    assert queue.take("w") is None
    assert not queue.finish(taken)  # it was paused
    queue.resume([uids["b"]])
    queue.drop([uids["c"]], "not needed")
    assert _taken(queue) == "b"
    assert queue.retry([uids["b"]]) == []  # it is finished
    before = queue.one("c")
    (again,) = queue.retry([uids["c"]], "needed", anew=[uids["c"]])
    assert again.id == "c"
    assert queue.one("c").run != before.run == before.uid
    assert _taken(queue) == "c"
    assert (queue.one("a").state, queue.one("a").reason) == ("paused", "power cut at 8")


def test_a_queued_run_is_found_by_the_beginning_of_its_id(queue: Queue) -> None:
    queue.add([_run(queue, "abc"), _run(queue, "abd")])
    assert queue.one("abc").id == "abc"
    for prefix, said in (("ab", "2 queued runs have an id"), ("x", "No queued run has the id 'x'"), ("", "No queued")):
        with pytest.raises(BadInput, match=said):
            queue.one(prefix)


def test_a_queued_run_is_begun_once_with_the_id_it_had_in_the_queue(queue: Queue) -> None:
    (one,) = queue.add([queue.new({"method": "dm"})]).new
    identity = Identity(one.run, one.id)
    assert queue.store.create(config(), CARD, queued=identity) == one.id
    with pytest.raises(AttemptSuperseded, match="has begun this run already"):
        queue.store.create(config(), CARD, queued=identity)
    row = queue.store.with_uid(one.uid)
    assert row is not None
    assert row.id == one.id


@pytest.mark.parametrize("number", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_ten_thousand_runs_are_queued_in_seconds(queue: Queue, number: int) -> None:
    shared = {"dataset": "digits", "network": "convnet-d1-w4", "eval_repeats": 1, "tags": ["sweep:large"]}
    runs = [queue.new(shared | {"seed": seed}, seed=seed, key=f"{seed} digits") for seed in range(number)]
    began = time.process_time()
    assert len(queue.add(runs).new) == number
    assert time.process_time() - began < number / 1000
    began = time.process_time()
    one = queue.take("w")
    assert one is not None
    assert one.seed == 0
    assert time.process_time() - began < 1


def test_the_queue_is_in_backups_and_is_left_alone_by_a_merge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAMBENCH_DISK", "local")
    with closing(Store.open(tmp_path / "theirs.db", write=True)) as theirs:
        add(theirs, config())
        queue = Queue(theirs)
        queue.add([queue.new({"method": "dm"}, method="dm")])
        queue.see("w", pid=1, devices='["cpu"]', began_at=records.now())
        assert [finding for finding in check(theirs) if finding.state == "damaged"] == []
    copy = back_up(tmp_path / "theirs.db", None)
    with closing(Store.open(copy)) as store:
        assert [one.method for one in Queue(store).all()] == ["dm"]
        assert [worker.uid for worker in Queue(store).workers()] == ["w"]
    with closing(Store.open(tmp_path / "ours.db", write=True)) as ours:
        assert len(merge(ours, copy).added) == 1
        assert Queue(ours).all() == []


def test_what_no_dambench_wrote_into_the_queue_is_a_sentence(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        queue = Queue(store)
        queue.add([queue.new({})])
        store.db.conn.execute("update queue set request = '['")
        with pytest.raises(BadInput, match="The queue is not as a dambench wrote it"):
            queue.all()


Host = Callable[[str], Queue]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """Opens the database on a network disk as a host of that name would."""
    monkeypatch.setenv("DAMBENCH_DISK", "network")
    (tmp_path / "net").mkdir()
    opened: list[Store] = []

    def reach(name: str) -> Queue:
        with monkeypatch.context() as there:
            there.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache of {name}"))
            opened.append(Store.open(tmp_path / "net" / "runs.db", write=True))
        return Queue(opened[-1])

    yield reach
    for store in opened:
        store.close()


def _facts(queue: Queue) -> list[Queued]:
    queue.store.refresh()
    return [msgspec.structs.replace(one, number=0) for one in queue.all()]


def test_two_hosts_with_a_network_disk_never_take_the_same_run_and_see_the_same_queue(host: Host) -> None:
    a, b = host("a"), host("b")
    a.add([_run(a, name) for name in "abcdef"])
    taken = []
    for queue in (a, b, b, a, a, b):
        one = queue.take("w")
        assert one is not None
        taken.append(one.id)
    assert "".join(taken) == "abcdef"
    assert a.take("w") is None
    assert b.take("w") is None
    b.finish(b.one("a"))
    a.release(a.one("b"), "stopped")
    a.see("w", pid=7)
    b.ask("w", "drain")
    assert _facts(a) == _facts(b) == _facts(host("c"))
    for queue in (a, b, host("d")):
        queue.store.refresh()
        assert [(worker.pid, worker.asked) for worker in queue.workers()] == [(7, "drain")]
    assert [one.id for one in b.all("state = 'waiting'")] == ["b"]


def test_a_run_that_another_host_has_taken_unseen_is_not_taken(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = host("a"), host("b")
    a.add([_run(a, "a"), _run(a, "b")])
    b.store.refresh()
    one = a.take("of a")
    assert one is not None
    assert one.id == "a"
    whole = Journal.look

    def late(journal: Journal, names: set[str] | None = None) -> dict[str, FileState]:
        """What a wrote is not seen yet: a network disk may show an old folder for a minute."""
        return {name: state for name, state in whole(journal, names).items() if names or not name.startswith("taken-")}

    with monkeypatch.context() as blind:
        blind.setattr(Journal, "look", late)
        other = b.take("of b")
    assert other is not None
    assert other.id == "b"


def test_the_queue_of_a_database_that_came_to_a_network_disk_goes_on_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs.db"
    monkeypatch.setenv("DAMBENCH_DISK", "local")
    with closing(Store.open(path, write=True)) as store:
        before = Queue(store)
        before.add([_run(before, name) for name in "abc"])
        assert before.finish(before.take("w") or pytest.fail("there is one"))
        assert before.take("w")
    monkeypatch.setenv("DAMBENCH_DISK", "network")
    with closing(Store.open(path, write=True)) as store:
        queue = Queue(store)
        assert [(one.id, one.state) for one in queue.all()] == [("a", "finished"), ("b", "taken"), ("c", "waiting")]
        assert [one.id for one in queue.give_back([], "it was taken elsewhere")] == ["b"]
        assert _taken(queue) == "b c"
    with closing(Store.open(path)) as store:
        assert Queue(store).counts() == {"finished": 3}
