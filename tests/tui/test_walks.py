"""Random walks: whatever is pressed, changed and resized in whatever order, the front shows what the database holds."""

import math
import random
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from textual.pilot import Pilot

from dambench.core.errors import BadInput
from dambench.store import listing
from dambench.store.runs import Store
from dambench.tui import feed
from dambench.tui.app import DambenchApp
from dambench.tui.main_screen import MainScreen
from dambench.tui.models import comparison
from dambench.tui.screens.compare import CompareScreen
from dambench.tui.screens.live import LiveScreen
from dambench.tui.screens.runs import RunsScreen
from dambench.tui.widgets.notices import Broken
from tests.tui.screen import PATIENCE, console, drawn, play, until
from tests.tui.shell import Shell

SECOND = 1.0
LOOKS = math.ceil(SECOND / feed.EVERY) + 2
"""Of the console at the database within a second, with the one that was under way and one that a key asked for."""

METHODS = ("random", "dm", "dc", "whole")
SIZES = [(80, 24), (60, 16), (160, 48), (20, 5), (100, 30), (140, 20)]
KEYS = [
    *"123" * 4, *"jkGgzsCFmLvVpPwif?", "space", "enter", "escape", "ctrl+d", "ctrl+u", "home", "end", "colon", "slash",
    "full_stop", "comma", "left_square_bracket", "right_square_bracket", "c", "D", "t", "x", "y", "f5", "backspace",
]  # fmt: skip
NOT_BY_CHANCE = ("q", "X", "r", "R", "n", "E", "N", "e")
"""What leaves, starts a process or writes a file."""


class Walk:
    """One, from its seed."""

    def __init__(self, seed: int, folder: Path, shell: Shell):
        self.draw = random.Random(seed)
        self.shell = shell
        self.path, self.away, self.other = folder / "runs.db", folder / "away.db", folder / "other.db"
        self.done: list[str] = []
        for path in (self.path, self.other):
            for _ in range(self.draw.randrange(1, 30)):
                self.add(path)

    def add(self, path: Path | None = None) -> None:
        if path or not self.away.exists():
            method, ipc, seed = self.draw.choice(METHODS), self.draw.choice("13"), self.draw.choice("012")
            self.shell.do("add", path or self.path, method, ipc, seed)

    def sql(self, statement: str) -> None:
        if self.path.exists():
            self.shell.do("sql", self.path, statement)

    def remove(self) -> None:
        if self.path.exists():
            self.shell.do("move", self.path, str(self.away))

    def bring_back(self) -> None:
        if self.away.exists():
            self.shell.do("move", self.away, str(self.path))

    def put_other(self, how: str) -> None:
        if self.path.exists():
            self.add(self.other)
            self.shell.do(how, self.path, str(self.other))

    def changes(self) -> list[Callable[[], None]]:
        some = self.draw.randrange(1, 4)
        return [
            *[self.add] * 4,
            lambda: self.sql(f"delete from runs where number % {some + 1} = 0"),
            lambda: self.sql(f"update runs set deleted_at = 'now' where number % {some + 2} = 1"),
            lambda: self.sql("update runs set deleted_at = ''"),
            lambda: self.sql("delete from runs where number > (select max(number) - 5 from runs)"),
            lambda: self.sql("delete from previews"),
            lambda: self.put_other("replace"),
            lambda: self.put_other("write_over"),
            self.remove,
            self.bring_back,
        ]

    async def step(self, pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, DambenchApp)
        match self.draw.choice("kkkkkkccrl"):
            case "k":
                # As fast as they can come.
                keys = [self.draw.choice(KEYS) for _ in range(self.draw.randrange(1, 7))]
                self.done.append(" ".join(keys))
                await pilot.press(*keys)
            case "c":
                at = self.draw.randrange(13)
                self.done.append(f"change {at}")
                self.changes()[at]()
            case "r":
                size = self.draw.choice(SIZES)
                self.done.append(f"resize {size}")
                await pilot.resize_terminal(*size)
            case "l":
                self.done.append("late")
                for place in self.places(app):
                    place.ask()

    def places(self, app: DambenchApp) -> list[MainScreen]:
        screens = [app.get_screen(name) for name in app.PLACES]
        return [screen for screen in screens if isinstance(screen, MainScreen) and screen.is_mounted]

    async def look(self, pilot: Pilot[None]) -> None:
        """See that the front shows what there is."""
        app = pilot.app
        assert isinstance(app, DambenchApp)
        assert not isinstance(app.screen, Broken), self.told(app)
        self.done.append("look")
        await pilot.resize_terminal(*self.draw.choice([(80, 24), (160, 48)]))
        await until(pilot, lambda: app.front() is not None or type(app.screen).__name__ != "TooSmall")
        for _ in range(5):
            if isinstance(app.screen, MainScreen):
                break
            await pilot.press("escape")
        place = app.screen
        assert isinstance(place, MainScreen), self.told(app)
        if isinstance(place, LiveScreen) and place._frozen:
            await pilot.press("space")
        begun, answers = time.monotonic(), app.feed.answers
        while not (place.is_mounted and self.shows(app, place)):
            # Where the machine is slow there are fewer looks in a second: they count, not its clock alone.
            spent = time.monotonic() - begun
            assert spent < PATIENCE if app.feed.answers - answers <= LOOKS else spent < SECOND, self.told(app)
            await pilot.pause(0.01)
        assert not isinstance(app.screen, Broken), self.told(app)
        assert not any(place.fault for place in self.places(app)), self.told(app)

    def told(self, app: DambenchApp) -> str:
        log = app.log_path.read_text() if app.log_path.exists() else ""
        return "\n".join([*self.done, str(app.screen), drawn(app), log])

    def shows(self, app: DambenchApp, place: MainScreen) -> bool:
        if not self.path.exists():
            return "here is no database" in drawn(app)
        with suppress(BadInput), closing(Store.open(self.path)) as store:  # it was written over a moment ago
            match place:
                case RunsScreen():
                    only = place._filter.where({})
                    numbers = listing.ordered(store, only, place.table.order, down=place.table.down)
                    here = place.table.number
                    rows = store.query("select id from runs where number = ?", here)
                    # The one under the cursor is on the screen.
                    seen = not numbers or (bool(rows) and rows[0]["id"] in drawn(app))
                    return list(place.table.numbers) == numbers and (here in numbers or not numbers) and seen
                case LiveScreen():
                    run = place._reader.run
                    rows = store.query("select * from runs where id = ?", run)
                    if not rows:
                        return f"The run {run} is not in" in drawn(app) or (not run and "No runs in" in drawn(app))
                    uid = place._snapshot.row.uid if place._snapshot else ""
                    return uid == rows[0]["uid"] and run in drawn(app)
                case CompareScreen():
                    found = comparison.find(store, *place._query())
                    if place.result is None or found.states != place.result.states:
                        return False
                    here_, there = (
                        [
                            (table.rows, table.columns, {at: c.scores for at, c in table.cells.items()})
                            for table in tables
                        ]
                        for tables in (place.result.board.tables, found.board.tables)
                    )
                    return here_ == there and not found.gone
        return False


def walk(seed: int, steps: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    monkeypatch.delenv("TMUX", raising=False)
    shell = Shell()

    async def scene(pilot: Pilot[None]) -> None:
        for number in range(steps):
            await walked.step(pilot)
            if number % 8 == 7:
                await walked.look(pilot)

    with shell:
        walked = Walk(seed, folder, shell)
        app = console(walked.path)
        play(app, scene)
    assert not app.log_path.exists(), "\n".join([*walked.done, app.log_path.read_text()])


def test_the_front_shows_what_the_database_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not set(NOT_BY_CHANCE) & set(KEYS)
    walk(1, 24, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 140))
def test_the_front_shows_what_the_database_holds_for_long(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk(seed, 64, tmp_path, monkeypatch)
