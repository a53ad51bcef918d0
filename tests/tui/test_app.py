"""What all places have: help, the palette, colours."""

from contextlib import closing
from pathlib import Path

import pytest
from textual.color import Color
from textual.pilot import Pilot
from textual.widgets import Input

from dambench.store.runs import Store
from dambench.tui.app import ANSI_ON_LIGHT, ON_LIGHT
from dambench.tui.feed import QueryResult
from dambench.tui.widgets.form import TextField
from dambench.tui.widgets.runs_table import RunsTable
from tests import ledger
from tests.tui.screen import burst, console, drawn, play, said, shows, types, until


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
        await shows(pilot, "Resume it from its last checkpoint")
        await pilot.press("enter")
        await until(pilot, lambda: "is finished: there is nothing to resume" in said(app))
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
