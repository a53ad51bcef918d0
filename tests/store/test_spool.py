"""Spools: what a run on another host says comes into the one database once, whatever is lost, late or killed."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dambench.core import files
from dambench.core.errors import BadInput, NotKept
from dambench.core.events import AnyEvent, Checkpointed, Finished, Resumed, Sampled, Snapshot, Stepped
from dambench.store import records, spool
from dambench.store.recorder import Recorder
from dambench.store.records import AttemptSuperseded, LogRecord, RunCreated
from dambench.store.runs import NO_PROCESS, Store
from dambench.store.spool import Answer, Batch, Seed, Spool, Unreachable
from tests.ledger import CARD, ENVIRONMENT, PNG, config, costs, words
from tests.store.hosts import Line, at

UID = "ab" * 16
RUN = config("dm", seed=1)


class Node:
    """A host that carries out runs."""

    def __init__(self, home: Path):
        self.home = home

    def begin(self, line: Line, held: Sequence[int] = ()) -> tuple[Spool, Seed]:
        with at(self.home):
            begun = line.begin(UID, held)
            seed = line.seed(UID, begun.claim, [])
            made = Spool(self.home / "spool" / f"{UID}.{begun.claim}", UID, begun.claim)
            made.prepare(seed)
            made.fetch(line, seed)
            return made, seed

    def write(self, made: Spool, lines: Sequence[LogRecord]) -> None:
        with at(self.home, "network"), closing(Store.open(made.path, write=True)) as store:
            store.write(lines)

    def say(self, made: Spool, events: Iterable[AnyEvent], attempt: int = 1, run: str = UID) -> None:
        with at(self.home, "network"), closing(Store.open(made.path, write=True)) as store:
            row = store.with_uid(run)
            assert row is not None
            list(Recorder(store, row.id, attempt).record(events))

    def ship(self, made: Spool, line: Line) -> bool:
        with at(self.home):
            return made.ship(line)

    def keep(self, name: str, content: bytes) -> None:
        with at(self.home):
            files.write_whole(spool.path_of(name), content)


def created(uid: str = UID, run_id: str = "abc234") -> RunCreated:
    return RunCreated(
        uid=uid, id=run_id, name="", tags=["one"], at=records.now(), config=RUN, card=CARD, process=NO_PROCESS
    )


def resumed(attempt: int, iteration: int) -> Resumed:
    return Resumed(attempt=attempt, iteration=iteration, checkpoint="", environment=ENVIRONMENT, process=NO_PROCESS)


def checkpoint(iteration: int, content: bytes) -> Checkpointed:
    return Checkpointed(iteration=iteration, sha256=files.digest(content), size_bytes=len(content), seconds=0.1)


def steps(first: int, last: int) -> list[AnyEvent]:
    made: list[AnyEvent] = [Stepped(iteration=n, losses={"a": 1 / n}, seconds=float(n)) for n in range(first, last + 1)]
    return [*made[:-1], Sampled(seconds=float(last)), *made[-1:]]


STARTED = next(iter(words(RUN)))


def ends(content: bytes = b"a set") -> list[AnyEvent]:
    sha256 = files.digest(content)
    about: dict[str, Any] = {"shape": [2, 1, 8, 8], "dtype": "float32", "preview": PNG}
    measured = list(words(RUN))[-2]
    return [
        Snapshot(iteration=9, sha256=sha256, size_bytes=len(content), **about),
        measured,
        Finished(set_sha256=sha256, costs=costs()),
    ]


def contents(head: Path) -> dict[str, Any]:
    """All that the head's database holds of runs but who is alive, when."""
    with at(head), closing(Store.open(head / "runs.db")) as store:
        assert store.query("pragma integrity_check") == [{"integrity_check": "ok"}]
        tables = ("events", "samples", "evaluations", "measurements", "artifacts", "checkpoints", "previews", "costs")
        found: dict[str, Any] = {
            table: store.query(f"select * from {table} order by {'sequence' if table in ('events', 'samples') else 1}")
            for table in tables
        }
        found["runs"] = [
            {name: row[name] for name in ("uid", "id", "state", "attempt", "done", "set_sha256", "results_sha256")}
            for row in store.query("select * from runs order by uid")
        ]
        found["tags"] = store.query("select tag from tags")
        return found


@pytest.fixture
def head(tmp_path: Path) -> Path:
    (tmp_path / "head").mkdir()
    return tmp_path / "head"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "node")


def test_what_a_spool_says_is_in_the_database_as_if_it_had_been_said_there(
    head: Path, node: Node, tmp_path: Path
) -> None:
    said = [STARTED, *steps(1, 9), *ends()]
    line = Line(head)
    made, seed = node.begin(line)
    assert seed == Seed(b"", [], {})
    node.write(made, [created()])
    node.say(made, said)
    assert node.ship(made, line)
    assert made.rest == 0
    with at(tmp_path / "other"), closing(Store.open(tmp_path / "other.db", write=True)) as store:
        store.write([created()])
        list(store.record("abc234", said))
    with at(head), closing(Store.open(head / "runs.db")) as store, closing(Store.open(tmp_path / "other.db")) as other:
        for sql in (
            "select sequence, kind, body from events",
            "select sequence, seconds from samples",
            "select * from measurements",
            "select state, results_sha256, done from runs",
            "select * from tags",
        ):
            assert store.query(sql) == other.query(sql) != []


def test_lost_answers_repeats_and_late_batches_neither_lose_nor_double_a_row(
    head: Path, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "BATCH_BYTES", 300)
    chance = random.Random(1)

    def fault(name: str, when: str) -> None:
        if chance.random() < 0.3:
            raise Unreachable(when)

    line = Line(head, fault)
    quiet = Line(head)
    node_spool, _ = node.begin(quiet)
    node.write(node_spool, [created()])
    for part in ([STARTED, *steps(1, 4)], [*steps(5, 9), *ends()]):
        node.say(node_spool, part)
        while True:
            try:
                if node.ship(node_spool, line):
                    break
            except Unreachable:
                with at(head):  # what was on its way comes late, and once more
                    for batch in chance.sample(line.batches, min(3, len(line.batches))):
                        line.intake.take(batch)
                if chance.random() < 0.2:
                    line.restart()
    assert len(line.batches) > 10
    before = contents(head)
    iterations = [n["sequence"] for n in before["events"]]
    assert len(iterations) == len(set(iterations)) == 1 + 9 + 3
    assert (len(before["samples"]), before["runs"][0]["state"]) == (2, "finished")
    with at(head):
        for batch in [*line.batches, *reversed(line.batches)]:
            assert not line.intake.take(batch).superseded
    assert contents(head) == before


def test_a_batch_that_comes_before_the_one_before_it_is_not_taken(head: Path, node: Node) -> None:
    line = Line(head)
    made, _ = node.begin(line)
    node.write(made, [created()])
    node.say(made, [STARTED, *steps(1, 9)])
    name = f"{UID}.1.jsonl"
    content = (made.folder / "runs.db.d" / name).read_bytes()
    cut = content.index(b"\n") + 1
    assert line.take(Batch(UID, 1, name, cut, content[cut:])) == Answer(0)
    assert line.take(Batch(UID, 1, name, 0, content[:cut])) == Answer(cut)
    assert line.take(Batch(UID, 1, name, 0, content)) == Answer(len(content))
    assert len(contents(head)["events"]) == 10


def test_what_is_known_of_a_batch_besides_the_database_may_be_lost(head: Path, node: Node) -> None:
    line = Line(head)
    made, _ = node.begin(line)
    node.write(made, [created()])
    node.say(made, [STARTED, *steps(1, 9)])
    assert node.ship(made, line)
    before = contents(head)
    claim = head / "claims" / f"{UID}.json"
    claim.write_text('{"number": 1, "taken": {}}')
    again = Spool(made.folder, UID, 1)
    assert node.ship(again, line)
    assert contents(head) == before


def test_after_another_claim_the_earlier_one_is_refused_whatever_it_sends(
    head: Path, node: Node, tmp_path: Path
) -> None:
    line, other = Line(head), Node(tmp_path / "other")
    first, _ = node.begin(line)
    node.write(first, [created()])
    state = b"a checkpoint"
    node.keep(f"runs/{UID}/{files.digest(state)}.safetensors", state)
    node.say(first, [STARTED, *steps(1, 4), checkpoint(4, state), *steps(5, 6)])
    assert node.ship(first, line)
    second, seed = other.begin(line)
    assert (second.claim, seed.row["done"]) == (2, 6)
    # The first one was only cut off, and goes on.
    node.say(first, [*steps(7, 9), *ends()])
    assert not node.ship(first, line)
    assert first.superseded
    before = contents(head)
    assert before["runs"][0]["done"] == 6
    with pytest.raises(AttemptSuperseded):
        line.seed(UID, 1, [])
    # The second one has the checkpoint, and goes on from it.
    with at(other.home):
        assert spool.path_of(f"runs/{UID}/{files.digest(state)}.safetensors").read_bytes() == state
    other.say(second, [resumed(2, 4), *steps(5, 9), *ends()], attempt=2)
    assert other.ship(second, line)
    assert not node.ship(first, line)
    found = contents(head)
    assert found["runs"][0] | {"results_sha256": ""} == {
        "uid": UID,
        "id": "abc234",
        "state": "finished",
        "attempt": 2,
        "done": 9,
        "set_sha256": files.digest(b"a set"),
        "results_sha256": "",
    }
    steps_there = [event for event in found["events"] if event["kind"] == "stepped"]
    assert len(steps_there) == 9


def test_a_later_attempt_is_refused_nothing_by_an_earlier_one_in_the_same_claim(head: Path, node: Node) -> None:
    line = Line(head)
    first, _ = node.begin(line)
    node.write(first, [created()])
    node.say(first, [STARTED, *steps(1, 4)])
    assert node.ship(first, line)
    with at(head), closing(Store.open(head / "runs.db", write=True)) as store:
        list(store.record("abc234", [resumed(2, -1), *steps(1, 2)], attempt=2))  # by hand, on the head
    node.say(first, steps(5, 9))
    assert not node.ship(first, line)
    assert first.superseded
    assert contents(head)["runs"][0]["done"] == 2


def test_the_spool_of_a_worker_that_was_killed_is_sent_by_the_next_on_its_host(head: Path, node: Node) -> None:
    line = Line(head)
    first, _ = node.begin(line)
    node.write(first, [created()])
    node.say(first, [STARTED, *steps(1, 4)])
    assert node.ship(first, line)
    node.say(first, [*steps(5, 9), *ends()])  # and nobody is there to send it
    with at(node.home):
        begun = line.begin(UID, [1])
        assert begun == (2, 1)
        left = Spool(first.folder, UID, begun.claim)
    assert node.ship(left, line)
    assert line.seed(UID, 2, []).row["state"] == "finished"
    assert len(contents(head)["events"]) == 13
    # Of an earlier one than the last it is not gone on with.
    assert line.begin(UID, [1]) == (3, 0)


def test_files_come_before_the_lines_that_name_them_and_whole(
    head: Path, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "PIECE_BYTES", 10)
    state, made_set = bytes(range(95)), bytes(range(50, 200))
    names = [f"runs/{UID}/{files.digest(state)}.safetensors", f"sets/{files.digest(made_set)}.safetensors"]
    node.keep(names[0], state)
    node.keep(names[1], made_set)
    chance = random.Random(2)

    def fault(name: str, when: str) -> None:
        if chance.random() < 0.2:
            raise Unreachable(when)

    quiet, line = Line(head), Line(head, fault)
    made, _ = node.begin(quiet)
    node.write(made, [created()])
    node.say(made, [STARTED, *steps(1, 4), checkpoint(4, state)])

    def until_all_is_there() -> None:
        while True:
            try:
                if node.ship(made, line):
                    return
            except Unreachable:
                named = [row["sha256"] for row in contents(head)["checkpoints"]] if (head / "runs.db").exists() else []
                with at(head):
                    assert all(spool.path_of(f"runs/{UID}/{sha256}.safetensors").is_file() for sha256 in named)

    until_all_is_there()
    with at(head):
        assert spool.path_of(names[0]).read_bytes() == state
    node.say(made, [*steps(5, 9), *ends(made_set)])
    until_all_is_there()
    with at(head):
        assert spool.path_of(names[1]).read_bytes() == made_set
        assert not spool.path_of(names[0]).exists()  # the run is finished
        assert not list((head / "claims").glob("*.incoming"))


def test_of_checkpoints_the_head_keeps_what_the_record_names_and_of_others_nothing_is_removed(
    head: Path, node: Node
) -> None:
    line = Line(head)
    made, _ = node.begin(line)
    node.write(made, [created()])
    node.say(made, [STARTED])
    states = [b"1", b"22", b"333", b"4444"]
    folder = head / "runs" / UID
    for number, state in enumerate(states, 1):
        node.keep(f"runs/{UID}/{files.digest(state)}.safetensors", state)
        node.say(made, [*steps(number, number), checkpoint(number, state)])
        assert node.ship(made, line)
        (folder / "not-said-yet.safetensors").touch()
    kept = {path.name.partition(".")[0] for path in folder.iterdir()}
    assert kept == {"not-said-yet", files.digest(b"333"), files.digest(b"4444")}


def test_a_file_that_is_not_what_its_name_says_is_not_kept(head: Path) -> None:
    line = Line(head)
    line.begin(UID, [])
    name = f"sets/{'0' * 64}.safetensors"
    assert line.add(UID, 1, name, 0, b"something else", True) == 0
    assert line.lacks(UID, 1, name) == 0
    assert not list((head / "sets").glob("*")) if (head / "sets").exists() else True


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", f"sets/../{'0' * 64}.safetensors", "data/x.safetensors", "runs.db"]
)
def test_no_file_but_those_of_runs_is_given_or_taken(head: Path, name: str) -> None:
    line = Line(head)
    for call, values in ((line.fetch, (name, 0)), (line.add, (UID, 1, name, 0, b"", True))):
        with pytest.raises(BadInput, match="No file of a run is called so"):
            call(*values)


def test_whoever_asks_a_run_to_stop_on_the_head_is_heard_on_its_host(head: Path, node: Node) -> None:
    line = Line(head)
    made, _ = node.begin(line)
    node.write(made, [created()])
    node.say(made, [STARTED, *steps(1, 4)])
    assert node.ship(made, line)
    assert not made.stop_asked
    with at(head), closing(Store.open(head / "runs.db", write=True)) as store:
        store.edit("abc234", "stop_asked", 1)
        before = store.run("abc234").beat_at
    time.sleep(0.002)
    with at(node.home):
        made.beat(line)
    assert made.stop_asked
    with at(head), closing(Store.open(head / "runs.db")) as store:
        assert store.run("abc234").beat_at > before


def test_lines_that_no_run_says_are_left_out_and_counted(head: Path, node: Node) -> None:
    line = Line(head)
    made, _ = node.begin(line)
    node.write(made, [created()])
    node.say(made, [STARTED, *steps(1, 4)])
    path = made.folder / "runs.db.d" / f"{UID}.1.jsonl"
    with path.open("ab") as file:
        file.write(b'{"torn\n\n')
    node.say(made, steps(5, 9))
    assert node.ship(made, line)
    assert made.unread == 1
    assert len(contents(head)["events"]) == 10


def test_a_database_that_cannot_be_written_now_loses_nothing(
    head: Path, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line(head)
    made, _ = node.begin(line)
    node.write(made, [created()])
    node.say(made, [STARTED, *steps(1, 9)])
    with monkeypatch.context() as patch:

        def full(*values: Any) -> None:
            raise NotKept("The disk is full.")

        patch.setattr(Store, "write", full)
        with pytest.raises(NotKept, match="full"):
            node.ship(made, line)
    assert node.ship(made, line)
    assert len(contents(head)["events"]) == 10


_KILLED = """
import os, sys, time
from pathlib import Path
from dambench.store.spool import Batch, Intake
intake = Intake(Path(sys.argv[1]))
name, content = sys.argv[2], Path(sys.argv[3]).read_bytes()
offset = 0
print("ready", flush=True)
while offset < len(content):
    line = content[offset : content.index(b"\\n", offset) + 1]
    offset = intake.take(Batch(name[:32], 1, name, offset, line)).taken
    print(offset, flush=True)
"""


@pytest.mark.parametrize("kills", [1, pytest.param(40, marks=pytest.mark.slow)])
def test_whoever_takes_batches_may_be_killed_at_any_moment(kills: int, head: Path, node: Node, tmp_path: Path) -> None:
    line = Line(head)
    made, _ = node.begin(line)
    node.write(made, [created()])
    node.say(made, [STARTED, *steps(1, 400)])
    path = made.folder / "runs.db.d" / f"{UID}.1.jsonl"
    size, acknowledged, chance = path.stat().st_size, 0, random.Random(3)
    for _ in range(kills):
        # From the beginning each time: what is there is not applied again, and the answer says where it goes on.
        taker = subprocess.Popen(
            [sys.executable, "-c", _KILLED, str(head / "runs.db"), path.name, str(path)],
            env=os.environ | {"DAMBENCH_HOME": str(head)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert taker.stdout is not None
        assert taker.stdout.readline() == "ready\n"
        time.sleep(chance.random() * 0.3)
        taker.kill()
        said = [int(word) for word in taker.communicate()[0].split("\n")[:-1]]
        acknowledged = max([acknowledged, *said])
        line.restart()
        assert line.take(Batch(UID, 1, path.name, 0, b"")).taken >= acknowledged
    line.restart()
    assert node.ship(Spool(made.folder, UID, 1), line)
    assert line.take(Batch(UID, 1, path.name, 0, b"")).taken == size
    found = contents(head)
    assert [event["sequence"] for event in found["events"]] == [*range(1, 401), 402]
    assert [sample["sequence"] for sample in found["samples"]] == [401]
