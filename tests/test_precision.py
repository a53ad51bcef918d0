import pytest
import torch

from dambench.errors import BadInput
from dambench.precision import Policy, choose_device


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


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", "cuda:1:2"])
def test_what_is_no_device_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match=r"is not a device|is not there"):
        choose_device(name)


def test_the_peak_of_memory_is_that_since_it_was_asked_last() -> None:
    policy = Policy(torch.device("cpu"))
    policy.restart_peak()
    low = policy.peak_bytes()
    block = torch.ones(50_000_000, dtype=torch.uint8)
    assert policy.peak_bytes() - low > 40_000_000
    del block
    policy.restart_peak()
    assert policy.peak_bytes() - low < 40_000_000
    assert policy.used_bytes() > 10_000_000
