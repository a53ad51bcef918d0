"""The mouse: what a click goes to where it is wished for, and that nothing happens where it is not."""

from pathlib import Path

from textual.events import MouseDown, MouseUp
from textual.pilot import Pilot

from dambench.tui.main_screen import MainScreen
from dambench.tui.widgets.grid import Grid
from tests.tui import test_runs
from tests.tui.screen import console, play, shows, until

made, path = test_runs.made, test_runs.path


def _click(pilot: Pilot[None], x: int, y: int) -> None:
    """Press and release, as a terminal tells it."""
    assert pilot.app._driver is not None
    for kind in (MouseDown, MouseUp):
        told = kind(None, x, y, 0, 0, 1, False, False, False, x, y)
        told.set_sender(pilot.app)
        pilot.app._driver.send_message(told)


def test_a_click_goes_to_a_row_a_place_a_section_and_a_cell_and_twice_opens(path: Path) -> None:
    app = console(path, mouse=True)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "7 runs", "run0")
        _click(pilot, 10, 5)
        await until(pilot, lambda: test_runs.here(app) == "run4")
        await pilot.click(offset=(10, 6), times=2)
        await shows(pilot, "[Run]", "run3", "[Summary]")
        await pilot.click(offset=(12, app.screen.query_one("#tabs").region.y))
        await shows(pilot, "[Curves]")
        await pilot.click(offset=(20, 0))
        await shows(pilot, "[3 Compare]", "datadam")
        grid = app.screen.query_one(Grid)
        await pilot.click(offset=(40, grid.region.y + 4))
        await until(pilot, lambda: grid.row == 1)

    play(app, scene)


def test_where_it_is_not_wished_for_it_does_nothing(path: Path) -> None:
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "7 runs", "run0")
        _click(pilot, 10, 5)
        _click(pilot, 20, 0)
        await pilot.pause(0.1)
        assert test_runs.here(app) == "run6"
        assert isinstance(app.screen, MainScreen)
        assert app.screen.NAME == "Runs"

    play(app, scene)
