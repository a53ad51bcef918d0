"""Queued runs on a real Slurm of two nodes, over a journal as on a network disk: put back, made to give way, killed."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dambench.cli.app import run_cli
from dambench.core.errors import BadInput
from dambench.runner import executors, slurm_job
from dambench.runner.executors import Executor, Outcome, Site, Wishes
from dambench.runner.slurm_job import JobRecord, Slice
from dambench.store.queue import Queue, Queued
from dambench.store.rows import RunRow
from dambench.store.runs import Store
from tests.runner.tiny_slurm import NotHere, TinySlurm, submitit_in, tiny_slurm

pytestmark = pytest.mark.slow

SMALL = {
    "dataset": "digits",
    "network": "convnet-d1-w4",
    "eval_repeats": 2,
    "device": "cpu",
    "method": {"name": "random"},
}
LONG = SMALL | {"method": {"name": "dm", "batch_real": 8}, "iterations": 3000, "checkpoint_every": 2.0}


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TinySlurm, Path]]:
    """A cluster, and a folder with submitit."""
    try:
        submitit = submitit_in(tmp_path_factory.mktemp("submitit"))
        with tiny_slurm(tmp_path_factory.mktemp("slurm")) as cluster:
            yield cluster, submitit
    except NotHere as error:
        pytest.skip(f"No Slurm: {error}")


class Lab:
    """An open journal, its queue, and an executor."""

    def __init__(self, cluster: TinySlurm, path: Path, store: Store):
        self.cluster, self.path, self.store, self.queue = cluster, path, store, Queue(store)

    def executor(self, **options: str) -> Executor:
        wishes = Wishes(options={"partition": "main", "time": "10", "grace": "60"} | options)
        return executors.open_executor("slurm", Site(self.path, self.store, "w" * 32), wishes)

    def queued(self, request: dict[str, Any], count: int = 1) -> list[Queued]:
        return self.queue.add([self.queue.new(request | {"seed": seed}, threads=1) for seed in range(count)]).new

    def outcomes(
        self, executor: Executor, handles: list[Any], meanwhile: Callable[[], None] = lambda: None, seconds: float = 400
    ) -> list[Outcome]:
        found: dict[int, Outcome] = {}
        until = time.monotonic() + seconds
        while len(found) < len(handles):
            assert time.monotonic() < until, self.cluster.ask("squeue") + self.logs()
            for index, handle in enumerate(handles):
                if index not in found and (outcome := executor.poll(handle)) is not None:
                    found[index] = outcome
            meanwhile()
            time.sleep(0.25)
        return [found[index] for index in range(len(handles))]

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in self.path.parent.rglob("*_log.out"))

    def row(self, queued: Queued) -> RunRow:
        self.store.refresh()
        row = self.store.with_uid(queued.run)
        assert row is not None
        return row

    def iteration(self, queued: Queued) -> int:
        self.store.refresh()
        row = self.store.with_uid(queued.run)
        return row.done if row and row.state == "running" else 0

    def slices(self, handle: Any) -> list[Slice]:
        folder = self.path.parent / "runs.db.slurm"
        path = slurm_job.record_path(folder, handle.queued.run, handle.spec.token)
        record = slurm_job.read(path, JobRecord)
        return record.slices if record else []

    def result(self, uid: str) -> tuple[Any, ...]:
        self.store.refresh()
        row = self.store.with_uid(uid)
        assert row is not None
        sql = "select network, repeat, accuracy, loss from scores where run = ? order by network, repeat"
        return row.set_sha256, tuple(tuple(one.values()) for one in self.store.query(sql, row.number))


@pytest.fixture
def lab(there: tuple[TinySlurm, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    cluster, submitit = there
    monkeypatch.setenv("SLURM_CONF", str(cluster.configuration))
    monkeypatch.setenv("DAMBENCH_DISK", "network")
    monkeypatch.setenv("PYTHONPATH", str(submitit))
    monkeypatch.syspath_prepend(str(submitit))
    cluster.wait_for("idle")
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        yield Lab(cluster, tmp_path / "runs.db", store)
    cluster.ask("scancel", "-p", "main,urgent")


def _alone(lab: Lab, request: dict[str, Any], queued: Queued) -> tuple[Any, ...]:
    """What the same request gives without Slurm, never interrupted."""
    method = dict(request["method"])
    words = ["run", "--headless", "--again", "--method", str(method.pop("name")), "--seed", str(queued.request["seed"])]
    words += ["--dataset", "digits", "--network", "convnet-d1-w4", "--eval-repeats", "2", "--device", "cpu"]
    words += ["--threads", "1", "--tag", "alone"]
    words += [word for name, value in method.items() for word in ("--set", f"method.{name}={value}")]
    words += ["--iterations", str(request["iterations"])] if "iterations" in request else []
    assert run_cli(words) == 0
    lab.store.refresh()
    (row,) = lab.store.runs("number in (select run from tags where tag = 'alone') order by number desc limit 1")
    return lab.result(row.uid)


def test_runs_of_an_array_are_made_on_both_nodes_and_each_is_there_once(lab: Lab) -> None:
    executor = lab.executor()
    queued = lab.queued(SMALL, 6)
    handles: list[Any] = [executor.start(one) for one in queued]
    outcomes = lab.outcomes(executor, handles)
    assert [(one.state, one.run) for one in outcomes] == [("finished", one.run) for one in queued], lab.logs()
    assert len({handle.job.partition("_")[0] for handle in handles}) == 1
    lab.store.refresh()
    rows = lab.store.runs("1")
    assert sorted(row.uid for row in rows) == sorted(one.run for one in queued)
    assert {row.host for row in rows} == {"n1", "n2"}
    threads = lab.store.query("select distinct threads from environments")
    assert threads == [{"threads": 1}]
    assert len({lab.result(one.run) for one in queued}) == 6
    assert lab.result(queued[3].run) == _alone(lab, SMALL, queued[3])
    left = [path.name for path in (lab.path.parent / "runs.db.slurm").iterdir()]
    assert left == ["jobs"]


def test_when_its_time_is_up_a_run_is_put_back_and_ends_as_one_never_interrupted(lab: Lab) -> None:
    executor = lab.executor(time="2", grace="60")
    (queued,) = lab.queued(LONG | {"iterations": 20000, "checkpoint_every": 300.0})
    handle: Any = executor.start(queued)
    standings: list[str] = []
    iterations = []

    def watch() -> None:
        standings.append(handle.look.reason)
        iterations.append(lab.iteration(queued))
        if len(lab.slices(handle)) == 2 and iterations[-1]:
            executor.stop(handle)  # that is enough

    (outcome,) = lab.outcomes(executor, [handle], watch)
    assert outcome.state == "stopped"
    first, second = lab.slices(handle)
    assert (first.code, second.code) == (143, 143)
    assert first.seconds > 20
    assert "BeginTime" in standings
    row = lab.row(queued)
    assert row.attempt == 2
    assert lab.store.last_checkpoint(row) == row.done > 0


def test_a_run_that_is_signalled_again_and_again_ends_as_one_never_interrupted(lab: Lab) -> None:
    executor = lab.executor()
    (queued,) = lab.queued(LONG)
    handle: Any = executor.start(queued)
    signalled: set[int] = set()

    def signal_it() -> None:
        count = len(lab.slices(handle))
        if count not in signalled and len(signalled) < 3 and lab.iteration(queued) > 700 * count:
            signalled.add(count)
            lab.cluster.ask("scancel", "--signal=USR2", handle.job)

    (outcome,) = lab.outcomes(executor, [handle], signal_it)
    assert outcome.state == "finished", lab.logs()
    assert signalled == {1, 2, 3}
    row = lab.row(queued)
    assert row.attempt == 4
    assert lab.result(queued.run) == _alone(lab, LONG, queued)


def test_a_run_makes_room_for_a_more_urgent_job_and_goes_on(lab: Lab) -> None:
    executor = lab.executor()
    queued = lab.queued(LONG | {"iterations": 1500})
    handles: list[Any] = [executor.start(one) for one in queued]
    asked: list[str] = []

    def make_room() -> None:
        if not asked and lab.iteration(queued[0]) > 300:
            asked.append(
                lab.cluster.ask(
                    "sbatch", "-p", "urgent", "-N", "2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 3"
                )
            )

    (outcome,) = lab.outcomes(executor, handles, make_room)
    assert outcome.state == "finished", lab.logs()
    assert "Submitted" in asked[0]
    row = lab.row(queued[0])
    assert row.attempt == 2
    assert lab.result(queued[0].run) == _alone(lab, LONG | {"iterations": 1500}, queued[0])


def test_a_run_whose_node_fails_goes_on_at_the_other_from_its_last_checkpoint(lab: Lab) -> None:
    executor = lab.executor()
    (queued,) = lab.queued(LONG)
    handle: Any = executor.start(queued)
    killed: list[str] = []
    hosts: set[str] = set()

    def kill() -> None:
        lab.store.refresh()
        row = lab.store.with_uid(queued.run)
        if row is None:
            return
        hosts.add(row.host)
        if not killed and (lab.store.last_checkpoint(row) or 0) > 300:
            lab.cluster.kill_node(row.host)
            killed.append(row.host)

    try:
        (outcome,) = lab.outcomes(executor, [handle], kill)
    finally:
        for node in killed:
            lab.cluster.start_node(node)
    assert outcome.state == "finished", lab.logs()
    assert hosts == {"n1", "n2"}
    assert lab.result(queued.run) == _alone(lab, LONG, queued)


def test_a_job_that_is_cancelled_stops_its_run_and_a_killed_one_is_lost(lab: Lab) -> None:
    executor = lab.executor()
    queued = lab.queued(LONG | {"iterations": 1_000_000}, 2)
    handles: list[Any] = [executor.start(one) for one in queued]
    done: list[str] = []

    def end() -> None:
        if not done and all(lab.iteration(one) for one in queued):
            done.append(lab.cluster.ask("scancel", handles[0].job))
            (identity,) = [one.process for one in lab.slices(handles[1])]
            os.kill(int(identity.split(", ")[-2]), signal.SIGKILL)

    cancelled, killed = lab.outcomes(executor, handles, end)
    assert (cancelled.state, killed.state) == ("stopped", "lost")
    row = lab.row(queued[0])
    assert (row.state, lab.store.last_checkpoint(row)) == ("stopped", row.done)


def test_what_slurm_would_not_take_is_said_before_anything_is_queued(lab: Lab) -> None:
    with pytest.raises(BadInput, match=r"^Slurm would not take such a job: invalid partition specified: nowhere$"):
        lab.executor(partition="nowhere")
    with pytest.raises(BadInput, match=r"^Slurm would not take such a job: Invalid generic resource \(gres\) spec"):
        lab.executor(gres="gpu:1")
