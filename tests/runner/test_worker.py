"""Workers with real processes: killed at random moments, they and their runs leave nothing stuck and nothing twice."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from dambench.runner import processes
from dambench.store.queue import Queue
from dambench.store.runs import Store

SHARED = [
    *("--dataset", "digits", "--network", "convnet-d1-w4", "--eval-repeats", "2", "--device", "cpu"),
    *("--threads", "1", "--checkpoint-every", "0.1"),
]
DM = [*SHARED, "--method", "dm", "--set", "method.batch_real=8", "--iterations", "300", "--seeds", "0-3"]
RANDOM = [*SHARED, "--method", "random", "--seeds", "0-1"]


def _dambench(*words: str, db: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "dambench", *words, "--db", db], capture_output=True, text=True, timeout=300
    )


def _work(db: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "dambench", "queue", "work", "--workers", "2", "--db", db],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _scores(db: str) -> list[tuple[Any, ...]]:
    sql = """select method, seed, scores.network, repeat, accuracy, balanced_accuracy, loss, scores.set_sha256
        from scores join runs on number = run where final = 1 and state = 'finished' order by 1, 2, 3, 4"""
    with closing(Store.open(Path(db))) as store:
        return [tuple(row.values()) for row in store.query(sql)]


def _pids_of_runs(db: str) -> list[int]:
    with closing(Store.open(Path(db))) as store:
        return [row.pid for row in store.unfinished() if processes.state(row) in processes.ALIVE]


def _end(db: str, workers: Sequence["subprocess.Popen[bytes]"]) -> None:
    for worker in workers:
        worker.kill()
        worker.wait()
    for pid in _pids_of_runs(db):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize(("kills", "iterations"), [(4, 300), (20, 3000)])
def test_after_kills_of_workers_and_runs_a_queue_gives_what_it_would_have_undisturbed(
    kills: int, iterations: int, tmp_path: Path
) -> None:
    calm, wild = str(tmp_path / "calm.db"), str(tmp_path / "wild.db")
    for db in (calm, wild):
        for what in (RANDOM, [str(iterations) if word == "300" else word for word in DM]):
            assert _dambench("queue", "add", *what, db=db).returncode == 0
    assert _dambench("queue", "work", db=calm).returncode == 0
    draw = random.Random(kills)
    workers = [_work(wild)]
    done = {"worker": 0, "run": 0}
    until = time.monotonic() + 60 * kills
    try:
        while sum(done.values()) < kills:
            assert time.monotonic() < until
            time.sleep(draw.uniform(0.5, 6))
            pids = _pids_of_runs(wild)
            if pids and draw.random() < 0.5:
                with suppress(ProcessLookupError):
                    os.kill(draw.choice(pids), signal.SIGKILL)
                    done["run"] += 1
            elif workers[-1].poll() is None:
                workers[-1].kill()
                workers[-1].wait()
                done["worker"] += 1
            if workers[-1].poll() is not None:
                with closing(Store.open(Path(wild))) as store:
                    if not Queue(store).counts().keys() - {"finished"}:
                        break
                workers.append(_work(wild))
        if workers[-1].poll() is not None:
            workers.append(_work(wild))
        assert workers[-1].wait(timeout=600) == 0
    finally:
        _end(wild, workers)
    with closing(Store.open(Path(wild))) as store:
        assert Queue(store).counts() == {"finished": 6}
        assert store.query("select state, count(*) n from runs group by 1") == [{"state": "finished", "n": 6}]
        assert {one.id for one in Queue(store).all()} == {row.id for row in store.runs("1")}
    assert sum(done.values()) == kills, done
    assert _scores(wild) == _scores(calm)
    assert len(_scores(calm)) == 12


@pytest.mark.slow
def test_two_workers_share_a_queue_and_a_signal_stops_one_with_what_it_runs(tmp_path: Path) -> None:
    db = str(tmp_path / "runs.db")
    assert _dambench("queue", "add", *[word if word != "300" else "3000" for word in DM], db=db).returncode == 0
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "dambench", "queue", "work", "--workers", "1", "--db", db],
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        until = time.monotonic() + 120
        taken: list[Any] = []
        while len(taken) < 2:
            assert time.monotonic() < until
            time.sleep(0.5)
            with closing(Store.open(Path(db))) as store:
                taken = store.query("select id, done from runs where phase = 'distil' and done > 10")
        workers[0].send_signal(signal.SIGINT)
        _, said = workers[0].communicate(timeout=120)
        assert workers[0].returncode == 130
        assert "what it had begun waits with a checkpoint" in said
        with closing(Store.open(Path(db))) as store:
            states = [one.state for one in Queue(store).all()]
            assert len({row.id for row in store.runs("1")}) == len(store.runs("1")) >= 2
        assert states.count("waiting") >= 2  # the other goes on, and takes them
        workers[1].send_signal(signal.SIGTERM)
        workers[1].communicate(timeout=120)
        assert workers[1].returncode == 143
        listed = json.loads(_dambench("queue", "list", "--json", db=db).stdout)
        assert listed["counts"] == {"waiting": 4}
        assert listed["workers"] == []
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
        _end(db, [])
