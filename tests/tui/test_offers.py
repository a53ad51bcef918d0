"""Keys that do something as things stand: what the line of keys, help and palette offer, by the state in front."""

import shutil
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from textual.pilot import Pilot

from dambench.runner import processes
from dambench.store.runs import Store
from dambench.tui.app import DambenchApp
from dambench.tui.screens.queue import QueueScreen
from tests.tui import test_queue, test_runs
from tests.tui.screen import console, drawn, play, shows, until

OF_RUNS = {
    "finished": {"delete"},
    "failed": {"resume", "delete"},
    "stopped": {"resume", "delete"},
    "lost": {"resume", "delete"},
    "running": {"stop"},  # on another host: it cannot be killed from here
}
OF_QUEUED = {
    "taken": {"pause", "drop"},
    "waiting": {"pause", "move(1)", "first", "drop"},
    "paused": {"pause", "move(1)", "first", "drop"},
    "failed": {"retry", "drop"},
}

made = test_runs.made


@pytest.fixture
def path(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(processes, "state", test_runs.state)
    path = Path(shutil.copy(made, tmp_path / "runs.db"))
    with closing(Store.open(path, write=True)) as store:
        test_queue._fill(store)
    return path


def test_only_keys_that_do_something_in_the_state_in_front_are_offered(path: Path) -> None:
    app = console(path)

    def offered(of: set[str]) -> set[str]:
        front = app.front()
        assert front is not None
        return {action for action in of if app.offers(action, front)}

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "7 runs", "x Stop")  # the newest is at work
        seen = set()
        for number in range(7):
            test_runs.table(app)._go(number)
            row = test_runs.table(app).row
            assert row is not None
            seen.add(row.stands)
            assert offered({"stop", "kill", "resume", "delete"}) == OF_RUNS[row.stands], row.stands
            await until(pilot, partial(_has_in_line, app, OF_RUNS[row.stands] & {"stop", "resume"}))
        assert seen == set(OF_RUNS)
        await pilot.press("question_mark")
        await shows(pilot, "not now")
        now, _, not_now = drawn(app).partition("not now")
        assert "Resume it" not in now
        assert "Resume it" in not_now
        await pilot.press("escape", "4")
        await until(pilot, lambda: isinstance(app.screen, QueueScreen) and app.screen.table.lines)
        assert isinstance(app.screen, QueueScreen)
        states = set()
        for number, queued in enumerate(app.screen.table.lines):
            app.screen.table._go(number)
            states.add(queued.one.state)
            assert offered({"pause", "move(1)", "first", "retry", "drop", "open"}) == OF_QUEUED[queued.one.state]
        assert states == set(OF_QUEUED)

    play(app, scene, (80, 60))


def _has_in_line(app: DambenchApp, actions: set[str]) -> bool:
    """These of two are in the line of keys."""
    line = drawn(app).splitlines()[-1]
    return {action for action, text in {"stop": "x Stop", "resume": "r Resume"}.items() if text in line} == actions
