import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from textual.pilot import Pilot

from dambench.core.events import AnyEvent, Progressed, Real, Sampled, Stepped
from dambench.runner import monitor, processes
from dambench.runner.monitor import Glance
from dambench.store.runs import Store
from dambench.tui.models.alerts import alerts
from dambench.tui.models.chart import Series
from dambench.tui.models.machine_course import MOST, MachineCourse, narrowed
from dambench.tui.models.run_reader import RunReader, RunSnapshot
from dambench.tui.models.several import grid
from dambench.tui.models.surroundings import SurroundingsReader, card_lines
from tests import ledger
from tests.runner.test_monitor import Nvml
from tests.tui.screen import SIZES, console, drawn, play, shows, snapshot, stop_clock

CONFIGS = [
    ledger.config("dm", ipc, seed, options={"iterations": 400}) for ipc, seed in ((1, 0), (1, 1), (10, 0), (50, 0))
]


def _story(index: int, losses: Sequence[Real]) -> Iterator[AnyEvent]:
    first, *_ = ledger.words(CONFIGS[index])
    yield first
    for iteration, loss in enumerate(losses, start=1):
        yield Stepped(iteration=iteration, losses={"matching": loss}, seconds=iteration / 10)
    yield Progressed(phase="distil", done=len(losses), total=400)


FALLING = [2.0 / (1 + iteration) for iteration in range(100)]
STILL = [2.0] * 40 + [1.0] * 80
RISING = FALLING + [5.0] * 20


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four runs that go on: one that falls, one that stands still, one that diverges, one that is no number."""
    stop_clock(monkeypatch)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr(monitor, "explain", lambda cuda, devices: "There is no driver.")
    monkeypatch.setattr(processes, "state", lambda row: "running")
    path = tmp_path / "runs.db"
    with closing(Store.open(path, write=True)) as store:
        stories: list[Sequence[Real]] = [FALLING, STILL, RISING, [*FALLING[:50], "nan"]]
        for index, losses in enumerate(stories):
            run = store.create(CONFIGS[index], ledger.CARD)
            with store.db.conn:
                store.db.conn.execute("update runs set id = ? where id = ?", [f"run{index}22", run])
            for _ in store.record(f"run{index}22", _story(index, losses)):
                pass
    return path


def _read(path: Path, run: str) -> RunSnapshot:
    with closing(Store.open(path)) as store:
        seen = RunReader(run).read(store)
    assert isinstance(seen, RunSnapshot)
    return seen


@pytest.mark.parametrize("size", SIZES)
def test_runs_that_go_on_are_seen_beside_each_other(path: Path, size: tuple[int, int]) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        await pilot.press("2", "A")
        await shows(pilot, "[Several]", "! plateau", "! diverges", "! NaN", "4 runs going on")
        await snapshot(pilot, "several")
        if size == (80, 24):
            await pilot.press("l", "enter")
            await shows(pilot, "[2 Live]", "run222")
            await shows(pilot, "! diverges: the loss matching is 5, ")

    play(console(path), scene, size)


def test_marked_runs_are_seen_instead_also_where_none_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "state", lambda row: "finished")

    async def scene(pilot: Pilot[None]) -> None:
        await pilot.press("2", "A")
        await shows(pilot, "No run goes on.")
        await pilot.press("1")
        await shows(pilot, "run322")
        await pilot.press("space", "space", "2", "A")
        await shows(pilot, "2 runs marked")
        assert "! NaN" in drawn(pilot.app)
        assert "diverges" not in drawn(pilot.app)  # it has ended: what is to be done about it?

    play(console(path, ascii=True), scene)


def test_marks_tell_a_trend_in_figures_and_say_nothing_of_a_loss_that_falls(path: Path) -> None:
    assert alerts(_read(path, "run022")) == []
    (still,) = alerts(_read(path, "run122"))
    assert still.mark == "plateau"
    assert still.text.startswith("the loss matching has not fallen since iteration 91: 1, before 1")
    (rising,) = alerts(_read(path, "run222"))
    assert rising.text == "the loss matching is 5, 238.7 times its lowest, 0.0209 (medians of 10)"  # of 2/91 to 2/100
    (nan,) = alerts(_read(path, "run322"))
    assert (nan.mark, nan.text) == ("NaN", "the loss matching is nan at 51")
    assert [one.mark for one in alerts(_read(path, "run022"), 10**9)] == ["disk"]
    assert alerts(_read(path, "run022"), 10**10) == []


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_noisy_loss_that_falls_or_goes_below_zero_is_not_called_anything(path: Path, scale: float) -> None:
    seen, x = _read(path, "run022"), np.arange(1.0, 401.0)
    noise = np.random.default_rng(0).normal(size=400)
    for y in (scale * (10 - x / 50 + 0.3 * noise), scale * (-x / 100 + 0.3 * noise)):
        assert alerts(replace(seen, losses=(Series("matching", x, y),))) == []


def test_what_a_machine_did_is_kept_for_as_long_as_a_run_takes_in_few_numbers() -> None:
    course = MachineCourse()
    for second in range(10 * MOST):
        course.add(Sampled(seconds=float(second), process_cpu_percent=float(second)))
    values = course.means()["process_cpu_percent"]
    assert (course.span, len(values)) == (16.0, 160)
    assert values[:2] == (7.5, 23.5)  # means of 0..15 and of 16..31
    assert course.seconds == 10 * MOST - 1
    assert course.means()["gpu_busy_percent"] == (None,) * 160
    assert narrowed([1.0, 3.0, None, 5.0, None], 3) == [2.0, 5.0, None]
    late = MachineCourse()
    late.add(Sampled(seconds=3.0, process_cpu_percent=1.0))
    assert late.means()["process_cpu_percent"] == (None, None, None, 1.0)


def test_each_card_names_whoever_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "_user", lambda pid: "alice" if pid == 51200 else "")
    others = [SimpleNamespace(pid=51200, usedGpuMemory=9 * 10**9), SimpleNamespace(pid=7, usedGpuMemory=None)]
    cards, _ = monitor.look(Nvml(nvmlDeviceGetCount=2, nvmlDeviceGetComputeRunningProcesses=others))
    lines = [line.plain for line in card_lines(cards, 7, 60, ascii=True)]
    assert len(lines) == 8
    assert lines[0] == "GPU 0 NVIDIA A100-SXM4-80GB"[:30]
    assert "41.0/80.0 GB  busy 93 %" in lines[1]
    assert "51200 alice python3.11 9.0 GB" in lines[2]
    assert lines[3].strip() == "7 this run python3.11"
    blind = card_lines([Glance("a card", None, None, None, None)], None, 40, ascii=True)
    assert [line.plain.strip() for line in blind] == ["GPU 0 a card", "n/a  busy n/a", "its processes are not told"]


def test_cards_are_looked_at_only_around_a_run_on_one_of_them_here(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    def look() -> tuple[list[Glance], str]:
        looked.append(1)
        return [Glance("a card", 1, 2, 3, [])], ""

    monkeypatch.setattr(processes, "is_here", lambda row: True)
    reader, seen = SurroundingsReader(look), _read(path, "run022")
    reader.read(path, seen)
    assert reader._looking is not None
    reader._looking.join()
    assert (looked, reader.last.cards) == ([], ())
    assert reader.last.free_bytes is not None
    assert seen.environment is not None
    on_gpu = replace(seen, environment=msgspec.structs.replace(seen.environment, device="cuda:0"))
    reader._at = -100.0
    reader.read(path, on_gpu)
    reader._looking.join()
    assert [card.name for card in reader.last.cards] == ["a card"]
    monkeypatch.setattr(processes, "is_here", lambda row: False)
    reader.read(path, on_gpu)
    assert reader.last.cards == ()
    assert looked == [1]


@pytest.mark.parametrize(
    ("count", "width", "height", "expected"),
    [(1, 80, 20, (1, 1)), (2, 80, 20, (1, 2)), (4, 80, 20, (2, 2)), (12, 160, 44, (2, 6)), (9, 60, 14, (1, 2))],
)
def test_small_charts_have_as_few_columns_as_let_all_be_seen(
    count: int, width: int, height: int, expected: tuple[int, int]
) -> None:
    assert grid(count, width, height) == expected
