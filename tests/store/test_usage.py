from typing import Any

import pytest

from dambench.core.events import Neighbour, Sampled
from dambench.store.usage import Usage, usage

OTHER = Neighbour(pid=7, name="python", memory_bytes=10**9)


def test_peaks_means_and_energy_are_those_computed_by_hand() -> None:
    names = (
        *("seconds", "gpu_memory_used_bytes", "gpu_busy_percent", "gpu_watts", "gpu_celsius", "gpu_millijoules"),
        *("process_memory_bytes", "process_cpu_percent"),
    )
    rows: list[tuple[Any, ...]] = [
        (0.0, 10, 0, 100.0, 40, 5_000_000, 300, None),
        (1.0, 40, 90, 300.0, 71, 5_210_000, 500, 100.0),
        (3.0, 20, 60, 200.0, 60, 5_700_500, 400, 150.0),
    ]
    samples = [
        Sampled(**dict(zip(names, row, strict=True)), gpu_memory_total_bytes=100, gpu_neighbours=[]) for row in rows
    ]
    assert usage(samples) == Usage(
        samples=3,
        gpu_peak_memory_bytes=40,
        gpu_memory_total_bytes=100,
        gpu_busy_percent=50.0,
        gpu_watts=200.0,
        gpu_peak_celsius=71,
        gpu_joules=700.5,
        gpu_shared=False,
        process_peak_memory_bytes=500,
        process_cpu_percent=125.0,
    )


@pytest.mark.parametrize("counter", [[None, None, None], [7, 7, 7], [None, 7, None]])
def test_energy_without_a_counter_that_moves_is_the_integral_of_power(counter: list[int | None]) -> None:
    times, powers = [0.0, 1.0, 3.0], [100.0, 300.0, 200.0]
    samples = [
        Sampled(seconds=second, gpu_watts=watts, gpu_millijoules=count)
        for second, watts, count in zip(times, powers, counter, strict=True)
    ]
    # 1 s at 200 W on average, then 2 s at 250 W
    assert usage(samples).gpu_joules == pytest.approx(700.0)


def test_what_no_sample_knew_is_unknown_not_zero() -> None:
    nothing = usage([])
    assert nothing.samples == 0
    assert {getattr(nothing, name) for name in Usage.__struct_fields__[1:]} == {None}
    assert usage([Sampled(seconds=0.0, gpu_watts=5.0)]).gpu_joules is None
    assert usage([Sampled(seconds=0.0, gpu_busy_percent=0)]).gpu_busy_percent == 0


@pytest.mark.parametrize(
    ("seen", "shared"),
    [
        ([None, None], None),
        ([None, []], False),
        ([[], [OTHER], []], True),
        ([None, [OTHER]], True),
    ],
)
def test_a_card_is_shared_if_anybody_else_was_on_it_at_any_time(
    seen: list[list[Neighbour] | None], shared: bool | None
) -> None:
    assert usage(Sampled(seconds=float(n), gpu_neighbours=who) for n, who in enumerate(seen)).gpu_shared is shared
