"""One run shared by several real processes: it ends as one of one process, or cleanly where a process is lost."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
import torch

from dambench import engine
from dambench.cli.app import run_cli
from dambench.cli.rank import joiner
from dambench.core import files, registry
from dambench.core.config import Request, read
from dambench.core.errors import BadInput
from dambench.core.events import Finished, Resumed, Snapshot, Started, Stepped
from dambench.core.protocol import PRESETS, Budget
from dambench.store.runs import Store
from dambench.training.policy import choose_devices
from dambench.training.problem import SyntheticSet
from tests.cli.lab import SMALL, printed

DM: dict[str, Any] = {
    "method": {"name": "dm", "batch_real": 8},
    "dataset": "digits",
    "network": "convnet-d1-w4",
    "ipc": 2,
    "iterations": 3,
    "eval_repeats": 1,
    "device": "cpu",
    "threads": 1,
}


def _job(**changes: Any) -> engine.Job:
    return engine.prepare(read(Request, DM | changes, "the request"))


def _images(sha256: str) -> torch.Tensor:
    return SyntheticSet.read(files.set_path(sha256)).images


def _children(pid: int) -> list[psutil.Process]:
    return [process for process in psutil.Process(pid).children(recursive=True) if process.is_running()]


def test_two_processes_make_the_set_that_one_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    brief = msgspec.structs.replace(PRESETS["quick"], synthetic=Budget(epochs=2))
    monkeypatch.setattr("dambench.engine.settle.preset", lambda name: brief)
    said: dict[int, list[Any]] = {}
    for ranks in (1, 2):
        job = _job(ranks=ranks)
        said[ranks] = list(engine.run(job, join=joiner(lambda text: None)))
        assert isinstance(said[ranks][-1], Finished), said[ranks][-1]
    assert _children(os.getpid()) == []
    first = {ranks: next(event for event in events if isinstance(event, Started)) for ranks, events in said.items()}
    assert first[2].environment.device_name == f"{first[1].environment.device_name}, 2 ranks"
    assert first[1].config_sha256 == first[2].config_sha256
    one, two = (
        _images(next(event.sha256 for event in events if isinstance(event, Snapshot))) for events in said.values()
    )
    assert (one - two).abs().max() < 1e-5 * one.abs().max()
    losses = {
        n: [event.losses["matching"] for event in events if isinstance(event, Stepped)] for n, events in said.items()
    }
    assert losses[2] == pytest.approx(losses[1], rel=1e-4)
    assert len(losses[2]) == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--method", "mtt"], "2 processes cannot share a run of mtt: they share classes"),
        (["--method", "random"], "cannot share a run of random"),
        (["--method", "dm", "--network", "convnet-d1-w4-bn"], "--network convnet-d1-w4-in."),
        (["--method", "datadam"], "the statistics of its BatchNorm are of images of all"),
        (["--method", "datadam"], "--network convnet-d2-w32-in."),
        (["--method", "dm", "--ranks", "11"], "11 processes cannot share 10 classes of digits"),
        (["--method", "dm", "--device", "cuda:0,1"], "is not there"),
        (["--method", "dm", "--device", "cpu,cpu,cpu"], "names 3 devices, and --ranks 2 asks for 2"),
        (["--method", "dm", "--dry-run"], "--dry-run measures one process"),
    ],
)
def test_what_cannot_be_shared_is_refused_in_a_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    dry = "--dry-run" in arguments
    words = ["run", "--dataset", "digits", *(() if "--device" in arguments else ("--device", "cpu"))]
    more = [] if "--ranks" in arguments else ["--ranks", "2"]
    assert run_cli([*words, *([] if dry else ["--headless"]), *more, *arguments]) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert not Path(os.environ["DAMBENCH_DB"]).exists()


def test_the_network_that_is_proposed_instead_can_be_shared() -> None:
    job = _job(method="datadam", network="convnet-d2-w32-in", ranks=2)
    assert job.config.execution.devices == ("cpu", "cpu")


def test_a_method_from_outside_shares_nothing_unless_it_says_so() -> None:
    shared = {name for name in registry.names("methods") if registry.load("methods", name).SUMS_OVER_CLASSES}
    assert {"dm", "datadam", "dc", "dsa"} <= shared
    assert not shared & {"mtt", "datm", "pad", "random", "herding", "whole", "imported"}


def test_devices_are_counted_and_each_gpu_has_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert choose_devices("cuda:0,2", None) == ("cuda:0", "cuda:2")
    assert choose_devices("cuda:1, cuda:3", 2) == ("cuda:1", "cuda:3")
    assert choose_devices("auto", 3) == ("cuda:0", "cuda:1", "cuda:2")
    assert choose_devices("cuda", None) == ("cuda:0",)
    assert choose_devices("cpu", 2) == ("cpu", "cpu")
    for name, ranks, sentence in [
        ("cuda:0,0", None, "names a GPU twice"),
        ("cuda", 5, "needs 5 GPUs, and this machine has 4"),
        ("cuda:1", 2, "cuda:1 is one"),
        ("cuda:0,7", None, "is not there"),
    ]:
        with pytest.raises(BadInput, match=sentence):
            choose_devices(name, ranks)
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert choose_devices("cuda", 8) == ("cuda:0", "cuda:1", "cuda:2", "cuda:3") * 2


def _begin(tmp_path: Path, *words: str) -> subprocess.Popen[str]:
    with (tmp_path / "err").open("w") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "dambench", *words, "--json"],
            text=True,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )


def _wait(for_: Callable[[], bool], seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not for_():
        assert time.monotonic() < until, "it takes too long"
        time.sleep(0.05)


LONG = [*SMALL[:-2], "--method", "dm", "--iterations", "1000", "--ranks", "2", "--threads", "1"]


def _under_way(tmp_path: Path, run: subprocess.Popen[str]) -> psutil.Process:
    """The second process of a run that has done some iterations."""

    def some() -> bool:
        assert run.poll() is None, (tmp_path / "err").read_text()
        return "iteration 1/" in (tmp_path / "err").read_text()

    _wait(some)
    time.sleep(1.0)
    return next(process for process in _children(run.pid) if "dambench.cli.rank" in " ".join(process.cmdline()))


def _row(path: Path) -> Any:
    with closing(Store.open(path)) as store:
        return store.runs("true order by number")[-1]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_killed_rank_ends_the_run_at_once_and_it_goes_on_where_it_was(
    ranks: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with _begin(tmp_path, *LONG) as run:
        other = _under_way(tmp_path, run)
        other.kill()
        killed = time.monotonic()
        assert run.wait(60) == 1
        assert time.monotonic() - killed < 10
        result = json.loads(run.stdout.read() if run.stdout else "")
    assert result["state"] == "failed"
    assert result["error"] == "Rank 1 of 2 was killed by SIGKILL."
    row = _row(tmp_path / "runs.db")
    with closing(Store.open(tmp_path / "runs.db")) as store:
        done = max(event.iteration for _, event in store.tail(row.id) if isinstance(event, Stepped))
    resumed = printed(capsys, "resume", row.id, "--headless", "--ranks", str(ranks))
    with closing(Store.open(tmp_path / "runs.db")) as store:
        begun_at = [event.iteration for _, event in store.tail(row.id) if isinstance(event, Resumed)]
    assert begun_at[0] >= done  # nothing is lost
    alone = printed(capsys, *LONG[:-4], "--threads", "1", "--again")
    first, second = (_images(one["synthetic_sha256"]) for one in (alone, resumed))
    assert (first - second).abs().max() < 1e-3 * first.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_all_processes_stops_the_run_with_a_checkpoint(
    number: signal.Signals, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with _begin(tmp_path, *LONG) as run:
        other = _under_way(tmp_path, run)
        os.killpg(run.pid, number)
        assert run.wait(30) == code
        assert not other.is_running() or other.status() == psutil.STATUS_ZOMBIE
    assert "rank 1" not in (tmp_path / "err").read_text()
    row = _row(tmp_path / "runs.db")
    assert row.state == "stopped"
    assert printed(capsys, "resume", row.id, "--headless")["state"] == "finished"


@pytest.mark.slow
def test_the_others_end_with_the_first_and_the_run_is_lost_and_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with _begin(tmp_path, *LONG) as run:
        other = _under_way(tmp_path, run)
        run.kill()
        run.wait()
        other.wait(5)
    row = _row(tmp_path / "runs.db")
    assert printed(capsys, "resume", row.id, "--headless")["state"] == "finished"


@pytest.mark.slow
def test_torchrun_starts_the_processes_of_a_run(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "dambench"]
    words = [*SMALL, "--method", "dm", "--threads", "1", "--seeds", "0-1", "--json"]
    ended = subprocess.run([*torchrun, *words], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    results = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [result["state"] for result in results] == ["finished"] * 2
    with closing(Store.open(tmp_path / "runs.db")) as store:
        names = [store.describe(row.id)["environment"]["device_name"] for row in store.runs("true")]
    assert len(names) == 2
    assert all(name.endswith(", 2 ranks") for name in names)
    wrong = subprocess.run([*torchrun, *words, "--ranks", "3"], capture_output=True, text=True, timeout=300)
    assert "torchrun has started 2 processes" in wrong.stderr


@pytest.mark.slow
def test_a_run_that_was_stopped_is_gone_on_with_by_the_processes_of_torchrun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with _begin(tmp_path, *LONG) as run:
        _under_way(tmp_path, run)
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait(30) == 130
    row = _row(tmp_path / "runs.db")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "dambench"]
    ended = subprocess.run(
        [*torchrun, "resume", row.id, "--headless", "--json"], capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout.splitlines()[-1])
    assert (result["run"], result["state"]) == (row.id, "finished")
    printed(capsys, *LONG, "--again")
    with closing(Store.open(tmp_path / "runs.db")) as store:
        assert len({(row.state, row.set_sha256) for row in store.runs("true")}) == 1
