"""Sixty hostile names, in every place that a name can be in, through everything that is printed."""

import csv
import io
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.dom.minidom import parseString

import msgspec
import pytest
from rich.cells import cell_len
from rich.console import Console

from dambench.cli import output
from dambench.cli.app import run_cli
from dambench.cli.output import Watch
from dambench.core import files, registry
from dambench.core.config import Plugin, RunConfig
from dambench.core.events import (
    Adapted,
    AnyEvent,
    Failed,
    Neighbour,
    Progressed,
    Sampled,
    Started,
    Stepped,
    Stopped,
    Warned,
)
from dambench.core.files import digest
from dambench.core.narration import summary
from dambench.core.sanitize import display
from dambench.report.sections import SECTIONS
from dambench.runner import processes
from dambench.store.leaderboard import Table, leaderboard
from dambench.store.runs import Store
from tests import ledger
from tests.hostile import NAMES, steering

METHODS = ("dm", "random", "whole")


def _card(name: str, number: int) -> Any:
    label = name or "unnamed"
    classes = [f"{name}{c}" for c in range(2)]
    sha256 = digest(str(number).encode())
    return msgspec.structs.replace(ledger.CARD, label=label, classes=classes, sha256=sha256, notes=[name])


def _config(name: str, method: str, **more: Any) -> RunConfig:
    """Of a method whose code is from a package of that name."""
    code = Plugin(kind="methods", name=name, package=name, version=name, sha256=digest(name.encode()))
    return msgspec.structs.replace(ledger.config(method, **more), plugins=(code,) if method == "dm" else ())


def _words(name: str, number: int, method: str) -> Iterator[AnyEvent]:
    """All that a run says, and the name wherever a text is its own."""
    lone = f"{name}\udc9b"
    machine = msgspec.structs.asdict(ledger.ENVIRONMENT)
    texts = {key: lone for key, value in machine.items() if isinstance(value, str)}
    environment = msgspec.structs.replace(ledger.ENVIRONMENT, **texts)
    run = _config(name, method)
    for event in ledger.words(run, [0.5, 0.6], card=_card(name, number), overrides={"option": lone}, recipe=lone):
        if isinstance(event, Started):
            event = msgspec.structs.replace(event, environment=environment)
        if isinstance(event, Warned):
            yield Sampled(seconds=0.0, gpu_neighbours=[Neighbour(pid=1, name=lone, memory_bytes=None)])
            yield Warned(message=lone)
            yield Adapted(iteration=1, what=lone, value=1, reason=lone)
            yield Progressed(phase=name, done=0, total=1, note=lone)
            event = Stepped(iteration=1, losses={name: 1.0}, seconds=1.0)
        yield event


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A database in which each name is a run, a dataset, a note, …; and the ids of runs that failed."""
    path = tmp_path_factory.mktemp("hostile") / "runs.db"
    failed = []
    with closing(Store.open(path, write=True)) as store:
        for number, name in enumerate(NAMES):
            for method in METHODS:
                run = store.create(_config(name, method), _card(name, number), name, [name, "tag"])
                for _ in store.record(run, _words(name, number, method)):
                    pass
            run = store.create(_config(name, "dm", seed=9), _card(name, number), name)
            end = Failed(error=f"{name}\udc9b", traceback=f"Traceback\n  {name}\udc9b\nError: {name}", costs=[])
            for _ in store.record(run, ledger.words(ledger.config("dm"), card=_card(name, number), end=end)):
                pass
            failed.append(run)
        # The same again as a foreign database would have it: nothing was made harmless when it was stored.
        for number, name in enumerate(NAMES):
            sql = "update runs set name = ?, dataset = ? where dataset_sha256 = ? and method = 'random'"
            store.db.conn.execute(sql, [name, name, digest(str(number).encode())])
            sql = (
                "update environments set host = ?, device_name = ? where run in (select number from runs where id = ?)"
            )
            store.db.conn.execute(sql, [name, name, failed[number]])
            store.db.conn.execute("update runs set traceback = ?, error = ? where id = ?", [name, name, failed[number]])
    return path, failed


@pytest.fixture(autouse=True)
def _this_database(full: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAMBENCH_DB", str(full[0]))


def _printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run_cli(arguments) == 0
    printed = capsys.readouterr()
    assert not steering(printed.out + printed.err)
    return printed.out


def test_there_are_sixty_names_and_more() -> None:
    assert len(set(NAMES)) == len(NAMES) >= 60
    assert sum(bool(steering(name)) for name in NAMES) > 20


def test_what_is_stored_is_harmless(full: tuple[Path, list[str]]) -> None:
    texts = []
    with closing(sqlite3.connect(full[0])) as plain:
        where = "method != 'random' and state = 'finished'"
        for table, columns in (("runs", "name, dataset, recipe, error"), ("datasets", "label")):
            of = f" where {where}" if table == "runs" else ""
            texts += [text for row in plain.execute(f"select {columns} from {table}{of}") for text in row]
        finished = f"select number from runs where {where}"
        for table in ("environments", "tags", "events", "samples"):
            for row in plain.execute(f"select * from {table} where run in ({finished})"):
                texts += [text for text in row if isinstance(text, str)]
    bodies = [text for text in texts if text.startswith("{") and '"data":' in text]
    assert len(texts) > 20 * len(NAMES)
    assert not steering("".join(text for text in texts if text not in bodies))
    # Started holds the card, whose labels `datasets` made harmless when it prepared them: as JSON it is escaped.
    assert "\x1b" not in "".join(bodies)


def test_runs_has_a_line_for_each_run(capsys: pytest.CaptureFixture[str]) -> None:
    lines = _printed(capsys, "runs", "--all").splitlines()
    assert len(lines) == 2 + 4 * len(NAMES)
    assert len(json.loads(_printed(capsys, "runs", "--all", "--json"))) == 4 * len(NAMES)


def test_show_tells_of_each_run(capsys: pytest.CaptureFixture[str], full: tuple[Path, list[str]]) -> None:
    with closing(Store.open(full[0])) as store:
        ids = [row["id"] for row in store.query("select id from runs where method = 'random' order by number")]
    for run in ids:
        assert f"{run}" in _printed(capsys, "show", run)
    for run in full[1]:
        assert json.loads(_printed(capsys, "show", run, "--json"))["run"]["id"] == run


def test_logs_and_watch_tell_of_each_run(capsys: pytest.CaptureFixture[str], full: tuple[Path, list[str]]) -> None:
    for run in full[1]:
        assert _printed(capsys, "logs", run).splitlines()[-1].startswith("failed: ")
    for run in full[1][::8]:
        assert run_cli(["watch", run]) == 1
        printed = capsys.readouterr()
        assert "failed: " in printed.err
        assert not steering(printed.out + printed.err)


def test_a_log_file_is_shown_line_by_line(capsys: pytest.CaptureFixture[str], full: tuple[Path, list[str]]) -> None:
    log = files.log_folder() / "\u202elog\x1b[2J.log"
    log.parent.mkdir(parents=True)
    log.write_bytes("\n".join(NAMES).encode() + b"\xff\x1b]52;c;aGk=\x07")
    with closing(Store.open(full[0], write=True)) as store:
        here = processes.this_process().host
        store.db.conn.execute("update runs set log = ?, host = ? where id = ?", [str(log), here, full[1][0]])
        store.db.conn.execute("update runs set log = ? where id = ?", [f"{log}.gone", full[1][1]])
    lines = _printed(capsys, "logs", full[1][0]).splitlines()
    assert len(lines) == len("\n".join(NAMES).split("\n"))
    assert _printed(capsys, "logs", full[1][1])


@pytest.mark.parametrize("form", registry.names("formats"))
def test_a_report_twice_is_the_same_bytes(capsys: pytest.CaptureFixture[str], form: str) -> None:
    assert _printed(capsys, "report", "--format", form) == _printed(capsys, "report", "--format", form)


@pytest.fixture
def table(full: tuple[Path, list[str]]) -> Table:
    with closing(Store.open(full[0])) as store:
        (table,) = leaderboard(store).tables
    assert len(table.cells) == 3 * len(NAMES)
    return table


def test_markdown_has_the_right_rows_and_cells(capsys: pytest.CaptureFixture[str], table: Table) -> None:
    text = _printed(capsys, "report", "--short")
    lines = [re.sub(r"\\.", "", line) for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(table.rows) + 1
    for line in lines:
        assert line.count("|") == 1 + 1 + len(table.columns)
        assert not re.search(r"[<`]|!\[", line)


def _pieces(text: str) -> list[list[str]]:
    bodies = re.findall(r"\\midrule\n(?:    \\endhead\n)?(.*?)\n    \\bottomrule", text, re.S)
    return [body.splitlines() for body in bodies]


def _cells(line: str) -> int:
    return 1 + len(re.findall(r"(?<!\\)&", line))


def test_latex_has_the_right_rows_and_cells(capsys: pytest.CaptureFixture[str], table: Table) -> None:
    text = _printed(capsys, "report", "--format", "latex", "--sections", "accuracy,cost")
    accuracy, costs = (_pieces(part) for part in text.split(r"\caption{What it took", 1))
    assert len(accuracy) > 1, "it is too wide for one"
    assert all(len(lines) == len(table.rows) + 1 for lines in accuracy)
    assert all(len(lines) >= len(table.rows) for lines in costs)
    assert sum(_cells(lines[0]) - 1 for lines in accuracy) == len(table.columns)
    for lines in (*accuracy, *costs):
        cells = _cells(lines[0])
        for line in lines:
            assert line.endswith(r" \\")
            bare = re.sub(r"\\[{}$&#%_]", "", line)
            assert bare.count("&") == cells - 1, line
            assert "%" not in bare
            assert bare.count("{") == bare.count("}")
            assert not re.search(r"(?<!\{)[\[*]", line)
    known = {"begin", "end", "centering", "caption", "toprule", "midrule", "bottomrule", "par", "footnotesize", "item"}
    known |= {"textbf", "textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar"}
    known |= {"pm", "times", "geq", "usepackage", "paragraph", "endhead", "sloppy", "small", "setlength", "tabcolsep"}
    known |= {"arraybackslash", "raggedright", "raggedleft"}
    assert set(re.findall(r"\\([a-zA-Z]+)", text)) <= known
    assert set(re.findall(r"\\(?:begin|end)\{(\w+)\}", text)) == {"longtable", "itemize"}


def test_csv_has_a_line_per_cell_and_no_formula(capsys: pytest.CaptureFixture[str]) -> None:
    head, *lines = csv.reader(io.StringIO(_printed(capsys, "report", "--format", "csv")))
    assert len(lines) == 3 * len(NAMES)
    for line in lines:
        assert len(line) == len(head)
        cell = dict(zip(head, line, strict=True))
        assert float(cell["accuracy"]) == pytest.approx(0.55)
        assert int(cell["networks"]) == 2
        assert len(cell["protocol_sha256"]) == 64
        for name in ("method", "dataset", "network", "protocol"):
            assert not cell[name].strip().startswith(("=", "+", "-", "@"))
    assert {"'=cmd|' /C calc'!A0", "'+1+1", "'-2+3", "'@SUM(1)"} <= {line[1].partition("#")[0] for line in lines}


@pytest.mark.parametrize("section", SECTIONS)
def test_csv_of_each_section_has_whole_lines_and_no_formula(capsys: pytest.CaptureFixture[str], section: str) -> None:
    head, *lines = csv.reader(io.StringIO(_printed(capsys, "report", "--format", "csv", "--sections", section)))
    for line in lines:
        assert len(line) == len(head)
        assert not [cell for cell in line if cell.strip().startswith(("=", "+", "-", "@")) and not _is_number(cell)]
        assert not any(map(steering, line))


def _is_number(text: str) -> bool:
    with suppress(ValueError):
        return isinstance(float(text), float)
    return False


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)


def test_html_has_only_our_tags_and_fetches_nothing(capsys: pytest.CaptureFixture[str], table: Table) -> None:
    text = _printed(capsys, "report", "--format", "html", "--short")
    page = _Page()
    page.feed(text)
    page.close()
    assert page.open == []
    structure = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "ul", "li"}
    assert set(page.tags) <= structure | {"table", "thead", "tbody", "tr", "th", "td", "small", "strong"}
    assert page.attributes == {"lang", "charset", "http-equiv", "content", "name"}
    assert page.tags.count("tr") == 1 + len(table.rows) + 1
    assert page.tags.count("th") == 1 + len(table.columns)
    assert page.tags.count("td") == (len(table.rows) + 1) * (1 + len(table.columns))
    assert "default-src 'none'" in text


def test_html_of_all_sections_has_only_our_tags(capsys: pytest.CaptureFixture[str]) -> None:
    page = _Page()
    page.feed(_printed(capsys, "report", "--format", "html", "--sections", "all"))
    page.close()
    structure = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "ul", "li", "pre"}
    assert set(page.tags) <= structure | {"table", "thead", "tbody", "tr", "th", "td", "small", "strong"}
    assert page.attributes == {"lang", "charset", "http-equiv", "content", "name"}


def test_json_holds_every_cell(capsys: pytest.CaptureFixture[str]) -> None:
    text = _printed(capsys, "report", "--format", "json")
    assert text.isascii()
    board = json.loads(text)
    assert sum(len(table["cells"]) for table in board["tables"]) == 3 * len(NAMES)


def test_a_terminal_of_80_columns_draws_each_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def console(**options: Any) -> Console:
        return Console(force_terminal=True, width=80, color_system=None, **options)

    monkeypatch.setattr(output, "Console", console)
    for name in NAMES:
        output.table(["id", "name", "accuracy"], [["abcdef", name, "50.0 %"], ["ghijkl", "plain", None]])
        drawn = capsys.readouterr().out
        assert not steering(drawn), name
        assert all(cell_len(line) <= 80 for line in drawn.splitlines())
        ids = [line.split()[0] for line in drawn.splitlines() if line.startswith((" abcdef ", " ghijkl "))]
        assert ids == ["abcdef", "ghijkl"], name


@pytest.mark.parametrize("terminal_there", [True, False])
def test_a_watch_shows_each_name(terminal_there: bool) -> None:
    for number, name in enumerate(NAMES):
        file = io.StringIO()
        told = Console(file=file, force_terminal=terminal_there, width=80, color_system=None)
        with Watch(told, total=2) as watch:
            for event in (
                *_words(name, number, "dm"),
                Stopped(signal=name, phase=name, iteration=1, costs=[]),
                Failed(error=name, traceback=name, costs=[]),
            ):
                watch.show(event)
            watch.say(name)
            if watch.progress is not None:
                watch.progress.refresh()
        # What rich itself sends moves the cursor, clears a line, or hides the cursor: never more than that.
        ours = re.sub(r"\x1b\[(\?25[lh]|\d*[AKGB]|2K|1A)|\r", "", file.getvalue())
        assert not steering(ours), (name, ours)


def test_a_log_has_a_line_per_event(full: tuple[Path, list[str]]) -> None:
    for number, name in enumerate(NAMES):
        for event in _words(name, number, "dm"):
            line = summary(event)
            assert line is None or (not steering(line) and len(line) <= 500)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["runs", "compare", "live", "new"])
def test_a_picture_of_the_console_is_whole_and_harmless(
    full: tuple[Path, list[str]], tmp_path: Path, place: str
) -> None:
    for run in full[1][::9] if place == "live" else full[1][:1]:
        assert run_cli(["shot", place, "-o", str(tmp_path / "x.svg"), "--run", run, "--keys", "j,j"]) == 0
        drawn = (tmp_path / "x.svg").read_text()
        assert not steering(drawn.replace("\n", ""))
        assert "<script" not in drawn
        parseString(drawn.encode())


def _files(folder: Path) -> list[Path]:
    """What is in the folder, but for dambench's own, and what lies beside it."""
    inside = [path for path in folder.rglob("*") if "home" not in path.relative_to(folder).parts]
    return sorted([*inside, *folder.parent.iterdir()])


def test_options_that_are_names_make_no_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    before = _files(tmp_path)
    for name in NAMES:
        if "\0" in name:
            continue
        for arguments in (
            ["run", "--headless", "--method", name, "--dataset", "digits"],
            ["run", "--headless", "--method", "dm", "--dataset", name],
            ["run", "--headless", "--method", "dm", "--dataset", "digits", "--protocol", name or "?"],
            ["show", name or "?"],
            ["report", "--format", name],
            ["import", name or "?", "--dataset", "digits"],
        ):
            assert run_cli(arguments) == 2, arguments
        assert not steering(capsys.readouterr().err)
    assert _files(tmp_path) == before
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == ["data", "sets"]
    assert list((tmp_path / "home" / "sets").iterdir()) == []


def test_names_are_cut_where_they_are_too_long_and_stay_recognisable() -> None:
    assert len(display("x" * 10_000)) == 200
    assert display("../../../../outside") == "../../../../outside"


@pytest.mark.slow
def test_figures_draw_names_as_text(full: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    with closing(Store.open(full[0])) as store:
        ids = [row.id for row in store.runs("method = 'dm' and state = 'finished' order by number")]
    for number, start in enumerate(range(0, len(ids), 20)):
        _printed(capsys, "figure", "curves", *ids[start : start + 20], "-o", f"{number}.svg", "--size", "20x40")
        drawn = Path(f"{number}.svg").read_text()
        assert not steering(drawn)
        parseString(drawn)
