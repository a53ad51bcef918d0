"""The Queue place: what waits, why, by whom and until when; and what its keys do to it."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from textual.pilot import Pilot

from dambench import __version__
from dambench.core.errors import BadInput
from dambench.runner import processes
from dambench.store.queue import Queue, Queued
from dambench.store.records import QueuedRun
from dambench.store.runs import Store
from dambench.tui.models import queue_page, queueing
from dambench.tui.models.queue_page import _schedule, grid_lines, progress_line, rest_line, worker_lines
from tests import ledger
from tests.tui.screen import SIZES, console, drawn, play, said, shows, snapshot, stop_clock, types, until

EARLIER = "2026-11-01T11:30:00.000+00:00"


def _new(queue: Queue, name: str, method: str, ipc: int, seed: int, **facts: Any) -> QueuedRun:
    request = {"method": method, "dataset": "digits", "ipc": ipc, "seed": seed}
    run = queue.new(request, method=method, dataset="digits", ipc=ipc, seed=seed, **facts)
    return msgspec.structs.replace(run, id=name, uid=name.ljust(32, "_"))


def _fill(store: Store, *, worker: bool = True) -> Queue:
    """A sweep of nine, of which one is finished, one is being run, one failed, one is paused and two wait for
    something; and one run that belongs to none."""
    queue, tag = Queue(store), "sweep:digits"
    ids = iter("abcdefghi")
    runs = [
        _new(queue, f"q{next(ids)}", method, ipc, seed, tag=tag, seconds=600.0)
        for seed in (0, 1)
        for method in ("random", "dm")
        for ipc in (1, 10)
    ]
    user = _new(queue, "quser", "mtt", 1, 0, tag=tag, after=[runs[5].uid])
    alone = _new(queue, "qalone", "dc", 1, 0, device="cuda:7")
    queue.add([*runs, user, alone])
    if worker:
        here = processes.this_process()
        facts: dict[str, Any] = {"host": here.host, "boot": here.boot, "pid": here.pid}
        queue.see("w" * 32, **facts, process_started=here.started, dambench=__version__, executor="local",
                  devices='["cpu"]', slots=2, began_at=EARLIER)  # fmt: skip
    for outcome in ("finished", "failed", "taken"):
        one = queue.take("w" * 32)
        assert one is not None
        if outcome == "finished":
            queue.finish(one)
        elif outcome == "failed":
            queue.fail(one, "CUDA out of memory at step 7001")
    queue.pause([runs[3].uid])
    return queue


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    stop_clock(monkeypatch, EARLIER)
    monkeypatch.setattr("dambench.runner.monitor.look", lambda: ([], "There is no NVIDIA GPU here."))
    monkeypatch.setattr("socket.gethostname", lambda: "gpu07")
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        _fill(store)
    return tmp_path / "runs.db"


def _all(path: Path) -> dict[str, Queued]:
    with closing(Store.open(path)) as store:
        return {one.id: one for one in Queue(store).all()}


def _order(path: Path) -> list[str]:
    with closing(Store.open(path)) as store:
        return [one.id for one in Queue(store).all("state in ('waiting', 'paused')")]


@pytest.mark.parametrize("size", SIZES)
def test_the_place(path: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Store.open(path, write=True)) as store:
        Queue(store).see("w" * 32, pid=4242)
    monkeypatch.setattr("dambench.runner.processes.state", lambda row: row.state)

    async def scene(pilot: Pilot[None]) -> None:
        await pilot.press("4")
        await shows(pilot, "[4 Queue]", "1 of 9 done", "CUDA out of", "hold")
        await snapshot(pilot, "queue")

    play(console(path), scene, size)


def test_in_ascii_and_without_colour_the_grid_has_other_signs(path: Path) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        await pilot.press("4")
        await shows(pilot, "[4 Queue]", "# done", "@ run", "o wait", "x fail")
        assert all(ord(character) < 128 for character in drawn(pilot.app))

    play(console(path, ascii=True, colour=False), scene)


def test_an_empty_queue_says_how_it_is_filled(tmp_path: Path) -> None:

    async def scene(pilot: Pilot[None]) -> None:
        await pilot.press("4")
        await shows(pilot, "There is no database", "add a run")
        with closing(Store.open(tmp_path / "runs.db", write=True)):
            pass
        await shows(pilot, "Nothing is queued.")

    async def who_may_only_read(pilot: Pilot[None]) -> None:
        await pilot.press("4")
        await shows(pilot, "Nothing is queued.", "q Quit")
        assert "add a run" not in drawn(pilot.app)

    play(console(tmp_path / "runs.db"), scene)
    play(console(tmp_path / "runs.db", readonly=True), who_may_only_read)


def test_keys_pause_move_retry_and_drop(path: Path) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        await pilot.press("4")
        await shows(pilot, "1 of 9 done")
        await pilot.press("j")  # from the one that is being run to the first that waits, which is paused
        assert _all(path)["qd"].state == "paused"
        await pilot.press("p")
        await until(pilot, lambda: _all(path)["qd"].state == "waiting")
        before = _order(path)
        await pilot.press("J")
        await until(pilot, lambda: _order(path) == [before[1], before[0], *before[2:]])
        await shows(pilot, "in ~")
        await pilot.press("K")
        await until(pilot, lambda: _order(path) == before)
        await shows(pilot, "▌  4 wait  qd")  # what is marked is what is seen
        await pilot.press("space", "space", "p")
        await until(pilot, lambda: [_all(path)[name].state for name in before[:2]] == ["paused", "paused"])
        await pilot.press("D")
        await shows(pilot, "Take 2 runs out of the queue?")
        await pilot.press("y")
        await until(pilot, lambda: [_all(path)[name].state for name in before[:2]] == ["dropped", "dropped"])
        await until(pilot, lambda: "2 runs dropped." in said(pilot.app))
        await pilot.press("u")
        await until(pilot, lambda: "In the queue again: 2 runs." in said(pilot.app))
        assert _order(path) == before
        assert [_all(path)[name].state for name in before[:2]] == ["paused", "paused"]
        await shows(pilot, "2 on hold")
        await pilot.press("escape", "G", "R")
        await shows(pilot, "Why should it work now?")
        await types(pilot, "more memory", "enter")
        await until(pilot, lambda: _all(path)["qb"].state == "waiting")
        assert _all(path)["qb"].reason == "more memory"

    play(console(path), scene)


@pytest.mark.slow
def test_what_goes_on_is_asked_about_before_it_is_stopped(path: Path) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        await pilot.press("4")
        await shows(pilot, "1 of 9 done")
        await pilot.press("p")
        await shows(pilot, "stops with a checkpoint")
        await pilot.press("escape")
        assert _all(path)["qc"].state == "taken"
        await pilot.press("p", "y")
        await until(pilot, lambda: _all(path)["qc"].state == "paused")

    play(console(path), scene)


@pytest.mark.slow
def test_a_console_that_only_looks_changes_nothing(path: Path) -> None:
    before = _all(path)

    async def scene(pilot: Pilot[None]) -> None:
        await pilot.press("4")
        await shows(pilot, "1 of 9 done")
        for key in ("p", "J", "K", "R", "D", "F", "a"):
            await pilot.press("j", key)
        assert "only looks" in said(pilot.app)
        assert _all(path) == before

    play(console(path, readonly=True), scene)


def test_runs_are_queued_again_with_other_seeds_as_a_sweep(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with closing(Store.open(path, write=True)) as store:
        ledger.add(store, ledger.config("random", 1))
        ledger.add(store, ledger.config("dm", 1))

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "2 runs")
        await pilot.press("space", "space", "Q")
        await shows(pilot, "Queue 2 runs again")
        await types(pilot, "seeds=3-5 mine", "enter")
        await shows(pilot, "Queue 6 runs, as the sweep mine?")
        await pilot.press("y")
        await until(pilot, lambda: "Queued: 6 runs" in said(pilot.app))
        queued = list(_all(path).values())
        assert [(one.seed, one.tag) for one in queued] == [(seed, "sweep:mine") for seed in (3, 4, 5)] * 2
        assert {one.method for one in queued} == {"random", "dm"}
        assert all("sweep:mine" in one.request["tags"] for one in queued)
        await pilot.press("Q")
        await types(pilot, "nonsense ipc", "enter")
        await until(pilot, lambda: "a sweep has one name" in said(pilot.app))
        assert len(_all(path)) == 6

    play(console(path), scene)


@pytest.mark.slow
def test_the_form_queues_what_it_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"

    async def scene(pilot: Pilot[None]) -> None:
        await pilot.press("4", "a")
        await shows(pilot, "^n Queue")
        await pilot.press("ctrl+n")
        await shows(pilot, "[4 Queue]", "no worker")
        (one, *_) = _all(path).values()
        assert (one.method, one.dataset, one.state) == ("dm", "digits", "waiting")

    play(console(path), scene, (100, 30))


# What is shown, without a screen.


def _one(uid: str, seconds: float | None, **more: Any) -> Queued:
    empty = dict.fromkeys(("worker", "run", "reason", "dambench", "taken_at", "ended_at", "key", "tag"), "")
    facts: dict[str, Any] = {"command": "run", "request": {}, "method": "dm", "dataset": "digits", "ipc": 1, "seed": 0}
    facts |= {"network": "", "protocol": "", "settings": {}, "priority": 0, "place": 1.0, "after": [], "threads": 0}
    facts |= {"device": "", "peak_memory_bytes": None, "disk_bytes": None, "attempt": 0, "losses": 0, "number": 1}
    facts |= empty | {"added_at": EARLIER, "state": "waiting", "id": uid, "uid": uid, "seconds": seconds} | more
    return Queued(**facts)


@pytest.mark.parametrize(
    ("slots", "begins", "rest"),
    [
        # a 10, b 20, c 30 behind one that still takes 5: by hand.
        (1, [5.0, 15.0, 35.0], 65.0),
        (2, [0.0, 5.0, 10.0], 40.0),
        (4, [0.0, 0.0, 0.0], 30.0),
    ],
)
def test_the_estimates_are_those_of_a_list_that_is_worked_off_in_its_order(
    slots: int, begins: Sequence[float], rest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_clock(monkeypatch)
    taken = _one("t", 1805.0, state="taken", taken_at=EARLIER)
    waiting = [_one("a", 10.0), _one("b", 20.0), _one("c", 30.0)]
    found, last = _schedule([taken], waiting, slots)
    assert list(found.values()) == begins
    assert last == rest


def test_behind_a_run_of_which_nothing_is_known_nothing_is_promised() -> None:
    found, last = _schedule([], [_one("a", None), _one("b", 10.0)], 1)
    assert (found, last) == ({"a": 0.0, "b": None}, None)
    # What waits for another run holds no slot: the next one takes its turn.
    found, last = _schedule([], [_one("a", 5.0, after=["elsewhere"]), _one("b", 10.0)], 1)
    assert (found, last) == ({"a": None, "b": 0.0}, 10.0)
    found, _ = _schedule([], [_one("a", 5.0), _one("b", 10.0, after=["a"])], 2)
    assert found == {"a": 0.0, "b": 5.0}
    found, _ = _schedule([], [_one("b", 10.0, after=["done"])], 1, {"done"})
    assert found == {"b": 0.0}


def test_each_run_says_why_it_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_clock(monkeypatch, EARLIER)
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        queue = _fill(store)
        page = queue_page.read(store, "sweep:digits")
        why = {line.one.id: line.why for line in page.lines}
        assert why["quser"] == "after qf (random digits IPC 10 seed 1)"
        assert why["qalone"] == "no worker has cuda:7"
        assert why["qb"] == "CUDA out of memory at step 7001"
        assert why["qd"] == "paused: p lets it go on"
        assert why["qe"] == ""
        when = {line.one.id: line.when for line in page.lines}
        assert (when["qe"], when["qd"], when["qc"], when["qalone"]) == ("next", "–", "begins", "–")
        assert page.without == 2
        assert "2 of 6 runs without an estimate" in rest_line(page)
        queue.drop([queue.one("qf").uid])
        page = queue_page.read(store, "sweep:digits")
        assert {line.one.id: line.why for line in page.lines}["quser"].endswith("which was dropped")
        queue.see("w" * 32, process_started=1)
        page = queue_page.read(store, "sweep:digits")
        why = {line.one.id: line.why for line in page.lines}
        assert why["qe"] == "no worker"
        assert why["qc"].startswith("its worker is gone")
        assert worker_lines(page)[0].startswith("gone: local")


def test_the_grid_counts_what_was_there_before_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_clock(monkeypatch, EARLIER)
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        _fill(store)
        for config in (ledger.config("whole"), ledger.config("dm", 1, seed=2)):
            store.edit(ledger.add(store, config), "tag", "sweep:digits")
        # What all runs of the sweep share is no other row of it.
        store.db.conn.execute("update runs set overrides = '{\"iterations\": 5}' where method = 'dm'")
        page = queue_page.read(store, "sweep:digits")
        lines = grid_lines(page.grid, 60, 10, ascii_only=True)
        cells = {line.split()[0]: line.split()[1:] for line in lines[1:-1]}
        assert lines[0].split() == ["digits", "all", "digits", "1", "digits", "10"]
        assert cells["whole"] == ["#"]
        assert cells["random"] == ["#o", "xo"]
        assert cells["dm"] == ["@o#", "=o"]
        assert page.grid.counts["finished"] == 3
        assert "3 of 11 done" in progress_line(page, 100, ascii_only=True)
        # Where there is no room, what is left out is counted.
        assert "+2 columns" in grid_lines(page.grid, 20, 10, ascii_only=True)[-1]
        assert "more" in grid_lines(page.grid, 60, 4, ascii_only=True)[-2]


@pytest.mark.slow
def test_of_a_long_queue_only_the_beginning_is_read_and_all_of_it_counted(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        queue = Queue(store)
        queue.add([_new(queue, f"n{i:04}", "dm", 1, i, tag=f"sweep:s{i % 50}", seconds=1.0) for i in range(2000)])
        page = queue_page.read(store, "sweep:s1")
        assert len(page.lines) == queue_page.MOST
        assert page.counts == {"waiting": 2000}
        assert page.rest == 2000


@pytest.mark.parametrize(
    ("text", "said_of_it"),
    [("ipc", "not of the form"), ("ipc=1,", "not of the form"), ("ipc=1 ipc=2", "twice"), ("nothing=1", "nothing"),
     ("seeds=0-9999", "1000")],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(text: str, said_of_it: str, tmp_path: Path) -> None:
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        row = store.run(ledger.add(store, ledger.config("dm", 1)))
        with pytest.raises((BadInput, msgspec.ValidationError), match=said_of_it):
            queueing.wishes_like([row], text)


def test_the_same_with_another_seed_takes_as_long_and_with_other_settings_nobody_knows(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        row = store.run(ledger.add(store, ledger.config("dm", 1)))
        seeds = queueing.queue(store, queueing.wishes_like([row], "seeds=4,5"), "").new
        assert [one.seed for one in seeds] == [4, 5]
        assert all(one.seconds and one.ipc == 1 for one in seeds)
        other = queueing.queue(store, queueing.wishes_like([row], "ipc=1,10 seeds=6"), "sweep:x").new
        assert [(one.ipc, one.seconds, one.settings) for one in other] == [
            (1, None, {"ipc": "1"} | other[0].settings),
            (10, None, {"ipc": "10"} | other[1].settings),
        ]
