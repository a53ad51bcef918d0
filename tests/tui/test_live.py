import io
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest
from textual.pilot import Pilot

from dambench.core.events import (
    AnyEvent,
    Checkpointed,
    Cost,
    Failed,
    Finished,
    Measured,
    Neighbour,
    Previewed,
    Process,
    Progressed,
    Real,
    Resumed,
    Sampled,
    Snapshot,
    Stepped,
    Stopped,
    Warned,
)
from dambench.runner import monitor, processes
from dambench.store.runs import NO_PROCESS, Store
from dambench.tui.app import DambenchApp
from dambench.tui.models.live_panes import (
    accuracy_lines,
    header_lines,
    machine_lines,
    problem_banner,
    timing_lines,
    wrapped,
)
from dambench.tui.models.run_reader import NetworkAccuracy, RunReader, RunSnapshot, runs
from dambench.tui.screens.live import LiveScreen, WhyNoGpu
from dambench.tui.terminal import refresh_rate
from dambench.tui.terminal.refresh_rate import backlog
from tests import ledger
from tests.tui.screen import SIZES, console, drawn, picture, play, shows, snapshot, stop_clock, until

CONFIG = ledger.config(ipc=10, options={"iterations": 400})
HERE = Process(host="gpu07", boot="b", pid=39001, started=7)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    stop_clock(monkeypatch)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr(monitor, "explain", lambda cuda, devices: "There is no driver.")
    return tmp_path / "runs.db"


def _sample(second: int) -> Sampled:
    return Sampled(
        seconds=second,
        process_memory_bytes=2**30,
        process_cpu_percent=50.0 + 100 * (second % 2),
        host_memory_used_bytes=4 * 2**30,
        host_memory_total_bytes=16 * 2**30,
    )


def _story(until: int = 400, judged: Sequence[int] = (100, 200, 300)) -> Iterator[AnyEvent]:
    """A run of 10 iterations a second, up to an iteration."""
    first, *_ = ledger.words(CONFIG)
    (score,) = (event for event in ledger.words(CONFIG) if isinstance(event, Measured))
    yield first
    for iteration in range(1, until + 1):
        if iteration == 1 or iteration % 4 == 0:
            losses: dict[str, Real] = {"matching": 2.0 / iteration, "attention": 1.0 / iteration}
            parts = {"real images": 0.06, "synthetic images": 0.03}
            yield Stepped(iteration=iteration, losses=losses, seconds=iteration / 10, parts=parts)
        if iteration % 10 == 0:
            yield _sample(iteration // 10)
        if iteration % 100 == 50:
            yield Previewed(iteration=iteration, preview=picture(iteration))
        if iteration in judged:
            yield Checkpointed(iteration=iteration, sha256="c" * 64, size_bytes=10, seconds=0.01)
            for repeat in range(2):
                accuracy = 0.5 + iteration / 1000 + repeat / 100
                values = score.values | {"accuracy": accuracy}
                yield msgspec.structs.replace(
                    score, iteration=iteration, repeat=repeat, final=False, values=values, seconds=5.0
                )
    yield Progressed(phase="distil", done=until, total=400)


def _end() -> Iterator[AnyEvent]:
    for event in ledger.words(CONFIG, [0.81, 0.83], seconds=5.0):
        if isinstance(event, Snapshot):
            yield msgspec.structs.replace(event, iteration=400, shape=[20, 1, 8, 8], preview=picture(400))
        elif isinstance(event, Measured):
            yield msgspec.structs.replace(event, iteration=400)
        elif isinstance(event, Finished):
            yield event


def _enter(path: Path, *story: AnyEvent, process: Process = NO_PROCESS, run_id: str = "abcdef") -> str:
    """A run that has said so much; its id is always the same."""
    with closing(Store.open(path, write=True)) as store:
        run = store.create(CONFIG, ledger.CARD, process=process)
        with store.db.conn:
            store.db.conn.execute("update runs set id = ? where id = ?", [run_id, run])
        for _ in store.record(run_id, story):
            pass
    return run_id


def _ask(path: Path, watched: RunReader) -> RunSnapshot:
    with closing(Store.open(path)) as store:
        seen = watched.read(store)
    assert isinstance(seen, RunSnapshot)
    return seen


def _heard(app: DambenchApp) -> list[str]:
    """What the console tells its user from now on."""
    told: list[str] = []
    app.say = lambda text, severity="information": told.append(text)  # type: ignore[method-assign]
    return told


async def _hears(pilot: Pilot[None], told: list[str], text: str) -> None:
    await until(pilot, lambda: any(text in line for line in told))


# What is known of a run.


def test_a_run_is_read_bit_by_bit_and_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    story = list(_story())
    run = _enter(path, *story[:60])
    watched = RunReader(run)
    first = _ask(path, watched)
    with closing(Store.open(path, write=True)) as store:
        for _ in store.record(run, story[60:]):
            pass
    told: list[int] = []
    tail = Store.tail

    def heard(store: Store, run: str, after: int = 0) -> Iterator[tuple[int, AnyEvent]]:
        told.append(after)
        return tail(store, run, after)

    monkeypatch.setattr(Store, "tail", heard)
    second = _ask(path, watched)
    assert told[0] > 0
    whole = _ask(path, RunReader(run))
    assert len(first.iterations) < len(second.iterations)
    for seen in (second, whole):
        assert seen.iterations.tolist() == [1, *range(4, 401, 4)]
        assert [one.name for one in seen.losses] == ["matching", "attention"]
        assert seen.losses[0].y[-1] == 2.0 / 400
        assert [(one.iteration, one.n) for one in seen.accuracies] == [(100, 2), (200, 2), (300, 2)]
        assert seen.accuracies[0].mean == pytest.approx(0.605)
        assert seen.parts == pytest.approx({"real images": 0.06, "synthetic images": 0.03})
        assert seen.costs == {"distil": 40.0, "evaluate": 30.0}
        assert seen.pictures == (50, 150, 250, 350)
        assert seen.checkpoint == 300


def test_what_was_said_after_the_checkpoint_is_forgotten_when_a_run_is_resumed(path: Path) -> None:
    run = _enter(path, *_story(200))
    watched = RunReader(run)
    assert _ask(path, watched).iterations[-1] == 200
    resumed = Resumed(attempt=2, iteration=100, checkpoint="", process=HERE, environment=ledger.ENVIRONMENT)
    with closing(Store.open(path, write=True)) as store:
        for _ in store.record(run, [resumed], attempt=2):
            pass
    seen = _ask(path, watched)
    assert seen.iterations[-1] == 100
    assert seen.pictures == (50,)
    assert [one.iteration for one in seen.accuracies] == [100]


def test_of_a_resumed_run_all_attempts_are_told_and_what_it_takes_goes_on(path: Path) -> None:
    counted = [Sampled(seconds=second, gpu_millijoules=1000 * (second + 1)) for second in (0, 10, 500, 510)]
    costs = [
        Cost(phase="prepare", seconds=3.0, peak_memory_bytes=1),
        Cost(phase="distil", seconds=20.0, peak_memory_bytes=1),
    ]
    run = _enter(
        path,
        *_story(200, judged=[100]),
        *counted[:2],
        Stopped(signal="TERM", phase="distil", iteration=200, costs=costs),
    )
    assert _ask(path, RunReader(run)).costs == {"prepare": 3.0, "distil": 20.0}
    other = msgspec.structs.replace(ledger.ENVIRONMENT, threads=7, host="gpu08")
    resumed = Resumed(attempt=2, iteration=100, checkpoint="", process=HERE, environment=other)
    watched = RunReader(run)
    with closing(Store.open(path, write=True)) as store:
        words: list[AnyEvent] = [resumed, Warned(message="a warning after"), *counted[2:]]
        words.append(Stepped(iteration=104, losses={"matching": 1.0}, seconds=10.4))
        for _ in store.record(run, words, attempt=2):
            pass
        assert store.describe(run)["usage"]["gpu_joules"] == 20.0  # not what the card took in between
    seen = _ask(path, watched)
    assert seen.joules == 20.0
    # The last words of the first attempt do not hold any more.
    assert seen.costs == {"prepare": 3.0, "distil": 10.4, "evaluate": 10.0}
    assert seen.environment == other
    told = " ".join(line.plain for line in timing_lines(seen, 60, ascii=False))
    assert "attempt 2, after iteration 100, host gpu08, 7 threads" in told
    log = "\n".join(seen.log)
    assert (
        log.index("stopped by TERM")
        < log.index("attempt 2")
        < log.index("a warning after")
        < log.index("iteration 104")
    )
    file = path.parent / "second.log"
    file.write_text("the second attempt's own\n")
    with closing(Store.open(path, write=True)) as store, store.db.conn:
        here = processes.this_process(str(file))
        store.db.conn.execute("update runs set log = ?, host = ?, boot = ?", [str(file), here.host, here.boot])
    log = "\n".join(_ask(path, watched).log)
    assert log.index("stopped by TERM") < log.index("the second attempt's own")


def test_how_fast_it_is_and_what_is_left(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "state", lambda row: row.state)
    seen = _ask(path, RunReader(_enter(path, *_story(200))))
    assert seen.speed == pytest.approx(10)
    assert seen.left == pytest.approx(20)
    assert seen.spread == pytest.approx((10, 10))


def test_after_an_evaluation_on_the_way_the_total_is_that_of_the_method(path: Path) -> None:
    story = [*_story(200), Progressed(phase="evaluate", done=3, total=7)]
    story.append(Stepped(iteration=204, losses={"matching": 1.0}, seconds=21.0))
    assert _ask(path, RunReader(_enter(path, *story))).row.total == 400


def test_a_picture_is_taken_apart_once_and_the_wanted_one_is_found(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _enter(path, *_story())
    watched = RunReader(run)
    newest = _ask(path, watched)
    assert newest.picture == 350
    assert newest.sheet is not None
    assert newest.sheet.images.shape == (2, 10, 8, 8, 3)
    assert _ask(path, watched).sheet is newest.sheet
    watched.picture_at = 50
    assert _ask(path, watched).picture == 50
    with closing(Store.open(path, write=True)) as store, store.db.conn:
        store.db.conn.execute("update previews set preview = x'00' where iteration = 150")
    watched.picture_at = 150
    assert _ask(path, watched).sheet is None


def test_the_log_is_the_end_of_its_file_or_what_was_said(path: Path, tmp_path: Path) -> None:
    said = _ask(path, RunReader(_enter(path, *_story(100)))).log
    assert said[0].startswith("dm of digits at IPC 10")
    assert sum(line.startswith("iteration") for line in said) == 1  # the last one of those in a row
    log = tmp_path / "run.log"
    log.write_text("\n".join(f"line {number}" for number in range(9000)) + "\n\x1b[2Jhostile\n")
    run = _enter(path, *_story(100), process=processes.this_process(str(log)), run_id="withlog")
    watched = RunReader(run)
    found = _ask(path, watched).log
    assert len(found) < 9000
    assert found[-1] == "\ufffd[2Jhostile"
    with log.open("a") as file:
        file.write("more\n")
    assert _ask(path, watched).log[-1] == "more"


def test_runs_that_go_on_come_first(path: Path) -> None:
    alive = processes.this_process()
    for name, process in (("aaaaaa", alive), ("bbbbbb", NO_PROCESS), ("cccccc", alive)):
        _enter(path, *_story(4), process=process, run_id=name)
    with closing(Store.open(path)) as store:
        assert runs(store) == ["cccccc", "aaaaaa", "bbbbbb"]
        watched = RunReader()
        watched.read(store)
        assert watched.run == "cccccc"


# What the panes say.


def _seen(path: Path, *story: AnyEvent) -> RunSnapshot:
    return _ask(path, RunReader(_enter(path, *story)))


def _text(lines: Sequence[object]) -> str:
    return "\n".join(str(line) for line in lines)


def test_a_gpu_says_what_it_knows_and_nothing_is_zero_that_is_unknown(path: Path) -> None:
    here = msgspec.structs.replace(ledger.ENVIRONMENT, device="cuda:0", device_name="NVIDIA H200")
    first = msgspec.structs.replace(next(_story()), environment=here)
    samples = [
        Sampled(
            seconds=second,
            gpu_memory_used_bytes=38 * 2**30,
            gpu_memory_total_bytes=141 * 2**30,
            gpu_busy_percent=71,
            gpu_watts=512.0,
            gpu_celsius=61,
            gpu_millijoules=1000 * 3_600_000 * second,
            gpu_neighbours=[Neighbour(pid=51200, name="python", memory_bytes=96 * 2**30)],
        )
        for second in (0, 1)
    ]
    text = _text(machine_lines(_seen(path, first, *samples, *_end()), 54, 16, ascii=False, why=""))
    for part in ("40.8/151.4 GB", "71 %", "512 W", "61 °C", "1 kWh", "other 51200 python  103.1 GB"):
        assert part in text
    blind = [Sampled(seconds=0.0)]
    path.unlink()
    text = _text(machine_lines(_seen(path, first, *blind, *_end()), 54, 16, ascii=True, why=""))
    for part in ("mem  n/a", "busy n/a", "power n/a  temp n/a", "energy n/a", "others n/a", "RAM  n/a"):
        assert part in text
    assert text.isascii()


def test_where_there_is_no_gpu_the_host_is_shown_and_why(path: Path) -> None:
    seen = _seen(path, *_story(), *_end())
    text = _text(machine_lines(seen, 54, 16, ascii=False, why="There is no driver."))
    for part in ("There is no driver.", "0.5/2 cores", "4.3/17.2 GB", "this run 1.1 GB"):
        assert part in text
    assert "no GPU (z says why)" in _text(machine_lines(seen, 26, 9, ascii=False, why="There is no driver."))


def test_time_goes_into_parts_that_were_measured_and_a_rest(path: Path) -> None:
    text = _text(timing_lines(_seen(path, *_story(), *_end()), 46, ascii=True))
    assert "per iteration 100 ms" in text
    shares = [line.split()[-2] for line in text.splitlines() if line.endswith("%")]
    assert shares[:3] == ["60", "30", "10"]
    assert "the run, 15 s" in text
    unmeasured: list[AnyEvent] = [e for e in _story() if not isinstance(e, Stepped)]
    unmeasured += [Stepped(iteration=i, losses={"matching": 1.0}, seconds=i / 10) for i in (1, 2, 3)]
    path.unlink()
    seen = _seen(path, *unmeasured, *_end())
    assert "parts were not measured" in _text(timing_lines(seen, 46, ascii=True))
    assert seen.environment is not None
    on_gpu = replace(seen, environment=msgspec.structs.replace(seen.environment, device="cuda:0"))
    assert "measured on a CPU only" in _text(timing_lines(on_gpu, 46, ascii=True))
    assert [line.plain for line in wrapped("set NAME=value,other now", 8)] == ["set", "NAME=val", "ue,other", "now"]
    narrow = _text(timing_lines(replace(seen, parts={"synthetic images": 0.04}), 26, ascii=True)).splitlines()
    assert f"{'synthetic images':<20} 40 ms" in narrow  # the name whole, and no share


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (ledger.stopped(200), ["Stopped by SIGTERM at iteration 200. r goes on from iteration 200"]),
        (ledger.failed(), ["Failed at iteration 200.", "it broke", "y copies the traceback"]),
        (
            Failed(error="The loss is nan", traceback="T", costs=[], diverged=7),
            ["Diverged at iteration 7.", "The loss is nan", "smaller step size"],
        ),
        (None, ["Lost at iteration 200: its process is gone", "3 h", "Last words: ", "r goes on from iteration 200"]),
    ],
)
def test_a_run_that_did_not_go_well_says_so_with_the_ways_out(
    path: Path, end: AnyEvent | None, said: list[str]
) -> None:
    story = [*_story(200), *([end] if end else [])]
    text = _text(problem_banner(_seen(path, *story), "runs.db"))
    for part in said:
        assert part in text


def test_a_run_that_goes_well_has_no_banner(path: Path) -> None:
    assert problem_banner(_seen(path, *_story(), *_end()), "runs.db") == []


def test_facts_fit_their_line(path: Path) -> None:
    seen = _seen(path, *_story(200))
    for width in (60, 80, 99, 120, 160):
        for ascii_ in (True, False):
            found = header_lines(seen, width, True, ascii_)
            assert all(line.cell_len <= width for line in found)
            assert not ascii_ or all(line.plain.isascii() for line in found)


def test_why_there_is_no_gpu_is_asked_once_and_waits_for_nobody() -> None:
    asked: list[str] = []
    release = threading.Event()

    def explain(cuda: str, devices: int) -> str:
        asked.append(cuda)
        release.wait(5)
        return "There is no driver."

    why = WhyNoGpu(explain)
    assert [why.text("13"), why.text("13")] == ["", ""]
    release.set()
    end = time.monotonic() + 5
    while not why.text("13") and time.monotonic() < end:
        time.sleep(0.01)
    assert why.text("13") == "There is no driver."
    assert asked == ["13"]


# The screen.


@pytest.mark.parametrize("size", SIZES)
def test_a_finished_run_is_shown_as_it_went(path: Path, size: tuple[int, int]) -> None:
    run = _enter(path, *_story(), *_end())
    app = console(path, run)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "finished", "a matching", "400  82.00 ± 1.41", "RAM")
        await pilot.pause()
        await snapshot(pilot, "live")

    play(app, scene, size)


def test_in_ascii_without_colours_there_is_only_ascii(path: Path) -> None:
    run = _enter(path, *_story(), *_end())
    app = console(path, run, ascii=True, colour=False)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "finished", "a matching", "82.00 +- 1.41", "Log")
        # (What a run and others have said is theirs, and the hints below are Textual's.)
        above, _, log = drawn(app).partition("Log")
        assert above.isascii(), [letter for letter in above if not letter.isascii()]
        assert log

    play(app, scene, (160, 48))


def test_keys_change_how_the_losses_are_drawn_and_that_is_remembered(path: Path) -> None:
    run = _enter(path, *_story(), *_end())
    app = console(path, run)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "Loss  whole run")
        await pilot.press("L", "m", "w")
        await shows(pilot, "Loss  log y  smoothed 0.9  last 10 min")

    play(app, scene)
    assert console(path, run).settings.get("charts.log", False)


def test_images_take_the_screen_and_one_can_go_back_to_how_they_began(path: Path) -> None:
    run = _enter(path, *_story(), *_end())
    app = console(path, run)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "a matching")
        assert "Synthetic set" not in drawn(app)
        await pilot.press("i")
        await shows(pilot, "Synthetic set, iteration 400  (5 of 5)", "▀▀▀▀")
        assert "a matching" not in drawn(app)
        for _ in range(4):
            before = drawn(app)
            await pilot.press("comma")
            await until(pilot, lambda before=before: drawn(app) != before)  # type: ignore[misc]
        await shows(pilot, "Synthetic set, iteration 50  (1 of 5)")
        await pilot.press("full_stop")
        await shows(pilot, "iteration 150  (2 of 5)")
        await pilot.press("escape")
        await shows(pilot, "a matching")

    play(app, scene)


def test_one_can_go_from_run_to_run(path: Path) -> None:
    for name in ("aaaaaa", "bbbbbb"):
        _enter(path, *_story(40), *_end(), run_id=name)
    app = console(path, "bbbbbb")
    told = _heard(app)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "bbbbbb finished")
        await pilot.press("right_square_bracket")
        await shows(pilot, "aaaaaa finished")
        await pilot.press("right_square_bracket")
        await _hears(pilot, told, "no other run")
        await pilot.press("left_square_bracket")
        await shows(pilot, "bbbbbb finished")

    play(app, scene)


def test_a_frozen_view_stands_still_while_the_run_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    story = list(_story())
    run = _enter(path, *story[:60], process=processes.this_process())
    app = console(path, run)
    found: list[RunSnapshot] = []
    show = LiveScreen.show

    def heard(place: LiveScreen, seen: RunSnapshot) -> None:
        found.append(seen)
        show(place, seen)

    monkeypatch.setattr(LiveScreen, "show", heard)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "running", "a matching")
        await pilot.press("space")
        await shows(pilot, "frozen (space)", "x Stop", "q Quit")
        before = drawn(app)
        with closing(Store.open(path, write=True)) as store:
            for _ in store.record(run, story[60:]):
                pass
        await until(pilot, lambda: found[-1].row.done == 400)
        await pilot.pause(2 * refresh_rate.NUMBERS)
        assert drawn(app) == before
        await pilot.press("space")
        await shows(pilot, "400/400")

    play(app, scene)


def test_a_run_is_followed_as_it_goes_on(path: Path) -> None:
    story = list(_story())
    run = _enter(path, *story[:60], process=processes.this_process())
    app = console(path)
    app.settings.set("place", "live")

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, f"{run} running")
        with closing(Store.open(path, write=True)) as store:
            for _ in store.record(run, [*story[60:], *_end()]):
                pass
        await shows(pilot, f"{run} finished", "400  82.00")

    play(app, scene)


def test_without_a_database_or_a_run_the_place_says_what_to_do(path: Path) -> None:
    with closing(Store.open(path, write=True)):
        pass
    app = console(path)
    app.settings.set("place", "live")

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "No runs in runs.db yet.", "dambench run")
        await pilot.press("comma", "x", "X", "r", "i", "i", "E", "right_square_bracket", "y", "j", "g")

    play(app, scene)


def test_a_lost_run_is_told_with_its_last_words(path: Path, tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    log.write_text("iteration 100\nKilled\n")
    gone = msgspec.structs.replace(processes.this_process(str(log)), started=1)
    run = _enter(path, *_story(200), process=gone)
    app = console(path, run)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "lost", "Last words: Killed", "r goes on from iteration 200")

    play(app, scene)


def test_the_traceback_of_a_failed_run_can_be_copied(path: Path) -> None:
    run = _enter(path, *_story(200), ledger.failed())
    app = console(path, run)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "Failed at iteration 200.", "it broke")
        assert isinstance(app.screen, LiveScreen)
        assert app.screen.to_copy() == "Traceback …"

    play(app, scene)


def test_the_log_can_be_read_backwards(path: Path, tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    log.write_text("\n".join(f"line {number}." for number in range(100)))
    run = _enter(path, *_story(), *_end(), process=processes.this_process(str(log)))
    app = console(path, run)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "line 99.")
        await pilot.press("g")
        await shows(pilot, "line 0.", "lines below")
        await pilot.press("j")
        await until(pilot, lambda: "line 0." not in drawn(app))
        await pilot.press("f")
        await shows(pilot, "line 99.")

    play(app, scene)


# What is done to a run.


def _signals(monkeypatch: pytest.MonkeyPatch) -> list[signal.Signals]:
    sent: list[signal.Signals] = []

    def send(row: processes.ProcessRow, number: signal.Signals) -> bool:
        assert row.pid == os.getpid()
        sent.append(number)
        return True

    monkeypatch.setattr(processes, "send", send)
    return sent


def test_a_run_is_asked_to_stop_by_a_key_and_killed_only_by_its_name(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _enter(path, *_story(200), process=processes.this_process())
    sent = _signals(monkeypatch)
    app = console(path, run)
    told = _heard(app)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "running")
        await pilot.press("x")
        await shows(pilot, f"Stop the run {run}?")
        assert sent == []
        await pilot.press("enter")
        await _hears(pilot, told, f"{run} was asked to stop")
        assert sent == [signal.SIGTERM]
        await pilot.press("X")
        await shows(pilot, f"Type {run} to kill it")
        await pilot.press(*"wrong", "enter")
        await _hears(pilot, told, "Not killed")
        await pilot.press("X")
        await shows(pilot, f"Type {run} to kill it")
        await pilot.press(*run, "enter")
        await _hears(pilot, told, f"{run} was killed")
        assert sent == [signal.SIGTERM, signal.SIGKILL]

    play(app, scene)


def test_a_run_on_another_host_is_asked_in_the_database(path: Path) -> None:
    run = _enter(path, *_story(200), process=HERE)
    with closing(Store.open(path, write=True)) as store, store.db.conn:
        store.db.conn.execute("update runs set beat_at = '2999-01-01T00:00:00+00:00'")
    app = console(path, run)
    told = _heard(app)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "running")
        await pilot.press("x", "y")
        await _hears(pilot, told, "gpu07 notices")
        with closing(Store.open(path)) as store:
            assert store.run(run).stop_asked == 1
        await pilot.press("X")
        await _hears(pilot, told, "only there can it be killed")

    play(app, scene)


def test_a_run_goes_on_in_a_process_of_its_own(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _enter(path, *_story(200), ledger.stopped(200))
    started: list[Sequence[str]] = []
    ends = iter([(run, 0), ("", 2)])

    def start(arguments: Sequence[str], say: object) -> tuple[str, int]:
        started.append(arguments)
        return next(ends)

    monkeypatch.setattr(processes, "start", start)
    app = console(path, run)
    told = _heard(app)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "stopped")
        await pilot.press("r")
        await until(pilot, lambda: len(started) == 1)
        assert started == [["resume", run, "--db", str(path), "--headless"]]
        await pilot.press("r")
        await _hears(pilot, told, "could not be resumed (exit code 2)")

    play(app, scene)


def test_a_console_that_only_looks_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _enter(path, *_story(200), process=processes.this_process())
    sent = _signals(monkeypatch)
    app = console(path, run, readonly=True)
    told = _heard(app)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "running")
        await pilot.press("x", "X", "r")
        await _hears(pilot, told, "only looks")
        assert sent == []

    play(app, scene)


# Pace.


def test_the_backlog_is_what_waits_for_the_terminal() -> None:
    app = DambenchApp(Path("none.db"))
    assert backlog(app) == 0
    app._driver = SimpleNamespace(_writer_thread=SimpleNamespace(_queue=SimpleNamespace(qsize=lambda: 3)))  # type: ignore[assignment]
    assert backlog(app) == 3


def test_textuals_driver_still_has_the_queue_that_is_asked() -> None:
    from textual.drivers._writer_thread import WriterThread

    thread = WriterThread(io.StringIO())
    app = DambenchApp(Path("none.db"))
    app._driver = SimpleNamespace(_writer_thread=thread)  # type: ignore[assignment]
    thread.write("one")
    thread.write("two")
    assert backlog(app) == 2


def test_nothing_is_painted_while_the_terminal_is_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    story = list(_story())
    run = _enter(path, *story[:60], process=processes.this_process())
    app = console(path, run)
    behind: list[int] = []

    def backlog_of(app: object) -> int:
        behind.append(1)
        return 1

    monkeypatch.setattr(refresh_rate, "backlog", backlog_of)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "running", "x Stop", "q Quit")
        before = drawn(app)
        with closing(Store.open(path, write=True)) as store:
            for _ in store.record(run, story[60:]):
                pass
        seen = len(behind)
        await until(pilot, lambda: len(behind) > seen + 2)
        assert drawn(app) == before
        monkeypatch.setattr(refresh_rate, "backlog", lambda app: 0)
        await shows(pilot, "400/400")

    play(app, scene)


def test_validation_stands_beside_accuracy_and_decides_which_iteration_is_called_best() -> None:
    row = ledger.run_row(config='{"evaluate_every": 10}')
    accuracies = tuple(
        NetworkAccuracy(iteration, "convnet", iteration == 20, accuracy, 0.01, 3, validation)
        for iteration, accuracy, validation in ((10, 0.91, 0.93), (20, 0.92, 0.90))
    )
    snapshot = cast(RunSnapshot, SimpleNamespace(row=row, accuracies=accuracies))
    lines = [str(line) for line in accuracy_lines(snapshot, 40, ascii=False)]
    assert lines[0].split() == ["after", "mean", "±", "std", "n", "valid."]
    assert lines[1].split() == ["20", "92.00", "±", "1.00", "3", "90.00"]
    assert lines[2].split() == ["10", "91.00", "±", "1.00", "3", "93.00", "best"]
    assert max(map(len, lines)) <= 44
