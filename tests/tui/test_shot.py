import re
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from dambench.cli.app import run_cli
from dambench.core.errors import BadInput
from dambench.store.runs import Store
from dambench.tui import feed, raster
from dambench.tui.settings import Settings
from tests import ledger


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody writes here, and nobody waits for it."""
    monkeypatch.setattr(feed, "AT_LEAST", 0.0)


def test_a_place_of_the_console_can_be_had_as_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
        (["runs", "--size", "80x24", "--keys", "enterr"], "'enterr' is no key"),
        (["runs", "--size", "80x24", "--keys", "q"], "'q' leaves the console"),
    ],
)
def test_a_picture_that_cannot_be_had_is_refused_with_a_sentence(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["shot", *arguments, "-o", str(tmp_path / "x.svg"), "--db", str(tmp_path / "none.db")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "x.svg").exists()


def test_a_picture_is_drawn_as_the_console_would_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize(
    "place", ["run", pytest.param("queue", marks=pytest.mark.slow), pytest.param("report", marks=pytest.mark.slow)]
)
def test_a_picture_may_be_of_pixels(place: str, tmp_path: Path) -> None:
    pytest.importorskip("resvg_py", reason="resvg-py draws them, and cannot be installed everywhere")
    path, picture = tmp_path / "runs.db", tmp_path / "place.png"
    with closing(Store.open(path, write=True)) as store:
        ledger.add(store, ledger.config("dm"), [0.5])
    words = ["shot", place, "-o", str(picture), "--size", "60x16", "--ascii", "--no-color", "--db", str(path)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_COLOR", "")  # so that it is put back
        assert run_cli(words) == 0
    with Image.open(picture) as drawn:
        assert drawn.size == (750, 440)
        shades = drawn.convert("L").getcolors(256) or []
    assert len(shades) > 20  # letters, not blank


def test_what_draws_pixels_is_named_where_it_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        BadInput, match=r"needs resvg-py, and matplotlib for its font: `pip install 'dambench\[pictures\]'`"
    ):
        raster.png("<svg/>")


def test_braille_and_blocks_are_drawn_and_not_as_the_box_of_a_missing_letter() -> None:
    pytest.importorskip("resvg_py", reason="resvg-py draws them, and cannot be installed everywhere")

    def drawn(text: str) -> bytes:
        style = "font-family: Fira Code, monospace; font-size: 20px"
        return raster.png(
            f'<svg xmlns="http://www.w3.org/2000/svg" width="20" height="30"><rect width="20" height="30" fill="#fff"/>'
            f'<text x="2" y="20" style="{style}">{text}</text></svg>'
        )

    signs = [drawn(sign) for sign in ("", "\u2847", "\u28b8", "\u2588", "\u2591", "\u2500", "\U0010ffff")]
    assert len(set(signs)) == len(signs)
