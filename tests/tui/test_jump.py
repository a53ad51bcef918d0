from pathlib import Path

import pytest
from textual.pilot import Pilot

from dambench.tui.screens.live import LiveScreen
from dambench.tui.screens.runs import RunsScreen
from dambench.tui.widgets.jump import Jump, targets
from tests.tui.screen import console, drawn, play, said, shows, until
from tests.tui.test_run import _enter


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "runs.db"
    for number, run in enumerate(["aaaaaa", "bbbbbb", "cccccc"]):
        _enter(path, run, number, 1.0)
    return path


def test_a_letter_goes_to_a_row_a_section_a_pane_and_a_heading(path: Path) -> None:
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "3 runs")
        await pilot.press("semicolon")
        await until(pilot, lambda: isinstance(app.screen, Jump))
        # a is for the filter above them
        await shows(pilot, "b cccccc", "c bbbbbb", "d aaaaaa")
        await pilot.press("d")
        await until(pilot, lambda: not isinstance(app.screen, Jump))
        assert isinstance(app.screen, RunsScreen)
        assert app.screen.table.at == 2
        await pilot.press("semicolon", "escape")
        await until(pilot, lambda: not isinstance(app.screen, Jump))
        assert isinstance(app.screen, RunsScreen)
        assert app.screen.table.at == 2
        await pilot.press("enter")
        await shows(pilot, "[Summary]")
        await pilot.press("semicolon", "d")
        await shows(pilot, "[Scores]")
        await pilot.press("2")
        await shows(pilot, "[2 Live]", "Loss", "Log")
        assert isinstance(app.screen, LiveScreen)
        panes = [widget.id for widget in app.screen.focus_chain]
        await pilot.press("semicolon")
        await until(pilot, lambda: isinstance(app.screen, Jump))
        await pilot.press("abcdef"[len(panes) - 1])
        await until(pilot, lambda: isinstance(app.screen, LiveScreen))
        assert app.focused is not None
        assert app.focused.id == "log"
        await pilot.press("5")
        await shows(pilot, "# ", "Preview")
        first = drawn(app)
        found = targets(app.screen)
        assert len(found) > 1
        await pilot.press("semicolon", "b")
        await until(pilot, lambda: drawn(app) != first and not isinstance(app.screen, Jump))
        assert found[1].at.y > found[0].at.y

    play(app, scene, (100, 30))


def test_cells_and_charts_have_letters_and_an_empty_place_says_it_has_none(path: Path, tmp_path: Path) -> None:
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "3 runs")
        await pilot.press("a", "3")
        await shows(pilot, "[3 Compare]", "random")
        assert len(targets(app.screen)) == len({target.at for target in targets(app.screen)}) > 0
        app.go("several")
        await shows(pilot, "No run goes on")
        assert len(targets(app.screen)) == 1

    play(app, scene, (100, 30))
    empty = console(tmp_path / "none.db")

    async def nothing(pilot: Pilot[None]) -> None:
        await pilot.press("5")
        await shows(pilot, "no database")
        await pilot.press("semicolon")
        await until(pilot, lambda: "nothing here to jump to" in said(empty))

    play(empty, nothing)
