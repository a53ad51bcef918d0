import re
import shlex
import shutil
from pathlib import Path

import pytest
from textual.pilot import Pilot

from dambench.cli.app import run_cli
from dambench.tui.widgets.entry import Palette
from tests.tui.screen import console, play, shows, types

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tour.md").read_text()
STEPS = re.findall(r"^\| (.*?) ?\| .* \| (.*?) ?\|$", PAGE, re.M)[2:]
"""What is pressed, and what then stands on the screen."""

NAMES = {"esc": "escape", "/": "slash", ";": "semicolon", "?": "question_mark", ":": "colon", "+": "plus"}
"""Keys as Textual calls them, where it calls them otherwise."""


@pytest.mark.slow
def test_the_tour_goes_as_it_is_printed(tmp_path: Path) -> None:
    shutil.copy(ROOT / "runs.db", tmp_path / "runs.db")
    before = (tmp_path / "runs.db").read_bytes()
    app = console(tmp_path / "runs.db", readonly=True)
    ended = []

    async def scene(pilot: Pilot[None]) -> None:
        for keys, seen in STEPS:
            for key in re.findall(r"`(.+?)`", keys):
                if key == "q":
                    ended.append(app.is_running)
                if len(key) == 1 or key in ("esc", "enter", "tab", "space"):
                    await pilot.press(NAMES.get(key, key))
                else:
                    await types(pilot, key)
            if words := re.findall(r"`(.+?)`", seen):
                await shows(pilot, *words)
            if "theme" in keys:
                assert isinstance(app.screen, Palette)

    play(app, scene, (100, 30))
    assert len(STEPS) == len(re.findall(r"^\| ", PAGE, re.M)) - 2 > 15
    assert ended == [True]
    assert app.return_code == 0
    assert (tmp_path / "runs.db").read_bytes() == before


@pytest.mark.slow
def test_its_commands_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAMBENCH_DB", raising=False)
    shutil.copy(ROOT / "runs.db", tmp_path / "runs.db")
    console_, *commands = re.findall(r"^    dambench (.*)$", PAGE, re.M)
    assert (console_, len(commands)) == ("--readonly", 4)
    for command in commands:
        words = shlex.split(command)
        assert run_cli([*words, *["--headless"] * (words[0] == "run")]) == 0, command
    assert "dm" in capsys.readouterr().out
    assert "random" in (tmp_path / "tour.md").read_text()
    assert (tmp_path / "tour.db").exists()
