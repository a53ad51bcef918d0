"""How many threads share an operation: what follows from a configuration and from the cores."""

import os
from pathlib import Path

import pytest
import torch

from dambench.core import cores
from dambench.training.threads import EACH, TABLE, choose, sharing

SMALL, MIDDLE, LARGE = 25_000_000, 480_000_000, 4_800_000_000
"""Multiplications of a batch: a ConvNet of width 128 on 8×8 and ten images, on 28×28 and ten, and a hundred."""


def takes(multiplications: int, threads: int, available: int, networks: int) -> float:
    """Steps of one thread that pass until each of the networks has taken one, by the table."""
    alone = next(row.alone for row in TABLE if multiplications >= row.multiplications)
    left, time = networks, 0.0
    while left > 0:
        left -= available // threads
        time += alone + (1 - alone) / threads
    return time


@pytest.mark.parametrize("available", [1, 2, 3, 8, 32, 128])
@pytest.mark.parametrize("networks", [1, 2, 5, 40])
def test_a_small_network_has_one_thread_on_any_machine(available: int, networks: int) -> None:
    assert choose(SMALL, available, networks) == 1
    assert choose(0, available, networks) == 1
    assert choose(TABLE[-1].multiplications - 1, available, networks) == 1


@pytest.mark.parametrize("size", [MIDDLE, LARGE])
@pytest.mark.parametrize("available", [1, 2, 6, 32])
@pytest.mark.parametrize("networks", [1, 2, 3, 5, 20])
def test_large_ones_are_done_first_by_the_choice_and_by_no_more_threads_than_have_work(
    size: int, available: int, networks: int
) -> None:
    chosen = choose(size, available, networks)
    able = [n for n in (1, 2, 4, 8, 16, 32) if n <= available and (n == 1 or n * EACH <= size)]
    assert chosen in able
    assert takes(size, chosen, available, networks) == min(takes(size, n, available, networks) for n in able)


def test_as_many_networks_as_cores_have_a_thread_each_and_one_alone_has_several() -> None:
    assert [choose(LARGE, 2, networks) for networks in (1, 2, 3, 4)] == [2, 1, 2, 1]
    assert choose(LARGE, 32, 32) == 1
    assert choose(LARGE, 32) == 16
    assert choose(MIDDLE, 32) == 2


def test_threads_are_shared_for_a_while() -> None:
    before = torch.get_num_threads()
    with sharing(before + 2):
        assert torch.get_num_threads() == before + 2
        with sharing(0):
            assert torch.get_num_threads() == before + 2
    assert torch.get_num_threads() == before


def test_cores_are_those_that_a_scheduler_or_a_control_group_grants(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.setattr(cores, "GROUPS", tmp_path)
    monkeypatch.setattr(cores, "OWN_GROUP", tmp_path / "own")
    for said, usable in (("", 16), ("4", 4), ("40", 16), ("3,2", 3), ("many", 16), ("0", 16)):
        monkeypatch.setenv(cores.LIMIT, said)
        assert cores.usable() == usable
    monkeypatch.delenv(cores.LIMIT)
    (tmp_path / "own").write_text("0::/user/job\n")
    (tmp_path / "user/job").mkdir(parents=True)
    for granted, usable in (("max 100000", 16), ("550000 100000", 6), ("20000 100000", 1), ("nonsense", 16)):
        (tmp_path / "user/job/cpu.max").write_text(f"{granted}\n")
        assert cores.usable() == usable
    (tmp_path / "user/cpu.max").write_text("300000 100000\n")
    assert cores.usable() == 3
