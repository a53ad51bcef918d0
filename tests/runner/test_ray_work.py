"""Ray by the command that people type, `queue work --executor ray`, whose worker and whose head are killed."""

import json
import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest

from dambench.store.runs import Store
from tests.runner.test_ray import _environment, _local, _rows, python

pytestmark = pytest.mark.slow
__all__ = ["python"]  # the fixture

ITERATIONS = 1500
SECONDS = 900.0
WORDS = [
    *("--dataset", "digits", "--method", "dm", "--network", "convnet-d1-w4", "--iterations", str(ITERATIONS)),
    *("--eval-repeats", "2", "--device", "cpu", "--threads", "1", "--set", "method.batch_real=8"),
    *("--checkpoint-every", "0.1"),
]


def _work(python: Path, base: Path, log: str) -> "subprocess.Popen[bytes]":
    with (base / log).open("wb") as file:
        return subprocess.Popen(
            [str(python), "-m", "dambench", "queue", "work", "--executor", "ray", "--workers", "2"],
            cwd=base,
            env=_environment(base),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def _until_it_trains(path: Path, worker: "subprocess.Popen[bytes]", more_than: int) -> None:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        assert worker.poll() is None, "the worker ended before anything was killed"
        with closing(Store.open(path)) as store:
            if store.query("select 1 from runs where done > ? and state = 'running' limit 1", more_than):
                return
        time.sleep(0.05)
    raise AssertionError("nothing was trained")


def _family(worker: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    return psutil.Process(worker.pid).children(recursive=True)


def test_a_queue_whose_worker_and_whose_head_are_killed_ends_as_on_one_machine(python: Path, tmp_path: Path) -> None:
    base = tmp_path / "ray"
    base.mkdir()
    added = subprocess.run(
        [str(python), "-m", "dambench", "queue", "add", *WORDS, "--seeds", "0,1", "--json"],
        cwd=base,
        env=_environment(base),
        check=True,
        capture_output=True,
        text=True,
    )
    assert len(json.loads(added.stdout)["queued"]) == 2
    family: list[psutil.Process] = []
    killed = []
    try:
        for kill, more_than in (("worker", 5), ("head", 200)):
            worker = _work(python, base, f"{kill}.log")
            _until_it_trains(base / "runs.db", worker, more_than)
            family += _family(worker)
            if kill == "worker":
                worker.kill()
            else:
                (head,) = [one for one in _family(worker) if "gcs_server" in " ".join(one.cmdline()[:1])]
                head.kill()
            killed.append(kill)
            try:
                worker.wait(timeout=120)
            except subprocess.TimeoutExpired:  # Ray's own patience with a head that has gone is longer
                worker.kill()
                worker.wait()
        last = _work(python, base, "last.log")
        assert last.wait(timeout=SECONDS) == 0, (base / "last.log").read_text()[-3000:]
    finally:
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.kill()
    assert killed == ["worker", "head"]
    rows = _rows(base / "runs.db")
    assert [row["state"] for row in rows] == ["finished", "finished"]
    assert rows == _local(tmp_path / "local", ITERATIONS)
