"""What a user of Compare chooses: values, filters, order, hidden rows, heat, intervals and the trees."""

import re
import shlex
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from dambench.cli.app import run_cli
from dambench.core import preferences
from dambench.core.errors import BadInput
from dambench.report.quantities import METRIC, TableView, by_seed
from dambench.store import records
from dambench.store.runs import Store
from dambench.tui.models import comparison, intervals
from dambench.tui.preferred import options
from dambench.tui.screens.compare import CompareScreen
from dambench.tui.screens.compare_boxes import CellTree, Intervals, TableBox
from dambench.tui.terminal.ascii_filter import spelled
from tests import ledger
from tests.tui.screen import SIZES, burst, console, drawn, play, said, shows, snapshot, until

SLOW = partial(pytest.param, marks=pytest.mark.slow)

NARROW_BARS = ["├──○─┃─○──┤", "┃○", "├○┃○┤", "├─○┃○─┤"]

TREE = [
    "▼ dataset digits   – (4 methods, 3 IPCs)   19",
    "├─ ▼ ipc 1   – (3 methods)   9 runs",
    "│  ├─ ▼ method dc   50.8 ± 0.6 (3×2)   3 runs",
    "│  │  ├─ run12  seed 0  50.5 50.5",
    "│  │  ├─ run13  seed 1  51.0 50.5",
]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("TMUX", raising=False)
    names = iter(f"run{number:02}" for number in range(40))
    monkeypatch.setattr(records, "new_id", names.__next__)
    path = tmp_path / "runs.db"
    with closing(Store.open(path, write=True)) as store:
        for method, centre, step in (("random", 0.30, 7), ("dm", 0.50, 3), ("dc", 0.48, 1)):
            for ipc in (1, 10):
                sets = [[centre + ipc / 40 + seed * step / 200, centre + ipc / 40] for seed in range(3)]
                ledger.add_sets(store, ledger.config(method, ipc), sets)
        ledger.add(store, ledger.config("whole", None), (0.90, 0.91, 0.92))
    return path


async def _there(pilot: Pilot[None]) -> CompareScreen:
    await pilot.press("3")
    await shows(pilot, "[3 Compare]", "Mean ± half of its 95 %", "random · digits IPC 1")
    place = pilot.app.screen
    assert isinstance(place, CompareScreen)
    return place


@pytest.mark.parametrize("size", SIZES)
def test_values_beside_each_other_with_heat_and_an_order(path: Path, size: tuple[int, int]) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        place = await _there(pilot)
        await pilot.press("H", "o")
        await shows(pilot, "by digits IPC 1", "Bars: how good")
        place._choose(shows=("metric", "rank", "difference"))
        await shows(pilot, "To the best: less", "best *")
        await snapshot(pilot, "compare-values")

    play(console(path), scene, size)


@pytest.mark.parametrize("size", [SIZES[0], SLOW(SIZES[1])])
def test_a_columns_intervals_are_drawn_over_each_other(path: Path, size: tuple[int, int]) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        await _there(pilot)
        await pilot.press("l", "i")
        await until(pilot, lambda: isinstance(pilot.app.screen, Intervals) and "┃" in drawn(pilot.app))
        await pilot.pause()
        text = drawn(pilot.app)
        lines = [line for line in text.splitlines() if "┃" in line]
        assert [line.split()[1] for line in lines[:4]] == ["random", "dc", "dm", "whole"]
        # A mean is drawn over that of the set in the middle, where they are the same.
        assert all(1 <= line.count("○") <= 2 for line in lines[:3])
        bars = [line.partition(")   ")[2].strip(" │") for line in lines[:4]]
        assert bars == (NARROW_BARS if size[0] == 80 else bars)

    play(console(path), scene, size)


def test_heat_stands_on_means_whatever_stands_before_them_and_signs_are_spelled_in_ascii(path: Path) -> None:
    with closing(Store.open(path)) as store:
        board = comparison.find(store, ["method"], ["dataset", "ipc"], ()).board
    table = board.tables[0]
    view = TableView(board, table, ["method"], ["dataset", "ipc"])
    heat = comparison.contents(view, ("rank", METRIC), heat=True).heat
    assert {column % 2 for _, column in heat} == {1}
    assert heat == {
        (row, 2 * column + 1): degree
        for (row, column), degree in comparison.contents(view, (METRIC,), heat=True).heat.items()
    }
    bars = [line.plain for line in intervals.lines(view, table.columns[0], 80, ascii_=True, said=spelled)]
    assert all(" +- " in bar for bar in bars[:-1])
    # Three seeds, one set: no one of them stands for its mean.
    with closing(Store.open(path, write=True)) as store:
        for seed in (1, 2):
            ledger.add(store, ledger.config("whole", None, seed), (0.8,))
        board = comparison.find(store, ["method"], ["dataset", "ipc"], ()).board
    row = next(row for row in board.tables[0].rows if str(row[0]).startswith("whole"))
    assert [seed for seed, _ in by_seed(board.tables[0].cells[row, board.tables[0].columns[0]])] == ["set 1"]


@pytest.mark.parametrize("size", [SIZES[0], SLOW(SIZES[1])])
def test_runs_stand_in_a_tree_by_any_keys(path: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    app = console(path)
    opened: list[str] = []
    monkeypatch.setattr(app, "open_run", opened.append)

    async def scene(pilot: Pilot[None]) -> None:
        await _there(pilot)
        await pilot.press("T")
        await shows(pilot, "runs by dataset, ipc, method", "dataset digits   – (4 methods, 3 IPCs)   19 runs")
        await pilot.press("l", "j", "l", "j", "l")
        await shows(pilot, "method dc   50.8 ± 0.6 (3×2)   3 runs", "seed 2")
        inside = [found[1] for line in drawn(pilot.app).splitlines() if (found := re.match(r".{0,3}?│ (.*) │", line))]
        assert [line[:46].rstrip() for line in inside[:5]] == TREE
        await pilot.press("j", "enter")
        await until(pilot, lambda: len(opened) == 1)
        # Other keys, which are remembered.
        await pilot.press("T")
        await shows(pilot, "runs by dataset")
        await pilot.press("g")
        await shows(pilot, "Group runs by", "[x] dataset", "[ ] seed")
        await pilot.press("space", "j", "space", "enter")
        await shows(pilot, "runs by method", "method dc   – (2 IPCs)   6 runs")
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, CompareScreen)
        assert pilot.app.screen.choices.group == ("method",)

    play(app, scene, size)


def test_runs_that_are_marked_in_runs_are_compared_alone(path: Path) -> None:
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await _there(pilot)
        await pilot.press("1")
        app.compare_runs(["run00", "run06", "run07"])
        await shows(pilot, "only id=run00|run06|run07", "3 runs marked", "(1×2)", "(2×2)")
        text = drawn(app)
        assert "whole" not in text.partition("───")[0]
        await pilot.press("escape")
        await until(pilot, lambda: "marked" not in drawn(app))
        await pilot.press("escape")
        await shows(pilot, "whole")
        await until(pilot, lambda: "only id" not in drawn(app))
        app.compare_runs([f"none{number}" for number in range(300)])
        await until(pilot, lambda: "are too many to be compared alone" in said(app))

    play(app, scene, (100, 30))


def test_a_filter_is_typed_refused_in_words_and_remembered(path: Path) -> None:
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await _there(pilot)
        for typed, answer in (("accuracy>50", "would choose runs by the test set"), ("colour:red", "colour")):
            await pilot.press("slash")
            await until(pilot, lambda: pilot.app.screen.query(Input))
            pilot.app.screen.query_one(Input).value = typed
            await pilot.press("enter")
            await shows(pilot, answer)
            await pilot.press("escape")
        await pilot.press("slash")
        await until(pilot, lambda: pilot.app.screen.query(Input))
        pilot.app.screen.query_one(Input).value = "-method:dc ipc:1"
        await pilot.press("enter")
        await shows(pilot, "only -method:dc ipc:1")
        await until(pilot, lambda: "IPC 10" not in drawn(app))

    play(app, scene, (100, 30))

    async def later(pilot: Pilot[None]) -> None:
        await pilot.press("3")
        await shows(pilot, "only -method:dc ipc:1")

    play(console(path), later, (100, 30))


@pytest.mark.parametrize("format_", [SLOW("markdown"), "latex", SLOW("csv")])
def test_what_is_copied_is_what_the_command_prints(
    path: Path, capsys: pytest.CaptureFixture[str], format_: str
) -> None:
    copied: list[str] = []
    commands: list[str] = []
    clipboard = path.parent / "state" / "dambench" / "clipboard.txt"

    async def scene(pilot: Pilot[None]) -> None:
        place = await _there(pilot)
        await pilot.press("R")
        await shows(pilot, "[x] random", "J and K move")
        await pilot.press("J", "j", "space", "enter")  # random after dc, which is hidden
        await until(pilot, lambda: place.choices.hide)
        place._choose(shows=("metric", "seeds", "rank"), order="best:digits IPC 10", only="-method:whole")
        await shows(pilot, "only -method:whole")
        await pilot.press("Y")
        await shows(pilot, "Copy the table as")
        await pilot.press(*["j"] * ["markdown", "latex", "csv"].index(format_), "enter")
        await until(pilot, clipboard.is_file)
        copied.append(clipboard.read_text())
        commands.append(place.document.command())

    play(console(path), scene, (120, 30))
    words = shlex.split(commands[0])
    assert words[:2] == ["dambench", "report"]
    assert run_cli([*words[1:], "--db", str(path)]) == 0
    assert capsys.readouterr().out == copied[0]


def test_keys_that_are_typed_fast_reach_the_box_that_is_open(path: Path) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        place = await _there(pilot)
        await pilot.press("s")
        await shows(pilot, "What cells show")
        burst(pilot, "j", "space", "j", "j", "space", "enter")
        await until(pilot, lambda: place.choices.shows == ("metric", "interval", "spread"))
        assert not place.marked

    play(console(path), scene)


def test_where_all_rows_are_hidden_it_says_which_key_shows_them(path: Path) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        place = await _there(pilot)
        place._choose(hide=("random", "dm", "dc", "whole"))
        await shows(pilot, "All rows, or all columns, are hidden: R shows them again.")
        await pilot.press("i", "enter", "o", "H", "y")
        await pilot.press("R")
        await shows(pilot, "[ ] random")
        await pilot.press("space", "enter")
        await shows(pilot, "random", "3 hidden")

    play(console(path), scene)


def test_a_cell_of_many_sets_opens_to_them_closed(path: Path) -> None:
    with closing(Store.open(path, write=True)) as store:
        ledger.add_sets(store, ledger.config("herding"), [[0.5 + seed / 100] for seed in range(6)])

    async def scene(pilot: Pilot[None]) -> None:
        await _there(pilot)
        await pilot.press("G", "k", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, CellTree))
        await shows(pilot, "seed 5", "1 network")
        assert "#0" not in drawn(pilot.app)
        await pilot.press("l")
        await shows(pilot, "#0")

    play(console(path), scene)


def test_what_cells_show_can_be_a_preference(path: Path) -> None:
    chosen = options(preferences.of({"console": {"cells": ["rank", "metric"]}}, "a file"), "a file")

    async def scene(pilot: Pilot[None]) -> None:
        place = await _there(pilot)
        assert place.choices.shows == ("rank", "metric")

    play(console(path, cells=chosen.cells), scene)
    with pytest.raises(BadInput, match="rnak"):
        options(preferences.of({"console": {"cells": ["rnak"]}}, "a file"), "a file")


@pytest.mark.parametrize("key", ["enter", SLOW("i"), SLOW("T")])
def test_a_box_says_when_the_runs_that_it_shows_are_others_by_now(path: Path, key: str) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        await _there(pilot)
        await pilot.press(key)
        await until(pilot, lambda: isinstance(pilot.app.screen, TableBox))
        assert "others by now" not in drawn(pilot.app)
        with closing(Store.open(path, write=True)) as store:
            store.db.conn.execute("update runs set deleted_at = 'now' where method = 'random'")
        await shows(pilot, "the runs are others by now")

    play(console(path), scene)
