"""The same runs through every executor, and killed again and again: the same sets and scores, bit for bit."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from dambench.runner import processes, slurm
from dambench.runner.executors import Wishes
from dambench.runner.executors import slurm as executor_of_slurm
from dambench.runner.slurm import JobLook, SlurmSettings
from dambench.runner.slurm_job import JobSpec, SlurmJob
from dambench.runner.worker import Worker
from dambench.store.queue import Queue
from dambench.store.runs import Store
from tests.runner.tiny_slurm import NotHere, submitit_in, tiny_slurm

pytestmark = pytest.mark.slow

SHARED = {"dataset": "digits", "network": "convnet-d1-w4", "eval_repeats": 2, "device": "cpu", "checkpoint_every": 0.2}
DM = {"name": "dm", "batch_real": 8}
RUNS: tuple[dict[str, Any], ...] = (
    {"method": "random", "seed": 0},
    {"method": "herding", "seed": 0},
    {"method": DM, "iterations": 4000, "seed": 0},
    {"method": DM, "iterations": 4000, "seed": 1},
)
KILLS = 20
APART = 20
"""Iterations after which a job is signalled."""


class LocalCluster:
    """Submitit's own executor on one machine, in the place of a cluster."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._jobs: dict[str, Any] = {}

    def submit(self, specs: Sequence[JobSpec], settings: SlurmSettings) -> list[str]:
        from submitit import LocalExecutor

        executor = LocalExecutor(self.folder)
        executor.update_parameters(timeout_min=settings.minutes, stderr_to_stdout=True)
        jobs = [executor.submit(SlurmJob(spec)) for spec in specs]
        self._jobs |= {str(job.job_id): job for job in jobs}
        return [str(job.job_id) for job in jobs]

    def look(self, jobs: Sequence[str]) -> dict[str, JobLook]:
        return {job: JobLook("COMPLETED" if self._jobs[job].done() else "RUNNING") for job in jobs if job in self._jobs}

    def cancel(self, jobs: Sequence[str]) -> None:
        for job in jobs:
            os.kill(int(job), signal.SIGTERM)


@pytest.fixture(scope="module")
def submitit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return submitit_in(tmp_path_factory.mktemp("submitit"))
    except NotHere as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the runs give through the local executor, undisturbed."""
    place = tmp_path_factory.mktemp("reference")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAMBENCH_HOME", str(place / "home"))
        patch.setenv("DAMBENCH_DISK", "local")
        yield _made(place / "runs.db", "local", Wishes(workers=1))


def _made(
    path: Path, executor: str, wishes: Wishes, meanwhile: Callable[[Store], None] = lambda store: None
) -> dict[str, Any]:
    """Queue the runs, work until all are over, and say what each gave."""
    said: list[str] = []
    with closing(Store.open(path, write=True)) as store:
        queue = Queue(store)
        queue.add([queue.new(SHARED | run, threads=1) for run in RUNS])

        def stopping() -> bool:
            meanwhile(store)
            return False

        tally = Worker(store, executor, wishes, said.append, stopping).work()
        assert (len(tally.finished), tally.failed) == (len(RUNS), []), said
        assert [row["state"] for row in store.query("select state from queue")] == ["finished"] * len(RUNS)
        rows = store.runs("1")
        assert len(rows) == len(RUNS)
        scores = "select network, repeat, accuracy, loss, train_accuracy from scores where run = ? order by 1, 2"
        assert store.query("select distinct threads from environments") == [{"threads": 1}]
        return {
            f"{row.method} {row.seed}": (
                row.set_sha256,
                [tuple(one.values()) for one in store.query(scores, row.number)],
            )
            for row in rows
        }


def test_killed_twenty_times_in_all_the_runs_give_the_same(reference: dict[str, Any], tmp_path: Path) -> None:
    killed: list[tuple[int, int]] = []

    def kill(store: Store) -> None:
        """Kill a run that has got further than where its last process was killed."""
        for row in store.unfinished():
            further = store.last_checkpoint(row) or 0
            before = [at for number, at in killed if number == row.number]
            is_further = further > max(before, default=0)
            if is_further and len(before) < KILLS // 2 and processes.state(row) == "running":
                assert processes.send(row, signal.SIGKILL)
                killed.append((row.number, further))

    assert _made(tmp_path / "runs.db", "local", Wishes(workers=1), kill) == reference
    assert len(killed) == KILLS


def test_through_submitit_on_one_machine_signalled_the_runs_give_the_same(
    reference: dict[str, Any], submitit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(submitit))
    monkeypatch.syspath_prepend(str(submitit))
    monkeypatch.setattr(slurm, "check", lambda settings: None)
    monkeypatch.setattr(executor_of_slurm, "SlurmCluster", LocalCluster)
    signalled: set[int] = set()

    def time_is_up(store: Store) -> None:
        """Tell the job of a run, once, what Slurm would tell it."""
        for row in store.unfinished():
            if row.number not in signalled and (store.last_checkpoint(row) or 0) > APART:
                signalled.add(row.number)
                os.kill(psutil.Process(row.pid).ppid(), signal.SIGUSR2)

    assert _made(tmp_path / "runs.db", "slurm", Wishes(workers=2), time_is_up) == reference
    with closing(Store.open(tmp_path / "runs.db")) as store:
        attempts = store.query("select method, attempt from runs order by method, attempt")
    assert [tuple(one.values()) for one in attempts] == [("dm", 2), ("dm", 2), ("herding", 1), ("random", 1)]


def test_through_slurm_the_runs_give_the_same(
    reference: dict[str, Any],
    submitit: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(submitit))
    monkeypatch.syspath_prepend(str(submitit))
    monkeypatch.setenv("DAMBENCH_DISK", "network")
    try:
        with tiny_slurm(tmp_path_factory.mktemp("slurm")) as cluster:
            monkeypatch.setenv("SLURM_CONF", str(cluster.configuration))
            wishes = Wishes(options={"partition": "main", "time": "20"})
            assert _made(tmp_path / "runs.db", "slurm", wishes) == reference
    except NotHere as error:
        pytest.skip(f"No Slurm: {error}")
