import re
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dambench.cli.app import run_cli
from dambench.store.runs import Store
from dambench.tui import feed
from dambench.tui.settings import Settings
from tests import ledger


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody writes here, and nobody waits for it."""
    monkeypatch.setattr(feed, "AT_LEAST", 0.0)


def test_a_place_of_the_console_can_be_had_as_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path, picture = tmp_path / "runs.db", tmp_path / "live.svg"
    with closing(Store.open(path, write=True)) as store:
        run = ledger.add(store, ledger.config())
    code = run_cli(["shot", "live", "--run", run[:4], "-o", str(picture), "--size", "80x24", "--db", str(path)])
    assert code == 0, capsys.readouterr().err
    text = "".join(ElementTree.fromstring(picture.read_text()).itertext()).replace("\xa0", " ")
    assert f"{run} finished" in text
    assert "a matching 1.25" in text
    assert not (tmp_path / "state").exists()  # nothing of the user's own console has changed


@pytest.mark.parametrize(
    ("place", "seen"),
    [
        ("runs", ["[1 Runs]", "dm", "done"]),
        ("compare", ["[3 Compare]", "digits", "50.0"]),
        pytest.param("new", ["New run", "dambench run --method dm"], marks=pytest.mark.slow),  # it asks torch
    ],
)
def test_every_place_can_be_had(place: str, seen: list[str], tmp_path: Path) -> None:
    path, picture = tmp_path / "runs.db", tmp_path / "place.svg"
    with closing(Store.open(path, write=True)) as store:
        ledger.add(store, ledger.config("dm"), [0.5])
    assert run_cli(["shot", place, "-o", str(picture), "--size", "100x30", "--db", str(path)]) == 0
    text = "".join(ElementTree.fromstring(picture.read_text()).itertext()).replace("\xa0", " ")
    for words in seen:
        assert words in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "The console has no place 'nowhere': it has runs"),
        (["live", "--size", "80"], "--size 80 is no size: 160x48 would be one"),
        (["live", "--size", "0x24"], "is no size"),
    ],
)
def test_a_picture_that_cannot_be_had_is_refused_with_a_sentence(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["shot", *arguments, "-o", str(tmp_path / "x.svg"), "--db", str(tmp_path / "none.db")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "x.svg").exists()


def test_a_picture_is_drawn_as_the_console_would_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("NO_COLOR", "")  # so that it is put back
    path = tmp_path / "runs.db"
    with closing(Store.open(path, write=True)) as store:
        ledger.add(store, ledger.config("dm"), [0.5, 0.6])

    Settings().set("theme", "textual-light")

    def picture(*before: str) -> str:
        words = [*before, "shot", "compare", "-o", str(tmp_path / "x.svg"), "--size", "80x24"]
        assert run_cli(["--db", str(path), *words]) == 0
        return (tmp_path / "x.svg").read_text()

    drawn = picture("--ascii")
    text = "".join(ElementTree.fromstring(drawn).itertext()).replace("\xa0", " ")
    assert "55.0 +- - (1x2)" in text
    assert text.isascii()
    assert "#e0e0e0" in drawn  # the background of that theme
    colours = set(re.findall(r"fill: (#[0-9a-f]{6})", picture("--no-color")))
    assert colours <= {"#292929", "#c5c8c6", "#868887"}  # the picture's own two, and dim
    wrong = ["shot", "runs", "-o", str(tmp_path / "x.svg"), "--theme", "none"]
    assert run_cli(["--db", str(path), *wrong]) == 2
