"""What a job of Slurm does on its node, without Slurm: the run is a small program in the place of dambench."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from dambench.core import files
from dambench.runner import processes, slurm_job
from dambench.runner.slurm_job import CurrentJob, JobRecord, JobSpec, Slice, SlurmJob
from dambench.store.runs import Store
from tests.ledger import CARD, config

UID = "0" * 32

STOPS = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(143)); open('there', 'w'); time.sleep(60)"


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """A job changes what signals do to its process, which is ours here."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@pytest.fixture
def submitit(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much of submitit as a job needs."""
    helpers: Any = ModuleType("submitit.helpers")
    helpers.DelayedSubmission = lambda function: function
    monkeypatch.setitem(sys.modules, "submitit", ModuleType("submitit"))
    monkeypatch.setitem(sys.modules, "submitit.helpers", helpers)


def _job(tmp_path: Path, program: str, *, limit: float = 0.0, uid: str = UID, token: str = "t") -> SlurmJob:
    """A job whose run is a Python program."""
    slurm_job.write(slurm_job.current_path(tmp_path, uid), CurrentJob("t", "7"))
    (tmp_path / "dambench.py").write_text(program)
    environ = {"PYTHONPATH": str(tmp_path)}
    return SlurmJob(JobSpec(str(tmp_path), uid, token, str(tmp_path / "runs.db"), ("b",), 3, limit, environ))


@pytest.fixture(autouse=True)
def _program_of_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "")  # so that what a job sets there is gone afterwards
    monkeypatch.setenv(processes.ENDED, "")


def _record(tmp_path: Path, uid: str = UID) -> JobRecord:
    record = slurm_job.read(slurm_job.record_path(tmp_path, uid, "t"), JobRecord)
    assert record is not None
    return record


def _once(tmp_path: Path, then: Callable[[], None]) -> threading.Thread:
    """Do something once the program of a job is there."""

    def wait() -> None:
        until = time.monotonic() + 20
        while not (tmp_path / "there").exists() and time.monotonic() < until:
            time.sleep(0.01)
        then()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_run_that_ends_is_noted_with_how_it_ended(tmp_path: Path) -> None:
    for program, outcome, reason in (
        ("", "finished", ""),
        ("import sys; sys.exit(1)", "failed", "It ended with exit code 1, and"),
        ("import os; os.kill(os.getpid(), 9)", "lost", "Its process was ended by SIGKILL."),
        ("import sys; sys.exit(143)", "stopped", ""),
        ("import os; os.kill(os.getpid(), 15)", "stopped", ""),
    ):
        assert _job(tmp_path, program)() == outcome
        record = _record(tmp_path)
        assert record.outcome == outcome
        assert record.reason.startswith(reason)
        last = record.slices[-1]
        assert not record.told
        assert all([last.process, last.began, last.ended])
    assert len(_record(tmp_path).slices) == 5


def test_a_run_has_the_threads_that_were_asked_for_and_what_else_its_process_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setenv("OMP_NUM_THREADS", "77")
    names = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", processes.BATCH]
    program = f"import os, sys; open('said', 'w').write(' '.join([*sys.argv[1:], *map(os.environ.get, {names})]))"
    assert _job(tmp_path, program)() == "finished"
    assert (tmp_path / "said").read_text() == "b 3 3 3 12_3"
    assert _record(tmp_path).slices[0].job == "12_3"


def test_a_job_whose_run_belongs_to_another_by_now_does_nothing(tmp_path: Path) -> None:
    job = _job(tmp_path, "open('said', 'w')", token="earlier")
    assert job() == "superseded"
    assert not (tmp_path / "said").exists()
    assert slurm_job.read(slurm_job.record_path(tmp_path, UID, "earlier"), JobRecord) is None


@pytest.mark.usefixtures("submitit")
def test_before_its_time_is_over_a_run_is_stopped_and_goes_back_to_be_called_again(tmp_path: Path) -> None:
    job = _job(tmp_path, STOPS)
    back: list[Any] = []

    class Requeued(BaseException):
        """What submitit does then: it ends the process."""

    def time_is_up(number: int, frame: object) -> None:
        back.append(job.checkpoint())
        raise Requeued

    signal.signal(signal.SIGUSR2, time_is_up)
    thread = _once(tmp_path, lambda: os.kill(os.getpid(), signal.SIGUSR2))
    with pytest.raises(Requeued):
        job()
    thread.join()
    record = _record(tmp_path)
    assert (record.outcome, record.slices[0].code, record.told) == ("stopped", 143, True)
    (again,) = back
    assert (type(again), again.spec) == (SlurmJob, job.spec)
    (tmp_path / "dambench.py").write_text("")
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    assert again() == "finished"
    assert [one.code for one in _record(tmp_path).slices] == [143, 0]


@pytest.mark.usefixtures("submitit")
def test_a_run_that_ends_by_itself_when_its_time_is_up_is_not_put_back(tmp_path: Path) -> None:
    job = _job(tmp_path, STOPS.replace("143", "0"))
    signal.signal(signal.SIGUSR2, lambda *_: job.checkpoint())
    thread = _once(tmp_path, lambda: os.kill(os.getpid(), signal.SIGUSR2))
    assert job() == "finished"
    thread.join()
    assert [one.code for one in _record(tmp_path).slices] == [0]


def test_a_job_that_is_cancelled_stops_its_run(tmp_path: Path) -> None:
    job = _job(tmp_path, STOPS)
    thread = _once(tmp_path, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert job() == "stopped"
    thread.join()
    assert _record(tmp_path).told


def _slices(*seconds: int, marks: str) -> list[Slice]:
    return [
        Slice(
            "7",
            "n",
            began="2026-01-01T00:00:00+00:00",
            ended=f"2026-01-01T00:{took // 60:02}:{took % 60:02}+00:00",
            code=143,
            mark=mark,
        )
        for took, mark in zip(seconds, marks, strict=True)
    ]


def test_a_run_that_comes_no_further_in_three_whole_slices_is_not_put_back_for_ever(tmp_path: Path) -> None:
    def stuck(slices: list[Slice], limit: float = 600.0) -> bool:
        job = _job(tmp_path, "", limit=limit)
        job._record.slices = slices
        return job._is_stuck()

    assert stuck(_slices(590, 590, 590, marks="aaa"))
    assert "came no further in 3 slices of 10 min 0 s: it needs more --time" in _record(tmp_path).reason
    assert not stuck(_slices(590, 590, 590, marks="aab"))
    assert not stuck(_slices(590, 590, marks="aa"))
    assert not stuck(_slices(590, 20, 590, marks="aaa"))  # it had to make room, once
    assert not stuck(_slices(590, 590, 590, marks="aaa"), limit=0.0)


def test_a_run_that_is_there_is_gone_on_with_and_one_that_is_finished_is_not_begun(tmp_path: Path) -> None:
    said = tmp_path / "said"
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        gone = subprocess.Popen([sys.executable, "-c", ""])
        here = processes.this_process()
        process = msgspec.structs.replace(here, pid=gone.pid, started=1)
        gone.wait()
        uid = store.run(store.create(config(), CARD, process=process)).uid
        assert _job(tmp_path, "import sys; open('said', 'w').write(sys.argv[1])", uid=uid)() == "finished"
        assert said.read_text() == "resume"
        said.unlink()
        store.db.conn.execute("update runs set state = 'finished'")
        store.db.conn.commit()
    assert _job(tmp_path, "open('said', 'w')", uid=uid)() == "finished"
    assert not said.exists()
    assert _record(tmp_path, uid).run == uid


def test_on_another_node_a_run_goes_on_at_once_though_it_looks_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_job, "LOOK_SECONDS", 0.01)
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        here = processes.this_process()
        process = msgspec.structs.replace(here, host="elsewhere")
        row = store.run(store.create(config(), CARD, process=process))
        assert processes.state(row) in processes.ALIVE
        before = Slice("7", "elsewhere", processes.identity(row))
        slurm_job.write(slurm_job.record_path(tmp_path, row.uid, "t"), JobRecord([before]))
        assert _job(tmp_path, "", uid=row.uid)() == "finished"
        assert [one.host for one in _record(tmp_path, row.uid).slices] == ["elsewhere", here.host]
        # One that is not this job's own is waited for.
        slurm_job.write(slurm_job.record_path(tmp_path, row.uid, "t"), JobRecord())
        looks: list[str] = []

        def end(self: SlurmJob) -> str:
            looks.append("")
            return "running" if len(looks) < 3 else "finished"

        monkeypatch.setattr(SlurmJob, "_state", end)
        assert _job(tmp_path, "open('said', 'w')", uid=row.uid)() == "finished"
        assert len(looks) == 3
        assert not (tmp_path / "said").exists()


def test_what_is_wrong_with_the_database_is_said_where_the_job_was_submitted(tmp_path: Path) -> None:
    (tmp_path / "runs.db").write_text("no database, but long enough to be one" * 99)
    assert _job(tmp_path, "open('said', 'w')")() == "failed"
    assert "runs.db" in _record(tmp_path).reason
    assert not (tmp_path / "said").exists()
    assert files.home() == tmp_path / "home"
