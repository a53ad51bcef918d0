"""Many processes on one database: nobody fails, and nothing is lost."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import quantiles
from typing import Any

import pytest

from dambench.store import database
from dambench.store.database import backups
from dambench.store.queue import Queue
from dambench.store.runs import Store
from dambench.store.version import VERSION
from tests.ledger import CARD, SCHEMAS, config, older
from tests.store.worker import STEPS

ROOT = Path(__file__).parents[2]

PROCESSES = 8


class Workers:
    """Processes of tests/store/worker.py."""

    def __init__(self, number: int):
        self._all = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.store.worker"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(number)
        ]
        assert [self._hear(worker) for worker in self._all] == ["ready"] * number

    def ask(self, *asked: list[Any]) -> list[Any]:
        """Tell each what to do, all at once, and wait for all their answers."""
        for worker, what in zip(self._all, asked, strict=True):
            assert worker.stdin is not None
            worker.stdin.write(json.dumps(what) + "\n")
            worker.stdin.flush()
        return [self._hear(worker) for worker in self._all]

    def close(self) -> None:
        for worker in self._all:
            worker.communicate(timeout=60)

    @staticmethod
    def _hear(worker: "subprocess.Popen[str]") -> Any:
        assert worker.stdout is not None
        return json.loads(worker.stdout.readline())


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with closing(Workers(PROCESSES)) as found:
        yield found


def test_what_is_written_is_kept_where_one_process_opened_the_file_twice_and_another_ended_meanwhile(
    workers: Workers, tmp_path: Path
) -> None:
    path = tmp_path / "runs.db"
    nothing = [["open", str(tmp_path / "other.db")]] * (PROCESSES - 1)
    with closing(Store.open(path, write=True)) as store:
        store.create(config(), CARD)
        Store.open(path, write=True).close()
        Store.open(path).close()
        # The last connection that is closed removes the log; this one must not be taken for the last.
        assert workers.ask(["open", str(path)], *nothing)[0] == ["done", 1]
        store.create(config(seed=1), CARD)
        assert workers.ask(["open", str(path)], *nothing)[0] == ["done", 2]


def test_few_of_the_files_that_were_looked_at_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "MOST_HANDLES", 3)
    monkeypatch.setattr(database, "_looked_at", {})
    for n in range(5):
        Store.open(tmp_path / f"{n}.db", write=True).close()
        for _ in range(2):
            database.identify(tmp_path / f"{n}.db")
    assert [os.stat(tmp_path / f"{n}.db").st_ino for n in (2, 3, 4)] == [file for _, file in database._looked_at]


@pytest.mark.parametrize("rounds", [3, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("schema", [*SCHEMAS, None])
def test_eight_processes_may_bring_a_file_up_to_date_at_once_or_make_it(
    workers: Workers, schema: int | None, rounds: int, tmp_path: Path
) -> None:
    original = tmp_path / "original.db"
    if schema:
        older(original, schema)
    for n in range(rounds):
        path = tmp_path / f"{n}.db"
        if schema:
            shutil.copyfile(original, path)
        answers = workers.ask(*[["open", str(path)]] * PROCESSES)
        assert answers == [["done", 3 if schema else 0]] * PROCESSES
        with closing(Store.open(path)) as store:
            assert store.query("pragma user_version") == [{"user_version": VERSION}]
            assert store.query("pragma integrity_check") == [{"integrity_check": "ok"}]
            assert len(store.query("select distinct uid from runs")) == (3 if schema else 0)
            assert store.query("select count(*) n from events") == [{"n": 22 if schema else 0}]
        assert schema is None or len(backups(path, schema)) == 1
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".new")]


@pytest.mark.parametrize("runs", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_eight_processes_that_take_queued_runs_never_take_one_twice(
    workers: Workers, runs: int, tmp_path: Path
) -> None:
    path = tmp_path / "runs.db"
    with closing(Store.open(path, write=True)) as store:
        queue = Queue(store)
        queued = [queue.new({"seed": seed}, seed=seed) for seed in range(runs)]
        later = [queue.new({}, after=[one.uid]) for one in queued[:10]]
        queue.add([*later, *queued])
        answers = workers.ask(*[["take", str(path), f"worker {n}"] for n in range(PROCESSES)])
        taken = [one for _, ids in answers for one in ids]
        assert len(taken) >= runs + 1  # who comes last may see that what comes later still waits
        taken += [one.id for one in iter(lambda: queue.take("last"), None) if queue.finish(one)]
        assert sorted(taken) == sorted(one.id for one in queue.all())
        assert {one.attempt for one in queue.all()} == {1}
        assert queue.counts() == {"finished": runs + 10}


@pytest.mark.parametrize("seconds", [1.0, pytest.param(60.0, marks=pytest.mark.slow)])
def test_four_writers_and_a_reader_lose_nothing_and_never_find_it_locked(
    workers: Workers, seconds: float, tmp_path: Path
) -> None:
    path = tmp_path / "runs.db"
    Store.open(path, write=True).close()
    asked: list[list[Any]] = [["write", str(path), seed, seconds] for seed in range(4)]
    idle = [["open", str(path)]] * (PROCESSES - 5)
    answers = workers.ask(*asked, ["read", str(path), seconds], *idle)
    assert [answer[0] for answer in answers] == ["done"] * PROCESSES, answers
    taken: dict[str, int] = {}
    for _, runs in answers[:4]:
        taken |= runs
    assert len(taken) >= 4
    with closing(Store.open(path)) as store:
        rows = store.query("""
            select id, state, (select count(*) from events where run = number) as events,
                (select count(*) from samples where run = number) as samples from runs
        """)
        # What it took less the Progressed, of which no row is kept.
        assert {row["id"]: row["events"] + row["samples"] + 1 for row in rows} == taken
        assert {(row["state"], row["events"]) for row in rows} == {("finished", STEPS + 7)}
        assert store.query("pragma integrity_check") == [{"integrity_check": "ok"}]
        assert store.query("pragma foreign_key_check") == []
    looks = answers[4][1]
    p95 = quantiles(looks, n=20)[-1] * 1000
    print(f"{len(taken)} runs, {sum(taken.values())} events in {seconds:.0f} s; {len(looks)} looks, p95 {p95:.1f} ms")
