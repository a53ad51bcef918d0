"""What only a CUDA device can show: `make test-gpu`. Needs no network and no data but digits."""

from typing import Any

import pytest
import torch

from dambench.config import Request
from dambench.engine import prepare, run
from dambench.events import Evaluated, Finished, Sampled, Started, Warned
from dambench.gpu import sampled

pytestmark = pytest.mark.gpu


def _run(device: str, **more: Any) -> tuple[str, list[float]]:
    method = {"name": "dm", "batch_real": 32, "iterations": 20}
    request = Request(method=method, dataset="digits", ipc=2, device=device, eval_repeats=2, **more)
    events = list(run(prepare(request)))
    assert isinstance(events[-1], Finished), events[-1]
    assert all(cost.peak_memory_bytes > 0 for cost in events[-1].costs if cost.phase != "prepare")
    reserved = [cost.peak_reserved_bytes >= cost.peak_memory_bytes for cost in events[-1].costs]
    assert all(reserved) or device == "cpu"
    return events[-1].set_sha256, [event.accuracy for event in events if isinstance(event, Evaluated)]


def test_a_run_on_the_gpu_learns_as_on_the_cpu() -> None:
    on_gpu, on_cpu = _run("cuda:0")[1], _run("cpu")[1]
    assert sum(on_gpu) / 2 == pytest.approx(sum(on_cpu) / 2, abs=0.1)


def test_deterministic_runs_on_the_gpu_give_the_same_bits() -> None:
    try:
        assert _run("cuda:0", deterministic=True) == _run("cuda:0", deterministic=True)
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_run_on_the_gpu_is_sampled_or_says_why_not() -> None:
    request = Request(method={"name": "random"}, dataset="digits", ipc=1, device="cuda:0", eval_repeats=5)
    events = list(sampled(run(prepare(request))))
    assert isinstance(events[0], Started)
    assert events[0].environment.device_uuid
    samples = [event for event in events if isinstance(event, Sampled)]
    assert samples
    notes = [event.message for event in events if isinstance(event, Warned)]
    known = [sample for sample in samples if sample.gpu_memory_used_bytes]
    assert known or any("No samples of the GPU" in note for note in notes)
    assert all(0 < (s.gpu_memory_used_bytes or 0) <= (s.gpu_memory_total_bytes or 0) for s in known)
