"""Joules of a GPU's board, from a stand-in for NVML."""

import time
from collections.abc import Callable
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest

from dambench.core.events import Energy
from dambench.runner import energy
from dambench.runner.energy import EnergyMeter
from tests.runner.test_monitor import NOT_SUPPORTED, US, UUID, Nvml


def counter(*millijoules: int) -> Callable[[str], int]:
    """A counter that stands so at one look after the other, the last for ever."""
    left = list(millijoules)

    def read(handle: str) -> int:
        return left.pop(0) if len(left) > 1 else left[0]

    return read


def readings(nvml: Any, count: int, *, patience: float = 20.0, every: float = 60.0) -> list[Energy | None]:
    with closing(EnergyMeter(UUID, nvml, every=every, patience=patience)) as meter:
        return [meter() for _ in range(count)]


def test_the_counter_s_difference_is_the_energy() -> None:
    nvml = Nvml(nvmlDeviceGetTotalEnergyConsumption=counter(5_000_000, 5_000_000, 5_002_500, 5_010_000))
    assert readings(nvml, 3) == [Energy(0.0, False), Energy(2.5, False), Energy(10.0, False)]
    assert ("nvmlDeviceGetPowerUsage", f"handle of GPU-{UUID}") not in nvml.asked


def test_without_a_counter_power_is_integrated_by_the_trapezoid_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([10.0, 12.0, 13.0])
    monkeypatch.setattr(energy, "time", SimpleNamespace(monotonic=lambda: next(moments)))
    powers = iter([100_000, 200_000, 300_000])
    nvml = Nvml(nvmlDeviceGetTotalEnergyConsumption=NOT_SUPPORTED, nvmlDeviceGetPowerUsage=lambda handle: next(powers))
    # 2 s from 100 to 200 W, 1 s from 200 to 300 W.
    assert readings(nvml, 2) == [Energy(300.0, False), Energy(550.0, False)]


def test_a_board_that_tells_neither_energy_nor_power_has_no_reading() -> None:
    nvml = Nvml(nvmlDeviceGetTotalEnergyConsumption=NOT_SUPPORTED, nvmlDeviceGetPowerUsage=NOT_SUPPORTED)
    assert readings(nvml, 2) == [None, None]


def test_a_counter_that_fails_later_leaves_no_reading_rather_than_a_mixture() -> None:
    answers = iter([1000, 2000])

    def read(handle: str) -> int:
        value = next(answers, None)
        if value is None:
            raise NOT_SUPPORTED
        return value

    assert readings(Nvml(nvmlDeviceGetTotalEnergyConsumption=read), 3) == [Energy(1.0, False), None, None]


def test_a_neighbour_at_any_time_since_the_last_reading_makes_it_shared() -> None:
    others = iter([[US], [US, 7], [US, 7], [US]])

    def processes(handle: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=1) for pid in next(others, [US])]

    nvml = Nvml(nvmlDeviceGetComputeRunningProcesses=processes)
    first, second, third = readings(nvml, 3)
    assert [reading and reading.shared for reading in (first, second, third)] == [True, True, False]
    (unknown,) = readings(Nvml(nvmlDeviceGetComputeRunningProcesses=NOT_SUPPORTED), 1)
    assert unknown is not None
    assert unknown.shared is None


def test_without_a_gpu_nothing_is_asked() -> None:
    nvml = Nvml()
    with closing(EnergyMeter("", nvml)) as meter:
        assert meter() is None
    assert nvml.asked == []


def test_a_driver_that_is_not_there_gives_no_reading() -> None:
    assert readings(Nvml(nvmlInit=NOT_SUPPORTED), 2) == [None, None]


def test_a_driver_that_hangs_is_waited_for_a_few_times_and_then_left_alone() -> None:
    def hang(*arguments: Any) -> None:
        time.sleep(2)

    began = time.monotonic()
    assert readings(Nvml(nvmlInit=hang), 50, patience=0.02) == [None] * 50
    assert time.monotonic() - began < 1
