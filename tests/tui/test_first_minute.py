"""A newcomer's first minute: what is said to somebody who has no run, and of keys that do nothing."""

from contextlib import closing
from pathlib import Path

import pytest
from textual.pilot import Pilot

from dambench.runner import monitor
from dambench.store.runs import Store
from dambench.tui import app, keys
from dambench.tui.models.preflight import no_gpu_line
from tests.ledger import add, config
from tests.tui.screen import burst, console, drawn, play, said, shows, until


def test_without_a_database_it_is_said_what_this_is_and_which_key_begins(tmp_path: Path) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "condense a dataset into a few images per class", "n     start one")

    play(console(tmp_path / "none.db"), scene)


def test_who_has_made_none_of_the_runs_is_told_once_where_they_come_from(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with closing(Store.open(path, write=True)) as store:
        add(store, config("random", 10), [0.26, 0.27])  # on gpu07

    async def first(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "made on another machine" in said(pilot.app))

    async def second(pilot: Pilot[None]) -> None:
        await shows(pilot, "random")
        assert said(pilot.app) == ""

    play(console(path), first)
    play(console(path), second)


def test_a_key_that_does_nothing_here_says_so_and_a_paste_says_it_once(tmp_path: Path) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "no database")
        await pilot.press("B")
        assert said(pilot.app) == "B does nothing in Runs: ? lists the keys."
        burst(pilot, *"BBBBBB")
        await pilot.press("down", "left", "escape", "f7")
        assert said(pilot.app).count("does nothing") == 1
        await pilot.press("slash", "B")
        assert said(pilot.app).count("does nothing") == 1  # it is typed

    play(console(tmp_path / "none.db"), scene)


def test_keys_are_called_as_they_are_pressed() -> None:
    assert [keys.character(key) for key in ("B", "question_mark", "slash", "minus", "at", "space")] == [*"B?/-@ "]
    assert [keys.character(key) for key in ("f7", "ctrl+g", "escape", "down", "tab")] == [""] * 5


def test_ctrl_c_says_how_one_leaves_and_what_stops_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "IDLE", 0.0)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "no database")
        await pilot.press("ctrl+c")
        assert said(pilot.app).startswith("ctrl+c stops nothing here: f10 quits, and runs go on")
        await pilot.press("B")
        assert "B does nothing in Runs: H lists the keys." in said(pilot.app)
        assert "f10 Quit" in drawn(pilot.app)

    play(console(tmp_path / "none.db", keys=(("everywhere.quit", "f10"), ("everywhere.help", "H"))), scene)


def test_a_machine_without_a_gpu_is_one_line_and_no_error() -> None:
    assert no_gpu_line(monitor.NO_LIBRARY) == no_gpu_line(monitor.NO_GPU)
    assert "runs are on the CPU" in no_gpu_line(monitor.NO_GPU)
    assert no_gpu_line(monitor.MISMATCH) == monitor.MISMATCH
