"""What all places have: help, the palette, colours."""

from contextlib import closing
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from rich.terminal_theme import TerminalTheme
from textual.color import Color
from textual.pilot import Pilot
from textual.widgets import Input

from dambench.store.runs import Store
from dambench.tui.app import ON_LIGHT, DambenchApp
from dambench.tui.feed import QueryResult
from dambench.tui.models.chart import COLOURS
from dambench.tui.run_actions import RunActionsScreen
from dambench.tui.terminal.colours import ANSI_ON_DARK, ANSI_ON_LIGHT
from dambench.tui.widgets.form import TextField
from dambench.tui.widgets.runs_table import RunsTable
from tests import ledger
from tests.tui.screen import burst, console, drawn, play, shows, types, until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        ledger.add(store, ledger.config())
    return tmp_path / "runs.db"


def test_the_help_has_a_line_for_each_thing_that_can_be_done_what_the_place_does_first(path: Path) -> None:
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "done")
        keys = app._keys()
        await pilot.press("question_mark")
        await shows(pilot, "Keys", "enter        Open")
        assert len({(where, what) for where, _, what in keys}) == len(keys)
        assert ("here", "↓ j", "Down") in keys
        assert keys.index(("here", "enter", "Open")) < keys.index(("here", "↓ j", "Down"))

    play(app, scene)


def test_the_palette_does_what_keys_do(path: Path) -> None:
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "done")
        await pilot.press("colon")
        await shows(pilot, "Search for commands")
        await types(pilot, "resume")
        await shows(pilot, "No matches found")  # of a run that has finished
        await pilot.press(*["backspace"] * 6)
        await types(pilot, "note")
        await shows(pilot, "Write a note to it")
        await pilot.press("enter")
        await shows(pilot, "Note to")
        assert "Search for" not in drawn(app)

    play(app, scene)


def test_on_a_light_background_all_colours_can_be_read(path: Path) -> None:
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "done")
        app.theme = "textual-light"
        await pilot.pause()
        assert app.ansi_theme is ANSI_ON_LIGHT
        variables = app.get_css_variables()
        drawn_on = [Color.parse(variables[name]) for name in ("background", "surface", "panel")]
        colours = [Color.parse(variables[name]) for name in (*ON_LIGHT, "foreground", "text-error")]
        colours += [Color(*ANSI_ON_LIGHT.ansi_colors[number]) for number in range(8)]
        assert min(_contrast(colour, on) for colour in colours for on in drawn_on) >= 4.5
        good = app.screen.query_one(RunsTable).get_component_styles("runs--good").color
        assert good == Color.parse(ON_LIGHT["text-success"])
        app.theme = "textual-dark"
        await pilot.pause()
        assert app.get_css_variables()["text-success"] != ON_LIGHT["text-success"]

    play(app, scene)


def _contrast(one: Color, other: Color) -> float:
    """Of two colours, as WCAG 2.2 defines it."""

    def light(colour: Color) -> float:
        parts = (part / 255 for part in colour.rgb)
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    darker, lighter = sorted((light(one), light(other)))
    return (lighter + 0.05) / (darker + 0.05)


SEEN = {
    "all colours": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "no green": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "no red": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "no blue": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
"""Machado, Oliveira and Fernandes (2009), severity 1: what linear RGB becomes."""


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("theme", [ANSI_ON_DARK, ANSI_ON_LIGHT], ids=["dark", "light"])
def test_the_colours_of_series_stay_apart_for_those_who_do_not_see_all(theme: TerminalTheme, seen: str) -> None:
    def lab(colour: tuple[int, int, int]) -> np.ndarray[Any, Any]:
        parts = np.array(colour) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        linear = np.clip(np.array(SEEN[seen]) @ linear, 0, 1)
        to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
        xyz = to_xyz @ linear / (0.9505, 1, 1.089)
        f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])

    names = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
    colours = [lab(theme.ansi_colors[names.index(name)]) for name in COLOURS]
    assert min(float(np.linalg.norm(one - other)) for one, other in combinations(colours, 2)) >= 13


def test_an_answer_that_comes_while_the_console_is_closed_is_no_fault(tmp_path: Path) -> None:
    app = console(tmp_path / "none.db")

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "There is no database")

    play(app, scene)
    assert not app.screen_stack
    before = app.feed.answers
    app.on_query_result(QueryResult(None, None))
    assert app.feed.answers == before + 1


@pytest.mark.parametrize(
    ("keys", "before"),
    [(("slash",), ""), (("N",), ""), (("colon",), ""), (("n",), "digits")],
    ids=["the filter", "a box", "the palette", "the form"],
)
def test_keys_in_a_burst_do_what_they_do_in_their_order(path: Path, keys: tuple[str, ...], before: str) -> None:
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "done")
        await pilot.press(*keys)
        await until(pilot, lambda: app.screen.query(Input))
        entry = app.screen.query(Input).first()
        entry.focus()
        entry.value = ""
        await pilot.pause()
        burst(pilot, *"ab", "backspace", "c", "home", "d", "end", *"ef", "left", "delete", "f", *"gh", "ctrl+w", *"ij")
        await until(pilot, lambda: entry.value.endswith("j"))
        assert entry.value == "ij"
        burst(pilot, *"kl", "backspace", "m", "home", "n", "right", "o", "end", *"pq", "left", "delete", "r")
        await until(pilot, lambda: entry.value.endswith("r"))
        assert entry.value == "niojkmpr"

    play(app, scene)


def test_what_is_typed_after_enter_is_of_no_text_before_it(path: Path) -> None:
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "done")
        await pilot.press("n")
        await until(pilot, lambda: len(app.screen.query(TextField)) > 2)
        first, second = list(app.screen.query(TextField))[:2]
        first.value = second.value = ""
        first.focus()
        await pilot.pause()
        burst(pilot, "1", "2", "enter", "3", "4", "up", "5")
        await until(pilot, lambda: "5" in first.value + second.value)
        assert (first.value, second.value) == ("125", "34")

    play(app, scene)


def test_the_palette_has_only_what_applies(path: Path) -> None:
    def titles(app: DambenchApp) -> set[str]:
        return {command.title for command in app.get_system_commands(app.screen)}

    def known(app: DambenchApp, place: str) -> bool:
        screen = app.get_screen(place)
        return app.screen is screen and isinstance(screen, RunActionsScreen) and screen.front_state() != ""

    async def own(pilot: Pilot[None]) -> None:
        app = cast(DambenchApp, pilot.app)
        await shows(pilot, "done")
        assert {"Mark", "Go to Report", "Theme"} <= titles(app)
        # Nothing of a run that has ended is to be stopped, or resumed.
        idle = {"Stop", "Kill it: it goes back to its last checkpoint", "Resume it from its last checkpoint"}
        for place in ("runs", "run", "live"):
            app.go(place) if place != "run" else await pilot.press("enter")
            await until(pilot, partial(known, app, place))
            assert not idle & titles(app)
        app.go("runs")
        await pilot.press("space")  # marks do not matter to these
        await shows(pilot, "1 marked")
        assert not idle & titles(app)
        assert "Take back the last deletion" not in titles(app)
        app.deleted(str)
        assert "Take back the last deletion" in titles(app)

    async def watched(pilot: Pilot[None]) -> None:
        app = cast(DambenchApp, pilot.app)
        await shows(pilot, "done")
        assert {"Go to Report", "Mark"} <= titles(app)
        assert not {"Stop", "New", "Take back the last deletion"} & titles(app)

    play(console(path), own)
    play(console(path, readonly=True, served=True), watched)
