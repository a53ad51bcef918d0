"""Which queued runs begin beside which: by GPU and its memory, by processors and threads."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from dambench.core.errors import BadInput
from dambench.runner import processes
from dambench.runner.executors import Site, environment_of
from dambench.runner.executors import local as local_module
from dambench.runner.executors.devices import Device, gpus, named_devices
from dambench.runner.executors.local import LocalExecutor, LocalHandle
from dambench.store.queue import Queue, Queued
from dambench.store.runs import Store


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(local_module, "processors", lambda: 4)
    monkeypatch.setattr(LocalExecutor, "_begin", lambda self, handle: None)
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        yield Site(tmp_path / "runs.db", store, "w")


def _queued(site: Site, **facts: Any) -> Queued:
    queue = Queue(site.store)
    return queue.add([queue.new({}, **facts)]).new[0]


def _begun(executor: LocalExecutor, *queued: Queued) -> list[str]:
    """The devices of those that fit, each begun before the next is asked for."""
    return [executor.start(one).device for one in queued if executor.fits(one)]


def test_on_processors_as_many_runs_begin_as_their_threads_leave_room_for(site: Site) -> None:
    two, one, all_ = (_queued(site, threads=threads) for threads in (2, 1, 0))
    cpu = [Device("cpu")]
    assert len(_begun(LocalExecutor(site, cpu, None), two, one, one, one)) == 3
    assert len(_begun(LocalExecutor(site, cpu, None), all_, one)) == 1
    assert len(_begun(LocalExecutor(site, cpu, None), one, all_)) == 1
    assert len(_begun(LocalExecutor(site, cpu, 2), all_, all_, all_)) == 2
    assert environment_of(two)["OMP_NUM_THREADS"] == "2"
    assert "OMP_NUM_THREADS" not in environment_of(all_)


def test_each_gpu_gets_one_run_and_several_only_where_memory_is_known_to_be_enough(site: Site) -> None:
    both = [Device("cuda:0", 100), Device("cuda:1", 100)]
    small, large, unknown = (_queued(site, peak_memory_bytes=peak) for peak in (30, 80, None))
    assert _begun(LocalExecutor(site, both, None), small, small, small) == ["cuda:0", "cuda:1"]
    shared = LocalExecutor(site, both, 5)
    assert _begun(shared, small, small, small, small, small) == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]  # 90 > 85
    assert _begun(LocalExecutor(site, both, 5), small, large, small, small) == ["cuda:0", "cuda:1", "cuda:0"]
    assert _begun(LocalExecutor(site, both, 5), small, unknown, unknown) == ["cuda:0", "cuda:1"]
    assert _begun(LocalExecutor(site, [Device("cuda:0")], 2), small, small) == ["cuda:0"]  # of a size not known


def test_a_run_begins_on_the_device_that_it_was_queued_for_or_nowhere(site: Site) -> None:
    both = [Device("cuda:0", 100), Device("cuda:1", 100)]
    second, any_gpu, cpu = (_queued(site, device=device) for device in ("cuda:1", "cuda", "cpu"))
    assert _begun(LocalExecutor(site, both, None), second, second, any_gpu, cpu) == ["cuda:1", "cuda:0"]


def test_devices_are_named_by_their_numbers() -> None:
    assert named_devices("cuda:0,1") == ("cuda:0", "cuda:1")
    assert named_devices("CUDA:1, cpu") == ("cuda:1", "cpu")
    for wrong in ("", "0,1", "cuda:0,0", "cuda:x", "cuda:0,,1"):
        with pytest.raises(BadInput, match="--device"):
            named_devices(wrong)


class _Nvml:
    """Three cards of so many bytes."""

    def __getattr__(self, name: str) -> Any:
        answers: dict[str, Any] = {
            "nvmlDeviceGetCount": lambda: 3,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetName": lambda handle: "H200",
            "nvmlDeviceGetMemoryInfo": lambda handle: msgspec.defstruct("Memory", ["used", "total"])(0, 100 + handle),
        }
        return answers.get(name, lambda *given: None)


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        (None, [100, 101, 102]),
        ("2,0", [102, 100]),
        ("", []),
        ("-1", []),
        ("1,7,0", [101]),
        ("GPU-abc", [None]),
    ],
)
def test_gpus_are_those_that_a_process_started_here_would_see(
    visible: str | None, found: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus(_Nvml()) == [Device(f"cuda:{number}", memory) for number, memory in enumerate(found)]


def test_a_process_that_ends_without_a_word_is_lost_and_one_that_complains_has_failed(
    site: Site, tmp_path: Path
) -> None:
    class Ended:
        run = ""
        log = tmp_path / "x.log"

        def __init__(self, code: int):
            self.code = code

        def hear(self) -> bool:
            return True

        def ended(self) -> int:
            return self.code

        def let_go(self) -> None:
            return None

    Ended.log.write_text("preparing\ndambench: No method is called 'x'.\n")
    executor = LocalExecutor(site, [Device("cpu")], None)
    ends = []
    for code in (-9, 2, 143, 0):
        handle = LocalHandle(_queued(site), "cpu", child=cast(processes.Child, Ended(code)))
        executor._handles.append(handle)
        outcome = executor.poll(handle)
        assert outcome is not None
        ends.append((outcome.state, outcome.reason))
    assert ends[0][0] == "lost"
    assert ends[1] == ("failed", "No method is called 'x'.")
    assert ends[2][0] == "stopped"
    assert ends[3] == ("failed", "its process ended well, and its run is not in the database")
    assert executor._handles == []
