"""Slurm as the executor of a queue, on a cluster that says what the test wants it to say."""

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dambench.core import config
from dambench.core.errors import BadInput
from dambench.runner import executors, processes, slurm, slurm_job
from dambench.runner.executors import Site, Wishes
from dambench.runner.executors import slurm as executor_of_slurm
from dambench.runner.executors.slurm import SlurmHandle, SlurmQueue, folder_of, settings_of
from dambench.runner.slurm import JobLook, SlurmSettings
from dambench.runner.slurm_job import CurrentJob, JobRecord, JobSpec
from dambench.runner.worker import Worker
from dambench.store.queue import Queue, Queued
from dambench.store.runs import Store


class ToldCluster:
    """A cluster whose jobs are as they are told to be."""

    def __init__(self) -> None:
        self.arrays: list[list[JobSpec]] = []
        self.jobs: dict[str, JobLook] = {}
        self.cancelled: list[str] = []
        self.refusal = ""

    def submit(self, specs: Sequence[JobSpec], settings: SlurmSettings) -> list[str]:
        if self.refusal:
            raise BadInput(self.refusal)
        self.arrays.append(list(specs))
        jobs = [f"{len(self.arrays)}_{index}" for index in range(len(specs))]
        self.jobs |= dict.fromkeys(jobs, JobLook("PENDING", "Priority"))
        return jobs

    def look(self, jobs: Sequence[str]) -> dict[str, JobLook]:
        return {job: self.jobs[job] for job in jobs if job in self.jobs}

    def cancel(self, jobs: Sequence[str]) -> None:
        self.cancelled += jobs


class Clock:
    """A clock that goes on by as much as the test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Bench:
    """An executor, its cluster, its clock, and queued runs."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store):
        self.clock, self.cluster, self.store = Clock(), ToldCluster(), store
        monkeypatch.setattr(executor_of_slurm, "time", self.clock)
        self.site = Site(tmp_path / "runs.db", store, "w" * 32)
        self.folder = folder_of(tmp_path / "runs.db")
        self.executor = self.another()
        self._number = 0

    def another(self, **settings: Any) -> SlurmQueue:
        return SlurmQueue(self.site, SlurmSettings(**settings), 10, self.cluster)

    def queued(self, **facts: Any) -> Queued:
        queue = Queue(self.store)
        self._number += 1
        run = queue.new({"method": "dm", "dataset": "digits", "seed": self._number}, **facts)
        return queue.add([run]).new[0]

    def handed_over(self, *queued: Queued) -> list[SlurmHandle]:
        """Started, and with Slurm."""
        handles = [self.executor.start(one) for one in queued]
        self.after(2.0, handles[0])
        return handles

    def after(self, seconds: float, handle: SlurmHandle) -> Any:
        """What becomes of a run that much later, asked as a worker asks: often."""
        outcome = None
        for _ in range(max(1, round(seconds))):
            self.clock.now += min(1.0, seconds)
            outcome = outcome or self.executor.poll(handle)
        return outcome

    def says(self, handle: SlurmHandle, outcome: Any, **more: Any) -> None:
        """Let the node of a job have said something."""
        path = slurm_job.record_path(self.folder, handle.queued.run, handle.spec.token)
        slurm_job.write(path, JobRecord(outcome=outcome, **more))

    def ends(self, state: str, outcome: Any = "", **more: Any) -> Any:
        """What becomes of a run whose job ends so, at once; None: that is not known yet."""
        (handle,) = self.handed_over(self.queued())
        self.cluster.jobs[handle.job] = JobLook("RUNNING", "", "n1")
        assert self.after(6.0, handle) is None
        if outcome:
            self.says(handle, outcome, **more)
        self.cluster.jobs[handle.job] = JobLook(state)
        return self.after(6.0, handle)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        yield Bench(tmp_path, monkeypatch, store)


def test_runs_that_come_together_are_one_array_and_those_with_other_threads_another(bench: Bench) -> None:
    runs = [bench.queued(threads=threads) for threads in (1, 1, 4, 1)]
    handles = bench.handed_over(*runs)
    assert [spec.uid for spec in bench.cluster.arrays[0]] == [runs[0].run, runs[1].run, runs[3].run]
    assert [[spec.threads for spec in array] for array in bench.cluster.arrays] == [[1, 1, 1], [4]]
    assert [one.job for one in handles] == ["1_0", "1_1", "2_0", "1_2"]


def _current(bench: Bench, queued: Queued) -> CurrentJob:
    """The job that a run belongs to now."""
    current = slurm_job.read(slurm_job.current_path(bench.folder, queued.run), CurrentJob)
    assert current is not None
    return current


def test_a_job_is_told_who_its_run_is_and_where_everything_lies(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAMBENCH_DATA", "/data")
    queued = bench.queued(threads=2)
    (handle,) = bench.handed_over(queued)
    spec = handle.spec
    request = bench.folder / f"{queued.run}.toml"
    assert spec.begin == ("run", str(request), "--headless", "--db", str(tmp_path / "runs.db"))
    assert config.read_toml(request) == queued.request
    assert spec.environ[processes.QUEUED] == f"{queued.run}:{queued.id}"
    assert spec.environ["OMP_NUM_THREADS"] == "2"
    assert (spec.environ["DAMBENCH_DATA"], spec.environ["DAMBENCH_HOME"]) == ("/data", str(tmp_path / "home"))
    assert _current(bench, queued).job == "1_0"
    words = bench.executor.start(bench.queued(command="experts")).spec.begin
    assert words == ("experts", "train")


def test_why_a_run_waits_is_told_in_slurms_words(bench: Bench) -> None:
    (handle,) = bench.handed_over(bench.queued())
    assert bench.after(6.0, handle) is None
    assert bench.executor.standing(handle) == "Slurm job 1_0 waits: Priority"
    bench.cluster.jobs["1_0"] = JobLook("RUNNING", "", "n1")
    assert bench.after(6.0, handle) is None
    assert bench.executor.standing(handle) == ""
    bench.cluster.jobs["1_0"] = JobLook("PENDING", "BeginTime")  # its time was up, and it was put back
    assert bench.after(6.0, handle) is None
    assert bench.executor.standing(handle) == "Slurm job 1_0 waits: BeginTime"


@pytest.mark.parametrize(
    ("state", "outcome", "ended", "reason"),
    [
        ("COMPLETED", "finished", "finished", ""),
        ("FAILED", "finished", "finished", ""),  # it had finished when its time was up
        ("COMPLETED", "failed", "failed", "because"),
        ("TIMEOUT", "stopped", "lost", "Slurm job 1_0: its time was up"),
        ("TIMEOUT", "", "lost", "Slurm job 1_0: its time was up"),
        ("PREEMPTED", "stopped", "lost", "Slurm job 1_0: it had to make room for another"),
        ("NODE_FAIL", "", "lost", "Slurm job 1_0: its node failed"),
        ("COMPLETED", "lost", "lost", "Slurm job 1_0: it ended as COMPLETED"),
        ("COMPLETED", "stopped", "stopped", "Slurm job 1_0: it ended as COMPLETED"),  # by hand
        ("CANCELLED", "stopped", "stopped", "Slurm job 1_0: it was cancelled"),
        ("OUT_OF_MEMORY", "", "failed", "Slurm job 1_0: it needed more memory than it was given (--mem)."),
        ("FAILED", "", "failed", "Slurm job 1_0: it ended as FAILED before the run began: there is no "),
    ],
)
def test_each_end_of_a_job_is_one_of_its_run(bench: Bench, state: str, outcome: str, ended: str, reason: str) -> None:
    found = bench.ends(state, outcome, **({"reason": "because"} if outcome == "failed" else {}))
    assert found.state == ended
    assert found.reason.startswith(reason)
    assert bool(found.reason) == bool(reason)


def test_a_run_that_slurm_stopped_goes_back_and_one_that_somebody_stopped_does_not(bench: Bench) -> None:
    assert bench.ends("COMPLETED", "stopped", told=True).state == "lost"
    assert bench.ends("COMPLETED", "stopped", told=False).state == "stopped"


def test_what_a_node_said_may_be_seen_late(bench: Bench) -> None:
    assert bench.ends("COMPLETED") is None
    (handle,) = bench.executor._handed.values()
    assert bench.after(60.0, handle) is None
    bench.says(handle, "finished", run="another's")
    outcome = bench.after(1.0, handle)
    assert (outcome.state, outcome.run) == ("finished", "another's")
    assert bench.ends("COMPLETED") is None
    (handle,) = bench.executor._handed.values()
    assert bench.after(130.0, handle).state == "failed"


def test_a_job_that_slurm_forgets_is_lost_after_a_while_and_one_that_it_does_not_speak_of_is_not(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (handle,) = bench.handed_over(bench.queued())
    assert bench.after(6.0, handle) is None

    def silent(jobs: Sequence[str]) -> dict[str, JobLook]:
        raise BadInput("Slurm does not say how its jobs stand: Unable to contact slurm controller")

    with monkeypatch.context() as there:
        there.setattr(bench.cluster, "look", silent)
        assert bench.after(1000.0, handle) is None  # its controller was away
    bench.cluster.jobs.clear()
    assert bench.after(100.0, handle) is None
    outcome = bench.after(60.0, handle)
    assert (outcome.state, outcome.reason) == ("lost", "Slurm job 1_0: Slurm does not know it any more")


def test_what_slurm_refuses_for_now_is_offered_again_and_what_it_refuses_for_good_fails(bench: Bench) -> None:
    bench.cluster.refusal = "Slurm did not take the jobs: QOSMaxSubmitJobPerUserLimit"
    (handle,) = bench.handed_over(bench.queued())
    assert bench.after(20.0, handle) is None
    assert bench.cluster.arrays == []
    assert "QOSMaxSubmitJobPerUserLimit" in bench.executor.standing(handle)
    bench.cluster.refusal = ""
    assert bench.after(40.0, handle) is None
    assert len(bench.cluster.arrays) == 1
    bench.cluster.refusal = "Slurm did not take the jobs: Invalid account"
    handle = bench.executor.start(bench.queued())
    outcome = bench.after(2.0, handle)
    assert (outcome.state, outcome.reason) == ("failed", "Slurm did not take the jobs: Invalid account")


def test_a_run_is_stopped_by_cancelling_its_job_once_or_by_not_handing_it_over(bench: Bench) -> None:
    (handle,) = bench.handed_over(bench.queued())
    for _ in range(5):
        bench.executor.stop(handle)
    assert bench.cluster.cancelled == ["1_0"]
    bench.cluster.jobs["1_0"] = JobLook("CANCELLED")
    assert bench.after(6.0, handle).state == "stopped"
    early = bench.executor.start(bench.queued())
    bench.executor.stop(early)
    assert bench.after(2.0, early).state == "stopped"
    assert len(bench.cluster.arrays) == 1
    assert bench.executor.fits(bench.queued())


def test_another_worker_finds_the_job_of_one_that_is_gone_and_does_not_hand_its_run_over_twice(bench: Bench) -> None:
    queued = bench.queued()
    (handle,) = bench.handed_over(queued)
    bench.executor = bench.another()
    again = bench.executor.start(msgspec.structs.replace(queued, attempt=2))
    assert (again.job, again.spec.token) == (handle.job, handle.spec.token)
    assert bench.after(10.0, again) is None
    assert len(bench.cluster.arrays) == 1
    # One that ended meanwhile is handed over anew, and what is left of the earlier job does nothing any more.
    bench.cluster.jobs["1_0"] = JobLook("NODE_FAIL")
    bench.executor = bench.another()
    (new,) = bench.handed_over(queued)
    assert (new.job, len(bench.cluster.arrays)) == ("2_0", 2)
    assert new.spec.token != handle.spec.token
    assert _current(bench, queued).token == new.spec.token


def test_what_nobody_needs_of_a_finished_run_is_removed_and_its_log_stays(bench: Bench) -> None:
    (handle,) = bench.handed_over(bench.queued())
    for name in ("1_0_submitted.pkl", "1_0_0_result.pkl", "1_0_0_log.out"):
        (bench.folder / "jobs" / name).touch()
    bench.says(handle, "finished")
    bench.cluster.jobs["1_0"] = JobLook("COMPLETED")
    assert bench.after(6.0, handle).state == "finished"
    left = [str(path.relative_to(bench.folder)) for path in bench.folder.rglob("*") if path.is_file()]
    assert left == ["jobs/1_0_0_log.out"]


def test_a_run_that_asks_for_a_gpu_is_refused_where_its_job_would_have_none(bench: Bench) -> None:
    with pytest.raises(
        BadInput, match=r"^It asks for cuda, and its job would have no GPU: --gres gpu:1, or --gpus 1\.$"
    ):
        bench.executor.start(bench.queued(device="cuda"))
    bench.executor = bench.another(gpus=1)
    bench.executor.start(bench.queued(device="cuda"))


def test_no_more_are_with_slurm_than_were_asked_for(bench: Bench) -> None:
    handles = bench.handed_over(*(bench.queued() for _ in range(9)))
    assert bench.executor.fits(bench.queued())
    bench.executor.start(bench.queued())
    assert not bench.executor.fits(bench.queued())
    bench.says(handles[0], "finished")
    bench.cluster.jobs["1_0"] = JobLook("COMPLETED")
    bench.after(6.0, handles[0])
    assert bench.executor.fits(bench.queued())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"partitoin": "x"}, "no option of the Slurm executor is called 'partitoin'|partition"),
        ({"time": "soon"}, "^--time 'soon' is no time"),
        ({"gpus": "two"}, r"^--gpus 'two' is no whole number\.$"),
        ({"grace": "-1"}, r"^--grace '-1' is no whole number\.$"),
        ({"flag": "nice=5\nrm -rf"}, r"^--slurm-flag 'rm -rf' is no option of sbatch"),
    ],
)
def test_what_is_no_option_is_said_in_a_sentence(options: dict[str, str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        settings_of(options)


def test_options_are_those_of_sbatch() -> None:
    options = {"partition": "gpu", "time": "2h", "gpus": "2", "mem": "16G", "flag": "--nice=5\nexclusive"}
    expected = SlurmSettings(partition="gpu", minutes=120, gpus=2, memory="16G", flags={"nice": "5", "exclusive": ""})
    assert settings_of(options) == expected


def test_the_executor_says_what_is_missing_before_anything_is_queued(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r'^--executor slurm needs submitit, which is not installed: pip install "damb'):
        executors.open_executor("slurm", bench.site, Wishes())
    with pytest.raises(
        BadInput, match=r"^--device is chosen by Slurm: ask it for GPUs with --gres gpu:1, or --gpus 1\.$"
    ):
        executors.open_executor("slurm", bench.site, Wishes(devices=("cuda:0",)))


def test_the_queue_shows_why_slurm_lets_a_run_wait(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "check", lambda settings: None)
    monkeypatch.setattr(executor_of_slurm, "SlurmCluster", lambda folder: bench.cluster)
    queue, queued = Queue(bench.store), bench.queued()
    worker = Worker(bench.store, "slurm", Wishes(), lambda said: None)

    def shown() -> str:
        for _ in range(6):
            bench.clock.now += 1.0
            worker._turn()
        (one,) = queue.with_uids([queued.uid])
        return f"{one.state} {one.attempt} {one.reason}"

    assert shown() == "taken 1 Slurm job 1_0 waits: Priority"
    bench.cluster.jobs["1_0"] = JobLook("RUNNING")
    assert shown() == "taken 1 "
    bench.cluster.jobs["1_0"] = JobLook("NODE_FAIL")
    assert shown().startswith("taken 2 Slurm job 2_0 waits")
    bench.cluster.jobs["2_0"] = JobLook("PENDING", "Resources")
    assert shown() == "taken 2 Slurm job 2_0 waits: Resources"
