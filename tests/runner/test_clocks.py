"""A wall clock that is set while somebody looks: nobody is lost for that, and nobody is kept alive by it for ever."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest

from dambench.runner import processes


class _Clock:
    """The two clocks of this machine, and that of another host."""

    def __init__(self) -> None:
        self.passed = 1000.0
        self.wall = self.theirs = datetime(2026, 3, 1, tzinfo=UTC)

    def now(self, zone: object) -> datetime:
        return self.wall

    def fromisoformat(self, text: str) -> datetime:
        return datetime.fromisoformat(text)

    def monotonic(self) -> float:
        return self.passed

    def wait(self, seconds: float) -> None:
        self.passed += seconds
        self.wall += timedelta(seconds=seconds)
        self.theirs += timedelta(seconds=seconds)


class _Row(NamedTuple):
    beat_at: str
    state: str = "running"
    host: str = "elsewhere"
    boot: str = "b"
    pid: int = 7
    process_started: int = 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(processes, "_heard", {})
    monkeypatch.setattr(processes, "datetime", clock)
    monkeypatch.setattr(processes.time, "monotonic", clock.monotonic)  # type: ignore[attr-defined]
    return clock


@pytest.mark.parametrize("jump", [timedelta(hours=5), timedelta(hours=-5)])
@pytest.mark.parametrize("whose", ["wall", "theirs"])
def test_a_run_elsewhere_goes_on_through_a_jump_of_either_clock_and_is_lost_in_time(
    clock: _Clock, jump: timedelta, whose: str
) -> None:
    for beat in range(12):
        row = _Row(clock.theirs.isoformat())
        assert processes.state(row) == "running"
        clock.wait(10)
        if beat == 5:
            setattr(clock, whose, getattr(clock, whose) + jump)
        assert processes.state(row) == "running"
    clock.wait(40)
    assert processes.state(row) == "running"
    clock.wait(20)
    assert processes.state(row) == "silent"
    setattr(clock, whose, getattr(clock, whose) - jump)
    clock.wait(500)
    assert processes.state(row) == "silent"
    clock.wait(60)
    assert processes.state(row) == "lost"
    row = _Row(clock.theirs.isoformat())  # it was only slow
    assert processes.state(row) == "running"


def test_what_is_seen_for_the_first_time_is_as_old_as_it_says(clock: _Clock) -> None:
    for number, (age, state) in enumerate(((-3600, "running"), (59, "running"), (61, "silent"), (601, "lost"))):
        then = (clock.wall - timedelta(seconds=age)).isoformat()
        assert processes.state(_Row(then, pid=number + 1)) == state
    late = _Row((clock.wall - timedelta(seconds=55)).isoformat(), pid=1)
    clock.wait(100)
    assert processes.silence(late) == 100  # no older than the last look, which saw another one


def test_who_begins_something_in_its_place_listens_first_whatever_the_clock_says(clock: _Clock) -> None:
    alive, dead = (_Row((clock.wall - timedelta(hours=5)).isoformat(), pid=pid) for pid in (1, 2))
    assert processes.state(alive) == "lost"  # so it is shown
    assert processes.state(alive, acting=True) == processes.state(dead, acting=True) == "silent"
    clock.wait(9)
    alive = alive._replace(beat_at=(clock.wall - timedelta(hours=5)).isoformat())
    assert processes.state(alive, acting=True) == "running"
    clock.wait(50)
    assert processes.state(dead, acting=True) == "silent"
    clock.wait(1)
    assert processes.state(dead, acting=True) == "lost"
    assert processes.state(alive, acting=True) == "running"
    assert processes.state(_Row("", pid=3), acting=True) == "lost"
