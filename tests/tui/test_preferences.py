"""Preferences in the console: keys, columns, theme, and being told that a run has ended."""

import re
import sys
import tomllib
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from textual.app import App
from textual.binding import Binding
from textual.pilot import Pilot
from textual.widgets import Input

from dambench.cli.app import run_cli
from dambench.core import preferences
from dambench.core.errors import BadInput
from dambench.core.preferences import ConsolePreferences, Preferences
from dambench.runner import processes
from dambench.store.runs import Store
from dambench.tui import hints, keys, preferred
from dambench.tui.app import DambenchApp
from dambench.tui.settings import Settings
from dambench.tui.widgets.notices import Broken, Leaving
from tests import ledger
from tests.ledger import add, config, words
from tests.tui.screen import console, drawn, play, said, shows, types, until


def written(text: str) -> None:
    preferences.path().parent.mkdir(parents=True, exist_ok=True)
    preferences.path().write_text(text)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with one run that is at work, and a finished one."""
    path = tmp_path / "runs.db"
    with closing(Store.open(path, write=True)) as store:
        add(store, config("random", 10), [0.26, 0.27])
    return path


def begin(path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("dambench.store.records.new_id", lambda: name)
    run = config("dm", 10, options={"iterations": 2})
    with closing(Store.open(path, write=True)) as store:
        recorder = store.record(store.create(run, ledger.CARD, process=processes.this_process()), words(run))
        for _ in range(3):
            next(recorder)


def test_each_thing_that_a_key_does_has_a_name_of_its_own() -> None:
    rows = preferred.key_rows()
    names = [row.name for row in rows]
    assert len(names) == len(set(names))
    assert {name.partition(".")[0] for name in names} == {
        "everywhere",
        "runs",
        "live",
        "compare",
        "report",
        "several",
        "queue",
        "run",
        "form",
        "rows",
    }
    by_name = {row.name: row for row in rows}
    assert by_name["runs.filter"].keys == "slash"
    assert by_name["queue.later"].keys == "J"
    # What comes clashes with nothing: to say it again is no error.
    keys.check({row.name: row.keys for row in rows}, rows, "it")


@pytest.mark.parametrize(
    ("chosen", "why"),
    [
        ({"runs.filtr": "f"}, "Did you mean 'runs.filter'?"),
        ({"runs.filter": "nokey"}, "runs.filter = 'nokey' is no key"),
        ({"runs.filter": "hyper+f"}, "is no key"),
        ({"runs.filter": "s"}, "s would do two things, runs.filter and runs.sort"),
        ({"runs.filter": "q"}, "runs.filter and everywhere.quit"),
        ({"everywhere.help": "L"}, "everywhere.help and live.log-y"),
        ({"runs.sort": "j"}, "runs.sort and rows.down"),
        ({"runs.sort": "?"}, "runs.sort and everywhere.help"),
        ({"form.start": "s"}, "would be typed where text is"),
        ({"runs.filter": "tab"}, "moves from pane to pane in every place"),
        ({"everywhere.quit-whatever-is-typed": "q"}, "would be typed"),
        ({"everywhere.quit-whatever-is-typed": "backspace"}, "edits text where it is typed"),
        ({"form.start": "ctrl+a"}, "edits text where it is typed"),
        ({"form.start": "f6,enter"}, "edits text where it is typed"),
    ],
)
def test_keys_that_cannot_be_had_are_refused(chosen: dict[str, str], why: str) -> None:
    with pytest.raises(BadInput) as error:
        preferred.options(Preferences(keys=chosen), "'config.toml'")
    assert why in str(error.value)
    assert "[keys] of 'config.toml'" in str(error.value)


def test_a_key_may_be_had_where_the_other_thing_has_another() -> None:
    chosen = {"runs.filter": "s,f4", "runs.sort": "o", "live.images": "e", "everywhere.help": "f1"}
    assert dict(preferred.options(Preferences(keys=chosen), "it").keys) == chosen


@pytest.mark.parametrize(
    ("fields", "why"),
    [({"theme": "dracul"}, "Did you mean 'dracula'?"), ({"columns": ("run", "metod")}, "Did you mean 'method'?")],
)
def test_a_theme_or_a_column_that_is_none_is_refused(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(BadInput) as error:
        preferred.options(Preferences(console=ConsolePreferences(**fields)), "'config.toml'")
    assert "[console] of 'config.toml'" in str(error.value)
    assert why in str(error.value)


def test_keys_do_what_was_chosen_and_help_shows_them(path: Path) -> None:
    chosen = (("runs.filter", "f"), ("everywhere.help", "H"), ("runs.filters", "ctrl+f"))

    async def scene(pilot: Pilot[None]) -> None:
        app = pilot.app
        await shows(pilot, "random")
        await shows(pilot, " f Filter")
        await pilot.press("H")
        await shows(pilot, "Keys", "Filter")
        assert "?" not in drawn(app)
        await pilot.press("escape", "slash")
        assert len(app.screen_stack) == 2
        await types(pilot, "f", *"nothing", "enter")
        await shows(pilot, "nothing")

    play(console(path, keys=chosen), scene)


def test_editing_of_a_line_keeps_its_keys() -> None:
    edit = {key for binding in Binding.make_bindings(Input.BINDINGS) for key in binding.key.split(",")}
    assert edit <= keys.EDITING


def test_hints_name_the_keys_that_hold(path: Path) -> None:
    chosen = (("runs.filter", "f"), ("runs.back", "f7"), ("everywhere.quit", "f10,q"), ("runs.stop", "escape"))

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "random")
        await types(pilot, "f", *"nosuch", "enter")
        await shows(pilot, "f7    clear it", "f     change it")
        await pilot.press("ctrl+c")
        await until(pilot, lambda: "f10 quits" in said(pilot.app) and "esc stops the run" in said(pilot.app))

    play(console(path, keys=chosen), scene)
    hints.prefer({})
    assert hints.hint("runs.filter", "/") == "/"


def test_each_hint_knows_the_key_as_it_comes() -> None:
    rows = {row.name: [keys.character(key) or key for key in row.keys.split(",")] for row in preferred.key_rows()}
    hints: set[tuple[str, str]] = set()
    for file in Path(keys.__file__).parent.rglob("*.py"):
        hints |= set(re.findall(r"""hints\.hint\(["']([^"']+)["'], ["']([^"']+)["']\)""", file.read_text()))
    assert len(hints) > 20
    for name, usual in hints:
        assert {"esc": "escape", "space": " "}.get(usual, usual) in rows[name], name


def test_the_examples_of_the_template_are_of_this_console() -> None:
    lines = (line.removeprefix("# ") if " = " in line else line for line in preferences.TEMPLATE.splitlines())
    found = preferred.options(preferences.of(tomllib.loads("\n".join(lines)), "it"), "it")
    assert found.columns[:2] == ("run", "method")
    assert dict(found.keys) == {"runs.filter": "f", "everywhere.quit": "q,f10"}


def test_columns_and_place_and_theme_are_as_preferred_at_each_start(path: Path) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: pilot.app.theme == "nord")
        await pilot.press("1")
        await until(pilot, lambda: ["IPC", "METHOD"] in [line.split()[:2] for line in drawn(pilot.app).splitlines()])

    play(console(path, theme="nord", place="queue", columns=("ipc", "method")), scene)
    assert Settings(path.parent / "console.json").get("runs.columns", []) == ["ipc", "method"]


def going(app: App[Any]) -> set[str]:
    """The runs that the console knows to go on."""
    assert isinstance(app, DambenchApp)
    return app.feed._going


def test_the_end_of_a_run_is_told_whatever_is_in_front(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = {"going": "running"}
    begin(path, monkeypatch, "going")
    monkeypatch.setattr(processes, "state", lambda row: states.get(row.id, row.state))

    async def scene(pilot: Pilot[None]) -> None:
        await pilot.press("3")
        await until(pilot, lambda: going(pilot.app) == {"going"})
        assert said(pilot.app) == ""
        states["going"] = "lost"
        await until(pilot, lambda: said(pilot.app) == "The run going is lost.")
        await pilot.pause(1.2)
        assert said(pilot.app).count("going") == 1

    play(console(path), scene)


def test_nothing_is_told_of_runs_that_had_ended_before_or_where_silence_is_preferred(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = {"going": "running"}
    begin(path, monkeypatch, "going")
    monkeypatch.setattr(processes, "state", lambda row: states.get(row.id, row.state))

    async def scene(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: going(pilot.app) == {"going"})
        states["going"] = "stopped"
        await until(pilot, lambda: not going(pilot.app))
        await pilot.pause(0.1)
        assert said(pilot.app) == ""

    play(console(path, notify=()), scene)


def test_a_command_of_the_preferences_is_the_hook_of_every_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dambench.runner import hooks

    # What `use` sets is gone after the test.
    monkeypatch.setenv(hooks.VARIABLE, "")
    written(f"on_finish = {msgspec.json.encode(sys.executable + ' -c 0').decode()}")
    hooks.use("")
    assert not hooks.is_set()  # within a hook there is none
    monkeypatch.delenv(hooks.VARIABLE)
    hooks.use("")
    assert hooks.is_set()
    monkeypatch.setenv(hooks.VARIABLE, "")
    written('on_finish = "no-such-program-anywhere"')
    assert run_cli(["config", "check"]) == 2
    monkeypatch.delenv(hooks.VARIABLE)
    assert run_cli(["run", "--headless", "--method", "random", "--dataset", "digits"]) == 2
    assert "on_finish in" in capsys.readouterr().err
    assert not (tmp_path / "runs.db").exists()


def test_the_file_is_checked_and_its_keys_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["config", "check"]) == 0
    assert "all is as it comes" in capsys.readouterr().err
    written('[keys]\n"runs.filter" = "f"')
    assert run_cli(["config", "check"]) == 0
    assert "is in order" in capsys.readouterr().err
    assert run_cli(["config", "keys", "--json"]) == 0
    listed = {row["name"]: row["keys"] for row in msgspec.json.decode(capsys.readouterr().out)}
    assert listed["runs.filter"] == ["f"]
    assert listed["live.log-up"] == ["k", "up"]
    written('[keys]\n"runs.filter" = "s"')
    assert run_cli(["config", "check"]) == 2
    assert "runs.sort" in capsys.readouterr().err
    assert run_cli(["config"]) == 2
    assert "needs a terminal" in capsys.readouterr().err


def test_boxes_over_a_place_name_the_keys_that_hold_and_obey_them(path: Path) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        pilot.app.push_screen(Leaving(["run1"]))
        await shows(pilot, "g or enter: quit, leave them running.")
        await pilot.press("q")
        assert isinstance(pilot.app.screen, Leaving)  # the other key does nothing any more
        await pilot.press("escape")
        pilot.app.push_screen(Broken(ValueError("bad"), Path("console.log")))
        await shows(pilot, "Y copies it, esc goes on.")
        await pilot.press("escape")
        pilot.app.push_screen(Leaving(["run1"]))
        await shows(pilot, "g or enter")
        await pilot.press("g")

    play(console(path, keys=(("everywhere.quit", "g"), ("everywhere.copy", "Y"))), scene)
