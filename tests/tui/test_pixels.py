import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len
from textual._compositor import ChopsUpdate
from textual.geometry import Region
from textual.pilot import Pilot

from dambench.core import preferences
from dambench.core.half_blocks import Pixels
from dambench.tui.models.placed import Placed
from dambench.tui.terminal import pixels, refresh_rate
from dambench.tui.terminal.pixels import NUMBERS, PLACEHOLDER, KittyImages, PixelTerminal, may_ask, understood
from dambench.tui.widgets.images import _index, _touches
from tests.tui.screen import console, drawn, play, shows, until
from tests.tui.terminal import ANSWERS, Terminal
from tests.tui.test_bytes import LIVE, _measured, _speaking
from tests.tui.test_run import _enter

SIZE = {b"\x1b[16t": b"\x1b[6;20;10t"}
KITTY = {
    pixels.KITTY_QUESTION.encode(): b"\x1b_Gi=1;OK\x1b\\",
    pixels.VERSION_QUESTION.encode(): b"\x1bP>|kitty(0.42.1)\x1b\\",
    **SIZE,
    **ANSWERS,
}
SIXEL = SIZE | ANSWERS | {b"\x1b[c": b"\x1b[?62;4;22c"}
SENT = re.compile(rb"\x1b_Ga=T,U=1,q=2,f=100,i=(\d+),c=(\d+),r=(\d+),")
DRAWN = re.compile(rb"\x1b\[\d+;\d+H\x1bP[^\x1b]*\x1b\\")


def _placed(seed: int = 0, columns: int = 4, rows: int = 2, side: int = 8) -> Placed:
    image = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Placed(0, 0, columns, rows, image)


@pytest.mark.parametrize(
    ("wish", "environ", "asked"),
    [
        ("auto", {"TERM": "xterm-kitty"}, (True, True)),
        ("auto", {"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, (True, False)),
        ("auto", {"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, (True, False)),
        ("auto", {"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, (False, False)),
        ("auto", {"TERM": "xterm-256color"}, (False, False)),
        ("auto", {"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1", "TMUX": "/tmp/tmux"}, (False, False)),
        ("auto", {"TERM": "screen", "KITTY_WINDOW_ID": "1"}, (False, False)),
        ("always", {"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, (True, False)),
        ("always", {"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1", "TMUX": "/tmp/tmux"}, (True, False)),
        ("never", {"TERM": "xterm-kitty"}, (False, False)),
    ],
)
def test_only_a_terminal_that_may_have_pixels_is_asked(
    wish: preferences.PixelWish, environ: dict[str, str], asked: tuple[bool, bool]
) -> None:
    assert may_ask(wish, environ) == asked


@pytest.mark.parametrize(
    ("answer", "terminal"),
    [
        ("\x1b_Gi=1;OK\x1b\\\x1bP>|kitty(0.28.1)\x1b\\\x1b[6;18;9t\x1b[?62;c", PixelTerminal("kitty", (9, 18))),
        ("\x1b_Gi=1;OK\x1b\\\x1bP>|kitty(1.0.0)\x1b\\\x1b[?62;c", PixelTerminal("kitty")),
        ("\x1b_Gi=1;OK\x1b\\\x1bP>|ghostty 1.1.3\x1b\\\x1b[?62;22c", PixelTerminal("kitty")),
        ("\x1b_Gi=1;OK\x1b\\\x1bP>|kitty(0.26.5)\x1b\\\x1b[?62;c", None),  # it has no placeholders yet
        ("\x1b_Gi=1;OK\x1b\\\x1b[?62;c", None),
        ("\x1b_Gi=1;EINVAL:no\x1b\\\x1b[?62;22c", None),
        ("\x1b[?62;22c", None),
        ("\x1b[6;18;9t\x1b[?4;22c", None),  # a VT132, whose kind is 4
        ("\x1b[?62;4;22c", None),  # it does not say how large its characters are
        ("\x1b[6;0;0t\x1b[?62;4;22c", None),
        ("", None),
        ("jk\x1b[A", None),
    ],
)
def test_an_answer_says_what_a_terminal_can(answer: str, terminal: PixelTerminal | None) -> None:
    assert understood(answer) == terminal


def test_sixels_need_a_terminal_with_them_and_their_library() -> None:
    pytest.importorskip("textual_image")
    answer = "\x1b[6;18;9t\x1b[?62;4;22c"
    assert understood(answer) == PixelTerminal("sixel", (9, 18))
    assert understood("\x1b[?62;4;22c", (9, 18)) == PixelTerminal("sixel", (9, 18))
    drawn = pixels.sixels(_placed(), (9, 18))
    assert drawn.startswith("\x1bP")
    assert drawn.endswith("\x1b\\")
    assert all(defined[1] == defined[2] for defined in re.finditer(r"#(\d+);2;\d+;\d+;\d+#(\d+)", drawn))
    assert len(re.findall(r"#\d+;2;\d+;\d+;\d+#", drawn)) == drawn.count(";2;") > 1
    assert '"1;1;36;36' in drawn  # four characters of nine pixels, two lines of eighteen


def test_the_signs_of_rows_and_columns_are_those_of_the_protocol() -> None:
    assert (len(NUMBERS), NUMBERS[0], NUMBERS[1], NUMBERS[-1]) == (297, "\u0305", "\u030d", "\U0001d244")
    assert cell_len(PLACEHOLDER + NUMBERS[0] + NUMBERS[296]) == 1


def test_an_image_is_sent_to_kitty_once_whole_and_given_back() -> None:
    sent: list[str] = []
    images = KittyImages((10, 20), sent.append)
    placed = _placed(side=48)
    lines, size = images.lines(placed)
    assert size == sum(map(len, sent)) > pixels.PART
    assert all(len(message) < pixels.PART + 100 for message in sent)
    assert [message.partition(";")[0][-3:] for message in sent] == ["m=1"] * (len(sent) - 1) + ["m=0"]
    png = base64.b64decode("".join(message.partition(";")[2].removesuffix("\x1b\\") for message in sent))
    shown: Pixels = np.asarray(Image.open(io.BytesIO(png)))
    assert np.array_equal(shown[::1, ::1], placed.image & 0xF8)
    assert [line.plain for line in lines][1] == "".join(PLACEHOLDER + NUMBERS[1] + NUMBERS[x] for x in range(4))
    (number,) = re.findall(r"i=(\d+),c=4,r=2", sent[0])
    assert int(number) == sum(part << shift for part, shift in zip(_colour(lines[0].style), (16, 8, 0), strict=True))
    again, nothing = images.lines(_placed(side=48))
    assert (again, nothing) == (lines, 0)
    assert images.lines(_placed(1))[1] > 0
    sent.clear()
    images.close()
    assert [re.sub(r"\d{2,}", "N", message) for message in sent] == ["\x1b_Ga=d,d=I,q=2,i=N\x1b\\"] * 2


def _colour(style: object) -> tuple[int, int, int]:
    triplet = style.color.triplet  # type: ignore[attr-defined]
    return triplet.red, triplet.green, triplet.blue


@pytest.mark.parametrize(
    ("text", "column", "index"),
    [("abc", 2, 2), ("猫 x", 3, 2), (PLACEHOLDER + NUMBERS[0] + NUMBERS[1] + "x", 1, 3), ("ab", 2, 2), ("", 0, 0)],
)
def test_a_column_is_found_behind_signs_of_two_columns_and_of_none(text: str, column: int, index: int) -> None:
    assert _index(text, column) == index


def test_of_very_many_images_the_ones_shown_longest_ago_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "KEPT", 2)
    sent: list[str] = []
    images = KittyImages((10, 20), sent.append)
    for seed in (0, 1, 0, 2):
        images.lines(_placed(seed))
    assert sum("a=d" in message for message in sent) == 1
    assert images.lines(_placed(0))[1] == 0
    assert images.lines(_placed(1))[1] > 0


def test_a_frame_touches_an_area_if_it_draws_in_it() -> None:
    area = Region(10, 5, 20, 10)
    for span, touches in [((5, 0, 11), True), ((5, 0, 10), False), ((4, 0, 80), False), ((14, 29, 40), True)]:
        assert _touches(ChopsUpdate([], [span], []), area) is touches


def _opened(path: Path, state: Path, answers: dict[bytes, bytes], **environ: str) -> Terminal:
    terminal = Terminal(["--db", str(path)], 160, 48, state, **environ)
    terminal.answers = answers
    return terminal


def test_a_pane_has_placeholders_where_half_blocks_would_be(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    _enter(path, "a1b2", 1, 1.0, pictured=True)
    app, plain, sent = console(path), console(path), list[str]()
    app.pixels, app.kitty = PixelTerminal("kitty"), KittyImages((10, 20), sent.append)
    screens: list[list[str]] = []

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "a1b2")
        await pilot.press("enter", "tab", "tab")
        await shows(pilot, "[Images]", "iteration 100")
        await until(pilot, lambda: PLACEHOLDER in drawn(pilot.app) or "▀" in drawn(pilot.app))
        strips = pilot.app.screen._compositor.render_strips()
        screens.append(["".join(segment.text for segment in strip) for strip in strips])
        before = len(sent)
        await pilot.press("shift+tab", "tab")  # away and back: nothing is sent again
        await shows(pilot, "[Images]", "iteration 100")
        assert len(sent) == before

    play(app, scene, (100, 40))
    app.settings.set("run.section", "Summary")
    play(plain, scene, (100, 40))
    marks = re.compile("[" + "".join(NUMBERS) + "]")
    pixelled, blocks = ([marks.sub("", line).replace(PLACEHOLDER, "▀") for line in screen] for screen in screens)
    assert "▀" not in "".join(screens[0])
    assert pixelled == blocks
    assert sum(PLACEHOLDER in line for line in screens[0]) > 10
    assert any("a=d" in message for message in sent)


@pytest.mark.slow
def test_kitty_is_sent_each_image_once_and_nothing_is_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    _enter(path, "a1b2", 1, 1.0, pictured=True)
    with _opened(path, tmp_path, KITTY, TERM="xterm-kitty") as terminal:
        terminal.wait("a1b2")
        terminal.press("\r")
        terminal.read(10, lambda sent: PLACEHOLDER.encode() in sent)
        terminal.read(0.5)
        numbers = [number for number, _, _ in SENT.findall(terminal.sent)]
        assert len(numbers) == len(set(numbers)) > 0
        before = len(terminal.sent)
        terminal.press("?")
        terminal.wait("everywhere")
        terminal.press("\x1b")
        terminal.read(5.0, lambda sent: PLACEHOLDER.encode() in sent)
        terminal.read(0.7)
        assert PLACEHOLDER.encode() in terminal.sent[before:]
        assert not SENT.findall(terminal.sent[before:])
        assert terminal.read(1.0) < 500
        terminal.press("q")
        assert terminal.ended() == 0
        gone = re.findall(rb"a=d,d=I,q=2,i=(\d+)", terminal.sent)
        assert sorted(gone) == sorted(numbers)
        assert terminal.left_as_it_was()


@pytest.mark.slow
def test_sixels_are_drawn_again_only_where_something_hid_them(tmp_path: Path) -> None:
    pytest.importorskip("textual_image")
    path = tmp_path / "runs.db"
    _enter(path, "a1b2", 1, 1.0, pictured=True)
    with _opened(path, tmp_path, SIXEL, TERM_PROGRAM="WezTerm") as terminal:
        terminal.wait("a1b2")
        terminal.press("\r")
        terminal.read(10, lambda sent: bool(DRAWN.search(sent)))
        terminal.read(2.0)
        assert DRAWN.search(terminal.sent)
        before = len(terminal.sent)
        assert terminal.read(3.0) < 500
        terminal.press("?")
        terminal.wait("everywhere")
        terminal.read(2.0)
        assert not DRAWN.search(terminal.sent[before:])
        terminal.press("\x1b")
        terminal.read(5.0, lambda sent: bool(DRAWN.search(sent)))
        terminal.read(1.0)
        assert DRAWN.search(terminal.sent[before:])
        before = len(terminal.sent)
        terminal.press("%")  # a note that it does nothing comes, and goes after six seconds
        terminal.wait("does nothing")
        terminal.read(2.0)
        assert not DRAWN.search(terminal.sent[before:])
        terminal.read(10.0, lambda sent: bool(DRAWN.search(sent)))
        assert DRAWN.search(terminal.sent[before:])
        terminal.press("q")
        assert terminal.ended() == 0
        assert terminal.left_as_it_was()


@pytest.mark.slow
def test_a_terminal_that_has_no_pixels_gets_none(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    _enter(path, "a1b2", 1, 1.0, pictured=True)
    with _opened(path, tmp_path, ANSWERS, TERM="xterm-kitty") as terminal:
        terminal.wait("a1b2")
        terminal.press("\r")
        terminal.wait("▀▀")
        assert not SENT.search(terminal.sent)
        assert b"\x1bP" not in terminal.sent


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wish", "arguments", "environ"),
    [
        ("never", [], {}),
        ("auto", ["--ascii"], {}),
        ("auto", [], {"NO_COLOR": "1"}),
        ("auto", [], {"TMUX": "/tmp/x,1,0"}),
    ],
    ids=["never", "ascii", "no colour", "tmux"],
)
def test_who_wants_none_or_has_something_between_is_not_asked(
    tmp_path: Path, wish: str, arguments: list[str], environ: dict[str, str]
) -> None:
    path = tmp_path / "runs.db"
    _enter(path, "a1b2", 1, 1.0, pictured=True)
    folder = tmp_path / "dambench"
    folder.mkdir()
    (folder / "config.toml").write_text(f'[console]\npixels = "{wish}"\n')
    environ = {"TERM": "xterm-kitty", "XDG_CONFIG_HOME": str(tmp_path)} | environ
    with Terminal([*arguments, "--db", str(path)], 100, 40, tmp_path, **environ) as terminal:
        terminal.answers = KITTY
        terminal.wait("a1b2")
        terminal.press("\r")
        terminal.wait("Summary")
        terminal.read(1.0)
        assert b"\x1b_G" not in terminal.sent
        assert b"\x1b[16t" not in terminal.sent


@pytest.mark.slow
def test_a_terminal_that_answers_nothing_delays_the_console_by_no_more_than_is_said(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    _enter(path, "a1b2", 1, 1.0, pictured=True)
    with _opened(path, tmp_path, {}, TERM="xterm-kitty") as terminal:
        terminal.wait("a1b2")
        terminal.press("q")
        assert terminal.ended() == 0
        assert terminal.left_as_it_was()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kitty", "sixel"])
def test_live_with_pixels_keeps_to_its_bytes(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture as noisy as they get every 5 s: what is beyond the bytes per second is shown later."""
    if kind == "sixel":
        pytest.importorskip("textual_image")
    path = tmp_path / "runs.db"
    term = {"TERM": "xterm-kitty"} if kind == "kitty" else {"TERM_PROGRAM": "WezTerm"}
    with _speaking(path, monkeypatch), _opened(path, tmp_path, KITTY if kind == "kitty" else SIXEL, **term) as terminal:
        rate = _measured(terminal, 45)
        shown = set((SENT if kind == "kitty" else DRAWN).findall(terminal.sent))
        print(f"{kind}: {rate:.0f} B/s, {len(shown)} images")
    assert len(shown) > 6  # two classes, so more than three pictures
    assert rate <= LIVE[160, 48] + refresh_rate.PIXEL_BYTES
