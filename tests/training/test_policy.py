import threading
from typing import cast

import pytest
import torch

from dambench.core.config import Execution, Precision
from dambench.core.errors import BadInput
from dambench.training import policy
from dambench.training.policy import Policy, choose_compiling, choose_device, choose_precision, micro_batch


@pytest.mark.parametrize(("device", "images"), [("cpu", 64), ("cuda", 1024)])
def test_a_test_batch_shrinks_as_images_grow(device: str, images: int) -> None:
    policy = Policy(torch.device(device))
    assert policy.test_batch(32 * 32) == images
    assert policy.test_batch(8 * 8) == 1024
    assert policy.test_batch(224 * 224) == (1 if device == "cpu" else 41)
    assert policy.test_batch(10**9) == 1


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    with pytest.raises(BadInput, match="no CUDA device that torch can use"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == "cuda:0"
    assert choose_device("cuda") == "cuda:0"
    assert choose_device("cuda:1") == "cuda:1"
    with pytest.raises(BadInput, match="this machine has 2 CUDA devices"):
        choose_device("cuda:2")


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CPU:1", "cuda:1:2"])
def test_what_is_no_device_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match=r"is not a device|is not there"):
        choose_device(name)


def test_the_peak_of_memory_is_that_since_it_was_asked_last() -> None:
    policy = Policy(torch.device("cpu"))
    policy.restart_peak()
    low = policy.peak_bytes()
    block = torch.ones(400_000_000, dtype=torch.uint8)  # more than what other tests may give back meanwhile
    assert policy.peak_bytes() - low > 100_000_000
    del block
    policy.restart_peak()
    assert policy.peak_bytes() - low < 40_000_000
    assert policy.used_bytes() > 10_000_000


# What is decided from the configuration.


def test_a_cpu_takes_few_images_at_once_and_a_gpu_all() -> None:
    of_mnist, of_digits, of_imagenet = 4 * 128 * 32 * 32, 4 * 32 * 8 * 8, 4 * 128 * 256 * 256
    assert micro_batch("cpu", of_mnist) == 16
    assert micro_batch("cpu", of_digits) == 1024
    assert micro_batch("cpu", of_imagenet) == 1
    assert micro_batch("cuda:0", of_mnist) == 0


def test_precision_is_that_of_the_device_unless_it_is_named() -> None:
    assert [choose_precision(name, "cpu") for name in (None, "auto", "fp32", "bf16")] == [
        "fp32",
        "fp32",
        "fp32",
        "bf16",
    ]
    assert [choose_precision(name, "cuda:0") for name in (None, "tf32", "fp32")] == ["tf32", "tf32", "fp32"]
    with pytest.raises(BadInput, match="tf32 is for GPUs"):
        choose_precision("tf32", "cpu")
    with pytest.raises(BadInput, match="No precision is called 'fp16'"):
        choose_precision("fp16", "cpu")


def test_long_runs_are_compiled_where_that_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "_missing_compiler", lambda kind: "")
    assert choose_compiling(None, "cpu", 1_000, True) == (True, "")
    assert choose_compiling("auto", "cpu", 999, True) == (False, "")
    assert choose_compiling("auto", "cpu", 10**6, False) == (False, "")
    assert choose_compiling("on", "cpu", 1, False) == (True, "")
    assert choose_compiling("off", "cpu", 10**6, True) == (False, "")
    assert choose_compiling("auto", "cuda:0", 5_000, False) == (True, "")
    with pytest.raises(BadInput, match="No way to compile is called 'yes'"):
        choose_compiling("yes", "cpu", 1, True)


@pytest.mark.parametrize(
    ("device", "said"), [("cpu", "no-such-g++, which is not there"), ("cuda:0", "triton, which is not installed")]
)
def test_without_a_compiler_nothing_is_compiled_and_that_is_said(
    device: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "CPP", "no-such-g++")
    monkeypatch.setattr(policy, "find_spec", lambda name: None)
    compiled, note = choose_compiling("on", device, 10, True)
    assert not compiled
    assert note.startswith("It runs uncompiled: ")
    assert said in note
    assert choose_compiling("auto", device, 10, True) == (False, "")


def test_a_policy_is_what_the_configuration_says() -> None:
    where = Execution(device="cpu", threads=3, real_chunk=16, synthetic_chunk=32)
    assert Policy.of(where, "bf16", True) == Policy(
        torch.device("cpu"), True, 3, "bf16", real_chunk=16, synthetic_chunk=32, workers=3, cores=3
    )
    chosen = Policy.of(Execution(cores=4, shared_by=2, network_threads={"mlp": 1}), "fp32", False)
    assert (chosen.threads, chosen.workers, chosen.cores) == (2, 4, 4)
    assert (chosen.threads_of("mlp"), chosen.threads_of("lenet")) == (1, 2)
    assert Policy.of(Execution(compiled=True, threads=3), "fp32", False).workers == 1
    assert Policy.of(Execution(), "fp32", False).real_chunk > 10**8


def test_side_by_side_each_has_a_thread_of_its_own_and_results_keep_their_order() -> None:
    before = torch.get_num_threads()
    policy = Policy(torch.device("cpu"), workers=3)
    meeting = threading.Barrier(3, timeout=20)

    def work(item: int) -> tuple[int, int, bool]:
        meeting.wait()  # all three must be at work
        return item, torch.get_num_threads(), torch.is_grad_enabled()

    for recorded in (True, False):
        with torch.set_grad_enabled(recorded):
            results = policy.each(work, range(3))
        assert results == [(0, 1, recorded), (1, 1, recorded), (2, 1, recorded)]
    assert torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError):
        policy.each(lambda item: 1 // item, range(3))


def test_precision_on_a_gpu_is_set_for_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    try:
        for name, rounded in (("fp32", False), ("tf32", True), ("bf16", True)):
            Policy(torch.device("cuda:0"), precision=cast(Precision, name)).apply()
            assert torch.backends.cuda.matmul.allow_tf32 is rounded
            assert torch.backends.cudnn.allow_tf32 is rounded
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before[:2]
        torch.backends.cudnn.benchmark = before[2]
