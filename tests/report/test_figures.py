import io
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from xml.dom.minidom import parseString

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from dambench.cli.app import run_cli
from dambench.core import files
from dambench.core.errors import BadInput
from dambench.core.events import Snapshot
from dambench.core.files import digest
from dambench.report import names
from dambench.report.figures import accuracy, curves, drawing, sheet, transfer
from dambench.report.figures.drawing import Drawn, Look
from dambench.store.leaderboard import Leaderboard, leaderboard
from dambench.store.runs import Store
from dambench.training.problem import Normalisation, SyntheticSet
from tests.hostile import NAMES, steering
from tests.ledger import CARD, add, config, words

LOOK = Look()


@pytest.fixture
def full(filled: Path, tmp_path: Path) -> Iterator[Store]:
    """Three sets of each of two methods, one of a third, and the whole set."""
    shutil.copy(filled, tmp_path / "runs.db")
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        yield store


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filled") / "runs.db"
    with closing(Store.open(path, write=True)) as store:
        _fill(store)
    return path


def _fill(store: Store) -> None:
    for ipc, better in ((1, 0.0), (10, 0.2)):
        for seed, spread in ((0, 0.0), (1, 0.03), (2, -0.02)):
            add(store, config("random", ipc=ipc, seed=seed), [0.40 + better + spread, 0.41 + better + spread])
            add(store, config("dm", ipc=ipc, seed=seed), [0.60 + better + spread, 0.62 + better + spread])
        add(store, config("dc", ipc=ipc), [0.5 + better, 0.52 + better])
    add(store, config("whole"), [0.97, 0.98, 0.99])


def _board(store: Store, kind: Any) -> Leaderboard:
    return leaderboard(store, *kind.AXES)


def _drawn(store: Store, kind: Any, look: Look = LOOK) -> Drawn:
    drawn: Drawn = kind.draw(_board(store, kind), look)
    return drawn


def _bars(axes: Any) -> list[tuple[float, float]]:
    """The error bars of axes, from below to above."""
    return [
        (segment[0][1], segment[1][1])
        for container in axes.containers
        if hasattr(container, "has_yerr")
        for segment in container.lines[2][0].get_segments()
    ]


def test_figures_and_tables_have_the_same_numbers(full: Store) -> None:
    board = _board(full, accuracy)
    with drawing.drawing(LOOK):
        figure = accuracy.draw(board, LOOK).figure
    (axes,) = figure.axes
    (table,) = board.tables
    means = [list(line.get_ydata()) for line in axes.lines if len(line.get_ydata()) == 2]
    cells = {row[0]: [table.cells[row, column] for column in table.columns] for row in table.rows}
    for method in ("random", "dc", "dm"):
        assert [pytest.approx(100 * cell.mean) for cell in cells[str(method)]] in means
    bars = _bars(axes)
    intervals = [cell.interval for method in ("random", "dm") for cell in cells[method]]
    assert len(bars) == len(intervals) == 4
    for interval in intervals:
        assert interval is not None
        assert any(bar == pytest.approx((100 * interval.low, 100 * interval.high)) for bar in bars)
    assert [cell.interval for cell in cells["dc"]] == [None, None]
    assert sum(line.get_markerfacecolor() == "white" for line in axes.lines) == 2
    assert axes.get_ylim()[1] <= 101
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "10"]


def test_a_caption_says_what_bars_and_signs_mean(full: Store) -> None:
    with drawing.drawing(LOOK):
        caption = _drawn(full, accuracy).caption
    assert caption.startswith(
        "Accuracy in % over images per class, digits, trained network convnet-d1-w8, protocol quick"
    )
    for sentence in ("95 % confidence intervals, Student's t over sets", "Hollow: of one set", "whole training set."):
        assert sentence in caption


def test_panels_are_what_tables_are(full: Store) -> None:
    add(full, config("dm", network="convnet-d2-w8"), [0.7])
    with drawing.drawing(LOOK):
        figure = _drawn(full, accuracy).figure
    assert [axes.get_title() for axes in figure.axes] == ["convnet-d1-w8", "convnet-d2-w8"]


def test_a_score_that_is_no_number_is_left_out_and_said(store: Store) -> None:
    add(store, config("dm"), [0.5])
    add(store, config("dc"), [float("nan")])
    with drawing.drawing(LOOK):
        drawn = _drawn(store, accuracy)
    assert drawn.notes == ("dc: not finite, and not drawn",)
    assert len(drawn.figure.axes[0].lines) == 2  # a line, and its hollow marker


def _across(store: Store) -> None:
    for seed in range(3):
        for network, score in (("convnet-d1-w8", 0.7), ("vgg11", 0.5), ("resnet18", 0.4)):
            for method, more in (("dm", 0.1), ("random", 0.0)):
                add(store, config(method, seed=seed, evaluate_on=network), [score + more + seed / 100])


def test_bars_across_networks_have_the_numbers_of_the_table(store: Store) -> None:
    _across(store)
    board = _board(store, transfer)
    with drawing.drawing(LOOK):
        drawn = transfer.draw(board, LOOK)
    (axes,) = drawn.figure.axes
    (table,) = board.tables
    heights = {round(patch.get_height(), 6) for patch in axes.patches}
    assert heights == {round(100 * cell.mean, 6) for cell in table.cells.values()}
    assert len(_bars(axes)) == 6
    assert axes.get_ylim()[0] == 0
    assert [text.get_text() for text in axes.get_xticklabels()] == [str(column[0]) for column in table.columns]
    hatches = {patch.get_hatch() for patch in axes.patches}
    assert len(hatches) == 2
    daggers = [text for text in axes.texts if text.get_text() == "†"]
    assert len(daggers) == 1
    assert "†: the network that the set was matched on" in drawn.caption


def test_one_network_makes_no_bars(full: Store) -> None:
    with drawing.drawing(LOOK), pytest.raises(BadInput, match="No set has scores on two networks"):
        _drawn(full, transfer)


def test_curves_are_what_was_logged(full: Store) -> None:
    rows = full.runs("method = 'dm' and ipc = 1 order by seed")
    with drawing.drawing(LOOK):
        for over, xs in (("iterations", [1, 2]), ("seconds", [0.1, 0.2])):
            read = curves.read(full, rows, "both", over)
            drawn = curves.draw(read, over, LOOK)
            loss, score = drawn.figure.axes
            assert [line.get_xdata().tolist() for line in loss.lines] == [xs] * 3
            assert [line.get_ydata().tolist() for line in loss.lines] == [[2.5, 1.25]] * 3
            assert [line.get_xdata().tolist() for line in score.lines] == [xs[-1:]] * 3
            assert [line.get_ydata().tolist()[0] for line in score.lines] == pytest.approx([61.0, 64.0, 59.0])
            (label,) = [text.get_text() for text in drawn.figure.legends[0].get_texts()]
            assert label == "dm (3 seeds)"
        read = curves.read(full, rows, "both", "iterations")
        assert len(curves.draw(read, "iterations", LOOK, only=["matching"], log=True).figure.axes) == 1
        with pytest.raises(BadInput, match=r"No panel is called 'x'.*matching"):
            curves.draw(read, "iterations", LOOK, only=["x"])


def _picture(store: Store, method: str, value: int, *, height: int = 8, ipc: int = 1) -> str:
    """A run whose set has images of one grey each: `value` and 1 more for each class."""
    sheet_ = np.zeros((2 * (height + 1), 9), np.uint8)
    for label in range(2):
        sheet_[label * (height + 1) :][:height, :8] = value + label
    file = io.BytesIO()
    Image.fromarray(sheet_).save(file, "PNG")
    run = config(method, ipc=ipc)
    number = store.create(run, CARD)
    for event in words(run):
        if isinstance(event, Snapshot):
            event = msgspec.structs.replace(event, shape=[2 * ipc, 1, height, 8], preview=file.getvalue())
        for _ in store.record(number, [event]):
            pass
    return number


def test_a_sheet_has_classes_down_and_methods_across(store: Store) -> None:
    ids = [_picture(store, "random", 10), _picture(store, "dm", 200)]
    with drawing.drawing(LOOK):
        drawn = sheet.draw(sheet.read(store, [store.run(one) for one in ids]), [1, 0], None, LOOK)
    left, right = drawn.figure.axes
    assert [axes.get_title() for axes in (left, right)] == ["random", "dm"]
    assert [text.get_text() for text in left.get_yticklabels()] == ["1", "0"]
    for axes, value in ((left, 10), (right, 200)):
        pixels = axes.images[0].get_array()
        assert set(np.unique(pixels)) == {value, value + 1, 255}
        assert pixels[0, 0, 0] == value + 1  # class 1 is asked for first
        assert pixels[-1, 0, 0] == value
    assert drawn.caption == "Synthetic sets on digits, a row per class."


def test_more_than_the_preview_has_comes_from_the_set_where_it_is_here(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.arange(48, dtype=torch.uint8).repeat_interleave(64).view(48, 1, 8, 8)
    labels = torch.arange(2).repeat_interleave(24)
    content = SyntheticSet(images, labels, Normalisation((0.5,), (0.25,)), ("0", "1")).to_bytes()
    run = _picture(store, "dm", 100, ipc=24)
    store.tables.execute("update artifacts set sha256 = ?", digest(content))
    drawn: list[Drawn] = []
    monkeypatch.setattr("dambench.cli.figure._write", lambda kind, figure, *rest: drawn.append(figure))
    command = ["figure", "sheet", run, "-o", "a.pdf", "--images", "3"]
    assert run_cli(command) == 0
    assert set(np.unique(drawn[-1].figure.axes[0].images[0].get_array())) == {100, 101, 255}
    files.write_whole(files.set_path(digest(content)), content)
    assert run_cli(command) == 0
    pixels = drawn[-1].figure.axes[0].images[0].get_array()
    assert set(np.unique(pixels)) == {0, 1, 2, 24, 25, 26, 255}
    assert pixels[0, 0].tolist() == [0, 0, 0]
    assert drawn[-1].caption.endswith("3 of 24 images per class are shown.")


def test_classes_are_chosen_by_name_or_number() -> None:
    classes = ["cat", "dog", "Sea lion", "ox"]
    assert sheet.choose("", classes) == [0, 1, 2, 3]
    assert sheet.choose("sea-lion,0", classes) == [2, 0]
    assert sheet.choose("1-3", classes) == [1, 2, 3]
    assert sheet.choose("", list(map(str, range(50)))) == list(range(20))
    for wrong in ("0,0", "4", "bird", "3-1", "0-99999", "²"):
        with pytest.raises(BadInput):
            sheet.choose(wrong, classes)


def test_the_same_runs_give_the_same_bytes_without_a_date(full: Store) -> None:
    for suffix in drawing.SUFFIXES:
        made, small = [], Look(width=2, height=2, points=5)
        for _ in range(2):
            with drawing.drawing(small):
                made.append(drawing.content(_drawn(full, accuracy, small), suffix))
        assert made[0] == made[1]
        assert not re.search(rb"20[0-9][0-9]-[01][0-9]-|CreationDate|<dc:date>", made[0])


def test_fonts_are_embedded_as_conferences_demand(full: Store) -> None:
    with drawing.drawing(LOOK):
        content = drawing.content(_drawn(full, accuracy), ".pdf")
    assert b"/FontFile2" in content
    assert b"/CIDFontType2" in content
    assert b"/Type3" not in content


def test_signs_are_told_apart_without_colours() -> None:
    signs = [drawing.sign(number) for number in range(drawing.MOST_LINES)]
    assert len({(one.marker, str(one.dashes)) for one in signs}) == len(signs)
    assert len({(one.colour, one.hatch) for one in signs}) == len(signs)
    with pytest.raises(BadInput, match="25 methods cannot be told apart in one figure, 24 can"):
        drawing.check_number(drawing.MOST_LINES + 1, "methods")


def test_names_are_drawn_as_text_and_never_as_markup(store: Store) -> None:
    """A letter that the font lacks would be a warning, and warnings are errors here."""
    with drawing.drawing(LOOK):
        drawn = [drawing.printable(name, LOOK) for name in NAMES]
    assert not any(steering(text) or len(text) > drawing.LONGEST_NAME + 1 for text in drawn)
    assert not any(text.startswith("_") for text in drawn)
    odd = ["$x$ 50% a&b #1 a_b^c ~ {}", r"$\frac{1}{0}$", "$unbalanced", "_hidden", "]]></style>", "--><!--", "\u6570"]
    methods = ["dm", "dc", "dsa", "random", "herding", "kcenter", "datadam"]
    for method in methods:
        add(store, config(method, ipc=1), [0.5, 0.6])
    chosen = names.Names(method=dict(zip(methods, odd, strict=True)), dataset={"digits": "$_$ <b>"})
    token = names.current.set(chosen)
    try:
        with drawing.drawing(LOOK):
            drawn_figure = _drawn(store, accuracy)
            content = drawing.content(drawn_figure, ".svg")
    finally:
        names.current.reset(token)
    labels = [text.get_text().strip() for text in drawn_figure.figure.legends[0].get_texts()]
    assert labels == [*odd[:-1], "\N{REPLACEMENT CHARACTER}"]
    assert "$_$ <b>" in drawn_figure.caption
    parseString(content)


def test_the_order_of_names_is_the_order_of_figures(full: Store) -> None:
    token = names.current.set(names.Names(method={"dm": "DM", "whole": "All"}))
    try:
        with drawing.drawing(LOOK):
            figure = _drawn(full, accuracy).figure
    finally:
        names.current.reset(token)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["DM", "All‡", "random", "dc"]


# The command.


def test_a_figure_is_written_with_what_latex_needs(full: Store, capsys: pytest.CaptureFixture[str]) -> None:
    Path("names.toml").write_text('label = "dd"\n[caption]\nfigure-accuracy = "Ours & theirs. {caption}"')
    command = ["figure", "accuracy", "-o", "ipc.pdf", "--size", "column", "--names", "names.toml", "--latex", "ipc.tex"]
    assert run_cli(command) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "Written: ipc.pdf. Ours & theirs. Accuracy in % over images per class" in said.err
    assert Path("ipc.pdf").read_bytes().startswith(b"%PDF")
    text = Path("ipc.tex").read_text()
    assert r"\includegraphics[width=3.25in]{ipc.pdf}" in text
    assert r"\caption{Ours \& theirs. Accuracy in \% over" in text
    assert r"\label{fig:dd-accuracy}" in text


def test_runs_are_named_by_ids_or_a_filter(full: Store, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [row.id for row in full.runs("method = 'dm' and ipc = 10")]
    assert run_cli(["figure", "curves", *ids, "-o", "a.svg"]) == 0
    assert run_cli(["figure", "curves", "--filter", "method:dm ipc:10", "-o", "b.svg"]) == 0
    assert Path("a.svg").read_bytes() == Path("b.svg").read_bytes()
    assert "of 3 runs" in capsys.readouterr().err


WRONG = {
    ("accuracy", "-o", "a.gif"): "a figure has the suffix .pdf or .svg or .png, not .gif",
    ("accuracy", "-o", "a"): "has no suffix: .pdf, .svg or .png",
    ("accuracy", "-o", "no/a.pdf"): "there is no such folder",
    ("accuracy", "-o", "a.pdf", "--size", "huge"): "--size 'huge' is no size: column (3.25 inches wide)",
    ("accuracy", "-o", "a.pdf", "--size", "3x99"): "each from 1 to 40",
    ("accuracy", "-o", "a.pdf", "--font", "Comic Noone"): "--font 'Comic Noone' is no font that matplotlib finds",
    ("accuracy", "-o", "a.svg", "--latex", "a.tex"): "LaTeX includes no SVG",
    ("accuracy", "-o", "a b.pdf", "--latex", "a.tex"): "unlike 'a b.pdf'",
    ("accuracy", "-o", "a.pdf", "--filter", "method:nobody"): "No finished run is meant by the filter",
    ("accuracy", "-o", "a.pdf", "--metric", "nothing"): "nothing",
    ("curves", "-o", "a.pdf"): "Which runs?",
    ("curves", "nothing", "-o", "a.pdf"): "No run has the id 'nothing'",
    ("curves", "--filter", "method:dm", "x", "-o", "a.pdf"): "by their ids or by --filter, not by both",
    ("curves", "--filter", "method:dm", "--show", "gain", "-o", "a.pdf"): "gain",
    ("sheet", "--filter", "method:nobody", "-o", "a.pdf"): "No run is meant by the filter",
    ("sheet", "--filter", "ipc:1", "-o", "a.pdf"): "cannot be read: the preview is smaller than one image",
}


@pytest.mark.parametrize(("command", "said"), WRONG.items(), ids=[" ".join(command) for command in WRONG])
def test_what_cannot_be_drawn_is_said(
    full: Store, capsys: pytest.CaptureFixture[str], command: tuple[str, ...], said: str
) -> None:
    before = sorted(Path.cwd().iterdir())
    assert run_cli(["figure", *command]) == 2
    assert said in capsys.readouterr().err
    assert sorted(Path.cwd().iterdir()) == before


def test_matplotlib_is_imported_where_figures_are_drawn_and_nowhere_before() -> None:
    package = Path(drawing.__file__).parents[2]
    sources = {file: file.read_text() for file in package.rglob("*.py") if "matplotlib" in file.read_text()}
    assert drawing.__file__ in map(str, sources)
    assert not [file for file, text in sources.items() if re.search("^(import|from) matplotlib", text, re.M)]


def test_what_is_too_small_for_its_panels_is_said(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for network in range(4):
        add(store, config("dm", network=f"convnet-d1-w{network + 1}"), [0.5])
    assert run_cli(["figure", "accuracy", "-o", "a.pdf", "--size", "1x1"]) == 2
    assert "The figure has no room for its 4 panels: choose a larger --size" in capsys.readouterr().err
    assert not Path("a.pdf").exists()


def test_without_matplotlib_the_command_says_how_to_get_it(
    full: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run_cli(["figure", "accuracy", "-o", "a.pdf"]) == 2
    assert 'Figures need matplotlib, which is not installed: pip install "dambench[figures]"' in capsys.readouterr().err
    assert not Path("a.pdf").exists()


def test_the_users_own_settings_of_matplotlib_change_nothing(full: Store) -> None:
    import matplotlib

    with drawing.drawing(LOOK):
        usual = drawing.content(_drawn(full, accuracy), ".svg")
    with matplotlib.rc_context({"text.usetex": True, "lines.linewidth": 9.0, "savefig.bbox": "tight"}):
        with drawing.drawing(LOOK):
            assert drawing.content(_drawn(full, accuracy), ".svg") == usual
        assert matplotlib.rcParams["lines.linewidth"] == 9.0
