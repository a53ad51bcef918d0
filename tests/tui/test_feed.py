"""What is shown is what lies in the database, whatever becomes of the runs, of the file, and of the console itself."""

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from textual.message_pump import MessagePump
from textual.pilot import Pilot

from dambench.runner import processes
from dambench.store.runs import Store
from dambench.tui import main_screen
from dambench.tui.app import OURS, DambenchApp
from dambench.tui.feed import Feed
from dambench.tui.resilient import Resilient
from dambench.tui.screens.compare import CompareScreen
from dambench.tui.screens.live import LiveScreen
from dambench.tui.screens.runs import RunsScreen
from dambench.tui.widgets.grid import Grid
from dambench.tui.widgets.notices import Broken
from dambench.tui.widgets.runs_table import RunsTable
from dambench.tui.widgets.sure import Sure
from tests import ledger
from tests.tui.screen import console, drawn, play, said, shows, types, until
from tests.tui.shell import Shell

MOST = 40
"""Runs of a database here: more than there are lines."""


def fill(path: Path, count: int = MOST, method: str = "dm") -> list[str]:
    """A database of so many runs; returns their ids, the newest first."""
    with closing(Store.open(path, write=True)) as store:
        first = ledger.add(store, ledger.config(method))
        uid = store.run(first).uid
        names = [row["name"] for row in store.query("select name from pragma_table_info('runs')")]
        names = [name for name in names if name not in ("number", "id", "uid")]
        change(
            path,
            f"with recursive n(i) as (select 1 union all select i + 1 from n where i < {count - 1}) "
            f"insert into runs (id, uid, {', '.join(names)}) "
            f"select 'c' || i, '{uid}' || i, {', '.join(names)} from n, runs where id = '{first}'",
        ) if count > 1 else None
        return [row["id"] for row in store.query("select id from runs order by number desc")]


def change(path: Path, sql: str) -> None:
    """As another shell does."""
    with closing(Store.open(path, write=True)) as store:
        store.db.conn.execute(sql)


def here(app: DambenchApp) -> str:
    row = app.get_screen("runs").query_one(RunsTable).row
    return str(row.id) if row else ""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


async def sound(pilot: Pilot[None]) -> None:
    """No fault was told."""
    await pilot.pause()
    assert not isinstance(pilot.app.screen, Broken), drawn(pilot.app)
    assert not (Path(os.environ["XDG_STATE_HOME"]) / "dambench" / "console.log").exists()


# Lists that get shorter, and things that go.


@pytest.mark.parametrize(
    "sql",
    [
        "delete from runs where number <= 37",
        pytest.param("update runs set deleted_at = 'now' where number not in (38, 39, 40)", marks=pytest.mark.slow),
        pytest.param("delete from runs where number % 13", marks=pytest.mark.slow),
    ],
)
def test_the_cursor_stays_in_a_list_that_gets_shorter_than_its_place(path: Path, sql: str) -> None:
    ids = fill(path)

    async def scene(pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, DambenchApp)
        await shows(pilot, f"{MOST} runs")
        await pilot.press("G", "slash")
        await types(pilot, f"id:{ids[3]}", "enter")
        await shows(pilot, f"1 of {MOST}", f"▌ {ids[3]}")
        await pilot.press("escape")
        await shows(pilot, f"{MOST} runs")
        await pilot.press("G")
        await until(pilot, lambda: here(app) == ids[-1])
        change(path, sql)
        with closing(Store.open(path)) as store:
            left = [row["id"] for row in store.query("select id from runs where deleted_at = '' order by number desc")]
        await shows(pilot, f"{len(left)} runs", *left)
        await until(pilot, lambda: here(app) == left[-1])
        change(path, "delete from runs")
        await shows(pilot, "No runs in")
        await pilot.press("escape", "G", "x", "D", "y", "enter", "c", "t")
        await sound(pilot)

    play(console(path), scene)


def test_the_line_above_the_table_counts_what_is_in_it_until_another_answer_comes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = fill(path)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, f"{MOST} runs")
        await pilot.press("slash")
        await types(pilot, f"id:{ids[3]}", "enter")
        await shows(pilot, f"1 of {MOST}", f"▌ {ids[3]}")
        with monkeypatch.context() as slow:
            slow.setattr(Feed, "ask", lambda *question, **how: None)
            await pilot.press("escape")
            await pilot.pause()
            assert f"1 of {MOST}" in drawn(pilot.app)
        await shows(pilot, f"{MOST} runs")

    play(console(path), scene)


def test_a_run_that_is_shown_or_marked_may_go(path: Path) -> None:
    first, second = fill(path, 2)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "2 runs")
        await pilot.press("space", "space", "enter")
        await shows(pilot, "[Run]")
        await pilot.press("2")
        await shows(pilot, "[2 Live]", second)
        await pilot.press("1", "c")
        await shows(pilot, "[3 Compare]", "2 runs marked")
        change(path, f"delete from runs where id = '{first}'")
        await until(pilot, lambda: f"not in the database any more: {first}" in said(pilot.app))
        await shows(pilot, "1 run marked")
        change(path, "delete from runs")
        await shows(pilot, "Nothing to compare: no runs yet.")
        await pilot.press("2")
        await shows(pilot, f"The run {second} is not in runs.db any more.")
        await pilot.press("x", "full_stop", "comma", "left_square_bracket", "right_square_bracket", "y")
        await until(pilot, lambda: f"No run has the id '{second}'" in said(pilot.app))
        with closing(Store.open(path, write=True)) as store:
            third = ledger.add(store, ledger.config())
        await pilot.press("right_square_bracket")
        await shows(pilot, f" {third} finished")
        await sound(pilot)

    play(console(path), scene)


def test_what_was_asked_about_before_something_went_does_nothing(path: Path) -> None:
    first, second = fill(path, 2)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "2 runs")
        await pilot.press("D")
        await until(pilot, lambda: isinstance(pilot.app.screen, Sure))
        # Another run of that id, as after a merge.
        change(path, f"delete from runs where id = '{first}'")
        change(path, f"update runs set id = '{first}' where id = '{second}'")
        await pilot.press("y")
        await until(pilot, lambda: f"{first} is not in the database any more" in said(pilot.app))
        with closing(Store.open(path)) as store:
            assert not store.query("select 1 from runs where deleted_at != ''")

    play(console(path), scene)


# Who is asked.


@pytest.mark.parametrize("keys", ["332312", pytest.param("23", marks=pytest.mark.slow)])
def test_after_quick_keys_the_place_in_front_is_the_one_that_is_asked(path: Path, keys: str) -> None:
    fill(path, 1)

    async def scene(pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, DambenchApp)
        await shows(pilot, "1 run")
        for number in map(int, keys):
            app.action_place(number)  # with no time between them
        front = app.screen
        # The one that lost has its say last.
        for name in app.PLACES:
            if (other := app.get_screen(name)) is not front and other.is_mounted:
                assert isinstance(other, main_screen.MainScreen)
                other.ask()
        with closing(Store.open(path, write=True)) as store:
            new = ledger.add(store, ledger.config("random"))
        await shows(pilot, {"1": new, "2": "[2 Live]", "3": "random"}[keys[-1]])
        assert isinstance(front, main_screen.MainScreen)
        before = front._as_of
        await until(pilot, lambda: front._as_of > before)

    play(console(path), scene)


def test_a_place_under_a_box_goes_on(path: Path) -> None:
    fill(path, 1)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "1 run")
        await pilot.press("D")
        await shows(pilot, "into the trash?")
        with closing(Store.open(path, write=True)) as store:
            ledger.add(store, ledger.config("random"))
        await shows(pilot, "2 runs", "into the trash?")

    play(console(path), scene)


def test_how_old_that_is_which_is_shown_is_said_when_the_database_does_not_answer(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(path, 1)
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "1 run")
        await until(pilot, lambda: "old" not in drawn(app))
        monkeypatch.setattr(main_screen, "OLD", 0.5)
        monkeypatch.setattr(app.feed, "ask", lambda *asked, **how: None)
        await shows(pilot, "What is shown is ", " s old.")
        await pilot.press("2")
        await shows(pilot, "The database has not answered for ")
        monkeypatch.undo()
        await until(pilot, lambda: "answered" not in drawn(app))

    play(app, scene)


# Which file is there.


def replaced(path: Path, other: Path) -> None:
    """As `git checkout` does."""
    path.unlink()
    shutil.copy(other, path)


def renamed(path: Path, other: Path) -> None:
    os.rename(shutil.copy(other, path.with_name("new")), path)


def written_over(path: Path, other: Path) -> None:
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize(
    ("how", "number"),
    [
        (replaced, 1),
        (renamed, 2),
        (written_over, 3),
        *(
            pytest.param(how, number, marks=pytest.mark.slow)
            for how, number in [(written_over, 1), (written_over, 2), (replaced, 2), (replaced, 3)]
        ),
    ],
)
def test_another_file_under_the_name_is_noticed_and_shown(
    path: Path, how: Callable[[Path, Path], None], number: int
) -> None:
    fill(path, 5)
    (new,) = fill(path.with_name("other.db"), 1, "random")
    expected = {1: ("1 run", new), 2: (f"{new} finished", "random"), 3: ("random", f"{new}: 50.0")}[number]

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "5 runs")
        await pilot.press(str(number))
        await shows(pilot, {1: "5 runs", 2: "finished", 3: "n = 1"}[number])
        if number == 1:
            await pilot.press("G", "space")
            await shows(pilot, "1 marked")
        how(path, path.with_name("other.db"))
        if how is not written_over:
            await until(pilot, lambda: "was replaced" in said(pilot.app))
        if number == 2:
            await shows(pilot, "is not in runs.db any more")
            await pilot.press("right_square_bracket")
        await shows(pilot, *expected)
        assert "marked" not in drawn(pilot.app)
        await sound(pilot)

    play(console(path), scene)


def test_keys_act_on_the_file_that_is_shown_or_not_at_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(path, 3)
    other = path.with_name("other.db")
    shutil.copy(path, other)
    done: list[str] = []
    monkeypatch.setattr(processes, "start", lambda *words: done.append("started"))
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "3 runs")
        await pilot.press("D")
        await until(pilot, lambda: isinstance(app.screen, Sure))
        monkeypatch.setattr(app.feed, "ask", lambda *asked, **how: None)  # it has not noticed yet,
        await until(pilot, lambda: app.feed.free)  # nor does what was asked before
        replaced(path, other)
        await pilot.press("y")
        await until(pilot, lambda: "is not the one that was shown: nothing was done" in said(app))
        for key in ("x", "D", "t", "N", "R", "r", "c"):
            app._notifications.clear()
            await pilot.press(key)
            await until(pilot, lambda: "nothing was done" in said(app))
            assert isinstance(app.screen, RunsScreen), key
        path.unlink()
        app._notifications.clear()
        await pilot.press("D")
        await until(pilot, lambda: "There is no database" in said(app))
        assert isinstance(app.screen, RunsScreen)

    play(app, scene)
    assert not done
    with closing(Store.open(other)) as store:
        assert not store.query("select 1 from runs where deleted_at != ''")
    assert not path.exists()


def test_a_database_that_has_gone_is_shown_as_gone_and_followed_when_it_is_back(path: Path) -> None:
    ids = fill(path, 3)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "3 runs")
        for number in "123":
            await pilot.press(number)
            await shows(pilot, {"1": "3 runs", "2": "finished", "3": "n = 1"}[number])
            os.rename(path, path.with_name("away"))
            await until(pilot, lambda: "has gone: it was removed or renamed" in said(pilot.app))
            await shows(pilot, "here is no database")
            assert not any(run in drawn(pilot.app) for run in ids)
            await pilot.press("x", "enter", "r", "y", "space")
            os.rename(path.with_name("away"), path)
            await shows(pilot, {"1": "3 runs", "2": "finished", "3": "n = 1"}[number])
            pilot.app._notifications.clear()
        await sound(pilot)

    play(console(path), scene)


def test_what_another_host_writes_to_a_journal_appears(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAMBENCH_DISK", "network")
    monkeypatch.setenv("XDG_CACHE_HOME", str(path.with_name("there")))

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "1 run")
        shell.do("add", path, "random", "1", "0")
        await shows(pilot, "2 runs")
        await pilot.press("3")
        await shows(pilot, "random")
        shell.do("add", path, "whole", "1", "0")
        await shows(pilot, "whole")

    with Shell() as shell:
        shell.do("add", path, "dm", "1", "0")
        monkeypatch.setenv("XDG_CACHE_HOME", str(path.with_name("here")))
        play(console(path), scene)


# How large the terminal is.


def test_after_a_small_terminal_all_is_seen_that_there_is_room_for(path: Path) -> None:
    ids = fill(path, 12)
    with closing(Store.open(path, write=True)) as store:
        for ipc in range(2, 9):
            for method in ("dm", "dc", "dsa"):
                ids.insert(0, ledger.add(store, ledger.config(method, ipc), [0.5, 0.52, 0.54]))

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, f"{len(ids)} runs")
        await pilot.press("G")
        await pilot.resize_terminal(20, 5)
        await shows(pilot, "needs 60")
        await pilot.resize_terminal(160, 48)
        await shows(pilot, *ids, f"▌ {ids[-1]}")
        await pilot.press("3")
        await shows(pilot, "dsa", "IPC 8")
        await pilot.press("end", "G")
        await pilot.resize_terminal(60, 16)
        grid = pilot.app.screen.query_one(Grid)
        await until(pilot, lambda: grid._first > 0)  # the first columns have no room
        await pilot.resize_terminal(160, 48)
        await until(pilot, lambda: (grid._top, grid._first) == (0, 0))

    play(console(path), scene)


# What fails.

READY = {1: "3 runs", 2: "finished", 3: "n = 1"}


def _fault() -> Callable[..., None]:
    """A function that fails at a line of the console's own: wherever it is called from, that is one fault."""
    scope: dict[str, Any] = {}
    exec(compile("def fault(*arguments, **options):\n    1 / 0", str(OURS / "tui" / "fault.py"), "exec"), scope)
    found: Callable[..., None] = scope["fault"]
    return found


@pytest.mark.parametrize(
    ("number", "of", "what"),
    [
        (1, RunsTable, "redraw"),
        (2, LiveScreen, "_paint_facts"),
        pytest.param(1, RunsScreen, "show", marks=pytest.mark.slow),
        pytest.param(1, RunsScreen, "question", marks=pytest.mark.slow),
        pytest.param(3, CompareScreen, "show", marks=pytest.mark.slow),
    ],
)
def test_after_a_fault_a_place_is_read_anew_and_goes_on(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int, of: type[Any], what: str
) -> None:
    fill(path, 3)
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "3 runs")
        await pilot.press(str(number))
        await shows(pilot, READY[number])
        with pytest.MonkeyPatch.context() as broken:
            broken.setattr(of, what, _fault())
            app.action_place(1 + number % 3)
            app.action_place(number)
            await shows(pilot, "The console has a fault", "ZeroDivisionError")
            assert app.screen.styles.background.a == 1  # what cannot be drawn is not drawn below it
            # Said once: the box stays away.
            await pilot.press("escape")
            await until(pilot, lambda: isinstance(app.screen, main_screen.MainScreen))
            await shows(pilot, "This place failed again (ZeroDivisionError:")
            assert isinstance(app.screen, main_screen.MainScreen)
            # Other places are as good as before.
            await pilot.press(str(1 + number % 3))
            await shows(pilot, READY[1 + number % 3])
            await pilot.press(str(number))
        await shows(pilot, READY[number])
        with closing(Store.open(path, write=True)) as store:
            ledger.add(store, ledger.config("random"))
        await pilot.press("j", "k")
        if number != 2:
            await shows(pilot, {1: "4 runs", 3: "random"}[number])

    play(app, scene)


def test_whatever_hears_messages_goes_on_after_a_fault() -> None:
    def kinds(of: type) -> set[type]:
        return {of}.union(*map(kinds, of.__subclasses__()))

    ours = [kind for kind in kinds(MessagePump) if kind.__module__.startswith("dambench.tui.")]
    assert {kind.__name__ for kind in ours} >= {
        "RunsScreen",
        "LiveScreen",
        "CompareScreen",
        "NewRunScreen",
        "Grid",
        "Help",
    }
    assert [kind for kind in ours if not issubclass(kind, Resilient | DambenchApp)] == []
