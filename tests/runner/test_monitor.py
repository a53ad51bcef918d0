import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import psutil
import pynvml
import pytest

from dambench.cli import doctor
from dambench.cli.app import run_cli
from dambench.core import units
from dambench.core.events import AnyEvent, Finished, Neighbour, Sampled, Started, Warned
from dambench.runner import monitor
from dambench.runner.monitor import Monitor, explain, sampled
from dambench.store.runs import Store
from tests import ledger

UUID = "8932f937-d72c-4106-c12f-20bd9faed9f6"
US = os.getpid()


def _error(code: int) -> pynvml.NVMLError:
    return pynvml.NVMLError(code)


NOT_SUPPORTED = _error(pynvml.NVML_ERROR_NOT_SUPPORTED)


def _process(pid: int, memory: int | None = 10**9) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, usedGpuMemory=memory)


def _known(*uuids: str) -> Callable[[str], str]:
    """nvmlDeviceGetHandleByUUID where these are the cards and instances."""

    def find(uuid: str) -> str:
        if uuid not in uuids:
            raise _error(pynvml.NVML_ERROR_NOT_FOUND)
        return f"handle of {uuid}"

    return find


class Nvml:
    """A stand-in for pynvml and a card. An answer is a value, an error to raise, or a function to call."""

    def __init__(self, **answers: Any):
        self.asked: list[tuple[Any, ...]] = []
        self.answers: dict[str, Any] = {
            "nvmlInit": None,
            "nvmlShutdown": None,
            "nvmlDeviceGetCount": 1,
            "nvmlDeviceGetHandleByIndex": "handle 0",
            "nvmlDeviceGetHandleByUUID": _known(f"GPU-{UUID}"),
            "nvmlDeviceGetUUID": f"GPU-{UUID}",
            "nvmlDeviceGetName": "NVIDIA A100-SXM4-80GB",
            "nvmlDeviceGetMigMode": [0, 0],
            "nvmlSystemGetDriverVersion": "470.82",
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=41 * 10**9, free=39 * 10**9, total=80 * 10**9),
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=93, memory=50),
            "nvmlDeviceGetPowerUsage": 310_500,
            "nvmlDeviceGetTemperature": 71,
            "nvmlDeviceGetTotalEnergyConsumption": 123_456_789,
            "nvmlDeviceGetComputeRunningProcesses": [_process(US)],
            "nvmlSystemGetProcessName": "/usr/bin/python3.11",
        } | answers

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def answer(*arguments: Any) -> Any:
            self.asked.append((name, *arguments))
            value = self.answers[name]
            if isinstance(value, BaseException):
                raise value
            return value(*arguments) if callable(value) else value

        return answer


def _listen(sampler: Monitor, samples: int = 1) -> list[Sampled | Warned]:
    """What a sampler says until it has given so many samples."""
    events: list[Sampled | Warned] = []
    deadline = time.monotonic() + 20
    while sum(isinstance(event, Sampled) for event in events) < samples and time.monotonic() < deadline:
        events += sampler.take()
        time.sleep(0.005)
    return events


def _look(nvml: Nvml, uuid: str = UUID, samples: int = 1) -> tuple[list[Sampled], list[str]]:
    """The first samples of a card, and the notes."""
    with Monitor(uuid, nvml, every=0.01) as sampler:
        events = _listen(sampler, samples)
    notes = [event.message for event in events if isinstance(event, Warned)]
    return [event for event in events if isinstance(event, Sampled)][:samples], notes


def _gpu(sample: Sampled) -> dict[str, Any]:
    return {key: value for key, value in msgspec.structs.asdict(sample).items() if key.startswith("gpu_")}


def _host(sample: Sampled) -> dict[str, Any]:
    return {key: value for key, value in msgspec.structs.asdict(sample).items() if not key.startswith("gpu_")}


ALL = {
    "gpu_memory_used_bytes": 41 * 10**9,
    "gpu_memory_total_bytes": 80 * 10**9,
    "gpu_busy_percent": 93,
    "gpu_watts": 310.5,
    "gpu_celsius": 71,
    "gpu_millijoules": 123_456_789,
    "gpu_neighbours": [],
}


def test_all_that_a_card_tells_is_sampled_in_the_units_that_the_fields_name() -> None:
    nvml = Nvml()
    samples, notes = _look(nvml, samples=3)
    assert notes == []
    assert [_gpu(sample) for sample in samples] == [ALL] * 3
    opened = [call for call in nvml.asked if call[0] in ("nvmlInit", "nvmlDeviceGetHandleByUUID")]
    assert opened == [("nvmlInit",), ("nvmlDeviceGetHandleByUUID", f"GPU-{UUID}")]
    assert {call[1] for call in nvml.asked if len(call) > 1 and "Get" in call[0]} == {
        f"GPU-{UUID}",
        f"handle of GPU-{UUID}",
    }


@pytest.mark.parametrize("uuid", [f"GPU-{UUID}", f"MIG-{UUID}"])
def test_a_uuid_that_has_its_prefix_is_asked_for_as_it_is(uuid: str) -> None:
    nvml = Nvml(nvmlDeviceGetHandleByUUID=_known(uuid))
    assert _gpu(_look(nvml, uuid)[0][0]) == ALL
    assert nvml.asked[1] == ("nvmlDeviceGetHandleByUUID", uuid)


def test_under_mig_the_instance_is_asked_and_what_it_has_not_is_unknown_not_zero() -> None:
    nvml = Nvml(
        nvmlDeviceGetHandleByUUID=_known(f"MIG-{UUID}"),
        nvmlDeviceGetMemoryInfo=SimpleNamespace(used=3 * 10**9, total=10 * 10**9),
        nvmlDeviceGetUtilizationRates=NOT_SUPPORTED,
        nvmlDeviceGetPowerUsage=NOT_SUPPORTED,
        nvmlDeviceGetTemperature=_error(pynvml.NVML_ERROR_INVALID_ARGUMENT),
        nvmlDeviceGetTotalEnergyConsumption=NOT_SUPPORTED,
    )
    (sample,), notes = _look(nvml)
    assert notes == []
    assert _gpu(sample) == dict.fromkeys(ALL) | {
        "gpu_memory_used_bytes": 3 * 10**9,
        "gpu_memory_total_bytes": 10 * 10**9,
        "gpu_neighbours": [],
    }


@pytest.mark.parametrize(
    ("question", "fields"),
    [
        ("nvmlDeviceGetMemoryInfo", ["gpu_memory_used_bytes", "gpu_memory_total_bytes"]),
        ("nvmlDeviceGetUtilizationRates", ["gpu_busy_percent"]),
        ("nvmlDeviceGetPowerUsage", ["gpu_watts"]),
        ("nvmlDeviceGetTemperature", ["gpu_celsius"]),
        ("nvmlDeviceGetTotalEnergyConsumption", ["gpu_millijoules"]),
        ("nvmlDeviceGetComputeRunningProcesses", ["gpu_neighbours"]),
    ],
)
@pytest.mark.parametrize("error", [NOT_SUPPORTED, _error(pynvml.NVML_ERROR_NO_PERMISSION), ZeroDivisionError("a bug")])
def test_a_question_that_fails_leaves_out_its_own_field_and_is_not_asked_again(
    question: str, fields: list[str], error: Exception
) -> None:
    nvml = Nvml(**{question: error})
    samples, notes = _look(nvml, samples=3)
    assert notes == []
    assert [_gpu(sample) for sample in samples] == [ALL | dict.fromkeys(fields)] * 3
    assert [call[0] for call in nvml.asked].count(question) == 1


def test_a_figure_that_is_none_is_unknown() -> None:
    every_bit = 2**64 - 1
    memory = SimpleNamespace(used=every_bit, total=every_bit)
    nvml = Nvml(nvmlDeviceGetMemoryInfo=memory, nvmlDeviceGetTotalEnergyConsumption=every_bit)
    unknown = ("gpu_memory_used_bytes", "gpu_memory_total_bytes", "gpu_millijoules")
    assert _gpu(_look(nvml)[0][0]) == ALL | dict.fromkeys(unknown)


UNASKABLE = [
    (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "libnvidia-ml.so.1 was not found"),
    (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "sudo modprobe nvidia"),
    (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "restart the machine"),
    (pynvml.NVML_ERROR_NO_PERMISSION, "get access to /dev/nvidia"),
    (pynvml.NVML_ERROR_UNKNOWN, "see what `nvidia-smi` says"),
]


@pytest.mark.parametrize(("code", "said"), UNASKABLE)
def test_a_run_on_a_card_that_cannot_be_asked_has_one_note_and_samples_of_the_host(code: int, said: str) -> None:
    samples, notes = _look(Nvml(nvmlInit=_error(code)), samples=3)
    assert len(notes) == 1
    assert notes[0].startswith("No samples of the GPU. ")
    assert said in notes[0]
    assert all(_gpu(sample) == dict.fromkeys(ALL) and sample.process_memory_bytes for sample in samples)


@pytest.mark.parametrize("error", [OSError("a broken library"), AttributeError("nvmlInit")])
def test_an_error_that_nobody_foresaw_ends_the_samples_of_the_card_only(error: Exception) -> None:
    samples, notes = _look(Nvml(nvmlInit=error), samples=2)
    assert [str(error) in note for note in notes] == [True]
    assert samples[1].process_memory_bytes


def test_a_card_that_nvml_does_not_know_is_noted() -> None:
    assert _look(Nvml(nvmlDeviceGetHandleByUUID=_known()))[1] == [f"No samples of the GPU. {monitor.UNKNOWN_GPU}"]


def test_a_run_on_the_cpu_asks_nvml_nothing_and_notes_nothing() -> None:
    nvml = Nvml(nvmlInit=_error(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    (sample,), notes = _look(nvml, uuid="")
    assert notes == []
    assert nvml.asked == []
    assert _gpu(sample) == dict.fromkeys(ALL)


def test_the_host_is_sampled_as_psutil_sees_it() -> None:
    def work() -> None:
        until = time.process_time() + 0.3
        while time.process_time() < until:
            pass

    with Monitor(every=10.0) as sampler:
        (first,) = _listen(sampler)
        work()
        sampler.stop()
        (second,) = _listen(sampler)
    assert isinstance(first, Sampled)
    assert isinstance(second, Sampled)
    resident = psutil.Process().memory_info().rss
    assert first.process_memory_bytes == pytest.approx(resident, rel=0.2)
    assert first.process_cpu_percent is None  # there is no time before it
    # at least 0.3 s of work, but for a tick of the kernel's clock
    assert second.process_cpu_percent is not None
    assert second.process_cpu_percent >= 100 * 0.28 / second.seconds
    assert second.host_memory_total_bytes == psutil.virtual_memory().total
    assert 0 < (second.host_memory_used_bytes or 0) < (second.host_memory_total_bytes or 0)


def test_a_host_that_cannot_be_asked_for_one_thing_tells_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "virtual_memory", refused)
    (sample,), notes = _look(Nvml(), uuid="")
    assert notes == []
    assert sample.host_memory_used_bytes is None
    assert sample.process_memory_bytes


@pytest.mark.parametrize("contained", [False, True])
def test_other_processes_on_the_card_are_listed_without_this_one(
    contained: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "_contained", lambda: contained)
    names = {1: "/usr/bin/py\x1b[2J\udcff", US: "not asked", 2: _error(pynvml.NVML_ERROR_NO_PERMISSION)}

    def name(pid: int) -> str:
        found = names[pid]
        if isinstance(found, str):
            return found
        raise found

    nvml = Nvml(
        nvmlDeviceGetComputeRunningProcesses=[_process(1, 5), _process(US), _process(2, None)],
        nvmlSystemGetProcessName=name,
    )
    (_, sample), _ = _look(nvml, samples=2)
    assert sample.gpu_neighbours == [
        Neighbour(pid=1, name="py\ufffd[2J\ufffd", memory_bytes=5),
        Neighbour(pid=2, name="", memory_bytes=None),
    ]
    assert [call for call in nvml.asked if call[0] == "nvmlSystemGetProcessName"] == [
        ("nvmlSystemGetProcessName", 1),
        ("nvmlSystemGetProcessName", 2),
    ]


@pytest.mark.parametrize(
    ("pids", "contained", "exists", "neighbours"),
    [
        ([], False, True, None),  # this process is not seen: nobody else might be
        ([77], True, True, []),  # ids of the host: the only one is this process
        ([77], False, False, []),  # an id that nobody has here is one of the host
        ([77], False, True, [77]),  # this process is not on the card yet
        ([77, 78], True, False, [77, 78]),  # nobody can tell which is this one
    ],
)
def test_ids_of_the_host_are_told_from_those_here(
    pids: list[int],
    contained: bool,
    exists: bool,
    neighbours: list[int] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(monitor, "_contained", lambda: contained)
    monkeypatch.setattr(psutil, "pid_exists", lambda pid: exists)
    (sample,), _ = _look(Nvml(nvmlDeviceGetComputeRunningProcesses=[_process(pid) for pid in pids]))
    found = sample.gpu_neighbours
    assert (None if found is None else [other.pid for other in found]) == neighbours


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Until it is set, something hangs."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize("question", ["nvmlInit", "nvmlDeviceGetHandleByUUID", "nvmlDeviceGetPowerUsage"])
def test_a_question_that_hangs_is_noted_once_and_delays_nothing(question: str, release: threading.Event) -> None:
    nvml = Nvml(**{question: lambda *arguments: release.wait(60)})
    with Monitor(UUID, nvml, every=0.01, patience=0.05) as sampler:
        time.sleep(0.2)
        began = time.monotonic()
        events = [*sampler.take(), *sampler.take()]
        assert time.monotonic() - began < 5
        assert [event.message for event in events if isinstance(event, Warned)] == [
            "NVML does not answer: there are no samples of this run until it does."
        ]
        assert len(events) == 1
        began = time.monotonic()
        sampler.stop()
    assert time.monotonic() - began < 5
    assert sampler.take() == []


def test_samples_go_on_when_what_hung_answers_again(release: threading.Event) -> None:
    nvml = Nvml(nvmlInit=lambda: release.wait(60))
    with Monitor(UUID, nvml, every=0.01, patience=0.0) as sampler:
        while not sampler.take():
            time.sleep(0.005)
        release.set()
        (sample, *_) = _listen(sampler)
    assert isinstance(sample, Sampled)
    assert _gpu(sample) == ALL


def test_a_process_ends_while_a_question_still_hangs() -> None:
    code = (
        "import time; from dambench.runner.monitor import Monitor; from tests.runner.test_monitor import Nvml\n"
        "with Monitor('GPU-1', Nvml(nvmlInit=lambda: time.sleep(600))): pass"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_machine_that_gives_no_more_threads_gives_no_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    with Monitor() as sampler:
        sampler.stop()
    assert sampler.take() == []


def test_a_fault_of_the_monitor_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: monitor._Host) -> dict[str, Any]:
        raise KeyError("ours")

    monkeypatch.setattr(monitor._Host, "ask", broken)
    with Monitor() as sampler:
        sampler._thread.join(20)
        (note,) = sampler.take()
    assert note == Warned(message="Sampling broke (KeyError: 'ours'): the run goes on.")


def test_samples_nobody_hears_are_bounded_and_the_latest_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "MOST_SAMPLES", 5)
    with Monitor(every=0.001) as sampler:
        _listen(sampler, samples=20)
        time.sleep(0.2)
        events = sampler.take()
    assert len(events) <= 6
    assert next(event.seconds for event in events if isinstance(event, Sampled)) > 0.1


def _on_a_gpu() -> Iterator[AnyEvent]:
    """A run's words, as slow as a run."""
    for event in ledger.words(ledger.config()):
        if isinstance(event, Started):
            event = msgspec.structs.replace(
                event, environment=msgspec.structs.replace(event.environment, device_uuid=UUID)
            )
        yield event
        time.sleep(0.01)


def test_samples_come_between_the_first_event_and_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "FAREWELL", 20.0)
    events = list(sampled(_on_a_gpu(), Nvml()))
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    samples = [event for event in events if isinstance(event, Sampled)]
    assert all(_gpu(sample) == ALL for sample in samples)
    assert isinstance(events[-2], Sampled)  # the last moment counts: energy is a difference
    assert [type(event) for event in events if not isinstance(event, Sampled)] == [type(event) for event in _on_a_gpu()]


def test_a_run_that_never_starts_is_not_sampled() -> None:
    assert list(sampled(iter([ledger.failed()]), Nvml())) == [ledger.failed()]
    assert list(sampled(iter([]), Nvml())) == []


def test_a_run_that_is_left_in_the_middle_is_no_longer_sampled() -> None:
    before = threading.active_count()
    with closing(sampled(_on_a_gpu(), Nvml())) as events:
        for event in events:
            if isinstance(event, Warned):
                break
        assert threading.active_count() == before + 1
    deadline = time.monotonic() + 20
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


DM = [
    *("run", "--headless", "--method", "dm", "--dataset", "digits", "--network", "convnet-d1-w4", "--device", "cpu"),
    *("--eval-repeats", "2", "--set", "method.batch_real=8", "--iterations", "3"),
]


def test_a_run_stores_samples_of_its_host_and_show_prints_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run_cli([*DM, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["warnings"] == []
    with closing(Store.open(tmp_path / "runs.db")) as store:
        row = store.run(result["run"])
        samples = [sample for _, sample in store.samples(result["run"])]
    assert row.ended_at is not None
    took = datetime.fromisoformat(row.ended_at) - datetime.fromisoformat(row.created_at)
    times = [sample.seconds for sample in samples]
    assert times
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= took.total_seconds()
    assert all(_gpu(sample) == dict.fromkeys(ALL) for sample in samples)
    assert all(sample.process_memory_bytes and sample.host_memory_total_bytes for sample in samples)
    assert run_cli(["show", result["run"]]) == 0
    peak = max(sample.process_memory_bytes or 0 for sample in samples)
    shown = capsys.readouterr().out
    assert f"host: process peak {units.size(peak)}, " in shown
    assert "GPU:" not in shown
    assert run_cli(["show", result["run"], "--json"]) == 0
    usage = json.loads(capsys.readouterr().out)["usage"]
    assert (usage["samples"], usage["process_peak_memory_bytes"]) == (len(samples), peak)
    assert usage["gpu_joules"] is None


def test_a_run_whose_monitor_breaks_ends_as_without_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_cli([*DM, "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)

    def broken(self: monitor._Host) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(monitor._Host, "__init__", broken)
    assert run_cli([*DM, "--again", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["synthetic_sha256"] == whole["synthetic_sha256"]
    assert result["warnings"] == ["Sampling broke (MemoryError: no room): the run goes on."]


@pytest.mark.parametrize(("code", "said"), UNASKABLE)
def test_why_there_is_no_gpu_is_told_with_a_next_step(code: int, said: str) -> None:
    assert said in explain("13.2", 0, Nvml(nvmlInit=_error(code)), {})
    assert said in explain("13.2", 1, Nvml(nvmlInit=_error(code)), {})


@pytest.mark.parametrize(
    ("cuda", "answers", "visible", "said"),
    [
        ("", {}, None, "but torch is built without CUDA: install a build for it"),
        ("13.2", {}, "", "CUDA_VISIBLE_DEVICES='' hides the NVIDIA A100-SXM4-80GB: unset it"),
        ("13.2", {}, "-1", "CUDA_VISIBLE_DEVICES='-1' hides"),
        ("13.2", {}, "1,0", "CUDA_VISIBLE_DEVICES='1,0' hides"),
        ("13.2", {}, "GPU-0", "CUDA_VISIBLE_DEVICES='GPU-0' hides"),
        ("13.2", {}, "GPU-8932", "its driver 470.82 may be too old for CUDA 13.2"),
        ("13.2", {}, "0", "its driver 470.82 may be too old for CUDA 13.2"),
        ("13.2", {}, None, "its driver 470.82 may be too old for CUDA 13.2"),
        ("13.2", {"nvmlDeviceGetMigMode": NOT_SUPPORTED}, None, "may be too old"),
        ("13.2", {"nvmlDeviceGetMigMode": [1, 1]}, None, "is in MIG mode, and torch sees none of its instances"),
        ("13.2", {"nvmlDeviceGetMigMode": [1, 1]}, f"MIG-{UUID}", "is in MIG mode"),
        ("13.2", {"nvmlDeviceGetCount": 0}, None, "finds no GPU"),
        ("13.2", {"nvmlDeviceGetHandleByIndex": _error(pynvml.NVML_ERROR_NO_PERMISSION)}, None, "may not ask"),
    ],
)
def test_why_torch_does_not_use_a_gpu_that_is_there(
    cuda: str, answers: dict[str, Any], visible: str | None, said: str
) -> None:
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert said in explain(cuda, 0, Nvml(**answers), environ)


def test_nothing_is_to_be_explained_where_torch_has_a_gpu_and_nvml_answers() -> None:
    assert explain("13.2", 1, Nvml(), {}) == ""


@pytest.mark.parametrize(("why", "rows"), [("It is so.", [("GPU", "ok", "It is so. Runs take the CPU.")]), ("", [])])
def test_doctor_says_which_it_is(
    why: str, rows: list[doctor.Check], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(monitor, "explain", lambda cuda, devices: why)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert [check for check in doctor.examine(tmp_path / "runs.db") if check[0] == "GPU"] == rows


def test_all_gpus_and_who_is_on_them_are_seen_at_a_glance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "_contained", lambda: False)
    nvml = Nvml(
        nvmlDeviceGetCount=2,
        nvmlDeviceGetUtilizationRates=NOT_SUPPORTED,
        nvmlDeviceGetComputeRunningProcesses=[_process(US), _process(2**22 + 1, None)],
    )
    cards, trouble = monitor.look(nvml)
    assert trouble == ""
    assert cards[0] == cards[1]
    assert cards[0][:4] == ("NVIDIA A100-SXM4-80GB", 41 * 10**9, 80 * 10**9, None)
    ours, other = cards[0].tenants or []
    assert ours == monitor.Tenant(US, "python3.11", psutil.Process().username(), 10**9)
    assert other == monitor.Tenant(2**22 + 1, "python3.11", "", None)
    assert nvml.asked[-1] == ("nvmlShutdown",)


def test_a_glance_tells_why_there_is_nothing_to_see(monkeypatch: pytest.MonkeyPatch) -> None:
    assert monitor.look(Nvml(nvmlDeviceGetCount=0)) == ([], monitor.NO_GPU)
    assert monitor.look(Nvml(nvmlInit=_error(pynvml.NVML_ERROR_DRIVER_NOT_LOADED))) == ([], monitor.NO_DRIVER)
    lost = Nvml(nvmlDeviceGetName=_error(pynvml.NVML_ERROR_GPU_IS_LOST))
    assert monitor.look(lost)[0] == []
    assert "nvidia-smi" in monitor.look(lost)[1]
    monkeypatch.setattr(monitor, "_contained", lambda: True)  # where the numbers are the host's
    (card,), _ = monitor.look(Nvml())
    assert [tenant.user for tenant in card.tenants or []] == [""]
