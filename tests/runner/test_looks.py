"""What a worker looks at again and again, and what it leaves behind."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dambench.core import files
from dambench.runner import processes
from dambench.runner import worker as workers
from dambench.runner.executors import Outcome, Site, Wishes
from dambench.runner.executors.devices import Device
from dambench.runner.executors.local import LocalExecutor
from dambench.store.queue import Queue, Queued
from dambench.store.runs import Store


class _Executor:
    """Runs only what needs no GPU, one after another, each for some looks."""

    slots = 2
    devices: Sequence[str] = ("cpu",)

    def __init__(self) -> None:
        self.asked = self.looks = 0

    def fits(self, queued: Queued) -> bool:
        self.asked += 1
        return queued.device == "cpu"

    def start(self, queued: Queued) -> Queued:
        return queued

    def poll(self, handle: Queued) -> Outcome | None:
        self.looks += 1
        return Outcome("finished") if self.looks % 40 == 0 else None

    def stop(self, handle: Queued) -> None: ...

    def close(self) -> None: ...


def test_a_worker_does_not_read_what_fits_nowhere_at_each_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = _Executor()
    monkeypatch.setattr(workers, "open_executor", lambda *about: executor)
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.0)
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        queue = Queue(store)
        queue.add([queue.new({}, device="cuda:7") for _ in range(50)])
        queue.add([queue.new({}, device="cpu") for _ in range(3)])
        done = workers.Worker(store, "local", Wishes(), lambda said: None).work()
    assert len(done.finished) == 3
    assert len(done.left) == 50
    assert executor.looks > 50
    assert executor.asked < 16 * 50


class _Child:
    run = ""

    def __init__(self, log: Path):
        self.log = log
        self.code: int | None = None

    def hear(self) -> bool:
        return True

    def ended(self) -> int | None:
        return self.code

    def let_go(self) -> None: ...


def test_a_request_that_a_killed_worker_has_left_is_gone_once_its_run_has_been_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[list[str]] = []
    child = _Child(tmp_path / "log")

    def launch(words: list[str], *more: Any) -> _Child:
        begun.append(words)
        return child

    monkeypatch.setattr(processes, "launch", launch)
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        queue = Queue(store)
        one = queue.add([queue.new({"method": "dm"})]).new[0]
        for _ in range(2):  # the first of these workers is killed
            executor = LocalExecutor(Site(tmp_path / "runs.db", store, "w"), [Device("cpu")], None)
            handle = executor.start(one)
            (path,) = (files.home() / "requests").iterdir()
            assert begun[-1][:2] == ["run", str(path)]
            assert path.read_text() == 'method = "dm"\ndevice = "cpu"\n'
        child.code = -9
        assert executor.poll(handle) == Outcome("lost", "its process was killed before it began")
    assert list((files.home() / "requests").iterdir()) == []
