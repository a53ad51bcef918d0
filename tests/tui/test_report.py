import shlex
from contextlib import closing
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from dambench.cli.app import run_cli
from dambench.core.protocol import PRESETS
from dambench.report.document import DocumentQuery
from dambench.store import records
from dambench.store.runs import Store
from dambench.tui.models.document import Document, DocumentReader, make, preview_lines
from dambench.tui.screens.report import ReportScreen
from dambench.tui.widgets.lines import Lines
from tests import ledger
from tests.tui.screen import SIZES, console, drawn, play, said, shows, snapshot, until


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two methods under one protocol, one of them under another too, and a run that was stopped."""
    monkeypatch.setenv("DAMBENCH_DB", str(tmp_path / "runs.db"))
    monkeypatch.chdir(tmp_path)
    names = iter(f"run{letter}22" for letter in "abcdefghij")
    monkeypatch.setattr(records, "new_id", names.__next__)
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        for method, seed in (("random", 0), ("dm", 0), ("dm", 1)):
            ledger.add(store, ledger.config(method, 1, seed), (0.5, 0.52), recipe="a table")
        ledger.add(store, ledger.config("dm", protocol=PRESETS["dc"]), (0.4, 0.41))
        ledger.add(store, ledger.config("dm", 10), end=ledger.stopped())
    return tmp_path / "runs.db"


async def _there(pilot: Pilot[None]) -> ReportScreen:
    await pilot.press("5")
    await shows(pilot, "[5 Report]", "# Dataset distillation benchmark")
    place = pilot.app.screen
    assert isinstance(place, ReportScreen)
    return place


async def _typed(pilot: Pilot[None], text: str) -> None:
    pilot.app.screen.query_one(Input).value = text
    await pilot.press("enter")


@pytest.mark.parametrize("size", SIZES)
def test_the_report_before_it_is_written(path: Path, size: tuple[int, int]) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        await _there(pilot)
        await snapshot(pilot, "report")

    play(console(path), scene, size)


def test_what_is_previewed_and_written_is_what_the_command_writes(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []

    async def scene(pilot: Pilot[None]) -> None:
        place = await _there(pilot)
        assert place._document is not None
        seen.append(place._document.text)
        await pilot.press("w")
        await _typed(pilot, "first.md")
        await until(pilot, lambda: "Written: " in said(pilot.app))
        await pilot.press("v")
        await shows(pilot, "What rows stand for")
        await pilot.press("j", "enter")  # datasets, and so methods are columns
        await shows(pilot, "dataset by ")
        await pilot.press("f")
        await shows(pilot, "Format")
        await pilot.press("home", "enter")  # csv
        await shows(pilot, "csv", "--format csv")
        seen.append(place.to_copy())
        await pilot.press("w")
        await shows(pilot, "Write the report", "first.csv")
        await pilot.press("enter")
        await until(pilot, lambda: (path.parent / "first.csv").exists())

    play(console(path), scene, (120, 40))
    assert run_cli(["report"]) == 0
    assert capsys.readouterr().out == seen[0] == Path("first.md").read_text()
    written = Path("first.csv").read_bytes()
    Path("first.csv").unlink()
    words = seen[1].split()
    assert words[:2] == ["dambench", "report"]
    assert run_cli(words[1:]) == 0
    assert Path("first.csv").read_bytes() == written


def test_rows_columns_cells_order_and_groups_are_those_of_the_command(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[str, str]] = []

    async def scene(pilot: Pilot[None]) -> None:
        place = await _there(pilot)
        for key, box, keys, words in (
            ("R", "Rows", ("space", "enter"), "--hide dm"),
            ("o", "The order of rows", ("j", "enter"), "--order name"),
            ("M", "What cells show", ("j", "space", "enter"), "--show metric,interval"),
            ("T", "Group runs by", ("space", "enter"), "--group ipc,method"),
        ):
            await pilot.press(key)
            await shows(pilot, box)
            await pilot.press(*keys)
            await shows(pilot, words)
            await until(pilot, lambda: place._document is not None and place._document.query == place._query)
        assert place._document is not None
        seen.append((place.to_copy(), place._document.text))

    play(console(path), scene, (160, 60))
    ((command, text),) = seen
    assert run_cli(shlex.split(command)[1:]) == 0
    assert (path.parent / "report.md").read_text() == text


def test_what_is_missing_or_mixed_is_named_with_the_command_that_helps(path: Path) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        await _there(pilot)
        await pilot.press("exclamation_mark")
        await shows(
            pilot,
            "Missing or mixed",
            "missing: 5 random draws (digits IPC 1",
            "dambench run --headless --dataset digits --protocol dc --method random",
        )
        box = drawn(pilot.app)
        assert "never in one cell together" in box or pilot.app.screen.query("#box")[0].max_scroll_y > 0

    play(console(path), scene, (160, 100))
    with closing(Store.open(path)) as store:
        found = make(store, DocumentQuery())
    texts = [remark.text for remark in found.remarks]
    assert any("Protocols dc" in text and "never in one cell together" in text for text in texts)
    assert "Unfinished runs left out: 1." in texts
    assert all("dambench run" in remark.command for remark in found.remarks if "missing:" in remark.text)


@pytest.mark.slow
def test_a_filter_leaves_runs_out_and_one_that_means_none_says_so(path: Path) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        place = await _there(pilot)
        await pilot.press("slash")
        await _typed(pilot, "method:random")
        await shows(pilot, "1 run ", "filter method:random")
        assert place.to_copy() == "dambench report --filter method:random --output report.md"
        await pilot.press("slash")
        await _typed(pilot, "method:none")
        await shows(pilot, "No finished run is meant by the filter 'method:none'", "clear the filter")
        await pilot.press("escape")
        await shows(pilot, "4 runs")
        await pilot.press("slash")
        await _typed(pilot, "nothing:0")
        await until(pilot, lambda: "nothing" in said(pilot.app))
        assert place._query.filter == ""

    play(console(path), scene)


@pytest.mark.slow
def test_sections_and_the_short_form_are_those_of_the_command(path: Path) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        place = await _there(pilot)
        await pilot.press("t")
        await shows(pilot, "short: the tables of accuracy", "dambench report --output report.md --short")
        await pilot.press("s")
        await shows(pilot, "Sections")
        await pilot.press("space", "enter")  # without the summary
        await shows(pilot, "accuracy, baselines, cross-architecture")
        assert place._document is None or "What this shows" not in place._document.text
        assert "--sections accuracy,baselines" in place.to_copy()

    play(console(path), scene, (160, 48))


@pytest.mark.slow
def test_a_file_is_written_over_only_after_a_question_and_a_wrong_name_is_refused(path: Path) -> None:
    Path("report.md").write_text("mine")

    async def scene(pilot: Pilot[None]) -> None:
        await _there(pilot)
        await pilot.press("w")
        await shows(pilot, "Write the report")
        await pilot.press("enter")
        await shows(pilot, "Write over report.md?")
        await pilot.press("escape")
        assert Path("report.md").read_text() == "mine"
        await pilot.press("w")
        await _typed(pilot, "none/report.md")
        await until(pilot, lambda: "none" in said(pilot.app))

    play(console(path), scene)
    assert not Path("none").exists()


def test_nobody_at_a_browser_writes_files_here(path: Path) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        await _there(pilot)
        await pilot.press("w")
        await until(pilot, lambda: "not written from a browser" in said(pilot.app))
        await pilot.press("E")
        await until(pilot, lambda: "no $PAGER in a browser" in said(pilot.app))

    play(console(path, served=True, readonly=True), scene)


def test_lines_that_are_laid_out_are_looked_at_by_going_right(path: Path) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        place = await _there(pilot)
        pane = place.query_one("#preview", Lines)
        await pilot.press("G")
        await until(
            pilot, lambda: "of" in str(pane.border_subtitle) and not str(pane.border_subtitle).startswith("line 1-")
        )
        last = pane.lines[-1].plain
        await pilot.press("l")
        await until(pilot, lambda: "from column 9" in str(pane.border_subtitle))
        assert pane.lines[-1].plain == last  # a sentence is wrapped, and stays
        await pilot.press("h", "g")
        await until(pilot, lambda: str(pane.border_subtitle).startswith("line 1-"))

    play(console(path), scene)
    found = Document(DocumentQuery(), DocumentQuery(), "| a | b |\n- one two three\n    dambench run --method dm")
    assert [line.plain for line in preview_lines(found, 10)] == [
        "| a | b |",
        "- one two",
        "  three",
        "    dambench run --method dm",
    ]
    assert preview_lines(found, 10, 4)[0].plain == "| b |"


def test_a_report_is_made_anew_only_where_it_can_be_another(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[DocumentQuery] = []

    def counted(store: Store, query: DocumentQuery) -> Document:
        made.append(query)
        return make(store, query)

    monkeypatch.setattr("dambench.tui.models.document.make", counted)
    reader = DocumentReader()
    with closing(Store.open(path, write=True)) as store:
        first = reader.read(store, DocumentQuery())
        assert reader.read(store, DocumentQuery()) is first
        ledger.add(store, ledger.config("dm", 1, 7), (0.6, 0.7), recipe="a table")
        reader._again = 0.0
        assert reader.read(store, DocumentQuery()).finished == first.finished + 1
    assert len(made) == 2


def test_without_a_database_the_first_command_is_named(tmp_path: Path) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        await pilot.press("5")
        await shows(pilot, "There is no database", "dambench run")
        await pilot.press("w")
        await until(pilot, lambda: "no report to write yet" in said(pilot.app))

    play(console(tmp_path / "none.db"), scene)
