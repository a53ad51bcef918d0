import json
import math
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.text import Text
from textual.pilot import Pilot
from textual.widgets import Input

from dambench.cli.app import run_cli
from dambench.core.events import AnyEvent, Measured, Stepped
from dambench.core.protocol import PRESETS
from dambench.report.quantities import QUANTITIES, TableView
from dambench.store import records
from dambench.store.leaderboard import Leaderboard, leaderboard, rivals
from dambench.store.metrics import MetricRow
from dambench.store.records import log_event
from dambench.store.runs import Store
from dambench.store.statistics import difference
from dambench.tui.models import catalogue, comparison
from dambench.tui.models.catalogue import Catalogue
from dambench.tui.models.comparison import CHOICES, Comparison, Contents, about, choose, contents, curves, find, nothing
from dambench.tui.screens import new_run
from dambench.tui.screens.compare import CompareScreen
from dambench.tui.terminal.ascii_filter import plain
from dambench.tui.widgets.grid import Grid
from dambench.tui.widgets.lines import cut
from tests import ledger
from tests.tui.screen import SIZES, console, drawn, play, said, shows, snapshot, until

AXES = ("method",), ("dataset", "ipc")


def _fill(path: Path) -> Path:
    """Two protocols; two sets of dm at IPC 1, and a run that was stopped."""
    with closing(Store.open(path, write=True)) as store:
        for method, ipc, seed, accuracies in (
            ("random", 1, 0, (0.3, 0.31, 0.29)),
            ("dm", 1, 0, (0.5, 0.52, 0.51)),
            ("dm", 1, 1, (0.53, 0.52, 0.54)),
            ("random", 10, 0, (0.6, 0.61, 0.59)),
            ("whole", None, 0, (0.9, 0.91, 0.92)),
        ):
            ledger.add(store, ledger.config(method, ipc, seed), accuracies, recipe="a table")
        ledger.add(store, ledger.config("dm", 10), end=ledger.stopped())
        ledger.add(store, ledger.config("dm", protocol=PRESETS["dc"]), (0.4, 0.41))
    return path


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    names = iter(f"run{letter}22" for letter in "abcdefghij")
    monkeypatch.setattr(records, "new_id", names.__next__)
    return _fill(tmp_path / "runs.db")


async def _there(pilot: Pilot[None]) -> CompareScreen:
    await pilot.press("3")
    await shows(pilot, "[3 Compare]", "Mean ± half of its 95 %")
    place = pilot.app.screen
    assert isinstance(place, CompareScreen)
    # Tables are in the order of their protocols' names.
    await pilot.press("p")
    await shows(pilot, "protocol quick", "random · digits IPC 1")
    return place


@pytest.mark.parametrize("size", SIZES)
def test_the_table(path: Path, size: tuple[int, int]) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        await _there(pilot)
        await pilot.press("j")
        await shows(pilot, "dm · digits IPC 1")
        await snapshot(pilot, "compare")

    play(console(path), scene, size)


def test_without_unicode_it_is_drawn_in_ascii(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf:
        def __init__(self, hear: object): ...

        def ask(self, arguments: list[str]) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr(new_run, "Checker", Deaf)
    monkeypatch.setattr(catalogue, "kept", lambda: Catalogue({}, {}, {}))

    async def scene(pilot: Pilot[None]) -> None:
        await pilot.press("3")
        await shows(pilot, "protocol dc")
        await pilot.press("p")
        await shows(pilot, "protocol quick", ">   30.0 +- - (1x3)", "majority")
        assert drawn(pilot.app).isascii()
        # `+-` is as wide as what was measured.
        table = drawn(pilot.app).partition("majority")[0].splitlines()
        rows = [line for line in table if re.match(r" (method|random|dm|whole) ", line)]
        ends = {found.end() for line in rows if (found := re.search(r"IPC 1\b|\(\d\S*\)", line))}
        assert (len(rows), len(ends)) == (4, 1)
        await pilot.press("n")
        await shows(pilot, "Before you start")
        assert drawn(pilot.app).isascii()

    play(console(path, ascii=True), scene)


def test_the_numbers_are_those_of_the_report(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copied: list[str] = []

    async def scene(pilot: Pilot[None]) -> None:
        place = await _there(pilot)
        copied.append(place.to_copy())
        await pilot.press("p")
        await shows(pilot, "protocol dc")
        copied.append(place.to_copy())

    play(console(path), scene)
    assert run_cli(["report", "--short"]) == 0
    report = capsys.readouterr().out
    tables = [text for text in report.split("## ") if text.startswith("Accuracy")]
    assert len(tables) == 2
    for text in copied:
        (table,) = (line for line in text.split("## ") if line.startswith("Accuracy"))
        rows = [line for line in table.splitlines() if line.startswith("|")]
        assert any(rows == [line for line in other.splitlines() if line.startswith("|")] for other in tables)


def test_keys_go_from_cell_to_cell_and_no_further(path: Path) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        place = await _there(pilot)
        grid = place.query_one(Grid)
        assert (grid.row, grid.column) == (0, 0)
        await pilot.press("k", "h")
        assert (grid.row, grid.column) == (0, 0)
        await pilot.press("G", "end", "down", "l")
        assert (grid.row, grid.column) == (2, 1)
        await shows(pilot, "whole · digits IPC 10")
        await pilot.press("k")
        await shows(pilot, "dm · digits IPC 10", "Not run yet.")

    play(console(path), scene)


def test_keys_go_to_a_table_that_was_not_there_at_first(path: Path) -> None:
    away = path.rename(path.with_name("away.db"))

    async def scene(pilot: Pilot[None]) -> None:
        await pilot.press("3")
        await until(pilot, lambda: isinstance(pilot.app.screen, CompareScreen) and pilot.app.screen.focused is None)
        away.rename(path)
        await _there(pilot)
        await pilot.press("j")
        await shows(pilot, "dm · digits IPC 1")

    play(console(path), scene)


def test_a_cell_opens_to_its_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = console(path)
    opened: list[str] = []
    monkeypatch.setattr(app, "open_run", opened.append)

    async def scene(pilot: Pilot[None]) -> None:
        await _there(pilot)
        await pilot.press("j", "enter")
        await shows(pilot, "dm · digits IPC 1", "enter opens a run", "3 networks")
        # Sets by their seeds, each with its networks.
        lines = [line.strip(" │╭╰") for line in drawn(pilot.app).splitlines()]
        assert [line.partition("seed ")[2][:1] for line in lines if "seed " in line and "set " in line] == ["0", "1"]
        assert [line.split()[-3] for line in lines if "run run" in line] == [
            "50.0",
            "52.0",
            "51.0",
            "53.0",
            "52.0",
            "54.0",
        ]
        await pilot.press("j", "enter")
        await until(pilot, lambda: opened == ["runb22"])
        await pilot.press("enter", "h", "j", "l", "j", "enter")
        await until(pilot, lambda: opened == ["runb22", "runc22"])

    play(app, scene)


def test_marked_runs_are_drawn_over_each_other(path: Path) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        place = await _there(pilot)
        await pilot.press("space", "j", "space")
        await shows(pilot, "3 runs marked", "30.0 ± – (1×3) +")
        await until(pilot, lambda: place.result and len(place.result.losses) == 3)
        await pilot.press("c")
        await shows(pilot, "loss over iterations, logarithmic", "random runa22", "dm runc22", "2 iterations")
        await pilot.press("m")
        await shows(pilot, "test accuracy in % over iterations")
        await pilot.press("escape")
        await shows(pilot, "3 runs marked")
        await pilot.press("space")
        await shows(pilot, "1 run marked")
        await pilot.press("escape")
        await until(pilot, lambda: "marked" not in drawn(pilot.app))

    play(console(path), scene)


def test_a_mark_stands_at_the_same_place_under_the_cursor_and_beside_it(path: Path) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        await _there(pilot)
        places = set()
        for key in ("space", "j"):
            await pilot.press(key)
            await shows(pilot, "1 run marked")
            (line,) = (line for line in drawn(pilot.app).splitlines() if line.startswith(" random") and "(1×3)" in line)
            places.add(line.index("+"))
        assert len(places) == 1

    play(console(path), scene)


def test_what_cells_show_is_chosen_copied_and_remembered(path: Path) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        place = await _there(pilot)
        await pilot.press("s")
        await shows(pilot, "What cells show", "[x] metric", "J and K move")
        # The metric goes, the spread and the memory come, the memory first.
        names = list(QUANTITIES)
        await pilot.press("home", "space", *["j"] * names.index("spread"), "space")
        await pilot.press(*["j"] * (names.index("peak") - names.index("spread")), "space")
        await pilot.press(*["K"] * (names.index("peak") - 1), "enter")
        await shows(pilot, "1 MB (2)", "1.3; 1.0 (2×3)")
        assert place.choices.shows == ("peak", "spread")
        assert "majority" not in drawn(pilot.app)
        assert "Peak, spread, protocol quick" in drawn(pilot.app)
        copied = place.to_copy()
        assert "1.3; 1.0 (2×3)" in copied
        assert "digits IPC 1 peak |" in copied

    play(console(path), scene)

    async def later(pilot: Pilot[None]) -> None:
        await pilot.press("3")
        await shows(pilot, "Peak: peak memory of distilling, median", "Spread: standard deviation")

    play(console(path), later)


def test_networks_side_by_side_have_figures_on_unseen_ones(path: Path) -> None:
    with closing(Store.open(path, write=True)) as store:
        for network, accuracies in (("convnet-d1-w8", (0.5, 0.6)), ("resnet18", (0.4, 0.5))):
            ledger.add(store, ledger.config("herding", 1, evaluate_on=network), accuracies, made="one")
        axes = ("method", "ipc"), ("network",)
        board = leaderboard(store, *axes)
    (table,) = (table for table in board.tables if table.transfer)
    found = contents(TableView(board, table, *axes))
    assert found.heads == [
        ["convnet-d1-w8"],
        ["resnet18"],
        ["unseen mean"],
        ["between sets"],
        ["worst unseen"],
        ["drop"],
    ]
    assert found.cells[found.names.index("herding IPC 1")] == [
        *("55.0 ± –† (1×2)", "45.0 ± – (1×2)"),
        *("45.0 ± – (1 set)", "", "45.0 (resnet18)", "+10.0"),
    ]
    app = console(path)
    app.settings.set("compare", {"rows": axes[0], "columns": axes[1]})

    async def scene(pilot: Pilot[None]) -> None:
        await pilot.press("3", "p")
        await shows(pilot, "unseen mean", "drop", "herding IPC 1")
        await pilot.press("end", "G", "enter")
        await shows(pilot, "drop")

    play(app, scene, (160, 48))


def test_before_the_first_answer_there_is_nothing_to_copy_yet(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = console(path)
    monkeypatch.setattr(app.feed, "ask", lambda *asked, **how: None)

    async def scene(pilot: Pilot[None]) -> None:
        await pilot.press("3", "y")
        await until(pilot, lambda: "The database is being read" in said(app))

    play(app, scene)


def test_axes_are_chosen_and_remembered(path: Path) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        place = await _there(pilot)
        await pilot.press("V")
        await shows(pilot, "What columns stand for")
        await pilot.press("g", "escape")
        await pilot.press("v")
        await shows(pilot, "What rows stand for")
        for _ in range(CHOICES.index(("protocol",)) - CHOICES.index(("method",))):
            await pilot.press("j")
        await pilot.press("enter")
        await shows(pilot, "rows: protocol")
        await pilot.press("p")  # of random there is one protocol only
        await shows(pilot, "quick#", "dc#")  # side by side, and each named
        assert (place.choices.rows, place.choices.columns) == (("protocol",), ("dataset", "ipc"))

    play(console(path), scene)

    async def later(pilot: Pilot[None]) -> None:
        await pilot.press("3")
        await shows(pilot, "rows: protocol")

    play(console(path), later)


def test_the_report_is_written_as_the_command_would(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = path.parent / "table.csv"
    app = console(path)
    said: list[str] = []

    async def scene(pilot: Pilot[None]) -> None:
        await _there(pilot)
        app.say = lambda text, severity="": said.append(text)  # type: ignore[method-assign]
        await pilot.press("e")
        await until(pilot, lambda: pilot.app.screen.query(Input))
        pilot.app.screen.query_one(Input).value = str(target)
        await pilot.press("enter")
        await until(pilot, lambda: said)
        await pilot.press("e")
        await until(pilot, lambda: pilot.app.screen.query(Input))
        pilot.app.screen.query_one(Input).value = str(path.parent / "none" / "table.csv")
        await pilot.press("enter")
        await until(pilot, lambda: len(said) == 2)

    play(app, scene)
    assert run_cli(["report", "--format", "csv"]) == 0
    assert target.read_text() == capsys.readouterr().out
    assert said == [f"Written: {target}", said[1]]
    assert "there is no such folder" in said[1]


def test_signs_become_ascii_of_the_same_width() -> None:
    assert plain("a ± b – × ±") == "a +-b - x ~"
    assert plain("┌─┐│ └─┘ ╭━┃ ┼") == "+-+| +-+ +-| +"
    assert plain("é ÿ 語 ▁") == "e y ?? #"
    assert plain("plain") == "plain"


def test_what_is_new_appears_by_itself(path: Path) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        await _there(pilot)
        with closing(Store.open(path, write=True)) as store:
            ledger.add(store, ledger.config("herding", 1), (0.7, 0.71, 0.72))
        await shows(pilot, "herding", "71.0 ± – (1×3)")

    play(console(path), scene)


def test_where_nothing_has_finished_it_says_so(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with closing(Store.open(path, write=True)) as store:
        ledger.add(store, ledger.config(), end=ledger.stopped())
        assert "no run has finished yet (1 stopped)" in nothing(find(store, *AXES, []))

    async def scene(pilot: Pilot[None]) -> None:
        await pilot.press("3")
        await shows(pilot, "Nothing to compare: no run has finished yet (1 stopped).")
        await pilot.press("enter", "space", "c", "p", "j")
        assert "Nothing to compare" in drawn(pilot.app)

    play(console(path), scene)


# Without a screen.


def test_an_axis_is_on_rows_or_columns_never_on_both() -> None:
    rows, columns = ("method",), ("dataset", "ipc")
    assert choose(rows, columns, "rows", ("ipc",)) == (("ipc",), ("dataset",))
    assert choose(rows, columns, "rows", ("dataset", "ipc")) == (("dataset", "ipc"), ("method",))
    for which in ("rows", "columns"):
        for before in CHOICES:
            for other in (c for c in CHOICES if not set(c) & set(before)):
                for axes in CHOICES:
                    new_rows, new_columns = choose(before, other, which, axes)
                    assert (new_rows if which == "rows" else new_columns) == axes
                    assert new_rows
                    assert new_columns
                    assert not set(new_rows) & set(new_columns)


def test_a_cell_is_told_in_words(path: Path) -> None:
    with closing(Store.open(path)) as store:
        board = leaderboard(store, *AXES)
    (table,) = (table for table in board.tables if str(table.fixed["protocol"]).startswith("quick"))
    here = (("dm",), ("digits", 1))
    name, scores, spread, *against, between, cost, recipe, strong, draws, herding, curve = about(
        board, table, *AXES, here
    )
    # By hand: set means 51 and 53, t(1) 12.7062 · √2 / √2; within 1, between √(2 − 1/3).
    assert name == "dm · digits IPC 1   52.0 ± 12.7   n = 2×3"
    assert spread == "between sets 1.3, within a set 1.0; 2 sets: no claim about the method"
    assert scores == "runc22: 53.0 52.0 54.0   runb22: 50.0 52.0 51.0"
    assert against == ["against random +21.0 points on 1 shared seed (no test); whole -39.0 points (no test)"]
    of_random = "\n".join(about(board, table, *AXES, (("random",), ("digits", 1))))
    assert "within the set 1.0; 1 set: no claim about the method\nagainst best other, dm, -21.0 points" in of_random
    # 52 of 91; random has one set, so that nobody knows whether whole is above it.
    assert between.startswith("57.1 (")
    assert between.endswith(") % of whole; – % of the gap between random and whole; as random images of IPC 5.4 (–)")
    assert cost == "took 1 s to distil (1 MB peak), 1 s per network, on a CPU, 2 threads"
    assert recipe == "settings: a table"
    assert strong.startswith("missing: 3 networks on the whole set by its strong recipe, 200 epochs: dambench run")
    assert draws.startswith("missing: 5 random draws: dambench run --headless --dataset digits --protocol quick")
    assert herding.startswith("missing: herding: dambench run")
    assert curve.startswith("missing: the random curve: for ipc in 2 5; do dambench run")
    assert {place[0] for place in rivals(table, *AXES, here)} == {("random",), ("dm",), ("whole",)}
    assert about(board, table, *AXES, (("dm",), ("digits", 10)))[1] == "Not run yet."


def test_a_cell_of_ten_sets_has_a_bootstrap_and_its_difference_an_interval_with_an_uncorrected_p(
    tmp_path: Path,
) -> None:
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        for method, centre, step in (("random", 0.3, 7), ("dm", 0.5, 3)):
            sets = [[centre + (seed * step % 10) / 100, centre + (seed * step % 10 + 1) / 100] for seed in range(10)]
            ledger.add_sets(store, ledger.config(method), sets)
        board = leaderboard(store, *AXES)
    (table,) = board.tables
    (cell, other) = (table.cells[(method,), ("digits", 1)] for method in ("dm", "random"))
    assert cell.bootstrap is not None
    text = "\n".join(about(board, table, *AXES, (("dm",), ("digits", 1))))
    low, high = (f"{100 * value:.1f}" for value in cell.bootstrap)
    assert f"between sets 3.0, within a set 0.7; bootstrap over sets and networks {low} to {high}" in text
    gap = difference(cell.sample, other.sample)
    assert gap.interval is not None
    assert f"against random +20.0 points (95 %: {100 * gap.interval.low:+.1f} to {100 * gap.interval.high:+.1f}" in text
    assert "; paired over 10 shared seeds, p < 0.001 uncorrected)" in text


def test_the_grid_has_the_texts_of_the_report(path: Path) -> None:
    with closing(Store.open(path)) as store:
        board = leaderboard(store, *AXES)
    (table,) = (table for table in board.tables if str(table.fixed["protocol"]).startswith("quick"))
    found = contents(TableView(board, table, *AXES))
    assert found == Contents(
        corner=["", "method"],
        heads=[["digits", "IPC 1"], ["digits", "IPC 10"]],
        names=["random", "dm", "whole (50 epochs)"],
        cells=[
            ["30.0 ± – (1×3)", "60.0 ± – (1×3)"],
            ["52.0 ± 12.7 (2×3)", ""],
            ["91.0 ± 2.5‡ (1×3)", "91.0 ± 2.5‡ (1×3)"],
        ],
        stars=set(),
        below=[("majority class", ["60.0", "60.0"])],
    )


def test_what_is_no_number_is_a_gap_in_a_curve_and_named_as_it_was_logged(tmp_path: Path) -> None:
    run = ledger.config("dm")
    events: list[AnyEvent] = [
        msgspec.structs.replace(event, losses={"matching": "-inf"})
        if isinstance(event, Stepped) and event.iteration == 2
        else msgspec.structs.replace(event, values={"accuracy": "nan"})
        if isinstance(event, Measured)
        else event
        for event in ledger.words(run)
    ]
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        name = store.create(run, ledger.CARD)
        for _ in store.record(name, events):
            pass
        found = find(store, ["method"], ["ipc"], [name])
        assert str(found.accuracies) == str({f"dm {name} convnet-d1-w8": [(2, math.nan)]})
    text = curves(found.losses, 60, 8, True, True).plain
    assert "-inf at 2" in text
    assert text.isascii()
    assert "The marked runs have none: m shows" in curves({}, 60, 8, True, False).plain


def test_a_wide_table_is_scrolled_to_the_cell_of_the_keys(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with closing(Store.open(path, write=True)) as store:
        for ipc in range(1, 12):
            ledger.add(store, ledger.config("dm", ipc), (0.5, 0.6))

    async def scene(pilot: Pilot[None]) -> None:
        await pilot.press("3")
        await shows(pilot, "IPC 1 ", "…")
        assert " IPC 11 " not in drawn(pilot.app)
        await pilot.press("end")
        await shows(pilot, "dm · digits IPC 11")
        head = next(line for line in drawn(pilot.app).splitlines() if line.startswith(" method"))
        assert "IPC 1 " not in head
        assert "IPC 11" in head

    play(console(path), scene)


def test_without_colours_nothing_is_sent_but_signs(path: Path) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        await pilot.press("3")
        await shows(pilot, "[3 Compare]", "Mean ± half of its 95 %")
        await pilot.press("v")
        await shows(pilot, "What rows stand for")
        strips = pilot.app.screen._compositor.render_strips()
        styles = [segment.style for strip in strips for segment in strip if segment.style]
        assert all(style.color is None and style.bgcolor is None for style in styles)
        assert any(style.bold for style in styles)

    play(console(path, colour=False), scene)


def test_what_is_cut_off_is_said_and_no_number_is_halved() -> None:
    lines = [Text("one"), Text("left out: 30 unfinished"), Text("three")]
    assert [line.plain for line in cut(lines, 18, 2, "… more")] == ["one", "left out: … more"]
    assert cut(lines, 20, 3, "… more") == lines


@pytest.mark.parametrize(("size", "ascii_"), [((60, 16), True), ((80, 24), False)])
def test_what_the_signs_of_a_table_say_is_never_pushed_off_the_screen(
    tmp_path: Path, size: tuple[int, int], ascii_: bool
) -> None:
    low, high = [0.60, 0.61, 0.62], [0.90, 0.91, 0.92]
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        for number, method in enumerate(["dm", "random", *(f"other{letter}" for letter in "abcdefgh")]):
            for seed, network in ((0, "resnet18"), *((seed, "convnet-d1-w8") for seed in range(3))):
                run = msgspec.structs.replace(ledger.config(method, seed=seed), evaluate_on=(network,))
                noise = seed * (number + 1) / 1000
                accuracies = [accuracy + noise for accuracy in (low if number else high)]
                ledger.add(store, run, accuracies, made=f"{method} {seed}", recipe=f"source {number}")
    settings = {"compare": {"rows": ["method"], "columns": ["network"], "measure": "accuracy"}}
    (tmp_path / "console.json").write_text(json.dumps(settings))

    async def scene(pilot: Pilot[None]) -> None:
        await pilot.press("3")
        await shows(pilot, "[3 Compare]", "Mean ", "space Mark")  # key hints come last
        source, least = ("^", ">=") if ascii_ else ("†", "≥")
        sentences = (
            f"confidence interval over sets (sets {'x' if ascii_ else '×'} networks).",
            f"* the highest mean and all not told from it at 5 %, of {least} 3 sets.",
            f"{source} on the network matched on.",
            "unseen: networks that no row was matched on; drop: from the one matched on to their mean.",
            "Under 3 sets: no claim about the method.",
            " of 10 ",  # not all rows are seen
        )

        def stand() -> bool:
            screen = " ".join(drawn(pilot.app).split())
            return all(sentence in screen for sentence in sentences)

        await until(pilot, stand)  # once all of it is laid out
        assert size[1] < 20 or f"{source} (3×3)*" in drawn(pilot.app)
        await pilot.press("G")
        await until(pilot, lambda: " 10 of 10 " in drawn(pilot.app) and stand())

    play(console(tmp_path / "runs.db", ascii=ascii_), scene, size)


def test_tables_are_computed_again_only_if_something_was_written_that_they_depend_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[object] = []

    def counted(*axes: Any, **more: Any) -> Leaderboard:
        computed.append(axes)
        return leaderboard(*axes, **more)

    monkeypatch.setattr(comparison, "leaderboard", counted)
    place = CompareScreen()
    with closing(Store.open(path)) as store, closing(Store.open(path, write=True)) as writer:

        def shown() -> tuple[Comparison, int]:
            before = len(computed)
            return place.question()(store), len(computed) - before

        first, count = shown()
        assert count == 1
        assert shown() == (first, 0)
        assert shown()[0] is first
        running = writer.create(ledger.config("dm", 10, 5), ledger.CARD)  # one more that is left out
        assert shown()[1] == 1
        said, uid = list(ledger.words(ledger.config("dm", 10, 5))), writer.run(running).uid
        for number, event in enumerate(said[:-1]):
            writer.write([log_event(uid, 1, number, event)])
            result, count = shown()
            # That it has begun is one run that waits less; what it logs then is none of the tables' business.
            assert count == (number == 0)
        assert shown()[0] is result
        writer.beat(running, 1)
        assert shown() == (result, 0)
        place.marked = [running]  # its curves are drawn, beside the same tables
        marked, count = shown()
        assert count == 0
        assert marked.board is result.board
        assert list(marked.losses)
        writer.write([log_event(uid, 1, len(said), said[-1])])
        finished, count = shown()
        assert count == 1
        assert finished.board.finished == first.board.finished + 1
        writer.delete(running)
        assert shown()[0].board.finished == first.board.finished
        assert shown()[1] == 0
        place.choices = place.choices._replace(rows=CHOICES[1], columns=CHOICES[0])
        assert shown()[1] == 1


def test_metrics_to_choose_from_are_in_the_order_they_are_read_classes_last_and_no_ends_of_intervals() -> None:
    names = ["nas.tau_b", "nas.spearman_low", "nas.spearman", "accuracy.class_3", "robustness.pgd_l2_1", "other.low"]
    names += ["robustness.pgd_l2_0-25", "robustness.clean", "accuracy.accuracy", "accuracy.auc", "nas.spearman_high"]
    parts = [name.partition(".") for name in names]
    metrics = [MetricRow(evaluator, name, "fraction", "higher", "") for evaluator, _, name in parts]
    assert [one.full_name for one in comparison.to_choose(metrics)] == [
        *("accuracy.accuracy", "accuracy.auc", "robustness.clean", "robustness.pgd_l2_0-25", "robustness.pgd_l2_1"),
        *("nas.tau_b", "nas.spearman", "other.low", "accuracy.class_3"),
    ]
